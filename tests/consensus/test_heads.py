"""What is wrong with bytes that are no CBOR is named with its place; crowds are counted unmade."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec, heads
from consensus.codec import DEPTH_MAX
from consensus.errors import DecodeError
from consensus.evidence.bundle import Sealed
from consensus.evidence.verify import verify

FAULTS = {
    "": (0, "it ends too early"),
    "82f6": (0, "items announced: 2, bytes left: 1"),
    "82f642": (2, "bytes announced: 2, bytes left: 0"),
    "82f618": (2, "it ends too early"),
    "591203": (0, "bytes announced: 4611, bytes left: 0"),
    "5903": (0, "it ends too early"),
    "f6f6f6": (1, "bytes too many: 2"),
    "8243aabb": (1, "bytes announced: 3, bytes left: 2"),
    "9b7fffffffffffffff": (0, "items announced: 9223372036854775807, bytes left: 0"),
    "a2616100": (0, "items announced: 4, bytes left: 3"),
    "819f00ff": (1, "a length that is left open, or a head that means nothing"),
    "811c": (1, "a length that is left open, or a head that means nothing"),
    "82c000": (1, "a tag"),
    "82f97e0000": (1, "a number with a point, or a simple value"),
    "8162c328": (1, "text that is no UTF-8"),
    "81" * 25 + "f6": (24, "arrays inside arrays, more than 24 deep"),
}


@pytest.mark.parametrize("data", FAULTS, ids=lambda data: data[:20] or "empty")
def test_the_first_fault_is_named_with_its_byte(data: str) -> None:
    offset, why = FAULTS[data]
    assert heads.first_fault(bytes.fromhex(data), DEPTH_MAX) == (offset, why)
    with pytest.raises(DecodeError) as caught:
        codec.decode(bytes.fromhex(data), codec.plain, bytes_max=99, what="file")
    said = caught.value.message
    lenient = said == "file: not the canonical encoding" or "float" in said  # the library's
    assert lenient or said == f"file: not CBOR: {why} at byte {offset}"


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=30),
    max_leaves=40,
)  # fmt: skip


def items(value: Any) -> int:
    return 1 + sum(map(items, value)) if isinstance(value, list) else 1


@settings(max_examples=60, deadline=None)
@given(values)
def test_what_the_library_writes_has_no_fault_and_all_its_items_are_counted(value: Any) -> None:
    data = cbor2.dumps(value, canonical=True)
    assert heads.first_fault(data, 99) is None
    assert heads._walk(data, 99, 10**9) == items(value)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_whatever_has_a_fault_no_parser_takes(data: bytes) -> None:
    if heads.first_fault(data, DEPTH_MAX) is not None:
        with pytest.raises(DecodeError):
            codec.decode(data, codec.plain, bytes_max=99)


def test_a_crowd_is_refused_before_anything_is_made_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bytes] = []
    parse = cbor2.loads

    def parsing(data: bytes, **options: Any) -> Any:
        made.append(data[:1])
        return parse(data, **options)

    monkeypatch.setattr(cbor2, "loads", parsing)
    crowd = b"\x9a" + (2**20).to_bytes(4, "big") + b"\x80" * 2**20
    for data, heads_made in (
        (b"\x82" + crowd + b"\xf6", []),
        (codec.encode([crowd, None]), [b"\x82"]),
    ):
        made.clear()
        with pytest.raises(DecodeError, match="more than 524288 items"):
            verify(data, bytes(32))
        assert made == heads_made


def test_long_strings_are_no_crowd_and_short_crowds_are_left_to_their_shape() -> None:
    codec.refuse_crowd(codec.encode([bytes(2**21)] * 3))
    codec.refuse_crowd(b"\x9a" + (2**20 - 5).to_bytes(4, "big") + b"\x80" * (2**20 - 5))
    with pytest.raises(DecodeError, match=r"bundle: this is no evidence bundle"):
        verify(Sealed(b"\x98\xff" + b"\x80" * 255).encode(), bytes(32))
