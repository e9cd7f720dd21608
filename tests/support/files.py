"""Files that tests write and read: inputs of every format, outputs and what is kept beside them."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def as_csv(texts: list[str | None], delimiter: str = ",", end: str = "\n") -> str:
    """A file of two columns as the csv module writes it."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "text"], *enumerate(texts)])
    return text.getvalue()


def as_jsonl(texts: list[str | None], end: str = "\n") -> str:
    """The same as JSON Lines."""
    return "".join(json.dumps({"id": n, "text": text}, ensure_ascii=False) + end for n, text in enumerate(texts))


def zstd(data: bytes) -> bytes:
    """One zstd frame."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstd}


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path, **dialect: Any) -> list[dict[str, Any]]:
    """The rows of an output, read by the usual parsers."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True, **dialect))


def write(path: Path, texts: Sequence[Any]) -> Path:
    """A file with the columns `id` (the row's number) and `text`, in the format and compression of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = CODECS.get(path.suffix)
    kind = path.with_suffix("").suffix if codec else path.suffix
    if kind == ".parquet":
        pq.write_table(pa.table({"id": range(len(texts)), "text": pa.array(texts, pa.string())}), path)
        return path
    content = io.StringIO(newline="")
    if kind == ".jsonl":
        content.writelines(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts))
    else:
        rows = csv.writer(content, delimiter="\t" if kind == ".tsv" else ",", lineterminator="\n")
        rows.writerows([["id", "text"], *enumerate(texts)])
    with pa.output_stream(path, compression=codec) as out:
        out.write(content.getvalue().encode())
    return path


def seen(folder: Path) -> dict[str, bytes]:
    """What readers of directories see in one: files without hidden names."""
    found = snapshot(folder)
    return {name: found[name] for name in found if not any(part[0] in "._" for part in Path(name).parts)}


def hidden(folder: Path, pattern: str) -> list[str]:
    """What is kept beside outputs."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(pattern))


def record(output: Path) -> dict[str, Any]:
    """The run record of an output."""
    found: dict[str, Any] = json.loads(output.with_name(f".{output.name}.run.json").read_text())
    return found
