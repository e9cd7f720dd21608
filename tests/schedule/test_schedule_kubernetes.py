"""The objects for Kubernetes: its schemas and its rules take them, and they say what was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from commands import Command, complaint
from hypothesis import given
from hypothesis import strategies as st

from pipeline.schedule.kubernetes import yaml_member

CONFIG = '[loader]\ninput = "{input}"\n[writer]\noutput = "{output}"\n[server]\nurl = "http://gpu:8000"\n'
ODD = 'it\'s 100% "odd" $(HOME) #1 größe'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config in a folder with an odd name."""
    return written(tmp_path / ODD / "nightly.toml", "in.csv", "out/")


def written(path: Path, source: str, output: str, more: str = "") -> Path:
    """A config file at `path`."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONFIG.replace("{input}", source).replace("{output}", output) + more)
    return path


def objects(classify: Command, config: Path, *flags: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the CronJob."""
    text = classify("schedule", config, "--at", "02:30", "--as", "kubernetes", *flags).stdout
    one, other = yaml.safe_load_all(text)
    return one, other


def pod_of(cron_job: dict[str, Any]) -> dict[str, Any]:
    """What its pods are made by."""
    pod: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def mounts_of(cron_job: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Volume, path and path inside the volume of each mount, without the config's own."""
    mounts = pod_of(cron_job)["containers"][0]["volumeMounts"]
    return [(each["name"], each["mountPath"], each.get("subPath", "")) for each in mounts if each["name"] != "config"]


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33"])
def test_the_schemas_of_kubernetes_take_both(version: str, config: Path, classify: Command) -> None:
    """Strictly: no unknown field, no wrong type, from the oldest version that is promised on."""
    for each in objects(classify, config):
        kubernetes_validate.validate(each, version, strict=True)


def test_75_is_tried_again_and_nothing_else(config: Path, classify: Command) -> None:
    """The policy by the server's rules (Never, values in order, no 0, the container's name), played through by code."""
    job = objects(classify, config)[1]["spec"]["jobTemplate"]["spec"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    rules = [(rule["action"], rule["onExitCodes"]) for rule in job["podFailurePolicy"]["rules"]]
    for _, codes in rules:
        assert codes["containerName"] == pod["containers"][0]["name"]
        assert codes["values"] == sorted(set(codes["values"]))
        assert 0 not in codes["values"]
    for code in (1, 2, 3, 4, 75, 130, 137, 143):
        fits = [action for action, codes in rules if (code in codes["values"]) == (codes["operator"] == "In")]
        assert fits[0] == ("Count" if code == 75 else "FailJob"), code
    assert job["backoffLimit"] > 6


def test_two_runs_never_overlap(config: Path, classify: Command) -> None:
    """Forbid, in the zone that was asked for; the pod's own clock is in that zone, too, since deadlines are local."""
    spec = objects(classify, config, "--timezone", "Europe/Berlin")[1]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * *", "Europe/Berlin")
    assert {"name": "TZ", "value": "Europe/Berlin"} in pod_of({"spec": spec})["containers"][0]["env"]


@pytest.mark.parametrize(
    ("deadline", "latest", "longest"), [("06:00", 12600, 16200), ("4h", 14400, 18000), (None, 82800, 82800)]
)
def test_a_job_ends_before_the_next_start(
    deadline: str | None, latest: int, longest: int, config: Path, classify: Command
) -> None:
    """No start after the deadline, an hour more to write the output, and never beyond the next start."""
    if deadline:
        config.write_text(config.read_text() + f'[run]\ndeadline = "{deadline}"\n')
    spec = objects(classify, config)[1]["spec"]
    assert spec["startingDeadlineSeconds"] == latest
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] == longest


def test_the_zone_is_this_machine_s(config: Path, classify: Command) -> None:
    """TZ if it names a zone; what is no zone is refused, with the option that says it."""
    arguments = ("schedule", config, "--at", "02:30", "--as", "kubernetes")
    assert 'timeZone: "Asia/Tokyo"' in classify(*arguments, env={"TZ": ":Asia/Tokyo"}).stdout
    complaint(classify(*arguments, env={"TZ": "CET-1CEST"}, expect=2), "CET-1CEST", "--timezone")
    for wrong in ("Mars/Base", "../etc/passwd", "Local Time", "Europe"):
        complaint(classify(*arguments, "--timezone", wrong, expect=2), wrong, "--timezone")


def test_the_config_arrives_as_it_is(config: Path, classify: Command) -> None:
    """The ConfigMap holds the file's own text, mounted at the path it has here, which the command names."""
    one, other = objects(classify, config)
    assert one["data"]["config.toml"] == config.read_text()
    container = pod_of(other)["containers"][0]
    # Kubernetes puts variables for $(NAME), and takes $$(NAME) for itself.
    command = [word.replace("$$(", "$(") for word in container["command"]]
    assert command == ["classify", "run", str(config), "--log-json"]
    assert "$$(HOME)" in container["command"][2]
    mount = {"name": "config", "mountPath": str(config), "subPath": "config.toml", "readOnly": True}
    assert mount in container["volumeMounts"]
    assert one["metadata"]["name"] == pod_of(other)["volumes"][0]["configMap"]["name"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20), max_size=6),
    st.sampled_from(["", "\n", "\n\n"]),
)
def test_any_text_goes_through_yaml_unchanged(lines: list[str], end: str) -> None:
    """Leading blanks, tabs, emoji, line separators, control characters: what is read is what was there."""
    text = "\n".join(lines) + end
    read = yaml.safe_load("\n".join(["data:", *yaml_member("config.toml", text), ""]))["data"]["config.toml"]
    assert read.removesuffix("\n") == text.removesuffix("\n")


