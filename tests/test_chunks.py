"""How rows become chunks: wherever blocks end, whatever repeats, each row points at its own text."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config import Request
from pipeline.cutter import ROWS_PER_TEXT, Chunk, Cutter
from pipeline.escaped import Texts
from pipeline.limiter import ChunkSize
from pipeline.loader import Place, TextBlock

TEXTS = st.lists(st.sampled_from([b"", b"a", b"b", b"c", b"dd", b"eee", "é".encode(), b"f" * 9]), max_size=40)


def chunks_of(texts: list[bytes], sizes: list[int], request: Request, first: int, stop: int | None) -> list[Chunk]:
    """The chunks of some rows that come in blocks of these sizes, over and over; an empty text is an error."""
    cutter = Cutter(request, ChunkSize(request.rows), first, stop)
    chunks: list[Chunk] = []
    row = turn = 0
    while row < len(texts):
        part = texts[row : row + sizes[turn % len(sizes)]]
        errors = {index: "empty: no text" for index, text in enumerate(part) if not text}
        chunks += cutter.cut(TextBlock(Place(row, 0, 0), Texts.of(part), errors))
        row, turn = row + len(part), turn + 1
    return [*chunks, *cutter.rest()]


@settings(max_examples=400)
@given(
    TEXTS,
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.builds(Request, rows=st.integers(1, 5), max_chars=st.integers(1, 12), dedupe=st.booleans()),
    st.integers(0, 3),
    st.integers(0, 40) | st.none(),
)
@example([b"a", b"b", b"a", b"c", b"dd"], [2], Request(rows=4), 0, None)
def test_however_rows_come_each_gets_the_answer_to_its_text(
    texts: list[bytes], sizes: list[int], request: Request, first: int, stop: int | None
) -> None:
    """All rows of the range, once and in order; no text twice in a chunk; never more than was allowed."""
    row, rows = first, ChunkSize(request.rows).rows
    for chunk in chunks_of(texts, sizes, request, first, stop):
        assert chunk.first_row == row
        assert chunk.place.row <= row
        assert 0 < len(chunk.positions) <= rows * ROWS_PER_TEXT
        assert len(chunk.texts) <= rows
        assert len(chunk.texts) <= 1 or sum(len(text.decode()) for text in chunk.texts) <= request.max_chars
        assert not request.dedupe or len(set(chunk.texts)) == len(chunk.texts)
        for index, position in enumerate(chunk.positions):
            wanted = texts[row + index]
            assert (index in chunk.errors) == (position == -1) == (not wanted)
            assert position == -1 or chunk.texts[position] == wanted
        row += len(chunk.positions)
    assert row == max(first, len(texts) if stop is None else min(stop, len(texts)))


def test_a_bound_that_shrinks_in_the_middle_of_a_chunk_loses_no_row() -> None:
    """The server takes fewer texts than the chunk has already: an empty row after that is still no text."""
    sizes = ChunkSize("auto")
    cutter = Cutter(Request(), sizes, 0, None)
    texts = [f"text {number}".encode() for number in range(400)]
    chunks = list(cutter.cut(TextBlock(Place(0, 0, 0), Texts.of(texts[:200]), {})))
    sizes.refused(256)
    chunks += cutter.cut(TextBlock(Place(200, 0, 0), Texts.of([b"", texts[5], *texts[200:]]), {0: "empty: no text"}))
    chunks += cutter.rest()
    assert b"" not in [text for chunk in chunks for text in chunk.texts]
    assert sum(len(chunk.positions) for chunk in chunks) == 402
    assert [len(chunk.texts) for chunk in chunks] == [200, 128, 72]
