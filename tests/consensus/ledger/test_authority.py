"""Who may act: judged at the moment of effect, by role, scope, interval, self and exclusion."""

from __future__ import annotations

import pytest

from consensus.codec import Value
from consensus.genesis import Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from tests.consensus.ledger.world import (
    DEFAULT,
    NORTH,
    World,
    make_genesis,
    person,
    populated,
    public_key,
    register,
    token,
)

TRANSFER = ("payments.transfer", "a", "b", 1)


def give(
    world: World,
    name: str,
    role: str,
    *,
    agency: str = "treasury",
    scope: tuple[str, ...] = (),
    start_ms: int = 0,
    until_ms: int | None = None,
    version: int = 0,
) -> Decision:
    return world.do(
        "admin",
        "charter.give_role",
        agency,
        token(name),
        role,
        list(scope),
        start_ms,
        until_ms,
        expects=[("role", [token(name), role], version)],
    )


def refusal(decision: Decision) -> Value:
    assert decision.code == Code.NOT_AUTHORIZED, (decision.code, decision.detail)
    return decision.detail


def test_role_that_was_never_given_is_missing() -> None:
    world = World()
    assert refusal(world.do("officer", *TRANSFER)) == [["role", "payments.clerk", "missing"]]


def test_role_counts_from_its_start_to_just_before_its_end() -> None:
    world = World()
    now_ms = world.now_ms
    start_ms, until_ms = now_ms + 10_000, now_ms + 20_000
    interval = {"start_ms": start_ms, "until_ms": until_ms}
    assert give(world, "officer", "payments.clerk", **interval).code == Code.APPLIED
    for time_ms, why in ((start_ms - 1, "not yet"), (until_ms, "expired")):
        world.now_ms = time_ms - 1000
        detail = refusal(world.do("officer", *TRANSFER))
        assert detail == [["role", "payments.clerk", why]]
    for time_ms in (start_ms, until_ms - 1):
        world.now_ms = time_ms - 1000
        assert world.do("officer", *TRANSFER).code == Code.APPLIED


def test_revoked_role_gives_nothing_and_may_be_given_again() -> None:
    world = World()
    revoke = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    assert world.do("admin", *revoke).code == Code.APPLIED
    assert refusal(world.do("clerk", *TRANSFER)) == [["role", "payments.clerk", "revoked"]]
    again = world.do("admin", *revoke)
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "UNCHANGED")
    assert give(world, "clerk", "payments.clerk", version=1).code == Code.STALE
    assert give(world, "clerk", "payments.clerk", version=2).code == Code.APPLIED
    assert world.do("clerk", *TRANSFER).code == Code.APPLIED


def test_revocation_takes_effect_in_its_own_block_and_caches_notice() -> None:
    world = World()
    revoke = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    block = [
        world.draft("clerk", TRANSFER),
        world.draft("clerk", TRANSFER),
        world.draft("admin", revoke),
    ]
    codes = [d.code for d in world.run(*block).decisions]
    assert codes == [Code.APPLIED, Code.NOT_AUTHORIZED, Code.NOT_AUTHORIZED]


def test_power_given_in_a_block_counts_from_there() -> None:
    world = World()
    role = ("role", [token("officer"), "payments.clerk"], 0)
    grant = ("charter.give_role", "treasury", token("officer"), "payments.clerk", [], 0, None)
    block = [
        world.draft("officer", TRANSFER),
        world.draft("admin", grant, expects=[role]),
        world.draft("officer", TRANSFER),
    ]
    codes = [d.code for d in world.run(*block).decisions]
    assert codes == [Code.NOT_AUTHORIZED, Code.APPLIED, Code.APPLIED]


def test_key_added_in_a_block_signs_from_there() -> None:
    world = World()
    add = ("charter.add_key", "treasury", token("clerk"), public_key("spare"))
    block = [
        world.draft("spare", TRANSFER, sequence=1),
        world.draft("admin", add, expects=[("key", [public_key("spare")], 0)]),
        world.draft("spare", TRANSFER, sequence=1),
    ]
    codes = [d.code for d in world.run(*block).decisions]
    assert codes == [Code.UNKNOWN_KEY, Code.APPLIED, Code.APPLIED]


def test_scope_is_compared_with_the_record() -> None:
    world = World()
    register(world, "sue", region="south")
    decision = world.do(
        "registrar", "identity.rename", person("sue"), "S", expects=[("person", person("sue"), 1)]
    )
    assert refusal(decision) == [["where"]]


def test_condition_without_a_value_gives_no_power() -> None:
    principals = (*DEFAULT.principals, Principal(token("bare"), "registry", 0))
    keys = (*DEFAULT.keys, (public_key("bare"), token("bare")))
    roles = (*DEFAULT.roles, RoleGiven(token("bare"), "identity.officer"))
    world = World(make_genesis(principals=principals, keys=keys, roles=roles))
    register(world, "ann")
    decision = world.do(
        "bare", "identity.rename", person("ann"), "A", expects=[("person", person("ann"), 1)]
    )
    assert refusal(decision) == [["where"]]  # who.scope has no region


