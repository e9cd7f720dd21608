"""Generated files are run to every output format, and their cells compared with what other readers find in them.

    PYTHONPATH=. python tests/fuzz/loaders.py [--files 3000] [--seed 0] [--format csv]

CSV is read by Python's csv module and by DuckDB, JSON by the standard json, Parquet by DuckDB. The label of each row is
compared, too, so that no answer can be that of another row. Prints what differs, with the seed; exit code 1 then.
"""

from __future__ import annotations

import argparse
import base64
import csv
import functools
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fake import FakeServer, label_of

from pipeline import Config, run
from pipeline.config import Loader, Server, Writer

BATCH = 25  # files of one run, which are written in the same way
OUTPUTS = ("csv", "tsv", "jsonl", "json", "parquet")
Rows = list[dict[str, Any]]
ATOMS = [
    *("", " ", "a", "007", "1e5", "NA", "null", "true", "x" * 3000, "-0", "{}", "[1]", "#", "'", "\\", "\\n", "sep=;"),
    *('"', '""', '"quoted"', "a, b", "a;b", "a\tb", "\n", "\r\n", "\r", "two\nlines", "\n\n", "|"),
    *("größe", "😀", "表ソ十", "\u2028", "\x85", "\x0b\x0c", "\x1c", "\u00a0", "\ufeff", "\x7f", "\x01"),
]


class Case(NamedTuple):
    """A batch of files that are read with the same settings."""

    loader: dict[str, Any]
    files: dict[str, tuple[bytes, Rows]]  # by name: the content, and the rows that another reader finds in it
    is_known_to_duckdb: bool = False


# -- CSV


def csv_cell(rng: random.Random, loader: dict[str, Any], delimiter: str) -> str:
    """A cell's text, which the encoding has and the dialect can hold."""
    text = "".join(rng.choices(ATOMS, k=rng.choice((0, 1, 1, 1, 2, 3))))
    text = text.encode(loader["encoding"], "ignore").decode(loader["encoding"])
    if loader["quoting"] == "none" and "escape" not in loader:
        for special in (delimiter, "\r", "\n"):
            text = text.replace(special, "")
    if "escape" in loader:
        text = text.rstrip("\r")  # which would escape the whole line end, CR and LF, that follows it
    return text.lstrip("\ufeff")


def csv_spelled(rng: random.Random, text: str, loader: dict[str, Any], delimiter: str) -> str:
    """A cell as one of the ways to write it."""
    escape = loader.get("escape")
    if loader["quoting"] == "none":
        return "".join(f"{escape}{one}" if escape and one in f"{escape}{delimiter}\r\n" else one for one in text)
    needs = any(one in text for one in (delimiter, '"', "\r", "\n", *([escape] if escape else [])))
    inner_quote = '"' in text[1:] and not any(one in text for one in (delimiter, "\r", "\n", escape or "\n"))
    if not needs and rng.random() < 0.7:
        return text
    if inner_quote and text[0] != '"' and rng.random() < 0.2:
        return text  # a quote inside a plain cell
    if escape and rng.random() < 0.5:
        return '"' + "".join(f"{escape}{one}" if one in f'{escape}"' else one for one in text) + '"'
    return '"' + text.replace(escape or "\0", f"{escape}{escape}").replace('"', '""') + '"'


def csv_case(rng: random.Random, files: int) -> Case:
    """CSV or TSV files of one dialect."""
    kind = rng.choice(("csv", "csv", "tsv"))
    encodings = ("utf-8", "utf-8", "utf-8", "utf-16", "cp1252", "latin-1", "gb18030", "shift_jis", "utf-32-be")
    loader: dict[str, Any] = {
        "encoding": rng.choice(encodings),
        "quoting": rng.choice(("double", "double", "none")),
        "header": rng.random() < 0.8,
    }
    delimiter = "\t" if kind == "tsv" else ","
    if rng.random() < 0.3:
        delimiter = loader["delimiter"] = rng.choice(";|,\t")
    if rng.random() < 0.25:
        loader["escape"] = "\\"
    width = rng.randint(1, 5)
    names = [f"column_{number}" for number in range(1, width + 1)]
    at = rng.randrange(width)
    if loader["header"]:
        names = [f"größe {number}" if loader["encoding"] != "shift_jis" else f"c{number}" for number in range(width)]
        names[at] = rng.choice(("text", "a text"))
    loader["text_column"] = names[at]
    end = rng.choice(("\n", "\n", "\r\n", "\r"))
    made = {}
    for number in range(files):
        rows = [[csv_cell(rng, loader, delimiter) for _ in names] for _ in range(rng.choice((1, 2, 3, 9, 40)))]
        lines = [delimiter.join(csv_spelled(rng, cell, loader, delimiter) for cell in row) for row in rows]
        if width == 1 and not loader["header"]:
            lines[0] = "a" if lines[0].strip('"') in ("", "sep=;") else lines[0]  # no line that is none of the rows
        content = "".join(line + end for line in ([delimiter.join(names)] if loader["header"] else []) + lines)
        if lines[-1].rstrip("\r\n") == lines[-1] != "" and rng.random() < 0.3:
            content = content.removesuffix(end)
        if width > 1 and rng.random() < 0.2:
            content += end * rng.randint(1, 3)
        bom = "\ufeff" if loader["encoding"] in ("utf-8", "utf-32-be") and rng.random() < 0.2 else ""
        found = csv_rows(content, loader, delimiter)
        records = [dict(zip(names, row, strict=True)) for row in (found[1:] if loader["header"] else found)]
        made[f"{number}.{kind}"] = ((bom + content).encode(loader["encoding"]), records)
    usual = loader["encoding"] == "utf-8" and loader["quoting"] == "double" and "escape" not in loader and end == "\n"
    return Case(loader, made, usual and loader["header"] and width > 1)


