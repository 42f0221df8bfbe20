"""A small network for tests of the executor: agencies, people, keys, three domains of rules.

``World`` holds the state and runs blocks; ``draft`` makes transactions the way a client would.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import nacl.bindings

from consensus.codec import Value
from consensus.committee import Committee, Validator
from consensus.genesis import (
    Agency,
    Genesis,
    Limits,
    OpeningBalance,
    Principal,
    RoleGiven,
)
from consensus.hashing import context
from consensus.hotstuff.types import Statement
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.evidence import Evidence, Overwritten, opening_hashes
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.transaction import Draft, Expect, Transaction, build
from consensus.ledger.view import Write
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import RESULTS
from consensus.state.record import Leaf
from consensus.state.state import MemoryBackend, Row
from tests import rulebooks
from tests.consensus.ledger.reader import RecordView, read_account, read_record

START_MS = 1_767_225_600_000 + 86_400_000  # 2026-01-02T00:00:00Z

CHARTER = """\
domain = "charter"
number = 1
legal_basis = "Charter"

[params]
hold_unconfirmed_hours = { by = "now", type = "int", values = [ { from = "2026-01", value = 48 } ] }

""" + "\n".join(
    f"""[actions.{name}]
kernel = true
actor = {{ role = "charter.admin"{where} }}
"""
    for name, where in {
        "add_agency": "",
        "suspend_agency": "",
        "reinstate_agency": "",
        "add_principal": ', where = "who.agency == input.agency"',
        "suspend_principal": ', where = "who.agency == input.agency"',
        "reinstate_principal": ', where = "who.agency == input.agency"',
        "add_key": ', where = "who.agency == input.agency"',
        "revoke_key": ', where = "who.agency == input.agency"',
        "give_role": ', where = "who.agency == input.agency"',
        "revoke_role": ', where = "who.agency == input.agency"',
        "open_account": "",
        "place_hold": "",
        "confirm_hold": "",
        "withdraw_hold": "",
        "release_hold": ', where = "who.agency == input.agency"',
    }.items()
)

IDENTITY = """\
domain = "identity"
number = 1
legal_basis = "Civil Registration Act"
exports = ["person.*"]

[kinds.person]
fields.name    = { type = "text", open = true }
fields.street  = { type = "text", open = true, group = "address" }
fields.town    = { type = "text", open = true, group = "address" }
fields.region  = { type = "text", open = true }
fields.note    = { type = "text", open = true, optional = true }
status = { start = "alive", steps = { alive = ["abroad", "dead"], abroad = ["alive"], dead = [] }, stops = ["dead"] }
hold_by = ["payments"]

[actions.register]
actor  = { role = "identity.officer" }
inputs = { token = "token:identity", name = "text", region = "text" }
create = [ { kind = "person", id = ["{input.token}"], set = { name = "input.name", street = "''", town = "''", region = "input.region" } } ]

