"""Canonical CBOR in and out, with typed shapes and bounds.

RFC 8949 §4.2.1 deterministic encoding, restricted: int64, bool, null, text in NFC, bytes and
definite arrays. Maps with text keys appear only in files and client answers. No floats, no tags.

An encoding is accepted if and only if it has the declared shape and encoding the decoded value
again would give the same bytes. That one rule refuses long heads, indefinite lengths, duplicate or
unsorted keys and trailing bytes. Nothing is encoded again to find out: of all encodings of a value
the canonical one alone is the shortest, and a shape knows its length while it looks at the value.
Only the order of a map's keys changes no length; the shapes of maps look at it themselves.

Not here: what any message means.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final, Never, Protocol

import cbor2

from consensus import heads
from consensus.errors import DecodeError

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
DEPTH_MAX: Final = 24
"""Nesting of arrays accepted from outside; the deepest real message has 12."""
ITEMS_MAX: Final = 2**19
"""Items of a long file; what has more is refused before any of them is made."""

Value = Any
"""A plain value: int, bool, None, str, bytes, or a list of these (maps in files only)."""


class Shape(Protocol):
    """Checks that a decoded value has a declared type; raises DecodeError at ``path``.

    Returns how many bytes the canonical encoding of the value has.
    """

    def __call__(self, value: Value, path: str) -> int: ...


def encode(value: Value) -> bytes:
    """Return the canonical encoding of a plain value. Cost: about 0.4 µs and 0.2 µs an item.

    The library asks abstract classes what a list is, which takes three times as long; it has what
    is rarer: maps, tuples, and numbers that do not fit 64 bits.
    """
    return ENCODERS[type(value)](value)


def encode_int(value: int) -> bytes:
    """Return canonical CBOR of an int64. Cost: 0.1 µs below 1,024, else 0.3."""
    if 0 <= value < 1024:
        return _SMALL[value]
    major, magnitude = (0x00, value) if value >= 0 else (0x20, -1 - value)
    if magnitude < 24:
        return bytes([major + magnitude])
    if magnitude < 1 << 8:
        return bytes([major + 24, magnitude])
    if magnitude < 1 << 16:
        return bytes([major + 25]) + magnitude.to_bytes(2, "big")
    if magnitude < 1 << 32:
        return bytes([major + 26]) + magnitude.to_bytes(4, "big")
    if magnitude < 1 << 64:
        return bytes([major + 27]) + magnitude.to_bytes(8, "big")
    return _rarer(value)


def encode_bytes(value: bytes) -> bytes:
    """Return canonical CBOR of a byte string."""
    length = len(value)
    if length < 256:
        return _BYTES[length] + value
    if length < 65_536:
        return b"\x59" + length.to_bytes(2, "big") + value
    return _rarer(value)


def array_head(length: int) -> bytes:
    """Return the CBOR head of an array of less than 65,536 items."""
    if length < 24:
        return ARRAYS[length]
    return b"\x98" + bytes([length]) if length < 256 else b"\x99" + length.to_bytes(2, "big")


def _encode_text(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:  # it refuses half characters in its own words
        return _rarer(value)
    length = len(data)
    if length < 24:
        return bytes([0x60 + length]) + data
    return bytes([0x78, length]) + data if length < 256 else _rarer(value)


def _encode_list(value: list[Value]) -> bytes:
    count = len(value)
    if count >= 24:  # what the library asks first matters little then
        return _rarer(value)
    return ARRAYS[count] + b"".join([ENCODERS[type(each)](each) for each in value])


def _encode_bool(value: bool) -> bytes:
    return b"\xf5" if value else b"\xf4"


def _encode_null(value: None) -> bytes:
    return b"\xf6"


def _rarer(value: Value) -> bytes:
    return cbor2.dumps(value, canonical=True)


_SMALL: Final = tuple(_rarer(value) for value in range(1024))
_BYTES: Final = tuple(_rarer(bytes(length))[: 1 + (length > 23)] for length in range(256))
ARRAYS: Final = tuple(bytes([0x80 + length]) for length in range(24))
"""Heads of short arrays, for those who would rather not call ``array_head``."""


class Encoders(dict[type, Callable[[Any], bytes]]):
    """What encodes the values of each type; the library, those of others."""

    def __missing__(self, kind: type) -> Callable[[Any], bytes]:
        return _rarer


ENCODERS: Final = Encoders(
    {
        type(None): _encode_null,
        bool: _encode_bool,
        int: encode_int,
        str: _encode_text,
        bytes: encode_bytes,
        list: _encode_list,
    }
)
"""``ENCODERS[type(value)](value)`` is ``encode(value)`` without its call."""


def decode(data: bytes, shape: Shape, *, bytes_max: int, what: str = "value") -> Value:
    """Return the value that ``data`` encodes canonically in ``shape``.

    Args:
        data: untrusted bytes.
        shape: the declared type.
        bytes_max: longest accepted ``data``; checked before anything is parsed.
        what: names the root in error paths.

    Raises:
        DecodeError: too long, not CBOR, of another shape, or not canonical.
    """
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data)} bytes, at most {bytes_max} allowed", path=what)
    value = parse(data, what)
    if shape(value, what) != len(data):
        fault = heads.first_fault(data, DEPTH_MAX)
        said = "not the canonical encoding" if fault is None else f"not CBOR: {fault}"
        raise DecodeError(said, path=what)
    return value


def refuse_crowd(data: bytes, what: str = "value", items_max: int = ITEMS_MAX) -> None:
    """Refuse untrusted bytes of more items than any honest file has, before they are parsed.

    Raises:
        DecodeError: there are too many.

    Cost: none up to 1 MiB, above it 0.5 µs an item.
    """
    if heads.is_crowded(data, DEPTH_MAX, items_max):
        raise DecodeError(f"more than {items_max} items", path=what)


def parse(data: bytes, what: str = "value") -> Value:
    """Parse CBOR without shape or canonical form; only for bytes already checked or our own."""
    try:
        return cbor2.loads(
            data,
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            tag_hook=_refuse_tag,
            semantic_decoders=_TAGS_REFUSED,
        )
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError) as error:
        fault = heads.first_fault(data, DEPTH_MAX)
        why = type(error).__name__ if fault is None else fault
        raise DecodeError(f"not CBOR: {why}", path=what) from error


def _refuse_tag(*_arguments: object) -> Any:
    raise ValueError("CBOR tags are not allowed")


# The decoder has code of its own for these tags (dates, big numbers, fractions, references,
# sets, addresses, ...). None of it may run on hostile bytes: a big float of ten bytes can ask
# for a number of a billion digits.
_TAGS_REFUSED: Final = dict.fromkeys(
    [
        *range(6),
        25,
        28,
        29,
        30,
        35,
        36,
        37,
        43,
        52,
        54,
        100,
        256,
        258,
        260,
        261,
        1004,
        43000,
        55799,
    ],
    _refuse_tag,
)


# --- shapes -----------------------------------------------------------------------------------

HEADS: Final = (1,) * 24 + (2,) * 232
"""Bytes of the head with an argument below 256: most heads, found without a call."""


def head_bytes(argument: int) -> int:
    """Return how many bytes the shortest head with this argument (a length or integer) has."""
    if argument < 256:
        return HEADS[argument]
    if argument < 65536:
        return 3
    return 5 if argument < 2**32 else 9


def _fail(path: str, want: str, value: Value) -> Never:
    raise DecodeError(f"expected {want}, got {type(value).__name__}", path=path)


def integer(low: int = INT64_MIN, high: int = INT64_MAX) -> Shape:
    """An int in ``low..high``; bool is not an int."""

    def check(value: Value, path: str) -> int:
        if type(value) is not int:
            _fail(path, "int", value)
        if not low <= value <= high:
            raise DecodeError(f"{value} is outside {low}..{high}", path=path)
        if 0 <= value < 256:
            return HEADS[value]
        return head_bytes(value if value >= 0 else -1 - value)

    return check


def boolean(value: Value, path: str) -> int:
    """True or false."""
    if type(value) is not bool:
        _fail(path, "bool", value)
    return 1


def null(value: Value, path: str) -> int:
    """Only null."""
    if value is not None:
        _fail(path, "null", value)
    return 1


def octets(count: int | None = None, *, low: int = 0, high: int = 2**31) -> Shape:
    """A byte string of exactly ``count`` bytes, or of ``low..high`` bytes."""

    def check(value: Value, path: str) -> int:
        if type(value) is not bytes:
            _fail(path, "bytes", value)
        size = len(value)
        if count is not None:
            if size != count:
                raise DecodeError(f"{size} bytes, expected {count}", path=path)
        elif not low <= size <= high:
            raise DecodeError(f"{size} bytes, allowed {low}..{high}", path=path)
        return size + (HEADS[size] if size < 256 else head_bytes(size))

    return check


def text(high: int = 4096, *, low: int = 0) -> Shape:
    """NFC text of ``low..high`` UTF-8 bytes."""

    def check(value: Value, path: str) -> int:
        if type(value) is not str:
            _fail(path, "text", value)
        length = _text_bytes(value, path)
        if not low <= length <= high:
            raise DecodeError(f"{length} bytes of text, allowed {low}..{high}", path=path)
        return length + head_bytes(length)

    return check


def _text_bytes(value: str, path: str) -> int:
    if value.isascii():
        return len(value)
    if not unicodedata.is_normalized("NFC", value):
        raise DecodeError("text is not in Unicode NFC", path=path)
    return len(value.encode())


def array(*shapes: Shape) -> Shape:
    """An array with one item per shape."""
    count = len(shapes)
    head = head_bytes(count)

    def check(value: Value, path: str) -> int:
        if type(value) is not list:
            _fail(path, "array", value)
        if len(value) != count:
            raise DecodeError(f"{len(value)} items, expected {count}", path=path)
        size = head
        index = 0
        try:
            for shape in shapes:
                size += shape(value[index], "")
                index += 1
        except DecodeError as error:  # the place is made up only where it is needed
            raise error.below(f"{path}[{index}]") from None
        return size

    return check


def list_of(shape: Shape, high: int, *, low: int = 0) -> Shape:
    """An array of ``low..high`` items of one shape."""

    def check(value: Value, path: str) -> int:
        if type(value) is not list:
            _fail(path, "array", value)
        length = len(value)
        if not low <= length <= high:
            raise DecodeError(f"{length} items, allowed {low}..{high}", path=path)
        size = HEADS[length] if length < 256 else head_bytes(length)
        index = 0
        try:
            for item in value:
                size += shape(item, "")
                index += 1
        except DecodeError as error:
            raise error.below(f"{path}[{index}]") from None
        return size

    return check


def optional(shape: Shape) -> Shape:
    """Null or ``shape``."""

    def check(value: Value, path: str) -> int:
        return 1 if value is None else shape(value, path)

    return check


def one_of(shapes: Sequence[Shape]) -> Shape:
    """The first of ``shapes`` that accepts; the last one's error otherwise."""

    def check(value: Value, path: str) -> int:
        for shape in shapes[:-1]:
            try:
                return shape(value, path)
            except DecodeError:
                continue
        return shapes[-1](value, path)

    return check


