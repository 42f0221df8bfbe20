"""Every outcome of a transaction, each by the smallest scenario that leads to it."""

from __future__ import annotations

import msgspec
import pytest

from consensus.codec import Value
from consensus.errors import LocalProtocolError
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.sequence import JUMP_MAX
from consensus.ledger.transaction import Draft
from tests.consensus.ledger.world import (
    START_MS,
    World,
    ent,
    person,
    populated,
    public_key,
    register,
    token,
)

TRANSFER = ("payments.transfer", "a", "b", 100)


def outcome(decision: Decision) -> tuple[Code, Value]:
    return decision.code, decision.detail


# --- the transaction's own checks -------------------------------------------------------------


def test_transfer_moves_money_and_says_how() -> None:
    world = World()
    decision = world.do("clerk", *TRANSFER)
    assert outcome(decision) == (Code.APPLIED, None)
    assert decision.call is None
    assert (world.balance("purse", "a"), world.balance("purse", "b")) == (900, 600)
    assert decision.value("moves:payments") == [
        [0, ["purse", "a"], -100],
        [0, ["purse", "b"], 100],
    ]
    assert decision.names == ("code", "authority", "reads", "moves:payments")
    header = decision.header
    assert (header.height, header.index, header.time_ms, header.state) == (1, 0, world.now_ms, 1)
    assert [(a.domain, a.number) for a in header.actions] == [("payments", 1)]
    assert decision.value("authority") == [
        [token("clerk"), "treasury", public_key("clerk")],
        [["payments.clerk", [["region", "north"]]]],
        [],
    ]


def test_unknown_key_is_named_and_has_no_authority() -> None:
    world = World()
    decision = world.do("stranger", *TRANSFER)
    assert outcome(decision) == (Code.UNKNOWN_KEY, public_key("stranger"))
    assert decision.names == ("code", "reads")
    assert decision.header.actions == ()
    kh = world.ledger.paths("key", [public_key("stranger")])
    assert decision.value("reads") == [kh + bytes(32), b""]


def test_sequence_number_is_spent_once_in_any_order_within_the_window() -> None:
    world = World()
    first = world.draft("clerk", TRANSFER, sequence=7)
    assert world.one(first).code == Code.APPLIED
    assert outcome(world.one(first)) == (Code.SEQUENCE_SPENT, 7)
    assert world.one(world.draft("clerk", TRANSFER, sequence=5)).code == Code.APPLIED
    assert world.one(world.draft("clerk", TRANSFER, sequence=2000)).code == Code.APPLIED
    old = world.one(world.draft("clerk", TRANSFER, sequence=976))
    assert outcome(old) == (Code.SEQUENCE_OLD, [976, 977])
    assert world.one(world.draft("clerk", TRANSFER, sequence=977)).code == Code.APPLIED


def test_sequence_jump_beyond_the_bound_is_refused_and_spends_nothing() -> None:
    world = World()
    ahead = world.one(world.draft("clerk", TRANSFER, sequence=JUMP_MAX + 1))
    assert outcome(ahead) == (Code.SEQUENCE_AHEAD, [JUMP_MAX + 1, JUMP_MAX])
    assert world.one(world.draft("clerk", TRANSFER, sequence=JUMP_MAX)).code == Code.APPLIED
    assert world.one(world.draft("clerk", TRANSFER, sequence=JUMP_MAX + 1)).code == Code.APPLIED


def test_same_transaction_twice_in_a_block_is_spent_the_second_time() -> None:
    world = World()
    transaction = world.draft("clerk", TRANSFER)
    result = world.run(transaction, transaction)
    assert [d.code for d in result.decisions] == [Code.APPLIED, Code.SEQUENCE_SPENT]
    assert result.decisions[0].root != result.decisions[1].root
    assert world.balance("purse", "a") == 900


def test_refusal_spends_the_number_and_changes_nothing_else() -> None:
    world = World()
    poor = world.draft("clerk", ("payments.transfer", "c", "b", 51))
    result = world.run(poor)
    assert result.decisions[0].code == Code.INSUFFICIENT
    touched = {write.kh for write in result.writes}
    paths = world.ledger.paths
    assert touched == {paths.pool, paths("sequence", [public_key("clerk")])}
    assert world.one(poor).code == Code.SEQUENCE_SPENT


