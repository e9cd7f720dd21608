"""Paths and URIs as locations: how they are written, what is shown of them, what a store is asked and says."""

from __future__ import annotations

import gc
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from s3 import Bucket, Way, environment_for

from pipeline.checkpoint import digest_file
from pipeline.config import mask_uri, mask_words
from pipeline.errors import ConfigError, OutputError, StoreGone, StoreRefused
from pipeline.storage import Kind, draft, list_files, local, locate
from pipeline.storage.state import private_directory, state_of, state_root
from pipeline.storage.store import ATTEMPTS

MIB = 1 << 20


@pytest.fixture
def here(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket that the environment of this process leads to."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


# -- how they are written


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("s3://bucket/dir/a.csv", "s3://bucket/dir/a.csv"),
        ("s3://KEY:SECRET@bucket/a.csv", "s3://***@bucket/a.csv"),
        ("s3://KEY:SEC%2FRET@bucket/a.csv?region=eu&scheme=http", "s3://***@bucket/a.csv?***"),
        ("s3://KEY:SEC@RET@bucket/a.csv", "s3://***@bucket/a.csv"),
        ("s3://KEY:SEC/RET@bucket/a.csv", "s3://***"),
        ("s3://KEY:SEC?x=RET@bucket/a.csv", "s3://***"),
        ("s3://bucket/who@example.csv", "s3://bucket/who@example.csv"),
        ("s3://bucket/why?.csv", "s3://bucket/why?.csv"),
        ("gs://anonymous@bucket/a.csv", "gs://***@bucket/a.csv"),
        ("https://user:SECRET@host/a.csv?token=SECRET", "https://***@host/a.csv?***"),
        ("data/who@example:8?x=1.csv", "data/who@example:8?x=1.csv"),
        ("-", "-"),
    ],
)
def test_credentials_and_options_are_never_shown(written: str, shown: str) -> None:
    """Whatever may be a secret in a URI is masked; a path is shown as it is."""
    assert mask_uri(written) == shown


def test_what_was_typed_is_repeated_without_what_uris_in_it_carry() -> None:
    """The command line's own messages, which quote arguments, are masked as a whole."""
    said = mask_words("unrecognized arguments: s3://KEY:SEC/RET@bucket/a.csv?scheme=http gs://bucket/a.csv?x=SEC b.csv")
    assert said == "unrecognized arguments: s3://***@bucket/a.csv?*** gs://bucket/a.csv?*** b.csv"


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("s3://", ("no bucket",)),
        ("s3:///a.csv", ("no bucket",)),
        ("s3://KEY:SEC/RET@bucket/a.csv", ("no bucket", "%2F", "environment")),
        ("s3://bucket/a.csv?endpoint_overide=localhost", ("endpoint_overide", "did you mean endpoint_override?")),
        ("gs://bucket/a.csv?region=eu", ("no option region", "endpoint_override")),
        ("s3://bucket//a.csv", ("two slashes",)),
        ("s3://bucket/a//b.csv", ("two slashes",)),
        ("nowhere://host/a.csv", ("nowhere://", "s3://, gs://", "file://")),
        ("s3a://bucket/a.csv", ("s3a://", "s3://")),
        ("file://data/a.csv", ("file:///",)),
    ],
)
def test_a_uri_that_leads_nowhere_is_a_mistake_in_a_line(written: str, words: tuple[str, ...]) -> None:
    """No bucket, an unknown option or scheme, a name that can't be reached: said with what is known instead."""
    with pytest.raises(ConfigError) as caught:
        locate(written)
    for word in words:
        assert word in str(caught.value)
    assert "RET" not in str(caught.value)


def test_a_file_uri_is_the_path_it_names(tmp_path: Path) -> None:
    """`file://` is the local path, percent escapes undone, and goes the way of any path."""
    (tmp_path / "a b.csv").write_text("x")
    location = locate(f"file://{tmp_path}/a%20b.csv")
    assert (location.path, location.store) == (f"{tmp_path}/a b.csv", None)
    assert location.look() == (Kind.FILE, 1)
    assert locate(f"file://localhost{tmp_path}/a%20b.csv") == location


