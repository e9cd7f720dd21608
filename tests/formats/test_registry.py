"""The registry: a line adds a format, whatever names formats asks it, and only what is used is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pyarrow.parquet as pq
import pytest
from fake import FakeServer, label_of, score_of
from txt_format import TXT, TxtSource

from pipeline import Config, run
from pipeline.config import Loader, Request, Run, Server, Writer, sections
from pipeline.errors import ConfigError
from pipeline.formats import textfile
from pipeline.formats.arrow import ArrowSource, ArrowWriter
from pipeline.formats.csv import CsvSource, CsvWriter
from pipeline.formats.json_array import JsonArraySource, JsonArrayWriter
from pipeline.formats.jsonl import JsonlSource, JsonlWriter
from pipeline.formats.orc import OrcSource
from pipeline.formats.parquet import ParquetSource, ParquetWriter
from pipeline.formats.registry import FORMATS, Format, endings_in_words, format_of
from pipeline.formats.source import Source
from pipeline.formats.source import Writer as FileWriter
from pipeline.formats.xlsx import XlsxSource
from pipeline.loader import open_source
from pipeline.texts import Position

# The types hold each class to its protocol.
READERS: dict[str, type[Source]] = {
    "csv": CsvSource,
    "tsv": CsvSource,
    "parquet": ParquetSource,
    "jsonl": JsonlSource,
    "json": JsonArraySource,
    "arrow": ArrowSource,
    "orc": OrcSource,
    "xlsx": XlsxSource,
}
WRITERS: dict[str, type[FileWriter]] = {
    "csv": CsvWriter,
    "tsv": CsvWriter,
    "parquet": ParquetWriter,
    "jsonl": JsonlWriter,
    "json": JsonArrayWriter,
    "arrow": ArrowWriter,
}
LINES = [f"line {number} é" for number in range(30)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Make a directory with `x.txt`, while `.txt` is a format."""
    (tmp_path / "x.txt").write_text("".join(f"{line}\n" for line in LINES), newline="")
    FORMATS["txt"] = TXT
    yield tmp_path
    FORMATS.pop("txt", None)


def settings(folder: Path, fake: FakeServer, output: str, limit_rows: int | None = None) -> Config:
    """Configure a run of `x.txt`, with few rows in a request: the position of each request is kept."""
    return Config(
        loader=Loader(input=str(folder / "x.txt")),
        writer=Writer(output=str(folder / output)),
        server=Server(url=fake.url, start_wait_s=0),
        request=Request(rows=4),
        run=Run(limit_rows=limit_rows),
    )


def test_a_format_is_a_module_and_a_line(folder: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows become any other format, and a run goes on from the position that another has come to."""
    monkeypatch.setattr(textfile, "READ_BYTES", 100)  # some ten rows a block
    positions: list[Position] = []
    read = TxtSource.texts

    def spy(*arguments: object) -> object:
        positions.extend(each for each in arguments if isinstance(each, Position))
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(TxtSource, "texts", spy)
    run(settings(folder, fake, "y.jsonl", limit_rows=17))
    assert len((folder / "y.jsonl").read_text().splitlines()) == 17
    sent, positions[:] = len(fake.texts), []
    assert run(settings(folder, fake, "y.jsonl")).resumed_rows == 17
    assert {*LINES[17:]} == {*fake.texts[sent:]} & {*LINES}
    assert any(0 < each.row == each.line <= 17 and each.offset > each.row for each in positions)
    wanted = [
        {"text": text, "predicted_label": label_of(text), "predicted_score": score_of(text), "predicted_error": None}
        for text in LINES
    ]
    assert [json.loads(line) for line in (folder / "y.jsonl").read_text().splitlines()] == wanted
    run(settings(folder, fake, "y.parquet"))
    assert pq.read_table(folder / "y.parquet").to_pylist() == wanted


def test_a_format_that_is_only_read_is_no_output(folder: Path, fake: FakeServer) -> None:
    """It is said before anything is sent, with the endings that an output may have."""
    with pytest.raises(
        ConfigError, match=r"y.txt: txt files are only read; .* .csv, .tsv, .parquet, .jsonl, .json or .arrow$"
    ):
        run(settings(folder, fake, "y.txt"))
    assert not fake.requests


def test_a_format_that_was_taken_out_is_not_known(folder: Path, fake: FakeServer) -> None:
    """The message names the formats there are."""
    assert endings_in_words() == ".csv, .tsv, .parquet, .jsonl, .json, .arrow, .orc, .xlsx or .txt"
    del FORMATS["txt"]
    with pytest.raises(ConfigError, match=r"x.txt: the ending names no format; end it in .csv, .tsv, .parquet, .j"):
        run(settings(folder, fake, "y.jsonl"))


def test_the_classes_of_each_format_are_there() -> None:
    """They are named by strings, so that nothing is imported before it is used."""
    assert {name: each.load(each.reader) for name, each in FORMATS.items()} == READERS
    assert {name: each.load(each.writer) for name, each in FORMATS.items() if each.writer} == WRITERS
    assert [each.name for each in FORMATS.values()] == [*FORMATS]


def test_the_config_takes_each_name_of_a_format() -> None:
    """Also a second ending of one."""
    names = get_args(sections.__dict__["FormatName"])
    assert {FORMATS[name].name for name in FORMATS} <= {*names}
    assert {*names} == {"csv", "tsv", "parquet", "jsonl", "ndjson", "json", "arrow", "feather", "orc", "xlsx"}
    assert {format_of("x", name, "").name for name in names} == {*FORMATS}


def test_an_unknown_format_is_refused_where_no_config_was_loaded(tmp_path: Path) -> None:
    """A struct that a program makes is not checked by itself."""
    (tmp_path / "x.csv").write_text("text\na\n")
    with pytest.raises(ConfigError, match=r"^loader.format: expected csv or .*xlsx, not 'docx'$"):
        open_source(Loader(input=str(tmp_path / "x.csv"), format="docx"))


def test_a_missing_package_is_named_with_the_extra_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is missing in a format without one is a bug, with its traceback."""
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    (tmp_path / "x.needy").write_text("a")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FORMATS, "needy", Format(("needy",), "needy:Source", extra="more"))
    with pytest.raises(ConfigError, match=r'^.needy files need the package no_such_package; .*pipeline\[more\]"$'):
        open_source(Loader(input=str(tmp_path / "x.needy")))
    monkeypatch.setitem(FORMATS, "needy", Format(("needy",), "needy:Source"))
    with pytest.raises(ModuleNotFoundError):
        open_source(Loader(input=str(tmp_path / "x.needy")))


def test_only_the_format_in_use_is_imported(tmp_path: Path, fake: FakeServer) -> None:
    """A run of CSV pays for no Parquet, and the registry for nothing at all."""
    (tmp_path / "in.csv").write_text("text\na\n")
    code = f"""if True:
        import sys, pipeline.formats.registry
        heavy = {{"msgspec", "numpy", "pandas", "pyarrow"}} & {{*sys.modules}}
        import pipeline.cli
        status = pipeline.cli.main(["run", {str(tmp_path / "in.csv")!r}, "--url", {fake.url!r}, "--quiet"])
        others = [name for name in sys.modules if name in ("pyarrow.parquet", "pipeline.formats.jsonl")]
        print(status, heavy, others)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "0 set() []\n"
