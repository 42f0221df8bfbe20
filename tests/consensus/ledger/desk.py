"""A network whose payments need approvals: helpers for tests of proposals.

Transfers of purses need an officer of payments; of more than 100 also one of identity. Renaming
somebody needs a second officer of identity, and so does freezing, which is protective.
"""

from __future__ import annotations

from consensus import codec
from consensus.codec import Value
from consensus.genesis import Genesis
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockResult
from consensus.ledger.proposals import Proposal
from consensus.ledger.transaction import PROPOSE, Transaction
from consensus.state.record import decode_single
from tests.consensus.ledger.world import CHARTER, TEXTS, World, make_genesis

HOUR_MS = 3_600_000
ACTS = "".join(
    f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
    for name in ("approve", "approve_protective", "object", "withdraw")
)
DESK_CHARTER = (
    CHARTER.replace(
        "[params]\n",
        '[params]\nproposal_hours_max = { by = "now", type = "int", '
        'values = [ { from = "2026-01", value = 48 } ] }\n',
    )
    + ACTS
    + "".join(
        f'\n[actions.{name}]\nkernel = true\nactor = {{ role = "charter.admin" }}\n'
        for name in ("replace_key", "name_successor", "accept_succession")
    )
)


def desk_genesis(**changes: object) -> Genesis:
    """Return the genesis of the network."""
    texts = [with_policies(text) for text in (DESK_CHARTER, *TEXTS[1:])]
    return make_genesis(texts, **changes)


POLICIES = {
    "transfer": '{ role = "payments.officer" }',
    "seed_purse": '{ all = [ { role = "payments.officer" }, '
    '{ role = "identity.officer", count = 2 } ] }',
    "open_purse": '{ role = "payments.officer" }',
    "rename": '{ role = "identity.officer" }',
    "freeze": '{ role = "payments.officer" }',
    "give_role": '{ role = "payments.officer" }',
}


OBJECTIONS = 'objections = { role = "benefits.officer" }\n'


def with_policies(text: str) -> str:
    """Return a rule set whose actions have their policies."""
    for action, policy in POLICIES.items():
        head = f"[actions.{action}]\n"
        text = text.replace(head, f"{head}approvals = {policy}\n")
    return text.replace("[actions.open_purse]\n", f"[actions.open_purse]\n{OBJECTIONS}")


DESK = desk_genesis()


class Desk(World):
    """The network, with words for proposals."""

    def __init__(self) -> None:
        super().__init__(DESK)

    def propose(self, author: str, *calls: tuple[Value, ...], **more: object) -> Transaction:
        """Return a transaction that is to be stored."""
        if "not_after_ms" not in more:
            more["not_after_ms"] = self.now_ms + 24 * HOUR_MS
        return self.draft(author, *calls, mode=PROPOSE, **more)  # type: ignore[arg-type]

    def stored(self, author: str, *calls: tuple[Value, ...], **more: object) -> Transaction:
        """Propose in a block of its own, and return what is stored."""
        proposed = self.propose(author, *calls, **more)
        decision = self.one(proposed)
        assert decision.code == Code.PROPOSED, (decision.code, decision.detail)
        return proposed

    def act(self, who: str, what: str, proposed: Transaction, *inputs: Value) -> Transaction:
        """Return an act on a proposal."""
        return self.draft(who, (f"charter.{what}", proposed.txid, *inputs))

    def approve(self, who: str, proposed: Transaction) -> BlockResult:
        """Approve in a block of its own."""
        return self.run(self.act(who, "approve", proposed))

    def proposal(self, txid: bytes) -> Proposal:
        """Return a proposal as the state has it."""
        row = self.state.get(self.ledger.paths("proposal", [txid]))
        assert row is not None
        return Proposal(*codec.parse(decode_single(row.value)[2]))

    def word(self, proposed: Transaction) -> str:
        """Return the word for the state of a proposal."""
        return self.proposal(proposed.txid).word(self.now_ms)


def outcomes(result: BlockResult) -> list[tuple[bytes, Code]]:
    """Return txid and code of each decision of a block."""
    return [(each.header.txid, each.code) for each in result.decisions]
