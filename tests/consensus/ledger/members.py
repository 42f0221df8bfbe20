"""A network whose committee changes: chiefs of four agencies, member files, and words for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import nacl.bindings

from consensus import memberfile
from consensus.codec import Value
from consensus.committee import Committee, Validator
from consensus.genesis import Genesis
from consensus.hashing import context
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.kernel.committee import encode_changes
from consensus.ledger.seats import Change, Seats
from consensus.ledger.transaction import PROPOSE, Transaction
from consensus.memberfile import Member, Named
from node.network.tls import make_certificate
from tests.consensus.ledger.governed import GOVERNED, NOTICE_MS, founding
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.world import (
    BENEFITS,
    IDENTITY,
    PAYMENTS,
    World,
    public_key,
    token,
)

CHIEFS = ("chief_t", "chief_r", "chief_s", "chief_a")
ACTS = (
    "".join(
        f"""
[actions.{name}]
kernel = true
actor = {{ role = "charter.chief" }}
{more}
"""
        for name, more in {
            "change_committee": 'approvals = { role = "charter.chief", distinct = "agency" }',
            "object_committee": "",
        }.items()
    )
    + '\n[actions.approve]\nkernel = true\nactor = { self = "who.principal" }\n'
)

_seed = context("test member seed")


def seed(name: str) -> bytes:
    """Return the seed of a new key."""
    return _seed(name.encode())


def public(name: str) -> bytes:
    """Return its public key."""
    return bytes(nacl.bindings.crypto_sign_seed_keypair(seed(name))[0])


def sign(name: str, data: bytes) -> bytes:
    """Return its signature."""
    secret = nacl.bindings.crypto_sign_seed_keypair(seed(name))[1]
    return bytes(nacl.bindings.crypto_sign(data, secret)[:64])


@cache
def certificate(key: str, agency: str) -> bytes:
    """Return the certificate of a node key."""
    return make_certificate(seed(key), agency)


def validator(agency: str, generation: int = 1, **changes: Any) -> Validator:
    """Return a validator of an agency, with keys of its own and an address of its own."""
    node = f"node {agency} {generation}"
    number = int.from_bytes(seed(f"port {agency} {generation}")[:2]) | 1024
    fields: dict[str, Any] = {
        "agency": agency,
        "key": public(f"validator {agency} {generation}"),
        "node_key": public(node),
        "certificate": certificate(node, agency),
        "peer_host": f"{agency}.example",
        "peer_port": number,
        "client_host": f"{agency}.example",
        "client_port": number ^ 1,
        **changes,
    }
    return Validator(**fields)


def member_file(
    chain: bytes,
    row: Validator,
    generation: int = 1,
    people: Sequence[str] = (),
    signers: tuple[str, str] | None = None,
) -> bytes:
    """Return the member file of a validator; ``people`` have keys like those of the world."""
    named = tuple(
        Named(name, token(name), token(f"subject {name}"), public_key(name))
        for name in sorted(people)
    )
    one, two = signers or (
        f"validator {row.agency} {generation}",
        f"node {row.agency} {generation}",
    )
    return memberfile.encode(
        Member(chain, row, named), lambda data: sign(one, data), lambda data: sign(two, data)
    )


@cache
def genesis() -> Genesis:
    """Return the genesis that tests share."""
    return founding((GOVERNED + ACTS, IDENTITY, BENEFITS, PAYMENTS))


@dataclass
class Members(World):
    """The network, and what its chiefs do about its committee."""

    genesis: Genesis = field(default_factory=genesis)
    epoch: int = 1
    elected: list[Committee] = field(default_factory=list)

    def run(self, *transactions: Transaction, slice_: int = 1000) -> BlockResult:
        """Execute and apply a block, of the epoch that its parent left."""
        self.height += 1
        self.now_ms += 1000
        place = BlockContext(self.epoch, self.height, self.now_ms, history=self.history.root)
        result = BlockRun(self.ledger, self.state, place, transactions).finish()
        self._apply(result.writes, self.height)
        self._state(result.results_root)
        self.blocks.append(result)
        if result.next_committee is not None:
            self.epoch = result.next_committee.epoch
            self.elected.append(result.next_committee)
        return result

    @property
    def committee(self) -> Committee:
        """Who votes now."""
        return self.elected[-1] if self.elected else self.genesis.committee

    def leaf(self, *components: Value) -> Any:
        """Return the value of a leaf of the committee."""
        row = self.state.get(self.ledger.paths("committee", list(components)))
        assert row is not None, components
        return read_single("committee", list(components), row.value).value

    @property
    def seats(self) -> Seats:
        """Who has a seat, as the state says."""
        found: Seats = self.leaf()
        return found

    def change(self, number: int) -> Change:
        """Return what became of a change."""
        found: Change = self.leaf(number)
        return found

    def file(self, row: Validator, generation: int = 1, people: Sequence[str] = ()) -> bytes:
        """Return a member file for this network."""
        return member_file(self.ledger.chain, row, generation, people)

    def joining(self, agency: str, *people: str) -> list[Value]:
        """Return the admission of a new agency."""
        data = self.file(validator(agency), 1, people)
        return ["admit", agency, data, agency.title(), ["roles", f"{agency}."]]

    def replacing(self, agency: str, generation: int = 1, **changes: Any) -> list[Value]:
        """Return the replacement of a validator."""
        return ["replace", agency, self.file(validator(agency, generation, **changes), generation)]

    def draft_change(
        self,
        *changes: list[Value],
        number: int = 1,
        from_ms: int | None = None,
        author: str = "chief_t",
        cosigners: Sequence[str] = ("chief_r", "chief_s"),
        **more: Any,
    ) -> Transaction:
        """Return the act that changes the committee."""
        call = ("charter.change_committee", number, encode_changes(list(changes)), from_ms)
        return self.draft(author, call, cosigners=tuple(cosigners), **more)

    def agree(self, *changes: list[Value], **more: Any) -> Decision:
        """Agree on a change in a block of its own."""
        return self.one(self.draft_change(*changes, **more))

    def agreed(self, *changes: list[Value], **more: Any) -> None:
        """Agree on a change, and see that it is."""
        decision = self.agree(*changes, **more)
        assert decision.code == Code.APPLIED, (decision.code, decision.detail)

    def proposed(self, *changes: list[Value], **more: Any) -> Transaction:
        """Store a change as a proposal."""
        draft = self.draft_change(
            *changes, cosigners=(), mode=PROPOSE, not_after_ms=self.now_ms + 1_000_000, **more
        )
        assert self.one(draft).code == Code.PROPOSED
        return draft

    def pass_notice(self) -> BlockResult:
        """Let the notice pass, and execute a block without transactions."""
        self.now_ms += NOTICE_MS
        return self.run()
