"""Holds bind by default: on records, accounts, actions, domains and agencies, present or absent."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

import itertools

import pytest

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.holds import HOLDS_MAX
from consensus.ledger.layout import ALL, CONFIRMED, EDIT, PAY, RELEASED, UNCONFIRMED, Hold
from consensus.ledger.rules import compile_rulebook, load_toml
from tests.consensus.ledger.reader import read_account, read_holds, read_single
from tests.consensus.ledger.world import TEXTS, World, ent, make_genesis, person, populated, token

TRANSFER = ("payments.transfer", "a", "b", 100)
HOUR_MS = 3_600_000


def holds_on(world: World, space: str, *components: Value) -> tuple[Hold, ...]:
    return read_holds(world.state, world.ledger.paths, space, components)


def place(
    world: World, space: str, target: list[Value], *scopes: str, until: int | None = None
) -> bytes:
    """Place a hold by hand and return its id."""
    decision = world.do(
        "admin", "charter.place_hold", [[space, target]], list(scopes), until, "Act"
    )
    assert decision.code == Code.APPLIED, decision.detail
    return holds_on(world, space, *target)[-1].id


def release(world: World, hold: bytes, version: int = 1) -> Decision:
    expects = [("hold", [hold], version)]
    return world.do("admin", "charter.release_hold", "treasury", hold, expects=expects)


def refused_by(decision: Decision) -> list[bytes]:
    assert decision.code == Code.HELD, (decision.code, decision.detail)
    ids: list[bytes] = decision.detail
    return ids


def test_hold_beats_payment_in_one_block_whatever_the_order() -> None:
    for order in itertools.permutations(range(3)):
        world = populated()
        block = [
            world.disburse("ann"),
            world.draft("auditor", ("payments.freeze", person("ann"), None)),
            world.disburse("ann", 24_313),
        ]
        result = world.run(*[block[index] for index in order])
        codes = [d.code for d in result.decisions]
        assert codes == [Code.APPLIED, Code.HELD, Code.HELD]
        [hold] = holds_on(world, "record", "person", token("ann"))
        assert result.decisions[1].detail == result.decisions[2].detail == [hold.id]
        assert world.balance("payee", person("ann")) == 0


def test_hold_is_recorded_with_who_why_and_until_when() -> None:
    world = populated()
    until = world.now_ms + 10_000
    world.do("auditor", "payments.freeze", person("ann"), until)
    [hold] = holds_on(world, "record", "person", token("ann"))
    assert hold[1:] == (
        [["record", ["person", token("ann")]]],
        ALL,
        world.now_ms,
        until,
        token("auditor"),
        "audit",
        "payments",
        CONFIRMED,
        "Public Finance Act",
        "inquiry",
    )
    record = world.record("person", person("ann"))
    assert (record.held, record.version) == (ALL, 1)


def test_lapsed_hold_blocks_nothing_though_its_mask_stays() -> None:
    world = populated()
    until = world.now_ms + 2000  # the time of the block after the next
    world.do("auditor", "payments.freeze", person("ann"), until)
    assert world.now_ms == until - 1000
    in_time, late = world.disburse("ann"), world.disburse("ann")
    world.now_ms -= 1
    refused_by(world.one(in_time))
    world.now_ms = until - 1000
    assert world.one(late).code == Code.APPLIED
    assert world.record("person", person("ann")).held == ALL


def test_hold_steps_no_version_so_nobody_becomes_stale() -> None:
    world = populated()
    hold = place(world, "record", ["person", token("ann")], "edit")
    assert world.record("person", person("ann")).held == EDIT
    expects = [("person", person("ann"), 1)]
    rename = ("identity.rename", person("ann"), "Anna")
    assert refused_by(world.do("registrar", *rename, expects=expects)) == [hold]
    assert world.one(world.disburse("ann")).code == Code.APPLIED  # reads, does not write
    assert release(world, hold).code == Code.APPLIED
    assert world.record("person", person("ann")).held == 0
    assert world.do("registrar", *rename, expects=expects).code == Code.APPLIED


def test_scope_all_blocks_whoever_loads_the_record() -> None:
    world = populated()
    hold = place(world, "record", ["person", token("ann")], "all")
    assert refused_by(world.one(world.disburse("ann"))) == [hold]
    moved = world.do(
        "ann's",
        "identity.move_house",
        person("ann"),
        "Street",
        "Town",
        expects=[("person", person("ann"), 1)],
    )
    assert refused_by(moved) == [hold]


def test_protective_acts_go_through_a_hold() -> None:
    world = populated()
    place(world, "record", ["person", token("ann")], "all")
    assert world.do("registrar", "identity.record_death", person("ann")).code == Code.APPLIED
    record = world.record("person", person("ann"))
    assert (record.fields["status"], record.version, record.held) == ("dead", 2, ALL)


@pytest.mark.parametrize("purse", ["a", "b"])
def test_pay_hold_blocks_debit_and_credit_of_an_account(purse: str) -> None:
    world = World()
    world.do("officer", "payments.freeze_purse", purse)
    [hold] = holds_on(world, "account", "purse", purse)
    assert hold.scopes == PAY
    assert refused_by(world.do("clerk", *TRANSFER)) == [hold.id]
    court = ("payments.court_transfer", "a", "b", 100)
    assert world.do("clerk", *court).code == Code.APPLIED  # its exception is declared
    thaw = world.do("officer", "payments.thaw_purse", purse, hold.id)
    assert thaw.code == Code.APPLIED, thaw.detail
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED
    row = world.state.get(world.ledger.paths("account", ["purse", purse]))
    assert row is not None
    assert read_account(row.value).held == 0


def test_edit_hold_on_an_account_blocks_no_payment() -> None:
    world = World()
    place(world, "account", ["purse", "a"], "edit")
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED


def test_held_account_is_named_in_writes_and_keeps_its_balance() -> None:
    world = World()
    decision = world.do("officer", "payments.freeze_purse", "a")
    entries = {entry[0][0]: entry[:3] for entry in decision.value("writes:payments")}
    assert entries["account"] == [["account", ["purse", "a"]], 1, 1]
    assert world.balance("purse", "a") == 1000


def test_hold_by_hand_lapses_unless_a_second_person_confirms() -> None:
    world = World()
    id_ = place(world, "account", ["purse", "a"], "pay")
    [hold] = holds_on(world, "account", "purse", "a")
    assert hold.state == UNCONFIRMED
    assert hold.until_ms == hold.placed_ms + 48 * HOUR_MS  # the charter's parameter
    world.now_ms = hold.until_ms - 2000
    assert refused_by(world.do("clerk", *TRANSFER)) == [id_]
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED
    late = world.do("admin", "charter.confirm_hold", id_, None, expects=[("hold", [id_], 1)])
    assert late.code == Code.NOT_AUTHORIZED  # the same person; that it lapsed comes after


def second_admin(world: World, name: str) -> None:
    give = ("charter.give_role", "treasury", token(name), "charter.admin", [], 0, None)
    role = ("role", [token(name), "charter.admin"], 0)
    assert world.do("admin", *give, expects=[role]).code == Code.APPLIED


def test_confirmed_hold_lasts_as_long_as_the_second_person_says() -> None:
    world = World()
    second_admin(world, "officer")
    id_ = place(world, "account", ["purse", "a"], "pay")
    named = [("hold", [id_], 1)]
    own = world.do("admin", "charter.confirm_hold", id_, None, expects=named)
    assert (own.code, own.detail) == (Code.NOT_AUTHORIZED, [["same_person"]])
    confirm = ("charter.confirm_hold", id_, None)
    assert world.do("officer", *confirm).code == Code.STALE
    assert world.do("officer", *confirm, expects=named).code == Code.APPLIED
    again = world.do("officer", *confirm, expects=[("hold", [id_], 2)])
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "NOT_OPEN")
    world.now_ms += 1000 * 24 * HOUR_MS
    assert refused_by(world.do("clerk", *TRANSFER)) == [id_]
    [hold] = holds_on(world, "account", "purse", "a")
    assert (hold.state, hold.until_ms) == (CONFIRMED, None)
    assert release(world, id_, 2).code == Code.APPLIED
    twice = release(world, id_, 3)
    assert (twice.code, twice.detail[0]) == (Code.REQUIREMENT, "RELEASED")
    row = world.state.get(world.ledger.paths("hold", [id_]))
    assert row is not None
    assert read_single("hold", [id_], row.value).value.state == RELEASED


def test_hold_on_what_does_not_exist_yet_waits_for_it() -> None:
    world = World()
    register = ("identity.register", token("eve"), "Eve", "north")
    expects = [("person", person("eve"), 0)]
    id_ = place(world, "record", ["person", token("eve")], "edit")
    assert refused_by(world.do("registrar", *register, expects=expects)) == [id_]
    assert release(world, id_).code == Code.APPLIED
    paying = place(world, "record", ["person", token("eve")], "pay")
    assert world.do("registrar", *register, expects=expects).code == Code.APPLIED
    assert world.record("person", person("eve")).held == PAY
    assert [hold.id for hold in holds_on(world, "record", "person", token("eve"))] == [paying]


def test_hold_on_an_account_that_does_not_exist_yet() -> None:
    world = World()
    id_ = place(world, "account", ["purse", "new"], "all")
    assert refused_by(world.do("clerk", "payments.open_purse", "new")) == [id_]
    assert release(world, id_).code == Code.APPLIED
    pay = place(world, "account", ["purse", "new"], "pay")
    assert world.do("clerk", "payments.open_purse", "new").code == Code.APPLIED
    assert refused_by(world.do("clerk", "payments.transfer", "a", "new", 1)) == [pay]


@pytest.mark.parametrize(
    ("space", "target"),
    [
        ("agency", ["treasury"]),
        ("domain", ["payments"]),
        ("action", ["payments", "transfer"]),
    ],
)
def test_hold_on_agency_domain_or_action_blocks_acts_under_it(
    space: str, target: list[Value]
) -> None:
    world = World()
    id_ = place(world, space, target, "pay")
    assert refused_by(world.do("clerk", *TRANSFER)) == [id_]
    opened = world.do("clerk", "payments.open_purse", f"{space}")
    assert opened.code == Code.APPLIED  # no payment
    assert release(world, id_).code == Code.APPLIED  # although the agency is held
    every = place(world, space, target, "all")
    assert refused_by(world.do("clerk", *TRANSFER)) == [every]
    other = world.do("clerk", "payments.open_purse", "other")
    assert other.code == (Code.APPLIED if space == "action" else Code.HELD)


def test_hold_on_the_agency_blocks_kernel_actions_but_not_the_release() -> None:
    world = World()
    id_ = place(world, "agency", ["treasury"], "all")
    opened = world.do("admin", "charter.open_account", "purse", ["x"])
    assert refused_by(opened) == [id_]
    assert release(world, id_).code == Code.APPLIED
    assert world.do("admin", "charter.open_account", "purse", ["x"]).code == Code.APPLIED


def test_holds_are_listed_once_each_and_positions_are_reused() -> None:
    world = World()
    target = ["purse", "a"]
    ids = [place(world, "account", target, "pay") for _ in range(3)]
    assert refused_by(world.do("clerk", *TRANSFER)) == ids
    assert release(world, ids[0]).code == Code.APPLIED
    assert [hold.id for hold in holds_on(world, "account", *target)] == [ids[2], ids[1]]
    assert release(world, ids[1]).code == Code.APPLIED
    assert [hold.id for hold in holds_on(world, "account", *target)] == [ids[2]]
    fourth = place(world, "account", target, "edit")
    assert [hold.id for hold in holds_on(world, "account", *target)] == [ids[2], fourth]
    assert release(world, ids[2]).code == Code.APPLIED
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED  # only edit is left


def test_target_takes_a_bounded_number_of_holds() -> None:
    world = World()
    call = ("payments.freeze_purse", "a")
    full = world.one(world.draft("officer", *[call] * HOLDS_MAX))
    assert full.code == Code.APPLIED
    one_more = world.do("officer", *call)
    assert (one_more.code, one_more.detail) == (Code.LIMIT, "holds")


def test_release_names_an_unreleased_hold_of_that_target() -> None:
    world = World()
    world.do("officer", "payments.freeze_purse", "a")
    [hold] = holds_on(world, "account", "purse", "a")
    other = world.do("officer", "payments.thaw_purse", "b", hold.id)
    assert (other.code, other.detail[0]) == (Code.REQUIREMENT, "NO_HOLD")
    unknown = world.do("officer", "payments.thaw_purse", "a", bytes(32))
    assert (unknown.code, unknown.detail[0]) == (Code.REQUIREMENT, "NO_HOLD")
    assert world.do("officer", "payments.thaw_purse", "a", hold.id).code == Code.APPLIED
    again = world.do("officer", "payments.thaw_purse", "a", hold.id)
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "RELEASED")


def test_reading_a_hold_is_recorded() -> None:
    world = populated()
    hold = place(world, "record", ["person", token("ann")], "all")
    reads, _ = world.one(world.disburse("ann")).value("reads")
    paths, target = world.ledger.paths, ["record", ["person", token("ann")]]
    for space, components in (
        ("holds", target),
        ("holds", [*target, 0]),
        ("hold", [hold]),
        ("record", ["person", token("ann")]),
        ("record", ["entitlement", *ent("ann")[1]]),
    ):
        kh = paths(space, components)
        row = world.state.get(kh)
        assert row is not None
        assert kh + row.vh in reads


# --- several targets, who releases, what they rest on -------------------------------------------

ANN = ["record", ["person", token("ann")]]
PURSE = ["account", ["purse", "a"]]


def place_on(world: World, *targets: Value, scopes: tuple[str, ...] = ("all",)) -> bytes:
    inputs = (list(targets), list(scopes), None, "Public Integrity Act, section 9")
    decision = world.do("admin", "charter.place_hold", *inputs)
    assert decision.code == Code.APPLIED, decision.detail
    [space, components] = targets[0]
    return holds_on(world, space, *components)[-1].id


def test_one_hold_on_several_targets_blocks_each_and_is_released_from_all() -> None:
    world = populated()
    later: Value = ["record", ["person", token("eve")]]
    id_ = place_on(world, ANN, PURSE, later, ["domain", ["identity"]])
    assert refused_by(world.one(world.disburse("ann"))) == [id_]
    assert refused_by(world.do("clerk", *TRANSFER)) == [id_]
    register_eve = ("identity.register", token("eve"), "Eve", "north")
    named = [("person", person("eve"), 0)]
    assert refused_by(world.do("registrar", *register_eve, expects=named)) == [id_]
    [hold] = holds_on(world, "domain", "identity")
    assert hold.targets == [ANN, PURSE, later, ["domain", ["identity"]]]
    assert hold.legal == "Public Integrity Act, section 9"
    assert hold.domain == "charter"
    assert release(world, id_).code == Code.APPLIED
    assert world.one(world.disburse("ann")).code == Code.APPLIED
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED
    assert world.do("registrar", *register_eve, expects=named).code == Code.APPLIED
    for space, components in hold.targets:
        assert holds_on(world, space, *components) == ()


def test_several_targets_of_one_hold_may_stand_at_different_positions() -> None:
    world = populated()
    first = place_on(world, PURSE)
    both = place_on(world, PURSE, ["account", ["purse", "b"]])
    last = place_on(world, PURSE)
    assert release(world, both).code == Code.APPLIED
    assert [each.id for each in holds_on(world, "account", "purse", "a")] == [first, last]
    assert holds_on(world, "account", "purse", "b") == ()


def test_a_hold_that_one_full_target_does_not_take_is_placed_on_none() -> None:
    world = World()
    full = ("payments.freeze_purse", "a")
    assert world.one(world.draft("officer", *[full] * HOLDS_MAX)).code == Code.APPLIED
    inputs = ([["account", ["purse", "b"]], PURSE], ["pay"], None, "Act")
    refused = world.do("admin", "charter.place_hold", *inputs)
    assert (refused.code, refused.detail) == (Code.LIMIT, "holds")
    assert holds_on(world, "account", "purse", "b") == ()


def test_whoever_placed_a_hold_by_hand_withdraws_it_and_nobody_else() -> None:
    world = World()
    second_admin(world, "officer")
    id_ = place_on(world, PURSE)
    withdraw, named = ("charter.withdraw_hold", id_), [("hold", [id_], 1)]
    other = world.do("officer", *withdraw, expects=named)
    assert (other.code, other.detail) == (Code.NOT_AUTHORIZED, [["hold", id_, "placer"]])
    assert world.do("admin", *withdraw, expects=named).code == Code.APPLIED
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED


def test_a_superior_releases_holds_of_the_own_agency_whoever_placed_them() -> None:
    world = World()
    second_admin(world, "officer")
    id_ = place_on(world, PURSE)
    inputs: tuple[Value, ...] = ("charter.release_hold", "treasury", id_)
    assert world.do("officer", *inputs, expects=[("hold", [id_], 1)]).code == Code.APPLIED
    world.do("auditor", "payments.freeze_purse", "b")
    [hold] = holds_on(world, "account", "purse", "b")
    foreign = world.do(
        "admin", "charter.release_hold", "treasury", hold.id, expects=[("hold", [hold.id], 1)]
    )
    assert (foreign.code, foreign.detail) == (Code.NOT_AUTHORIZED, [["agency", "audit"]])


def test_a_hold_placed_by_rules_is_not_withdrawn_by_hand() -> None:
    world = World()
    second_admin(world, "officer")
    world.do("officer", "payments.freeze_purse", "a")
    [hold] = holds_on(world, "account", "purse", "a")
    refused = world.do(
        "officer", "charter.withdraw_hold", hold.id, expects=[("hold", [hold.id], 1)]
    )
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["hold", hold.id, "placer"]])


def test_rules_release_what_rules_of_the_same_domain_placed() -> None:
    world = World()
    id_ = place_on(world, PURSE)
    refused = world.do("officer", "payments.thaw_purse", "a", id_)
    assert (refused.code, refused.detail[0]) == (Code.REQUIREMENT, "NOT_OURS")


SEVERAL = """
[actions.freeze_two]
phase  = "protective"
legal  = "Public Integrity Act, section 3"
actor  = { role = "payments.officer" }
inputs = { one = "text", two = "text" }
place_hold = [ { targets = ["account/purse/{input.one}", "account/purse/{input.two}"], scopes = ["pay"], reason = "a dispute" },
               { target = "account/purse/{input.one}", scopes = ["edit"], legal = "Court order", reason = "a dispute" } ]
