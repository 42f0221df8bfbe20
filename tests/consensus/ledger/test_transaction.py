"""Bodies, envelopes and private parts: what is accepted, what is refused, and who is to blame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import nacl.exceptions
import pycddl
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import CopyError, DecodeError
from consensus.ledger import private, transaction
from consensus.ledger.transaction import Ack, Draft, Expect
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    CLARA,
    DORA,
    draft,
    envelope,
    pay,
    signatures,
    signed,
)

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/transaction.json").read_text())
VECTOR_CHAIN = bytes.fromhex(VECTORS["chain"])
CDDL = (ROOT / "docs/protocol/transaction.cddl").read_text()
BY_NAME = [pytest.param(case, id=case["name"]) for case in VECTORS["transactions"]]


def plain(value: Any) -> Any:
    """The array that a vector writes down; byte strings are written ``h:<hex>``."""
    if isinstance(value, str) and value.startswith("h:"):
        return bytes.fromhex(value[2:])
    return [plain(item) for item in value] if isinstance(value, list) else value


def valid(rule: str, data: bytes) -> None:
    pycddl.Schema(f"root = {rule}\n{CDDL}").validate_cbor(data)


def hashed(purpose: str, data: bytes, length: int = 32) -> bytes:
    """BLAKE3 as the grammar's header says, without the product."""
    hasher = blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1")
    return hasher.digest(length=length)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_is_decoded_as_it_was_written(case: dict[str, Any]) -> None:
    found = transaction.decode_envelope(VECTOR_CHAIN, bytes.fromhex(case["envelope"]))
    _, author, sequence, not_after_ms, mode, cosigners, calls, root = plain(case["value"])
    assert found.body.hex() == case["body"]
    assert (found.author, found.sequence, found.not_after_ms) == (author, sequence, not_after_ms)
    assert (found.mode, found.cosigners, found.private_root) == (mode, tuple(cosigners), root)
    assert [
        [call.domain, call.action, call.action_id, call.protective] for call in found.calls
    ] == calls
    assert found.txid.hex() == case["txid"]
    assert [each.hex() for each in found.openings] == case["openings"]
    assert found.seed.hex() == case["seed"]


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_survives_decoding_and_encoding(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["envelope"])
    found = transaction.decode_envelope(VECTOR_CHAIN, data)
    assert codec.encode(transaction.to_value(found)) == data


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_fits_the_cddl(case: dict[str, Any]) -> None:
    valid("envelope", bytes.fromhex(case["envelope"]))
    valid("transaction-body", bytes.fromhex(case["body"]))
    valid("private-header", bytes.fromhex(case["header"]))
    for name, opening in zip(case["names"], case["openings"], strict=True):
        rule = "call-inputs" if name.startswith("in") else name
        valid(rule, bytes.fromhex(opening))


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_hashes_follow_the_grammar(case: dict[str, Any]) -> None:
    """A second reading, with BLAKE3 and CBOR alone."""
    body, seed = bytes.fromhex(case["body"]), bytes.fromhex(case["seed"])
    value = cbor2.loads(body)
    kh = hashed("transaction slot", VECTOR_CHAIN + value[1] + value[2].to_bytes(8, "big"))
    assert kh.hex() == case["slot"]
    openings = [bytes.fromhex(each) for each in case["openings"]]
    stream = hashed("salts", seed + kh, 16 * len(openings))
    leaves = []
    for place, (name, opening) in enumerate(zip(case["names"], openings, strict=True)):
        salt = stream[16 * place : 16 * place + 16]
        hidden = hashed("value", salt + opening)
        leaves.append(hashed("field", cbor2.dumps([kh, name, 0]) + hidden))
    header = cbor2.dumps([hashed("private seed", seed), len(openings)])
    root = hashed("private root", header + b"".join(leaves))
    assert root == value[7]
    assert hashed("tx id", VECTOR_CHAIN + body).hex() == case["txid"]


