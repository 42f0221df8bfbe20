"""Blocks that this node lacks: what to ask for, whom, when; and answers for those who lack ours.

A certificate names a block that is not in the tree. If it is near, the block and its ancestors are
asked for by id: their hashes prove them. If it is far, pages are asked for by height, each proved
by the certificate on its last block. Heights are believed only from verified certificates.

Not here: inserting what arrives (``replica``), delivered blocks (storage answers for them).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from consensus.hotstuff.blocktree import BlockTree
from consensus.hotstuff.events import FetchBlocks, ReplicaConfig, Send, ServeBlocks
from consensus.hotstuff.safety import Safety
from consensus.hotstuff.types import (
    BlocksRequest,
    BlocksResponse,
    Proposal,
    QuorumCert,
    Statement,
)
from consensus.hotstuff.wire import BLOCKS_PER_RESPONSE_MAX

NEAR_MAX: Final = BLOCKS_PER_RESPONSE_MAX // 2
"""Missing heights up to which a block is asked for by its id."""

GUESTS_MAX: Final = 64
"""Peers without a vote in the epoch that are asked; the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Target:
    """A certified block that is not in the tree."""

    block_id: bytes
    height: int


class Fetcher:
    """One request in flight, asked of the next peers when it stays unanswered.

    Members of the committee are asked, and whoever else connected: when the epoch is over, its
    members may all be gone.

    Args:
        epoch, own, size: of the committee.
    """

    def __init__(self, config: ReplicaConfig, epoch: int, own: int, size: int) -> None:
        self._config = config
        self._epoch = epoch
        self._size = size
        self._ring = [peer for step in range(1, size + 1) if (peer := (own + step) % size) != own]
        self._target: Target | None = None
        self._next_ms = 0
        self._attempt = 0
        self._from_root = False
        self._asked: tuple[int, ...] = ()

    @property
    def due_ms(self) -> int | None:
        """When ``ask`` will have something to say; None while nothing is missing."""
        return None if self._target is None else self._next_ms

    def welcome(self, peer: int) -> None:
        """Ask a peer that connected, too, if it is none of the committee."""
        if peer < self._size or peer in self._ring:
            return
        self._ring.append(peer)
        guests = [other for other in self._ring if other >= self._size]
        if len(guests) > GUESTS_MAX:
            self._ring.remove(guests[0])

    def prefer(self, peer: int) -> None:
        """Ask ``peer`` first: it showed the certificate, so it should have the block."""
        if peer in self._ring:
            at = self._ring.index(peer)
            self._ring = self._ring[at:] + self._ring[:at]
            self._attempt = 0

    def look(self, target: Target | None, now_ms: int) -> None:
        """Take note of the most wanted missing block. A short wait first: it may be on its way."""
        if target == self._target:
            return
        if self._target is None:
            self._next_ms = now_ms + self._config.fetch_delay_ms
        if target is None:
            self._from_root = False
        self._target = target

    def expects(self, peer: int) -> bool:
        """Whether an answer of this peer is awaited; each peer asked may answer once."""
        if peer not in self._asked:
            return False
        self._asked = tuple(other for other in self._asked if other != peer)
        return True

    def answered(self, peer: int, now_ms: int, *, linked: bool, fresh: bool) -> None:
        """Take note of an answer: whether its blocks join the tree, and whether any was new.

        If they do not, our own branch is the doubtful one: start again from the root.
        """
        self._from_root = not linked
        if linked and fresh:
            self._next_ms = now_ms
            self.prefer(peer)

    def ask(self, tree: BlockTree, now_ms: int) -> FetchBlocks | None:
        """Return the request to send now, or None."""
        target = self._target
        if target is None or now_ms < self._next_ms:
            return None
        tip = tree.ordered_tip.block.height
        if tip - tree.executed.block.height > self._config.fetch_ahead_max or tree.full:
            return None
        base = tree.root.block.height
        if not self._from_root and tip < target.height:
            base = tip
        gap = target.height - base
        if gap <= NEAR_MAX:
            request = BlocksRequest(self._epoch, base + 1, target.block_id, gap)
        else:
            request = BlocksRequest(self._epoch, base + 1, None, BLOCKS_PER_RESPONSE_MAX)
        first = self._attempt % len(self._ring)
        second = (first + 1) % len(self._ring)
        near = request.block_id is not None
        peers = (self._ring[first], self._ring[second]) if near else (self._ring[first],)
        self._attempt += len(peers)
        self._asked = peers
        self._next_ms = now_ms + self._config.fetch_retry_ms
        return FetchBlocks(request, peers)


def certified_ids(safety: Safety, orphans: dict[bytes, Proposal]) -> tuple[bytes, ...]:
    """Return the blocks that certificates in our hands name and that may be missing."""
    commit = safety.commit_cert
    certified = () if commit is None else (commit.statement.block_id,)
    parents = (orphan.block.parent_id for orphan in orphans.values())
    return (*certified, safety.high_qc.block_id, *parents)


def missing(tree: BlockTree, safety: Safety, orphans: dict[bytes, Proposal]) -> Target | None:
    """Return the certified block most wanted and not in the tree: final, ordered, extended."""
    commit, root = safety.commit_cert, tree.root.block
    named: list[Statement | QuorumCert] = [safety.high_qc]
    if commit is not None:
        named.insert(0, commit.statement)
    if orphans:
        named.append(max(orphans.values(), key=lambda p: p.block.round).block.justify)
    for each in named:
        ahead = each.height > root.height and each.round > tree.root.round
        if ahead and tree.get(each.block_id) is None:
            return Target(each.block_id, each.height)
    return None


def serve(
    tree: BlockTree, epoch: int, request: BlocksRequest, peer: int
) -> Send | ServeBlocks | None:
    """Return the answer to a peer's request, or ``ServeBlocks`` for delivered blocks, or None.

    Whoever lacks delivered blocks gets those first, by height, and asks again; blocks of an epoch
    before the tree's are all delivered.
    """
    root = tree.root.block.height
    if request.from_height <= root or request.epoch != epoch:
        return ServeBlocks(peer, replace(request, block_id=None))
    if request.block_id is None:
        last = tree.ancestor(tree.ordered_tip, request.from_height + request.count - 1)
    else:
        node = tree.get(request.block_id)
        if node is None:
            return None
        last = node
    if not request.from_height <= last.block.height < request.from_height + request.count:
        return None
    base = tree.ancestor(last, request.from_height - 1)
    blocks = tuple(node.block for node in tree.path(base, last))
    return Send(peer, BlocksResponse(blocks, last.commit_cert or last.qc))