def tagged(variants: dict[int, Shape]) -> Shape:
    """An array whose first item, a small int, selects the shape of the whole array."""

    def check(value: Value, path: str) -> int:
        if type(value) is not list or not value or type(value[0]) is not int:
            _fail(path, "array that starts with its kind", value)
        shape = variants.get(value[0])
        if shape is None:
            raise DecodeError(f"unknown kind {value[0]}", path=path)
        return shape(value, path)

    return check


def mapping(fields: dict[str, Shape], *, absent_ok: frozenset[str] = frozenset()) -> Shape:
    """A map with exactly these text keys (files and client answers only)."""

    def check(value: Value, path: str) -> int:
        if type(value) is not dict:
            _fail(path, "map", value)
        for key in value:
            if key not in fields:
                raise DecodeError(f"unknown field {key!r}", path=path)
        size = 0
        for key, shape in fields.items():
            if key in value:
                size += shape(value[key], f"{path}.{key}")
            elif key not in absent_ok:
                raise DecodeError(f"field {key!r} is missing", path=path)
        return size + _keys_bytes(value, path)

    return check


def map_of(shape: Shape, high: int) -> Shape:
    """A map from text to ``shape`` with at most ``high`` entries (files and answers only)."""
    key_shape = text(256)

    def check(value: Value, path: str) -> int:
        if type(value) is not dict:
            _fail(path, "map", value)
        if len(value) > high:
            raise DecodeError(f"{len(value)} entries, at most {high}", path=path)
        size = 0
        for key, item in value.items():
            key_shape(key, f"{path} key")
            size += shape(item, f"{path}.{key}")
        return size + _keys_bytes(value, path)

    return check


