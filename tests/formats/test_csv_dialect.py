"""CSV as others write it: quotes that are plain, escapes, no header; and what is said when the dialect seems wrong."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from commands import Command, complaint
from fake import FakeServer
from files import rows_of
from joining import joined, texts_of

from pipeline.checkpoint.identity import differences, identity_of
from pipeline.config import Config, Loader
from pipeline.errors import InputError, OutputError
from pipeline.formats.dialect import Dialect, doubts
from pipeline.loader import dialect_of, open_source

PLAIN_QUOTES = 'id\ttext\n1\t"Unbalanced start\n2\tplain\n3\tend quote"\n4\tlast\n'
BACKSLASHES = '1,"say \\"hi\\" now"\n2,"C:\\new"\n3,"two\nlines, \\\\"\n4,a\\,b\n5,"both "" kinds"\n'
ESCAPED = ['say "hi" now', "C:\\new", "two\nlines, \\", "a,b", 'both " kinds']


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_quotes_may_be_plain_characters(encoding: str, tmp_path: Path) -> None:
    """With `quoting = "none"` each line is a record, by the scanner and by the csv module; the bytes stay."""
    path, output = tmp_path / "in.tsv", tmp_path / "out.tsv"
    path.write_bytes(PLAIN_QUOTES.encode(encoding))
    loader = {"quoting": "none", "encoding": encoding}
    assert texts_of(path, **loader) == ['"Unbalanced start', "plain", 'end quote"', "last"]
    joined(path, output, loader=loader)
    lines = output.read_bytes().decode(encoding).splitlines()
    assert [line.rsplit("\t", 3)[0] for line in lines] == PLAIN_QUOTES.splitlines()
    assert lines[3] == '3\tend quote"\tno\t0.501953125\t'


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_escape_makes_what_follows_plain(end: str, encoding: str, tmp_path: Path) -> None:
    """Before a quote, a delimiter, a line end or itself; a backslash before a letter stays what it is."""
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    content = ("id,text\n" + BACKSLASHES).replace("\n", end)
    path.write_bytes(content.encode(encoding))
    loader = {"escape": "\\", "encoding": encoding}
    expected = [text.replace("\n", end) for text in ESCAPED]
    assert texts_of(path, **loader) == expected
    joined(path, output, loader=loader)
    assert texts_of(output, **loader) == expected
    joined(path, tmp_path / "out.jsonl", loader=loader)
    assert [row["text"] for row in rows_of(tmp_path / "out.jsonl")] == expected
    kept = [part for part in output.read_bytes().decode(encoding).split(end) if part]
    assert all(any(line.startswith(part) for line in kept) for part in content.split(end))


@pytest.mark.parametrize("output", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_a_file_without_header(output: str, tmp_path: Path) -> None:
    """The first record is a row. A CSV output has no header either; other formats name the columns."""
    (tmp_path / "in.csv").write_text("7,first text\n8,second\n")
    loader: dict[str, Any] = {"header": False, "text_column": "column_2"}
    assert texts_of(tmp_path / "in.csv", **loader) == ["first text", "second"]
    joined(tmp_path / "in.csv", tmp_path / output, loader=loader)
    if output.endswith("sv"):
        found = list(
            csv.reader((tmp_path / output).read_text().splitlines(), delimiter="\t" if output == "out.tsv" else ",")
        )
        assert found == [["7", "first text", "no", "0.5", ""], ["8", "second", "yes", "0.5009765625", ""]]
    else:
        assert [(row["column_1"], row["column_2"]) for row in rows_of(tmp_path / output)] == [
            ("7", "first text"),
            ("8", "second"),
        ]


def test_lines_before_the_header_are_kept(tmp_path: Path) -> None:
    """Excel's `sep=;` says the delimiter; blank lines are no header."""
    path, output = tmp_path / "in.csv", tmp_path / "out.csv"
    for before in ("sep=;\n", "\n\r\n", "sep=;\r\n\n", '"sep=;"\n'):
        delimiter = ";" if "sep" in before else ","
        path.write_bytes(f"{before}id{delimiter}text\n1{delimiter}a b\n".encode())
        assert texts_of(path) == ["a b"]
        joined(path, output)
        assert output.read_bytes().startswith(f"{before}id{delimiter}text{delimiter}predicted_label".encode())
        assert b"a b" + delimiter.encode() + b"no" in output.read_bytes()