def test_a_location_knows_its_neighbours() -> None:
    """Names beside and below are those of the same store, whatever was said of its credentials and options."""
    location = locate("s3://KEY:SECRET@bucket/dir/a.csv.gz?scheme=http")
    beside, below = location.beside(".a.csv.gz.run.json"), locate("s3://bucket/dir/").within("x/a.csv")
    assert (location.name, str(location)) == ("a.csv.gz", "s3://bucket/dir/a.csv.gz")
    assert (beside.name, str(beside)) == (".a.csv.gz.run.json", "s3://bucket/dir/.a.csv.gz.run.json")
    assert (below.path, str(below)) == ("bucket/dir/x/a.csv", "s3://bucket/dir/x/a.csv")
    assert (
        str(locate("s3://bucket").within("a.csv")) == str(locate("s3://bucket/").within("a.csv")) == "s3://bucket/a.csv"
    )
    assert beside.store is location.store
    assert replace(location, content=b"text").beside("b.csv").content is None


# -- what stands there


@pytest.mark.parametrize("key", ["a b.csv", "100%.csv", "a%20b.csv", "#1.csv", "why?.csv", "ü/ñ=1&2+3.csv", "@:x.csv"])
def test_names_are_taken_as_they_stand(key: str, here: Bucket) -> None:
    """Blanks, %, #, ?, letters of any alphabet: the name of an object is written as other tools show it."""
    here.put(key, b"text\nx\n")
    location = locate(here.uri(key))
    assert location.look() == (Kind.FILE, 7)
    assert location.read() == b"text\nx\n"
    location.put(iter([b"other"]))
    assert here.get(key) == b"other"


def test_what_stands_at_a_location(here: Bucket, tmp_path: Path) -> None:
    """A file with its size, an empty one, a directory, nothing, no bucket: on the disk and in a store."""
    (tmp_path / "dir").mkdir()
    for name, content in (("dir/a", b"12"), ("dir/none", b"")):
        (tmp_path / name).write_bytes(content)
        here.put(name, content)
    for top in (str(tmp_path), here.uri().rstrip("/")):
        assert locate(f"{top}/dir/a").look() == (Kind.FILE, 2)
        assert locate(f"{top}/dir/none").look() == (Kind.FILE, 0)
        assert locate(f"{top}/dir").look() == (Kind.DIRECTORY, 0)
        assert locate(f"{top}/dir/b").look() == (Kind.NOTHING, 0)
        assert locate(f"{top}/dir/b").read() is None
    with pytest.raises(StoreRefused, match="no bucket nobody-has-it"):
        locate("s3://nobody-has-it/a").look()


def test_files_are_listed_alike_on_a_disk_and_in_a_store(here: Bucket, tmp_path: Path) -> None:
    """Paths from the directory on, by path."""
    sizes = {"day=1/a.csv": 1, "day=1/sub/b.csv": 2, "day=2/c.csv": 3, "d e%.csv": 4, ".hidden": 5}
    for name, size in sizes.items():
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        here.put(f"top/{name}", b"x" * size)
    here.put("top2/other.csv", b"x")
    for top in (local(str(tmp_path / "top")), locate(here.uri("top")), locate(here.uri("top/"))):
        assert list_files(top) == sorted(sizes)
        assert top.within("day=1/a.csv").look() == (Kind.FILE, 1)
    for nowhere in (local(str(tmp_path / "gone")), locate(here.uri("gone"))):
        with pytest.raises(FileNotFoundError):
            list_files(nowhere)


@pytest.mark.parametrize("size", [0, 1, 70_000, 4 * MIB, 4 * MIB + 1, pytest.param(9 * MIB, marks=pytest.mark.slow)])
def test_a_digest_is_the_same_on_a_disk_and_in_a_store(size: int, here: Bucket, tmp_path: Path) -> None:
    """A file that was copied to a store, in whatever way, is the same input there; another byte at its end is not."""
    content = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    locate(here.uri("one")).put(iter([content]))
    here.put("other", content)
    assert digest_file(locate(here.uri("one"))) == digest_file(locate(here.uri("other"))) == digest_file(tmp_path / "a")
    here.put("other", content[:-1] + b"!")
    assert digest_file(locate(here.uri("other"))) != digest_file(tmp_path / "a")


# -- what is put there


def test_an_upload_that_fails_leaves_what_stood_there(here: Bucket) -> None:
    """Half an object never appears: not when the sender fails, and not when what is left of it is collected."""

    def parts() -> Iterator[bytes]:
        yield b"x" * (10 * MIB)
        yield b"x" * (10 * MIB)
        raise KeyError("stop")

    here.put("old", b"old")
    for key in ("old", "new"):
        with pytest.raises(KeyError):
            locate(here.uri(key)).put(parts())
    gc.collect()
    assert here.get("old") == b"old"
    assert here.keys() == ["old"]
    assert sorted(here.uploads()) == ["new", "old"]  # begun, never finished, not visible