def test_secrets_come_by_reference(config: Path, classify: Command) -> None:
    """The Secret is named; it may be absent where no key is wanted."""
    source = pod_of(objects(classify, config)[1])["containers"][0]["envFrom"]
    assert source == [{"secretRef": {"name": "classify-nightly", "optional": True}}]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('headers = { "X-Token" = "s3cret" }', "env:NAME"),
        ('url = "http://me:s3cret@gpu:8000"', "server.url"),
        ('url = "http://gpu:8000/classify?key=s3cret"', "server.url"),
        ('[run]\nnotify_url = "https://hooks.example/s3cret"', "run.notify_url"),
    ],
)
def test_a_secret_in_the_config_is_refused(wrong: str, said: str, config: Path, classify: Command) -> None:
    """A ConfigMap is no place for it: exit 2, and the secret is not even in the message."""
    text = config.read_text()
    config.write_text(re.sub("url = .*", wrong, text) if wrong.startswith("url") else text + wrong)
    done = classify("schedule", config, "--at", "02:30", "--as", "kubernetes", expect=2)
    assert "s3cret" not in complaint(done, said)


@pytest.mark.parametrize(
    ("source", "output", "mounts"),
    [
        ("/srv/n/in/a.csv", "/srv/n/out/", [("files", "/srv/n", "")]),
        ("/srv/n/in/{date}/*.csv", "/srv/n/in/done/a.csv", [("files", "/srv/n/in", "")]),
        ("/srv/n/in*/x/a.csv", "s3://bucket/a.csv", [("files", "/srv/n", "")]),
        ("/data/a.csv", "/out/b.csv", [("files", "/data", "data"), ("files", "/out", "out")]),
        ("/data/a.csv", "", [("files", "/data", "")]),
        ("s3://bucket/a.csv", "s3://bucket/b.csv", []),
    ],
)
def test_local_files_come_from_a_claim(
    source: str, output: str, mounts: list[tuple[str, str, str]], tmp_path: Path, classify: Command
) -> None:
    """Every folder that is the same every day is mounted at its own path; a config of URIs needs no claim."""
    cron_job = objects(classify, written(tmp_path / "nightly.toml", source, output))[1]
    assert mounts_of(cron_job) == mounts
    volumes = pod_of(cron_job)["volumes"]
    claims = [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]
    assert claims == (["classify-nightly"] if mounts else [])


@pytest.mark.parametrize(("source", "said"), [("/in.csv", "root"), ("/srv/a:b/in.csv", "colon")])
def test_what_cannot_be_mounted_is_refused(source: str, said: str, tmp_path: Path, classify: Command) -> None:
    """A file in the root folder, a path with a colon: exit 2 with what to do."""
    config = written(tmp_path / "nightly.toml", source, "")
    complaint(classify("schedule", config, "--at", "02:30", "--as", "kubernetes", expect=2), said)


def test_the_certificates_travel_with_the_config(tmp_path: Path, classify: Command) -> None:
    """server.ca_bundle is in the ConfigMap, at its own path; one that is not there is refused."""
    config = written(tmp_path / "nightly.toml", "s3://b/a.csv", "s3://b/b.csv", 'ca_bundle = "ca.pem"\n')
    complaint(classify("schedule", config, "--at", "02:30", "--as", "kubernetes", expect=2), "ca.pem")
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    one, other = objects(classify, config)
    assert one["data"]["ca.pem"] == "-----BEGIN CERTIFICATE-----\n"
    paths = {each["mountPath"] for each in pod_of(other)["containers"][0]["volumeMounts"]}
    assert paths == {str(config), str(tmp_path / "ca.pem")}


def test_what_is_still_to_be_said_is_said_beside_the_output(config: Path, classify: Command) -> None:
    """The placeholder of an image and a server on "localhost" are told on stderr; with both given nothing is."""
    arguments = ("schedule", config, "--at", "02:30", "--as", "kubernetes")
    assert "--image" in classify(*arguments).stderr
    done = classify(*arguments, "--image", "registry.test/classify:1")
    assert done.stderr == ""
    assert 'image: "registry.test/classify:1"' in done.stdout
    config.write_text(config.read_text().replace("http://gpu", "http://localhost"))
    assert "the pod itself" in classify(*arguments, "--image", "x").stderr