@pytest.mark.parametrize(
    ("dialect", "cells"),
    [
        (Dialect(","), ['a"b', "a,b", "a\nb", "a\\b", "a\rb"]),
        (Dialect(",", escape="\\"), ['a"b', "a,b", "a\nb", "a\\b", 'a\\"b', "\\", "a\\,"]),
        (Dialect("\t", has_quotes=False, escape="\\"), ['"a"b', "a\tb", "a\nb", "a\\b", 'a\\"b', "\\", '"']),
        (Dialect("\t", has_quotes=False), ['"a"b', "a,b", "a\\b"]),
    ],
)
def test_a_cell_that_is_written_is_read(dialect: Dialect, cells: list[str]) -> None:
    """In every dialect."""
    write = dialect.cell_writer()
    line = dialect.delimiter.join(map(write, cells)) + "\n"
    assert list(dialect.reader(io.StringIO(line, newline=""))) == [cells]


def test_what_no_cell_can_hold(tmp_path: Path) -> None:
    """Without quotes and escape: a server's words are softened, a label or a name with a delimiter is refused."""
    plain = Dialect(",", has_quotes=False)
    assert plain.softened("one, two\nthree") == "one  two three"
    with pytest.raises(OutputError, match=r"loader\.escape"):
        plain.cell_writer()("one, two")
    path, loader = tmp_path / "in.csv", {"quoting": "none"}
    path.write_text("id,text\n1,a\n")
    with pytest.raises(InputError, match=r"loader\.escape"):
        joined(path, tmp_path / "out.csv", loader=loader, prefix="a,")


def test_a_list_of_probabilities_needs_quotes(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """Its commas would be delimiters: that is said before the first request."""
    (tmp_path / "in.csv").write_text("id,text\n1,a\n")
    settings = ("--set", "writer.probs=list", "--set", "loader.quoting=none", "--url", fake.url)
    done = classify("run", "-i", "in.csv", "-o", "out.csv", *settings, "--quiet", expect=2)
    complaint(done, "loader.escape")
    assert not fake.answered
    classify("run", "-i", "in.csv", "-o", "out.csv", *settings, "--set", "loader.escape=\\", "--quiet")
    assert list(csv.reader((tmp_path / "out.csv").read_text().splitlines(), escapechar="\\"))[1][5].startswith("[0.")


def doubts_of(path: Path, content: str, **loader: Any) -> list[str]:
    """What is said about a file."""
    path.write_bytes(content.encode(loader.get("encoding", "utf-8")))
    return [each.removeprefix(str(path)) for each in dialect_of(open_source(Loader(input=str(path), **loader)))[1]]


def test_a_quote_that_is_never_closed_is_said_once(tmp_path: Path) -> None:
    """By the reader, which ends the run, with the setting to type."""
    content = 'id,text\n1,"never closed, and one line\n'
    assert doubts_of(tmp_path / "a.csv", content) == []
    with pytest.raises(InputError, match=r':2: .*never closed.*loader.quoting = "none"'):
        texts_of(tmp_path / "a.csv")


def test_rows_that_look_like_another_dialect(tmp_path: Path) -> None:
    """Each doubt names the line and the setting to type; with that setting there is none."""
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("a.tsv", PLAIN_QUOTES, ":2: .*loader.quoting=none", {"quoting": "none"}),
        ("b.csv", PLAIN_QUOTES.replace("\t", ","), ":2: .*loader.quoting=none", {"quoting": "none"}),
        ("c.csv", 'id,text\n1,a\n2,"never closed\n3,b\n', ":3: .*loader.quoting=none", {"quoting": "none"}),
        ("e.csv", "id,text\n" + BACKSLASHES, r":2: .*loader\.escape=\\'", {"escape": "\\"}),
        ("f.csv", "id;text\n1;a\n2;b, c\n", ': .*loader.delimiter=";"\'', {"delimiter": ";"}),
        ("g.csv", "id\ttext\n1\ta\n", r': .*loader.delimiter="\\t"', {"delimiter": "\t"}),
        ("h.csv", "id;text\n1;a\n2;b\n", ": .*loader.delimiter", {"delimiter": ";", "encoding": "utf-16"}),
    ]
    for name, content, expected, settings in cases:
        encoding = {key: value for key, value in settings.items() if key == "encoding"}
        (found,) = doubts_of(tmp_path / name, content, **encoding)
        assert re.match(expected, found), found
        assert doubts_of(tmp_path / name, content, **settings) == []


