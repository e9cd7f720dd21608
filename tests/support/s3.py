"""A real S3 server on loopback (moto's) in a process of its own, and a way to it that can be made bad.

python tests/s3.py    serves until its standard input is closed; says its port first
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

KEY, SECRET = "AKIAEXAMPLE", "se/cret+key"  # the server takes any


@dataclass
class Bucket:
    """One bucket, looked at without the code under test."""

    port: int
    name: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex[:12]}")

    def __post_init__(self) -> None:
        self._ask("PUT", "")

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return environment_for(self.port)

    def uri(self, key: str = "") -> str:
        """The URI of an object."""
        return f"s3://{self.name}/{key}"

    def put(self, key: str, content: bytes) -> str:
        """Make an object; its URI."""
        self._ask("PUT", quote(key), content)
        return self.uri(key)

    def get(self, key: str) -> bytes | None:
        """What an object holds, None if there is none."""
        try:
            return self._ask("GET", quote(key))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 404:
                return None
            raise

    def keys(self) -> list[str]:
        """The keys of all objects that anybody can see."""
        return re.findall(r"<Key>(.*?)</Key>", self._ask("GET", "?list-type=2").decode())

    def uploads(self) -> list[str]:
        """The keys of uploads that were begun and neither finished nor given up."""
        return re.findall(r"<Key>(.*?)</Key>", self._ask("GET", "?uploads").decode())

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        return _ask(self.port, method, f"{self.name}/{path}", content)


def environment_for(port: int) -> dict[str, str]:
    """The environment of a user whose store listens on `port`."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def only_reading(bucket: Bucket) -> Iterator[tuple[str, str]]:
    """Key and secret of a user who may read and nothing else; for so long the server believes known users only."""
    may = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket", "s3:HeadBucket"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may]})
    user = {"UserName": f"reader-{uuid.uuid4().hex}"}
    _ask(bucket.port, "POST", "", _form(Action="CreateUser", **user), "iam")
    _ask(bucket.port, "POST", "", _form(Action="PutUserPolicy", PolicyName="p", PolicyDocument=policy, **user), "iam")
    made = _ask(bucket.port, "POST", "", _form(Action="CreateAccessKey", **user), "iam").decode()
    pair = re.findall(r"<(?:AccessKeyId|SecretAccessKey)>(.*?)<", made)
    _ask(bucket.port, "POST", "moto-api/reset-auth", b"0")
    try:
        yield pair[0], pair[1]
    finally:
        _ask(bucket.port, "POST", "moto-api/reset-auth", b"Infinity")


def _form(**values: str) -> bytes:
    return urlencode({"Version": "2010-05-08", **values}).encode()


def _ask(port: int, method: str, path: str, content: bytes | None = None, service: str = "s3") -> bytes:
    # It believes any signature, but takes a request without one for a stranger's.
    scope = f"{KEY}/20260101/us-east-1/{service}/aws4_request"
    kind = "application/octet-stream" if service == "s3" else "application/x-www-form-urlencoded"
    headers = {
        "Content-Type": kind,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }
    url = f"http://127.0.0.1:{port}/{path}"
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - it is ours
        body: bytes = answer.read()
    return body


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """A server in a process of its own; its port."""
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        yield int(process.stdout.readline())
        process.terminate()


class Way:
    """A TCP proxy to a port. Of what is sent, `allow` bytes go through; then it cuts connections or lets them hang."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.allow: int | None = None  # None: any number
        self.hangs = False
        self.well_after: int | None = None  # so many cuts
        self.sent = 0  # bytes that went through
        self.is_blocked = threading.Event()  # set when the first byte did not
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the thread that accepts
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)
        for each in [self._listening, *self._sockets]:
            each.close()

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            near, _ = self._listening.accept()
            far = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [near, far]
            self._start(self._pump, near, far, True)
            self._start(self._pump, far, near, False)

    def _block(self) -> None:
        self.is_blocked.set()
        if self.hangs:
            self._closing.wait()
        if self.well_after is not None:
            self.well_after -= 1
            if not self.well_after:
                self.allow = None

    def _pump(self, source: socket.socket, target: socket.socket, is_sent: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                if is_sent and self.allow is not None and self.sent + len(content) > self.allow:
                    self._block()
                    break
                self.sent += len(content) if is_sent else 0
                target.sendall(content)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve until standard input is closed."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
