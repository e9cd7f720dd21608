"""Whose answers these are, and who holds the output: nothing is mixed, and no two runs write at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from identities import identity

from pipeline.checkpoint import Lock, differences, digest_file, identity_of, is_held, read_holder
from pipeline.config import Config
from pipeline.errors import DiskTrouble, InputError, OutputError, OutputHeld

# -- what must be the same


@pytest.mark.parametrize(
    "settings",
    [
        {"loader.text_column": "body"},
        {"loader.text_column": ["text", "body"]},
        {"loader.template": "{text}!"},
        {"loader.encoding": "cp1252"},
        {"loader.delimiter": ";"},
        {"request.activation": False},
        {"request.extra": {"add_special_tokens": False}},
        {"server.model_version": "2"},
        {"writer.probs": "list"},
    ],
    ids=str,
)
def test_what_changes_answers_is_a_difference(settings: dict[str, Any]) -> None:
    """A setting that changes what is asked, or what is kept, is named; once, however it changed."""
    lines = [str(each) for each in differences(identity(), identity(settings))]
    name = next(iter(settings)).partition(".")[2]
    assert any(name in line or "probabilities" in line for line in lines)
    assert differences(identity(settings), identity(settings)) == []
    assert differences(identity(settings), identity()) != []


@pytest.mark.parametrize(
    "settings",
    [
        {"loader.input": "/other/path.csv"},
        {"writer.output": "elsewhere.csv"},
        {"server.url": ["http://a", "http://b"]},
        {"request.concurrency": 3},
        {"request.rows": 7},
        {"request.max_chars": 100},
        {"request.dedupe": False},
        {"request.too_long": "truncate"},
        {"request.priority": 1},
        {"retry.attempts": 1},
        {"server.timeout_s": 1},
        {"server.headers": {"X": "y"}},
        {"writer.prefix": "p_"},
        {"writer.format": "jsonl"},
        {"writer.compression": "zstd"},
        {"run.max_failed_rows": 5},
        {"run.limit_rows": 5},
    ],
    ids=str,
)
def test_what_changes_no_answer_is_none(settings: dict[str, Any]) -> None:
    """Url, speed, retries, prefix and format may change between a run and its resumption."""
    assert differences(identity(), identity(settings)) == []


def test_the_way_the_probabilities_are_written_is_no_difference() -> None:
    """They are kept or not; as a list or as columns is a matter of the output."""
    assert differences(identity({"writer.probs": "list"}), identity({"writer.probs": "columns"})) == []


@pytest.mark.parametrize(
    "model",
    [
        {"id": "n"},
        {"max_model_len": 256},
        {"num_classes": 3},
        {"names": {"0": "nein"}},
        {"canary": [[0.25, 0.752], [0.5, 0.5]]},
        {"canary": [[0.75, 0.25], [0.5, 0.5]]},
        {"canary": [[0.25, 0.75]]},
        {"canary": [[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]]},
    ],
    ids=str,
)
def test_another_model_is_a_difference(model: dict[str, Any]) -> None:
    """Its id, what the server says of it, its classes, their names, and its numbers beyond 1e-3."""
    (difference,) = differences(identity(), identity(**model))
    assert difference.key == f"model.{next(iter(model))}"
    assert len(str(difference)) < 300


@pytest.mark.parametrize(
    "model",
    [
        {"canary": [[0.2509, 0.7491], [0.5, 0.5]]},
        {"names": {"0": "no", "1": "yes"}},
        {"names": {"1": "yes"}},
        {"names": {}},
        {"id": None},
        {"root": "./m"},
        {"max_model_len": None},
        {"canary": None},
    ],
    ids=str,
)
def test_what_moves_a_little_or_is_not_known_is_none(model: dict[str, Any]) -> None:
    """Numbers within 1e-3, names that are new or not seen yet, and what only one side knows."""
    assert differences(identity(), identity(**model)) == []
    assert differences(identity(**model), identity()) == []


def test_small_numbers_are_compared_by_their_size_too() -> None:
    """Logits of a few hundred move by more than 1e-3 in float32; two models that differ by 1e-3 of a share do not."""
    assert differences(identity(canary=[[250.0, -0.0]]), identity(canary=[[250.1, 0.0]])) == []
    assert differences(identity(canary=[[0.001, 0.999]]), identity(canary=[[0.0025, 0.9975]])) != []


def test_a_model_that_is_named_is_the_one_that_was_found() -> None:
    """--model given on one side only is no difference; two different names are."""
    named = identity({"server.model": "m"})
    assert differences(named, identity()) == []
    assert differences(identity(), named) == []
    assert differences(named, identity({"server.model": "n"})) != []


def test_a_difference_shows_both_values_in_one_short_line() -> None:
    """Was and now, cut to a length that fits a terminal."""
    (difference,) = differences(identity(digest="1-ab"), identity(digest="2-cd"))
    assert difference == ("input", "1-ab", "2-cd")
    assert str(difference) == "input: was '1-ab', now '2-cd'"
    lines = differences(identity(), identity({"request.extra": {"x": "y" * 10_000}}))
    assert all(len(str(each)) < 300 for each in lines)


# -- the digest of a file


@pytest.mark.parametrize("size", [0, 1, 1000, (64 << 10) + 1, 9 << 20])
def test_a_digest_sees_size_head_middle_and_tail(tmp_path: Path, size: int) -> None:
    """It is of the content alone; a byte more, or another at the start or the end, is another digest."""
    path = tmp_path / "f"
    path.write_bytes(b"a" * size)
    digest = digest_file(path)
    assert digest.startswith(f"{size}-")
    (tmp_path / "same").write_bytes(b"a" * size)
    assert digest_file(tmp_path / "same") == digest
    others = [b"a" * (size + 1)]
    if size:
        others += [b"b" + b"a" * (size - 1), b"a" * (size - 1) + b"b"]
        half = size // 2
        others.append(b"a" * half + b"b" * min(1 << 20, size - half) + b"a" * (size - half - min(1 << 20, size - half)))
    for content in others:
        path.write_bytes(content)
        assert digest_file(path) != digest


def test_a_file_that_is_gone_is_an_input_error(tmp_path: Path) -> None:
    """Vanished or unreadable, it is named."""
    with pytest.raises(InputError, match="gone"):
        digest_file(tmp_path / "gone")
    with pytest.raises(InputError):
        digest_file(tmp_path)


def test_the_identity_holds_no_secret() -> None:
    """Of url, headers and key nothing goes into the checkpoint."""
    settings = {"server.url": "http://u:s3cret@h", "server.headers": {"X": "s3cret"}, "server.api_key_env": "s3cret"}
    assert "s3cret" not in repr(identity(settings))
    assert identity_of(Config(), "1-ab")["input"] == "1-ab"


# -- the lock

HOLD = """
import sys, time
from pathlib import Path
from pipeline.checkpoint import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    """The message names process and host; when the holder dies, however it dies, the lock is free at once."""
    path = tmp_path / ".out.lock"
    assert not is_held(path)
    with holder(path) as process:
        assert is_held(path)
        with pytest.raises(OutputHeld) as caught, Lock(path):
            pass
        assert f"pid {process.pid}" in str(caught.value)
        assert socket.gethostname() in str(caught.value)
        assert caught.value.exit_code == 75
        assert str(process.pid) in str(read_holder(path))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not is_held(path)
        with Lock(path):
            assert is_held(path)
            assert f"pid {os.getpid()}" in str(read_holder(path))
    assert not is_held(path)