def test_usual_files_raise_no_doubt(tmp_path: Path) -> None:
    """Sentences with commas and line ends, Windows paths, JSON in cells, one column of prose, a cut in the middle."""
    prose = 'id,text\n1,"one, two\nthree, four"\n2,"C:\\"\n3,"{""a"": ""x\\""y""}"\n4,say \\"hi\\" plainly\n'
    assert doubts_of(tmp_path / "in.csv", prose) == []
    assert doubts_of(tmp_path / "in.csv", "text\none, two\nthree, four\n") == []
    assert doubts_of(tmp_path / "in.csv", "text; and more\none\nthree; four\n") == []
    assert doubts_of(tmp_path / "in.csv", 'id,text\n1,"' + "a long cell\n" * 9_000 + '"\n') == []
    assert doubts("id,text\n1,'a", Dialect(","), 2, is_whole=False) == []


def test_check_and_run_say_the_dialect_and_the_doubt(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """`check` shows what is in force; both say what else would fit, with the same words; of many files a few times."""
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.tsv").write_text(PLAIN_QUOTES)
    path = "in/0.tsv"
    shown = classify("check", "-i", path, "--url", fake.url).stdout
    assert "delimiter '\\t', quoting double, escape none, header yes, encoding utf-8" in shown
    (doubt,) = [line.strip() for line in shown.splitlines() if "loader.quoting=none" in line]
    assert doubt.startswith("in/0.tsv:2: ")
    assert doubt in classify("run", "-i", path, "-o", "out.tsv", "--url", fake.url, "--quiet").stderr
    settings = ("--set", "loader.quoting=none", "--set", "loader.header=false", "-t", "column_2", "--url", fake.url)
    shown = classify("check", "-i", path, *settings).stdout
    assert "quoting none, escape none, header no, columns are column_1 to column_2" in shown
    assert "would" not in classify("run", "-i", path, "-o", "out2.tsv", *settings, "--quiet").stderr
    said = classify("run", "-i", "in", "-o", "many/", "--url", fake.url, "--quiet").stderr
    assert 1 <= said.count("loader.quoting=none") <= 5
    assert "loader.quoting=none" in classify("check", "-i", "in", "-o", "many2/", "--url", fake.url).stdout


def test_a_first_row_that_is_no_header(classify: Command, fake: FakeServer, tmp_path: Path) -> None:
    """The message about the missing column names the setting that does not cost that row."""
    (tmp_path / "in.csv").write_text("1,Great sound\n2,Poor sound\n")
    complaint(classify("run", "-i", "in.csv", "--url", fake.url, expect=2), "loader.header = false")


def test_another_dialect_is_another_run() -> None:
    """What changes the texts is part of the identity; a checkpoint of a version without these keys still fits."""
    usual = identity_of(Config(), "digest")
    assert not [key for key in usual if key in ("loader.quoting", "loader.escape", "loader.header")]
    for changed in ({"quoting": "none"}, {"escape": "\\"}, {"header": False}):
        other = identity_of(Config(loader=Loader(**changed)), "digest")
        assert [each.key for each in differences(usual, other)] == [f"loader.{next(iter(changed))}"]


@pytest.mark.parametrize("quoting", ["none", "double"])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_last_record_with_an_escaped_line_end(quoting: str, end: str, tmp_path: Path) -> None:
    """It is whole without a line end of its own."""
    (tmp_path / "in.csv").write_bytes(f"text,b\nx,a\\\nb{end}".encode())
    joined(tmp_path / "in.csv", tmp_path / "out.jsonl", loader={"quoting": quoting, "escape": "\\"})
    assert [row["b"] for row in rows_of(tmp_path / "out.jsonl")] == ["a\nb"]
    joined(tmp_path / "in.csv", tmp_path / "out.csv", loader={"quoting": quoting, "escape": "\\"})
    assert (tmp_path / "out.csv").read_bytes().splitlines()[1:] == [b"x,a\\", b"b,no,0.5,"]


def test_a_last_record_that_does_not_end(tmp_path: Path) -> None:
    """Its line end is part of its last cell; nobody speaks of quotes where there are none."""
    (tmp_path / "in.csv").write_bytes(b"text\na\nb\\\n")
    with pytest.raises(InputError, match=r"in\.csv:3: the last line end .* part of a cell.*add a line end"):
        texts_of(tmp_path / "in.csv", quoting="none", escape="\\")
