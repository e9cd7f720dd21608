"""JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns."""

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
from pipeline.formats.columns import Layout
from pipeline.formats.json_columns import (
    ARROW_TYPES,
    SHALLOW,
    Columns,
    Kind,
    column_array,
    is_too_deep,
    parse_members,
    reach,
    text_of,
)
from pipeline.formats.records import QUOTE, AddedText, Codes, Offsets, RawRows, line_ends, rows_of_lines, spliced
from pipeline.formats.source import TextSpec, blocks_of, no_column, refuse_existing
from pipeline.formats.textfile import Lines, TextFile, is_utf8, is_wide
from pipeline.formats.values import to_json
from pipeline.storage import Draft, Location, Pipe
from pipeline.streams import storable
from pipeline.texts import EMPTY, Position, TextBlock, Texts, blank_ones, block_of, escape

# -- Of a JSON line, only the members that matter: as tokens, line by line, or the texts of many lines at once


_BACKSLASH = ord("\\")
_find_long_escape = re.compile(rb"\\[u/]").search


@functools.lru_cache(maxsize=16)  # a struct costs as much as reading a small file
def reader_at_once(name: str, exact: tuple[str, ...]) -> Callable[[Position, bytes], TextBlock | None]:
    """A function from whole lines to the texts of their member `name`; None where a line is out of the ordinary.

    Out of the ordinary are blank and broken lines, no text, and the members `exact`, which no line should have.
    """
    if not _can_be_fields([name, *exact]):
        return lambda _, __: None
    nothing = Annotated[int, msgspec.Meta(ge=1, le=0)]  # no value is that
    never = [(f"n{index}", nothing | msgspec.UnsetType, msgspec.UNSET) for index in range(len(exact))]
    names = {"text": name, **{f"n{index}": other for index, other in enumerate(exact)}}
    struct: Any = msgspec.defstruct("Row", [("text", msgspec.Raw), *never], rename=names, gc=False)
    decode = msgspec.json.Decoder(struct).decode_lines

    def read(place: Position, data: bytes) -> TextBlock | None:
        lines = RawRows(data, 0, line_ends(data))
        if not _are_in_braces(lines) or (not data.isascii() and not is_utf8(data)):
            return None
        try:
            tokens = [row.text for row in decode(data)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(tokens) != len(lines) or _are_deep(lines):
            return None
        texts = _texts_of(tokens)
        return None if texts is None else TextBlock(place, texts, dict.fromkeys(blank_ones(texts), EMPTY))

    return read


def _are_in_braces(lines: RawRows) -> bool:
    """Whether each line begins and ends with a brace.

    Then whole objects are in it, at least one, for within JSON no opening brace comes right after a closing one. If
    there are as many objects as lines, each line is one.
    """
    opens, closes = lines.codes[lines.starts] == ord("{"), lines.codes[lines.body_ends - 1] == ord("}")
    return bool((opens & closes).all())


def _are_deep(lines: RawRows) -> bool:
    """Whether one nests too deeply."""
    long = np.flatnonzero(lines.ends - lines.starts > SHALLOW)
    return any(is_too_deep(line) for index in long.tolist() for line in lines[index : index + 1])


def _texts_of(tokens: Sequence[Any]) -> Texts | None:
    """What stands between the quotes of tokens; None if one is no string that could be sent."""
    texts = Texts(b",".join([*tokens, b""]), np.cumsum([0, *[len(token) + 1 for token in tokens]]))
    codes = np.frombuffer(texts.data, np.uint8)
    if not (codes[texts.offsets[:-1]] == QUOTE).all():
        return None
    try:
        return _spelled_alike(texts) if _has_long_escape(codes) else texts
    except ValueError:  # half a surrogate pair
        return None


def _has_long_escape(codes: Codes) -> bool:
    """Whether there may be one; a search for two bytes in a row takes longer."""
    after = codes[np.flatnonzero(codes == _BACKSLASH) + 1]
    return bool(((after == ord("u")) | (after == ord("/"))).any())


def _spelled_alike(texts: Texts) -> Texts:
    """Escapes that need not be there, or could be shorter, are spelled as `escape` does: equal texts, equal bytes."""
    return Texts.of(
        [escape(text_of(b'"%b"' % text) or "") if _find_long_escape(text) else text for text in texts.to_list()]
    )


@functools.lru_cache(maxsize=16)
def token_reader(names: tuple[str, ...], exact: tuple[str, ...]) -> Callable[[bytes], list[bytes | None]]:
    """A function from a line to the tokens of the members `names`, then `exact`; None where one is missing.

    A dot in one of `names` may reach into an object; one in `exact` is part of the name.
    """

    def pick(members: Mapping[str, bytes]) -> list[bytes | None]:
        return [*(reach(members, name) for name in names), *(members.get(name) for name in exact)]

    heads = list(dict.fromkeys([*names, *exact, *(name.partition(".")[0] for name in names)]))
    if not _can_be_fields(heads):
        return lambda line: pick(parse_members(line))
    fields = [(f"f{i}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for i in range(len(heads))]
    struct = msgspec.defstruct("Line", fields, rename={f"f{i}": head for i, head in enumerate(heads)}, gc=False)
    decode, plain = msgspec.json.Decoder(struct).decode, heads == [*names, *exact]

    def read(line: bytes) -> list[bytes | None]:
        try:
            values = msgspec.structs.astuple(decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return pick(parse_members(line))
        tokens = [None if value is msgspec.UNSET else bytes(value) for value in values]
        if plain:
            return tokens
        return pick({head: token for head, token in zip(heads, tokens, strict=True) if token is not None})

    return read


def _can_be_fields(names: Sequence[str]) -> bool:
    """Whether the fast parser takes these names; what needs an escape or comes twice it does not."""
    return len(set(names)) == len(names) and all(
        name.isprintable() and '"' not in name and "\\" not in name for name in names
    )


# -- JSON Lines: each line kept as it is, only the members that matter decoded


# So many lines may lack the text column before we believe that it does not exist.
FIRST_LINES = 1_000
T = TypeVar("T")


class Line(NamedTuple):
    """One row: its bytes as they stand in the file, and where it begins."""

    raw: bytes
    line: int  # lines before it


class JsonlSource:
    """A file of one JSON object a line; blank lines are no rows.

    Raises:
        InputError: a line that is no JSON object (unless it may be skipped), or not of the encoding.
    """

    def __init__(self, location: Location, loader: Loader) -> None:
        self.location, self.path = location, location.shown
        self.total_rows: int | None = None
        self.skipped = 0  # bad lines left out by the latest complete reading
        self._is_regular = False  # as was seen by a reading of all texts: every line is a row, none has what we add
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(location, loader.encoding)
        self.seekable = self.file.seekable
        self.is_empty = False  # no bytes are no lines: a file without rows, not a broken one
        self.start = Position(0, len(self.file.bom), 0)
        self._added: tuple[str, ...] = ()
        self._all: list[Lines] | None = None  # the lines of a small file
        self._first: tuple[TextSpec, TextBlock] | None = None  # what `check` has read already, for the next reading

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`: looks at the first 1,000 lines."""
        self._added = tuple(added)  # looked for in every later line, too
        self._first, self._is_regular = None, False
        if self._is_usual(spec):
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
                f"{self.path}: no {name!r} in the first {FIRST_LINES:,} lines; {no_column(list(seen), name)}"
            )
        refuse_existing(self.path, list(seen), added)

    def _is_usual(self, spec: TextSpec) -> bool:
        """Whether the first lines hold texts, and none of the columns to be added; if so, that is seen at once."""
        if not (at_once := self._reader_at_once(spec)):
            return False
        left = FIRST_LINES
        for lines in self._lines(self.start):
            if (block := at_once(self.start, lines.data)) is None:
                return False
            lines.count = len(block.texts)
            self._first = self._first or (spec, block)
            left -= lines.count
            if left <= 0:
                break
        return left < FIRST_LINES

    def _reader_at_once(self, spec: TextSpec) -> Callable[[Position, bytes], TextBlock | None] | None:
        is_plain = spec.is_plain and self.file.encoding == "utf-8"
        return reader_at_once(spec.columns[0], self._added) if is_plain else None

    def texts(self, spec: TextSpec, place: Position | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        place = place or self.start
        row, self.skipped = place.row, 0
        self._is_regular, is_regular, added = False, place == self.start, self._added
        at_once, by_line = self._reader_at_once(spec), token_reader(tuple(spec.columns), self._added)
        known, self._first = self._first, None
        for lines in self._lines(place):
            if known is not None and known[0] is spec and lines.offset == self.start.offset:
                block: TextBlock | None = known[1]
            else:
                block = at_once(Position(row, lines.offset, lines.number), lines.data) if at_once else None
            if block is not None:
                lines.count = len(block.texts)
            else:
                is_regular = False
                block = self._block_by_line(Position(row, lines.offset, lines.number), self._rows(lines, by_line), spec)
            if block.texts:
                yield block
            row += len(block.texts)
        self._is_regular = is_regular and added == self._added

    def _block_by_line(
        self, place: Position, rows: Iterator[tuple[Line, list[bytes | None]]], spec: TextSpec
    ) -> TextBlock:
        texts: list[str | None] = []
        not_text: dict[int, str] = {}
        for row, tokens in rows:
            self._refuse_added(row, tokens[len(spec.columns) :])
            text: str | None = None
            try:
                values = [text_of(token) for token in tokens[: len(spec.columns)]]
                text = values[0] if spec.is_plain else spec.render(values)
            except ValueError as error:
                not_text[len(texts)] = str(error)
            texts.append(text)
        return block_of(place, texts, not_text)

    def records(self) -> Iterator[RawRows | list[bytes]]:
        """See `RawSource.records`."""
        if self._is_regular:
            self.skipped = 0
            yield from rows_of_lines(self.file.blocks(self.start))
            return
        # The first reading has parsed every line. This one does so only where lines may be left out, and where
        # a name that we add seems to be there already: the prefix may have changed since a run was interrupted.
        marks = [f'"{name}"'.encode() for name in self._added]
        by_line, self.skipped = token_reader((), self._added), 0
        for lines in self._lines(self.start):
            if self._skip_bad or self.file.encoding != "utf-8" or any(mark in lines.data for mark in marks):
                rows = list(self._rows(lines, by_line))
                for row, tokens in rows:
                    self._refuse_added(row, tokens)
                yield [row.raw for row, _ in rows]
            else:
                yield [line for line in lines.lines if not line.isspace()]

    def schema(self) -> pa.Schema:
        """The Arrow schema of all members; the first call reads the whole file."""
        return pa.schema([(storable(name), ARROW_TYPES[kind]) for name, kind in self._kinds.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as Arrow columns of `schema`."""
        schema, kinds = self.schema(), self._kinds
        for block in blocks_of(self._members(), lambda members: sum(map(len, members.values()))):
            columns = [column_array([members.get(name) for members in block], kind) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    @functools.cached_property
    def _kinds(self) -> dict[str, Kind]:
        columns = Columns(self.path)
        for members in self._members():
            columns.add(members)
        return columns.kinds()

    def _members(self) -> Iterator[dict[str, bytes]]:
        """All rows, parsed one by one."""
        self.skipped = 0
        for lines in self._lines(self.start):
            yield from (members for _, members in self._rows(lines, parse_members))

    def _lines(self, place: Position) -> Iterator[Lines]:
        """The lines from `place` on; those of a small file are cut once."""
        if self.location.content is None or place != self.start:
            return self.file.lines(place)
        self._all = self._all or list(self.file.lines(place))
        return iter(self._all)

    def _rows(self, lines: Lines, parse: Callable[[bytes], T]) -> Iterator[tuple[Line, T]]:
        """The lines that are rows, each with what `parse` makes of it (given as UTF-8); those left out are counted."""
        is_utf8 = self.file.encoding == "utf-8"
        for number, raw in enumerate(lines.lines, lines.number):
            line = raw
            if not is_utf8 or not raw.isascii():  # decoding is also the check of the encoding
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

    def _refuse_added(self, row: Line, tokens: Sequence[bytes | None]) -> None:
        for name, token in zip(self._added, tokens, strict=False):
            if token is not None:
                refuse_existing(f"{self.path}:{row.line + 1}", [name], [name])


# -- JSON Lines out: members appended to the line's own bytes, or lines made from Arrow columns


_encode = msgspec.json.Encoder().encode


class JsonlAppender:
    """Copies each line's bytes and appends members before its closing brace."""

    def __init__(self, draft: Draft | Pipe, source: JsonlSource, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._encoding = source.file.encoding
        self._stream.write(source.file.bom)
        # In ASCII, JSON's escapes stand for whatever the encoding does not have.
        self._members = _members(layout, labels, _encode if self._encoding == "utf-8" else _encode_ascii)

    def write(self, records: RawRows | Sequence[bytes], answers: Answers) -> None:
        """Append rows."""
        members = self._members.of(answers)
        if isinstance(records, RawRows) and (braces := _closing_braces(records)) is not None:
            for part in spliced(records, braces, members):
                self._stream.write(part)
            return
        append = self._append_wide if is_wide(self._encoding) else _append
        self._stream.write(b"".join(map(append, records, members.to_pylist())))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()

    def _append_wide(self, line: bytes, members: bytes) -> bytes:
        line8 = line.decode(self._encoding, "surrogatepass").encode("utf-8", "surrogatepass")
        return _append(line8, members).decode("utf-8", "surrogatepass").encode(self._encoding, "surrogatepass")


class JsonlSink:
    """Writes record batches as JSON Lines: UTF-8, LF."""

    def __init__(self, draft: Draft | Pipe, schema: pa.Schema, layout: Layout, labels: Sequence[str]) -> None:
        self._stream = draft.write_text()
        self._names, self._members = schema.names, _members(layout, labels, _encode)

    def write(self, batch: pa.RecordBatch, answers: Answers) -> None:
        """Append rows."""
        columns = [to_json(column, name) for column, name in zip(batch.columns, self._names, strict=True)]
        rows = (_encode(dict(zip(self._names, row, strict=True))) for row in zip(*columns, strict=True))
        members = self._members.of(answers).to_pylist()
        self._stream.write(b"".join([b"%b%b}\n" % (row[:-1], added) for row, added in zip(rows, members, strict=True)]))

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


def _members(layout: Layout, labels: Sequence[str], encode: Callable[[Any], bytes]) -> AddedText:
    """What is added to a line: members, each after a comma."""
    heads = [b",%b:" % encode(name) for name in layout.names]
    return AddedText(layout, labels, heads, [encode] * len(heads))


def _encode_ascii(value: Any) -> bytes:
    return json.dumps(value).encode("ascii")


def _closing_braces(rows: RawRows) -> Offsets | None:
    """Where they stand, if every line ends with one that a comma may precede; None if one is out of the ordinary."""
    braces = rows.body_ends - 1
    before = rows.codes[braces - 1]
    is_usual = (rows.codes[braces] == ord("}")) & (before != ord("{")) & (before > ord(" "))
    return braces if is_usual.all() else None


def _append(line: bytes, members: bytes) -> bytes:
    """Only white space stands after the line's closing brace."""
    before, brace, after = line.rpartition(b"}")  # a line without one is seen as a change of the input, later
    if before.rstrip().endswith(b"{"):
        members = members[1:]
    return before + members + brace + after
