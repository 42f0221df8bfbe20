"""Proposals beside everything else: many siblings, changed rules, witnesses, and random acts."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pycddl
import pytest

from consensus import codec
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.ledger import of_genesis
from consensus.ledger.proposals import Proposal
from consensus.ledger.transaction import PROPOSE, Transaction, decode_body
from consensus.ledger.view import split_attached
from consensus.state.record import decode_single
from consensus.state.state import MemoryBackend, Row
from tests.consensus.ledger.desk import ACTS, POLICIES, Desk, with_policies
from tests.consensus.ledger.governed import GOVERNED, Governed, founding, numbered
from tests.consensus.ledger.reader import Witness
from tests.consensus.ledger.world import (
    BENEFITS,
    IDENTITY,
    PAYMENTS,
    person,
    public_key,
    register,
    token,
)

TRANSFER = ("payments.transfer", "a", "b", 1)
CDDL = (Path(__file__).parents[3] / "docs/protocol/ledger.cddl").read_text(encoding="utf-8")


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- many ---------------------------------------------------------------------------------------


def calls_of_an_effect(siblings: int) -> tuple[int, int]:
    """Return the calls of functions, and the leaves written, that one effect takes."""
    desk = Desk()
    proposed = desk.stored("clerk", TRANSFER)
    for first in range(0, siblings, 250):
        count = min(250, siblings - first)
        desk.run(*[desk.propose("clerk", TRANSFER) for _ in range(count)])
    run = BlockRun(
        desk.ledger,
        desk.state,
        BlockContext(1, desk.height + 1, desk.now_ms + 1000),
        [desk.act("officer", "approve", proposed)],
    )
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    result = run.finish()
    sys.setprofile(None)
    assert [each.code for each in result.decisions] == [Code.APPLIED, Code.APPLIED]
    return count, len(result.writes)


def test_an_effect_costs_the_same_whatever_else_is_open() -> None:
    calls_of_an_effect(0)  # what a process does once
    few, many = calls_of_an_effect(10), calls_of_an_effect(1000)
    assert few[1] == many[1]
    assert abs(few[0] - many[0]) < few[0] // 5  # tables of names may have been cleared meanwhile


def test_thousands_of_proposals_of_other_actions_outlive_a_change_of_one() -> None:
    charter = GOVERNED + ACTS
    payments = with_policies(PAYMENTS)
    world = Governed(founding((charter, with_policies(IDENTITY), BENEFITS, payments)))
    count, block = 4000, 500
    month_ms = 2 * 86_400_000

    def propose(*call: Any) -> Transaction:
        return world.draft("clerk", call, mode=PROPOSE, not_after_ms=world.now_ms + month_ms)

    moved = propose(*TRANSFER)
    assert world.one(moved).code == Code.PROPOSED
    others: list[Transaction] = []
    for first in range(0, count, block):
        some = [propose("payments.open_purse", f"p{first + n}") for n in range(block)]
        assert {each.code for each in world.run(*some).decisions} == {Code.PROPOSED}
        others += some
    change = ('amount = "input.amount" } ]\n\n[actions.open_purse]',
              'amount = "input.amount" } ]\nsummary = "Pay"\n\n[actions.open_purse]')  # fmt: skip
    assert world.propose(numbered(payments, 2, change)).code == Code.APPLIED
    activation = world.activate("payments", 2)
    assert activation.code == Code.APPLIED, activation.detail
    writes = 0
    while world.numbers()["payments"] == 1:
        writes = len(world.run(world.draft("clerk", ("payments.check_purse", "a", 1))).writes)
    assert writes < 10
    for first in range(0, count, 64 * 8):
        acts = [
            [("charter.approve", each.txid) for each in others[at : at + 64]]
            for at in range(first, min(first + 64 * 8, count), 64)
        ]
        result = world.run(*[world.draft("officer", *calls) for calls in acts])
        assert {each.code for each in result.decisions} == {Code.APPLIED}
        assert len(result.effects) == sum(map(len, acts))
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    asking = BlockRun(world.ledger, world.state, context, ()).proposing
    row = world.state.get(world.ledger.paths("proposal", [moved.txid]))
    assert row is not None
    found = Proposal(*codec.parse(decode_single(row.value)[2]))
    said = asking.lacking(found, public_key("officer"))
    assert said == [["moved", "payments.transfer"]]
    result = world.run(world.draft("officer", ("charter.approve", moved.txid)))
    assert [each.code for each in result.decisions] == [Code.APPLIED, Code.RULES_MOVED]
    assert result.decisions[1].detail == [2, False]


def test_a_proposal_of_an_action_that_is_gone_is_stale_with_the_next_approval() -> None:
    desk = Desk()
    desk.ledger = of_genesis(desk.genesis)
    proposed = desk.stored("clerk", TRANSFER)
    waiting = desk.stored("clerk", TRANSFER, TRANSFER)
    book = desk.ledger.rules(desk.state, desk.now_ms).book
    actions: Any = book.rule_sets["payments"].actions
    gone = actions.pop("transfer")
    desk.ledger.rules(desk.state, desk.now_ms).actives.clear()
    refused = desk.one(desk.act("social", "object", waiting, "no"))
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["not asked"]])
    result = desk.run(desk.act("officer", "approve", proposed))
    assert [each.code for each in result.decisions] == [Code.APPLIED, Code.UNKNOWN_ACTION]
    assert result.decisions[1].detail == ["payments", "transfer"]
    assert desk.word(proposed) == "stale"
    again = desk.draft("clerk", (gone.domain + ".check_purse", "a", 1000))
    assert desk.one(again).code == Code.APPLIED


# --- what is kept -----------------------------------------------------------------------------


@pytest.mark.parametrize("applied", [True, False])
def test_the_second_decision_can_be_executed_again_from_its_reads(
    desk: Desk, applied: bool
) -> None:
    proposed, who = desk.stored("clerk", TRANSFER), "officer"
    if not applied:
        register(desk, "ann")
        rename = ("identity.rename", person("ann"), "Anne")
        both = [
            desk.stored("registrar", rename, expects=[("person", person("ann"), 1)])
            for _ in range(2)
        ]
        desk.approve("deputy", both[0])
        proposed, who = both[1], "deputy"
    context = BlockContext(1, desk.height + 1, desk.now_ms + 1000)
    run = BlockRun(desk.ledger, desk.state, context, [desk.act(who, "approve", proposed)])
    assert run.step(1)
    pool, kh = run._pool, desk.ledger.paths("proposal", [proposed.txid])
    between = Row(run._view._singles[kh].vh, 0, run._view._written_singles[kh])  # type: ignore[union-attr]
    assert not run.step(1)
    done = run.finish().decisions[1]
    assert (done.code == Code.APPLIED) is applied
    full, moved = done.value("reads")  # type: ignore[misc]
    reads = {full[at : at + 32]: full[at + 32 : at + 64] for at in range(0, len(full), 64)}
    rows = {kh: desk.state.get(kh) for kh in reads}
    rows |= {moved[at : at + 32]: desk.state.get(moved[at : at + 32])
             for at in range(0, len(moved), 32)}  # fmt: skip
    rows[kh] = between
    assert reads == {kh: bytes(32) if rows[kh] is None else rows[kh].vh for kh in reads}  # type: ignore[union-attr]
    paths = desk.ledger.paths
    attested = [paths.pool, paths.rules, paths.executor]
    for domain in ("charter", "identity", "benefits", "payments"):
        attested += [paths("rules", [domain]), paths("rules", [domain, 1])]
    rows |= {each: desk.state.get(each) for each in attested}
    again = BlockRun(desk.ledger, Witness(rows), context, [])
    again._pool = pool
    again._settle(proposed.txid)
    (made,) = again._decisions
    # The proposal's leaf takes its salt from where the block began, which a witness does not show.
    written = "writes:charter"
    shown = [
        {name: value for name, value in each.leaves.items() if name != written}
        for each in (made, done)
    ]
    assert shown[0] == shown[1]
    entries = [[[*row[:3], row[4]] for row in each.value(written)] for each in (made, done)]  # type: ignore[union-attr]
    assert entries[0] == entries[1]
    assert made.header.state == done.header.state


def test_what_is_kept_of_a_proposal_is_of_the_grammar(desk: Desk) -> None:
    words = []
    ended = [desk.stored("clerk", TRANSFER) for _ in range(3)]
    poor = desk.stored("clerk", ("payments.transfer", "c", "b", 5000))
    direct = desk.propose("clerk", TRANSFER, cosigners=["officer"])
    desk.run(direct)
    desk.approve("officer", ended[0])
    desk.approve("officer", poor)
    desk.run(desk.act("auditor", "object", ended[1], "no"))
    desk.run(desk.act("clerk", "withdraw", ended[2]))
    leaf = pycddl.Schema("start = proposal-leaf\n" + CDDL)
    draft = pycddl.Schema("start = proposal-draft\n" + CDDL)
    for each in (*ended, poor, direct, desk.stored("clerk", TRANSFER)):
        words.append(desk.word(each))
        row = desk.state.get(desk.ledger.paths("proposal", [each.txid]))
        assert row is not None
        leaf.validate_cbor(decode_single(row.value)[2])
        row = desk.state.get(desk.ledger.paths("proposal", [each.txid, "draft"]))
        assert row is not None
        root, attachment = split_attached(row.value)
        assert root == each.txid
        draft.validate_cbor(attachment)
        body, openings, seed = codec.parse(attachment)
        assert decode_body(desk.ledger.chain, body).txid == each.txid
        assert (tuple(openings), seed) == (each.openings, each.seed)
    assert words == ["executed", "objected", "withdrawn", "stale", "executed", "open"]


def executed_twice(desk: Desk, *block: Transaction) -> BlockResult:
    """Execute a block with what earlier ones left in memory and without; both come to the same."""
    rows = ((kh, desk.state.get(kh)) for kh, _, _ in desk.state.entries())
    copy = MemoryBackend([(kh, row) for kh, row in rows if row is not None])
    context = BlockContext(1, desk.height + 1, desk.now_ms + 1000)
    bare = BlockRun(of_genesis(desk.genesis), copy, context, block).finish()
    result = desk.run(*block)
    assert (result.results_root, result.writes) == (bare.results_root, bare.writes)
    return result


def test_what_a_refused_transaction_wanted_is_not_kept_of_its_author_or_approvers(
    desk: Desk,
) -> None:
    given = desk.draft(
        "admin",
        ("charter.give_role", "treasury", token("admin"), "payments.officer", [], 0, None),
        expects=[("role", [token("admin"), "payments.officer"], 0)],
        cosigners=["officer"],
    )
    assert desk.one(given).code == Code.APPLIED
    proposed = desk.stored("clerk", TRANSFER)
    gone = desk.draft(
        "admin",
        ("charter.reinstate_principal", "treasury", token("clerk")),
        ("charter.approve", proposed.txid),
    )
    assert executed_twice(desk, gone).decisions[0].code == Code.STALE
    suspended = ("charter.suspend_principal", "treasury", token("clerk"))
    assert desk.do("admin", *suspended).code == Code.APPLIED
    undone = desk.draft(
        "admin",
        ("charter.reinstate_principal", "treasury", token("clerk")),
        ("charter.approve", proposed.txid),
        ("charter.approve", bytes(32)),
        expects=[("principal", [token("clerk")], 2)],
    )
    assert executed_twice(desk, undone).decisions[0].code == Code.NOT_FOUND
    payment = desk.draft("clerk", ("payments.check_purse", "a", 1000))
    assert executed_twice(desk, payment).decisions[0].code == Code.SUSPENDED
    last = executed_twice(desk, desk.act("officer", "approve", proposed))
    assert [each.code for each in last.decisions] == [Code.APPLIED, Code.SUSPENDED]


# --- random acts --------------------------------------------------------------------------------

PEOPLE = ("clerk", "officer", "auditor", "registrar", "deputy", "social", "admin")
OFFICERS, REGISTRARS = {"officer", "auditor"}, {"registrar", "deputy"}


class Model:
    """What must become of transfers (an officer) and seeded purses (and two of identity)."""

    def __init__(self) -> None:
        self.state: dict[bytes, str] = {}
        self.kind: dict[bytes, str] = {}
        self.approved: dict[bytes, set[str]] = {}

    def may(self, who: str, txid: bytes) -> bool:
        both = self.kind[txid] == "seed_purse"
        return who in OFFICERS or (both and who in REGISTRARS)

    def act(self, who: str, what: str, txid: bytes) -> Code:
        if self.state[txid] != "open":
            office = what == "withdraw" and who != "clerk"
            return Code.NOT_AUTHORIZED if office else Code.REQUIREMENT
        if what == "withdraw":
            if who != "clerk":
                return Code.NOT_AUTHORIZED
            self.state[txid] = "withdrawn"
        elif what == "approve" and who in self.approved[txid]:
            return Code.REQUIREMENT
        elif not self.may(who, txid):
            return Code.NOT_AUTHORIZED
        elif what == "object":
            self.state[txid] = "objected"
        else:
            approved = self.approved[txid]
            approved.add(who)
            complete = approved & OFFICERS and (
                self.kind[txid] == "transfer" or len(approved & REGISTRARS) == 2
            )
            if complete:
                self.state[txid] = "executed"
        return Code.APPLIED


@pytest.mark.parametrize("seed", range(3))
def test_random_acts_come_to_what_a_model_of_them_says(seed: int) -> None:
    chance = random.Random(seed)
    desk, model = Desk(), Model()
    by_txid: dict[bytes, Transaction] = {}
    start = desk.balance("purse", "a")
    for number in range(70):
        if not by_txid or chance.random() < 0.2:
            kind = chance.choice(("transfer", "seed_purse"))
            call = TRANSFER if kind == "transfer" else ("payments.seed_purse", f"p{number}", "a", 1)
            made = desk.stored("clerk", call)
            by_txid[made.txid], model.kind[made.txid] = made, kind
            model.state[made.txid], model.approved[made.txid] = "open", set()
            continue
        txid = chance.choice(list(by_txid))
        who = chance.choice(PEOPLE)
        what = chance.choice(("approve", "approve", "approve", "object", "withdraw"))
        expected = model.act(who, what, txid)
        inputs = ("no",) if what == "object" else ()
        result = executed_twice(desk, desk.act(who, what, by_txid[txid], *inputs))
        assert result.decisions[0].code == expected, (number, who, what, result.decisions[0].detail)
        assert {desk.word(each) for each in (by_txid[txid],)} == {model.state[txid]}
    paid = sum(state == "executed" for state in model.state.values())
    assert desk.balance("purse", "a") == start - paid
    assert set(model.state.values()) >= {"open", "executed"}
    assert public_key("clerk") == next(iter(by_txid.values())).author
    assert POLICIES


VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors/decision.json").read_text(encoding="utf-8")
)["proposals"]


def test_vectors_of_proposals() -> None:
    leaves = [bytes.fromhex(each) for each in VECTORS["leaves"]]
    for data in leaves:
        pycddl.Schema("start = proposal-leaf\n" + CDDL).validate_cbor(data)
        assert codec.encode(list(Proposal(*codec.parse(data)))) == data
    waiting, stale, objected = (Proposal(*codec.parse(data)) for data in leaves)
    assert [waiting.word(at) for at in (1000, 2000, 2001)] == ["open", "open", "expired"]
    assert (stale.word(3000), stale.protective, len(stale.calls)) == ("stale", True, 2)
    assert stale.end is not None
    assert stale.end[3] == [int(Code.STALE), 1, [["person", [b"\x08"]], 2, ["name"]]]
    assert (objected.word(3000), (objected.end or [])[3]) == ("objected", "paid already")
    draft = bytes.fromhex(VECTORS["draft"])
    pycddl.Schema("start = proposal-draft\n" + CDDL).validate_cbor(draft)


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**63 - 1, "", "a", "no" * 600, b"", b"x" * 32, bytes(32), [], [1], [[b"x"]],
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_is_proposed_or_said_of_proposals_does_more_than_be_refused(seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk()
    register(desk, "ann")
    book = desk.ledger.rules(desk.state, desk.now_ms).book
    actions = [each for rules in book.rule_sets.values() for each in rules.actions.values()]
    txids: list[Any] = [desk.stored("clerk", TRANSFER).txid]
    codes = set()
    for _ in range(100):
        block = []
        for _ in range(chance.randint(1, 4)):
            calls = []
            lane = chance.random() < 0.4
            for _ in range(chance.randint(1, 3)):
                action = chance.choice([each for each in actions if each.protective is lane])
                values = [
                    chance.choice((*txids, *ODD, person("ann"), "treasury", token("clerk")))
                    for _ in action.inputs
                ]
                calls.append((f"{action.domain}.{action.name}", *values))
            if chance.random() < 0.5:
                whole = (TRANSFER, ("payments.seed_purse", f"p{len(txids)}", "a", 1))
                stops = tuple(
                    (f"charter.{act}", chance.choice(txids), *why)
                    for act, why in (("object", ("no",)), ("withdraw", ()))
                )
                approves = ("charter.approve", chance.choice(txids))
                calls = [chance.choice(stops if lane else (*whole, approves))]
            who, *others = chance.sample(PEOPLE, chance.randint(1, 3))
            made = desk.draft(
                who,
                *calls,
                cosigners=others,
                mode=chance.choice((0, PROPOSE)),
                expects=[("person", person("ann"), 1)] * chance.randint(0, 1),
                under=[token("x")] * chance.randint(0, 1),
            )
            block.append(made)
        result = desk.run(*block)
        assert len(result.decisions) == len(block) + len(result.effects)
        codes |= {each.code for each in result.decisions}
        txids += [each.header.txid for each in result.decisions if each.code == Code.PROPOSED]
    assert len(codes) >= 6
