"""What Python can do at most: a client stripped of all that is not needed to get the labels into the file once.

python limit.py INPUT OUTPUT URL [keep]   both of the same format: .parquet, .csv or .jsonl

With `keep`, a CSV file goes through the csv module and keeps its records' bytes, as it does with us; without, it goes
through pyarrow, which is faster and quotes every cell of the output.

No checkpoint, no retries, no checks, no null texts; one thread. HTTP is spoken by hand over asyncio.Protocol, bodies
are made from Arrow columns or from the lines' own bytes, without a Python string a row. Memory is bounded.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import msgspec

TEXTS = 256  # a request
CONCURRENCY = 16
BLOCK_ROWS = 64 * TEXTS
BLOCKS_HELD = 4
GROUP_BLOCKS = 4  # of 16,384 rows make a row group of 65,536


class Item(msgspec.Struct, gc=False):
    """The answer to one text."""

    label: str
    probs: tuple[float, float, float]


class Answer(msgspec.Struct, gc=False):
    """The answer to one request."""

    data: list[Item]


class Line(msgspec.Struct, gc=False):
    """A JSONL row: of its text the JSON token, which goes into the body as it is."""

    text: msgspec.Raw


class Block:
    """Consecutive rows: what the sink needs of them, the bodies to be sent, the answers so far."""

    def __init__(self, rows: Any, bodies: list[bytes]) -> None:
        self.rows, self.bodies, self.missing = rows, bodies, len(bodies)
        self.answers: list[list[Item]] = [[]] * len(bodies)

    @property
    def labels(self) -> list[str]:
        """The labels of all rows."""
        return [item.label for items in self.answers for item in items]

    @property
    def scores(self) -> list[float]:
        """The scores of all rows."""
        return [max(item.probs) for items in self.answers for item in items]


class Format(Protocol):
    """Reads blocks in order and writes them in order."""

    def blocks(self) -> Iterator[Block]:
        """All rows of the input."""

    def write(self, block: Block) -> None:
        """Append a block that has all its answers."""

    def close(self) -> None:
        """Finish the output."""


class ArrowFormat:
    """Parquet and CSV, through pyarrow."""

    def __init__(self, source: str, target: str) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.csv as pacsv
        import pyarrow.parquet as pq

        pa.set_cpu_count(1)
        pa.set_io_thread_count(1)
        self._pa, self._join = pa, pc.binary_join
        self._held: list[Any] = []
        added = [pa.field("predicted_label", pa.string()), pa.field("predicted_score", pa.float64())]
        if source.endswith(".parquet"):
            file = pq.ParquetFile(source, pre_buffer=False)
            self._schema = pa.schema([*file.schema_arrow, *added])
            self._batches = file.iter_batches(BLOCK_ROWS, use_threads=False)
            self._writer: Any = pq.ParquetWriter(target, self._schema, compression="snappy")
        else:
            # All cells as strings, so that they come out as they went in.
            with Path(source).open() as file:
                names = file.readline().rstrip("\n").split(",")
            reader = pacsv.open_csv(
                source,
                read_options=pacsv.ReadOptions(use_threads=False, block_size=4 << 20),
                parse_options=pacsv.ParseOptions(newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
            self._schema = pa.schema([*reader.schema, *added])
            self._batches = iter(reader)
            self._writer = pacsv.CSVWriter(target, self._schema)

    def blocks(self) -> Iterator[Block]:
        """See `Format`."""
        for batch in self._batches:
            yield Block(batch, self._bodies(batch.column("text")))

    def _bodies(self, texts: Any) -> list[bytes]:
        """The texts of each request joined by a byte that UTF-8 never has, then escaped all at once."""
        pa = self._pa
        offsets = self._column(pa.int32(), array("i", [*range(0, len(texts), TEXTS), len(texts)]))
        separator = pa.BinaryArray.from_buffers(
            pa.binary(), 1, [None, pa.py_buffer(array("i", [0, 1])), pa.py_buffer(b"\xff")]
        )
        joined = self._join(pa.ListArray.from_arrays(offsets, texts.cast(pa.binary())), separator[0])
        return [body_of(escape(each).replace(b"\xff", b'","').join((b'"', b'"'))) for each in joined.to_pylist()]

    def write(self, block: Block) -> None:
        """See `Format`."""
        pa = self._pa
        labels = block.labels
        offsets = array("i", accumulate(map(len, labels), initial=0))
        names = pa.py_buffer("".join(labels).encode())
        arrays = [
            *block.rows.columns,
            pa.Array.from_buffers(pa.string(), len(labels), [None, pa.py_buffer(offsets), names]),
            self._column(pa.float64(), array("d", block.scores)),
        ]
        self._held.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if len(self._held) == GROUP_BLOCKS:
            self._flush()

    def _column(self, kind: Any, values: array[Any]) -> Any:
        """An Arrow array; `pa.array` would import pandas where it is installed, which takes 0.2 s."""
        return self._pa.Array.from_buffers(kind, len(values), [None, self._pa.py_buffer(values)])

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._pa.Table.from_batches(self._held))
        self._held = []

    def close(self) -> None:
        """See `Format`."""
        self._flush()
        self._writer.close()


class LineFormat:
    """JSONL: the lines are kept, and members are appended to them."""

    def __init__(self, source: str, target: str) -> None:
        self._source = Path(source).open("rb")  # noqa: SIM115 - read to the end of the process
        self._target = Path(target).open("wb")  # noqa: SIM115 - see `close`
        self._decode = msgspec.json.Decoder(Line).decode

    def blocks(self) -> Iterator[Block]:
        """See `Format`."""
        while lines := list(islice(self._source, BLOCK_ROWS)):
            texts = [bytes(self._decode(line).text) for line in lines]
            bodies = [body_of(b",".join(texts[start : start + TEXTS])) for start in range(0, len(texts), TEXTS)]
            yield Block(lines, bodies)

    def write(self, block: Block) -> None:
        """See `Format`."""
        rows = zip(block.rows, block.labels, block.scores, strict=True)
        self._target.writelines(
            [
                b'%b,"predicted_label":"%b","predicted_score":%a}\n' % (line[:-2], label.encode(), score)
                for line, label, score in rows
            ]
        )

    def close(self) -> None:
        """See `Format`."""
        self._target.close()


class RecordFormat(LineFormat):
    """CSV: the records are kept, and cells are appended to them."""

    def __init__(self, source: str, target: str) -> None:
        import csv

        super().__init__(source, target)
        self._taken: list[bytes] = []
        self._reader = csv.reader(self._lines())
        header = next(self._reader)
        self._at = header.index("text")
        self._target.write(self._taken.pop()[:-1] + b",predicted_label,predicted_score\n")

    def _lines(self) -> Iterator[str]:
        for line in self._source:
            self._taken.append(line)
            yield line.decode()

    def blocks(self) -> Iterator[Block]:
        """See `Format`."""
        encode = msgspec.json.encode
        while True:
            records, texts = [], []
            for cells in islice(self._reader, BLOCK_ROWS):
                records.append(self._taken[0] if len(self._taken) == 1 else b"".join(self._taken))
                texts.append(cells[self._at])
                self._taken.clear()
            if not records:
                return
            parts = (texts[start : start + TEXTS] for start in range(0, len(texts), TEXTS))
            yield Block(records, [body_of(encode(part)[1:-1]) for part in parts])

    def write(self, block: Block) -> None:
        """See `Format`."""
        rows = zip(block.rows, block.labels, block.scores, strict=True)
        self._target.writelines([b"%b,%b,%a\n" % (line[:-1], label.encode(), score) for line, label, score in rows])


def escape(text: bytes) -> bytes:
    """JSON's escapes of what the corpus has."""
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return text.replace(b"\n", b"\\n").replace(b"\t", b"\\t")


