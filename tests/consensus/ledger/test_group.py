"""Signed groups: one signature over many transactions, and no way to stretch or shrink it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import nacl.exceptions
import pycddl
import pytest
from blake3 import blake3

from consensus import codec
from consensus.errors import CopyError, DecodeError, LocalProtocolError
from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.group import Group
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    CLARA,
    Author,
    draft,
    group_of,
    payments,
)

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/transaction.json").read_text())
VECTOR_CHAIN = bytes.fromhex(VECTORS["chain"])
CDDL = (ROOT / "docs/protocol/transaction.cddl").read_text()
BY_NAME = [pytest.param(case, id=case["name"]) for case in VECTORS["groups"]]


def hashed(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def root_of(txids: list[bytes]) -> bytes:
    """The tree as its definition says, recursively and without the product."""
    level = [hashed("group leaf", b"".join(txids[at : at + 4])) for at in range(0, len(txids), 4)]
    while len(level) > 1:
        level = [
            hashed("group node", b"".join(level[at : at + 4]).ljust(128, b"\0"))
            for at in range(0, len(level), 4)
        ]
    return hashed("group root", len(txids).to_bytes(8, "big") + level[0])


def decoded(value: list[Any]) -> Group:
    found = batches.decode_item(CHAIN, cbor2.dumps(value))
    assert isinstance(found, Group)
    return found


def check_signatures(group: Group) -> None:
    for key, message, signature in groups.messages(CHAIN, group):
        nacl.bindings.crypto_sign_open(signature + message, key)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_fits_the_cddl(case: dict[str, Any]) -> None:
    pycddl.Schema(f"root = group\n{CDDL}").validate_cbor(bytes.fromhex(case["cbor"]))


@pytest.mark.parametrize("case", BY_NAME)
def test_vector_is_decoded_to_its_root_and_txids(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["cbor"])
    found = batches.decode_item(VECTOR_CHAIN, data)
    assert isinstance(found, Group)
    assert found.root.hex() == case["root"]
    assert [each.txid.hex() for each in found.transactions] == case["txids"]
    assert groups.group_message(VECTOR_CHAIN, found.total, found.root).hex() == case["signed"]
    assert codec.encode(found.to_value()) == data
    for key, message, signature in groups.messages(VECTOR_CHAIN, found):
        nacl.bindings.crypto_sign_open(signature + message, key)


# --- whole groups and parts -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4, 5, 16, 17, 21, 64, 65])
def test_root_is_that_of_the_definition(count: int) -> None:
    group = group_of(payments(count), [ANNA])
    txids = [each.txid for each in group.transactions]
    assert group.root == root_of(txids)
    assert groups.group_message(CHAIN, count, group.root) == (
        b"comity group\0" + CHAIN + count.to_bytes(8, "big") + root_of(txids)
    )
    assert decoded(group.to_value()) == group
    check_signatures(group)


@pytest.mark.parametrize(
    ("total", "count_max"), [(1, 1), (5, 1), (21, 4), (21, 7), (70, 16), (70, 69)]
)
def test_every_part_proves_itself_under_the_same_signature(total: int, count_max: int) -> None:
    whole = group_of(payments(total), [ANNA])
    parts = groups.split(whole, count_max)
    assert all(len(part.transactions) <= count_max for part in parts)
    flat = [each.txid for part in parts for each in part.transactions]
    assert flat == [each.txid for each in whole.transactions]
    for part in parts:
        again = decoded(part.to_value())
        assert again == part
        assert again.root == whole.root
        check_signatures(again)


def test_1024_transactions_are_one_group_and_1025_are_not() -> None:
    drafts = payments(1025)
    group = group_of(drafts[:1024], [ANNA])
    part = groups.part(group, 1023, 1)
    assert len(part.path) == groups.PATH_MAX
    assert decoded(part.to_value()).root == group.root
    with pytest.raises(LocalProtocolError):
        groups.group_root(drafts)
    value = part.to_value()
    value[1] = 1025
    with pytest.raises(DecodeError):
        decoded(value)


def test_cosigner_may_sign_singly_and_the_author_in_the_group() -> None:
    drafts = [draft(ANNA, 1), draft(ANNA, 2, cosigners=[BORIS])]
    single = BORIS.sign(drafts[1].message)
    group = group_of(drafts, [ANNA], singles=[[], [single]])
    slots = group.transactions[1].signatures
    assert dict(zip(group.transactions[1].signers, slots, strict=True)) == {
        ANNA.key: b"",
        BORIS.key: single,
    }
    check_signatures(decoded(group.to_value()))


def test_part_keeps_only_the_signers_it_needs() -> None:
    drafts = [draft(ANNA, 1), draft(BORIS, 1)]
    whole = group_of(drafts, [ANNA, BORIS])
    part = groups.part(whole, 1, 1)
    assert [key for key, _ in part.signatures] == [BORIS.key]
    check_signatures(decoded(part.to_value()))


# --- what is refused ------------------------------------------------------------------------------


def frame_change(place: int, value: Any) -> list[Any]:
    whole: list[Any] = groups.part(group_of(payments(21), [ANNA]), 4, 4).to_value()
    whole[place] = value
    return whole


SIGNED = group_of(payments(21), [ANNA]).signatures[0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, []),
        (0, None),
        (0, [[SIGNED[0]]]),
        (0, [[SIGNED[0], SIGNED[1][:63]]]),
        (0, [[SIGNED[0][:31], SIGNED[1]]]),
        (0, [list(SIGNED)] * 2),
        (0, [[bytes([n]) * 32, b"s" * 64] for n in range(17)]),
        (1, 0),
        (1, 4),
        (1, 7),
        (1, -1),
        (1, True),
        (1, 2**63),
        (2, -1),
        (2, 5),
        (2, 21),
        (2, 1024),
        (2, None),
        (3, None),
        (3, []),
        (3, [b"h" * 31]),
        (3, [b"h" * 32] * 16),
        (4, []),
        (4, None),
        (4, [None]),
        (4, [[b"body", [b""]]]),
    ],
)
def test_frame_is_refused_with(place: int, value: Any) -> None:
    with pytest.raises(DecodeError):
        decoded(frame_change(place, value))


def test_path_of_another_length_is_refused() -> None:
    part = groups.part(group_of(payments(21), [ANNA]), 4, 4)
    path = list(part.path)
    assert len(path) == 4
    for wrong in ([*path, path[0]], path[:3], [*path, *path]):
        value = part.to_value()
        value[3] = wrong
        with pytest.raises(DecodeError):
            decoded(value)


@pytest.mark.parametrize(
    "change", ["path", "path order", "total", "first", "order", "other", "fewer"]
)
def test_no_other_set_of_transactions_verifies_under_the_signature(change: str) -> None:
    """Whatever is decoded under a changed path, place, total or content has another root."""
    whole = group_of(payments(64), [ANNA])
    value = groups.part(whole, 4, 4).to_value()
    match change:
        case "path":
            value[3][0] = bytes(32)
        case "path order":
            value[3][0], value[3][1] = value[3][1], value[3][0]
        case "total":
            value[1] = 63
        case "first":
            value[2] = 8
        case "order":
            value[4][0], value[4][1] = value[4][1], value[4][0]
        case "other":
            value[4][3] = groups.part(whole, 8, 4).to_value()[4][0]
        case "fewer":
            value[4] = value[4][:1]
    try:
        found = decoded(value)
    except DecodeError:
        return
    assert found.root != whole.root
    with pytest.raises(nacl.exceptions.BadSignatureError):
        check_signatures(found)


def test_group_signature_does_not_serve_another_total() -> None:
    """A root alone could be that of a longer list with the same top; the count is signed twice."""
    whole = group_of(payments(4), [ANNA])
    assert groups.group_message(CHAIN, 4, whole.root) != groups.group_message(CHAIN, 5, whole.root)


def test_slot_is_empty_exactly_if_the_key_signed_the_group() -> None:
    drafts = [draft(ANNA, 1, cosigners=[BORIS]), draft(ANNA, 2)]
    own = ANNA.sign(drafts[0].message)
    group = group_of(drafts, [ANNA], singles=[[BORIS.sign(drafts[0].message)], []])
    body, slots, private = group.to_value()[4][0]
    for wrong in (
        [slot or own for slot in slots],  # filled beside the group's signature
        [b"", b""],  # empty without one
        slots[:1],
        [*slots, b""],
        [],
        [slot[:63] for slot in slots],
    ):
        value = group.to_value()
        value[4][0] = [body, wrong, private]
        with pytest.raises(DecodeError):
            decoded(value)


def test_signer_without_a_slot_is_refused() -> None:
    """Signatures that prove nothing would only cost their checkers time."""
    drafts = payments(2)
    with pytest.raises(DecodeError):
        group_of(drafts, [ANNA, CLARA])


def test_signers_ascend_and_are_distinct() -> None:
    group = group_of([draft(ANNA, 1, cosigners=[BORIS, CLARA])], [ANNA, BORIS, CLARA])
    rows = group.to_value()[0]
    assert decoded(group.to_value()) == group
    for wrong in (rows[::-1], [rows[0], *rows], [rows[1], rows[0], rows[2]]):
        value = group.to_value()
        value[0] = wrong
        with pytest.raises(DecodeError):
            decoded(value)


def test_stripping_a_signer_is_refused() -> None:
    group = group_of([draft(ANNA, 1, cosigners=[BORIS])], [ANNA, BORIS])
    value = group.to_value()
    for row in list(value[0]):
        value[0] = [row]
        with pytest.raises(DecodeError):
            decoded(value)


def test_bad_copy_inside_a_group_is_told_from_a_bad_author() -> None:
    value = group_of(payments(5), [ANNA]).to_value()
    value[4][2][2] = value[4][3][2]
    with pytest.raises(CopyError):
        decoded(value)


@pytest.mark.parametrize(
    "change", [b"\x85" + b"\x80" * 5, b"\x85\x80\x01\x00\x80\x9b" + b"\xff" * 8]
)
def test_hostile_group_is_refused(change: bytes) -> None:
    with pytest.raises(DecodeError):
        batches.decode_item(CHAIN, change)


def test_group_in_a_longer_encoding_is_refused() -> None:
    data = codec.encode(group_of(payments(2), [ANNA]).to_value())
    assert data[0] == 0x85
    for longer in (b"\x98\x05" + data[1:], data + b"\x00", b"\x9f" + data[1:] + b"\xff"):
        with pytest.raises(DecodeError):
            batches.decode_item(CHAIN, longer)


# --- making one -----------------------------------------------------------------------------------


@pytest.mark.parametrize("singles", [[], [[], []], [[b"s" * 63]], [[b"s" * 64, b"s" * 64]]])
def test_builder_wants_the_singles_of_those_who_did_not_sign_the_group(
    singles: list[list[bytes]],
) -> None:
    drafts = [draft(ANNA, 1, cosigners=[BORIS])]
    with pytest.raises(DecodeError):
        group_of(drafts, [ANNA], singles=singles)


def test_builder_refuses_too_many_signers() -> None:
    many = [Author(number) for number in range(10, 27)]
    with pytest.raises(DecodeError):
        group_of([draft(ANNA, 1, cosigners=many)], many, singles=[[b"s" * 64]])


def test_parts_are_cut_from_a_whole_group_at_aligned_places() -> None:
    whole = group_of(payments(21), [ANNA])
    for first, count in ((1, 4), (2, 2), (0, 8), (4, 16), (20, 2), (21, 1)):
        with pytest.raises(LocalProtocolError):
            groups.part(whole, first, count)
    with pytest.raises(LocalProtocolError):
        groups.part(replace(groups.part(whole, 4, 4)), 4, 1)
