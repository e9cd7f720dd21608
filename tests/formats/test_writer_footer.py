"""Footers and Thrift's compact protocol: taken apart and put together again, and damage is refused at once."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joining import joined, predictions_of
from widening import change_footer, check_copied, check_rows, table_of, write_groups

from pipeline.formats import thrift
from pipeline.formats.parquet_footer import Footer
from pipeline.formats.thrift import Shape, Struct, Value

plain = st.one_of(
    st.sampled_from(
        [Value(1, b""), Value(2, b""), Value(10, b"\x21\x01\x02"), Value(11, b"\x01\x88\x01a\x01b"), Value(11, b"\0")]
    ),
    st.builds(Value, st.just(3), st.binary(min_size=1, max_size=1)),
    st.builds(Value, st.just(7), st.binary(min_size=8, max_size=8)),
    st.builds(Value, st.just(13), st.binary(min_size=16, max_size=16)),
    st.builds(thrift.encode_integer, st.integers(-(2**63), 2**63 - 1), st.sampled_from([4, 5, 6])),
    st.builds(thrift.encode_binary, st.binary(max_size=200)),
)


def _structs_of(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Struct]:
    return st.dictionaries(st.integers(1, 20) | st.integers(1, 32767), values, max_size=5)


def _deeper(values: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    inner = _structs_of(values)
    return st.builds(Value, st.just(12), inner) | st.builds(Value, st.just(9), st.lists(inner, max_size=20))


def _shape_of(fields: Struct) -> Shape:
    """Make the shape that opens all nested structs; what two elements have under one id is opened in both."""
    shape: Shape = {}
    for number, (_, data) in fields.items():
        if not isinstance(data, bytes):
            shape[number] = {}
            for inner in [data] if isinstance(data, dict) else data:
                shape[number] |= _shape_of(inner)
    return shape


@given(_structs_of(st.recursive(plain, _deeper, max_leaves=8)))
def test_a_struct_comes_back(fields: Struct) -> None:
    """Fields of any kind and any id, structs and lists in one another, opened or not."""
    encoded = thrift.encode(fields)
    assert thrift.encode(thrift.decode(encoded, {})) == encoded
    top = thrift.decode(encoded, {number: {} for number in _shape_of(fields)})
    assert thrift.encode(top) == encoded
    assert list(top) == sorted(fields)


@given(st.lists(_structs_of(plain), max_size=20), _structs_of(plain))
def test_what_is_opened_is_what_was_put_in(elements: list[Struct], inner: Struct) -> None:
    """Lists of structs, short and long, and structs."""
    fields = {2: Value(9, elements), 7: Value(12, inner)}
    assert thrift.decode(thrift.encode(fields), {2: {}, 7: {}}) == fields


@given(st.integers(-(2**63), 2**63 - 1), st.binary())
def test_values_come_back(number: int, content: bytes) -> None:
    """Integers; bytes."""
    assert thrift.decode_integer(thrift.encode_integer(number, 6)) == number
    assert thrift.decode_binary(thrift.encode_binary(content)) == content


def _footer() -> bytes:
    stream = io.BytesIO()
    table = pa.table({"text": ["a", None, "c"], "list": [[1], None, []]}, metadata={"a": "b"})
    pq.write_table(table, stream, row_group_size=2)
    content = stream.getvalue()
    return content[-8 - int.from_bytes(content[-8:-4], "little") : -8]


FOOTER = _footer()
spots = st.tuples(st.integers(0, len(FOOTER)), st.integers(0, 5), st.binary(max_size=5))


@given(st.lists(spots, min_size=1, max_size=4), st.integers(1, len(FOOTER)))
def test_damaged_bytes_are_a_value_error(damages: list[tuple[int, int, bytes]], length: int) -> None:
    """Bytes changed, left out, put in, cut off: a ValueError or other values, and nothing else."""
    data = FOOTER if length % 2 else FOOTER[:length]
    for start, gone, instead in damages:
        data = data[:start] + instead + data[start + gone :]
    try:
        assert Footer(data).with_columns(FOOTER, 1000)
    except ValueError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize("bits", [1, 16, 255])
def test_no_byte_brings_another_error(bits: int) -> None:
    """Each byte changed in turn, also those of Arrow's schema in base64."""
    for spot in range(len(FOOTER)):
        data = FOOTER[:spot] + bytes([FOOTER[spot] ^ bits]) + FOOTER[spot + 1 :]
        with suppress(ValueError):
            Footer(data).with_columns(FOOTER, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x19\xf3" + b"\xff" * 8 + b"\x0f" + b"\0",  # a list of 2 ** 60 bytes
        b"\x1b" + b"\xff" * 8 + b"\x0f\x33\0",  # a map of as many
        b"\x16" + b"\xff" * (1 << 20) + b"\0\0",
        b"\x18" + b"\xff" * 8 + b"\x0f",
        b"\x1c" * 100_000 + b"\0" * 100_001,
        b"\x1f\0",
        thrift.encode({1: Value(1, b"")}) + b"\0",
    ],
    ids=["nothing", "list", "map", "number", "string", "depth", "kind", "two"],
)
def test_bytes_that_ask_for_too_much(data: bytes) -> None:
    """Endless numbers, lists of what is not there, structs without bottom: refused, and at once."""
    with pytest.raises(ValueError, match=r"cut short|64 bits|deep|kind of value|more than a struct"):
        thrift.decode(data, {})