@pytest.mark.parametrize("case", BY_NAME)
def test_product_makes_the_hashes_of_the_vector(case: dict[str, Any]) -> None:
    found = transaction.decode_envelope(VECTOR_CHAIN, bytes.fromhex(case["envelope"]))
    kh = private.slot(VECTOR_CHAIN, found.author, found.sequence)
    calls, count = len(found.calls), len(found.openings)
    assert kh.hex() == case["slot"]
    assert list(private.leaf_names(calls, count)) == case["names"]
    assert [s.hex() for s in private.private_salts(kh, found.seed, count)] == case["salts"]
    header = private.private_header(private.seed_hash(found.seed), count)
    assert header.hex() == case["header"]
    assert private.private_root(kh, calls, found.openings, found.seed) == found.private_root


@pytest.mark.parametrize("case", BY_NAME)
def test_signatures_of_the_vector_are_over_the_txid(case: dict[str, Any]) -> None:
    txid = bytes.fromhex(case["txid"])
    message = transaction.signed_message(VECTOR_CHAIN, txid)
    assert message == b"comity transaction\0" + VECTOR_CHAIN + txid
    assert message.hex() == case["signed"]
    for seed, signature in zip(case["signer_seeds"], case["signatures"], strict=True):
        key, _ = nacl.bindings.crypto_sign_seed_keypair(bytes.fromhex(seed))
        nacl.bindings.crypto_sign_open(bytes.fromhex(signature) + message, key)


# --- what a transaction says ----------------------------------------------------------------------


def test_every_part_is_read_back() -> None:
    acks = [Ack(0, 1, "treasury", b"K" * 32, b"S" * 64)]
    data = envelope(
        ANNA,
        7,
        calls=[pay(5), Draft("d", "a", b"I" * 32, [], b"Q" * 32)],
        expects=[Expect("person", ["P", 7, ["n"]], 0), Expect("record", [b"r"], 3)],
        under=[b"G" * 32],
        reason="Entscheid über 7",
        acks=acks,
        cosigners=[CLARA, BORIS],
        mode=transaction.PROPOSE,
    )
    found = transaction.decode_envelope(CHAIN, data)
    assert found.inputs(0) == ([["payee"], 5], b"P" * 32)
    assert found.inputs(1) == ([], b"Q" * 32)
    assert found.context.expects == (
        Expect("person", ["P", 7, ["n"]], 0),
        Expect("record", [b"r"], 3),
    )
    assert found.context.under == (b"G" * 32,)
    assert found.reason == "Entscheid über 7"
    assert found.acks == tuple(acks)
    assert found.mode == transaction.PROPOSE
    assert found.signers == (ANNA.key, *sorted([BORIS.key, CLARA.key]))


def test_absent_reason_and_acks_read_empty() -> None:
    found = transaction.decode_envelope(CHAIN, envelope())
    assert (found.reason, found.acks, len(found.openings)) == ("", (), 2)


def test_empty_reason_stands_before_acks() -> None:
    data = envelope(acks=[Ack(0, 1, "treasury", b"K" * 32, b"S" * 64)])
    found = transaction.decode_envelope(CHAIN, data)
    assert (found.reason, len(found.acks), len(found.openings)) == ("", 1, 4)


def test_sixty_four_calls_and_long_lists_are_accepted() -> None:
    expects = [Expect("record", [number], number) for number in range(512)]
    found = signed(calls=[pay(n) for n in range(64)], expects=expects, reason="r")
    again = transaction.decode_envelope(CHAIN, codec.encode(transaction.to_value(found)))
    assert again == found
    assert [again.inputs(n)[0][1] for n in range(64)] == list(range(64))


def test_lane_is_that_of_the_calls() -> None:
    assert signed().lane == transaction.ORDINARY
    assert signed(protective=True).lane == transaction.PROTECTIVE


def test_trusted_decoding_gives_the_same_transaction() -> None:
    found = signed(cosigners=[BORIS], reason="x")
    again = transaction.decode_trusted(
        found.body, list(found.signatures), list(found.openings), found.seed, found.txid
    )
    assert again == found


