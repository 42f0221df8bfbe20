"""Bytes of consensus messages and of the safety record: canonical CBOR arrays, checked on entry.

A message is ``[kind, ...]``; its first two bytes tell the kind, so the limit of that kind holds
before anything is parsed. docs/protocol/consensus.cddl is the same in CDDL.

Not here: whether signatures hold (``certificates``). What is decoded is well-formed, no more.
"""

from __future__ import annotations

from typing import Any, Final, assert_never

from consensus import codec
from consensus.codec import Shape, Value
from consensus.committee import VALIDATORS_MAX
from consensus.errors import DecodeError
from consensus.hotstuff.types import (
    LANE_ORDINARY,
    LANE_PROTECTIVE,
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    CommitVote,
    Message,
    PayloadItem,
    Proposal,
    QuorumCert,
    SafetyRecord,
    Statement,
    Timeout,
    TimeoutCert,
    Vote,
)

KIND_PROPOSAL: Final = 1
KIND_VOTE: Final = 2
KIND_TIMEOUT: Final = 3
KIND_COMMIT_VOTE: Final = 4
KIND_CERTIFICATES: Final = 5
KIND_BLOCKS_REQUEST: Final = 6
KIND_BLOCKS_RESPONSE: Final = 7

PAYLOAD_ITEMS_MAX: Final = 1024
BLOCKS_PER_RESPONSE_MAX: Final = 32
COMMIT_VOTES_MAX: Final = 128
SIGNED_TIMEOUTS_MAX: Final = 256

BLOCK_BYTES_MAX: Final = 96 * 1024
"""1024 items of at most 69 bytes and three certificates of 64 signatures fit."""

LIMITS_BYTES: Final = {
    KIND_PROPOSAL: 128 * 1024,
    KIND_VOTE: 1024,
    KIND_TIMEOUT: 24 * 1024,
    KIND_COMMIT_VOTE: 1024,
    KIND_CERTIFICATES: 24 * 1024,
    KIND_BLOCKS_REQUEST: 128,
    KIND_BLOCKS_RESPONSE: BLOCKS_PER_RESPONSE_MAX * BLOCK_BYTES_MAX + 8 * 1024,
}
"""Longest accepted encoding of each kind."""

RECORD_BYTES_MAX: Final = 1024 * 1024

# --- shapes -------------------------------------------------------------------------------------

_validator: Final = codec.integer(0, VALIDATORS_MAX - 1)
_epoch: Final = codec.integer(1)
_signature: Final = codec.bytes64
_signatures: Final = codec.list_of(codec.array(_validator, _signature), VALIDATORS_MAX)

PAYLOAD_ITEM: Final = codec.array(
    codec.bytes32,  # digest
    _validator,  # origin
    codec.count,  # number
    codec.integer(LANE_ORDINARY, LANE_PROTECTIVE),  # lane
    codec.integer(1),  # transactions
    codec.integer(1),  # bytes
)
QUORUM_CERT: Final = codec.array(_epoch, codec.count, codec.bytes32, codec.count, _signatures)
TIMEOUT_CERT: Final = codec.array(
    _epoch,
    codec.integer(1),  # round
    codec.list_of(codec.array(_validator, codec.count, _signature), VALIDATORS_MAX),
    QUORUM_CERT,
)
BLOCK: Final = codec.array(
    _epoch,
    codec.count,  # round
    codec.count,  # height
    codec.bytes32,  # parent_id
    QUORUM_CERT,  # justify
    codec.optional(TIMEOUT_CERT),
    codec.count,  # time_ms
    codec.list_of(PAYLOAD_ITEM, PAYLOAD_ITEMS_MAX),
    codec.bytes32,  # committee_hash
)
STATEMENT: Final = codec.array(
    codec.bytes32,  # chain
    _epoch,
    codec.count,  # round
    codec.count,  # height
    codec.bytes32,  # block_id
    codec.count,  # time_ms
    codec.count,  # executor
    codec.bytes32,  # state_root
    codec.bytes32,  # results_root
    codec.bytes32,  # changes_root
    codec.bytes32,  # history_root
    codec.optional(codec.bytes32),  # next_committee_hash
)
COMMIT_CERT: Final = codec.array(STATEMENT, _signatures)
CERTIFICATE: Final = codec.tagged(
    {
        0: codec.array(codec.integer(0, 0), QUORUM_CERT),
        1: codec.array(codec.integer(1, 1), TIMEOUT_CERT),
        2: codec.array(codec.integer(2, 2), COMMIT_CERT),
    }
)
"""A certificate of any of the three kinds, in a place that admits several."""

