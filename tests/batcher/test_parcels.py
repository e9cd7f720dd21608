"""Chunks of several files in one request: none is lost or held back, and each file gets its own answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import zip_longest
from pathlib import Path

import pytest
from answers import answers_of
from commands import Command, last_line
from fake import FakeServer, refuse
from files import record, seen, write
from hypothesis import given, settings
from hypothesis import strategies as st
from whole_runs import alone

from pipeline.batcher.cutter import Chunk
from pipeline.batcher.requests import gather_requests
from pipeline.servers.limiter import BatchSize
from pipeline.servers.model import CANARY
from pipeline.texts import Position, Texts


def chunk_of(number: int, texts: int, length: int) -> Chunk:
    """A chunk of so many texts, so many bytes in all of them."""
    return Chunk(number, Position(0, 0, 0), texts=Texts.of([b"x" * length] * texts))


@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=30), st.integers(1, 6), st.integers(1, 40))
def test_every_chunk_is_in_one_request_in_its_order(kinds: list[tuple[int, int]], rows: int, most: int) -> None:
    """Within the bounds of a request, unless one chunk alone is beyond them; and never two where one would do."""
    chunks = [chunk_of(number, texts, length) for number, (texts, length) in enumerate(kinds)]

    async def come() -> AsyncIterator[Chunk]:
        for chunk in chunks:
            yield chunk

    async def gather() -> list[list[Chunk]]:
        async with aclosing(gather_requests(come(), BatchSize(rows), most)) as gathered:
            return [request.chunks async for request in gathered]

    gathered = asyncio.run(gather())
    assert [chunk for request in gathered for chunk in request] == chunks
    for request, after in zip_longest(gathered, gathered[1:]):
        texts, size = sum(len(chunk.texts) for chunk in request), sum(chunk.size for chunk in request)
        assert len(request) == 1 or (texts <= rows and size <= most)
        if after:
            assert texts >= rows or size >= most or texts + len(after[0].texts) > rows or size + after[0].size > most


async def test_no_chunk_waits_for_one_that_does_not_come() -> None:
    """The next file may be opened only when this one is published."""
    published = asyncio.Event()

    async def come() -> AsyncIterator[Chunk]:
        yield chunk_of(0, 1, 1)
        await published.wait()
        yield chunk_of(1, 1, 1)

    found = []
    async with aclosing(gather_requests(come(), BatchSize(8), 100)) as gathered:
        async for request in gathered:
            found.append([chunk.first_row for chunk in request.chunks])
            published.set()
    assert found == [[0], [1]]


async def test_what_ends_the_chunks_ends_the_gather_requests() -> None:
    """And who ends the requests does not leave a reader behind."""

    async def come() -> AsyncIterator[Chunk]:
        yield chunk_of(0, 1, 1)
        raise ValueError("broken")

    async with aclosing(gather_requests(come(), BatchSize(8), 100)) as gathered:
        with pytest.raises(ValueError, match="broken"):  # and nothing was sent of what broke at once
            await anext(gathered)

    async def wait() -> AsyncIterator[Chunk]:
        yield chunk_of(0, 1, 1)
        await asyncio.Event().wait()

    async with aclosing(gather_requests(wait(), BatchSize(8), 100)) as gathered:
        await anext(gathered)
    assert len(asyncio.all_tasks()) == 1


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=9), st.integers(0, 9), st.integers(0, 9))
def test_some_answers_are_those_of_their_texts(labels: list[str | None], start: int, stop: int) -> None:
    """With errors and truncations, as if the others had not been there."""
    scores, probs = [float(n) for n in range(len(labels))], [[float(n)] for n in range(len(labels))]
    errors = {n: f"bad: {n}" for n, label in enumerate(labels) if label is None}
    whole = answers_of(labels, scores, probs, errors, range(0, len(labels), 2))
    assert list(whole[start:stop]) == list(whole)[start:stop]


@pytest.mark.slow
def test_small_files_share_requests_and_the_blame_stays_where_it_belongs(
    tmp_path: Path, fake: FakeServer, classify: Command
) -> None:
    """Fifty files of four rows are a few requests; one row that fails is one row of one file."""
    names = [f"{number:02}.{kind}" for number, kind in enumerate(["csv", "jsonl", "parquet", "tsv", "csv"] * 10)]
    for name in names:
        write(tmp_path / "in" / name, [f"{name} {n}" for n in range(4)])
    expected = alone(tmp_path / "in", fake, tmp_path / "alone")
    fake.requests.clear()
    classify("run", "in", "-o", "out/", "--url", fake.url)
    assert seen(tmp_path / "out") == expected
    asked = [each for each in fake.requests if tuple(each.texts) != CANARY]
    assert len(asked) <= 10
    records = {name: record(tmp_path / "out" / name) for name in names}
    assert sum(each["requests"] for each in records.values()) == len(asked)
    assert [each["texts_sent"] for each in records.values()] == [4] * 50

    bad = {"07.parquet": "07.parquet 1", "31.jsonl": "31.jsonl 3"}
    fake.rules.append((lambda text: text in bad.values(), refuse(400, "I don't like it")))
    done = classify("run", "in", "-o", "out/", "--url", fake.url, "--restart", expect=3)
    assert "2 of 50 files failed" in last_line(done)
    for name in names:
        found = record(tmp_path / "out" / name)
        assert (found["labelled"], sum(found["failed"].values())) == ((3, 1) if name in bad else (4, 0))
        assert found["texts_sent"] >= 4
    after = seen(tmp_path / "out")
    assert {name for name in names if after[name] != expected[name]} == set(bad)
