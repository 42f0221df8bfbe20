"""A test network whose every decision can be shown to a stranger: signed, certified, in history.

``Town`` is ``World`` with real roots and certificates, that keeps the rows of every height.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import nacl.bindings

from consensus import genesis, signing
from consensus.evidence import making
from consensus.evidence.bundle import Bundle, Sealed
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockResult
from consensus.ledger.group import Group
from consensus.ledger.transaction import Transaction, signed_message
from consensus.signing import TAG_BUNDLE, TAG_COMMIT_VOTE
from consensus.state.state import MemoryBackend, State
from tests.consensus.ledger import world
from tests.consensus.ledger.world import World

AGENCIES = ("treasury", "registry", "services", "audit")
PEOPLE = (
    "admin", "clerk", "officer", "auditor", "registrar", "deputy", "social", "ann's",
)  # fmt: skip


def secret(name: str) -> bytes:
    """Return the secret key of a name."""
    _, key = nacl.bindings.crypto_sign_seed_keypair(world._seed(name.encode()))
    return bytes(key)


def sign(name: str, message: bytes) -> bytes:
    """Return the signature of a name."""
    return bytes(nacl.bindings.crypto_sign(message, secret(name))[:64])


def names() -> dict[bytes, str]:
    """Return who has which key."""
    return {world.public_key(name): name for name in PEOPLE}


@dataclass
class Town(World):
    """A network that signs what it says."""

    def __post_init__(self) -> None:
        self.tree = State(MemoryBackend(), self.genesis.tree_depth, -1)
        self.past: list[MemoryBackend] = []
        self.payloads: list[Sequence[Transaction]] = [()]
        self.times: list[int] = []
        self.signers = names()
        super().__post_init__()

    def _apply(self, writes: Sequence[tuple[bytes, bytes, bytes]], height: int) -> None:
        super()._apply(writes, height)
        self.applied = self.tree.apply([tuple(each) for each in writes])
        kept = MemoryBackend()
        kept.write(list(self.state._rows.items()))
        self.past.append(kept)

    def _state(self, results_root: bytes) -> None:
        # The world founds itself with the statement of height 0 before its rows.
        root = getattr(self, "applied", None)
        zero = bytes(32)
        statement = Statement(
            self.ledger.chain, 1, self.height, self.height, zero, self.now_ms, 1,
            zero if root is None else root.state_root, results_root,
            zero if root is None else root.changes_root, self.history.root(), None,
        )  # fmt: skip
        self.statements.append(self.stated(statement))
        self.history.append(self.statements[-1].hash)

    def stated(self, statement: Statement) -> Statement:
        """Return what is said of a height."""
        return statement

    def run(self, *transactions: Transaction, slice_: int = 1000) -> BlockResult:
        self.payloads.append(transactions)
        return super().run(*transactions, slice_=slice_)

    def certificate(self, height: int, signers: Sequence[int] = (0, 1, 2)) -> bytes:
        """Return a certificate on a height."""
        statement = self.statements[height]
        message = signing.message(TAG_COMMIT_VOTE, statement.chain, statement.encode())
        rows = tuple((i, sign(f"validator {AGENCIES[i]}", message)) for i in signers)
        return wire.encode_commit_cert(CommitCert(statement, rows))

    def signed(self, transaction: Transaction) -> Transaction:
        """Return a transaction with the signatures of those who must sign it."""
        message = signed_message(self.ledger.chain, transaction.txid)
        return transaction.signed([sign(self.signers[k], message) for k in transaction.signers])

    def proved(self, prepared: making.Prepared, certified: int | None = None) -> making.Proved:
        """Return what proves any height under the certificate of one, the newest by default."""
        at = self.height if certified is None else certified

        def statement(height: int) -> tuple[bytes, tuple[bytes, ...]] | None:
            if height == at:
                return None
            return self.statements[height].encode(), tuple(self.history.path(height, at))

        khs = [self.ledger.paths(space, list(where)) for space, where in prepared.places]
        found = [self.tree.get(kh) for kh in khs]
        return making.Proved(
            genesis.split(self.genesis.encode()),
            (),
            self.certificate(at),
            statement,
            self.height,
            self.tree.prove(khs).encode(),
            [None if row is None else row.value for row in found],
        )

    def bundle(
        self,
        decision: Decision,
        group: Group | None = None,
        heights: Collection[int] = (),
        opened: Collection[str] = (),
        **more: object,
    ) -> Bundle:
        """Return the bundle of a decision of this network."""
        header = decision.header
        transactions = self.payloads[header.height]
        found = next(
            each for payload in self.payloads for each in payload if each.txid == header.txid
        )
        result = self.blocks[header.height - 1]
        context = BlockContext(1, header.height, header.time_ms, history=self.history.root)
        ledger = self.ledger.apart()
        decided = making.Decided(
            decision,
            [each.root for each in result.decisions],
            transactions,
            found if group is not None else self.signed(found),
            group,
        )
        before = self.past[header.height - 1]
        prepared = making.prepare(ledger, before, context, decided, opened)
        proved = self.proved(prepared)
        return prepared.bundle(
            proved,
            heights=heights,
            **more,  # type: ignore[arg-type]
        )

    def file(self, decision: Decision, holder: str = "", **more: object) -> bytes:
        """Return the bytes of a bundle, signed by ``holder`` if there is one."""
        content = self.bundle(decision, **more).content()  # type: ignore[arg-type]
        if not holder:
            return Sealed(content).encode()
        message = signing.message(TAG_BUNDLE, self.ledger.chain, content)
        return Sealed(content, (world.public_key(holder), sign(holder, message))).encode()