_opt_qc: Final = codec.optional(QUORUM_CERT)
_opt_tc: Final = codec.optional(TIMEOUT_CERT)
_opt_cc: Final = codec.optional(COMMIT_CERT)


def _kind(number: int) -> Shape:
    return codec.integer(number, number)


PROPOSAL: Final = codec.array(_kind(KIND_PROPOSAL), BLOCK, _signature, _opt_qc, _opt_tc, _opt_cc)
VOTE: Final = codec.array(
    _kind(KIND_VOTE),
    _epoch,
    codec.integer(1),  # round
    codec.bytes32,  # block_id
    codec.integer(1),  # height
    _validator,
    _signature,
    codec.list_of(codec.count, VALIDATORS_MAX),  # held
)
TIMEOUT: Final = codec.array(
    _kind(KIND_TIMEOUT),
    _epoch,
    codec.integer(1),  # round
    codec.count,  # high_round
    _validator,
    _signature,
    QUORUM_CERT,
    _opt_tc,
    _opt_cc,
)
COMMIT_VOTE: Final = codec.array(_kind(KIND_COMMIT_VOTE), STATEMENT, _validator, _signature)
CERTIFICATES: Final = codec.array(_kind(KIND_CERTIFICATES), _epoch, _opt_qc, _opt_tc, _opt_cc)
BLOCKS_REQUEST: Final = codec.array(
    _kind(KIND_BLOCKS_REQUEST),
    _epoch,
    codec.integer(1),  # from_height
    codec.optional(codec.bytes32),
    codec.integer(1, BLOCKS_PER_RESPONSE_MAX),
)
BLOCKS_RESPONSE: Final = codec.array(
    _kind(KIND_BLOCKS_RESPONSE),
    codec.list_of(BLOCK, BLOCKS_PER_RESPONSE_MAX, low=1),
    codec.optional(CERTIFICATE),
)
_SHAPES: Final = {
    KIND_PROPOSAL: PROPOSAL,
    KIND_VOTE: VOTE,
    KIND_TIMEOUT: TIMEOUT,
    KIND_COMMIT_VOTE: COMMIT_VOTE,
    KIND_CERTIFICATES: CERTIFICATES,
    KIND_BLOCKS_REQUEST: BLOCKS_REQUEST,
    KIND_BLOCKS_RESPONSE: BLOCKS_RESPONSE,
}
RECORD: Final = codec.array(
    _epoch,
    QUORUM_CERT,
    CERTIFICATE,  # entry_cert
    _opt_cc,
    codec.optional(VOTE),
    codec.optional(TIMEOUT),
    codec.optional(PROPOSAL),
    codec.list_of(COMMIT_VOTE, COMMIT_VOTES_MAX),
    codec.count,  # commit_floor
    codec.list_of(codec.array(codec.integer(1), codec.count), SIGNED_TIMEOUTS_MAX),
)

# --- messages -----------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    """Return the canonical bytes of a message."""
    match message:
        case Proposal(block, signature):
            return _array(
                codec.encode(KIND_PROPOSAL),
                block.encoded,
                codec.encode(signature),
                *_highest(message),
            )
        case Vote(epoch, round_, block_id, height, validator, signature, held):
            row = [KIND_VOTE, epoch, round_, block_id, height, validator, signature, list(held)]
            return codec.encode(row)
        case Timeout(epoch, round_, high_round, validator, signature):
            row = [KIND_TIMEOUT, epoch, round_, high_round, validator, signature]
            return _array(*map(codec.encode, row), *_highest(message))
        case CommitVote(statement, validator, signature):
            return _array(
                codec.encode(KIND_COMMIT_VOTE),
                statement.encoded,
                codec.encode(validator),
                codec.encode(signature),
            )
        case Certificates(epoch):
            return _array(codec.encode(KIND_CERTIFICATES), codec.encode(epoch), *_highest(message))
        case BlocksRequest(epoch, from_height, block_id, count):
            return codec.encode([KIND_BLOCKS_REQUEST, epoch, from_height, block_id, count])
        case BlocksResponse(blocks, certificate):
            return _array(
                codec.encode(KIND_BLOCKS_RESPONSE),
                _array(*[block.encoded for block in blocks]),
                _NULL if certificate is None else _certificate(certificate),
            )
        case _:
            assert_never(message)


