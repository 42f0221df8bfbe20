"""Hello and refused: bytes, other versions, garbage. The CDDL of the documentation judges too."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import cbor2
import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.errors import DecodeError, LocalProtocolError
from node.network import wire
from node.network.errors import LinkRefused
from node.network.wire import Class, Hello, Refusal

CHAIN = bytes(range(32))
NONCE = b"0123456789abcdef"
HELLO = Hello(CHAIN, epoch=3, height=1000, index=2, nonce=NONCE, extras=b"xyz")
DOCUMENT = Path(__file__).parents[3] / "docs/protocol/peer-link.md"


def test_the_bytes_of_hello_are_fixed() -> None:
    expected = (
        b"\x01"  # kind
        b"\x87\x01"  # array of 7, version 1
        b"\x58\x20" + CHAIN + b"\x03"  # epoch
        b"\x19\x03\xe8"  # height 1000
        b"\x02"  # index
        b"\x50" + NONCE + b"\x43xyz"
    )
    assert wire.encode_hello(HELLO) == expected
    assert wire.decode_hello(expected) == HELLO


def test_the_bytes_of_a_refusal_are_fixed() -> None:
    expected = b"\x03\x82\x02\x6aother chai"
    assert wire.encode_refused(Refusal.OTHER_CHAIN, "other chai") == expected
    error = wire.decode_refused(expected)
    assert error.by_peer
    assert error.reason == 2
    assert "OTHER_CHAIN" in error.message
    assert "'other chai'" in error.message


def test_the_documents_grammar_accepts_what_is_sent_and_nothing_near_it() -> None:
    [grammar] = re.findall(r"```cddl\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    hello = pycddl.Schema("start = hello\n" + grammar)
    refused = pycddl.Schema("start = refused\n" + grammar)
    hello.validate_cbor(wire.encode_hello(HELLO)[1:])
    refused.validate_cbor(wire.encode_refused(Refusal.PAUSED, "x" * 500)[1:])
    near = [1, CHAIN, 3, 1000, 2, NONCE, b""]
    for place, value in ((0, 2), (1, b""), (2, -1), (4, 256), (5, NONCE[1:]), (6, None)):
        wrong = [*near[:place], value, *near[place + 1 :]]
        with pytest.raises(pycddl.ValidationError):
            hello.validate_cbor(cbor2.dumps(wrong))


def test_the_kinds_are_fixed() -> None:
    assert [wire.HELLO, wire.ECHO, wire.REFUSED, wire.PING, wire.PONG] == [1, 2, 3, 4, 5]
    assert {cls.name: int(cls) for cls in Class} == {"CONSENSUS": 16, "BATCH": 17, "SYNC": 18}
    assert [refusal.name for refusal in Refusal] == [
        "OTHER_VERSION",
        "OTHER_CHAIN",
        "NOT_A_MEMBER",
        "WRONG_DIRECTION",
        "PAUSED",
        "MALFORMED",
        "CROWDED",
        "NO_VOTE_ANY_MORE",
    ]


def test_another_version_is_named_whatever_else_it_holds() -> None:
    for body in ([2], [2, "new", {}], [0, CHAIN]):
        with pytest.raises(LinkRefused, match=f"version {body[0]}") as caught:
            wire.decode_hello(b"\x01" + cbor2.dumps(body))
        assert caught.value.reason == Refusal.OTHER_VERSION


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, True),
        (1, CHAIN[1:]),
        (2, -1),
        (2, 2**63),
        (3, "1"),
        (4, 256),
        (5, NONCE + b"0"),
        (6, "text"),
        (6, bytes(wire.EXTRAS_BYTES_MAX + 1)),
    ],
)
def test_a_hello_of_another_shape_is_malformed(place: int, value: object) -> None:
    body = [1, CHAIN, 3, 1000, 2, NONCE, b""]
    body[place] = value
    with pytest.raises(DecodeError):
        wire.decode_hello(b"\x01" + cbor2.dumps(body))


def test_a_hello_that_is_not_canonical_is_malformed() -> None:
    good = wire.encode_hello(HELLO)
    for bad in (good + b"\0", good[:-1], b"\x01\x9f" + good[2:] + b"\xff", b"\x01"):
        with pytest.raises(DecodeError):
            wire.decode_hello(bad)


def test_a_hello_beyond_its_limit_is_not_even_parsed() -> None:
    with pytest.raises(DecodeError, match="at most"):
        wire.decode_hello(b"\x01" + b"\x80" * wire.HELLO_BYTES_MAX)


def test_extras_of_ours_beyond_the_limit_are_our_bug() -> None:
    longest = Hello(CHAIN, 2**63 - 1, 2**63 - 1, 255, NONCE, bytes(wire.EXTRAS_BYTES_MAX))
    assert wire.decode_hello(wire.encode_hello(longest)) == longest
    with pytest.raises(LocalProtocolError):
        wire.encode_hello(Hello(CHAIN, 1, 1, 1, NONCE, bytes(wire.EXTRAS_BYTES_MAX + 1)))


def test_a_long_or_foreign_reason_is_cut_to_plain_text() -> None:
    payload = wire.encode_refused(Refusal.PAUSED, "Grüße\n" + "x" * 500)
    assert len(payload) <= wire.REFUSED_BYTES_MAX
    message = wire.decode_refused(payload).message
    assert "Gr??e\\n" in message
    assert message.isprintable()


def test_a_reason_from_a_newer_version_is_shown_by_number() -> None:
    assert "99" in wire.decode_refused(b"\x03" + cbor2.dumps([99, "?"])).message


@given(st.binary(max_size=100))
def test_garbage_raises_only_what_is_documented(garbage: bytes) -> None:
    with pytest.raises((DecodeError, LinkRefused)):
        wire.decode_hello(b"\x01" + garbage)
    with contextlib.suppress(DecodeError):
        wire.decode_refused(b"\x03" + garbage)
