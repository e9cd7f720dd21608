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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa

from pipeline.answers import Answers
from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.formats.appended_columns import AppendedColumns, AppendedText
from pipeline.formats.json_columns import (
    ARROW_TYPES,
    SHALLOW,
    ColumnKinds,
    Kind,
    column_array,
    is_too_deep,
    parse_members,
    reach,
    text_of,
)
from pipeline.formats.registry import Format
from pipeline.formats.source import Destination, TextSpec, blocks_of, existing_columns, refuse_existing
from pipeline.formats.textfile import (
    QUOTE,
    Lines,
    RowBytes,
    TextFile,
    insert,
    is_utf8,
    is_wide,
    line_ends,
    rows_of_lines,
    write_text,
)
from pipeline.formats.values import to_json
from pipeline.storage import Location
from pipeline.streams import storable
from pipeline.texts import EMPTY, Codes, Offsets, Position, TextBlock, Texts, blank_indexes, block_of, escape

FIRST_LINES = 1_000  # where the text column is in none of these, it does not exist

_BACKSLASH = ord("\\")
_find_long_escape = re.compile(rb"\\[u/]").search
_encode = msgspec.json.Encoder().encode
Scan = Callable[[Position, bytes], TextBlock | None]
Parsed = TypeVar("Parsed")


class Line(NamedTuple):
    """One row."""

    raw: bytes  # with its line end
    line: int  # lines before it