@pytest.mark.parametrize("size", [0, 5, 25 * MIB])
def test_an_upload_is_the_file(size: int, here: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of any size arrives as it is, and can be cancelled before each part."""
    content = random.Random(size).randbytes(size)
    (tmp_path / "a").write_bytes(content)
    looks: list[int] = []
    monkeypatch.setattr(draft, "raise_if_cancelled", lambda: looks.append(1))
    locate(here.uri("a")).put(draft.parts_of(tmp_path / "a"))
    assert here.get("a") == content
    assert len(looks) == -(-size // (10 * MIB)) + 1
    assert here.uploads() == []


# A process of its own, so that its end is looked at, too: there pyarrow lets go of what is still open.
CUT_OFF = """
import sys
from pipeline.errors import StoreGone
from pipeline.storage import locate

try:
    locate(sys.argv[1]).put(iter([b"x" * (10 << 20)] * 3))
except StoreGone as error:
    print(error)
"""


def test_an_upload_that_is_cut_off_is_not_now_and_leaves_nothing(bucket: Bucket, way: Way) -> None:
    """The way breaks after the first of three parts, and is well again when they are given up: nothing appears."""
    way.allow, way.well_after = 15 * MIB, ATTEMPTS
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, bucket.uri("a")],
        env={**os.environ, **environment_for(way.port)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert way.allow is None
    assert "try again later" in done.stdout
    assert bucket.uri("a") in done.stdout
    assert done.stderr == ""
    assert bucket.keys() == []


@pytest.mark.slow
def test_a_store_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, here: Bucket, way: Way) -> None:
    """No answer is exit 75; a name that does not resolve is a mistake, but not once the store has answered."""
    with pytest.raises(StoreGone, match="try again later"):
        locate("s3://bucket/a?endpoint_override=127.0.0.1:1&scheme=http").look()
    with pytest.raises(StoreRefused, match="check its address"):
        locate("s3://bucket/a?endpoint_override=nowhere.invalid&scheme=http").look()
    here.put("a", b"x" * MIB)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{way.port}")
    location = locate(here.uri("a"))
    stream = location.stream()
    assert stream.read(4) == b"xxxx"
    way.allow = 0
    with pytest.raises(StoreGone, match="try again later"):
        list(iter(lambda: stream.read(MIB), b""))
    stream.close()


# What pyarrow said on one occasion or another, and what it means.
AWS, GOOGLE = "AWS Error", "google::cloud::Status"
SAID = [
    (f"{AWS} UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", StoreGone, "busy: HTTP 503;"),
    (f"{AWS} SLOW_DOWN during UploadPart operation: Reduce your rate. (Request ID: 1)", StoreGone, "rate (SLOW_DOWN)"),
    (f"{AWS} UNKNOWN (HTTP status 429) during PutObject operation: Unable to parse", StoreGone, "(HTTP 429)"),
    (
        (
            f"{AWS} NETWORK_CONNECTION during HeadObject operation: curlCode: 6, Could not resolve hostname; "
            f"Details: Could not resolve host: b.s3.us-east-1.amazonaws.com"
        ),
        StoreGone,
        "busy: Could not resolve host: b.s3",
    ),
    (f"{AWS} UNKNOWN (HTTP status 301) during HeadObject operation: No response body.", StoreRefused, "HTTP 301"),
    (f"{AWS} UNKNOWN (HTTP status 400) during PutObject operation: ExpiredToken", StoreRefused, "ExpiredToken"),
    (
        f"{AWS} NETWORK_CONNECTION during HeadObject operation: curlCode: 60, SSL peer certificate was not OK",
        StoreRefused,
        "check its address",
    ),
    (
        (
            f"{GOOGLE}(UNAVAILABLE: Retry policy exhausted, with a last message of PerformWork() - CURL error [7]="
            f"Could not connect to server error_info={{reason=, metadata={{x=y}}}})"
        ),
        StoreGone,
        "busy: PerformWork() - CURL error [7]",
    ),
    (
        f"{GOOGLE}(PERMISSION_DENIED: who@ does not have storage.objects.get access error_info={{reason=}})",
        StoreRefused,
        "storage.objects.get access (PERMISSION_DENIED)",
    ),
    (
        f"{GOOGLE}(UNAVAILABLE: Could not create a OAuth2 access token to authenticate the request)",
        StoreRefused,
        "credentials",
    ),
]


@pytest.mark.parametrize(("said", "kind", "words"), SAID)
def test_what_a_store_says_decides(said: str, kind: type, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Busy or gone is not now, refused is a mistake; the line has the words that matter and no request ids."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    location = locate("gs://b/k" if said.startswith("google") else "s3://b/k")
    ours = location.trouble(OSError(f"When getting information for key 'k' in bucket 'b': {said}"))
    assert type(ours) is kind
    assert words in str(ours)
    assert "Request ID" not in str(ours)
    assert "error_info" not in str(ours)


def test_what_is_wrong_with_a_file_is_not_the_stores_doing() -> None:
    """A broken Parquet file in a store is a broken file."""
    assert locate("s3://b/k").trouble(OSError("Corrupt snappy compressed data.")) is None
    assert local("k").trouble(OSError(5, "Input/output error")) is None


# -- the state directory


def test_the_state_directory_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As configured; else below XDG_STATE_HOME, if that is an absolute path; else below the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_root("here") == Path("here")
    assert state_root(None) == tmp_path / "xdg" / "classify"
    for nothing in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", nothing)
        assert state_root(None) == tmp_path / ".local" / "state" / "classify"


def test_each_output_has_a_state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another bucket or key is another output; other credentials, another way there, another spelling are not."""
    monkeypatch.chdir(tmp_path)
    same = ["s3://bucket/dir/a.csv", "s3://KEY:SECRET@bucket/dir/a.csv", "s3://bucket/dir/a.csv?endpoint_override=host"]
    others = ["s3://bucket/a.csv", "s3://other/dir/a.csv", "gs://bucket/dir/a.csv"]
    states = {state_of(tmp_path, locate(uri)) for uri in same}
    assert len(states) == 1
    assert states.pop().name.startswith("a.csv-")
    assert len({state_of(tmp_path, locate(uri)) for uri in [*same, *others, "dir/a.csv"]}) == 5
    assert state_of(tmp_path, locate("dir/../a b/ü.csv")) == state_of(tmp_path, locate(str(tmp_path / "a b" / "ü.csv")))


def test_a_private_directory_goes_with_its_process(tmp_path: Path) -> None:
    """It is removed in the end; what a killed process left is removed by the next, what a living one has is not."""
    root = tmp_path / "state"
    with private_directory(root) as mine:
        (mine / "file").write_text("x")
        with private_directory(root) as other:
            assert mine.exists()
            assert other != mine
        left = root / "pipe-1-killed"
        left.mkdir()
        (left / "held").touch()
        (left / "file").write_text("x")
        with private_directory(root):
            assert not left.exists()
            assert mine.exists()
        assert oct(root.stat().st_mode)[-3:] == oct(mine.stat().st_mode)[-3:] == "700"
    assert list(root.iterdir()) == []


# Between the moment a run has opened the lock file and the one it locks it, its holder ends and another run begins.
THREE_RUNS = """
import sys
from pathlib import Path
from pipeline.checkpoint import Lock
from pipeline.errors import OutputHeld

state = Path(sys.argv[1])
first, second, third = (Lock(state.with_name("a.lock"), state) for _ in range(3))
is_second = False

def look(event, _):
    global is_second
    if event == "fcntl.flock" and is_second:
        is_second = False
        first.__exit__(None, None, None)
        third.__enter__()

first.__enter__()
sys.addaudithook(look)
is_second = True
try:
    second.__enter__()
except OutputHeld as error:
    print(error)
"""


def test_a_lock_that_has_gone_with_its_directory_holds_nothing(tmp_path: Path) -> None:
    """A process that locks a deleted file locks again, and finds the run that holds the output now."""
    command = [sys.executable, "-c", THREE_RUNS, str(tmp_path / "state" / "a")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(r"another run \(pid \d+ on .*\) holds this output", done.stdout)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["a", "a.lock"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """If a file has its name: the message has the path, and the setting that moves it."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*run\.state_dir"), private_directory(tmp_path / "file" / "state"):
        pass


@pytest.mark.parametrize("uri", ["s3://key@bucket/a.csv", "s3://key:@bucket/a.csv", "s3://:secret@bucket/a.csv"])
def test_half_of_a_key_is_refused(uri: str) -> None:
    """A key without its secret, or the other way round: what to write instead, and none of it is shown."""
    with pytest.raises(ConfigError, match=r"KEY:SECRET@.*anonymous@") as caught:
        locate(uri)
    assert "secret@" not in str(caught.value)


def test_access_without_credentials_sends_none(here: Bucket) -> None:
    """`s3://anonymous@`, as for Google: no key of the environment is used, so a private bucket refuses."""
    uri = here.put("a.csv", b"text\na\n")
    assert locate(uri).read() == b"text\na\n"
    with pytest.raises(StoreRefused, match="ACCESS_DENIED"):
        locate(uri.replace("s3://", "s3://anonymous@")).look()
