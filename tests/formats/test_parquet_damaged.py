"""Parquet files that are not what they say: a message that names the file, and never an end of the process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command, complaint, python
from fake import FakeServer
from widening import change_footer, write_groups

from pipeline.formats import thrift
from pipeline.formats.thrift import Struct, Value

ROWS = 60


def chunk_of(fields: Struct, column: int) -> Struct:
    """What the footer says of a column in the last row group."""
    return fields[4].structs[-1][1].structs[column]


def set_values(column: int, values: int) -> Callable[[Struct], None]:
    """Let the footer say that a column has so many values."""
    return lambda fields: chunk_of(fields, column)[3].struct.update({5: thrift.encode_integer(values, 6)})


def set_rows(rows: int) -> Callable[[Struct], None]:
    """Let the footer say that the file has so many rows."""
    return lambda fields: fields.update({3: thrift.encode_integer(rows, 6)})


def set_rows_of_group(rows: int) -> Callable[[Struct], None]:
    """Let the footer say the same of a row group and of the file."""

    def change(fields: Struct) -> None:
        fields[4].structs[-1][3] = thrift.encode_integer(rows, 6)
        set_rows(ROWS // 2 + rows)(fields)

    return change


def set_histogram(fields: Struct) -> None:
    """Let the footer give counts of levels that the column does not have: at that pyarrow throws, or ends."""
    sizes = b"\x29" + b"\x46" + b"\x02" * 4 + b"\0"  # SizeStatistics: the list of repetition levels
    chunk_of(fields, 1)[3].struct[16] = Value(12, sizes)


def encrypt(fields: Struct) -> None:
    """Let the footer say that the text is encrypted with a key of its own."""
    fields[8] = Value(12, b"\x1c\0\0")
    chunk = chunk_of(fields, 1)
    chunk[8] = Value(12, b"\x2c\x19\x18\x04text\0\0")
    del chunk[3]


DAMAGES = {
    "fewer rows than in the row groups": (set_rows(30), "30 rows by its footer, 60 by its row groups"),
    "more rows than in the row groups": (set_rows(90), "90 rows by its footer, 60 by its row groups"),
    "fewer values of the text": (set_values(1, 20), "row group 1"),
    "more values of the text": (set_values(1, 60), "row group 1"),
    "row group with fewer rows": (set_rows_of_group(20), "row group 1"),
    "row group with more rows": (set_rows_of_group(40), "row group 1"),
    "wrong histogram": (set_histogram, "histogram"),
    "encrypted text": (encrypt, "row group 1 can't be read"),
}


def write_damaged(path: Path, damage: str) -> pa.Table:
    """Write a file with this damage, and return its rows."""
    table = pa.table({"id": range(ROWS), "text": [f"text {n}" for n in range(ROWS)]})
    write_groups(path, table, [ROWS // 2, ROWS // 2])
    change_footer(path, DAMAGES[damage][0])
    return table


@pytest.mark.parametrize("out", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named(damage: str, out: str, fake: FakeServer, classify: Command, tmp_path: Path) -> None:
    """Exit 2, one line, no output."""
    write_damaged(tmp_path / "bad.parquet", damage)
    done = classify("run", "-i", "bad.parquet", "-o", f"out.{out}", "--url", fake.url, "--quiet", expect=2)
    complaint(done, "bad.parquet", DAMAGES[damage][1])
    assert not (tmp_path / f"out.{out}").exists()


@pytest.mark.parametrize("out", ["parquet", "csv", "jsonl"])
def test_damaged_files_of_a_directory_are_named(out: str, fake: FakeServer, classify: Command, tmp_path: Path) -> None:
    """Each in a line; a run of a directory goes on with the others."""
    (tmp_path / "in").mkdir()
    for number, damage in enumerate(DAMAGES):
        table = write_damaged(tmp_path / "in" / f"bad{number}.parquet", damage)
    pq.write_table(table, tmp_path / "in" / "good.parquet")
    done = classify("run", "-i", "in", "-o", "out/", "--set", f"writer.format={out}", "--url", fake.url, expect=2)
    for number, (_, words) in enumerate(DAMAGES.values()):
        assert any(f"bad{number}.parquet" in line and words in line for line in done.stderr.splitlines()), done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."] == [f"good.{out}"]


@pytest.mark.parametrize("out", ["csv", "jsonl"])
@pytest.mark.parametrize("values", [20, 60, 0])
def test_columns_that_differ_in_length_are_seen_before_anything_is_sent(
    out: str, values: int, fake: FakeServer, classify: Command, tmp_path: Path
) -> None:
    """Another column than the text, which the first pass does not read; the footer tells."""
    table = pa.table({"id": range(ROWS), "text": [f"text {n}" for n in range(ROWS)]})
    write_groups(tmp_path / "in.parquet", table, [ROWS // 2, ROWS // 2])
    change_footer(tmp_path / "in.parquet", set_values(0, values))
    done = classify("run", "-i", "in.parquet", "-o", f"out.{out}", "--url", fake.url, "--quiet", expect=2)
    complaint(done, "in.parquet", f"row group 1 is damaged: {values} values of a column where it should have 30 rows")
    assert not fake.answered


def test_a_column_without_pages_is_damage(fake: FakeServer, classify: Command, tmp_path: Path) -> None:
    """The footer is right, the bytes of the pages are not there: Arrow ends early, and we notice."""
    table = pa.table({"id": range(ROWS), "text": [f"text {n}" for n in range(ROWS)]})
    pq.write_table(table, tmp_path / "in.parquet", use_dictionary=False)

    def change(fields: Struct) -> None:
        metadata = chunk_of(fields, 0)[3].struct
        for field in (6, 7):  # bytes of its pages
            metadata[field] = thrift.encode_integer(0, 6)

    change_footer(tmp_path / "in.parquet", change)
    done = classify("run", "-i", "in.parquet", "-o", "out.csv", "--url", fake.url, "--quiet", expect=2)
    complaint(done, "in.parquet", "row group 0")
    assert struct.unpack("<4s", (tmp_path / "in.parquet").read_bytes()[-4:]) == (b"PAR1",)


READ_DAMAGED = """
import random, sys
from datetime import UTC, datetime
from pathlib import Path
import pyarrow as pa
from pipeline.config import Config, Loader, Writer
from pipeline.errors import ClassifyError
from pipeline.formats.source import TextSpec
from pipeline.formats.values import to_cells
from pipeline.loader import open_source
from pipeline.writer import check_types

