"""What a user can get wrong with the server: who is there, who is not, who wants a key, who is no classifier."""

from __future__ import annotations

import importlib.metadata
import re
import time
from pathlib import Path

import pytest
from aiohttp import web
from commands import Command, complaint
from fake import FakeServer, refuse, reply

COMMANDS = ("run", "check", "text")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small CSV."""
    path = tmp_path / "in.csv"
    path.write_text("id,text\n1,good\n2,bad\n")
    return path


def arguments(command: str) -> tuple[str, ...]:
    """How each command that needs a server is called."""
    return ("text", "good") if command == "text" else (command, "-i", "in.csv", "-o", "out.csv")


def test_a_refused_connection_is_said_at_once(classify: Command, source: Path, fake: FakeServer) -> None:
    """`run` says that nobody is there, waits server.start_wait_s and ends with 75; the address is in both lines."""
    fake.down()
    began = time.monotonic()
    done = classify("run", "-i", source, "--url", fake.url, "--set", "server.start_wait_s=1", expect=75)
    took = time.monotonic() - began
    fake.up()
    first, last = done.stderr.splitlines()
    assert fake.url in first
    assert "wait" in first
    assert last.startswith("classify: ")
    assert fake.url in last
    assert 1 <= took < 5


@pytest.mark.parametrize("command", ["check", "text"])
def test_looking_does_not_wait(command: str, classify: Command, source: Path, fake: FakeServer) -> None:
    """`check` and `text` end at once with 75 and one line when nobody is there."""
    assert source.exists()
    fake.down()
    began = time.monotonic()
    done = classify(*arguments(command), "--url", fake.url, expect=75)
    fake.up()
    complaint(done, fake.url, "server.url")
    assert time.monotonic() - began < 5


def test_a_server_that_comes_up_in_time_is_used(classify: Command, source: Path, fake: FakeServer) -> None:
    """While it is waited for, a server may start."""
    import threading

    fake.down()
    timer = threading.Timer(1.5, fake.up)
    timer.start()
    classify("run", "-i", source, "-o", "out.csv", "--url", fake.url, "--set", "server.start_wait_s=30")
    timer.join()


@pytest.mark.parametrize("url", ["http://no-such-host.invalid:8000", f"http://{'a' * 70}.invalid"])
def test_a_name_that_does_not_resolve_is_a_mistake(url: str, classify: Command, source: Path) -> None:
    """Exit 2 at once, naming the host: waiting would not help."""
    began = time.monotonic()
    complaint(classify("run", "-i", source, "--url", url, expect=2), "invalid", "resolve")
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("url", ["localhost:8000", "http://localhost:99999", "http://", "ftp://x"])
def test_a_url_that_is_none_is_a_mistake(url: str, classify: Command, source: Path) -> None:
    """A URL that can't work is refused as a setting."""
    complaint(classify("run", "-i", source, "--url", url, expect=2), "server.url")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_missing_key_names_the_variable(command: str, classify: Command, source: Path, fake: FakeServer) -> None:
    """401 on /classify is exit 2 and says which environment variable holds the key."""
    assert source.exists()
    fake.each = lambda _: reply(401, '{"error": "Unauthorized"}')
    done = classify(*arguments(command), "--url", fake.url, "--set", "server.api_key_env=MY_OWN_KEY", expect=2)
    complaint(done, "401", "MY_OWN_KEY")


def test_a_401_on_v1_models_alone_is_no_reason_to_stop(classify: Command, source: Path, fake: FakeServer) -> None:
    """--api-key of vLLM guards /v1/models and not /classify."""
    fake.api_key = "k"
    classify("run", "-i", source, "-o", "out.csv", "--url", fake.url)
    classify("run", "-i", source, "-o", "out2.csv", "--url", fake.url, env={"VLLM_API_KEY": "k"})


def test_an_unknown_model_lists_those_there_are(classify: Command, source: Path, fake: FakeServer) -> None:
    """--model with another name than is served is exit 2 with the names that are."""
    complaint(classify("run", "-i", source, "--url", fake.url, "--model", "nope", expect=2), "nope", "fake")
    assert fake.requests == []


def test_an_unknown_model_without_a_list_is_told(classify: Command, source: Path, fake: FakeServer) -> None:
    """Where there is no /v1/models, the 404 of /classify is told in the server's words."""
    fake.model = None
    fake.each = lambda _: refuse(404, "The model `nope` does not exist.")
    done = classify("run", "-i", source, "--url", fake.url, "--model", "nope", expect=2)
    complaint(done, "The model `nope` does not exist", "server.model")


