"""What a run and its workers tell each other arrives as it was sent, and errors stay what they are."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
from pathlib import Path

import pytest
from s3 import Bucket

from pipeline import errors
from pipeline.checkpoint import Range
from pipeline.config import Config, Loader, Writer
from pipeline.engines.channel import Answered, Begin, Channel, Ended, Finish, News, Shard, Trouble
from pipeline.errors import ClassifyError, InputError, ServerGone
from pipeline.monitoring.progress import Counts
from pipeline.storage import locate
from pipeline.texts import Position


async def channels() -> tuple[Channel, Channel]:
    """Both ends of one."""
    return tuple([Channel(*await asyncio.open_connection(sock=end)) for end in socket.socketpair()])  # type: ignore[return-value]


async def test_messages_arrive_in_their_order() -> None:
    """Those of a run at its worker, those of the worker at the run, however large; then the end."""
    ours, theirs = await channels()
    config = Config(loader=Loader(input="in.csv"), writer=Writer(min_score={"a": 0.5}))
    begin = Begin(config, {"KEY": os.fsdecode(b"no UTF-8: \xe9")}, "/", ["http://a"], 3, is_answered=False)
    rows = [Range(4, 9), Range(12, None)], [Position(4, 100, 5)]
    shard = Shard(3, locate("in.csv"), "out.csv", *rows, None, {"model.names": {"0": "a"}})
    for message in (begin, shard, Finish(2.5)):
        ours.send(message)
    assert [await theirs.receive() for _ in range(3)] == [begin, shard, Finish(2.5)]
    record = (0, 2, 0, 0, 0, bytes(8), bytes(16), None, None, None)
    answered = Answered(3, ["a", "ü"], [record] * 20_000, Counts().take())
    theirs.send(answered)
    closing = asyncio.ensure_future(theirs.close())
    found = await ours.receive()
    await closing
    assert isinstance(found, Answered)
    assert (found.labels, found.records) == (answered.labels, answered.records)
    assert vars(found.spent) == vars(answered.spent)
    assert await ours.receive() is None
    ours.send(Finish())  # nobody is there: no error
    await ours.close()


async def test_a_worker_that_ends_in_the_middle_of_a_message_is_gone() -> None:
    """Half a message is none."""
    one, other = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=one))
    other.send((100).to_bytes(4, "little") + b"half")
    other.close()
    assert await channel.receive() is None
    await channel.close()


@pytest.mark.parametrize(
    "kind", [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClassifyError)]
)
def test_an_error_keeps_its_class_and_its_message(kind: type[ClassifyError]) -> None:
    """So the exit code is that of the same error in one process."""
    error = Trouble("ServerGone", "x").error() if kind is ServerGone else Trouble(kind.__name__, "x").error()
    assert type(error) is kind
    assert str(error) == "x"


def test_a_bug_shows_where_it_is() -> None:
    """It is no error of ours, whatever it is called, and the run prints the traceback of the worker."""
    error = Trouble("KeyError", "'a'", "Traceback: in worker.py").error()
    assert not isinstance(error, ClassifyError)
    assert "KeyError in a worker" in str(error)
    assert error.__notes__ == ["Traceback: in worker.py"]
    assert Trouble.of(InputError("half a pair \ud800")).message == "half a pair \\ud800"


async def test_counts_arrive_as_they_were() -> None:
    """Also those of errors, which are a dictionary of their own."""
    counts = Counts()
    counts.spend(7)
    counts.resume(5, {"empty": 2})
    ours, theirs = await channels()
    theirs.send(News(counts.take(), 3, 1.5, None))
    theirs.send(Ended())
    news = await ours.receive()
    assert isinstance(news, News)
    found = news.spent
    assert (found.requests, found.texts_sent, found.rows_done, found.failed, found.errors["empty"]) == (1, 7, 5, {}, 2)
    assert (counts.requests, counts.errors) == (0, {})
    assert await ours.receive() == Ended()
    for end in (ours, theirs):
        await end.close()


def test_a_location_in_a_store_can_be_opened_by_a_worker(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What travels says how the store is reached."""
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in.csv").write_text("text\na\n")
    bucket.put("in.csv", (tmp_path / "in.csv").read_bytes())
    location = locate(bucket.uri("in.csv"))
    assert location.read() == b"text\na\n"
    assert pickle.loads(pickle.dumps(location)).read() == b"text\na\n"  # noqa: S301