class JsonlSource:
    """Reads a JSON Lines file.

    Raises:
        InputError: a line that is no JSON object (unless it may be skipped), or not of the encoding.
    """

    def __init__(self, location: Location, loader: Loader, file_format: Format) -> None:
        self.location, self.path, self.format = location, location.shown, file_format
        self.total_rows: int | None = None
        self.skipped = 0
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.seekable = self.file.seekable
        self.is_empty = False  # no bytes are no lines: a file without rows, not a broken one
        self.start = Position(0, len(self.file.bom), 0)
        self._appended: tuple[str, ...] = ()  # members that no line may have
        self._all_scanned = False  # the latest reading of all texts took no line one by one: all are rows
        self._lines_of_small: list[Lines] | None = None  # all lines of a file whose content is in memory
        self._first: tuple[TextSpec, TextBlock] | None = None  # what `check` has scanned, for the next reading

    def check(self, spec: TextSpec, appended: Sequence[str]) -> None:
        """See `Source.check`: looks at the first 1,000 lines; `appended` is looked for in every later line, too."""
        self._appended = tuple(appended)
        self._first, self._all_scanned = None, False
        if self._scan_first_lines(spec):
            return
        seen: dict[str, None] = {}
        missing, is_blank = set(spec.columns), True
        for members in itertools.islice(self._members(), FIRST_LINES):
            seen.update(dict.fromkeys(members))
            is_blank = False
            missing -= {name for name in missing if reach(members, name) is not None}
        if missing and not is_blank:
            name = min(missing)
            raise InputError(
                f"{self.path}: no {name!r} in the first {FIRST_LINES:,} lines; {existing_columns(list(seen), name)}"
            )
        refuse_existing(self.path, list(seen), appended)

    def texts(self, spec: TextSpec, position: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        position = position or self.start
        row, self.skipped = position.row, 0
        self._all_scanned, all_scanned, appended = False, position == self.start, self._appended
        scan, read = self._scanner(spec), member_reader(tuple(spec.columns), self._appended)
        first, self._first = self._first, None
        for lines in self._lines(position):
            here = Position(row, lines.offset, lines.number)
            if first is not None and first[0] is spec and lines.offset == self.start.offset:
                block: TextBlock | None = first[1]
            else:
                block = scan(here, lines.data) if scan else None
            if block is not None:
                lines.count = len(block.texts)
            else:
                all_scanned = False
                block = self._block_by_line(here, self._rows(lines, read), spec)
            if block.texts:
                yield block
            row += len(block.texts)
        self._all_scanned = all_scanned and appended == self._appended

    def row_bytes(self) -> Iterator[RowBytes | list[bytes]]:
        """Read the bytes of all rows with their line ends, some thousand at a time."""
        if self._all_scanned:
            self.skipped = 0
            yield from rows_of_lines(self.file.buffers(self.start))
            return
        # The reading of the texts has parsed every line. This one does so only where lines may be left out, and where
        # a name that is to be appended seems to be there: the prefix may have changed since a run was interrupted.
        marks = [f'"{name}"'.encode() for name in self._appended]
        read, self.skipped = member_reader((), self._appended), 0
        for lines in self._lines(self.start):
            if self._skip_bad or self.file.encoding != "utf-8" or any(mark in lines.data for mark in marks):
                rows = list(self._rows(lines, read))
                for row, tokens in rows:
                    self._refuse_appended(row, tokens)
                yield [row.raw for row, _ in rows]
            else:
                yield [line for line in lines.lines if not line.isspace()]

    def schema(self) -> pa.Schema:
        """See `Source.schema`: the members of all lines. The first call reads the whole file."""
        return pa.schema([(storable(name), ARROW_TYPES[kind]) for name, kind in self._kinds.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """See `Source.batches`."""
        schema, kinds = self.schema(), self._kinds
        for block in blocks_of(self._members(), lambda members: sum(map(len, members.values()))):
            columns = [column_array([members.get(name) for members in block], kind) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def appender(self, destination: Destination) -> JsonlAppender:
        """See `Source.appender`."""
        return JsonlAppender(self, destination)

    def _scanner(self, spec: TextSpec) -> Scan | None:
        """Make a scanner, if it knows the encoding and the text is that of one member."""
        is_plain = spec.is_plain and self.file.encoding == "utf-8"
        return text_scanner(spec.columns[0], self._appended) if is_plain else None

    def _scan_first_lines(self, spec: TextSpec) -> bool:
        """Scan the first lines, and say whether all of them hold texts and none of the members to be appended."""
        if not (scan := self._scanner(spec)):
            return False
        left = FIRST_LINES
        for lines in self._lines(self.start):
            if (block := scan(self.start, lines.data)) is None:
                return False
            lines.count = len(block.texts)
            self._first = self._first or (spec, block)
            left -= lines.count
            if left <= 0:
                break
        return left < FIRST_LINES

    def _block_by_line(
        self, position: Position, rows: Iterator[tuple[Line, list[bytes | None]]], spec: TextSpec
    ) -> TextBlock:
        """Make a block of lines with the tokens of their text columns, then of the members to be appended."""
        texts: list[str | None] = []
        not_text: dict[int, str] = {}
        for row, tokens in rows:
            self._refuse_appended(row, tokens[len(spec.columns) :])
            text: str | None = None
            try:
                values = [text_of(token) for token in tokens[: len(spec.columns)]]
                text = values[0] if spec.is_plain else spec.render(values)
            except ValueError as error:
                not_text[len(texts)] = str(error)
            texts.append(text)
        return block_of(position, texts, not_text)

    @functools.cached_property
    def _kinds(self) -> dict[str, Kind]:
        """The kind of each member, over all lines."""
        kinds = ColumnKinds(self.path)
        for members in self._members():
            kinds.add(members)
        return kinds.by_name()

    def _members(self) -> Iterator[dict[str, bytes]]:
        """Parse all rows, one by one."""
        self.skipped = 0
        for lines in self._lines(self.start):
            yield from (members for _, members in self._rows(lines, parse_members))

    def _lines(self, position: Position) -> Iterator[Lines]:
        """Read the lines from `position` on; those of a file whose content is in memory are cut once."""
        if self.location.content is None or position != self.start:
            return self.file.lines(position)
        self._lines_of_small = self._lines_of_small or list(self.file.lines(position))
        return iter(self._lines_of_small)

    def _rows(self, lines: Lines, parse: Callable[[bytes], Parsed]) -> Iterator[tuple[Line, Parsed]]:
        """Give the lines that are rows, each with what `parse` makes of its UTF-8, and count those that are left out.

        Raises:
            InputError: a line is no JSON object and may not be left out, or is not of the encoding.
        """
        is_utf8_file = self.file.encoding == "utf-8"
        for number, raw in enumerate(lines.lines, lines.number):
            line = raw
            if not is_utf8_file or not raw.isascii():  # decoding is also the check of the encoding
                line = self.file.decode(raw, number + 1).encode("utf-8", "surrogatepass")
            if line.isspace():
                continue
            try:
                if is_too_deep(line):
                    raise ValueError("nested too deeply")  # noqa: TRY301 - one kind of error for a line that is no row
                yield Line(raw, number), parse(line)
            except ValueError as error:
                if not self._skip_bad:
                    raise InputError(
                        f"{self.path}:{number + 1}: no JSON object: {error}; mend the line, or leave such lines out "
                        f'with loader.on_bad_line = "skip"'
                    ) from None
                self.skipped += 1

    def _refuse_appended(self, row: Line, tokens: Sequence[bytes | None]) -> None:
        """See that a row has none of the members to be appended, of which `tokens` are the values."""
        for name, token in zip(self._appended, tokens, strict=False):
            if token is not None:
                refuse_existing(f"{self.path}:{row.line + 1}", [name], [name])


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

    def scan(position: Position, data: bytes) -> TextBlock | None:
        lines = RowBytes(data, 0, line_ends(data))
        if not _are_in_braces(lines) or (not data.isascii() and not is_utf8(data)):
            return None
        try:
            tokens = [row.text for row in decode(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(tokens) != len(lines) or _has_deep_line(lines):
            return None
        texts = _texts_of(tokens)
        return None if texts is None else TextBlock(position, texts, dict.fromkeys(blank_indexes(texts), EMPTY))

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
    return Texts.of(
        [escape(text_of(b'"%b"' % text) or "") if _find_long_escape(text) else text for text in texts.to_list()]
    )


@functools.lru_cache(maxsize=16)
def member_reader(names: tuple[str, ...], exact: tuple[str, ...]) -> Callable[[bytes], list[bytes | None]]:
    """Make a function from a line to the tokens of its members `names`, then `exact`; None where one is missing.

    A dot in one of `names` may reach into an object; one in `exact` is part of the name. The function raises a
    ValueError where the line is no JSON object.
    """

    def pick(members: Mapping[str, bytes]) -> list[bytes | None]:
        return [*(reach(members, name) for name in names), *(members.get(name) for name in exact)]

    heads = list(dict.fromkeys([*names, *exact, *(name.partition(".")[0] for name in names)]))
    if not _can_be_fields(heads):
        return lambda line: pick(parse_members(line))
    fields = [(f"f{i}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for i in range(len(heads))]
    struct = msgspec.defstruct("Line", fields, rename={f"f{i}": head for i, head in enumerate(heads)}, gc=False)
    decode, is_plain = msgspec.json.Decoder(struct).decode, heads == [*names, *exact]

    def read(line: bytes) -> list[bytes | None]:
        try:
            values = msgspec.structs.astuple(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return pick(parse_members(line))
        tokens = [None if value is msgspec.UNSET else bytes(value) for value in values]
        if is_plain:
            return tokens
        return pick({head: token for head, token in zip(heads, tokens, strict=True) if token is not None})

    return read


def _can_be_fields(names: Sequence[str]) -> bool:
    """Whether msgspec can read members of these names as the fields of a struct: no escapes, and none twice."""
    return len(set(names)) == len(names) and all(
        name.isprintable() and '"' not in name and "\\" not in name for name in names
    )


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, source: JsonlSource, destination: Destination) -> None:
        self._source = source
        self._stream = write_text(destination.draft)
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)
        # In another encoding everything is ASCII: JSON's escapes stand for the characters that the encoding lacks.
        encode = _encode if self._encoding == "utf-8" else _encode_ascii
        self._members = _appended_members(destination.columns, destination.labels, encode)

    def rows(self) -> Iterator[RowBytes | list[bytes]]:
        """See `Appender.rows`."""
        return self._source.row_bytes()

    def write(self, rows: RowBytes | list[bytes], answers: Answers) -> None:
        """See `Writer.write`."""
        members = self._members.of(answers)
        if isinstance(rows, RowBytes) and (braces := _closing_braces(rows)) is not None:
            for part in insert(rows, braces, members):
                self._stream.write(part)
            return
        append = self._append_wide if is_wide(self._encoding) else _append
        self._stream.write(b"".join(map(append, rows, members.to_pylist())))

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.close()

    def _append_wide(self, line: bytes, members: bytes) -> bytes:
        """Append members to one line of UTF-16 or UTF-32."""
        line8 = line.decode(self._encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        return _append(line8, members).decode("utf-8", "surrogatepass").encode(self._encoding, "surrogatepass")


class JsonlWriter:
    """Writes JSON Lines: UTF-8, LF."""

    def __init__(self, destination: Destination, schema: pa.Schema) -> None:
        self._stream = write_text(destination.draft)
        self._names = schema.names
        self._members = _appended_members(destination.columns, destination.labels, _encode)

    def write(self, rows: pa.RecordBatch, answers: Answers) -> None:
        """See `Writer.write`."""
        columns = [to_json(column, name) for column, name in zip(rows.columns, self._names, strict=True)]
        lines = (_encode(dict(zip(self._names, row, strict=True))) for row in zip(*columns, strict=True))
        members = self._members.of(answers).to_pylist()
        pairs = zip(lines, members, strict=True)
        self._stream.write(b"".join([b"%b%b}\n" % (line[:-1], appended) for line, appended in pairs]))

    def close(self) -> None:
        """See `Writer.close`."""
        self._stream.close()


def _appended_members(columns: AppendedColumns, labels: Sequence[str], encode: Callable[[Any], bytes]) -> AppendedText:
    """Make the members that are appended to a line, each after a comma."""
    heads = [b",%b:" % encode(name) for name in columns.names]
    return AppendedText(columns, labels, heads, [encode] * len(heads))


def _encode_ascii(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _closing_braces(rows: RowBytes) -> Offsets | None:
    """Find the closing brace of each line; None if one has none right before its line end, or has no members."""
    braces = rows.body_ends - 1
    before = rows.codes[braces - 1]
    is_usual = (rows.codes[braces] == ord("}")) & (before != ord("{")) & (before > ord(" "))
    return braces if is_usual.all() else None


def _append(line: bytes, members: bytes) -> bytes:
    """Append members to one line, whose closing brace only white space follows."""
    before, brace, after = line.rpartition(b"}")  # a line without one is seen as a change of the input, later
    if before.rstrip().endswith(b"{"):
        members = members[1:]
    return before + members + brace + after