def test_other_chain_other_txid_and_no_match_of_the_private_part() -> None:
    other = b"D" * 32
    assert transaction.decode_body(other, signed().body).txid != signed().txid
    with pytest.raises(CopyError):
        transaction.decode_envelope(other, envelope())


# --- bodies that are refused ----------------------------------------------------------------------

KEY, ID = ANNA.key, b"A" * 32
LOW, HIGH = sorted([BORIS.key, CLARA.key])
CALL = ["payments", "transfer", ID, False]
BODY: list[Any] = [1, KEY, 1, 0, 0, [], [CALL], b"R" * 32]

WRONG: dict[str, tuple[int, Any]] = {
    "version 0": (0, 0),
    "version 2": (0, 2),
    "version true": (0, True),
    "author short": (1, KEY[:31]),
    "author text": (1, "k" * 32),
    "sequence 0": (2, 0),
    "sequence negative": (2, -1),
    "sequence beyond int64": (2, 2**63),
    "sequence true": (2, True),
    "not after negative": (3, -1),
    "not after beyond int64": (3, 2**63),
    "not after null": (3, None),
    "mode 2": (4, 2),
    "mode false": (4, False),
    "cosigners null": (5, None),
    "cosigner short": (5, [b"k" * 31]),
    "cosigner int": (5, [7]),
    "cosigners repeated": (5, [LOW, LOW]),
    "cosigners descending": (5, [HIGH, LOW]),
    "cosigner is the author": (5, [KEY]),
    "cosigners 33": (5, [bytes([n]) * 32 for n in range(33)]),
    "no calls": (6, []),
    "calls 65": (6, [CALL] * 65),
    "calls null": (6, None),
    "call not an array": (6, ["transfer"]),
    "call too short": (6, [CALL[:3]]),
    "call too long": (6, [[*CALL, None]]),
    "domain empty": (6, [["", *CALL[1:]]]),
    "domain of 65 bytes": (6, [["d" * 65, *CALL[1:]]]),
    "domain of 66 bytes in 33 letters": (6, [["é" * 33, *CALL[1:]]]),
    "domain not in NFC": (6, [["e\u0301", *CALL[1:]]]),
    "domain bytes": (6, [[b"d", *CALL[1:]]]),
    "action id short": (6, [["d", "a", ID[:31], False]]),
    "protective 0": (6, [["d", "a", ID, 0]]),
    "lanes mixed": (6, [CALL, ["d", "a", ID, True]]),
    "root short": (7, b"r" * 31),
    "root null": (7, None),
}


def test_the_plain_body_is_accepted() -> None:
    data = cbor2.dumps(BODY)
    found = transaction.decode_body(CHAIN, data)
    assert (found.author, found.sequence, found.body) == (KEY, 1, data)


@pytest.mark.parametrize("name", WRONG)
def test_body_is_refused_with(name: str) -> None:
    place, value = WRONG[name]
    body = [*BODY[:place], value, *BODY[place + 1 :]]
    with pytest.raises(DecodeError):
        transaction.decode_body(CHAIN, cbor2.dumps(body))


@pytest.mark.parametrize("body", [BODY[:7], [*BODY, None], [], {}, 1, b"", "body", None, [BODY]])
def test_what_is_no_body_is_refused(body: Any) -> None:
    with pytest.raises(DecodeError):
        transaction.decode_body(CHAIN, cbor2.dumps(body))


def test_boundaries_of_a_body_are_accepted() -> None:
    cosigners = sorted([LOW, HIGH])
    name = "é" * 32
    body = [1, KEY, 2**63 - 1, 2**63 - 1, 1, cosigners, [[name, "n" * 64, ID, True]] * 64, ID]
    found = transaction.decode_body(CHAIN, cbor2.dumps(body))
    assert found.calls[63].domain == name


