"""Every pair of concurrent acts: in one block in both orders, beside one after the other.

``Act`` is something somebody does on a state that all acts share: they were drafted on it, so each
relies on what it was. ``both`` executes two of them, in one block or in two at the same time, and
gives what came of it without what must differ (heights, salts).
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from consensus import codec
from consensus.codec import Value
from consensus.genesis import Limits, RoleGiven
from consensus.hashing import ZERO
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.delegation import grant_id
from consensus.ledger.emergency import review_id
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.transaction import PROPOSE, PROTECTIVE, Transaction
from consensus.state.record import decode_row, decode_single
from consensus.state.state import MemoryBackend, Row
from tests.consensus.ledger.world import (
    DEFAULT,
    NORTH,
    TEXTS,
    World,
    ent,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

HOUR_MS = 3_600_000
CHARTER_ACTS = (
    "replace_key", "give_grant", "revoke_grant", "approve", "object", "withdraw", "propose_rules", "activate_rules",
    "object_rules", "review",
)  # fmt: skip
CHARTER = TEXTS[0] + "".join(
    f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
    if name in ("approve", "object", "withdraw", "review", "withdraw_hold")
    else f'\n[actions.{name}]\nkernel = true\nactor = {{ role = "charter.admin" }}\n'
    for name in CHARTER_ACTS
    if f"[actions.{name}]" not in TEXTS[0]
)
PAYMENTS = (
    TEXTS[3]
    + """
[actions.large]
actor  = { role = "payments.clerk" }
inputs = { from = "text", to = "text", amount = "money:USD" }
move   = [ { from = "account/purse/{input.from}", to = "account/purse/{input.to}", amount = "input.amount" } ]
approvals = { role = "payments.officer", count = 2, distinct = "person" }

[actions.book]
actor   = { role = "payments.clerk" }
inputs  = { name = "text", from = "text", amount = "money:USD", until = "time?" }
reserve = [ { id = ["{input.name}"], from = "account/purse/{input.from}", amount = "input.amount", expires = "input.until" } ]

[actions.pay_booked]
actor  = { role = "payments.clerk" }
inputs = { name = "text", from = "text", to = "text" }
post   = [ { id = ["{input.name}"], from = "account/purse/{input.from}", to = "account/purse/{input.to}" } ]

[actions.unbook]
actor  = { role = "payments.clerk" }
inputs = { name = "text", from = "text" }
void   = [ { id = ["{input.name}"], from = "account/purse/{input.from}" } ]

