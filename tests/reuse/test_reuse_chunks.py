"""Chunks of which most is known: what is sent fills a request, and each row gets what belongs to it."""

from __future__ import annotations

from answers import answers_of, labels_of
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batcher.cutter import REUSED_BYTES, REUSED_ROWS, Chunk, Cutter, Reused
from pipeline.config import Request
from pipeline.servers.limiter import BatchSize
from pipeline.texts import Position, block_of


def known_of(texts: list[bytes], answered: set[str], classes: int = 0) -> Reused:
    """What the file would say of a block: the score tells which text it is of."""
    labels = [f"known {text.decode()}" if text.decode() in answered else None for text in texts]
    scores = [float(len(text)) for text in texts]
    probs = [[score] * classes for score in scores] if classes else None
    return Reused([b"key " + text for text in texts], answers_of(labels, scores, probs))


def cut(
    blocks: list[list[str | None]], answered: set[str], request: Request, start: int = 0, classes: int = 0
) -> list[Chunk]:
    """All chunks of some blocks."""
    cutter, chunks, row = Cutter(request, BatchSize(request.rows), start, None), list[Chunk](), 0
    for texts in blocks:
        block = block_of(Position(row, 0, 0), texts, {})
        wanted = [block.texts[index] for index in cutter.wanted(block)]
        chunks += cutter.cut(block, known_of(wanted, answered, classes))
        row += len(texts)
    return [*chunks, *cutter.rest()]


SOME = ["a", "b", "aa", "ab", "ba", "bb", "aab", "a b"]
texts = st.sampled_from([None, "", " ", *SOME])


@given(
    st.lists(st.lists(texts, max_size=12), max_size=4),
    st.sets(st.sampled_from(SOME)),
    st.builds(Request, rows=st.integers(1, 4), max_chars=st.integers(1, 9), dedupe=st.booleans()),
    st.integers(0, 5),
)
def test_each_row_gets_what_belongs_to_it(
    blocks: list[list[str | None]], answered: set[str], request: Request, start: int
) -> None:
    """Known, sent, repeated or empty, wherever the blocks and the chunks end: no row is lost, none is another's."""
    rows = [text for block in blocks for text in block]
    row = start
    for chunk in cut(blocks, answered, request, start, classes=2):
        assert (chunk.first_row, chunk.position.row <= row) == (row, True)
        sent_texts = [text.decode() for text in chunk.texts]
        assert not answered & set(sent_texts)
        assert chunk.keys == [b"key " + text for text in chunk.texts]
        assert len(chunk.texts) <= int(request.rows)
        sent = answers_of([f"sent {text}" for text in sent_texts], [0.0] * len(chunk.texts))
        for label, score, probs, *_ in chunk.rows(sent):
            text = rows[row]
            if text is None or not text or text.isspace():
                assert label is None
            elif text in answered:
                assert (label, score, probs) == (f"known {text}", len(text), [len(text)] * 2)
            else:
                assert label == f"sent {text}"
            row += 1
    assert row == max(start, len(rows)) or start > len(rows)


def test_answers_that_can_t_be_looked_up_any_more_cost_no_row() -> None:
    """The file fails in the middle of a chunk: what was known stays, the rest is sent."""
    cutter, chunks = Cutter(Request(rows=16), BatchSize(16), 0, None), list[Chunk]()
    for first, known in ((0, known_of([b"a", b"b"], {"a"})), (2, Reused.nothing(2))):
        chunks += cutter.cut(block_of(Position(first, 0, 0), ["a", "b"], {}), known)
    (chunk,) = [*chunks, *cutter.rest()]
    sent = [f"sent {text.decode()}" for text in chunk.texts]
    rows = chunk.rows(answers_of(sent, [0.0] * len(sent)))
    assert labels_of(rows) == ["known a", "sent b", "sent a", "sent b"]


def test_known_rows_do_not_count_as_texts_of_a_request() -> None:
    """With one new row in a hundred a request carries some eighty texts."""
    rows: list[str | None] = [f"text {number}" for number in range(100_000)]
    new = set(rows[::100])
    chunks = cut([rows], {text for text in rows if text is not None} - new, Request())
    assert {len(chunk.texts) for chunk in chunks[:-1]} == {REUSED_ROWS // 99, REUSED_ROWS // 99 + 1}


def test_what_is_known_of_a_chunk_is_bounded() -> None:
    """In rows, and in memory where each row has many values; `size` tells how much it is."""
    rows: list[str | None] = [f"text {number}" for number in range(3 * REUSED_ROWS)]
    answered = {text for text in rows if text is not None}
    assert [len(chunk.text_of_row) for chunk in cut([rows], answered, Request())] == [REUSED_ROWS] * 3
    for chunk in cut([rows], answered, Request(), classes=100)[:-1]:
        assert REUSED_BYTES <= chunk.size < REUSED_BYTES + 10_000
        assert len(chunk.text_of_row) < REUSED_ROWS
