"""For Kubernetes: a ConfigMap that holds the config, and a CronJob. Every path in the pod is the path it has here."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pipeline.config import Config, mask_uri, mask_url, split_uri
from pipeline.config.masking import FROM_ENVIRONMENT
from pipeline.config.sections import PATH_KEYS
from pipeline.errors import ConfigError
from pipeline.schedule.daily_run import LONGEST_S, DailyRun, folder_of
from pipeline.schedule.render import Printed, fill

IMAGE = "registry.example.com/classify:latest"
JOIN_S = 3600  # after the deadline: what is answered may still be being written
LONGEST_BACKOFF_S = 360  # between two pods: 10 s, 20 s, 40 s ... up to this
SHORTER_BACKOFFS = 6  # the first waits
LOCALTIME = Path("/etc/localtime")


def render_kubernetes(run: DailyRun, *, image: str | None, timezone: str | None) -> Printed:
    """Return both objects, fit for `kubectl apply -f -`; `timezone` is by default this machine's."""
    zone, image_name, config = _zone(timezone), image or IMAGE, run.config
    if found := next(_secrets_in(config), None):
        raise ConfigError(f"{run.path}: {found}")
    mapped = {str(run.path): "config.toml"}
    if config.server.ca_bundle:
        mapped[str(Path(config.server.ca_bundle).absolute())] = "ca.pem"
    claimed = _claimed(config)
    if odd := next((path for path in (*mapped, *claimed) if ":" in path), None):
        raise ConfigError(f"{odd}: Kubernetes mounts no path with a colon; rename it")
    mounts = [line for path, key in mapped.items() for line in _mount("config", path, key, "readOnly: true")]
    mounts += [line for path, folder in claimed.items() for line in _mount("files", path, folder)]
    lines = fill(
        "kubernetes.yaml",
        run,
        zone=zone,
        zone_string=yaml_string(zone),
        image_word=shlex.quote(image_name),
        image_string=yaml_string(image_name),
        env_word=shlex.quote(run.beside(".env")),
        config_argument=yaml_string(str(run.path).replace("$(", "$$(")),  # $(NAME) would be a variable
        length_s=run.length_s,
        longest_s=min(LONGEST_S, run.length_s + JOIN_S),
        retries=SHORTER_BACKOFFS + math.ceil(run.length_s / LONGEST_BACKOFF_S),
        files=[line for path, key in mapped.items() for line in yaml_member(key, _read(path))],
        mounts=mounts,
        claim=fill("kubernetes-claim.yaml", run) if claimed else [],
    )
    return Printed(lines, list(_notices(run, image)))


def _zone(named: str | None) -> str:
    """Return the IANA name of a time zone, by default of this machine's."""
    name = named or os.environ.get("TZ", "").removeprefix(":") or str(LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, LookupError):
        what = f"{name!r} is no time zone" if name else "this machine does not say its time zone"
        raise ConfigError(f"{what}; give one like --timezone Europe/Berlin") from None


def _claimed(config: Config) -> dict[str, str]:
    """Return where the volume of all local files is mounted, {path in the pod: path in the volume, "" for all of it}.

    That is the folder that holds all files which the config names, or each of their folders if only the root does.
    """
    folders = {folder_of(path) for path in _local_paths(config)}
    if "/" in folders:
        raise ConfigError("a file in the root folder can't be mounted; put input and output into a folder")
    folders = {folder for folder in folders if not any(Path(other) in Path(folder).parents for other in folders)}
    top = os.path.commonpath(folders) if folders else "/"
    return {top: ""} if top != "/" else {folder: folder.lstrip("/") for folder in sorted(folders)}


def _local_paths(config: Config) -> Iterator[str]:
    for section, _, key in (name.partition(".") for name in PATH_KEYS if name != "server.ca_bundle"):
        value = getattr(getattr(config, section), key) or []
        yield from (path for path in ([value] if isinstance(value, str) else value) if path and "://" not in path)
    if not config.writer.output:  # it stands beside the input, which may be a folder itself
        yield config.loader.inputs[0].rstrip("/")


def _secrets_in(config: Config) -> Iterator[str]:
    """Yield what may be a secret in the config itself, and what to do: a ConfigMap is read by many."""
    by_name = 'write "env:NAME" and put NAME into the Secret'
    for name, value in config.server.headers.items():
        if not value.startswith(FROM_ENVIRONMENT):
            yield f"server.headers.{name} would stand in a ConfigMap, which is no place for secrets; {by_name}"
    if config.run.notify_url and not config.run.notify_url.startswith(FROM_ENVIRONMENT):
        yield f"run.notify_url may hold a token, and would stand in a ConfigMap; {by_name}"
    for url in config.server.urls:
        if (shown := mask_url(url)) != url:
            what = f"server.url {shown} has a password or a query, and would stand in a ConfigMap"
            yield f'{what}; send it as a header whose value is "env:NAME"'
    for path in (*config.loader.inputs, config.writer.output):
        uri = split_uri(path)
        if uri and uri.user and (uri.scheme, uri.user) != ("gs", "anonymous"):
            what = f"{mask_uri(path)} has credentials in it, and would stand in a ConfigMap"
            yield f"{what}; leave them to the environment of the pod"


def _notices(run: DailyRun, image: str | None) -> Iterator[str]:
    if not image:
        yield f"the image {IMAGE} is a placeholder; name yours with --image"
    if run.retry_s < run.length_s:
        yield "a pod that is started again after midnight takes the next day for {date}"
    for url in run.config.server.urls:
        if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
            yield f"server.url {url} is the pod itself there; name the service of your server"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {getattr(error, 'strerror', error)}") from None


def _mount(volume: str, path: str, sub_path: str, *more: str) -> list[str]:
    members = [f"- name: {volume}", f"  mountPath: {yaml_string(path)}"]
    members += [f"  subPath: {yaml_string(sub_path)}"] if sub_path else []
    return [f"{'':16}{line}" for line in (*members, *(f"  {line}" for line in more))]


def yaml_member(key: str, text: str) -> list[str]:
    """Return a member of a mapping: the text as it is, or quoted if YAML would read a character of it otherwise."""
    lines = text.removesuffix("\n").split("\n")
    if all(line.replace("\t", "").isprintable() for line in lines):
        return [f"  {key}: |2+", *(f"    {line}" for line in lines)]
    return [f"  {key}: {yaml_string(text)}"]


def yaml_string(text: str) -> str:
    """Return a quoted string, all characters escaped that are not printable."""
    return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
