"""A text file as a stream of its own lines: bytes kept exactly, decompressed, decoded line by line."""

from __future__ import annotations

import codecs
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.errors import DiskTrouble, InputError
from pipeline.formats.records import lines_of, whole_lines
from pipeline.storage import CODECS, Location, StoreStream
from pipeline.texts import Position

BLOCK_BYTES = (
    2 << 20
)  # smaller ones stay in the processor's cache, but calls and a change of threads for each cost more
BLOCK_LINES = 4096
WIDE_LINES = 256
# Encodings in which a line break is not the one byte it is in ASCII: these lines are found after decoding.
_WIDE = {
    "utf-16": {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"},
    "utf-32": {codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be"},
}
_BOMS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


class Lines:
    """Consecutive lines, and where the first one begins."""

    def __init__(self, data: bytes, offset: int, number: int) -> None:
        self.data, self.offset = data, offset
        self.number = number  # lines before it

    def then(self, data: bytes) -> Lines:
        """Those that follow."""
        return Lines(data, self.offset + len(self.data), self.number + self.count)

    @functools.cached_property
    def lines(self) -> list[bytes]:
        """Each with its end."""
        return lines_of(self.data)

    @functools.cached_property
    def count(self) -> int:
        """How many there are; set by whoever knows without cutting them."""
        return len(self.lines)


class TextFile:
    """One text file: its codec, its encoding, its BOM.

    Raises:
        InputError: it can't be opened, its compression is broken, or a line is not of the encoding.
    """

    def __init__(self, location: Location, encoding: str) -> None:
        self.location, self.path = location, location.shown
        self.compression = CODECS.get(Path(location.name).suffix.lower())
        self.seekable = self.compression is None
        start = next(self._blocks(0, 4), b"")
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        if name == "utf-8" and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f'{self.path}:1: begins like UTF-16, not utf-8; set loader.encoding = "utf-16"')
        self.encoding = next((wide for bom, wide in _WIDE.get(name, {}).items() if start.startswith(bom)), name)
        if self.encoding in _WIDE:  # no BOM says which end comes first: then it is the little one
            self.encoding += "-le"
        bom = _BOMS.get(self.encoding, b"")
        self.bom = bom if bom and start.startswith(bom) else b""
        self.is_empty = not start

    def lines(self, place: Position) -> Iterator[Lines]:
        """Every line with its own ending (LF, CRLF or CR), the BOM left out, from `place` on; many at a time."""
        lines, blocks = Lines(b"", place.offset, place.line), self.blocks(place)
        if not is_wide(self.encoding):
            for data in whole_lines(blocks):
                lines = lines.then(data)
                yield lines
            return
        for some in self.split(blocks, place):
            lines = lines.then(b"".join(some))
            lines.lines = some
            yield lines

    def blocks(self, place: Position) -> Iterator[bytes]:
        """The bytes from `place` on, the BOM left out."""
        return self._blocks(max(place.offset, len(self.bom)))

    def split(self, blocks: Iterator[bytes], place: Position) -> Iterator[list[bytes]]:
        """The lines of `blocks`, which begin at `place`."""
        return _in_lists(self._wide_lines(blocks, place.line)) if is_wide(self.encoding) else _split_lines(blocks)

    def decode(self, line: bytes, number: int) -> str:
        """One line as text; `number` is for the message."""
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}:{number}: not {self.encoding} (byte 0x{line[error.start]:02x} at {error.start + 1}); "
                f"set loader.encoding, for instance cp1252"
            ) from None

    def _open(self, skip: int = 0) -> pa.NativeFile | StoreStream:
        """The decompressed bytes from `skip` on."""
        try:
            stream = self.location.stream()
            if self.compression is None:
                stream.seek(skip)
                return stream
            if isinstance(stream, StoreStream):
                stream = pa.PythonFile(stream, "r")
            stream = pa.CompressedInputStream(stream, self.compression)
        except OSError as error:
            raise InputError(f"{self.path}: {_reason(error)}") from None
        while skip and (block := stream.read(min(skip, BLOCK_BYTES))):
            skip -= len(block)
        return stream

    def _blocks(self, skip: int, size: int = 0) -> Iterator[bytes]:
        try:
            with self._open(skip) as stream:
                while block := stream.read(size or BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> Exception:
        if error.errno:  # the device, not what is on it
            return DiskTrouble(f"{self.path}: reading failed: {_reason(error)}")
        what = f"its {self.compression} data is cut short or broken" if self.compression else "reading failed"
        return InputError(f"{self.path}: {what} ({_reason(error)})")

    def _wide_lines(self, blocks: Iterator[bytes], number: int) -> Iterator[bytes]:
        """Lines are found in UTF-8 and given in their own encoding again."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        broken: list[UnicodeDecodeError] = []

        def as_utf8() -> Iterator[bytes]:
            try:
                for block in itertools.chain(blocks, [b""]):
                    yield decoder.decode(block, final=not block).encode()
            except UnicodeDecodeError as error:
                broken.append(error)
                yield error.object[: error.start].decode(self.encoding).encode() + b"\n"  # the line it is in

        held: bytes | None = None  # the last line is given only when it is known to be whole
        for line in itertools.chain.from_iterable(_split_lines(as_utf8())):
            if held is not None:
                yield held.decode().encode(self.encoding)
            held, number = line, number + 1
        if broken:
            raise InputError(f"{self.path}:{number}: not {self.encoding} ({broken[0].reason}); set loader.encoding")
        if held is not None:
            yield held.decode().encode(self.encoding)


def is_wide(encoding: str) -> bool:
    """Whether a line break is more than its one ASCII byte."""
    return encoding.startswith(("utf-16", "utf-32"))


def _split_lines(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Cut a stream of blocks at LF, CRLF and CR."""
    for data in whole_lines(blocks):
        lines = lines_of(data)
        for start in range(0, len(lines), BLOCK_LINES):
            yield lines[start : start + BLOCK_LINES]


def _in_lists(lines: Iterator[bytes]) -> Iterator[list[bytes]]:
    while some := list(itertools.islice(lines, WIDE_LINES)):
        yield some


def is_utf8(data: bytes | memoryview) -> bool:
    """Whether it is UTF-8; a Python string for it would cost twice as much."""
    ends = pa.py_buffer(np.array([0, len(data)]))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).strip().splitlines()[0]