def test_other_rows_are_refused() -> None:
    """Row groups of other rows do not fit."""
    fields = thrift.decode(FOOTER, {})
    for change in ({3: thrift.encode_integer(9, 6)}, {4: Value(9, [])}):
        with pytest.raises(ValueError, match=r"rows|shorter"):
            Footer(FOOTER).with_columns(thrift.encode(fields | change), 0)
    assert math.isclose(len(Footer(FOOTER).with_columns(FOOTER, 0)), 2 * len(FOOTER), rel_tol=0.2)


def change_groups(fields: Struct, change: Callable[[Struct], object]) -> None:
    """Let `change` have each row group."""
    for group in fields[4].structs:
        change(group)


def _long_form(fields: Struct) -> bytes:
    pieces = b""
    for number, value in thrift.decode(thrift.encode(fields), {}).items():
        pieces += bytes([value.kind]) + bytes(thrift.encode_integer(number, 4).data) + bytes(value.data)  # type: ignore[arg-type]
    return pieces + b"\0"


UNKNOWN = {
    60: Value(1, b""),
    61: Value(11, b"\x01\x88\x01a\x01b"),
    300: Value(9, b"\x21\x01\x02"),
    999: Value(7, b"8" * 8),
}


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: [fields.pop(number) for number in (5, 6, 7)] and None,
        lambda fields: change_groups(fields, lambda group: [group.pop(number, None) for number in (5, 7)]),
        lambda fields: fields.update(UNKNOWN),
        lambda fields: fields.update({3: Value(6, b"\x8c\x80\x00")}),
        _long_form,
    ],
    ids=["no notes", "row groups without places", "unknown fields", "a number with zeros before it", "long headers"],
)
def test_other_footers_are_widened(change: Callable[[Struct], bytes | None], tmp_path: Path) -> None:
    """What other writers leave out, add, or write in another way is no trouble."""
    write_groups(tmp_path / "in.parquet", table_of([3, 9], 6), [4, 2])
    change_footer(tmp_path / "in.parquet", change)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    check_rows(tmp_path / "out.parquet", pq.read_table(tmp_path / "in.parquet"), predictions_of(6))
    check_copied(tmp_path / "in.parquet", tmp_path / "out.parquet")


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update({8: Value(12, b"\x1c\0\0")}),
        lambda fields: thrift.encode(fields) + b"more",
        lambda fields: change_groups(fields, lambda group: group.update({1: _doubled(group[1])})),
    ],
    ids=["encrypted", "something after it", "columns that are not in the schema"],
)
def test_footers_that_are_not_widened(change: Callable[[Struct], bytes | None], tmp_path: Path) -> None:
    """A file that can be read but is not what it says is written anew."""
    write_groups(tmp_path / "in.parquet", table_of([3], 6), [4, 2])
    before = pq.read_table(tmp_path / "in.parquet")
    change_footer(tmp_path / "in.parquet", change)
    joined(tmp_path / "in.parquet", tmp_path / "out.parquet")
    check_rows(tmp_path / "out.parquet", before, predictions_of(6))
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups == 1


def _doubled(chunks: Value) -> Value:
    return chunks._replace(data=chunks.structs * 2)
