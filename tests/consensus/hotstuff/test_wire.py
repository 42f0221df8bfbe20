"""Bytes in, messages out, and nothing else in between: every decoder against hostile input."""

from __future__ import annotations

from dataclasses import replace

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import DecodeError
from consensus.hotstuff import wire
from consensus.hotstuff.types import (
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitVote,
    Message,
    QuorumCert,
    SafetyRecord,
    TimeoutCert,
    first_record,
)

from . import builders as make
from .driver import batch

B1, B2 = make.chain(1, 2)
QC1 = make.quorum_cert(B1)
TC2 = make.timeout_cert(2, QC1)
CC1 = make.commit_cert(make.statement(B1))
MESSAGES: list[Message] = [
    make.proposal(make.block(QC1, 3, entry=TC2, payload=[batch(1, lane=1), batch(2)]), CC1),
    make.vote(B1, 2, held=(0, 5, 2**40, 7)),
    make.timeout(3, 1, QC1, TC2, CC1),
    make.commit_vote(make.statement(B1), 3),
    Certificates(1, QC1, None, CC1),
    BlocksRequest(1, 5, B1.id, 3),
    BlocksResponse((B1, B2), CC1),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_survives_the_wire(message: Message) -> None:
    assert wire.decode_message(wire.encode_message(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_cut_and_appended_byte_is_refused(message: Message) -> None:
    data = wire.encode_message(message)
    for end in range(len(data)):
        with pytest.raises(DecodeError):
            wire.decode_message(data[:end])
    with pytest.raises(DecodeError):
        wire.decode_message(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_flipped_bytes_are_refused_or_give_another_canonical_message(
    message: Message, data: st.DataObject
) -> None:
    raw = bytearray(wire.encode_message(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = wire.decode_message(bytes(raw))
    except DecodeError:
        return
    assert wire.encode_message(decoded) == bytes(raw)


def outcome(data: bytes) -> Message | str:
    try:
        return wire.decode_message(data)
    except DecodeError as error:
        return str(error)


@pytest.mark.parametrize("validator", [0, 3, 23, 24, 63, 64])
def test_votes_on_a_statement_that_was_seen_are_decoded_as_if_it_were_new(validator: int) -> None:
    first, second = make.statement(B1), make.statement(B2)
    seen = wire.encode_message(make.commit_vote(first, 3))
    signed = seen[-66:]
    datas = [
        b"\x84\x04" + each.encoded + cbor2.dumps(validator) + signed for each in (first, second)
    ]
    datas += [
        datas[0][:at] + bytes([datas[0][at] ^ flip]) + datas[0][at + 1 :]
        for at in range(len(datas[0]))
        for flip in (1, 4, 0x80)
    ]
    datas += [datas[0][:-1], datas[0] + b"\0", datas[0][:2] + datas[0][3:], b"\x84\x04" + signed]
    for data in datas:
        wire._STATEMENTS.clear()
        fresh = outcome(data)
        wire._STATEMENTS.clear()
        wire.decode_message(seen)
        assert outcome(data) == fresh
        assert len(wire._STATEMENTS) <= 2


def test_statements_that_are_remembered_are_bounded() -> None:
    for height in range(1, 200):
        statement = replace(make.statement(B1), height=height)
        vote = make.commit_vote(statement, 1)
        assert wire.decode_message(wire.encode_message(vote)) == vote
        assert len(wire._STATEMENTS) <= wire._STATEMENTS_MAX


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 9))
def test_garbage_is_refused_with_the_documented_error(tail: bytes, kind: int) -> None:
    for data in (tail, bytes([0x84, kind]) + tail):
        try:
            wire.decode_message(data)
        except DecodeError:
            continue
        raise AssertionError("garbage was accepted")


def test_longer_than_the_limit_of_its_kind_is_refused_unparsed() -> None:
    for kind, limit in wire.LIMITS_BYTES.items():
        with pytest.raises(DecodeError, match="at most"):
            wire.decode_message(bytes([0x88, kind]) + bytes(limit))


def test_largest_honest_messages_fit_their_limits() -> None:
    """64 validators, the most items, the largest integers."""
    top = 2**63 - 1
    size = 64
    sigs = tuple((i, b"s" * 64) for i in range(size))
    qc = QuorumCert(top, top, b"i" * 32, top, sigs)
    tc = TimeoutCert(top, top, tuple((i, top, b"s" * 64) for i in range(size)), qc)
    items = [[b"d" * 32, 63, top, 1, top, top] for _ in range(wire.PAYLOAD_ITEMS_MAX)]
    block = [top, top, top, b"p" * 32, qc.to_value(), tc.to_value(), top, items, b"c" * 32]
    claim = make.statement(B1).to_value()
    cc = [claim, [[i, b"s" * 64] for i in range(size)]]
    rest = [qc.to_value(), tc.to_value(), cc]
    sized = {
        wire.KIND_PROPOSAL: [1, block, b"s" * 64, *rest],
        wire.KIND_TIMEOUT: [3, top, top, top, 63, b"s" * 64, *rest],
        wire.KIND_CERTIFICATES: [5, top, *rest],
        wire.KIND_VOTE: [2, top, top, b"b" * 32, top, 63, b"s" * 64, [top] * size],
        wire.KIND_BLOCKS_RESPONSE: [7, [block] * 32, [2, cc]],
    }
    assert len(cbor2.dumps(block)) <= wire.BLOCK_BYTES_MAX
    for kind, value in sized.items():
        data = cbor2.dumps(value, canonical=True)
        assert len(data) <= wire.LIMITS_BYTES[kind]
        wire.decode_message(data)


def test_more_than_the_bounds_is_refused() -> None:
    too_many = tuple(batch(i) for i in range(wire.PAYLOAD_ITEMS_MAX + 1))
    for message in (
        make.proposal(make.block(payload=too_many)),
        make.vote(B1, 0, held=(0,) * 65),
        BlocksRequest(1, 1, None, wire.BLOCKS_PER_RESPONSE_MAX + 1),
        BlocksRequest(1, 1, None, 0),
        BlocksRequest(1, 0, None, 1),
        BlocksResponse((B1,) * (wire.BLOCKS_PER_RESPONSE_MAX + 1), None),
        BlocksResponse((), None),
    ):
        with pytest.raises(DecodeError):
            wire.decode_message(wire.encode_message(message))


def test_timeout_certificate_is_no_proof_of_blocks_and_commit_none_of_entry() -> None:
    page = [7, [B1.to_value()], [1, TC2.to_value()]]
    with pytest.raises(DecodeError, match="proves no block"):
        wire.decode_message(cbor2.dumps(page, canonical=True))
    record = cbor2.loads(wire.encode_record(first_record(make.GENESIS)))
    record[2] = [2, CC1.to_value()]
    with pytest.raises(DecodeError, match="not entered by"):
        wire.decode_record(cbor2.dumps(record, canonical=True))


def test_record_survives_with_everything_in_it() -> None:
    votes: tuple[CommitVote, ...] = (make.commit_vote(make.statement(B2), 0),)
    entered_by = timeout_entry = make.timeout_cert(3, QC1)
    record = SafetyRecord(
        1,
        QC1,
        entered_by,
        CC1,
        make.vote(B1, 0),
        make.timeout(4, 0, QC1, timeout_entry),
        make.proposal(make.block(QC1, 4, entry=entered_by)),
        votes,
        7,
        ((2, 0), (4, 1)),
    )
    assert wire.decode_record(wire.encode_record(record)) == record
    data = wire.encode_record(record)
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 0x40
        try:
            wire.decode_record(bytes(changed))
        except DecodeError:
            continue


@pytest.mark.parametrize("count", [0, 23, 24, wire.COMMIT_VOTES_MAX])
def test_arrays_of_encoded_items_are_what_a_plain_encoder_writes(count: int) -> None:
    blocks = tuple(make.chain(*range(1, count + 1)))
    votes = tuple(make.commit_vote(make.statement(block), 0) for block in blocks)
    record = replace(first_record(make.GENESIS), commit_votes=votes)
    data = wire.encode_record(record)
    assert cbor2.dumps(cbor2.loads(data), canonical=True) == data
    assert wire.decode_record(data) == record
    page = wire.encode_message(BlocksResponse(blocks, None))
    assert cbor2.dumps(cbor2.loads(page), canonical=True) == page
