"""Stores behind fsspec: web servers, Azure (Azurite), and one in memory."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from commands import Command
from fake import FakeServer, label_of
from files import rows_of

from pipeline import Config, run
from pipeline.config import Loader, Run, Server, Writer, mask_uri, mask_words
from pipeline.errors import ConfigError, InputError, StoreGone, StoreRefused
from pipeline.storage import Kind, locate
from pipeline.storage.store import ATTEMPTS

TEXTS = [f"text {row}" for row in range(3000)]
ROWS = [{"id": row, "text": text} for row, text in enumerate(TEXTS)]
CONTENT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


class Web(http.server.ThreadingHTTPServer):
    """A web server with ranges that fails, on request, the next `failing` times."""

    content: dict[str, bytes]
    failing: int
    status: int
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD, with the query that the server wants."""

    server: Web
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the range that is asked for."""
        self.server.asked.append(self.path)
        path, _, query = self.path.partition("?")
        status, content = 200, self.server.content.get(path)
        if self.server.failing:
            self.server.failing -= 1
            if not self.server.status:  # the connection is closed without an answer
                self.close_connection = True
                return
            status, content = self.server.status, b""
        elif content is None:
            status, content = 404, b""
        elif query != "X-Signature=S/E=CRET":
            status, content = 403, b""
        headers = {"Accept-Ranges": "bytes"}
        if status == 200 and content and (wanted := self.headers["Range"]):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {first}-{last or len(content) - 1}/{len(content)}"
            status, content = 206, content[int(first) : int(last or len(content) - 1) + 1]
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content or b""))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def web() -> Iterator[Web]:
    """Serve `/dir/in.jsonl`."""
    server = Web(("127.0.0.1", 0), Handler)
    server.content, server.failing, server.status, server.asked = {"/dir/in.jsonl": CONTENT}, 0, 500, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def url_of(web: Web, name: str = "dir/in.jsonl", query: str = "?X-Signature=S/E=CRET") -> str:
    """Name a file of the server, as a signed URL does."""
    return f"http://127.0.0.1:{web.server_port}/{name}{query}"


def config_of(source: str, output: str, fake: FakeServer, limit_rows: int | None = None) -> Config:
    """Configure a run."""
    return Config(
        loader=Loader(input=source),
        writer=Writer(output=output),
        server=Server(url=fake.url, start_wait_s=0),
        run=Run(limit_rows=limit_rows),
    )


def test_a_file_of_a_web_server(web: Web, fake: FakeServer, tmp_path: Path) -> None:
    """It is read in ranges, and read on by the next run; the query, which may be a signature, is sent and not shown."""
    output = tmp_path / "out.jsonl"
    run(config_of(url_of(web), str(output), fake, limit_rows=1000))
    record = run(config_of(url_of(web), str(output), fake))
    assert record.resumed_rows == 1000
    assert [row["id"] for row in rows_of(output)] == list(range(3000))
    assert all(row["predicted_label"] == label_of(row["text"]) for row in rows_of(output))
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"CRET" not in written
    assert f"http://127.0.0.1:{web.server_port}/dir/in.jsonl?***".encode() in written or b"/dir/in.jsonl" in written


def test_a_web_server_that_fails_for_a_while_costs_time(web: Web, fake: FakeServer, tmp_path: Path) -> None:
    """Fewer failures in a row than attempts are not seen; more end the run, to be tried again later."""
    location = locate(url_of(web))
    web.failing = ATTEMPTS - 1
    with location.open() as file:
        web.failing = ATTEMPTS - 1
        assert file.read_at(100, 50) == CONTENT[50:150]
    web.failing = 1000
    with pytest.raises(StoreGone, match="try again later"):
        run(config_of(url_of(web), str(tmp_path / "out.csv"), fake))


def test_a_failure_that_passed_is_not_the_reason_of_a_later_error(web: Web, fake: FakeServer, tmp_path: Path) -> None:
    """A broken file is called that, also where the server failed once before it was read."""
    web.content["/dir/in.parquet"] = b"PAR1 and nothing of the kind after it"
    web.failing = 1
    with pytest.raises(InputError, match="can't be read as Parquet"):
        run(config_of(url_of(web, "dir/in.parquet"), str(tmp_path / "out.csv"), fake))


def test_a_connection_that_is_closed_is_no_refusal(web: Web, fake: FakeServer, tmp_path: Path) -> None:
    """Nothing was said that a person could change."""
    web.failing, web.status = 1000, 0
    with pytest.raises(StoreGone, match=r"can't be reached.*try again later"):
        run(config_of(url_of(web), str(tmp_path / "out.csv"), fake))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_for_a_person(web: Web, fake: FakeServer, tmp_path: Path, status: int) -> None:
    """It ends the run at once, and says who refused; the query stays unseen."""
    web.failing, web.status = 1000, status
    with pytest.raises(StoreRefused, match=rf"HTTP {status}.*check the credentials") as refused:
        run(config_of(url_of(web), str(tmp_path / "out.csv"), fake))
    assert "CRET" not in str(refused.value)
    assert len(web.asked) <= 2


def test_what_is_not_there_is_no_such_file(web: Web, classify: Command) -> None:
    """As on a disk."""
    assert locate(url_of(web, "dir/other.csv")).look() == (Kind.NOTHING, 0)
    done = classify("run", url_of(web, "dir/other.csv"), "-o", "out.csv", expect=2)
    assert "other.csv?***: no such file" in done.stderr or "other.csv: no such file" in done.stderr
    assert "CRET" not in done.stderr


def test_a_web_server_takes_no_output(web: Web, fake: FakeServer) -> None:
    """It is said before anything is sent, also where the output would be beside the input."""
    for output in (url_of(web, "dir/out.csv"), ""):
        with pytest.raises(ConfigError, match="web servers are only read"):
            run(config_of(url_of(web), output, fake))
    assert not fake.requests


def test_nobody_listens(fake: FakeServer, tmp_path: Path) -> None:
    """A web server that is down may come back."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/in.csv"
    with pytest.raises(StoreGone, match="can't be reached"):
        run(config_of(url, str(tmp_path / "out.csv"), fake))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a.csv?X-Amz-Signature=SECRET", "https://host/a.csv?***"),
        ("https://user:SECRET@host:8443/a.csv", "https://***@host:8443/a.csv"),
        ("HTTPS://host/a.csv?sig=SEC=RET&b", "https://host/a.csv?***"),
        ("az://container/a.csv?account_key=SECRET", "az://container/a.csv?***"),
        ("sftp://user:SECRET@host/a.csv", "sftp://***@host/a.csv"),
    ],
)
def test_secrets_are_masked(text: str, shown: str) -> None:
    """In the place of a file, and in whatever sentence holds it."""
    assert mask_uri(text) == shown
    assert "SECRET" not in mask_words(f"can't open {text}, sorry")
    assert "SEC=RET" not in mask_words(f"can't open {text}, sorry")


