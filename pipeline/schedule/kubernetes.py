"""For Kubernetes: a ConfigMap that holds the config, and a CronJob. Every path in the pod is the path it has here."""

from __future__ import annotations

import math
import os
import re
import shlex
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pipeline.config import Config, mask_place, mask_url, split_uri
from pipeline.config.sections import PATH_KEYS
from pipeline.errors import ConfigError
from pipeline.schedule.manifest import Mount, config_map, cron_job
from pipeline.schedule.night import LONGEST_S, Night, Printed, explain, places

IMAGE = "registry.example.com/classify:latest"
JOIN_S = 3600  # after the deadline: what is answered may still be being written
LONGEST_BACKOFF_S = 360  # between two pods: 10 s, 20 s, 40 s ... up to this
FEWEST_RETRIES = 6  # the waits that are shorter
LOCALTIME = Path("/etc/localtime")


def printed(night: Night, *, image: str | None, timezone: str | None) -> Printed:
    """Both objects, fit for `kubectl apply -f -`.

    Raises:
        ConfigError: a secret stands in the config, a path can't be mounted, or the time zone is none.
    """
    zone = _zone(timezone)
    _refuse_secrets(night.path, night.config)
    files = {"config.toml": night.path}
    if night.config.server.ca_bundle:
        files["ca.pem"] = Path(night.config.server.ca_bundle).absolute()
    config = [Mount("config", str(path), key) for key, path in files.items()]
    mounts = [*config, *_claim(_folders(night.config))]
    if odd := next((mount.path for mount in mounts if ":" in mount.path), None):
        raise ConfigError(f"{odd}: Kubernetes mounts no path with a colon; rename it")
    texts = {key: _read(path) for key, path in files.items()}
    lines = [
        *(f"# {line}" for line in _advice(night, image, zone)),
        *config_map(night.name, texts),
        "---",
        *cron_job(
            name=night.name,
            zone=zone,
            image=image or IMAGE,
            command=("classify", "run", str(night.path), "--log-json"),
            mounts=mounts,
            minute=night.at.minute,
            hour=night.at.hour,
            length_s=night.length_s,
            longest_s=min(LONGEST_S, night.length_s + JOIN_S),
            retries=FEWEST_RETRIES + math.ceil(night.length_s / LONGEST_BACKOFF_S),
        ),
    ]
    return Printed(lines, _notices(night, image))


def _zone(named: str | None) -> str:
    """The IANA name of a time zone, by default of this machine's."""
    name = named or os.environ.get("TZ", "").removeprefix(":") or str(LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, LookupError):
        what = f"{name!r} is no time zone" if name else "this machine does not say its time zone"
        raise ConfigError(f"{what}; give one like --timezone Europe/Berlin") from None


def _folders(config: Config) -> list[str]:
    """The folders of all local files that the config names: as far as they are the same every night."""
    folders = set()
    for name in PATH_KEYS:
        section, _, key = name.partition(".")
        for place in places(getattr(getattr(config, section), key)):
            if place and "://" not in place and name != "server.ca_bundle":
                folders.add(_folder_of(place))
    if not config.writer.output:  # it stands beside the input, which may be a folder itself
        folders.add(_folder_of(config.loader.inputs[0].rstrip("/")))
    return sorted(folder for folder in folders if not any(Path(other) in Path(folder).parents for other in folders))


def _folder_of(place: str) -> str:
    parts = Path(os.path.normpath(Path(place).absolute())).parts
    plain = next((n for n, part in enumerate(parts) if re.search(r"[*?\[{]", part)), None)
    if plain is None and not place.endswith("/"):
        plain = len(parts) - 1
    return str(Path(*parts[:plain]))


def _claim(folders: list[str]) -> list[Mount]:
    """Where the claim is mounted: at the folder that holds all of them, or at each if that is the root."""
    if not folders:
        return []
    if "/" in folders:
        raise ConfigError("a file in the root folder can't be mounted; put input and output into a folder")
    top = os.path.commonpath(folders)
    return [Mount("files", folder, folder.lstrip("/")) for folder in folders] if top == "/" else [Mount("files", top)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {getattr(error, 'strerror', error)}") from None


def _refuse_secrets(path: Path, config: Config) -> None:
    """See that nothing in the config may be a secret: a ConfigMap is read by many.

    Raises:
        ConfigError: a header's value stands there itself, or a URL has a password or a query.
    """
    for name, value in config.server.headers.items():
        if not value.startswith("env:"):
            raise ConfigError(
                f"{path}: server.headers.{name} would stand in a ConfigMap, which is no place for secrets; "
                f'write "env:NAME" and put NAME into the Secret'
            )
    if config.run.notify_url and not config.run.notify_url.startswith("env:"):
        raise ConfigError(
            f'{path}: run.notify_url may hold a token, and would stand in a ConfigMap; write "env:NAME" and put NAME '
            f"into the Secret"
        )
    for url in config.server.urls:
        if mask_url(url) != url:
            raise ConfigError(
                f"{path}: server.url {mask_url(url)} has a password or a query, and would stand in a ConfigMap; "
                f'send it as a header whose value is "env:NAME"'
            )

    for place in (*config.loader.inputs, config.writer.output):
        uri = split_uri(place)
        if uri and uri.user and (uri.scheme, uri.user) != ("gs", "anonymous"):
            raise ConfigError(
                f"{path}: {mask_place(place)} has credentials in it, and would stand in a ConfigMap; leave them to the "
                f"environment of the pod"
            )


def _notices(night: Night, image: str | None) -> list[str]:
    config, late = night.config, night.retry_s < night.length_s
    here = [url for url in config.server.urls if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")]
    return [
        *([] if image else [f"the image {IMAGE} is a placeholder; name yours with --image"]),
        *(["a pod that is started again after midnight takes the next day for {date}"] if late else []),
        *(f"server.url {url} is the pod itself there; name the service of your server" for url in here),
    ]


def _advice(night: Night, image: str | None, zone: str) -> list[str]:
    options = f"--at {night.at:%H:%M} --as kubernetes --timezone {zone} --image {shlex.quote(image or IMAGE)}"
    secret = shlex.quote(night.beside(".env"))
    return [
        f"{night.path}, every day at {night.at:%H:%M}, {zone}. For Kubernetes 1.29 or newer. Install it with",
        f"  classify schedule {night.shown} {options} | kubectl apply -f -",
        *explain(night, log=f"kubectl logs -l job={night.name}", wait="after 10 s to 6 min"),
        "To Kubernetes every code but 0 is a failed Job; its pod tells which (kubectl describe).",
        f"Secrets, a line each ({', '.join(night.variables)}; NAME=value), by reference:",
        f"  kubectl create secret generic {night.name} --from-env-file={secret}",
    ]
