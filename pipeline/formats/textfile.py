"""A text file as bytes: decompressed, cut into lines and rows that keep their own bytes, and decoded line by line.

Lines end with LF, CRLF or CR, and are cut in bytes: so the bytes of a row can be copied as they are, any encoding that
is a superset of ASCII is read without decoding it, and the offset of each row is known. UTF-16 and UTF-32, here called
wide, are turned into UTF-8 where they are read, and back where they are written.
"""

from __future__ import annotations

import codecs
import functools
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DiskTrouble, InputError
from pipeline.formats import values
from pipeline.formats.registry import compression_of
from pipeline.storage import Draft, Location, Pipe, StoreStream
from pipeline.texts import SEPARATOR, Codes, Mask, Offsets, Position, binary_scalar, binary_slices

# Of one read. A buffer of 256 KiB would stay in the processor's cache, but the calls and the change of threads for each
# would cost a fifth of a run.
READ_BYTES = 2 << 20
MOST_LINES = 16_384  # of a buffer: a line of one byte becomes an object of forty

_LONGEST_WINDOW = 1 << 31  # bytes, of zstd: what `--long=31` makes; a decompressor holds one in memory
_ZSTD_BYTES = 16 << 10  # that are decompressed at once: they may become thousands of times as many

LF, CR, QUOTE = b'\n\r"'
_COMPRESSED = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bz2": b"BZh"}  # how their files begin
_OTHER_FILES = [  # how files of other kinds begin, what they are, and what to do
    (rb"\x1f\x8b", "is compressed with gzip; end its name in .csv.gz or .jsonl.gz, or decompress it"),
    (rb"\x28\xb5\x2f\xfd", "is compressed with zstd; end its name in .csv.zst or .jsonl.zst, or decompress it"),
    (rb"BZh[1-9]1AY&SY", "is compressed with bzip2; end its name in .csv.bz2 or .jsonl.bz2, or decompress it"),
    (rb"\xfd7zXZ\0", "is compressed with xz, which is not read; decompress it first, with xz -d"),
    (rb"PAR1", 'is a Parquet file; end its name in .parquet, or set loader.format = "parquet"'),
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "is a zip archive or an Excel file; unzip it, or end its name in .xlsx"),
    (rb"ARROW1", 'is an Arrow file; end its name in .arrow, or set loader.format = "arrow"'),
    (rb"ORC[\0-\x08]", 'is an ORC file; end its name in .orc, or set loader.format = "orc"'),
    (rb"Obj\x01|SQLite format 3|%PDF-", "is no text file; convert it first"),
    (rb"\s*<(?:!(?i:doctype)|(?i:html)|\?xml)", "is a web page or XML; look at it: a download may have failed"),
]
START_BYTES = 16  # that are looked at
_SAMPLE_BYTES = 16 << 10  # of a wide encoding, by which UTF-8 is longer or shorter
_COMPRESSION = 4.0  # of a typical text file