def body_of(tokens: bytes) -> bytes:
    """A whole request body from JSON strings with commas between them."""
    return b'{"model":"bench","input":[%b]}' % tokens


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request after the other, answers with a Content-Length."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._size = 0  # of head and body, once the head is there
        self._head = 0
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has its methods, not its class

    def post(self, body: bytes) -> asyncio.Future[bytes]:
        """The body of the answer."""
        self._answer: asyncio.Future[bytes] = self._loop.create_future()
        head = (
            b"POST /classify HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)
        )
        self._transport.writelines((head, body))
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Gather an answer."""
        received = self._received
        received += data
        if not self._size:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(received[:end]).lower()
            assert head.startswith(b"http/1.1 200 ")
            self._head = end + 4
            self._size = self._head + int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(received) == self._size:
            body = bytes(received[self._head :])
            self._received, self._size = bytearray(), 0
            self._answer.set_result(body)


async def main(source: str, target: str, url: str, keep: str = "") -> None:
    """Workers take one request after the other; whoever completes the oldest block writes it."""
    kinds: dict[str, type[Format]] = {".jsonl": LineFormat, ".csv": RecordFormat if keep else ArrowFormat}
    io = kinds.get(Path(source).suffix, ArrowFormat)(source, target)  # type: ignore[call-arg]
    decode = msgspec.json.Decoder(Answer).decode
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    held: deque[Block] = deque()

    def requests() -> Iterator[tuple[Block, int]]:
        for block in io.blocks():
            held.append(block)
            yield from ((block, index) for index in range(len(block.bodies)))

    shared = requests()

    async def worker() -> None:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
        for block, index in shared:
            block.answers[index] = decode(await connection.post(block.bodies[index])).data
            block.missing -= 1
            while held and not held[0].missing:
                io.write(held.popleft())
            while len(held) > BLOCKS_HELD:  # noqa: ASYNC110 - hardly ever: somebody is slow
                await asyncio.sleep(0.001)

    await asyncio.gather(*[worker() for _ in range(CONCURRENCY)])
    io.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))