def test_expired_and_too_late_transactions_are_refused() -> None:
    world = World()
    block_ms = world.now_ms + 1000
    at_the_end = world.draft("clerk", TRANSFER, not_after_ms=block_ms)
    assert world.one(at_the_end).code == Code.APPLIED
    block_ms = world.now_ms + 1000
    late = world.one(world.draft("clerk", TRANSFER, not_after_ms=block_ms - 1))
    assert outcome(late) == (Code.EXPIRED, [block_ms - 1, block_ms])
    latest = world.now_ms + 1000 + 86_400_000
    far = world.one(world.draft("clerk", TRANSFER, not_after_ms=latest + 1))
    assert outcome(far) == (Code.NOT_AFTER_TOO_FAR, [latest + 1, latest])


@pytest.mark.parametrize(("compromised", "why"), [(False, "revoked"), (True, "compromised")])
def test_revoked_key_is_inactive(compromised: bool, why: str) -> None:
    world = World()
    revoke = ("charter.revoke_key", "treasury", token("clerk"), public_key("clerk"), compromised)
    assert world.do("admin", *revoke).code == Code.APPLIED
    assert outcome(world.do("clerk", *TRANSFER)) == (Code.KEY_INACTIVE, [public_key("clerk"), why])


def test_suspended_principal_and_agency_are_named() -> None:
    world = World()
    suspend = ("charter.suspend_principal", "treasury", token("clerk"))
    assert world.do("admin", *suspend).code == Code.APPLIED
    refused = world.do("clerk", *TRANSFER)
    assert outcome(refused) == (Code.SUSPENDED, ["principal", [token("clerk")]])
    assert world.do("admin", "charter.suspend_agency", "registry").code == Code.APPLIED
    refused = world.do("registrar", "identity.register", token("x"), "X", "north")
    assert outcome(refused) == (Code.SUSPENDED, ["agency", ["registry"]])


def test_cosigner_must_be_in_force_though_its_signature_is_good() -> None:
    world = World()
    decision = world.do("clerk", *TRANSFER, cosigners=["officer"])
    assert decision.code == Code.APPLIED
    assert decision.value("authority")[2] == [[token("officer"), "treasury", public_key("officer")]]
    unknown = world.do("clerk", *TRANSFER, cosigners=["stranger"])
    assert outcome(unknown) == (Code.KEY_INACTIVE, [public_key("stranger"), "unknown"])
    world.do("admin", "charter.suspend_principal", "treasury", token("officer"))
    suspended = world.do("clerk", *TRANSFER, cosigners=["officer"])
    assert outcome(suspended) == (Code.SUSPENDED, ["principal", [token("officer")]])


def test_reason_alone_is_no_obstacle() -> None:
    world = World()
    assert world.do("clerk", *TRANSFER, reason="by order").code == Code.APPLIED


# --- rules and inputs -------------------------------------------------------------------------


def changed(draft: Draft, **changes: object) -> Draft:
    return msgspec.structs.replace(draft, **changes)


def test_action_under_another_identity_is_moved() -> None:
    world = World()
    call = changed(world.call(*TRANSFER), action_id=bytes(32))
    assert outcome(world.one(world.draft("clerk", call))) == (Code.RULES_MOVED, [1, False])


def test_parameters_that_the_author_did_not_see_are_moved() -> None:
    world = World()
    register(world, "ann")
    grant = ("benefits.grant", person("ann"), 400)
    expects = [("person", person("ann"), 1), (*ent("ann"), 0)]
    transaction = world.draft("social", grant, expects=expects)
    early = world.draft("social", grant, expects=expects, not_after_ms=1_769_904_000_000)
    assert world.one(transaction).code == Code.APPLIED
    world.now_ms = 1_769_904_000_000 - 1000  # the next block is of February
    assert outcome(world.one(early)) == (Code.RULES_MOVED, [1, True])