[actions.stop]
phase  = "protective"
actor  = { role = "payments.officer" }
inputs = { person = "ref:person" }
place_hold = [ { target = "person/{input.person}", scopes = ["all"], reason = "inquiry" } ]
approvals = { role = "payments.manager" }
emergency = { approvals = "none", review = { role = "payments.manager", within_days = 1 } }
"""
)
START = {"a": 1000, "b": 500, "c": 0}


@dataclass(frozen=True)
class Act:
    """A transaction with a name."""

    name: str
    transaction: Transaction

    @property
    def protective(self) -> bool:
        """Whether it goes before the others of its block."""
        return self.transaction.lane == PROTECTIVE


@dataclass
class Outcome:
    """What came of acts: by name the codes and details of their decisions, and the state after."""

    said: dict[str, list[tuple[Code, Value]]]
    state: dict[bytes, Any] = field(repr=False)
    money: int
    decisions: list[Decision] = field(repr=False)


def founded_world(rent_until_ms: int | None = None) -> World:
    """The network on which all acts are drafted; the booked rent may have an end."""
    roles = (
        *DEFAULT.roles,
        RoleGiven(token("deputy"), "payments.manager"),
        RoleGiven(token("registrar"), "payments.officer", NORTH),
        RoleGiven(token("admin"), "payments.clerk"),
    )
    world = World(
        make_genesis((CHARTER, *TEXTS[1:3], PAYMENTS), roles=roles, limits=Limits(notice_ms=1000))
    )
    for name in ("ann", "bob", "eve"):
        register(world, name)
    expects = [("person", person("ann"), 1), (*ent("ann"), 0)]
    applied(world.do("social", "benefits.grant", person("ann"), 400, expects=expects))
    applied(world.do("officer", "payments.open_payee", person("ann")))
    applied(world.do("clerk", "payments.book", "rent", "a", 300, rent_until_ms))
    return world


def applied(decision: Decision) -> Decision:
    """Return a decision that must have been applied."""
    assert decision.code == Code.APPLIED, (decision.code, decision.detail)
    return decision


def acts(
    world: World, *, grant_until_ms: int | None = None, proposal_until_ms: int | None = None
) -> list[Act]:
    """Return acts of every sort, all drafted on the present state."""
    found: list[Act] = []

    def act(name: str, author: str, *call: Value, **more: object) -> None:
        found.append(Act(name, world.draft(author, call, **more)))

    # what they rest on: a proposal that lacks one approval, a grant, an open review, a hold
    proposal = world.draft(
        "clerk", ("payments.large", "a", "b", 400), mode=PROPOSE, not_after_ms=proposal_until_ms
    )
    assert world.one(proposal).code == Code.PROPOSED
    applied(world.do("auditor", "charter.approve", proposal.txid))
    office = token("clerk")
    passed: tuple[Value, ...] = (
        "treasury", office, "payments.clerk", token("social"), None, None,
        ["payments.transfer"], None, 0, grant_until_ms, 1,
    )  # fmt: skip
    granted = world.draft("admin", ("charter.give_grant", *passed))
    applied(world.one(granted))
    grant = grant_id(granted.txid, 0)
    used = world.draft("auditor", ("payments.stop!emergency", person("eve")))
    applied(world.one(used))
    review = review_id(used.txid, 0)
    ann, bob = [("person", person("ann"), 1)], [("person", person("bob"), 1)]
    clerk, officer = token("clerk"), token("officer")

    found.append(Act("pay July", world.disburse("ann")))
    found.append(Act("pay July too", world.disburse("ann", author="auditor")))
    found.append(Act("pay August", world.disburse("ann", 24_313)))
    act("transfer 600", "clerk", "payments.transfer", "a", "b", 600)
    act("transfer the rest", "clerk", "payments.transfer", "a", "c", 700)
    act("transfer under a grant", "social", "payments.transfer", "b", "c", 1, under=[grant])
    act("book", "clerk", "payments.book", "fees", "a", 500, None)
    act("book the same name", "admin", "payments.book", "fees", "b", 1, None)
    act("pay what is booked", "clerk", "payments.pay_booked", "rent", "a", "b")
    act("unbook", "admin", "payments.unbook", "rent", "a")
    act("open", "clerk", "payments.open_purse", "new")
    act("open too", "admin", "payments.open_purse", "new")
    act("rename", "registrar", "identity.rename", person("ann"), "Anna", expects=ann)
    act("rename too", "deputy", "identity.rename", person("ann"), "Anne", expects=ann)
    act("move house", "ann's", "identity.move_house", person("ann"), "S", "T", expects=ann)
    act("go abroad", "registrar", "identity.go_abroad", person("ann"), expects=ann)
    act("record death", "registrar", "identity.record_death", person("ann"))
    act("rename Bob", "registrar", "identity.rename", person("bob"), "Rob", expects=bob)
    act("freeze Ann", "officer", "payments.freeze", person("ann"), None)
    act("freeze purse", "officer", "payments.freeze_purse", "a")
    act(
        "hold the domain",
        "admin",
        "charter.place_hold",
        [["domain", ["payments"]]],
        ["pay"],
        None,
        "Act",
    )
    act("revoke role", "admin", "charter.revoke_role", "treasury", officer, "payments.officer")
    act("revoke grant", "admin", "charter.revoke_grant", "treasury", grant)
    act("suspend clerk", "admin", "charter.suspend_principal", "treasury", clerk)
    act("suspend agency", "admin", "charter.suspend_agency", "audit")
    act(
        "compromise key",
        "admin",
        "charter.revoke_key",
        "treasury",
        clerk,
        public_key("clerk"),
        True,
    )
    keys = [("key", [public_key("clerk")], 1), ("key", [public_key("next")], 0)]
    act(
        "rotate key",
        "admin",
        "charter.replace_key",
        "treasury",
        clerk,
        public_key("clerk"),
        public_key("next"),
        None,
        expects=keys,
    )
    act("approve", "officer", "charter.approve", proposal.txid)
    act("approve too", "registrar", "charter.approve", proposal.txid)
    act("withdraw", "clerk", "charter.withdraw", proposal.txid)
    act("object", "officer", "charter.object", proposal.txid, "no")
    act("emergency stop", "officer", "payments.stop!emergency", person("ann"))
    act("review", "deputy", "charter.review", review, False, expects=[("review", [review], 1)])
    role = [("role", [officer, "payments.clerk"], 0)]
    act(
        "give role",
        "admin",
        "charter.give_role",
        "treasury",
        officer,
        "payments.clerk",
        [],
        0,
        None,
        expects=role,
    )
    assert len(dict.fromkeys(each.name for each in found)) == len(found)
    return found


def both(
    world: World, acts: Sequence[Act], *, one_block: bool, at_ms: int | None = None
) -> Outcome:
    """Execute acts on a copy of the state at one time, in one block or each in one of its own."""
    now_ms = world.now_ms + 1000 if at_ms is None else at_ms
    rows = {kh: world.state.get(kh) for kh, _, _ in world.state.entries()}
    state = MemoryBackend([(kh, row) for kh, row in rows.items() if row is not None])
    blocks = [list(acts)] if one_block else [[each] for each in acts]
    names = {each.transaction.txid: each.name for each in acts}
    said: dict[str, list[tuple[Code, Value]]] = {each.name: [] for each in acts}
    decisions: list[Decision] = []
    for number, block in enumerate(blocks):
        result = _execute(world, state, number + 1, now_ms, [each.transaction for each in block])
        for decision in result.decisions:
            name = names.get(decision.header.txid, "the proposal")
            said.setdefault(name, []).append((decision.code, decision.detail))
            decisions.append(decision)
    return Outcome(said, _plain(world, state), _money(world, state), decisions)


def _execute(
    world: World,
    state: MemoryBackend,
    ahead: int,
    now_ms: int,
    transactions: Sequence[Transaction],
) -> BlockResult:
    height = world.height + ahead
    context = BlockContext(1, height, now_ms, history=world.history.root)
    result = BlockRun(world.ledger, state, context, transactions).finish()
    state.write([(kh, Row(vh, height, row)) for kh, vh, row in result.writes])
    return result


def _plain(world: World, state: MemoryBackend) -> dict[bytes, Any]:
    """Return the state without salts: what it says, at which versions."""
    found: dict[bytes, Any] = {}
    for kh, vh, _ in state.entries():
        row = state.get(kh)
        if row is None or vh == ZERO or kh == world.ledger.paths.pool:
            continue
        if row.value[:1] == b"\x01":
            stored = decode_row(row.value)
            found[kh] = (stored.version, stored.names, stored.versions, stored.values)
        elif row.value[:1] == b"\x00":
            version, _, data = decode_single(row.value)
            found[kh] = (version, data)
        else:
            found[kh] = row.value[1:2]
    return found


def _money(world: World, state: MemoryBackend) -> int:
    total = 0
    for family, names in (("purse", ["main", "a", "b", "c", "new"]), ("payee", [person("ann")])):
        for name in names:
            row = state.get(world.ledger.paths("account", [family, name]))
            if row is not None:
                total += codec.parse(decode_single(row.value)[2], "account")[1]
    return total


# --- time as the other side -----------------------------------------------------------------------

CHANGED = (
    PAYMENTS.replace("number = 1", "number = 2")
    .replace(
        "[actions.open_purse]",
        """[actions.extra]