def test_looking_does_not_take_the_lock(tmp_path: Path) -> None:
    """`is_held` and `read_holder` leave it as it is, and make no file."""
    path = tmp_path / ".out.lock"
    assert (is_held(path), read_holder(path)) == (False, None)
    assert list(tmp_path.iterdir()) == []
    with Lock(path):
        assert is_held(path)
        assert is_held(path)
    with Lock(path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": 1}', b"7"])
def test_a_strange_lock_file_is_no_bug(tmp_path: Path, content: bytes) -> None:
    """A lock file that has no valid content is free if no process holds it; the holder is then unknown."""
    path = tmp_path / ".out.lock"
    path.write_bytes(content)
    assert read_holder(path) is None
    with Lock(path):
        path.write_bytes(content)
        with pytest.raises(OutputHeld, match="unknown"), Lock(path):
            pass


def test_a_place_without_room_for_a_lock_is_named(tmp_path: Path) -> None:
    """A missing directory is for a person."""
    with pytest.raises(OutputError, match="gone"), Lock(tmp_path / "gone" / ".out.lock"):
        pass


NO_ROOM = """
import resource, sys
from pathlib import Path
from pipeline.checkpoint import Lock
from pipeline.errors import DiskTrouble
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    with Lock(Path(sys.argv[1])):
        print("held")
except DiskTrouble as error:
    print(error)
"""


def test_a_full_disk_holds_no_lock_up(tmp_path: Path) -> None:
    """Without room for the holder's name the lock is held all the same, or it is disk trouble: no traceback."""
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM, str(tmp_path / ".out.lock")],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "held" in done.stdout or str(tmp_path) in done.stdout
    assert DiskTrouble.exit_code == 75