def test_a_model_that_is_no_classifier_is_told(classify: Command, source: Path, fake: FakeServer) -> None:
    """A 404 on /classify with a healthy /v1/models: the model generates."""
    fake.each = lambda _: reply(404, '{"detail": "Not Found"}')
    complaint(classify("run", "-i", source, "--url", fake.url, expect=2), "serves fake, but not as a classifier")


class TwoModels(FakeServer):
    """A server with two models."""

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [{"id": "first"}, {"id": "second"}]})


def test_of_two_models_one_is_chosen(classify: Command, source: Path) -> None:
    """Exit 2 with both names; --model chooses, and is sent."""
    with TwoModels() as server:
        complaint(classify("run", "-i", source, "--url", server.url, expect=2), "first", "second", "--model")
        assert server.requests == []
        server.model = "second"
        classify("run", "-i", source, "-o", "out.csv", "--url", server.url, "--model", "second")
        assert {seen.body["model"] for seen in server.requests} == {"second"}


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, "<html>Welcome to nginx!</html>"),
        reply(200, '{"choices": []}'),
        reply(302, "", Location="http://login.test/"),
        reply(405, "Method Not Allowed"),
    ],
)
def test_something_else_at_that_address_is_a_mistake(
    answer: object, classify: Command, source: Path, fake: FakeServer
) -> None:
    """A web site, a chat API, a login page: exit 2 with the address."""
    fake.each = lambda _: answer  # type: ignore[assignment,return-value]
    complaint(classify("run", "-i", source, "--url", fake.url, expect=2), fake.url)


def test_a_server_that_refuses_everything_ends_the_run(classify: Command, source: Path, fake: FakeServer) -> None:
    """If even the canary is refused with 400, that is exit 2 in the server's words."""
    fake.each = lambda _: refuse(400, "pooling is switched off")
    complaint(classify("run", "-i", source, "--url", fake.url, expect=2), "pooling is switched off")


def test_a_password_and_a_key_together_are_no_bug(classify: Command, source: Path, fake: FakeServer) -> None:
    """A password in the URL while VLLM_API_KEY is set: it runs, or a person is told."""
    url = fake.url.replace("http://", "http://user:pa55@")
    done = classify("run", "-i", source, "-o", "o.csv", "--url", url, env={"VLLM_API_KEY": "k"}, expect=None)
    assert done.returncode in (0, 2), done.stderr


# -- what is said when all is well


def test_check_shows_the_config_and_writes_nothing(classify: Command, source: Path, fake: FakeServer) -> None:
    """Every setting with secrets masked, the server's model, the canary; no file appears, also for a new directory."""
    before = sorted(source.parent.rglob("*"))
    options = ("--set", "server.headers.X-Token=s3cret", "--url", fake.url.replace("//", "//me:pa55@"))
    for arguments in (("check",), ("run", "--dry-run")):
        shown = classify(*arguments, "-i", source, "-o", "new/", *options).stdout
        assert "request.rows" in shown
        assert "fake" in shown
        assert "s3cret" not in shown
        assert "pa55" not in shown
    assert sorted(source.parent.rglob("*")) == before
    assert len({text for seen in fake.requests for text in seen.texts}) <= 8


def test_help_is_complete(classify: Command) -> None:
    """Each command and each option of the contract is in the help."""
    main = classify("--help").stdout
    for command in ("run", "text", "check", "status", "serve", "schedule"):
        assert re.search(rf"^ +{command}\b", main, re.MULTILINE), command
    shown = classify("run", "--help").stdout
    options = """--input --output --text-column --url --model --limit-rows --restart --retry-failed --overwrite
        --dry-run --set --quiet --log-json"""
    for option in options.split():
        assert option in shown


def test_the_version_is_that_of_the_package(classify: Command) -> None:
    """As the installed package says, too."""
    assert classify("--version").stdout == f"classify {importlib.metadata.version('classify-pipeline')}\n"


@pytest.mark.parametrize(
    "arguments",
    [(), ("classify",), ("run", "--inputt"), ("run", "--limit-rows", "x"), ("check", "--bogus"), ("text",)],
)
def test_a_wrong_command_line_is_a_mistake(arguments: tuple[str, ...], classify: Command) -> None:
    """Exit 2 and one line that leads to the help."""
    complaint(classify(*arguments, expect=2), "--help")


@pytest.mark.parametrize("setting", ["request.rows=0", "reqest.rows=1", "request.rows", "run.deadline=25:00"])
def test_a_wrong_setting_is_a_mistake(setting: str, classify: Command, source: Path) -> None:
    """--set is checked like the file."""
    complaint(classify("run", "-i", source, "--set", setting, expect=2))


def test_a_limit_of_no_rows_is_a_mistake(classify: Command, source: Path) -> None:
    """--limit-rows starts at one."""
    complaint(classify("run", "-i", source, "--limit-rows", "0", expect=2), "limit_rows")
