"""Batches: what a digest covers, whose fault a bad one is, and hostile bytes in both parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pycddl
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import CopyError, DecodeError, LocalProtocolError
from consensus.genesis import Limits
from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.batch import Batch
from consensus.ledger.group import Group
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    batch_of,
    envelope,
    group_of,
    payments,
    signed,
)
from tests.consensus.ledger.test_private import committed

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/transaction.json").read_text())
VECTOR_CHAIN = bytes.fromhex(VECTORS["chain"])
CDDL = (ROOT / "docs/protocol/transaction.cddl").read_text()
BY_NAME = [pytest.param(case, id=case["name"]) for case in VECTORS["batches"]]
LIMITS = Limits()


def mixed(number: int = 1) -> Batch:
    part = groups.part(group_of(payments(21, first=100), [ANNA]), 4, 4)
    return batch_of(
        signed(ANNA, 1), part, signed(BORIS, 2, cosigners=[ANNA], reason="r"), number=number
    )


def parts(data: bytes) -> list[Any]:
    value: list[Any] = cbor2.loads(data)
    return value


def decode(public: Any, private: Any, limits: Limits = LIMITS) -> Batch:
    public = public if isinstance(public, bytes) else cbor2.dumps(public)
    private = private if isinstance(private, bytes) else cbor2.dumps(private)
    return batches.decode(CHAIN, public, private, limits)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_fits_the_cddl(case: dict[str, Any]) -> None:
    for rule in ("public", "private"):
        schema = pycddl.Schema(f"root = batch-{rule}\n{CDDL}")
        schema.validate_cbor(bytes.fromhex(case[rule]))


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_is_decoded_to_its_header_digest_and_txids(case: dict[str, Any]) -> None:
    public, private = bytes.fromhex(case["public"]), bytes.fromhex(case["private"])
    found = batches.decode(VECTOR_CHAIN, public, private, LIMITS)
    assert (found.origin, found.number, found.lane) == (
        case["origin"],
        case["number"],
        case["lane"],
    )
    assert found.digest.hex() == case["digest"]
    assert found.digest == (
        blake3(public, derive_key_context="comity 2026-11-21 batch digest v1").digest()
    )
    assert [each.txid.hex() for each in found.transactions] == case["txids"]
    assert batches.build(found.origin, found.number, found.lane, found.items) == found


# --- round trips ----------------------------------------------------------------------------------


def test_items_keep_their_order_and_private_parts() -> None:
    batch = mixed()
    found = batches.decode(CHAIN, batch.public, batch.private, LIMITS)
    assert found == batch
    assert [each.sequence for each in found.transactions] == [1, 104, 105, 106, 107, 2]
    assert found.transactions[5].reason == "r"
    assert (found.count, found.size_bytes) == (6, len(batch.public) + len(batch.private))


def test_trusted_decoding_gives_the_same_transactions() -> None:
    batch = mixed(number=2**40)
    txids = b"".join(each.txid for each in batch.transactions)
    for given_txids in (b"", txids):
        found = batches.decode_trusted(batch.public, batch.private, given_txids, chain=CHAIN)
        assert found.transactions == batch.transactions
        assert msgspec.structs.replace(found, items=batch.items) == batch


def test_trusted_item_is_the_decoded_item() -> None:
    for data in (
        envelope(cosigners=[BORIS]),
        cbor2.dumps(group_of(payments(5), [ANNA]).to_value()),
    ):
        item = batches.decode_item(CHAIN, data)
        txids = b"".join(each.txid for each in batches.transactions_of([item]))
        assert batches.decode_item_trusted(data, txids) == item


def test_sizes_of_items_add_up_to_that_of_the_batch() -> None:
    batch = mixed()
    sizes = sum(batches.item_bytes(item) for item in batch.items)
    assert 0 < len(batch.public) + len(batch.private) - sizes < batches.FRAMING_BYTES_MAX - 8


def test_an_item_takes_as_many_bytes_as_when_submitted() -> None:
    data = envelope(cosigners=[BORIS])
    assert batches.item_bytes(batches.decode_item(CHAIN, data)) == len(data)
    data = cbor2.dumps(group_of(payments(5), [ANNA]).to_value())
    assert batches.item_bytes(batches.decode_item(CHAIN, data)) == len(data)


def test_framing_of_the_largest_batch_stays_within_its_bound() -> None:
    header = cbor2.dumps([[1, 63, 2**63 - 1, 1], []])
    heads = len(header) + 2 * 5
    assert heads <= batches.FRAMING_BYTES_MAX


# --- the digest and the private part --------------------------------------------------------------


def test_digest_covers_bodies_signatures_and_frames_but_no_private_part() -> None:
    batch = mixed()
    without = batches.decode_public(CHAIN, batch.public, LIMITS)
    assert without.digest == batch.digest
    assert all(not each.openings for each in without.transactions)
    value = parts(batch.public)
    places = [value[0], value[1][0][1], value[1][1][0][0], value[1][1][3]]
    digests = {batch.digest}
    for place in places:
        old = place[-1]
        place[-1] = old + 1 if isinstance(old, int) else bytes([old[0] ^ 1]) + old[1:]
        digests.add(batches.digest(cbor2.dumps(value)))
        place[-1] = old
    assert len(digests) == 5


def test_batch_whose_private_parts_were_dropped_keeps_its_transactions() -> None:
    batch = mixed()
    found = batches.decode_trusted(batch.public, b"", chain=CHAIN)
    assert [each.txid for each in found.transactions] == [each.txid for each in batch.transactions]
    assert found.transactions[0].openings == ()
    assert found.digest == batch.digest


def test_bad_copies_blame_the_link_and_not_the_origin() -> None:
    batch = mixed()
    rows = parts(batch.private)
    changed = [[rows[0][0], b"s" * 32], *rows[1:]]
    copies: tuple[Any, ...] = (
        changed,
        rows[:-1],
        [*rows, rows[0]],
        [rows[1], rows[0], *rows[2:]],
        [],
        None,
        b"",
        b"\xff",
        batch.private[:-1],
        batch.private + b"\x00",
        b"\x98\x06" + batch.private[1:],
        [[None, b"s" * 32], *rows[1:]],
        [[rows[0][0], None], *rows[1:]],
        [[[1], b"s" * 32], *rows[1:]],
        [None, *rows[1:]],
        [[*rows[0], 1], *rows[1:]],
        {},
        b"\x9b" + b"\xff" * 8,
        b"\x81" * 1000,
        b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01",
    )
    for private in copies:
        with pytest.raises(CopyError):
            decode(batch.public, private)
    with pytest.raises(CopyError):
        decode(batch.public, batch.private + bytes(LIMITS.batch_bytes_max))


def test_public_part_is_judged_before_the_private_part() -> None:
    """A bad batch is the origin's fault, even if the copy of its private part is bad too."""
    value = parts(mixed().public)
    value[1][0][1] = []
    with pytest.raises(DecodeError):
        decode(value, b"\xff")