def decode_message(data: bytes) -> Message:
    """Return the message that untrusted bytes hold.

    Raises:
        DecodeError: unknown kind, beyond the limit of its kind, wrong shape or not canonical.
    """
    if len(data) < 2:
        raise DecodeError("too short for a message", path="message")
    if data[1] == KIND_COMMIT_VOTE:
        vote = _repeated(data)
        if vote is not None:
            return vote
    shape = _SHAPES.get(data[1])  # kinds are below 24, hence the whole second byte
    if shape is None:
        raise DecodeError(f"unknown kind {data[1]}", path="message")
    value = codec.decode(data, shape, bytes_max=LIMITS_BYTES[data[1]], what="message")
    return _message_from(value)


_STATEMENTS_MAX: Final = 64
_STATEMENTS: Final[dict[bytes, Statement]] = {}
"""Statements of commit votes that were decoded in full, by their bytes."""
_SIGNATURE_HEAD: Final = codec.encode(bytes(64))[:2]
_TAIL_BYTES: Final = 1 + 2 + 64
"""A validator below 24 and a signature."""


def _repeated(data: bytes) -> CommitVote | None:
    """Return a commit vote whose statement is one that another vote had: what follows is little.

    It differs from ``decode_message`` in cost alone; None: it is not such a vote, or not sound.
    """
    statement = _STATEMENTS.get(data[2:-_TAIL_BYTES])
    if statement is None or data[0] != 0x84 or data[-_TAIL_BYTES] >= 24:
        return None
    if data[-_TAIL_BYTES + 1 : -64] != _SIGNATURE_HEAD:
        return None
    return CommitVote(statement, data[-_TAIL_BYTES], data[-64:])


def _keep(statement: Statement) -> None:
    if len(_STATEMENTS) >= _STATEMENTS_MAX:
        _STATEMENTS.clear()
    _STATEMENTS[statement.encoded] = statement


def encode_block(block: Block) -> bytes:
    """Return the canonical bytes whose hash is the block's id (for the log)."""
    return block.encoded


def decode_block(data: bytes) -> Block:
    """Return the block; raises DecodeError."""
    return block_from(codec.decode(data, BLOCK, bytes_max=BLOCK_BYTES_MAX, what="block"))


def encode_commit_cert(certificate: CommitCert) -> bytes:
    """Return the canonical bytes of a commit certificate (for storage and clients)."""
    return certificate.encoded


def decode_commit_cert(data: bytes) -> CommitCert:
    """Return the certificate; raises DecodeError."""
    return commit_cert_from(codec.decode(data, COMMIT_CERT, bytes_max=8192, what="commit_cert"))


def encode_record(record: SafetyRecord) -> bytes:
    """Return the canonical bytes of a safety record."""
    return _array(
        codec.encode(record.epoch),
        record.high_qc.encoded,
        _certificate(record.entry_cert),
        _optional(record.commit_cert),
        _NULL if record.last_vote is None else encode_message(record.last_vote),
        _NULL if record.last_timeout is None else encode_message(record.last_timeout),
        _NULL if record.last_proposal is None else encode_message(record.last_proposal),
        _array(*[encode_message(vote) for vote in record.commit_votes]),
        codec.encode(record.commit_floor),
        codec.encode([list(pair) for pair in record.signed_timeouts]),
    )


def decode_record(data: bytes) -> SafetyRecord:
    """Return the safety record; raises DecodeError."""
    value = codec.decode(data, RECORD, bytes_max=RECORD_BYTES_MAX, what="safety_record")
    epoch, high, entry, commit, vote, timeout, proposal, commits, floor, pairs = value
    entry_cert = certificate_from(entry)
    if isinstance(entry_cert, CommitCert):
        raise DecodeError("a round is not entered by a commit certificate", path="safety_record[2]")
    return SafetyRecord(
        epoch,
        quorum_cert_from(high),
        entry_cert,
        None if commit is None else commit_cert_from(commit),
        None if vote is None else _vote_from(vote),
        None if timeout is None else _timeout_from(timeout),
        None if proposal is None else _proposal_from(proposal),
        tuple(_commit_vote_from(row) for row in commits),
        floor,
        tuple((t, h) for t, h in pairs),
    )


