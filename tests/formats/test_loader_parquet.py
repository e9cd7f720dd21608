"""The loader on Parquet: every kind of string, and reading on from any row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from joining import blocks_of, sent, texts_of

from pipeline.config import Loader
from pipeline.errors import RowError
from pipeline.formats.columnar import BATCH_BYTES
from pipeline.formats.source import BLOCK_CHARS, TextSpec
from pipeline.loader import open_source
from pipeline.texts import EMPTY

STRINGS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
]


@pytest.mark.parametrize("kind", STRINGS, ids=str)
@pytest.mark.parametrize("inside", [False, True])
def test_every_arrow_string_is_text(kind: pa.DataType, inside: bool, tmp_path: Path) -> None:
    """string, large_string, string_view and dictionaries of them, also inside a struct; null stays null."""
    column = pa.array(["größe 😀", None, "", "b", "b"], pa.string()).cast(kind)
    if inside:
        gaps = pa.array([False, False, False, True, False])
        column = pa.StructArray.from_arrays([column, pa.array(range(5))], ["b", "c"], mask=gaps)
    # Arrow can't cut nested string views into row groups when it writes.
    pq.write_table(pa.table({"a": column}), tmp_path / "in.parquet", row_group_size=5 if inside else 2)
    texts = texts_of(tmp_path / "in.parquet", text_column="a.b" if inside else "a")
    assert texts == ["größe 😀", None, None, None if inside else "b", "b"]


@pytest.mark.parametrize("wrong", [b"\xff\xfe", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80"])
def test_parquet_strings_that_are_no_utf8_are_not_text(wrong: bytes, tmp_path: Path) -> None:
    """Parquet does not check its strings: such a row is `not_text`, the others keep theirs."""
    raw = pa.array([b"good", wrong, None, "größe".encode()], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 4, raw.buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "in.parquet")
    (block,) = blocks_of(tmp_path / "in.parquet")
    assert sent(block) == ["good", None, None, "größe"]
    assert block.errors == {1: RowError("not_text", "no valid UTF-8"), 2: EMPTY}


def test_parquet_is_read_from_any_row_on(tmp_path: Path) -> None:
    """Each block's place leads to exactly the rest, across row groups of any size."""
    texts = [f"text {n}" for n in range(30_000)]
    pq.write_table(pa.table({"text": texts, "n": range(30_000)}), tmp_path / "in.parquet", row_group_size=7_001)
    settings = Loader(input=str(tmp_path / "in.parquet"))
    source, spec = open_source(settings), TextSpec(settings)
    blocks = list(source.texts(spec))
    assert [text for block in blocks for text in sent(block)] == texts
    assert max(len(block.texts) for block in blocks) <= 7_001
    for block in blocks:
        rest = [text for each in source.texts(spec, block.position) for text in sent(each)]
        assert rest == texts[block.position.row :]


def test_texts_that_repeat_are_no_larger_in_memory_than_others(tmp_path: Path) -> None:
    """Ten long texts, again and again: next to nothing in the file, and blocks of them are bounded all the same."""
    texts = [f"{number % 10} {'x' * 20_000}" for number in range(2000)]
    pq.write_table(pa.table({"text": texts, "id": range(2000)}), tmp_path / "in.parquet")
    source = open_source(Loader(input=str(tmp_path / "in.parquet")))
    blocks = list(source.texts(TextSpec(Loader())))
    assert [text.decode() for block in blocks for text in block.texts] == texts
    assert max(block.texts.size for block in blocks) <= 2 * BLOCK_CHARS
    assert max(batch.nbytes for batch in source.batches()) <= 2 * BATCH_BYTES