def test_citizen_acts_on_the_own_record_only() -> None:
    world = populated()

    def move(author: str, whose: str) -> Decision:
        expects = [("person", person(whose), 1)]
        call = ("identity.move_house", person(whose), "Street", "Town")
        return world.do(author, *call, expects=expects)

    assert move("ann's", "ann").code == Code.APPLIED
    assert refusal(move("ann's", "bob")) == [["self"]]
    assert refusal(move("registrar", "bob")) == [["self"]]
    authority = world.do("ann's", "identity.move_house", person("ann"), "S", "T").value("authority")
    assert authority[1] == [[None, []]]


def abroad_and_back(world: World, first: str, second: str) -> Decision:
    register(world, "ann")
    expects = [("person", person("ann"), 1)]
    assert world.do(first, "identity.go_abroad", person("ann"), expects=expects).code == 0
    expects = [("person", person("ann"), 2)]
    return world.do(second, "identity.come_back", person("ann"), expects=expects)


def test_who_took_the_first_step_may_not_take_the_second() -> None:
    assert abroad_and_back(World(), "registrar", "deputy").code == Code.APPLIED
    same = abroad_and_back(World(), "registrar", "registrar")
    assert refusal(same) == [["not", "person.by.abroad"]]


def test_one_person_under_two_principals_is_still_one_person() -> None:
    twins = [
        Principal(p.id, p.agency, p.kind, token("one person"), p.person)
        if p.id in (token("registrar"), token("deputy"))
        else p
        for p in DEFAULT.principals
    ]
    world = World(make_genesis(principals=tuple(twins)))
    decision = abroad_and_back(world, "registrar", "deputy")
    assert refusal(decision) == [["not", "person.by.abroad"]]
    kh = world.ledger.paths("principal", [token("registrar")])
    row = world.state.get(kh)
    assert row is not None
    assert kh + row.vh in decision.value("reads")[0]


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("officer", [["not", "payment.by.created"]]),
        ("second", [["not_agency", "payment.by.created"]]),
        ("auditor", None),
    ],
)
def test_another_agency_than_the_first_must_act(author: str, expected: Value) -> None:
    principals = (*DEFAULT.principals, Principal(token("second"), "treasury", 0, token("s2")))
    world = World(
        make_genesis(
            principals=principals,
            keys=(*DEFAULT.keys, (public_key("second"), token("second"))),
            roles=(*DEFAULT.roles, RoleGiven(token("second"), "payments.officer", NORTH)),
        )
    )
    register(world, "ann")
    grant = [("person", person("ann"), 1), ("entitlement", person("ann"), 0)]
    assert world.do("social", "benefits.grant", person("ann"), 4, expects=grant).code == 0
    assert world.do("officer", "payments.open_payee", person("ann")).code == Code.APPLIED
    paid = world.one(world.disburse("ann"))
    assert paid.code == Code.APPLIED, paid.detail
    payment = next(
        entry[0][1][1:] for entry in paid.value("writes:payments") if entry[0][0] == "record"
    )
    decision = world.do(
        author, "payments.return_payment", payment, expects=[("payment", payment, 1)]
    )
    if expected is None:
        assert decision.code == Code.APPLIED
    else:
        assert refusal(decision) == expected


def test_every_leaf_that_authority_rests_on_is_among_the_reads() -> None:
    world = World()
    block = [world.draft("clerk", TRANSFER) for _ in range(2)]
    paths = world.ledger.paths
    expected = [
        ("key", [public_key("clerk")]),
        ("principal", [token("clerk")]),
        ("agency", ["treasury"]),
        ("role", [token("clerk"), "payments.clerk"]),
        ("rules", ["payments"]),
        ("rules", ["payments", 1]),
    ]
    rows = {paths(*place): world.state.get(paths(*place)) for place in expected}
    entries = sorted(kh + row.vh for kh, row in rows.items() if row is not None)
    accounts = sorted(paths("account", ["purse", name]) for name in "ab")
    for decision in world.run(*block).decisions:
        assert decision.value("reads") == [b"".join(entries), b"".join(accounts)]


def test_rules_of_the_domains_that_are_read_are_among_the_reads() -> None:
    world = populated()
    reads, moved = world.one(world.disburse("ann")).value("reads")
    for domain in ("payments", "benefits", "identity"):
        for components in ([domain], [domain, 1]):
            kh = world.ledger.paths("rules", components)
            row = world.state.get(kh)
            assert row is not None
            assert kh + row.vh in reads
    assert len(moved) == 64
