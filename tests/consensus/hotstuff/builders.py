"""Blocks, certificates and signed messages of a four-validator committee, made directly."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.hotstuff.types import (
    Block,
    CommitCert,
    CommitVote,
    PayloadItem,
    Proposal,
    QuorumCert,
    SignKind,
    Statement,
    Timeout,
    TimeoutCert,
    Vote,
    genesis_cert,
    timeout_body,
    vote_body,
)

from .driver import CHAIN, committee_of, genesis_of, sign

COMMITTEE = committee_of(4)
GENESIS = genesis_of(COMMITTEE)
GENESIS_QC = genesis_cert(GENESIS)
QUORUM = (0, 1, 2)


def block(
    justify: QuorumCert = GENESIS_QC,
    round_: int | None = None,
    *,
    entry: TimeoutCert | None = None,
    payload: Sequence[PayloadItem] = (),
    time_ms: int | None = None,
) -> Block:
    number = justify.round + 1 if round_ is None else round_
    when = GENESIS.time_ms + 10 * number if time_ms is None else time_ms
    return Block(
        1,
        number,
        justify.height + 1,
        justify.block_id,
        justify,
        entry,
        when,
        tuple(payload),
        COMMITTEE.hash,
    )


def quorum_cert(on: Block, signers: Sequence[int] = QUORUM) -> QuorumCert:
    body = vote_body(1, on.round, on.id, on.height)
    signatures = tuple((i, sign(i, SignKind.VOTE, body)) for i in signers)
    return QuorumCert(1, on.round, on.id, on.height, signatures)


def timeout_cert(
    round_: int, high: QuorumCert, rounds: Sequence[tuple[int, int]] | None = None
) -> TimeoutCert:
    pairs = [(i, high.round) for i in QUORUM] if rounds is None else rounds
    entries = tuple((i, h, sign(i, SignKind.TIMEOUT, timeout_body(1, round_, h))) for i, h in pairs)
    return TimeoutCert(1, round_, entries, high)


def statement(on: Block, root: bytes = bytes(32)) -> Statement:
    return Statement(
        CHAIN, 1, on.round, on.height, on.id, on.time_ms, 1, root, root, root, root, None
    )


def commit_cert(on: Statement, signers: Sequence[int] = QUORUM) -> CommitCert:
    signatures = tuple((i, sign(i, SignKind.COMMIT_VOTE, on.encode())) for i in signers)
    return CommitCert(on, signatures)


def proposal(on: Block, commit: CommitCert | None = None) -> Proposal:
    leader = COMMITTEE.leader(on.round)
    return Proposal(on, sign(leader, SignKind.PROPOSAL, on.id), None, None, commit)


def vote(on: Block, validator: int, held: tuple[int, ...] = ()) -> Vote:
    body = vote_body(1, on.round, on.id, on.height)
    signature = sign(validator, SignKind.VOTE, body)
    return Vote(1, on.round, on.id, on.height, validator, signature, held)


def timeout(
    round_: int,
    validator: int,
    high: QuorumCert = GENESIS_QC,
    entry: TimeoutCert | None = None,
    commit: CommitCert | None = None,
) -> Timeout:
    signature = sign(validator, SignKind.TIMEOUT, timeout_body(1, round_, high.round))
    return Timeout(1, round_, high.round, validator, signature, high, entry, commit)


def commit_vote(on: Statement, validator: int) -> CommitVote:
    return CommitVote(on, validator, sign(validator, SignKind.COMMIT_VOTE, on.encode()))


def chain(*rounds: int) -> list[Block]:
    """Blocks on one branch in these rounds; a skipped round is proved by a timeout certificate."""
    blocks: list[Block] = []
    high = GENESIS_QC
    for round_ in rounds:
        entry = None if round_ == high.round + 1 else timeout_cert(round_ - 1, high)
        blocks.append(block(high, round_, entry=entry))
        high = quorum_cert(blocks[-1])
    return blocks