def test_a_store_in_memory(fake: FakeServer, tmp_path: Path) -> None:
    """Whatever fsspec opens: input, output, record, listing; the same command again has nothing to do."""
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/dir/in.jsonl", CONTENT)
    config = config_of("memory://bucket/dir/in.jsonl", "memory://bucket/out/labelled.parquet", fake)
    config = Config(loader=config.loader, writer=config.writer, server=config.server, run=Run(state_dir=str(tmp_path)))
    run(config)
    with files.open("/bucket/out/labelled.parquet") as file:
        table = pq.read_table(file)
    assert table["id"].to_pylist() == list(range(3000))
    assert table["predicted_label"].to_pylist() == [label_of(text) for text in TEXTS]
    requests = len(fake.requests)
    run(config)
    assert len(fake.requests) == requests
    names = [location.path.rpartition("/")[2] for location in [locate("memory://bucket/out/labelled.parquet")]]
    assert names == ["labelled.parquet"]
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(("scheme", "extra"), [("hf", "hf"), ("az", "azure"), ("abfs", "azure"), ("https", "https")])
def test_a_missing_package_is_named_with_its_extra(scheme: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether fsspec is missing, or what it needs for the scheme."""

    def missing(_: str) -> None:
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ConfigError, match=rf'{scheme}:// needs a package that is missing; .*pipeline\[{extra}\]"'):
        locate(f"{scheme}://bucket/a.csv")


AZURITE = next(
    (str(path) for path in [Path(__file__).parents[2] / ".azurite/node_modules/.bin/azurite-blob"] if path.exists()),
    shutil.which("azurite-blob"),
)


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Serve a container `bucket`, with the environment that leads to it."""
    if AZURITE is None:
        pytest.skip("azurite is not installed (npm install --prefix .azurite azurite)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("azurite")
    command = [AZURITE, "--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own
    environment = {
        "AZURE_STORAGE_CONNECTION_STRING": (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={key};"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    }
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        files = fsspec.filesystem("az", connection_string=environment["AZURE_STORAGE_CONNECTION_STRING"])
        files.mkdir("bucket")
        files.pipe_file("bucket/dir/in.jsonl", CONTENT)
        files.pipe_file("bucket/dir/in2.jsonl", CONTENT[: CONTENT.index(b"\n", 500) + 1])
        yield environment
        server.terminate()


@pytest.mark.slow
def test_azure_from_end_to_end(azure: dict[str, str], fake: FakeServer, classify: Command) -> None:
    """From a container into it: a file, a directory, and the same command again."""
    command = ["run", "az://bucket/dir/in.jsonl", "-o", "az://bucket/out/labelled.parquet", "--url", fake.url]
    classify(*command, env=azure)
    files = fsspec.filesystem("az", connection_string=azure["AZURE_STORAGE_CONNECTION_STRING"])
    with files.open("bucket/out/labelled.parquet") as file:
        assert pq.read_table(file)["id"].to_pylist() == list(range(3000))
    requests = len(fake.requests)
    classify(*command, env=azure)
    assert len(fake.requests) == requests
    classify("run", "az://bucket/dir/", "-o", "az://bucket/many/", "--url", fake.url, env=azure)
    assert {"bucket/many/in.jsonl", "bucket/many/in2.jsonl"} <= set(files.find("bucket/many"))
    classify("run", "az://nowhere/in.jsonl", "-o", "out.csv", "--url", fake.url, env=azure, expect=2)