"""


def test_rules_place_one_hold_on_several_targets_and_say_what_it_rests_on() -> None:
    world = World(make_genesis((*TEXTS[:3], TEXTS[3] + SEVERAL)))
    assert world.do("officer", "payments.freeze_two", "a", "b").code == Code.APPLIED
    pay, edit = holds_on(world, "account", "purse", "a")
    assert pay.targets == [PURSE, ["account", ["purse", "b"]]]
    assert (pay.legal, edit.legal) == ("Public Integrity Act, section 3", "Court order")
    assert [each.id for each in holds_on(world, "account", "purse", "b")] == [pay.id]
    thawed = world.do("officer", "payments.thaw_purse", "b", pay.id)
    assert thawed.code == Code.APPLIED
    assert [each.id for each in holds_on(world, "account", "purse", "a")] == [edit.id]


def test_targets_that_come_to_one_place_are_one() -> None:
    world = World(make_genesis((*TEXTS[:3], TEXTS[3] + SEVERAL)))
    assert world.do("officer", "payments.freeze_two", "a", "a").code == Code.APPLIED
    pay, _ = holds_on(world, "account", "purse", "a")
    assert pay.targets == [PURSE]


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        ('{ scopes = ["pay"], reason = "r" }', "targets is missing"),
        ('{ targets = [], scopes = ["pay"], reason = "r" }', "has a target"),
        (
            '{ target = "account/purse/a", targets = ["account/purse/b"], scopes = ["pay"], reason = "r" }',
            "either target or targets",
        ),
    ],
)
def test_a_hold_of_rules_names_its_targets_once(effect: str, said: str) -> None:
    text = f"""{TEXTS[3]}
[actions.freeze_more]
actor  = {{ role = "payments.officer" }}
place_hold = [ {effect} ]
"""
    with pytest.raises(RulesError, match=said):
        compile_rulebook([load_toml(each) for each in (*TEXTS[:3], text)])
