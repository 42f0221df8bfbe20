"""A chain whose committee changes three times by acts of its charter, for tests of evidence.

    epoch 1   treasury, registry, services, audit
    epoch 2   health is admitted
    epoch 3   audit's validator has other keys
    epoch 4   registry has left

Not here: how a change is agreed on (``tests.consensus.ledger.members``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import nacl.bindings

from consensus.audit.stream import Recorded
from consensus.codec import Value
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.transaction import Transaction, signed_message
from scripts.chainmaker import Chain
from tests.consensus.ledger import members, world
from tests.consensus.ledger.governed import NOTICE_MS
from tests.consensus.ledger.members import CHIEFS, Members


@dataclass(frozen=True)
class Seeded:
    """A key that a test knows the seed of."""

    seed: bytes

    @property
    def public(self) -> bytes:
        return bytes(nacl.bindings.crypto_sign_seed_keypair(self.seed)[0])

    def sign(self, message: bytes) -> bytes:
        secret = nacl.bindings.crypto_sign_seed_keypair(self.seed)[1]
        return bytes(nacl.bindings.crypto_sign(message, secret)[:64])


def newcomer(agency: str, generation: int = 1) -> Seeded:
    return Seeded(members.seed(f"validator {agency} {generation}"))


class Elections(Chain):
    """A chain on which chiefs of agencies change the committee."""

    def __init__(self) -> None:
        self.members = Members()
        founded = self.members.genesis
        keys = [
            Seeded(world._seed(f"validator {each.agency}".encode()))
            for each in founded.committee.validators
        ]
        later = [newcomer("health"), newcomer("audit", 2)]
        super().__init__(founded.encode(), keys, newcomers={each.public: each for each in later})

    def signed(self, transaction: Transaction) -> Transaction:
        """Return a transaction with the signatures of its people."""
        names = {world.public_key(name): name for name in (*CHIEFS, "admin", "officer", "clerk")}
        message = signed_message(self.chain, transaction.txid)
        seeds = [world._seed(names[key].encode()) for key in transaction.signers]
        return transaction.signed([Seeded(each).sign(message) for each in seeds])

    def agree(self, *changes: list[Value], number: int = 1, **more: Any) -> Recorded:
        """Agree on a change of the committee."""
        self.members.now_ms = self.now_ms
        more.setdefault("cosigners", CHIEFS[1:])
        return self.block([self.signed(self.members.draft_change(*changes, number=number, **more))])

    def change(self, *changes: list[Value], number: int) -> Statement:
        """Change the committee; return the statement that ends the epoch."""
        before = self.committee.epoch
        self.agree(*changes, number=number)
        self.block()
        self.block(after_ms=NOTICE_MS)
        assert self.committee.epoch == before + 1
        return self.statement


@cache
def elected() -> Elections:
    """The chain that tests share; nobody changes it."""
    chain = Elections()
    chain.block()
    chain.change(chain.members.joining("health", "chief_h"), number=1)
    chain.block()
    chain.block(certified=False)
    chain.change(chain.members.replacing("audit", 2), number=2)
    chain.block()
    chain.change(["leave", "registry"], number=3)
    for _ in range(3):
        chain.block()
    return chain


def certificate_of(chain: Chain, height: int) -> CommitCert:
    """The certificate on a height, as recorded."""
    found = chain.recorded[height].certificate
    assert found is not None
    return wire.decode_commit_cert(found)