def test_protective_flag_that_is_wrong_is_moved() -> None:
    world = populated()
    call = changed(world.call("payments.freeze", person("ann"), None), protective=False)
    assert outcome(world.one(world.draft("officer", call))) == (Code.RULES_MOVED, [1, False])
    call = changed(world.call(*TRANSFER), protective=True)
    assert outcome(world.one(world.draft("clerk", call))) == (Code.RULES_MOVED, [1, False])


def test_protective_call_is_judged_under_the_active_rules() -> None:
    world = populated()
    freeze = world.call("payments.freeze", person("ann"), None)
    stale = changed(freeze, action_id=bytes(32), params=bytes(32))
    assert world.one(world.draft("officer", stale)).code == Code.APPLIED


@pytest.mark.parametrize(("domain", "action"), [("payments", "nothing"), ("nowhere", "transfer")])
def test_unknown_action_is_named(domain: str, action: str) -> None:
    world = World()
    call = changed(world.call(*TRANSFER), domain=domain, action=action)
    decision = world.one(world.draft("clerk", call))
    assert outcome(decision) == (Code.UNKNOWN_ACTION, [domain, action])
    assert decision.call == 0
    assert decision.header.actions == ()


def test_bad_input_names_the_input_and_the_reason() -> None:
    world = World()
    decision = world.do("clerk", "payments.transfer", "a", "b", "much")
    assert outcome(decision) == (Code.BAD_INPUT, ["amount", "expected money:USD, got text"])
    decision = world.do("clerk", "payments.transfer", "a", "b")
    assert outcome(decision) == (Code.BAD_INPUT, ["", "2 inputs, expected 3"])


def test_record_or_account_that_is_absent_is_named() -> None:
    world = populated()
    decision = world.do("registrar", "identity.rename", person("eve"), "Eve")
    assert outcome(decision) == (Code.NOT_FOUND, ["person", ["person", person("eve")]])
    decision = world.do("clerk", "payments.check_purse", "zzz", 1)
    assert outcome(decision) == (Code.NOT_FOUND, ["purse", ["account", ["purse", "zzz"]]])
    decision = world.do("clerk", "payments.transfer", "a", "zzz", 1)
    assert outcome(decision) == (Code.NOT_FOUND, ["purse", ["account", ["purse", "zzz"]]])
    kh = world.ledger.paths("account", ["purse", "zzz"])
    assert kh + bytes(32) in decision.value("reads")[0]


# --- conflicts --------------------------------------------------------------------------------


def rename(world: World, version: int, name: str = "Anna") -> Decision:
    return world.do(
        "registrar",
        "identity.rename",
        person("ann"),
        name,
        expects=[("person", person("ann"), version)],
    )


def move_house(world: World, version: int) -> Decision:
    return world.do(
        "ann's",
        "identity.move_house",
        person("ann"),
        "High Street 1",
        "Town",
        expects=[("person", person("ann"), version)],
    )


def test_citizen_changes_address_and_office_changes_name_of_one_version() -> None:
    world = populated()
    assert rename(world, 1).code == Code.APPLIED
    assert move_house(world, 1).code == Code.APPLIED
    record = world.record("person", person("ann"))
    assert record.version == 3
    assert (record.fields["name"], record.fields["town"]) == ("Anna", "Town")
    versions = {name: record.versions[name] for name in ("name", "street", "town", "region")}
    assert versions == {"name": 2, "street": 3, "town": 3, "region": 1}


def test_second_writer_of_one_field_is_stale_and_told_what_moved() -> None:
    world = populated()
    assert rename(world, 1).code == Code.APPLIED
    assert outcome(rename(world, 1)) == (Code.STALE, [["person", person("ann")], 2, ["name"]])
    assert rename(world, 2).code == Code.APPLIED


def test_conflict_inside_one_block_is_found() -> None:
    world = populated()
    expects = [("person", person("ann"), 1)]
    both = [
        world.draft(author, ("identity.rename", person("ann"), author), expects=expects)
        for author in ("registrar", "deputy")
    ]
    result = world.run(*both)
    assert [d.code for d in result.decisions] == [Code.APPLIED, Code.STALE]
    assert world.record("person", person("ann")).fields["name"] == "registrar"