LONG_HEADS = {
    "array head": lambda data: b"\x98\x08" + data[1:],
    "version head": lambda data: data[:1] + b"\x18\x01" + data[2:],
    "key head": lambda data: data[:2] + b"\x59\x00\x20" + data[4:],
    "indefinite array": lambda data: b"\x9f" + data[1:] + b"\xff",
    "trailing byte": lambda data: data + b"\x00",
    "trailing value": lambda data: data + data,
    "tagged": lambda data: b"\xc6" + data,
    "self-described": lambda data: b"\xd9\xd9\xf7" + data,
    "big number as sequence": lambda data: data.replace(b"\x20" + KEY + b"\x01", b"\x20" + KEY
        + b"\xc2\x41\x01"),
    "sequence in two bytes": lambda data: data.replace(KEY + b"\x01", KEY + b"\x18\x01"),
    "sequence as float": lambda data: data.replace(KEY + b"\x01", KEY + b"\xf9\x3c\x00"),
    "indefinite text": lambda data: data.replace(
        b"\x68payments", b"\x7f\x64paym\x64ents\xff"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG_HEADS)
def test_not_canonical_body_is_refused(name: str) -> None:
    data = cbor2.dumps(BODY)
    changed = LONG_HEADS[name](data)
    assert changed != data
    with pytest.raises(DecodeError):
        transaction.decode_body(CHAIN, changed)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\x88",
        b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # an array of 2^64 - 1 items
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x5b\x00\x00\xff\xff\xff\xff\xff\xff",  # a byte string of 2^48 bytes
        b"\x88\x01\x7b\x00\x00\x00\x0f\xff\xff\xff\xff",
        b"\xbb\x00\x00\x00\x0f\xff\xff\xff\xff",
        b"\x81" * 10_000 + b"\x01",
        b"\x81" * 30 + b"\x01",
        b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",  # a big float of a billion digits
        b"\x88" + b"\x00" * 20_000,
        cbor2.dumps([*BODY[:5], [b"k" * 32] * 600, *BODY[6:]]),
    ],
)
def test_hostile_bytes_are_refused_quickly(data: bytes) -> None:
    for decode in (transaction.decode_body, transaction.decode_envelope):
        with pytest.raises(DecodeError):
            decode(CHAIN, data)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for decode in (transaction.decode_body, transaction.decode_envelope):
        with pytest.raises(DecodeError):
            decode(CHAIN, data)


@settings(max_examples=300)
@given(st.data())
def test_one_changed_byte_of_a_body_is_refused_or_another_transaction(data: st.DataObject) -> None:
    body = signed(cosigners=[BORIS]).body
    place = data.draw(st.integers(0, len(body) - 1))
    changed = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]
    try:
        found = transaction.decode_body(CHAIN, changed)
    except DecodeError:
        return
    assert cbor2.dumps(cbor2.loads(changed), canonical=True) == changed == found.body
    assert (found.txid == signed(cosigners=[BORIS]).txid) == (changed == body)


@pytest.mark.parametrize("length", range(0, 140, 7))
def test_truncated_body_is_refused(length: int) -> None:
    body = signed().body
    assert length < len(body)
    with pytest.raises(DecodeError):
        transaction.decode_body(CHAIN, body[:length])


# --- canonical form -------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=300)
    | st.sampled_from(["", "a", "é", "x" * 23, "x" * 24, "x" * 255, "ß" * 128]),
    lambda inner: st.lists(inner, max_size=30),
    max_leaves=40,
)


@given(PLAIN)
def test_measure_is_the_length_of_the_canonical_encoding(value: Any) -> None:
    assert codec.plain(value, "value") == len(cbor2.dumps(value, canonical=True))


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, 1.5, {}, {"a": 1}, [[{}]], "e\u0301", [2**64], object()]
)
def test_measure_refuses_what_is_not_plain(value: Any) -> None:
    with pytest.raises(DecodeError):
        codec.plain(value, "value")