# --- arrays of what is encoded already ------------------------------------------------------------

_NULL: Final = codec.encode(None)


def _array(*items: bytes) -> bytes:
    """Return the canonical array of at most 255 items, each given by its canonical encoding."""
    count = len(items)
    head = bytes([0x80 + count]) if count < 24 else bytes([0x98, count])
    return head + b"".join(items)


def _optional(certificate: QuorumCert | TimeoutCert | CommitCert | None) -> bytes:
    return _NULL if certificate is None else certificate.encoded


def _highest(message: Proposal | Timeout | Certificates) -> tuple[bytes, bytes, bytes]:
    return (
        _optional(message.high_qc),
        _optional(message.timeout_cert),
        _optional(message.commit_cert),
    )


def _certificate(certificate: QuorumCert | TimeoutCert | CommitCert) -> bytes:
    kind = (QuorumCert, TimeoutCert, CommitCert).index(type(certificate))
    return _array(codec.encode(kind), certificate.encoded)


# --- values: from, after their shape was checked ------------------------------------------------


def quorum_cert_from(value: Value) -> QuorumCert:
    """Return the certificate of a checked value."""
    epoch, round_, block_id, height, rows = value
    return QuorumCert(epoch, round_, block_id, height, tuple((v, s) for v, s in rows))


def timeout_cert_from(value: Value) -> TimeoutCert:
    """Return the certificate of a checked value."""
    epoch, round_, rows, high = value
    return TimeoutCert(epoch, round_, tuple((v, h, s) for v, h, s in rows), quorum_cert_from(high))


def statement_from(value: Value) -> Statement:
    """Return the statement of a checked value."""
    return Statement(*value)


def commit_cert_from(value: Value) -> CommitCert:
    """Return the certificate of a checked value."""
    statement, rows = value
    return CommitCert(statement_from(statement), tuple((v, s) for v, s in rows))


def certificate_from(value: Value) -> QuorumCert | TimeoutCert | CommitCert:
    """Return the certificate of a checked ``CERTIFICATE`` value."""
    kind, body = value
    if kind == 0:
        return quorum_cert_from(body)
    return timeout_cert_from(body) if kind == 1 else commit_cert_from(body)


def block_from(value: Value) -> Block:
    """Return the block of a checked value."""
    epoch, round_, height, parent_id, justify, timeout_cert, time_ms, items, committee_hash = value
    return Block(
        epoch,
        round_,
        height,
        parent_id,
        quorum_cert_from(justify),
        None if timeout_cert is None else timeout_cert_from(timeout_cert),
        time_ms,
        tuple(PayloadItem(*item) for item in items),
        committee_hash,
    )


def _highest_from(high: Value, timeout: Value, commit: Value) -> tuple[Any, Any, Any]:
    return (
        None if high is None else quorum_cert_from(high),
        None if timeout is None else timeout_cert_from(timeout),
        None if commit is None else commit_cert_from(commit),
    )


def _proposal_from(value: Value) -> Proposal:
    _, block, signature, *highest = value
    return Proposal(block_from(block), signature, *_highest_from(*highest))


def _vote_from(value: Value) -> Vote:
    _, epoch, round_, block_id, height, validator, signature, held = value
    return Vote(epoch, round_, block_id, height, validator, signature, tuple(held))


def _timeout_from(value: Value) -> Timeout:
    _, epoch, round_, high_round, validator, signature, *highest = value
    certificates = _highest_from(*highest)
    return Timeout(epoch, round_, high_round, validator, signature, *certificates)


def _commit_vote_from(value: Value) -> CommitVote:
    _, statement, validator, signature = value
    return CommitVote(statement_from(statement), validator, signature)


def _message_from(value: Value) -> Message:
    match value[0]:
        case 1:
            return _proposal_from(value)
        case 2:
            return _vote_from(value)
        case 3:
            return _timeout_from(value)
        case 4:
            vote = _commit_vote_from(value)
            _keep(vote.statement)
            return vote
        case 5:
            return Certificates(value[1], *_highest_from(*value[2:]))
        case 6:
            return BlocksRequest(*value[1:])
        case _:
            certificate = None if value[2] is None else certificate_from(value[2])
            if isinstance(certificate, TimeoutCert):
                raise DecodeError("a timeout certificate proves no block", path="message[2]")
            return BlocksResponse(tuple(block_from(row) for row in value[1]), certificate)