def test_grouped_fields_conflict_together() -> None:
    world = populated()
    assert move_house(world, 1).code == Code.APPLIED
    assert outcome(move_house(world, 1)) == (
        Code.STALE,
        [["person", person("ann")], 2, ["street", "town"]],
    )


@pytest.mark.parametrize("version", [0, 2, 9])
def test_version_that_never_was_is_stale(version: int) -> None:
    world = populated()
    assert outcome(rename(world, version)) == (Code.STALE, [["person", person("ann")], 1, []])


def test_written_record_that_is_not_named_is_stale() -> None:
    world = populated()
    decision = world.do("registrar", "identity.rename", person("ann"), "Anna")
    assert outcome(decision) == (Code.STALE, [["person", person("ann")], 1, []])


def test_field_depended_on_that_moved_is_stale() -> None:
    world = populated()
    suspend_then_pay = world.disburse("ann")
    world.do("social", "benefits.renew", person("ann"), expects=[(*ent("ann"), 1)])
    assert world.one(suspend_then_pay).code == Code.APPLIED  # the basis is no field it depends on
    unnamed = world.do("officer", "payments.disburse", person("ann"), 24_313)
    assert outcome(unnamed) == (Code.STALE, [["entitlement", person("ann")], 2, []])


def test_record_to_be_made_must_be_expected_absent() -> None:
    world = populated()
    again = ("identity.register", token("ann"), "Ann", "north")
    decision = world.do("registrar", *again, expects=[("person", person("ann"), 0)])
    assert outcome(decision) == (Code.STALE, [["person", person("ann")], 1, []])
    decision = world.do("registrar", *again)
    assert outcome(decision) == (Code.STALE, [["person", person("ann")], 1, []])
    decision = world.do("registrar", *again, expects=[("person", person("ann"), 1)])
    assert outcome(decision) == (Code.NOT_UNIQUE, [["person", person("ann")]])
    unnamed = world.do("registrar", "identity.register", token("eve"), "Eve", "north")
    assert outcome(unnamed) == (Code.STALE, [["person", person("eve")], 0, []])


def test_extra_expectations_are_checked_as_a_whole() -> None:
    world = populated()
    fine = [("person", person("ann"), 1), ("person", person("eve"), 0), ("agency", ["audit"], 1)]
    assert world.do("clerk", *TRANSFER, expects=fine).code == Code.APPLIED
    assert rename(world, 1).code == Code.APPLIED
    refused = world.do("clerk", *TRANSFER, expects=fine)
    assert outcome(refused) == (Code.STALE, [["person", person("ann")], 2, []])
    refused = world.do("clerk", *TRANSFER, expects=[("no_kind", ["x"], 1)])
    assert outcome(refused) == (Code.STALE, [["no_kind", ["x"]], 0, []])
    refused = world.do("clerk", *TRANSFER, expects=[("key", [public_key("clerk")], 2)])
    assert outcome(refused) == (Code.STALE, [["key", [public_key("clerk")]], 1, []])


def test_protective_call_needs_no_versions() -> None:
    world = populated()
    rename(world, 1)
    death = world.do(
        "registrar", "identity.record_death", person("ann"), expects=[("person", person("ann"), 1)]
    )
    assert death.code == Code.APPLIED
    assert world.record("person", person("ann")).fields["status"] == "dead"


# --- facts that rest on facts -----------------------------------------------------------------


def test_payment_is_refused_when_the_fact_below_the_entitlement_moved() -> None:
    world = populated()
    assert world.one(world.disburse("ann")).code == Code.APPLIED
    abroad = [("person", person("ann"), 1)]
    assert world.do("registrar", "identity.go_abroad", person("ann"), expects=abroad).code == 0
    decision = world.one(world.disburse("ann", 24_313))
    assert outcome(decision) == (Code.BASIS_MOVED, [["person", person("ann")], "status"])
    back = [("person", person("ann"), 2)]
    assert world.do("deputy", "identity.come_back", person("ann"), expects=back).code == 0
    assert world.one(world.disburse("ann", 24_314)).code == Code.BASIS_MOVED
    renewed = world.do("social", "benefits.renew", person("ann"), expects=[(*ent("ann"), 1)])
    assert renewed.code == Code.APPLIED
    assert world.one(world.disburse("ann", 24_315)).code == Code.APPLIED