def _keys_bytes(value: dict[str, Value], path: str) -> int:
    """Return the bytes of a map's head and keys, which ascend by their encodings."""
    keys = [encode(key) for key in value]
    if keys != sorted(keys):
        raise DecodeError("not the canonical encoding", path=path)
    return head_bytes(len(keys)) + sum(map(len, keys))


def plain(value: Value, path: str) -> int:
    """Any plain value without maps: what a field or an input may hold. Depth is already bounded.

    Cost: 0.2 µs an item.
    """
    kind = type(value)
    if kind is bytes:
        size = len(value)
        return size + (HEADS[size] if size < 256 else head_bytes(size))
    if kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            raise DecodeError("integer beyond 64 bits", path=path)
        if 0 <= value < 256:
            return HEADS[value]
        return head_bytes(value if value >= 0 else -1 - value)
    if kind is str:
        size = _text_bytes(value, path)
        return size + head_bytes(size)
    if kind is list:
        return _plain_list(value, path)
    if kind is bool or value is None:
        return 1
    _fail(path, "a plain value", value)


_plain_list: Final = list_of(plain, INT64_MAX)


def same(left: Value, right: Value) -> bool:
    """Return whether two plain values are one value. Unlike with ``==``, true is not 1."""
    if left != right or type(left) is not type(right):
        return False
    return type(left) is not list or all(map(same, left, right))


bytes16: Final = octets(16)
bytes32: Final = octets(32)
bytes64: Final = octets(64)
count: Final = integer(0)
"""A non-negative int64: heights, rounds, versions, times."""
