"""Parquet to Parquet by copying: the file's own bytes stay, the new columns follow, and one footer names both."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from joining import ADDED, joined, predictions_of
from widening import KINDS, check_copied, check_rows, table_of, write_groups

from pipeline import writer
from pipeline.answers import Answers
from pipeline.errors import InputError
from pipeline.formats import parquet as appended

INDEXED = {"write_page_index": True}
ways = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "version": st.sampled_from(["1.0", "2.6"]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        **{
            name: st.booleans()
            for name in ("use_dictionary", "write_statistics", "write_page_index", "store_schema", "sorted")
        },
    }
)


@given(
    kinds=st.lists(st.integers(0, len(KINDS) - 1), max_size=18),
    groups=st.lists(st.integers(0, 7), max_size=18),
    way=ways,
    metadata=st.none() | st.just({"origin": "here", "": ""}),
    mode=st.sampled_from(["none", "list", "columns"]),
    chunk_rows=st.integers(1, 9),
    failed=st.sets(st.integers(0, 20)),
)
@example(kinds=[0], groups=[1] * 15, way={}, metadata=None, mode="none", chunk_rows=3, failed=set())
@example(
    kinds=[3] * 11, groups=[0, 2, 0, 0, 1, 0], way=INDEXED, metadata={"a": "b"}, mode="none", chunk_rows=1, failed={1}
)
@example(kinds=[], groups=[], way={"store_schema": False}, metadata=None, mode="columns", chunk_rows=1, failed=set())
def test_any_file_is_copied_and_widened(
    *,
    kinds: list[int],
    groups: list[int],
    way: dict[str, Any],
    metadata: dict[str, str] | None,
    mode: str,
    chunk_rows: int,
    failed: set[int],
) -> None:
    """Any types, row groups and ways to write: what was there is untouched, and what is new is right."""
    rows = sum(groups)
    predictions = predictions_of(rows, sorted(failed))
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.parquet", Path(folder) / "out.parquet"
        write_groups(source, table_of(kinds, rows, metadata), groups, **way)
        truncates = {"too_long": "truncate"} if len(kinds) % 2 else None
        joined(source, output, predictions, chunk_rows=chunk_rows, probs=mode, request=truncates)
        check_rows(output, pq.read_table(source), predictions)
        check_copied(source, output)


def test_another_reader_reads_it(tmp_path: Path) -> None:
    """Old columns and new ones, and filters on both, which look at statistics: by a reader that is not Arrow's."""
    kinds = [0, 3, 9, 11]
    write_groups(tmp_path / "in.parquet", table_of(kinds, 40), [15, 0, 25], write_page_index=True)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", probs="list")
    old, new = (duckdb.read_parquet(str(tmp_path / name)) for name in ("in.parquet", "out.parquet"))
    names = ", ".join(["text", *(f"c{number}" for number in range(len(kinds)))])
    found = new.project(names).fetchall()
    assert found == old.project(names).fetchall()
    predictions = [predictions_of(40)[row] for row in range(40)]
    added = new.project(", ".join([*ADDED, "predicted_probs"])).fetchall()
    assert added == [(each.label, each.score, each.error, each.probs) for each in predictions]
    high = new.filter("predicted_score > 0.53 AND c1 > 0").project("text").fetchall()
    assert high == [(f"{n}",) for n, each in enumerate(predictions) if (each.score or 0) > 0.53 and found[n][2] == 1]


def test_an_output_is_an_input(tmp_path: Path) -> None:
    """What was widened can be widened again, and again."""
    write_groups(tmp_path / "0.parquet", table_of(range(len(KINDS)), 20), [5, 0, 15])
    for number, mode in enumerate(["columns", "list", "none"]):
        source, output = tmp_path / f"{number}.parquet", tmp_path / f"{number + 1}.parquet"
        joined(source, output, probs=mode, prefix=("a_", "b_", "predicted_")[number])
        check_copied(source, output)
    check_rows(output, pq.read_table(source), predictions_of(20))
    assert len(pq.read_schema(output)) == 1 + len(KINDS) + 5 + 4 + 3


@pytest.mark.parametrize(
    ("limits", "arguments"),
    [
        ({}, {"compression": "zstd"}),
        ({}, {"rows": 4}),
        ({"GROUP_BYTES": 4 * (32 + 8) - 1}, {}),
        ({"MOST_FOOTER": 100}, {}),
        ({"MOST_CHUNKS": 5}, {}),
    ],
)
def test_what_is_not_copied_is_written_anew(
    limits: dict[str, int], arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another compression, some of the rows, large or many row groups, a long footer: encoded anew, and right."""
    for name, value in limits.items():
        monkeypatch.setattr(appended, name, value)
    write_groups(tmp_path / "in.parquet", table_of([3, 9], 6), [4, 2])
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet", **arguments)
    rows = arguments.get("rows", 6)
    check_rows(tmp_path / "out.parquet", pq.read_table(tmp_path / "in.parquet").slice(0, rows), predictions_of(rows))
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 1


def test_a_file_that_becomes_shorter_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off while it is copied: an error that says so, and no output."""
    monkeypatch.setattr(appended, "COPY_BYTES", 100)
    write_groups(tmp_path / "in.parquet", table_of([3], 6), [6])
    monkeypatch.setattr(appended, "raise_if_cancelled", lambda: os.truncate(tmp_path / "in.parquet", 99))
    with pytest.raises(InputError, match="is shorter than it was"):
        joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


@pytest.mark.parametrize("groups", [[6], [2, 4], [4, 3]])
def test_a_file_that_becomes_another_is_an_error(groups: list[int], tmp_path: Path) -> None:
    """Other row groups when it is copied than when its texts were read: an error that says so."""
    source = tmp_path / "in.parquet"

    class Changing(Answers):
        def __getitem__(self, rows: Any) -> Any:
            write_groups(source, table_of([3], 7), groups)
            return super().__getitem__(rows)

    write_groups(source, table_of([3], 6), [4, 2])
    made = predictions_of(6)
    with pytest.raises(InputError, match="it has changed"):
        joined(source, tmp_path / "out.parquet", Changing(made.labels, made.ids, made.scores, made.probs), rows=6)


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
def test_an_interrupted_join_leaves_nothing(looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended at any moment: no output, no draft, and nothing on standard error when the writer goes."""
    write_groups(tmp_path / "in.parquet", table_of([3], 6), [2, 2, 2])
    left = [None] * looks
    for module in (appended, writer):
        monkeypatch.setattr(module, "raise_if_cancelled", left.pop)
    with pytest.raises(IndexError):
        joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]