def test_change_of_another_field_does_not_move_the_basis() -> None:
    world = populated()
    assert rename(world, 1).code == Code.APPLIED
    assert world.one(world.disburse("ann")).code == Code.APPLIED


def chain(world: World, length: int) -> None:
    """Make links l0 <- l1 <- ... each resting on the one before."""
    assert world.do("social", "benefits.start", "l0", expects=[("link", ["l0"], 0)]).code == 0
    for index in range(1, length):
        made = world.do(
            "social",
            "benefits.chain",
            f"l{index}",
            [f"l{index - 1}"],
            expects=[("link", [f"l{index}"], 0)],
        )
        assert made.code == Code.APPLIED, made.detail


def test_basis_is_followed_to_depth_four_and_refused_beyond() -> None:
    world = World()
    chain(world, 7)
    assert world.do("social", "benefits.rely", ["l4"]).code == Code.APPLIED
    assert outcome(world.do("social", "benefits.rely", ["l5"])) == (Code.BASIS_MOVED, "limit")
    assert outcome(world.do("social", "benefits.rely", ["l6"])) == (Code.BASIS_MOVED, "limit")
    moved = world.do("social", "benefits.relink", ["l0"], ["l6"], expects=[("link", ["l0"], 1)])
    assert moved.code == Code.APPLIED
    assert outcome(world.do("social", "benefits.rely", ["l4"])) == (
        Code.BASIS_MOVED,
        [["link", ["l0"]], "to"],
    )


# --- requirements, money, slots ---------------------------------------------------------------


def test_failed_requirement_gives_its_own_code_and_sentence() -> None:
    world = populated()
    suspended = world.do("registrar", "identity.record_death", person("bob"))
    assert suspended.code == Code.APPLIED
    decision = world.do(
        "social",
        "benefits.grant",
        person("bob"),
        1,
        expects=[("person", person("bob"), 2), (*ent("bob"), 0)],
    )
    assert outcome(decision) == (Code.REQUIREMENT, ["DEAD", "the person is not alive"])
    decision = world.do(
        "social",
        "benefits.grant",
        person("ann"),
        501,
        expects=[("person", person("ann"), 1), (*ent("ann"), 1)],
    )
    assert outcome(decision) == (Code.REQUIREMENT, ["MOST", "too much"])


def test_negative_amount_is_a_failed_requirement() -> None:
    world = World()
    decision = world.do("clerk", "payments.transfer", "a", "b", -1)
    assert outcome(decision) == (Code.REQUIREMENT, ["NEGATIVE", "input.amount is < 0"])


def test_status_goes_only_along_declared_steps() -> None:
    world = populated()
    decision = world.do(
        "deputy", "identity.come_back", person("ann"), expects=[("person", person("ann"), 1)]
    )
    assert outcome(decision) == (
        Code.REQUIREMENT,
        ["NO_STEP", "person cannot go from alive to alive"],
    )


def test_floor_is_kept_and_the_balance_is_not_told() -> None:
    world = World()
    assert world.do("clerk", "payments.transfer", "c", "a", 50).code == Code.APPLIED
    assert world.balance("purse", "c") == -50
    decision = world.do("clerk", "payments.transfer", "c", "a", 1)
    assert outcome(decision) == (Code.INSUFFICIENT, [["purse", "c"], "floor"])


def test_balance_beyond_64_bits_is_refused() -> None:
    world = World()
    decision = world.do("clerk", "payments.transfer", "a", "b", 2**63 - 1)
    assert outcome(decision) == (Code.INSUFFICIENT, [["purse", "a"], "floor"])


