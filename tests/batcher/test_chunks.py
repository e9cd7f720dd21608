"""How rows become chunks: wherever blocks end, whatever repeats, each row points at its own text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.batcher.cutter import ROWS_PER_TEXT, Chunk, Cutter
from pipeline.config import Request
from pipeline.errors import RowError
from pipeline.servers.limiter import BatchSize
from pipeline.texts import EMPTY, Indices, Mask, Position, TextBlock, Texts

SHORT = st.sampled_from([b"", b"a", b"b", b"c", b"dd", b"eee", "é".encode(), b"f" * 9])
# Of eight bytes and more texts are told apart by some in their middle first.
LONG = st.sampled_from([b"", b"g" * 8, b"g" * 9, b"1 the same 1", b"1 the same 2", b"2 the same 1", "é".encode() * 6])
TEXTS = st.lists(SHORT, max_size=40) | st.lists(LONG, max_size=40)


def chunks_of(texts: list[bytes], sizes: list[int], request: Request, first: int, stop: int | None) -> list[Chunk]:
    """The chunks of some rows that come in blocks of these sizes, over and over; an empty text is an error."""
    cutter = Cutter(request, BatchSize(request.rows), first, stop)
    chunks: list[Chunk] = []
    row = turn = 0
    while row < len(texts):
        part = texts[row : row + sizes[turn % len(sizes)]]
        errors = {index: RowError("empty", f"row {row + index}") for index, text in enumerate(part) if not text}
        chunks += cutter.cut(TextBlock(Position(row, 0, 0), Texts.of(part), errors))
        row, turn = row + len(part), turn + 1
    return [*chunks, *cutter.rest()]


@settings(max_examples=7 * settings().max_examples)
@given(
    TEXTS,
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.builds(Request, rows=st.integers(1, 5), max_chars=st.integers(1, 30), dedupe=st.booleans()),
    st.integers(0, 3),
    st.integers(0, 40) | st.none(),
)
@example([b"a", b"b", b"a", b"c", b"dd"], [2], Request(rows=4), 0, None)
@example([b"a"] * (ROWS_PER_TEXT + 1), [9], Request(rows=1), 0, None)
def test_however_rows_come_each_gets_the_answer_to_its_text(
    texts: list[bytes], sizes: list[int], request: Request, first: int, stop: int | None
) -> None:
    """All rows of the range, once and in order; no text twice in a chunk; never more than was allowed."""
    row, rows = first, BatchSize(request.rows).texts
    for chunk in chunks_of(texts, sizes, request, first, stop):
        assert chunk.first_row == row
        assert chunk.position.row <= row
        assert 0 < len(chunk.text_of_row) <= rows * ROWS_PER_TEXT
        assert len(chunk.texts) <= rows
        assert len(chunk.texts) <= 1 or sum(len(text.decode()) for text in chunk.texts) <= request.max_chars
        assert not request.dedupe or len(set(chunk.texts)) == len(chunk.texts)
        for index, position in enumerate(chunk.text_of_row):
            wanted = texts[row + index]
            assert chunk.errors.get(index) == (None if wanted else RowError("empty", f"row {row + index}"))
            assert (position == -1) == (not wanted)
            assert position == -1 or chunk.texts[position] == wanted
        row += len(chunk.text_of_row)
    assert row == max(first, len(texts) if stop is None else min(stop, len(texts)))


def test_a_bound_that_shrinks_in_the_middle_of_a_chunk_loses_no_row() -> None:
    """The server takes fewer texts than the chunk has already: an empty row after that is still no text."""
    sizes = BatchSize("auto")
    cutter = Cutter(Request(), sizes, 0, None)
    texts = [f"text {number}".encode() for number in range(400)]
    chunks = list(cutter.cut(TextBlock(Position(0, 0, 0), Texts.of(texts[:200]), {})))
    sizes.refused(256)
    chunks += cutter.cut(TextBlock(Position(200, 0, 0), Texts.of([b"", texts[5], *texts[200:]]), {0: EMPTY}))
    chunks += cutter.rest()
    assert b"" not in [text for chunk in chunks for text in chunk.texts]
    assert sum(len(chunk.text_of_row) for chunk in chunks) == 402
    assert [len(chunk.texts) for chunk in chunks] == [200, 128, 72]


def test_characters_are_counted_and_not_bytes() -> None:
    """Of one as much as of three bytes; the quotes around a text are none of its own."""
    for text in ("a", "é", "日"):
        texts = [(f"{number}" + text * 9).encode() for number in range(10)] * 3
        assert [len(chunk.texts) for chunk in chunks_of(texts, [30], Request(max_chars=30, dedupe=False), 0, None)] == [
            3
        ] * 10


@pytest.mark.parametrize("most", [1 << 61, 1 << 63, 10**30])
def test_a_bound_beyond_all_sizes_is_none(most: int) -> None:
    """The config takes any number."""
    assert len(chunks_of([b"a", b"b"], [1], Request(max_chars=most), 0, None)) == 1


def test_a_chunk_holds_no_more_than_its_texts() -> None:
    """What is under way is bounded by `size`: neither the block nor what did not fit any more may hang on it."""
    small, large = b"small", b"x" * 1_000_000
    for dedupe in (True, False):
        for texts in ([small, large] * 4, [b"%d" % number + b"x" * 10_000 for number in range(300)]):
            for chunk in chunks_of(texts, [300], Request(dedupe=dedupe), 0, None):
                assert len(chunk.texts.data.obj) <= chunk.size + 3 * len(chunk.texts)  # type: ignore[arg-type]


def test_few_values_are_not_compared_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that has room for one more text looks at many rows at a time all the same."""
    looked, distinct = [0], Texts.distinct

    def counted(texts: Texts, wanted: Mask) -> tuple[Texts, Indices]:
        looked[0] += len(texts)
        return distinct(texts, wanted)

    monkeypatch.setattr(Texts, "distinct", counted)
    rows = [b"%d" % (number % 255) for number in range(4096)]
    assert [len(chunk.texts) for chunk in chunks_of(rows, [4096], Request(rows=256), 0, None)] == [255]
    assert looked[0] < 3 * len(rows)