# --- lanes ----------------------------------------------------------------------------------------


def test_every_transaction_is_of_the_batch_lane() -> None:
    ordinary, protective = signed(ANNA, 1), signed(ANNA, 2, protective=True)
    assert batch_of(protective).lane == 1
    for lane, other in ((0, protective), (1, ordinary)):
        good = batch_of(ordinary if lane == 0 else protective)
        rows = [*parts(good.public)[1], [other.body, list(other.signatures)]]
        with pytest.raises(DecodeError, match="lane"):
            decode([[1, 0, 1, lane], rows], b"\x80")
        with pytest.raises(DecodeError, match="lane"):
            decode([[1, 0, 1, 1 - lane], parts(good.public)[1]], good.private)


def test_own_batch_of_mixed_lanes_or_without_items_is_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        batches.build(0, 1, 0, [signed(ANNA, 1), signed(ANNA, 2, protective=True)])
    with pytest.raises(LocalProtocolError):
        batches.build(0, 1, 0, [])
    with pytest.raises(LocalProtocolError):
        batches.build(0, 1, 0, [signed(ANNA, 1).opened((), b"")])


# --- what is refused ------------------------------------------------------------------------------

GOOD = mixed()


@pytest.mark.parametrize(
    "header",
    [
        [],
        None,
        [1, 0, 1],
        [1, 0, 1, 0, 0],
        [0, 0, 1, 0],
        [2, 0, 1, 0],
        [1, 64, 1, 0],
        [1, -1, 1, 0],
        [1, 0, 0, 0],
        [1, 0, 2**63, 0],
        [1, 0, 1, 2],
        [1, 0, 1, False],
        [True, 0, 1, 0],
        [1, b"k" * 32, 1, 0],
    ],
)
def test_header_is_refused(header: Any) -> None:
    with pytest.raises(DecodeError):
        decode([header, parts(GOOD.public)[1]], GOOD.private)
    with pytest.raises(DecodeError):
        batches.read_header(cbor2.dumps([header, []]))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        [b"body"],
        [b"", []],
        [b"body", [b"s" * 64]],
        [1, []],
        [signed().body, None],
        [signed().body, []],
        [signed().body, [None]],
        [signed().body, [b""]],
        [signed().body, [b"s" * 63]],
        [signed().body, list(signed().signatures) * 2],
        [signed().body, list(signed().signatures), []],
        [signed().body + b"\x00", list(signed().signatures)],
        [[], 1, 0, [], []],
        [[], 1, 0, []],
        [[[ANNA.key, b"s" * 64]], 1, 0, [], [[signed().body, list(signed().signatures)]]],
    ],
)
def test_one_bad_item_rejects_the_batch(place: int, item: Any) -> None:
    header, rows = parts(GOOD.public)
    rows[place] = item
    with pytest.raises(DecodeError):
        decode([header, rows], GOOD.private)


