"""Canonical CBOR: what is accepted is exactly what we would write."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import DecodeError

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(codec.INT64_MIN, codec.INT64_MAX)
    | st.binary(max_size=40)
    | st.text(alphabet="abcxyzé ", max_size=20),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(plain_values)
def test_what_is_encoded_decodes_to_the_same_value(value: Any) -> None:
    data = codec.encode(value)
    assert codec.decode(data, codec.plain, bytes_max=10_000) == value


edges = [2**bits + near for bits in (5, 8, 16, 32, 63, 64, 70) for near in (-2, -1, 0, 1)]
every_value = st.recursive(
    plain_values
    | st.sampled_from([*edges, *[-edge for edge in edges], 23, 24, 1023, 1024, -24, -25])
    | st.sampled_from([size * each for size in (23, 24, 255, 256, 65_536) for each in ("x", b"x")])
    | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(every_value)
def test_the_encoding_is_the_one_of_the_library(value: Any) -> None:
    assert codec.encode(value) == cbor2.dumps(value, canonical=True)


@pytest.mark.parametrize("size", [23, 24, 255, 256, 65_535, 65_536])
def test_long_arrays_are_encoded_as_the_library_does(size: int) -> None:
    assert codec.encode([7] * size) == cbor2.dumps([7] * size, canonical=True)


@given(st.binary(max_size=64))
def test_garbage_is_refused_or_canonical(data: bytes) -> None:
    try:
        value = codec.decode(data, codec.plain, bytes_max=64)
    except DecodeError:
        return
    assert codec.encode(value) == data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("1801", "a long head"),
        ("9f01ff", "an indefinite array"),
        ("5f4101ff", "an indefinite byte string"),
        ("0101", "a trailing byte"),
        ("fb3ff0000000000000", "a float"),
        ("f93c00", "a half float"),
        ("c101", "a date tag"),
        ("c249010000000000000000", "a big number"),
        ("c5821a3b9aca0001", "a big float that would need a billion digits"),
        ("d81c8101", "a shared reference"),
        ("3bffffffffffffffff", "an integer below int64"),
        ("1bffffffffffffffff", "an integer above int64"),
        ("f7", "undefined"),
        ("e0", "a simple value"),
        ("a10102", "a map"),
        ("9b0fffffffffffffff", "a huge declared array"),
        ("5b0fffffffffffffff00", "a huge declared string"),
        ("81" * 200 + "01", "deep nesting"),
        ("6265", "truncated text"),
        ("6365cc81", "text not in NFC"),
        ("61ff", "text that is not UTF-8"),
        ("", "nothing"),
    ],
)
def test_is_refused(data: str, reason: str) -> None:
    with pytest.raises(DecodeError):
        codec.decode(bytes.fromhex(data), codec.plain, bytes_max=1000)


def test_half_a_character_is_not_encoded() -> None:
    for value in ("\ud800", ["a", "\udfff"]):
        with pytest.raises(UnicodeEncodeError):
            codec.encode(value)


def test_is_refused_before_parsing_when_too_long() -> None:
    with pytest.raises(DecodeError, match="at most 4 allowed"):
        codec.decode(b"\x81" * 5, codec.plain, bytes_max=4)


@pytest.mark.parametrize(
    ("shape", "value", "path"),
    [
        (codec.array(codec.count, codec.bytes32), [1], "value"),
        (codec.array(codec.count, codec.bytes32), [1, b"short"], "value[1]"),
        (codec.array(codec.count), [-1], "value[0]"),
        (codec.array(codec.count), [True], "value[0]"),
        (codec.array(codec.boolean), [1], "value[0]"),
        (codec.list_of(codec.count, 2), [1, 2, 3], "value"),
        (codec.list_of(codec.text(3), 2), ["abcd"], "value[0]"),
        (codec.optional(codec.count), "x", "value"),
        (codec.null, 0, "value"),
        (codec.tagged({1: codec.array(codec.count, codec.count)}), [2, 0], "value"),
        (codec.tagged({1: codec.array(codec.count, codec.count)}), [], "value"),
        (codec.one_of([codec.count, codec.text(9)]), b"x", "value"),
        (codec.mapping({"a": codec.count}), {"b": 1}, "value"),
        (codec.mapping({"a": codec.count}), {}, "value"),
        (codec.map_of(codec.count, 1), {"a": 1, "b": 2}, "value"),
        (codec.octets(low=2, high=3), b"x", "value"),
    ],
)
def test_a_wrong_shape_is_refused_at_its_path(shape: codec.Shape, value: Any, path: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode(codec.encode(value), shape, bytes_max=1000)
    assert caught.value.path == path


def test_alternatives_and_tagged_arrays_accept_theirs() -> None:
    shape = codec.one_of([codec.count, codec.tagged({7: codec.array(codec.count, codec.text(5))})])
    for value in (3, [7, "five"]):
        assert codec.decode(codec.encode(value), shape, bytes_max=100) == value
    files = codec.mapping({"a": codec.count, "b": codec.text(5)}, absent_ok=frozenset({"b"}))
    assert codec.decode(codec.encode({"a": 1}), files, bytes_max=100) == {"a": 1}
    assert codec.decode(codec.encode({"x": 1}), codec.map_of(codec.count, 3), bytes_max=100)


def test_maps_must_be_sorted_and_without_repeats() -> None:
    shape = codec.map_of(codec.count, 5)
    for data in ("a2616201616101", "a2616101616102"):
        with pytest.raises(DecodeError):
            codec.decode(bytes.fromhex(data), shape, bytes_max=100)


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_a_shape_knows_the_length_of_the_canonical_encoding(size: int) -> None:
    everything = codec.array(
        codec.integer(),
        codec.integer(),
        codec.octets(),
        codec.text(2**20),
        codec.boolean,
        codec.null,
        codec.optional(codec.octets()),
        codec.list_of(codec.count, 2**20),
        codec.tagged({3: codec.array(codec.count, codec.plain)}),
        codec.one_of((codec.boolean, codec.text())),
        codec.map_of(codec.count, 2**20),
        codec.mapping({"b": codec.count, "aa": codec.null}, absent_ok=frozenset({"aa"})),
    )
    value = [size, -size, bytes(size), "é" * size, True, None, None, [size] * size]
    value += [[3, ["x" * size, -1 - size, [b""]]], "x", {f"{i:05}": i for i in range(size)}]
    value += [{"b": size, "aa": None}]
    assert everything(value, "value") == len(cbor2.dumps(value, canonical=True))


def test_keys_of_an_inner_map_must_be_sorted() -> None:
    shape = codec.array(codec.mapping({"a": codec.count, "b": codec.count}))
    assert codec.decode(bytes.fromhex("81a2616101616202"), shape, bytes_max=100)
    with pytest.raises(DecodeError, match=r"value\[0\]: not the canonical encoding"):
        codec.decode(bytes.fromhex("81a2616202616101"), shape, bytes_max=100)
