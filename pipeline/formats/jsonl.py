"""JSON Lines: one JSON object a line; blank lines are no rows.

Reading: lines of the usual kind are parsed thousands at a time by a scanner (`text_scanner`), which takes only the
text out of each. If one of them is out of the ordinary, all are parsed line by line, which alone decides what is an
error. What is not a text is never decoded: see `json_columns` for whole rows as Arrow columns.

Writing: `JsonlAppender` appends members to the lines of a JSON Lines file and keeps their bytes, `JsonlWriter` makes
lines of Arrow columns.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.appended_columns import AppendedText
from pipeline.formats.json_columns import (
    ARROW_TYPES,
    SHALLOW,
    ColumnKinds,
    Kind,
    as_text,
    column_array,
    is_too_deep,
    parse_members,
    reach,
    text_of,
)
from pipeline.formats.registry import Format
from pipeline.formats.source import Destination, Source, TextSpec, Writer, blocks_of, existing_columns, refuse_existing
from pipeline.formats.textfile import QUOTE, RowBytes, TextFile, TextWriter, insert, is_utf8
from pipeline.formats.values import to_json
from pipeline.storage import Location
from pipeline.streams import storable
from pipeline.texts import Codes, Offsets, Position, TextBlock, Texts, block_of_escaped, escape, string_array

FIRST_ROWS = 1_000  # where the text column is in none of these, it does not exist

_BACKSLASH = ord("\\")
_find_long_escape = re.compile(rb"\\[u/]").search
_encode = msgspec.json.Encoder().encode
Scan = Callable[[Position, RowBytes], TextBlock | None]


class Row(NamedTuple):
    """One row, parsed."""

    raw: bytes  # its line, with the line end
    members: dict[str, bytes]  # tokens


class JsonSource(Source):
    """What JSON Lines and JSON arrays have in common. A format says in `_all_rows` how all rows are read.

    Raises:
        InputError: a row that is no JSON object (unless it may be skipped), or not of the encoding.
    """

    _unit = "lines"  # what a row is, in messages

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, file_format)
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.growth = self.file.growth
        self._appended: tuple[str, ...] = ()  # members that no row may have

    def in_words(self) -> str:
        """See `Source.in_words`."""
        return f"encoding {self.file.encoding}"

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`: looks at the first 1,000 rows; `appended` is looked for in every later row, too."""
        self._appended = tuple(appended)
        seen: dict[str, None] = {}
        missing, is_blank = set(spec.columns), True
        for row in itertools.islice(self._all_rows(), FIRST_ROWS):
            seen.update(dict.fromkeys(row.members))
            is_blank = False
            missing -= {name for name in missing if reach(row.members, name) is not None}
        if missing and not is_blank:
            name = min(missing)
            advice = existing_columns(list(seen), name, spec.advice(name))
            raise InputError(f"{self.path}: no {name!r} in the first {FIRST_ROWS:,} {self._unit}; {advice}")

    def see_columns(self, names: Sequence[str]) -> None:
        """See `Source.see_columns`: in the first 1,000 rows."""
        rows = list(itertools.islice(self._all_rows(), FIRST_ROWS))
        for name in names:
            if rows and all(reach(row.members, name) is None for row in rows):
                advice = existing_columns(list(rows[0].members), name)
                raise InputError(f"{self.path}: no {name!r} in the first {FIRST_ROWS:,} {self._unit}; {advice}")

    def select(self, names: Sequence[str], *, repeated: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:  # noqa: ARG002
        """See `Source.select`: all values are strings, what is none as JSON text; the file is read once."""
        for block in blocks_of(self._all_rows(), lambda row: len(row.raw)):
            columns = [string_array([as_text(reach(row.members, name)) for row in block]) for name in names]
            yield pa.RecordBatch.from_arrays(columns, list(names))

    def schema(self) -> pa.Schema:
        """See `Source.schema`: the members of all rows. The first call reads the whole file."""
        return pa.schema([(storable(name), ARROW_TYPES[kind]) for name, kind in self._kinds.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        schema, kinds = self.schema(), self._kinds
        for block in blocks_of(self._all_rows(), lambda row: len(row.raw)):
            columns = [column_array([row.members.get(name) for row in block], kind) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    @functools.cached_property
    def _kinds(self) -> dict[str, Kind]:
        """The kind of each member, over all rows."""
        kinds = ColumnKinds(self.path)
        for row in self._all_rows():
            kinds.add(row.members)
        return kinds.by_name()

    @abstractmethod
    def _all_rows(self) -> Iterator[Row]:
        """Read all rows."""


def texts_of(row: Row, spec: TextSpec) -> list[str | None]:
    """Decode the texts of the columns of `spec`, see `TextSpec.block_of`."""
    return [text_of(reach(row.members, name)) for name in spec.columns]


class JsonlSource(JsonSource):
    """Reads a JSON Lines file."""

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        super().__init__(location, loader, file_format)
        self._may_have_bad = self._skip_bad
        self.seekable = self.file.seekable
        self.start = Position(0, len(self.file.bom), 0)
        if self.file.start.strip(b"\0\xff\xfe\xef\xbb\xbf \t\r\n").startswith(b"["):
            self._refuse_array()
        self._first: tuple[TextSpec, TextBlock] | None = None  # what `check` has scanned, for the next reading

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`."""
        self._appended, self._first = tuple(appended), None
        if not self._can_scan_first_lines(spec):
            super().check(spec, appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        position = position or self.start
        row, self.skipped = position.row, 0
        scan = self._scanner(spec)
        first, self._first = self._first, None
        for here, lines in self.file.lines(position):
            here = here._replace(row=row)  # noqa: PLW2901 - not each line is a row
            if first is not None and first[0] is spec and here == self.start:
                block: TextBlock | None = first[1]
            else:
                block = scan(here, lines) if scan else None
            if block is None:
                block = spec.block_of(here, self._rows(lines, here.line), lambda row: texts_of(row, spec))
            if block.texts:
                yield block
            row += len(block.texts)
        if position == self.start:
            self._may_have_bad = self.skipped > 0

    def cuts(self, rows: int, position: Position | None = None) -> Iterator[Position]:
        """See `Source.cuts`: reads all lines, since blank and bad ones are no rows."""
        if not self.seekable:
            return
        last = position or self.start
        row = last.row
        for here, lines in self._located_rows(last):
            if row - last.row >= rows:
                last = here._replace(row=row)
                yield last
            row += len(lines)
        yield Position(row, 0, 0)

    def row_bytes(self) -> Iterator[RowBytes]:
        """Read the bytes of all rows with their line ends, some thousand at a time."""
        return (rows for _, rows in self._located_rows(self.start))

    def _located_rows(self, position: Position) -> Iterator[tuple[Position, RowBytes]]:
        """Read the bytes of rows, see `row_bytes`; with them comes the position of their first line."""
        # The reading of the texts has parsed every line. This one does so only where lines may be left out, and where
        # a name that is to be appended seems to be there: the prefix may have changed since a run was interrupted.
        marks = [f'"{name}"'.encode() for name in self._appended]
        self.skipped = 0
        for here, lines in self.file.lines(position):
            if self._may_have_bad or not self.file.is_utf8 or any(mark in lines.data for mark in marks):
                yield here, RowBytes.of([row.raw for row in self._rows(lines, here.line)])
            elif _are_in_braces(lines):
                yield here, lines
            else:
                yield here, RowBytes.of([line for line in lines if not line.isspace()])

    def _rows_in_utf8(self) -> Iterator[RowBytes]:
        """Read the bytes of all rows, in UTF-8."""
        for rows in self.row_bytes():
            yield rows if self.file.is_utf8 else RowBytes.of([self.file.decode(row, 0).encode() for row in rows])

    def appender(self, destination: Destination) -> tuple[Writer, Iterator[RowBytes]]:
        """See `Source.appender`."""
        if destination.format != self.format:
            return ArrayAppender(destination), self._rows_in_utf8()
        return JsonlAppender(self.file, destination), self.row_bytes()

    def _scanner(self, spec: TextSpec) -> Scan | None:
        """Make a scanner, if it knows the encoding and the text is that of one member."""
        return text_scanner(spec.columns[0], self._appended) if spec.is_plain and self.file.is_utf8 else None

    def _refuse_array(self) -> None:
        """See that the file, which begins with a bracket, is no array of objects; one line that is an array is bad."""
        head = (
            next(self.file.buffers(self.start), b"")[:SHALLOW]
            .decode("utf-8" if self.file.is_utf8 else self.file.encoding, "replace")
            .lstrip()
        )
        first, _, rest = head.partition("\n")
        if re.match(r"\[\s*(\{|$)", first) and not (first.rstrip().endswith("]") and rest.strip()):
            raise InputError(
                f"{self.path}: is a JSON array, not one object a line; end its name in .json, or set "
                f'loader.format = "json"'
            )

    def _can_scan_first_lines(self, spec: TextSpec) -> bool:
        """Scan the first lines, and say whether all of them hold texts and none of the members to be appended."""
        scan = self._scanner(spec)
        for here, lines in self.file.lines(self.start):
            block = scan(here, lines) if scan else None
            if block is None:
                return False
            self._first = self._first or (spec, block)
            if here.line + len(lines) >= FIRST_ROWS:
                break
        return True

    def _all_rows(self) -> Iterator[Row]:
        self.skipped = 0
        for here, lines in self.file.lines(self.start):
            yield from self._rows(lines, here.line)

    def _rows(self, lines: RowBytes, number: int) -> Iterator[Row]:
        """Parse the lines that are rows, and count those that are left out; `number` lines are before them.

        Raises:
            InputError: a line is no JSON object and may not be left out, is not of the encoding, or has a member to be
                appended.
        """
        for line_number, raw in enumerate(lines, number + 1):
            line = raw
            if not self.file.is_utf8 or not raw.isascii():  # decoding is also the check of the encoding
                line = self.file.decode(raw, line_number).encode("utf-8", "surrogatepass")
            if line.isspace():
                continue
            try:
                if is_too_deep(line):
                    raise ValueError("nested too deeply")  # noqa: TRY301 - one kind of error for a line that is no row
                members = parse_members(line)
            except ValueError as error:
                if not self._skip_bad:
                    what = f"no JSON object: {error}; {_advice(line, line_number)}"
                    raise InputError(f"{self.path}:{line_number}: {what}") from None
                self.skipped += 1
                continue
            refuse_existing(f"{self.path}:{line_number}", members, self._appended)
            yield Row(raw, members)


def _advice(line: bytes, number: int) -> str:
    """Say what to do about a line that is no object; not to leave it out, where that would cost all rows."""
    if number == 1 and line.strip() in (b"{", b"["):
        return "an object that spans several lines is made one with jq -c . FILE > NEW.jsonl"
    if number == 1 and not line.lstrip().startswith(b"{"):
        return "if it is CSV, say so with --set loader.format=csv; else mend the line"
    return 'mend the line, or leave such lines out with loader.on_bad_line = "skip"'


@functools.lru_cache(maxsize=16)  # to make a struct costs as much as to read a small file
def text_scanner(name: str, refused: tuple[str, ...]) -> Scan:
    """Make a function from whole lines, and the position of the first, to the texts of their member `name`.

    It returns None where a line is out of the ordinary: blank, broken, without a text, or with one of the members
    `refused`.
    """
    if not _can_be_fields([name, *refused]):
        return lambda _, __: None
    nothing = Annotated[int, msgspec.Meta(ge=1, le=0)]  # no value is that
    never = [(f"n{index}", nothing | msgspec.UnsetType, msgspec.UNSET) for index in range(len(refused))]
    names = {"text": name, **{f"n{index}": other for index, other in enumerate(refused)}}
    struct: Any = msgspec.defstruct("Row", [("text", msgspec.Raw), *never], rename=names, gc=False)
    decode = msgspec.json.Decoder(struct).decode_lines

    def scan(position: Position, lines: RowBytes) -> TextBlock | None:
        data = lines.data
        if not _are_in_braces(lines) or (not data.isascii() and not is_utf8(data)):
            return None
        try:
            tokens = [row.text for row in decode(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(tokens) != len(lines) or _has_deep_line(lines):
            return None
        texts = _texts_of(tokens)
        return None if texts is None else block_of_escaped(position, texts)

    return scan


def _are_in_braces(lines: RowBytes) -> bool:
    """Whether each line begins and ends with a brace.

    Then each holds whole objects, at least one, for in JSON no opening brace comes right after a closing one. If there
    are as many objects as lines, each line is one object.
    """
    opens, closes = lines.codes[lines.starts] == ord("{"), lines.codes[lines.body_ends - 1] == ord("}")
    return bool((opens & closes).all())


def _has_deep_line(lines: RowBytes) -> bool:
    """Whether a line nests too deeply."""
    long = np.flatnonzero(lines.ends - lines.starts > SHALLOW)
    return any(is_too_deep(line) for index in long.tolist() for line in lines[index : index + 1])


def _texts_of(tokens: Sequence[Any]) -> Texts | None:
    """Take what stands between the quotes of tokens; None if one is no string, or one that can't be sent."""
    texts = Texts(b",".join([*tokens, b""]), np.cumsum([0, *[len(token) + 1 for token in tokens]]))
    codes = np.frombuffer(texts.data, np.uint8)
    if not (codes[texts.offsets[:-1]] == QUOTE).all():
        return None
    try:
        return _with_short_escapes(texts) if _may_have_long_escape(codes) else texts
    except ValueError:  # half a surrogate pair
        return None


def _may_have_long_escape(codes: Codes) -> bool:
    r"""Whether `\u` or `\/` may be there, by the bytes after backslashes: to search for two bytes takes longer."""
    after = codes[np.flatnonzero(codes == _BACKSLASH) + 1]
    return bool(((after == ord("u")) | (after == ord("/"))).any())


def _with_short_escapes(texts: Texts) -> Texts:
    """Escape again, as `escape` does, what has an escape that could be shorter: equal texts must have equal bytes."""
    return Texts.of([escape(text_of(b'"%b"' % text) or "") if _find_long_escape(text) else text for text in texts])


def _can_be_fields(names: Sequence[str]) -> bool:
    """Whether msgspec can read members of these names as the fields of a struct: no escapes, and none twice."""
    return len(set(names)) == len(names) and all(
        name.isprintable() and '"' not in name and "\\" not in name for name in names
    )


class JsonlAppender(TextWriter):
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, file: TextFile, destination: Destination) -> None:
        super().__init__(destination.draft, file.encoding)
        self._stream.write(file.bom)
        # In another encoding everything is ASCII: JSON's escapes stand for the characters that the encoding lacks.
        encode = _encode if file.encoding == "utf-8" else _encode_ascii
        self._members = appended_members(destination, encode)

    def write(self, rows: RowBytes, answers: Answers) -> None:
        """See `Writer.write`."""
        members = self._members.of(answers)
        braces = _closing_braces(rows)
        if braces is None:
            self._stream.write(b"".join(map(append_members, rows, members.to_pylist())))
            return
        for part in insert(rows, braces, members):
            self._stream.write(part)


class ArrayAppender(TextWriter):
    """Writes objects as an array, their bytes with appended members. It takes what is between two commas.

    Args:
        head: what is before the first one, with the opening bracket.
        tail: gives what is after the last one, when all are read; by default each object gets a line of its own.
    """

    def __init__(
        self,
        destination: Destination,
        head: bytes = b"[",
        tail: Callable[[], bytes] | None = None,
    ) -> None:
        self._tail = tail
        super().__init__(destination.draft)
        self._members = appended_members(destination)
        self._stream.write(head)
        self._between = b""

    def write(self, rows: Iterable[bytes], answers: Answers) -> None:
        """See `Writer.write`."""
        raw = rows if self._tail else [b"\n%b" % row.strip() for row in rows]
        objects = list(map(append_members, raw, self._members.of(answers).to_pylist()))
        self._stream.write(self._between + b",".join(objects))
        self._between = b","

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.write(self._tail() if self._tail else b"\n]\n")
        super().close()


class JsonlWriter(TextWriter):
    """Writes JSON Lines: UTF-8, LF."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        super().__init__(destination.draft)
        self._names = schema.names
        self._members = appended_members(destination, _encode)

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        self._stream.write(b"".join([b"%b\n" % line for line in self.lines(rows, answers)]))

    def lines(self, rows: pa.RecordBatch, answers: Answers) -> list[bytes]:
        """Make a JSON object of each row, without a line end."""
        columns = [to_json(column, name) for column, name in zip(rows.columns, self._names, strict=True)]
        lines = (_encode(dict(zip(self._names, row, strict=True))) for row in zip(*columns, strict=True))
        members = self._members.of(answers).to_pylist()
        pairs = zip(lines, members, strict=True)
        return [b"%b%b}" % (line[:-1], appended) for line, appended in pairs]


def appended_members(destination: Destination, encode: Callable[[Any], bytes] = _encode) -> AppendedText:
    """Make the members that are appended to a line, each after a comma."""
    heads = [b",%b:" % encode(name) for name in destination.columns.names]
    return AppendedText(destination.columns, destination.labels, heads, [encode] * len(heads))


def _encode_ascii(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _closing_braces(rows: RowBytes) -> Offsets | None:
    """Find the closing brace of each line; None if one has none right before its line end, or has no members."""
    braces = rows.body_ends - 1
    before = rows.codes[braces - 1]
    is_usual = (rows.codes[braces] == ord("}")) & (before != ord("{")) & (before > ord(" "))
    return braces if is_usual.all() else None


def append_members(line: bytes, members: bytes) -> bytes:
    """Append members to one line, whose closing brace only white space follows."""
    before, brace, after = line.rpartition(b"}")  # a line without one is seen as a change of the input, later
    if before.rstrip().endswith(b"{"):
        members = members[1:]
    return before + members + brace + after