actor = { role = "payments.clerk" }

[actions.open_purse]""",
    )
    .replace(
        'inputs = { from = "text", to = "text", amount = "money:USD" }\nmove',
        'inputs = { from = "text", to = "text", amount = "money:USD" }\n'
        'require = [ { code = "MUCH", that = "input.amount < 5000", say = "too much" } ]\nmove',
        1,
    )
)
"""The next number of the rules: ``transfer`` changes, no other action."""


def change_rules(world: World, from_ms: int) -> None:
    """Have CHANGED come into force at a time."""

    def version(*components: Value) -> tuple[str, list[Value], int]:
        row = world.state.get(world.ledger.paths("rules", list(components)))
        return "rules", list(components), 0 if row is None else decode_single(row.value)[0]

    rules = encode_definition(load_toml(CHANGED))
    laid = world.do(
        "admin", "charter.propose_rules", "payments", 2, rules, expects=[version("payments")]
    )
    applied(laid)
    expects = [version("payments"), version("payments", 2, "adoption")]
    applied(world.do("admin", "charter.activate_rules", "payments", 2, from_ms, expects=expects))


def end_role(world: World, until_ms: int) -> None:
    """Let the clerk's role end at a time."""
    role = ("role", [token("clerk"), "payments.clerk"], 1)
    inputs: list[Value] = ["treasury", token("clerk"), "payments.clerk", [], 0, until_ms]
    applied(world.do("admin", "charter.give_role", *inputs, expects=[role]))


def end_key(world: World, until_ms: int) -> None:
    """Let the clerk's key end at a time."""
    keys = [("key", [public_key("clerk")], 1), ("key", [public_key("later")], 0)]
    inputs = ["treasury", token("clerk"), public_key("clerk"), public_key("later"), until_ms]
    applied(world.do("admin", "charter.replace_key", *inputs, expects=keys))


def end_hold(world: World, until_ms: int) -> None:
    """Let a hold on a purse end at a time."""
    target: Value = [["account", ["purse", "a"]]]
    applied(world.do("admin", "charter.place_hold", target, ["pay"], until_ms, "Act"))
