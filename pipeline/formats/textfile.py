"""A text file as bytes: decompressed, cut into lines and rows that keep their own bytes, and decoded line by line.

Lines end with LF, CRLF or CR, and are cut in bytes: so the bytes of a row can be copied as they are, any encoding that
is a superset of ASCII is read without decoding it, and the offset of each row is known. In UTF-16 and UTF-32, here
called wide, line ends are found after decoding.
"""

from __future__ import annotations

import codecs
import functools
import io
import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import DiskTrouble, InputError
from pipeline.formats.registry import compression_of
from pipeline.storage import Draft, Location, Pipe, StoreStream
from pipeline.texts import Codes, Mask, Offsets, Position, binary_scalar, binary_slices

# Of one read. A buffer of 256 KiB would stay in the processor's cache, but the calls and the change of threads for each
# would cost a fifth of a run.
READ_BYTES = 2 << 20
MOST_LINES = 16_384  # of a buffer: a line of one byte becomes an object of forty
LIST_LINES = 4096  # of lines as a list
WIDE_LIST_LINES = 256

LF, CR, QUOTE = b'\n\r"'
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


class TextFile:
    """A text file to read: its compression, its encoding, its byte order mark.

    Raises:
        InputError: it can't be opened, its compressed data is broken, or a line is not of the encoding.
    """

    def __init__(self, location: Location, encoding: str) -> None:
        self.location, self.path = location, location.shown
        self.compression = compression_of(location.name)
        self.seekable = self.compression is None
        start = next(self._read(0, 4), b"")
        name = codecs.lookup(encoding).name.removesuffix("-sig")
        if name == "utf-8" and start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f'{self.path}:1: begins like UTF-16, not utf-8; set loader.encoding = "utf-16"')
        self.encoding = next((wide for bom, wide in _WIDE.get(name, {}).items() if start.startswith(bom)), name)
        if self.encoding in _WIDE:  # no BOM says which byte of a character comes first: then it is the low one
            self.encoding += "-le"
        bom = _BOMS.get(self.encoding, b"")
        self.bom = bom if bom and start.startswith(bom) else b""

    def buffers(self, position: Position) -> Iterator[bytes]:
        """Read the bytes from `position` on, without the BOM."""
        return self._read(max(position.offset, len(self.bom)))

    def lines(self, position: Position) -> Iterator[Lines]:
        """Read the lines from `position` on, many at a time, each with its line end; without the BOM."""
        lines, buffers = Lines(b"", position.offset, position.line), self.buffers(position)
        if not is_wide(self.encoding):
            for data in whole_lines(buffers):
                lines = lines.followed_by(data)
                yield lines
            return
        for some in self.line_lists(buffers, position):
            lines = lines.followed_by(b"".join(some))
            lines.lines = some
            yield lines

    def line_lists(self, buffers: Iterator[bytes], position: Position) -> Iterator[list[bytes]]:
        """Cut `buffers`, which begin at `position`, into lines, and give these some thousand at a time."""
        if not is_wide(self.encoding):
            yield from _line_lists(buffers)
            return
        lines = self._wide_lines(buffers, position.line)
        while some := list(itertools.islice(lines, WIDE_LIST_LINES)):
            yield some

    def decode(self, line: bytes, number: int) -> str:
        """Decode one line; `number` is the one that a message names.

        Raises:
            InputError: it is not of the encoding.
        """
        try:
            return line.decode(self.encoding)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.path}:{number}: not {self.encoding} (byte 0x{line[error.start]:02x} at {error.start + 1}); "
                f"set loader.encoding, for instance cp1252"
            ) from None

    def _read(self, skip: int, size: int = 0) -> Iterator[bytes]:
        """Read the decompressed bytes from `skip` on, `size` (default: `READ_BYTES`) at a time."""
        try:
            with self._open(skip) as stream:
                while data := stream.read(size or READ_BYTES):
                    yield data
        except OSError as error:
            raise self._unreadable(error) from None

    def _open(self, skip: int) -> pa.NativeFile | StoreStream:
        """Open the decompressed bytes from `skip` on."""
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
        while skip and (data := stream.read(min(skip, READ_BYTES))):
            skip -= len(data)
        return stream

    def _unreadable(self, error: OSError) -> Exception:
        if error.errno:  # the device, not what is on it
            return DiskTrouble(f"{self.path}: reading failed: {_reason(error)}")
        what = f"its {self.compression} data is cut short or broken" if self.compression else "reading failed"
        return InputError(f"{self.path}: {what} ({_reason(error)})")

    def _wide_lines(self, buffers: Iterator[bytes], number: int) -> Iterator[bytes]:
        """Find lines in UTF-8, and give them in their own encoding again; there are `number` lines before them."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        broken: list[UnicodeDecodeError] = []

        def as_utf8() -> Iterator[bytes]:
            try:
                for data in itertools.chain(buffers, [b""]):
                    yield decoder.decode(data, final=not data).encode()
            except UnicodeDecodeError as error:
                broken.append(error)
                yield error.object[: error.start].decode(self.encoding).encode() + b"\n"  # the line it is in

        held: bytes | None = None  # the last line is given only when it is known to be whole
        for line in itertools.chain.from_iterable(_line_lists(as_utf8())):
            if held is not None:
                yield held.decode().encode(self.encoding)
            held, number = line, number + 1
        if broken:
            raise InputError(f"{self.path}:{number}: not {self.encoding} ({broken[0].reason}); set loader.encoding")
        if held is not None:
            yield held.decode().encode(self.encoding)


def write_text(draft: Draft | Pipe) -> pa.NativeFile | Pipe:
    """Open a stream into a draft, compressed as the ending of the output's name says. The caller closes it."""
    stream = draft.write_bytes()
    codec = None if isinstance(draft, Pipe) else compression_of(draft.output.name)
    return pa.CompressedOutputStream(stream, codec) if codec else stream


class Lines:
    """Consecutive lines in one buffer."""

    def __init__(self, data: bytes, offset: int, number: int) -> None:
        self.data = data
        self.offset = offset  # bytes before the first one in the decompressed file
        self.number = number  # lines before the first one

    def followed_by(self, data: bytes) -> Lines:
        """Make the lines in `data`, which come after these."""
        return Lines(data, self.offset + len(self.data), self.number + self.count)

    @functools.cached_property
    def lines(self) -> list[bytes]:
        """Each with its line end."""
        return split_lines(self.data)

    @functools.cached_property
    def count(self) -> int:
        """How many there are. Who knows it without splitting them may set it."""
        return len(self.lines)


class RowBytes:
    """The bytes of consecutive rows with their line ends, in one buffer.

    The first row begins at `start` in `data`, and each ends where the next one begins, at its offset in `ends`. A
    sequence of `bytes`; each row is cut out of the buffer when it is asked for.
    """

    def __init__(self, data: bytes, start: int, ends: Offsets) -> None:
        self.data, self.start, self.ends = data, start, ends

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
    """Take every line for a row."""
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


def _line_lists(buffers: Iterator[bytes]) -> Iterator[list[bytes]]:
    for data in whole_lines(buffers):
        lines = split_lines(data)
        for start in range(0, len(lines), LIST_LINES):
            yield lines[start : start + LIST_LINES]


def split_lines(data: bytes) -> list[bytes]:
    """Split as `bytes.splitlines` does and keep the line ends; three times as fast where there is no CR."""
    return data.splitlines(keepends=True) if b"\r" in data else io.BytesIO(data).readlines()


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
    """Whether a line end is more bytes than in ASCII, so that lines are found only after decoding."""
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