def test_taken_slot_is_named_and_a_payment_happens_once() -> None:
    world = populated()
    first, again = world.disburse("ann"), world.disburse("ann")
    result = world.run(first, again)
    assert outcome(result.decisions[0]) == (Code.APPLIED, None)
    assert outcome(result.decisions[1]) == (Code.NOT_UNIQUE, [["unique", "payment"]])
    assert world.balance("payee", person("ann")) == 400
    assert outcome(world.one(world.disburse("ann")))[0] == Code.NOT_UNIQUE


def test_account_that_exists_is_not_opened_again() -> None:
    world = World()
    assert world.do("clerk", "payments.open_purse", "new").code == Code.APPLIED
    assert world.balance("purse", "new") == 0
    decision = world.do("clerk", "payments.open_purse", "new")
    assert outcome(decision) == (Code.NOT_UNIQUE, [["account", ["purse", "new"]]])


def test_account_is_opened_and_paid_into_by_one_call() -> None:
    world = World()
    decision = world.do("clerk", "payments.seed_purse", "new", "a", 30)
    assert decision.code == Code.APPLIED
    assert (world.balance("purse", "new"), world.balance("purse", "a")) == (30, 970)
    [entry] = decision.value("writes:payments")
    assert entry[:3] == [["account", ["purse", "new"]], 0, 1]


def test_sealed_input_is_not_delivered() -> None:
    world = World()
    assert world.do("clerk", "payments.sealed_note", None).code == Code.APPLIED
    decision = world.do("clerk", "payments.sealed_note", bytes(32))
    assert outcome(decision) == (Code.NOT_DELIVERED, [[0, "iban", "treasury"]])


# --- several calls ----------------------------------------------------------------------------


def test_later_calls_see_earlier_ones_and_versions_step_once() -> None:
    world = populated()
    transaction = world.draft(
        "registrar",
        ("identity.rename", person("ann"), "A"),
        ("identity.rename", person("ann"), "B"),
        ("identity.go_abroad", person("ann")),
        expects=[("person", person("ann"), 1)],
    )
    decision = world.one(transaction)
    assert decision.code == Code.APPLIED
    record = world.record("person", person("ann"))
    assert (record.version, record.fields["name"], record.fields["status"]) == (2, "B", "abroad")
    [entry] = decision.value("writes:identity")
    assert entry[:3] == [["record", ["person", token("ann")]], 1, 2]
    assert [leaf for leaf, _ in entry[4]] == ["by", "name", "status"]
    assert len(decision.header.actions) == 3


def test_calls_are_all_or_none() -> None:
    world = World()
    transaction = world.draft(
        "clerk",
        ("payments.transfer", "a", "b", 100),
        ("payments.transfer", "c", "b", 51),
        ("payments.transfer", "a", "b", 1),
    )
    decision = world.one(transaction)
    assert outcome(decision) == (Code.INSUFFICIENT, [["purse", "c"], "floor"])
    assert decision.call == 1
    assert len(decision.header.actions) == 2
    assert world.balance("purse", "a") == 1000
    assert "moves:payments" not in decision.names


def test_sixty_four_calls_fit() -> None:
    world = World()
    calls = [("payments.transfer", "a", "b", 1)] * 64
    decision = world.one(world.draft("clerk", *calls))
    assert decision.code == Code.APPLIED
    assert world.balance("purse", "a") == 936
    assert [row[0] for row in decision.value("moves:payments")[::2]] == list(range(64))


def test_loaded_balance_is_that_of_the_moment() -> None:
    world = World()
    transaction = world.draft(
        "clerk",
        ("payments.transfer", "a", "b", 100),
        ("payments.check_purse", "a", 900),
        ("payments.open_purse", "new"),
        ("payments.check_purse", "new", 0),
        ("payments.transfer", "a", "new", 5),
        ("payments.check_purse", "new", 5),
    )
    assert world.one(transaction).code == Code.APPLIED
    assert outcome(world.do("clerk", "payments.check_purse", "a", 896)) == (
        Code.REQUIREMENT,
        ["BALANCE", "another balance"],
    )