@settings(max_examples=50, deadline=None)
@given(st.lists(PLAIN, max_size=8), st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_any_plain_inputs_are_accepted_and_read_back(
    values: list[Any], not_after_ms: int, sequence: int
) -> None:
    call = Draft("d", "a", ID, values, b"P" * 32)
    found = draft(ANNA, sequence, calls=[call], not_after_ms=not_after_ms).transaction
    assert found.inputs(0)[0] == values
    assert (found.sequence, found.not_after_ms) == (sequence, not_after_ms)
    assert found.body == cbor2.dumps(cbor2.loads(found.body), canonical=True)


# --- signatures -----------------------------------------------------------------------------------


def parts(data: bytes) -> list[Any]:
    value: list[Any] = cbor2.loads(data)
    return value


def test_each_missing_extra_or_odd_signature_is_refused() -> None:
    body, slots, rest = parts(envelope(cosigners=[BORIS, CLARA]))
    good = [body, slots, rest]
    assert transaction.decode_envelope(CHAIN, cbor2.dumps(good)).signatures == tuple(slots)
    for wrong in (
        [],
        slots[:2],
        slots[1:],
        [*slots, slots[0]],
        [*slots, b""],
        [slots[0], b"", slots[2]],
        [b"", b"", b""],
        [slots[0], slots[1], slots[2][:63]],
        [slots[0], slots[1], slots[2] + b"x"],
        [slots[0], slots[1], None],
        slots * 30,
    ):
        with pytest.raises(DecodeError):
            transaction.decode_envelope(CHAIN, cbor2.dumps([body, wrong, rest]))


def test_stripping_a_cosigner_makes_another_transaction() -> None:
    """Nobody can spend the author's sequence without the approval that was signed with it."""
    full = signed(cosigners=[BORIS])
    bare = cbor2.loads(full.body)
    bare[5] = []
    found = transaction.decode_signed(CHAIN, cbor2.dumps(bare), full.signatures[:1])
    assert found.txid != full.txid
    with pytest.raises(nacl.exceptions.BadSignatureError):
        nacl.bindings.crypto_sign_open(
            full.signatures[0] + transaction.signed_message(CHAIN, found.txid), ANNA.key
        )


# --- making one -----------------------------------------------------------------------------------


def test_cosigners_are_sorted_for_the_caller() -> None:
    assert draft(cosigners=[DORA, BORIS, CLARA]).transaction.body == (
        draft(cosigners=[CLARA, DORA, BORIS]).transaction.body
    )


@pytest.mark.parametrize(
    "options",
    [
        {"cosigners": [ANNA]},
        {"cosigners": [BORIS, BORIS]},
        {"calls": [pay(), pay(protective=True)]},
        {"calls": [pay()] * 65},
        {"calls": [Draft("d", "a", ID, [2**63], b"P" * 32)]},
        {"calls": [Draft("d", "a", ID, [], b"P")]},
        {"calls": [Draft("", "a", ID, [], b"P" * 32)]},
        {"expects": [Expect("record", ["E"], 1), Expect("record", ["E"], 1)]},
        {"expects": [Expect("record", [], 1)]},
        {"seed": b"short"},
        {"mode": 7},
        {"not_after_ms": -1},
        {"reason": "x" * 5000},
    ],
)
def test_builder_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        draft(**options)


@pytest.mark.parametrize("sequence", [0, -1, 2**63, True])
def test_builder_refuses_sequence(sequence: int) -> None:
    with pytest.raises(DecodeError):
        draft(ANNA, sequence, seed=b"s" * 32)


def test_assembling_wants_one_signature_a_signer() -> None:
    unsigned = draft(cosigners=[BORIS])
    slots = signatures(unsigned, ANNA, [BORIS])
    assert transaction.assemble(unsigned, slots) == envelope(cosigners=[BORIS])
    for wrong in (slots[:1], [*slots, slots[0]], [slots[0], b"x"]):
        with pytest.raises(DecodeError):
            transaction.assemble(unsigned, wrong)
