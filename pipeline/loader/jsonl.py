"""JSON Lines: each line kept as it is, only the members that matter decoded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec
import pyarrow as pa

from pipeline.config import Loader
from pipeline.errors import InputError
from pipeline.loader.json_columns import (
    ARROW_TYPES,
    Columns,
    Kind,
    column_array,
    parse_members,
    reach,
    text_of,
)
from pipeline.loader.lines import Place, TextFile
from pipeline.loader.texts import (
    BLOCK_CHARS,
    BLOCK_ROWS,
    TextBlock,
    TextSpec,
    block_of,
    blocks_of,
    no_column,
    refuse_existing,
)
from pipeline.text import storable

# So many lines may lack the text column before we believe that it does not exist.
FIRST_LINES = 1_000
T = TypeVar("T")


class Line(NamedTuple):
    """One row: its bytes as they stand in the file, and where it begins."""

    raw: bytes
    offset: int
    line: int  # lines before it


class JsonlSource:
    """A file of one JSON object a line; blank lines are no rows.

    Raises:
        InputError: a line that is no JSON object (unless it may be skipped), or not of the encoding.
    """

    def __init__(self, path: str, loader: Loader) -> None:
        self.path = path
        self.total_rows: int | None = None
        self.skipped = 0  # bad lines left out by the latest complete reading
        self._skip_bad = loader.on_bad_line == "skip"
        self.file = TextFile(path, loader.encoding)
        self.seekable = self.file.seekable
        self.is_empty = False  # no bytes are no lines: a file without rows, not a broken one
        self.start = Place(0, len(self.file.bom), 0)
        self._added: tuple[str, ...] = ()

    def check(self, spec: TextSpec, added: Sequence[str]) -> None:
        """See `Source.check`: looks at the first 1,000 lines."""
        seen: dict[str, None] = {}
        missing = set(spec.columns)
        number = -1
        for number, (_, members) in enumerate(self._rows(self.start, parse_members)):
            seen.update(dict.fromkeys(members))
            missing -= {name for name in missing if reach(members, name) is not None}
            if number + 1 == FIRST_LINES:
                break
        if number >= 0 and missing:
            name = min(missing)
            raise InputError(
                f"{self.path}: no {name!r} in the first {FIRST_LINES:,} lines; {no_column(list(seen), name)}"
            )
        refuse_existing(self.path, list(seen), added)
        self._added = tuple(added)  # looked for in every later line, too

    def texts(self, spec: TextSpec, place: Place | None = None) -> Iterator[TextBlock]:
        """See `Source.texts`."""
        place = first = place or self.start
        texts: list[str | None] = []
        not_text: dict[int, str] = {}
        chars = 0
        for row, tokens in self._rows(place, _token_reader(spec.columns, self._added)):
            if not texts:
                first = Place(place.row, row.offset, row.line)
            self._refuse_added(row, tokens[len(spec.columns) :])
            text: str | None = None
            try:
                values = [text_of(token) for token in tokens[: len(spec.columns)]]
                text = values[0] if spec.is_plain else spec.render(values)
            except ValueError as error:
                not_text[len(texts)] = str(error)
            texts.append(text)
            chars += len(text or "")
            if len(texts) == BLOCK_ROWS or chars >= BLOCK_CHARS:
                yield block_of(first, texts, not_text)
                place = Place(place.row + len(texts), 0, 0)
                texts, not_text, chars = [], {}, 0
        if texts:
            yield block_of(first, texts, not_text)

    def records(self) -> Iterator[list[bytes]]:
        """The bytes of all rows, some thousand at a time."""
        yield from blocks_of(self._records(), len)

    def schema(self) -> pa.Schema:
        """The Arrow schema of all members; the first call reads the whole file."""
        return pa.schema([(storable(name), ARROW_TYPES[kind]) for name, kind in self._kinds.items()])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows as Arrow columns of `schema`."""
        schema, kinds = self.schema(), self._kinds
        rows = (members for _, members in self._rows(self.start, parse_members))
        for block in blocks_of(rows, lambda members: sum(map(len, members.values()))):
            columns = [column_array([members.get(name) for members in block], kind) for name, kind in kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    @functools.cached_property
    def _kinds(self) -> dict[str, Kind]:
        columns = Columns(self.path)
        for _, members in self._rows(self.start, parse_members):
            columns.add(members)
        return columns.kinds()

    def _records(self) -> Iterator[bytes]:
        # The first reading has parsed every line. This one does so only where lines may be left out, and where
        # a name that we add seems to be there already: the prefix may have changed since a run was interrupted.
        marks = [f'"{name}"'.encode() for name in self._added]
        read = _token_reader([], self._added)
        parse = read if self._skip_bad else lambda line: read(line) if any(mark in line for mark in marks) else []
        for row, tokens in self._rows(self.start, parse):
            self._refuse_added(row, tokens)
            yield row.raw

    def _rows(self, place: Place, parse: Callable[[bytes], T]) -> Iterator[tuple[Line, T]]:
        """The lines that are rows, each with what `parse` makes of it (given as UTF-8)."""
        offset, number, skipped = place.offset, place.line, 0
        is_utf8 = self.file.encoding == "utf-8"
        for raw in self.file.lines(place):
            row = Line(raw, offset, number)
            offset += len(raw)
            number += 1
            line = raw
            if not is_utf8 or not raw.isascii():  # decoding is also the check of the encoding
                line = self.file.decode(raw, number).encode("utf-8", "surrogatepass")
            if line.isspace():
                continue
            try:
                yield row, parse(line)
            except ValueError as error:
                if not self._skip_bad:
                    raise InputError(
                        f"{self.path}:{number}: no JSON object: {error}; mend the line, or leave such lines out with "
                        f'loader.on_bad_line = "skip"'
                    ) from None
                skipped += 1
        self.skipped = skipped

    def _refuse_added(self, row: Line, tokens: Sequence[bytes | None]) -> None:
        for name, token in zip(self._added, tokens, strict=False):
            if token is not None:
                refuse_existing(f"{self.path}:{row.line + 1}", [name], [name])


def _token_reader(names: Sequence[str], exact: Sequence[str]) -> Callable[[bytes], list[bytes | None]]:
    """A function from a line to the tokens of the members `names`, then `exact`; None where one is missing.

    A dot in one of `names` may reach into an object; one in `exact` is part of the name.
    """
    heads = list(dict.fromkeys([*names, *exact, *(name.partition(".")[0] for name in names)]))
    fields = [(f"f{i}", msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for i in range(len(heads))]
    struct = msgspec.defstruct("Line", fields, rename={f"f{i}": head for i, head in enumerate(heads)}, gc=False)
    decode, plain = msgspec.json.Decoder(struct).decode, heads == [*names, *exact]

    def pick(members: Mapping[str, bytes]) -> list[bytes | None]:
        return [*(reach(members, name) for name in names), *(members.get(name) for name in exact)]

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
