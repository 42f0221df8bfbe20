"""What only a disk, an executor or an outbox can show: found by seeds of the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from consensus.hotstuff.blocktree import Node
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import Block, CommitCert, SafetyRecord
from tests.byzantine.mutants.ordering import votes_late
from tests.sim.mutants import Mutant


def _no_guard(replica: Replica) -> None:
    replica._safety._guard_allows = lambda round_: True  # type: ignore[method-assign]


def _forget(**forgotten: object) -> Callable[[Replica], None]:
    def apply(replica: Replica) -> None:
        safety = replica._safety
        record = safety.record

        def forgetful() -> SafetyRecord:
            return replace(record(), **forgotten)  # type: ignore[arg-type]

        safety.record = forgetful  # type: ignore[method-assign]

    return apply


def _holds_everything(replica: Replica) -> None:
    insert = replica._tree.insert

    def insert_held(block: Block, now_ms: int) -> Node | None:
        node = insert(block, now_ms)
        if node is not None and node.parent is not None:
            node.parent.held = True
        return node

    require = replica._execution.require

    def require_held(node: Node) -> None:
        require(node)
        node.held = True

    replica._tree.insert = insert_held  # type: ignore[method-assign]
    replica._execution.require = require_held  # type: ignore[method-assign]


def _delivers_early(replica: Replica) -> None:
    execution = replica._execution
    deliver = execution.deliver

    def deliver_early(node: Node) -> None:
        if node.commit_cert is None and node.statement is not None:
            node.commit_cert = CommitCert(node.statement, ())
        deliver(node)

    execution.deliver = deliver_early  # type: ignore[method-assign]


DURABLE = ("durable before sent", "block durable before sent", "batches durable before sent")
CAUGHT_BY: Mapping[Mutant, tuple[str, ...]] = {
    Mutant("sends before it persists", eager_outbox=True): DURABLE,
    Mutant(
        "sends before it persists, seen by what it forgets",
        eager_outbox=True,
        ignore=DURABLE,
    ): ("one signature a slot", "no promise is lost"),
    Mutant("hellos show what is not durable", hasty_hellos=True): DURABLE,
    Mutant("certificates of q - 1", weak_quorum=True): ("certificates have a quorum",),
    Mutant("commit votes without the guard", on_boot=_no_guard): (
        "commit vote after timeout needs a two-chain",
    ),
    Mutant("votes after giving the round up", on_boot=votes_late): (
        "no vote after the timeout of its round",
    ),
    Mutant("votes without the payload", on_boot=_holds_everything): (
        *DURABLE,
        "a held batch stays",
    ),
    Mutant("delivers without a certificate", on_boot=_delivers_early): (
        "certificates have a quorum",
    ),
    Mutant(
        "delivers without a certificate, seen by what it must take back",
        on_boot=_delivers_early,
        ignore=("certificates have a quorum", "no fault of the honest"),
    ): ("agreement", "no own bug", "certificate says what was executed"),
    Mutant("the record forgets the last vote", on_boot=_forget(last_vote=None)): DURABLE,
    Mutant("the record forgets commit votes", on_boot=_forget(commit_votes=())): DURABLE,
    Mutant("the record forgets timeouts", on_boot=_forget(signed_timeouts=())): DURABLE,
    Mutant(
        "the record forgets proposals, seen by the second one",
        on_boot=_forget(last_proposal=None),
        ignore=DURABLE,
    ): ("signer agrees", "one signature a slot"),
    # With a traitor or a dead node beside it, it is one fault too many, and nothing is certified.
    Mutant("one node executes something else", miscounting=0): (
        "no halt",
        "new work is certified",
    ),
}
"""Each mutant with the promises of which one must be found broken."""