def test_bad_contents_under_the_right_root_are_the_origin_s_fault() -> None:
    found, openings, seed = committed([cbor2.dumps(None), cbor2.dumps([[], []])])
    public = cbor2.dumps([[1, 0, 1, 0], [[found.body, [b"s" * 64]]]])
    with pytest.raises(DecodeError):
        decode(public, [[openings, seed]])


@pytest.mark.parametrize(
    "public",
    [
        b"",
        b"\xff",
        b"\x82",
        b"\x82\x84\x01\x00\x01\x00\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x84\x01\x00\x01\x00\x80",
        b"\x82\x84\x01\x00\x01\x00\xf6",
        b"\x9f\x84\x01\x00\x01\x00\x80\xff",
        b"\x81" * 5000,
        GOOD.public[:-1],
        GOOD.public + b"\x00",
        b"\x98\x02" + GOOD.public[1:],
        GOOD.public.replace(b"\x84\x01\x00\x01\x00", b"\x84\x01\x00\x18\x01\x00"),
    ],
)
def test_hostile_public_part_is_refused(public: bytes) -> None:
    assert public != GOOD.public
    with pytest.raises(DecodeError):
        decode(public, GOOD.private)


@given(st.binary(max_size=300))
def test_garbage_is_refused_in_either_part(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data, GOOD.private)
    with pytest.raises(CopyError):
        decode(GOOD.public, data)
    with pytest.raises(DecodeError):
        batches.decode_item(CHAIN, data)


@settings(max_examples=200)
@given(st.data())
def test_one_changed_byte_gives_an_error_or_another_digest(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(GOOD.public) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = GOOD.public[:place] + bytes([byte]) + GOOD.public[place + 1 :]
    try:
        found = decode(changed, GOOD.private)
    except (DecodeError, CopyError):
        return
    assert (found.digest == GOOD.digest) == (changed == GOOD.public)
    assert cbor2.dumps(cbor2.loads(changed), canonical=True) == changed


# --- limits ---------------------------------------------------------------------------------------


def test_bytes_of_both_parts_are_limited() -> None:
    exact = Limits(batch_bytes_max=GOOD.size_bytes)
    assert decode(GOOD.public, GOOD.private, exact) == GOOD
    with pytest.raises(CopyError):
        decode(GOOD.public, GOOD.private, Limits(batch_bytes_max=GOOD.size_bytes - 1))
    with pytest.raises(DecodeError):
        decode(GOOD.public, GOOD.private, Limits(batch_bytes_max=len(GOOD.public) - 1))


def test_transactions_are_limited_those_in_groups_too() -> None:
    assert decode(GOOD.public, GOOD.private, Limits(batch_transactions_max=6)) == GOOD
    with pytest.raises(DecodeError):
        decode(GOOD.public, GOOD.private, Limits(batch_transactions_max=5))


def test_header_is_read_without_the_rest() -> None:
    for origin, number, lane in ((0, 1, 0), (63, 2**63 - 1, 1), (23, 23, 0), (24, 24, 1)):
        start = cbor2.dumps([[1, origin, number, lane], []])[:-1]
        assert batches.read_header(start + b"\xff" * 50) == (origin, number, lane)
    for data in (
        b"",
        b"\x82",
        b"\x82\x84\x01",
        b"\x83" + GOOD.public[1:],
        b"\x82\x81" + b"\x81" * 99,
    ):
        with pytest.raises(DecodeError):
            batches.read_header(data)


# --- single items ---------------------------------------------------------------------------------


def test_item_is_an_envelope_or_a_group() -> None:
    group = group_of(payments(3), [ANNA])
    assert batches.decode_item(CHAIN, envelope()) == signed()
    assert batches.decode_item(CHAIN, cbor2.dumps(group.to_value())) == group


@pytest.mark.parametrize("value", [None, [], [1, 2], [b"", [], [], []], [[], 1, 0, [], None], {}])
def test_other_items_are_refused(value: Any) -> None:
    with pytest.raises(DecodeError):
        batches.decode_item(CHAIN, cbor2.dumps(value))


def test_item_beyond_its_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match="at most"):
        batches.decode_item(CHAIN, b"\x83" + bytes(batches.ITEM_BYTES_MAX))


def test_messages_name_every_signature_once() -> None:
    found = batches.messages(CHAIN, GOOD.items)
    assert [key for key, _, _ in found].count(ANNA.key) == 3  # alone, for the group, as cosigner
    assert [key for key, _, _ in found].count(BORIS.key) == 1
    assert isinstance(GOOD.items[1], Group)
    assert len(found) == 4