path, folder = Path(sys.argv[1]), Path(sys.argv[2])
good, chance = path.read_bytes(), random.Random(7)
footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
ends = {"read": 0, "refused": 0}
for number in range(300):
    content = bytearray(good)
    for _ in range(chance.choice([1, 1, 2, 3])):
        at = chance.randrange(footer, len(good) - 8) if chance.random() < 0.85 else chance.randrange(4, footer)
        content[at] = chance.choice([chance.randrange(256), content[at] ^ 1 << chance.randrange(8), 0, 127, 255])
    damaged = folder / f"{number}.parquet"
    damaged.write_bytes(content)
    print("read", damaged, flush=True)  # the last line names the file that ends the process
    try:
        loader = Loader(input=str(damaged))
        source, spec = open_source(loader), TextSpec(loader)
        source.check(spec, [])
        check_types(Config(loader=loader, writer=Writer(output="out.csv")), source)
        rows = sum(len(block.texts) for block in source.texts(spec))
        written = 0
        for batch in source.batches():
            written += len(batch)
            for field, column in zip(batch.schema, batch.columns, strict=True):
                to_cells(column, field.name)
        assert rows == written == source.total_rows, (rows, written, source.total_rows)
        ends["read"] += 1
    except ClassifyError as error:
        assert damaged.name in str(error) or "the column" in str(error), error
        ends["refused"] += 1
    damaged.unlink()
print(ends)
"""


def test_no_damage_ends_the_process_or_loses_rows(tmp_path: Path) -> None:
    """Bytes of a footer, and of pages, are changed at random: the file is read whole, or refused by name."""
    table = pa.table(
        {
            "id": range(ROWS),
            "text": [f"text {n % 40}" for n in range(ROWS)],
            "list": [[n, None] for n in range(ROWS)],
            "struct": [{"a": str(n), "at": datetime(2026, 11, 23, tzinfo=UTC)} for n in range(ROWS)],
        }
    )
    write_groups(tmp_path / "in.parquet", table, [ROWS // 2, ROWS // 2])
    done = python(READ_DAMAGED, tmp_path / "in.parquet", tmp_path)
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-2000:]}"