class TextFile:
    """A text file to read: its compression, its encoding, its byte order mark.

    Offsets are bytes of what is read: decompressed, and UTF-8 if the encoding is wide.

    Raises:
        InputError: it can't be opened, its compressed data is broken, or a line is not of the encoding.
    """

    def __init__(self, location: Location, encoding: str) -> None:
        self.path = location.shown
        self._location, self._compression = location, compression_of(location.name)
        self.start = start = next(self._read(0, START_BYTES), b"")
        if other := other_file(start):
            raise InputError(f"{self.path}: {other}")
        self.encoding = codecs.lookup(encoding).name.removesuffix("-sig")
        if self.encoding == "utf-8" and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f'{self.path}:1: begins like UTF-16, not utf-8; set loader.encoding = "utf-16"')
        if self.encoding in ("utf-16", "utf-32"):  # without a BOM the low byte of a character comes first
            self.encoding += "-be" if start.startswith("\ufeff".encode(f"{self.encoding}-be")) else "-le"
        self.is_utf8 = self.encoding == "utf-8" or is_wide(self.encoding)  # what is read
        self.seekable = self._compression is None and not is_wide(self.encoding)
        self.bom = codecs.BOM_UTF8 if self.is_utf8 and start.startswith("\ufeff".encode(self.encoding)) else b""
        self.growth = _COMPRESSION if self._compression else 1.0  # bytes that are read for one of the file, about
        if is_wide(self.encoding):
            sample = next(self._read(0, _SAMPLE_BYTES), b"")
            self.growth *= len(sample.decode(self.encoding, "ignore").encode()) / max(1, len(sample))
        self._broken: str | None = None  # why the file, in its wide encoding, can't be read further

    def buffers(self, position: Position) -> Iterator[bytes]:
        """Read the bytes from `position` on, without the BOM."""
        skip = max(position.offset, len(self.bom))
        if self.seekable:
            yield from self._read(skip)
            return
        buffers = self._read()
        for data in self._as_utf8(buffers) if is_wide(self.encoding) else buffers:
            if skip < len(data):
                yield data[skip:]
            skip = max(0, skip - len(data))

    def lines(self, position: Position) -> Iterator[tuple[Position, RowBytes]]:
        """Read the lines from `position` on, many at a time.

        With them comes the position of the first, in a file in which each line is a row.
        """
        for lines in rows_of_lines(self.buffers(position)):
            yield position, lines
            row, offset, line = position
            position = Position(row + len(lines), offset + len(lines.data), line + len(lines))

    def decode(self, line: bytes, number: int) -> str:
        """Decode one line; `number` is the one that a message names.

        Raises:
            InputError: it is not of the encoding.
        """
        try:
            return line.decode("utf-8" if self.is_utf8 else self.encoding)
        except UnicodeDecodeError as error:
            what = self._broken or f"byte 0x{line[error.start]:02x} at {error.start + 1}"
            raise InputError(
                f"{self.path}:{number}: not {self.encoding} ({what}); set loader.encoding, for instance cp1252"
            ) from None

    def _read(self, skip: int = 0, size: int = 0) -> Iterator[bytes]:
        """Read the decompressed bytes, `size` (default: `READ_BYTES`) at a time; of a file as it is from `skip` on."""
        given = 0
        try:
            with self._open(skip) as stream:
                while data := stream.read(size or READ_BYTES):
                    given += len(data)
                    yield data
        except OSError as error:
            if error.errno or self._compression not in ("gzip", "zstd"):
                raise self._unreadable(error) from None
            yield from self._read_otherwise(given, size or READ_BYTES, error)

    def _read_otherwise(self, skip: int, size: int, error: OSError) -> Iterator[bytes]:
        """Go on after `skip` bytes, at which Arrow's decompressor failed with `error`, with another one.

        That of Python takes the zeros with which tapes and disk images fill a gzip file up, and zstandard the windows
        of more than 128 MiB that `zstd --long` makes.
        """
        try:
            if self._compression == "gzip":
                blocks = iter(functools.partial(gzip.GzipFile(fileobj=self._open_raw()).read, size), b"")
            elif "too much memory" in str(error):
                blocks = _zstd_blocks(self._open_raw())
            else:
                raise error
            for block in blocks:
                if skip < len(block):
                    yield block[skip:]
                skip = max(0, skip - len(block))
        except ModuleNotFoundError:
            raise ConfigError(
                f'{self.path}: is compressed with a long window; pip install "classify-pipeline[zstd]", or compress it '
                f"again without --long"
            ) from None
        except (OSError, EOFError, zlib.error):
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> Exception:
        if error.errno:  # the device, not what is on it
            return DiskTrouble(f"{self.path}: reading failed: {_reason(error)}")
        if self._compression:
            with self._open_raw() as raw:
                start = bytes(raw.read(START_BYTES))
            if not start.startswith(_COMPRESSED[self._compression]):
                other = other_file(start) or f"is not compressed with {self._compression}; mend the ending of its name"
                return InputError(f"{self.path}: {other}")
        what = f"its {self._compression} data is cut short or broken" if self._compression else "reading failed"
        return InputError(f"{self.path}: {what} ({_reason(error)})")

    def _open(self, skip: int) -> pa.NativeFile | StoreStream:
        try:
            if self._compression is not None:
                return pa.CompressedInputStream(self._open_raw(), self._compression)
            stream = self._location.stream()
            stream.seek(skip)
        except OSError as error:
            raise InputError(f"{self.path}: {_reason(error)}") from None
        return stream

    def _open_raw(self) -> pa.NativeFile:
        """Open the bytes as they are stored."""
        stream = self._location.stream()
        return pa.PythonFile(stream, "r") if isinstance(stream, StoreStream) else stream

    def _as_utf8(self, buffers: Iterator[bytes]) -> Iterator[bytes]:
        """Turn a wide encoding into UTF-8; in the place of what is broken comes a byte that `decode` refuses."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        try:
            for data in buffers:
                yield decoder.decode(data).encode()
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            self._broken = error.reason
            yield error.object[: error.start].decode(self.encoding).encode() + SEPARATOR


def _zstd_blocks(raw: pa.NativeFile) -> Iterator[bytes]:
    """Decompress zstd with windows of up to 2 GiB.

    Raises:
        EOFError: a frame does not end.
    """
    import zstandard

    data = raw.read(_ZSTD_BYTES)
    while data:
        frame = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW).decompressobj()
        while not frame.eof:
            if not data:
                raise EOFError
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from None
            data = raw.read(_ZSTD_BYTES) if not frame.eof else frame.unused_data or raw.read(_ZSTD_BYTES)


def other_file(start: bytes) -> str | None:
    """Say what a file is that begins so, and what to do; None if it may be text."""
    return next((what for pattern, what in _OTHER_FILES if re.match(pattern, start)), None)


class TextWriter:
    """What the writers of text formats have in common: a stream, compressed as the ending of the output's name says.

    It takes bytes of the encoding; if that is wide, whole characters in UTF-8.
    """

    def __init__(self, draft: Draft | Pipe, encoding: str = "utf-8") -> None:
        stream: Any = draft.write_bytes()
        codec = None if isinstance(draft, Pipe) else compression_of(draft.output.name)
        if codec is not None:
            stream = pa.CompressedOutputStream(stream, codec)
        self._stream: Any = codecs.EncodedFile(stream, "utf-8", encoding) if is_wide(encoding) else stream

    @staticmethod
    def see_type(kind: pa.DataType) -> None:
        """See `ColumnWriter.see_type`."""
        values.see_type(kind)

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.close()


class RowBytes:
    """The bytes of consecutive rows with their line ends, in one buffer.

    The first row begins at `start` in `data`, and each ends where the next one begins, at its offset in `ends`. A
    sequence of `bytes`; each row is cut out of the buffer when it is asked for.
    """

    def __init__(self, data: bytes, start: int, ends: Offsets) -> None:
        self.data, self.start, self.ends = data, start, ends

    @classmethod
    def of(cls, rows: Sequence[bytes]) -> RowBytes:
        """Gather rows in a buffer."""
        return cls(b"".join(rows), 0, np.cumsum([*map(len, rows)], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, rows: slice) -> RowBytes:
        first, _, _ = rows.indices(len(self))
        return RowBytes(self.data, int(self.ends[first - 1]) if first else self.start, self.ends[rows])

    def __iter__(self) -> Iterator[bytes]:
        start = self.start
        for end in self.ends.tolist():
            yield self.data[start:end]
            start = end

    @functools.cached_property
    def codes(self) -> Codes:
        """The bytes of `data` as numbers."""
        return np.frombuffer(self.data, np.uint8)

    @functools.cached_property
    def starts(self) -> Offsets:
        """The offset in `data` at which each row begins."""
        return np.append(self.start, self.ends[:-1])

    @functools.cached_property
    def body_ends(self) -> Offsets:
        """The offset at which the line end of each row begins; the last row may have none, and ends there."""
        last = self.codes[self.ends - 1]
        ends: Offsets = self.ends - ((last == LF) | (last == CR))
        if self.data.find(b"\r", self.start, int(self.ends[-1])) >= 0:
            ends -= (last == LF) & (ends > self.starts) & (self.codes[ends - 1] == CR)
        return ends


def insert(rows: RowBytes, offsets: Offsets, texts: pa.LargeBinaryArray) -> tuple[memoryview, memoryview]:
    """Insert a text into each row, at one offset in `rows.data` within each row.

    Returns the bytes in two parts, of which the second is the end of the last row.
    """
    # The bytes from one offset to the next are slices of the buffer, so they are an Arrow array already.
    between = binary_slices(rows.data, np.concatenate([[rows.start], offsets]))
    joined = pc.binary_join_element_wise(between, texts, binary_scalar(b""))
    return memoryview(joined.buffers()[2]), memoryview(rows.data)[offsets[-1] : rows.ends[-1]]


def rows_of_lines(buffers: Iterator[bytes]) -> Iterator[RowBytes]:
    """Cut a stream of bytes into lines, many at a time, each with its line end."""
    for data in whole_lines(buffers):
        yield RowBytes(data, 0, line_ends(data))


def whole_lines(buffers: Iterator[bytes]) -> Iterator[bytes]:
    """Cut a stream of bytes anew, into buffers that end with a line; only the last may lack its line end.

    A line of any length is joined once. No buffer has more than `MOST_LINES` lines.
    """
    parts: list[bytes] = []  # of the next buffer
    for buffer in buffers:
        if parts and parts[-1].endswith(b"\r") and not buffer.startswith(b"\n"):
            yield from _with_few_lines(b"".join(parts))
            parts = []
        # A CR at the end may be the first half of a line end.
        cut = (buffer.rfind(b"\n") if b"\n" in buffer else buffer.rfind(b"\r", 0, -1)) + 1
        parts.append(buffer[:cut] if cut else buffer)
        if cut:
            yield from _with_few_lines(b"".join(parts))
            parts = [buffer[cut:]] if cut < len(buffer) else []
    if parts:
        yield from _with_few_lines(b"".join(parts))


def _with_few_lines(data: bytes) -> Iterator[bytes]:
    """Cut a buffer after every `MOST_LINES` lines."""
    if len(data) > MOST_LINES and np.count_nonzero(ends_line(data)) > MOST_LINES:
        start = 0
        for end in line_ends(data)[MOST_LINES - 1 :: MOST_LINES].tolist():
            yield data[start:end]
            start = end
        data = data[start:]
    if data:
        yield data


def ends_line(data: bytes) -> Mask:
    """Tell for each byte whether it ends a line: LF, and CR unless LF follows."""
    codes = np.frombuffer(data, np.uint8)
    ends: Mask = codes == LF
    if b"\r" in data:
        ends |= (codes == CR) & (np.append(codes[1:], 0) != LF)
    return ends


def line_ends(data: bytes) -> Offsets:
    """Find the offsets at which lines end, each after its line end; what follows the last line end is a line, too."""
    ends = np.flatnonzero(ends_line(data)) + 1
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))


def is_wide(encoding: str) -> bool:
    """Whether the encoding has more bytes for a line end than ASCII."""
    return encoding.startswith(("utf-16", "utf-32"))


def is_utf8(data: bytes | memoryview) -> bool:
    """Whether bytes are UTF-8; Arrow checks them without making a Python string, which would take twice the memory."""
    ends = pa.py_buffer(np.array([0, len(data)]))
    try:
        pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(data)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).strip().splitlines()[0]