def csv_rows(content: str, loader: dict[str, Any], delimiter: str) -> list[list[str]]:
    """What the csv module reads."""
    quoting = csv.QUOTE_NONE if loader.get("quoting") == "none" else csv.QUOTE_MINIMAL
    settings: Any = {"delimiter": delimiter, "quoting": quoting, "escapechar": loader.get("escape")}
    rows = list(csv.reader(io.StringIO(content, newline=""), **settings))
    width = next(len(row) for row in rows if row)
    return [row or [""] for row in rows if row or width == 1]


# -- JSON


def json_value(rng: random.Random, depth: int = 0) -> Any:
    """A value of any type, extremes included."""
    plain: list[Callable[[], Any]] = [
        lambda: "".join(rng.choices(ATOMS, k=2)),
        lambda: rng.choice((0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**30)),
        lambda: rng.choice((0.5, -0.0, 1e308, 5e-324, 1.5e300, 0.1, 1e16)),
        lambda: rng.choice((True, False, None)),
        lambda: "\ud800" if rng.random() < 0.3 else "\x00",
    ]
    if depth < 3 and rng.random() < 0.2:
        if rng.random() < 0.5:
            return [json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
        return {rng.choice("abé,]}"): json_value(rng, depth + 1) for _ in range(rng.randint(0, 3))}
    return rng.choice(plain)()


def json_case(rng: random.Random, files: int, kind: str) -> Case:
    """JSON Lines files, or arrays."""
    loader = {"encoding": rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig"))}
    made = {}
    for number in range(files):
        steady = {name: rng.random() < 0.5 and type(json_value(rng)) for name in "bc"}
        rows = []
        for _ in range(rng.choice((1, 2, 9, 40))):
            row = {"text": json_value(rng) if rng.random() < 0.1 else "".join(rng.choices(ATOMS, k=2))}
            row |= {name: json_value(rng) for name in ("a", "b", 'c"', "d.e") if rng.random() < 0.7}
            row = {name: value for name, value in row.items() if steady.get(name) in (None, False, type(value))}
            row.setdefault("text", "always there")
            rows.append(row)
        ascii_only = rng.random() < 0.5 or any("\\ud800" in json.dumps(row) for row in rows)
        indent = rng.choice((None, 0, 3)) if kind == "json" else None
        spelled = [
            json.dumps(row, ensure_ascii=ascii_only, indent=indent, separators=rng.choice(((",", ":"), (" , ", ": "))))
            for row in rows
        ]
        if kind == "json":
            content = (
                rng.choice(("", " ", "\n"))
                + "["
                + rng.choice((",", " ,\n", "\r\n,")).join(spelled)
                + rng.choice(("]", "\n]\n"))
            )
        else:
            content = "".join(line + rng.choice(("\n", "\n", "\r\n", " \n", "\n\n")) for line in spelled)
        made[f"{number}.{kind}"] = (content.encode(loader["encoding"]), rows)
    return Case(loader, made)


# -- Parquet


PARQUET: dict[str, tuple[pa.DataType, list[Any]]] = {
    "i8": (pa.int8(), [-128, 127, 0]),
    "i64": (pa.int64(), [-(2**63), 2**63 - 1, 0]),
    "u64": (pa.uint64(), [2**64 - 1, 0]),
    "f32": (pa.float32(), [0.5, -0.0, 3.0e38, 1e-45, float("inf"), float("nan")]),
    "f64": (pa.float64(), [0.1, 1e308, 5e-324, -0.0, float("-inf"), float("nan"), 2.0**53]),
    "bool": (pa.bool_(), [True, False]),
    "string": (pa.string(), ATOMS),
    "large": (pa.large_string(), ATOMS),
    "words": (pa.dictionary(pa.int8(), pa.string()), ["a", "b, c", ""]),
    "bytes": (pa.binary(), [b"", b"\x00\xff", b"text"]),
    "day": (pa.date32(), [date(1, 1, 1), date(9999, 12, 31), date(1970, 1, 1)]),
    "price": (pa.decimal128(38, 3), [Decimal("9" * 35 + ".999"), Decimal("-0.001"), Decimal(0)]),
    "time": (pa.timestamp("us"), [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), datetime(1970, 1, 1)]),  # noqa: DTZ001 - they have none
    "zone": (pa.timestamp("us", "UTC"), [datetime(1900, 1, 1, tzinfo=UTC), datetime(2262, 4, 12, tzinfo=UTC)]),
    "list": (pa.list_(pa.int64()), [[], [1, None], [2**62]]),
    "struct": (pa.struct([("x", pa.int64()), ("y", pa.string())]), [{"x": 1, "y": '"'}, {"x": None, "y": None}]),
}  # fmt: skip


def parquet_case(rng: random.Random, files: int) -> Case:
    """Parquet files of any types, encodings and row groups."""
    made = {}
    for number in range(files):
        rows = rng.choice((0, 1, 5, 50, 300))
        names = rng.sample([*PARQUET], rng.randint(0, 6))
        names.insert(rng.randint(0, len(names)), "text")
        columns = {}
        for name in names:
            type_, values = PARQUET.get(name, (pa.string(), ATOMS))
            columns[name] = pa.array([rng.choice(values) if rng.random() < 0.8 else None for _ in range(rows)], type_)
        sink = io.BytesIO()
        pq.write_table(
            pa.table(columns),
            sink,
            compression=rng.choice(("none", "snappy", "zstd")),
            row_group_size=rng.choice((1, 7, 1000)),
            use_dictionary=rng.random() < 0.5,
            data_page_version=rng.choice(("1.0", "2.0")),
            data_page_size=rng.choice((50, 1 << 20)),
            store_schema=rng.random() < 0.7,
        )
        made[f"{number}.parquet"] = (sink.getvalue(), parquet_rows(sink.getvalue()))
    return Case({}, made)


def parquet_rows(content: bytes) -> Rows:
    """What DuckDB reads."""
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        file.write(content)
        file.flush()
        found = duckdb.execute("SET TimeZone = 'UTC'; SELECT * FROM read_parquet(?)", [file.name])
        names = [name for name, *_ in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


# -- comparing

CASES: dict[str, Callable[[random.Random, int], Case]] = {
    "csv": csv_case,
    "jsonl": functools.partial(json_case, kind="jsonl"),
    "json": functools.partial(json_case, kind="json"),
    "parquet": parquet_case,
}


def output_rows(path: Path, case: Case) -> Rows:
    """The rows of an output, by a reader that is not ours."""
    kind = path.suffix[1:]
    if kind == "parquet":
        return parquet_rows(path.read_bytes())
    is_own = path.suffix == Path(next(iter(case.files))).suffix
    encoding = case.loader.get("encoding", "utf-8") if is_own and kind != "json" else "utf-8-sig"
    text = path.read_bytes().decode("utf-8-sig" if encoding == "utf-8" else encoding).removeprefix("\ufeff")
    if kind in ("jsonl", "json"):
        return (
            [json.loads(line) for line in text.split("\n") if line.strip()]
            if kind == "jsonl"
            else list(json.loads(text))
        )
    delimiter = "\t" if kind == "tsv" else ","
    found = (
        csv_rows(text, case.loader if is_own else {}, case.loader.get("delimiter", delimiter) if is_own else delimiter)
        if text
        else []
    )
    if case.loader.get("header", True):
        names, *found = found
    else:
        names = [*next(iter(case.files.values()))[1][0], "predicted_label", "predicted_score", "predicted_error"]
    return [dict(zip(names, row, strict=True)) for row in found]


def same(value: Any, cell: Any, kind: str) -> bool:
    """Whether a cell of an output holds a value, by the table of conversions."""
    if isinstance(value, str):
        stored = value.encode("utf-8", "backslashreplace").decode()
        return cell in (value, stored) or (isinstance(cell, str) and as_json(cell) in (value, stored))
    if value is None or (isinstance(value, float) and kind.startswith("json") and value - value != 0):
        return cell is None or (kind in ("csv", "tsv") and cell == "") or cell == "null"
    if isinstance(value, float) and isinstance(cell, (float, int, str)):
        number = float(cell) if not isinstance(cell, str) or as_json(cell) is None else as_json(cell)
        with np.errstate(over="ignore"):  # of a column of floats of 32 bits the shortest text is shorter
            is_single = value == np.float32(value) == np.float32(number)
        return repr(float(number)) == repr(value) or bool(is_single) or bool(number == value)
    if isinstance(value, bytes) and kind != "parquet":
        return bool(base64.b64decode(cell) == value)
    if isinstance(value, (datetime, date, Decimal)) and kind != "parquet":
        return type(value)(cell) == value if isinstance(value, Decimal) else same_time(value, cell)
    return bool(cell == value) or (isinstance(cell, str) and as_json(cell) == value)


def same_time(value: date, cell: str) -> bool:
    """Whether a text is that day or that instant."""
    if not isinstance(value, datetime):
        return date.fromisoformat(cell) == value
    found = datetime.fromisoformat(cell)
    return found == value


def as_json(text: str) -> Any:
    """A JSON text's value; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def differences(case: Case, name: str, path: Path) -> Iterator[str]:
    """Compare an output with the rows of its input."""
    kind, wanted, found = path.suffix[1:], case.files[name][1], output_rows(path, case)
    if len(wanted) != len(found):
        yield f"{path.name}: {len(found)} rows, not {len(wanted)}"
        return
    text_column = case.loader.get("text_column", "text")
    for number, (row, got) in enumerate(zip(wanted, found, strict=True)):
        for column, value in row.items():
            if not same(value, got.get(column.encode("utf-8", "backslashreplace").decode()), kind):
                yield f"{path.name} row {number} {column!r}: {got.get(column)!r}, not {value!r}"
        text = row[text_column]
        is_sent = isinstance(text, str) and text.strip() and "\ud800" not in text
        label = label_of(text) if is_sent else None
        if (got["predicted_label"] or None) != label:
            yield f"{path.name} row {number}: label {got['predicted_label']!r}, not {label!r} of {text!r}"


def duckdb_differences(case: Case, name: str, path: Path) -> Iterator[str]:
    """Compare what DuckDB reads in a CSV file with what the csv module does, where DuckDB reads it at all."""
    delimiter = case.loader.get("delimiter", "\t" if name.endswith("tsv") else ",")
    columns = dict.fromkeys(case.files[name][1][0], "VARCHAR")
    query = "SELECT * FROM read_csv(?, header=true, auto_detect=false, delim=?, quote='\"', escape='\"', columns=?)"
    try:
        found = duckdb.execute(query, [str(path), delimiter, columns]).fetchall()
    except duckdb.Error:
        return
    if [[cell or "" for cell in row] for row in found] != [[*row.values()] for row in case.files[name][1]]:
        yield f"{name}: DuckDB reads other cells"


def fuzz(kind: str, files: int, seed: int, folder: Path) -> list[str]:
    """Generate `files` files, run them to every format, and return what differs."""
    found: list[str] = []
    with FakeServer() as server:
        for number in range(0, files, BATCH):
            rng = random.Random(f"{seed} {kind} {number}")
            case = CASES[kind](rng, min(BATCH, files - number))
            place = folder / f"{kind}{number}"
            (place / "in").mkdir(parents=True)
            for name, (content, _) in case.files.items():
                (place / "in" / name).write_bytes(content)
                if case.is_known_to_duckdb:
                    found += duckdb_differences(case, name, place / "in" / name)
            for output in OUTPUTS:
                found += [f"seed {seed}, batch {number}: {each}" for each in run_batch(case, place, output, server)]
    return found


def run_batch(case: Case, place: Path, output: str, server: FakeServer) -> Iterator[str]:
    """Run the files of a batch to one format."""
    target = place / output
    config = Config(
        loader=Loader(input=str(place / "in"), **case.loader),
        writer=Writer(output=f"{target}/", format=output),
        server=Server(url=server.url),
    )
    try:
        run(config)
    except Exception as error:  # noqa: BLE001 - reported like any other difference
        yield f"{output}: {type(error).__name__}: {error}"
        return
    for name in case.files:
        try:
            yield from differences(case, name, target / f"{Path(name).stem}.{output}")
        except (OSError, ValueError, LookupError) as error:  # it is not there, or another reader can't read it
            yield f"{name} to {output}: {type(error).__name__}: {error}"


def main() -> int:
    """Fuzz all formats, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=3000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", choices=[*CASES], action="append")
    options = parser.parse_args()
    found = Counter[str]()
    for kind in options.format or CASES:
        with tempfile.TemporaryDirectory() as folder:
            differing = fuzz(kind, options.files, options.seed, Path(folder))
        found[kind] = len(differing)
        print(f"{kind}: {options.files} files to {len(OUTPUTS)} formats, {len(differing)} differences", flush=True)
        for each in differing[:20]:
            print(f"  {each}")
    return int(found.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