def test_record_made_twice_by_one_transaction_is_not_unique() -> None:
    world = World()
    calls = [("identity.register", token("x"), name, "north") for name in "XY"]
    decision = world.one(world.draft("registrar", *calls, expects=[("person", person("x"), 0)]))
    assert outcome(decision) == (Code.NOT_UNIQUE, [["person", person("x")]])
    assert decision.call == 1


def test_record_made_by_the_transaction_may_be_written_by_it() -> None:
    world = World()
    decision = world.one(
        world.draft(
            "registrar",
            ("identity.register", token("x"), "X", "north"),
            ("identity.rename", person("x"), "Y"),
            expects=[("person", person("x"), 0)],
        )
    )
    assert decision.code == Code.APPLIED, decision.detail
    record = world.record("person", person("x"))
    assert (record.version, record.fields["name"]) == (1, "Y")


def test_power_given_by_an_earlier_call_counts() -> None:
    world = World()
    give = ("charter.give_role", "treasury", token("admin"), "payments.clerk", [], 0, None)
    role = ("role", [token("admin"), "payments.clerk"])
    transaction = world.draft("admin", give, TRANSFER, expects=[(*role, 0)])
    assert world.one(transaction).code == Code.APPLIED
    assert world.do("admin", *TRANSFER).code == Code.APPLIED


# --- blocks -----------------------------------------------------------------------------------


def test_protective_transactions_come_first_otherwise_order_stays() -> None:
    world = populated()
    payment = world.disburse("ann")
    transfer = world.draft("clerk", TRANSFER)
    freeze = world.draft("auditor", ("payments.freeze", person("ann"), None))
    result = world.run(payment, transfer, freeze)
    assert [d.header.txid for d in result.decisions] == [freeze.txid, payment.txid, transfer.txid]
    assert [d.header.index for d in result.decisions] == [0, 1, 2]
    assert [d.code for d in result.decisions] == [Code.APPLIED, Code.HELD, Code.APPLIED]


@pytest.mark.parametrize("slice_", [1, 2, 3, 100])
def test_slices_do_not_change_results(slice_: int) -> None:
    def results(size: int) -> tuple[bytes, object]:
        world = populated()
        block = [world.draft("clerk", ("payments.transfer", "a", "b", n)) for n in range(5)]
        block += [world.disburse("ann"), world.disburse("ann")]
        block += [world.draft("registrar", ("identity.rename", person("bob"), "B"))]
        result = world.run(*block, slice_=size)
        return result.results_root, result.writes

    assert results(slice_) == results(1000)


def test_finish_executes_what_is_left_and_happens_once() -> None:
    world = World()
    context = BlockContext(1, 1, START_MS + 1)
    run = BlockRun(world.ledger, world.state, context, [world.draft("clerk", TRANSFER)] * 3)
    assert run.step(1)
    result = run.finish()
    assert len(result.decisions) == 3
    with pytest.raises(LocalProtocolError, match="once"):
        run.finish()


def test_empty_block_writes_nothing() -> None:
    world = World()
    result = world.run()
    assert (result.decisions, result.writes) == ((), [])


def test_unknown_executor_is_not_run() -> None:
    world = World()
    with pytest.raises(LocalProtocolError, match="executor 2"):
        BlockRun(world.ledger, world.state, BlockContext(1, 1, START_MS, 2), [])


def test_writes_ascend_and_come_once_a_leaf() -> None:
    world = populated()
    block = [world.draft("clerk", TRANSFER) for _ in range(4)] + [world.disburse("ann")]
    writes = world.run(*block).writes
    keys = [write.kh for write in writes]
    assert keys == sorted(set(keys))


def test_state_without_pool_or_rules_is_our_own_fault() -> None:
    world = World()
    context = BlockContext(1, 1, START_MS)
    for missing in (world.ledger.paths.pool, world.ledger.paths.rules):
        kept = [kh for kh, _, _ in world.state.entries() if kh != missing]
        source = {kh: world.state.get(kh) for kh in kept}
        with pytest.raises(LocalProtocolError):
            BlockRun(world.ledger, source, context, [])  # type: ignore[arg-type]  # a dict will do