[actions.rename]
actor  = { role = "identity.officer", where = "who.scope.region == person.region" }
inputs = { person = "ref:person", name = "text" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", fields = { name = "input.name" } } ]

[actions.move_house]
actor  = { self = "person.id" }
inputs = { person = "ref:person", street = "text", town = "text" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", fields = { street = "input.street", town = "input.town" } } ]

[actions.go_abroad]
actor  = { role = "identity.officer" }
inputs = { person = "ref:person" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", status = "abroad" } ]

[actions.come_back]
actor  = { role = "identity.officer", not = ["person.by.abroad"] }
inputs = { person = "ref:person" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", status = "alive" } ]

[actions.record_death]
phase  = "protective"
actor  = { role = "identity.officer" }
inputs = { person = "ref:person" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", status = "dead" } ]
"""

BENEFITS = """\
domain = "benefits"
number = 1
legal_basis = "Child Benefit Act"
uses = { identity = ["person.status", "person.region", "person.name"] }
exports = ["entitlement.*"]

[params]
most = { by = "now", type = "money:USD", values = [ { from = "2026-01", value = 500 }, { from = "2026-02", value = 600 } ] }

[kinds.entitlement]
fields.person  = { type = "ref", kind = "person" }
fields.monthly = { type = "money", currency = "USD" }
status = { start = "active", steps = { active = ["suspended"], suspended = ["active"] }, stops = ["suspended"] }

[kinds.link]
fields.to = { type = "ref", kind = "link", optional = true }

[actions.grant]
actor   = { role = "benefits.officer", where = "who.scope.region == person.region" }
inputs  = { person = "ref:person", monthly = "money:USD" }
load    = [ ["person", "person/{input.person}"] ]
depends = ["person.status"]
require = [ { code = "DEAD", that = "person.status == 'alive'", say = "the person is not alive" },
            { code = "MOST", that = "input.monthly <= params.most", say = "too much" } ]
create  = [ { kind = "entitlement", id = ["{input.person}"], set = { person = "input.person", monthly = "input.monthly" }, basis = ["person.status"] } ]

[actions.renew]
actor   = { role = "benefits.officer" }
inputs  = { entitlement = "ref:entitlement" }
load    = [ ["ent", "entitlement/{input.entitlement}"], ["person", "person/{ent.person}"] ]
set     = [ { record = "ent", basis = ["person.status"] } ]

[actions.start]
actor   = { role = "benefits.officer" }
inputs  = { name = "text" }
create  = [ { kind = "link", id = ["{input.name}"], set = { } } ]

[actions.chain]
actor   = { role = "benefits.officer" }
inputs  = { name = "text", to = "ref:link" }
load    = [ ["to", "link/{input.to}"] ]
create  = [ { kind = "link", id = ["{input.name}"], set = { to = "input.to" }, basis = ["to.to"] } ]

[actions.relink]
actor   = { role = "benefits.officer" }
inputs  = { link = "ref:link", to = "ref:link" }
load    = [ ["link", "link/{input.link}"] ]
set     = [ { record = "link", fields = { to = "input.to" } } ]

[actions.rely]
actor   = { role = "benefits.officer" }
inputs  = { link = "ref:link" }
load    = [ ["link", "link/{input.link}"] ]
fresh   = ["link"]
create  = [ { kind = "link", id = "{tx}", set = { to = "input.link" } } ]
"""

PAYMENTS = """\
domain = "payments"
number = 1
legal_basis = "Public Finance Act"
uses = { identity = ["person.status", "person.region", "person.name"], benefits = ["entitlement.*"] }

[accounts.purse]
currency = "USD"
floor = -50

[accounts.payee]
currency = "USD"

[kinds.payment]
fields.entitlement = { type = "ref", kind = "entitlement" }
fields.period      = { type = "month" }
fields.amount      = { type = "money", currency = "USD" }
status = { start = "paid", steps = { paid = ["returned"] } }

[actions.transfer]
actor  = { role = "payments.clerk" }
inputs = { from = "text", to = "text", amount = "money:USD" }
move   = [ { from = "account/purse/{input.from}", to = "account/purse/{input.to}", amount = "input.amount" } ]

[actions.open_purse]
actor  = { role = "payments.clerk" }
inputs = { name = "text" }
open   = [ { account = "account/purse/{input.name}" } ]

[actions.seed_purse]
actor  = { role = "payments.clerk" }
inputs = { name = "text", from = "text", amount = "money:USD" }
open   = [ { account = "account/purse/{input.name}" } ]
move   = [ { from = "account/purse/{input.from}", to = "account/purse/{input.name}", amount = "input.amount" } ]

[actions.check_purse]
actor   = { role = "payments.clerk" }
inputs  = { name = "text", balance = "money:USD" }
load    = [ ["purse", "account/purse/{input.name}"] ]
require = [ { code = "BALANCE", that = "purse.balance == input.balance", say = "another balance" } ]

[actions.open_payee]
actor  = { role = "payments.officer" }
inputs = { person = "ref:person" }
load   = [ ["person", "person/{input.person}"] ]
open   = [ { account = "account/payee/{input.person}" } ]

[actions.disburse]
actor   = { role = "payments.officer", where = "who.scope.region == person.region" }
inputs  = { entitlement = "ref:entitlement", period = "month" }
load    = [ ["ent", "entitlement/{input.entitlement}"], ["person", "person/{ent.person}"] ]
fresh   = ["ent"]
depends = ["ent.status", "ent.monthly"]
require = [ { code = "NOT_ACTIVE", that = "ent.status == 'active'", say = "not active" },
            { code = "DEAD", that = "person.status == 'alive'", say = "the person is dead" },
            { code = "PERIOD", that = "input.period > 24000", say = "long ago" } ]
unique  = [["payment", "{input.entitlement}", "{input.period}"]]
move    = [ { from = "account/purse/main", to = "account/payee/{ent.person}", amount = "ent.monthly" } ]
create  = [ { kind = "payment", id = "{tx}", set = { entitlement = "input.entitlement", period = "input.period", amount = "ent.monthly" } } ]

[actions.return_payment]
actor  = { role = "payments.officer", not = ["payment.by.created"], not_agency = ["payment.by.created"] }
inputs = { payment = "ref:payment" }
load   = [ ["payment", "payment/{input.payment}"] ]
set    = [ { record = "payment", status = "returned" } ]

[actions.freeze]
phase  = "protective"
actor  = { role = "payments.officer" }
inputs = { person = "ref:person", until = "time?" }
place_hold = [ { target = "person/{input.person}", scopes = ["all"], until = "input.until", reason = "inquiry" } ]

[actions.freeze_purse]
phase  = "protective"
actor  = { role = "payments.officer" }
inputs = { name = "text" }
place_hold = [ { target = "account/purse/{input.name}", scopes = ["pay"], reason = "a dispute" } ]

[actions.thaw_purse]
actor  = { role = "payments.officer" }
inputs = { name = "text", hold = "digest" }
release_hold = [ { target = "account/purse/{input.name}", hold = "input.hold" } ]

[actions.court_transfer]
actor  = { role = "payments.clerk" }
inputs = { from = "text", to = "text", amount = "money:USD" }
ignores_holds = [ { scope = "pay", reason = "a court ordered it" } ]
move   = [ { from = "account/purse/{input.from}", to = "account/purse/{input.to}", amount = "input.amount" } ]

[actions.sealed_note]
actor  = { role = "payments.clerk" }
inputs = { iban = "sealed:treasury?" }
"""

TEXTS = (CHARTER, IDENTITY, BENEFITS, PAYMENTS)

_token = context("test token")
_seed = context("test seed")


def token(name: str) -> bytes:
    """Return 32 bytes that stand for a name."""
    return _token(name.encode())


def public_key(name: str) -> bytes:
    """Return the public key of a name."""
    key, _ = nacl.bindings.crypto_sign_seed_keypair(_seed(name.encode()))
    return bytes(key)


def person(name: str) -> list[Value]:
    """Return the id of a person's record."""
    return [token(name)]


def _committee() -> Committee:
    agencies = ("treasury", "registry", "services", "audit")
    validators = tuple(
        Validator(
            agency,
            public_key(f"validator {agency}"),
            public_key(f"node {agency}"),
            b"certificate",
            "127.0.0.1",
            1,
            "127.0.0.1",
            2,
        )
        for agency in agencies
    )
    return Committee(1, validators)


NORTH = (("region", "north"),)


def make_genesis(texts: Sequence[str] = TEXTS, **changes: Any) -> Genesis:
    """Return the genesis of the network; ``changes`` replace its parts."""
    people = {
        "admin": ("treasury", 0, ["charter.admin"]),
        "clerk": ("treasury", 1, ["payments.clerk"]),
        "officer": ("treasury", 0, ["payments.officer"]),
        "auditor": ("audit", 0, ["payments.officer"]),
        "registrar": ("registry", 0, ["identity.officer"]),
        "deputy": ("registry", 0, ["identity.officer"]),
        "social": ("services", 0, ["benefits.officer"]),
    }
    principals = [
        Principal(token(name), agency, kind, token(f"subject {name}") if kind == 0 else None)
        for name, (agency, kind, _) in people.items()
    ]
    principals.append(Principal(token("ann's"), "registry", 2, token("ann"), (token("ann"),)))
    roles = [
        RoleGiven(token(name), role, NORTH) for name, (_, _, rs) in people.items() for role in rs
    ]
    fields: dict[str, Any] = {
        "network": "test",
        "time_ms": START_MS,
        "executor": 1,
        "tree_depth": 4,
        "limits": Limits(),
        "committee": _committee(),
        "agencies": tuple(
            Agency(name, name.title()) for name in ("treasury", "registry", "services", "audit")
        ),
        "principals": tuple(principals),
        "keys": tuple((public_key(name), token(name)) for name in (*people, "ann's")),
        "roles": tuple(roles),
        "rules": tuple(rulebooks.encoded(text) for text in texts),
        "accounts": (
            OpeningBalance("purse", ("main",), 1_000_000),
            OpeningBalance("purse", ("a",), 1000),
            OpeningBalance("purse", ("b",), 500),
            OpeningBalance("purse", ("c",), 0),
        ),
    }
    return Genesis(**{**fields, **changes})


DEFAULT = make_genesis()


@lru_cache(maxsize=8)
def founded(genesis: Genesis) -> tuple[Ledger, list[Write]]:
    """Return ledger and first leaves of a genesis, compiled once for all tests."""
    return of_genesis(genesis), genesis_state(genesis)


def ent(name: str) -> tuple[str, list[Value]]:
    """Return what names the entitlement of a person."""
    return "entitlement", person(name)


def populated() -> World:
    """Return a network with two people, Ann and Bob; Ann is entitled and has an account."""
    world = World()
    for name in ("ann", "bob"):
        register(world, name)
    made = world.do(
        "social",
        "benefits.grant",
        person("ann"),
        400,
        expects=[("person", person("ann"), 1), (*ent("ann"), 0)],
    )
    opened = world.do("officer", "payments.open_payee", person("ann"))
    assert made.code == opened.code == Code.APPLIED
    return world


def register(world: World, name: str, region: str = "north") -> None:
    """Enter a person into the register."""
    decision = world.do(
        "registrar",
        "identity.register",
        token(name),
        name.title(),
        region,
        expects=[("person", person(name), 0)],
    )
    assert decision.code == Code.APPLIED, decision.detail


@dataclass
class World:
    """The network's state and its next block."""

    genesis: Genesis = field(default_factory=lambda: DEFAULT)

    def __post_init__(self) -> None:
        self.ledger, first = founded(self.genesis)
        self.state = MemoryBackend()
        self.height = 0
        self.now_ms = START_MS + 1000
        self.sequences: dict[str, int] = {}
        self.history = HistoryTree(MemoryNodes())
        self.statements: list[Statement] = []
        self.blocks: list[BlockResult] = []
        """Of each height from 1 on."""
        self.aside: dict[bytes, list[Leaf]] = {}
        """What transactions that may be taken back overwrote."""
        self._state(bytes(32))
        self._apply(first, 0)

    def _apply(self, writes: Sequence[tuple[bytes, bytes, bytes]], height: int) -> None:
        self.state.write([(kh, Row(vh, height, row)) for kh, vh, row in writes])

    def run(self, *transactions: Transaction, slice_: int = 1000) -> BlockResult:
        """Execute and apply a block."""
        self.height += 1
        self.now_ms += 1000
        context = BlockContext(1, self.height, self.now_ms, history=self.history.root)
        run = BlockRun(self.ledger, self.state, context, transactions)
        while transactions and run.step(slice_):
            pass
        result = run.finish()
        self._apply(result.writes, self.height)
        self._state(result.results_root)
        self.blocks.append(result)
        self.aside |= {each.txid: list(each.leaves) for each in result.aside}
        return result

    def _state(self, results_root: bytes) -> None:
        """Append the statement of the height, which only says what tests of the ledger need."""
        zero = bytes(32)
        statement = Statement(
            self.ledger.chain, 1, self.height, self.height, zero, self.now_ms, 1,
            zero, results_root, zero, self.history.root(), None,
        )  # fmt: skip
        self.statements.append(statement)
        self.history.append(statement.hash)

    def evidence(self, decision: Decision, size: int | None = None) -> Evidence:
        """Return what shows a decision, and what it overwrote, under the first ``size`` heights."""
        header = decision.header
        roots = [each.root for each in self.blocks[header.height - 1].decisions]
        leaves = {each.leaf_hash: each for each in self.aside.get(header.txid, [])}
        opened = [leaves[each] for each in opening_hashes(decision) if each in leaves]
        size = self.history.size if size is None else size
        return Evidence(
            decision.encode(),
            len(roots),
            tuple(RESULTS.path(roots, header.index)),
            self.statements[header.height].encode(),
            size,
            tuple(self.history.path(header.height, size)),
            tuple(Overwritten(each.version, each.salt, each.value_cbor) for each in opened),
        )

    def reverse(self, author: str, decision: Decision, **more: Any) -> Decision:
        """Take back what a decision did."""
        data = self.evidence(decision).encode()
        return self.do(author, "charter.reverse", decision.header.txid, data, **more)

    def one(self, transaction: Transaction) -> Decision:
        """Execute a block of one transaction and return its decision."""
        return self.run(transaction).decisions[0]

    def do(self, author: str, action: str, *inputs: Value, **more: Any) -> Decision:
        """Draft and execute one call in a block of its own."""
        return self.one(self.draft(author, (action, *inputs), **more))

    def disburse(self, name: str, period: int = 24_312, author: str = "officer") -> Transaction:
        """Return the payment of one month to a person who is entitled."""
        call = ("payments.disburse", person(name), period)
        return self.draft(author, call, expects=[(*ent(name), 1)])

    def balance(self, *id_: Value) -> int:
        """Return the balance of an account."""
        row = self.state.get(self.ledger.paths("account", list(id_)))
        assert row is not None, id_
        return read_account(row.value).balance

    def record(self, kind: str, id_: list[Value]) -> RecordView:
        """Return a record."""
        row = self.state.get(self.ledger.paths("record", [kind, *id_]))
        assert row is not None, (kind, id_)
        rules = self.ledger.rules(self.state, self.now_ms)
        return read_record(row.value, rules.book.kinds[kind])

    def call(self, name: str, *inputs: Value) -> Draft:
        """Return one call of ``domain.action`` as its author would make it now."""
        domain, _, action = name.partition(".")
        rules = self.ledger.rules(self.state, self.now_ms)
        found = rules.book.action(domain, action)
        assert found is not None, name
        params = found.schedule.at(self.now_ms + 1000)
        return Draft(domain, action, found.action_id, list(inputs), params.digest, found.protective)

    def draft(
        self,
        author: str,
        *calls: tuple[Value, ...] | Draft,
        expects: Sequence[tuple[str, list[Value], int]] = (),
        sequence: int | None = None,
        not_after_ms: int | None = None,
        cosigners: Sequence[str] = (),
        **more: Any,
    ) -> Transaction:
        """Return a transaction of ``author`` with its next number."""
        if sequence is None:
            sequence = self.sequences.get(author, 0) + 1
            self.sequences[author] = sequence
        drafts = [each if isinstance(each, Draft) else self.call(*each) for each in calls]
        unsigned = build(
            self.ledger.chain,
            public_key(author),
            sequence,
            self.now_ms + 60_000 if not_after_ms is None else not_after_ms,
            drafts,
            seed=_seed(f"{author} {sequence}".encode()),
            expects=[Expect(*each) for each in expects],
            cosigners=[public_key(name) for name in cosigners],
            **more,
        )
        return unsigned.transaction
