"""Marks of rare branches: a run set that never reaches one of them has tested less than it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.hotstuff import events as ev
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.safety import Refused, TwoChain
from consensus.hotstuff.types import Block, Proposal, SignKind, Statement, Timeout

SOMETIMES: Final = (
    # faults
    "crash during a sync",
    "a write torn by a power cut",
    "torn tail of the log cut",
    "log ahead of the signer's mark",
    "process killed",
    "power failed during recovery",
    "log turned",
    "stopped by a failing disk: full",
    "stopped by a failing disk: read-only",
    "stopped by a failing disk: sync",
    "no start from a failed disk",
    "f + 1 away",
    "ring partition",
    "old message came again",
    "a clock set forward",
    "a clock set back",
    "every clock set",
    "crash between two effects",
    "all crashed at once",
    "all crashed at one node's effect",
    "one-way partition",
    "restart with blocks above the store",
    "a validator stayed dead",
    # rounds
    "timeout signed",
    "timeout joined because f + 1 gave up",
    "timeout with an older certificate than its round's parent",
    "proposal after a timeout certificate",
    "block held because it came early",
    "empty block",
    "voted block abandoned",
    # a traitor
    "two proposals for one round",
    "two votes in one round",
    "two commit votes for one round",
    # commit
    "undo",
    "commit vote refused after a timeout",
    "commit vote by the two-chain",
    "delivery by a descendant's certificate",
    # catching up
    "blocks fetched by id",
    "blocks fetched by height",
    "delivered blocks served",
    "batch fetched",
    "batch pushed again",
    "batch announced",
    "announcement answered",
    "hello without what is not durable yet",
    # epochs
    "epoch changed",
    "an epoch began while a member was down",
    "power failed as an epoch began",
    "a member left",
    "a member joined",
    "a member came back",
    "a member with another key",
    "a member in another place",
    "a change ended by objections",
    "a traitor joined",
    "a traitor left",
    "a traitor lied in a later epoch",
    "a vote without a seat refused",
    "several epochs behind",
    "a new member voted",
    "a joiner started after it was elected",
    "a removed node was asked",
    "blocks ordered beyond the end of an epoch",
    "old epoch's message answered",
    "batch of an earlier epoch made anew",
    # ledger
    "REQUIREMENT",
    "NEEDS_APPROVAL",
    "INSUFFICIENT",
    "SEQUENCE_SPENT",
    "STALE",
    "HELD",
    "EXPIRED",
    "hold beats payment in one block",
    "batch expired undecided",
)
RARELY: Final = ("two timeouts for one round", "end of an epoch undone")
"""Noted when reached, not asked for."""


class Marks:
    """Marks reached in one run, with how often."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys((*SOMETIMES, *RARELY), 0)

    def reach(self, mark: str) -> None:
        """Note that a branch was taken."""
        self.counts[mark] += 1

    def stepped(self, event: ev.Event, effects: Sequence[ev.Effect]) -> None:
        """Look at one step of a replica."""
        for effect in effects:
            match effect:
                case ev.Sign(SignKind.TIMEOUT):
                    self.reach("timeout signed")
                    if isinstance(event, ev.Received) and isinstance(
                        event.message.message, Timeout
                    ):
                        self.reach("timeout joined because f + 1 gave up")
                case ev.Sign(SignKind.COMMIT_VOTE, two_chain=True):
                    self.reach("commit vote by the two-chain")
                case ev.Undo():
                    self.reach("undo")
                case ev.SetTimer(ev.Timer.EARLY_BLOCK):
                    self.reach("block held because it came early")
                case ev.FetchBlocks(request):
                    by = "height" if request.block_id is None else "id"
                    self.reach(f"blocks fetched by {by}")
                case ev.Broadcast(Proposal(block)):
                    self._proposed(block)
                case ev.Broadcast(Timeout(round=round_, high_round=high)) if high < round_ - 1:
                    self.reach("timeout with an older certificate than its round's parent")
                case ev.Deliver(block, certificate):
                    if certificate.statement.height > block.height:
                        self.reach("delivery by a descendant's certificate")
                case _:
                    pass

    def _proposed(self, block: Block) -> None:
        if block.timeout_cert is not None:
            self.reach("proposal after a timeout certificate")
        if not block.payload:
            self.reach("empty block")

    def watch_replica(self, replica: Replica) -> None:
        """Look at the refusals of commit votes, which have no effect to be seen by."""
        safety = replica._safety
        judge = safety.commit_vote

        def commit_vote(statement: Statement, proof: TwoChain | None) -> ev.Sign | Refused:
            verdict = judge(statement, proof)
            if isinstance(verdict, Refused) and proof is None:
                pairs = safety._signed_timeouts
                round_ = statement.round
                if any(high < round_ <= late for late, high in pairs):
                    self.reach("commit vote refused after a timeout")
            return verdict

        safety.commit_vote = commit_vote  # type: ignore[method-assign]
