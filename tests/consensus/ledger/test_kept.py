"""What the ledger keeps from block to block costs less and never changes a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cbor2
import pytest

from consensus.ledger import authority, records
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.model import Kind
from consensus.ledger.records import KeptRecords, Record
from consensus.ledger.transaction import Transaction
from consensus.state.state import MemoryBackend
from tests.consensus.ledger.world import World, person, public_key, register, token

TRANSFER = ("payments.transfer", "a", "b", 1)
FEBRUARY_MS = 1_769_904_000_000
"""2026-02-01T00:00Z: the parameter ``most`` rises from 500 to 600."""


def copied(world: World) -> MemoryBackend:
    rows = ((kh, world.state.get(kh)) for kh, _, _ in world.state.entries())
    return MemoryBackend([(kh, row) for kh, row in rows if row is not None])


def executed(
    ledger: Ledger, world: World, state: MemoryBackend, block: Sequence[Transaction]
) -> BlockResult:
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    return BlockRun(ledger, state, context, block).finish()


def codes_of(world: World, *block: Transaction) -> list[Code]:
    """Execute a block with what is kept and without, and apply it."""
    bare = executed(of_genesis(world.genesis), world, world.state, block)
    result = world.run(*block)
    assert (result.results_root, result.writes) == (bare.results_root, bare.writes)
    return [decision.code for decision in result.decisions]


def test_blocks_are_the_same_with_what_earlier_ones_found_and_without() -> None:
    world = World()
    register(world, "eve")
    clerk = [token("clerk"), "payments.clerk"]
    give = ("charter.give_role", "treasury", *clerk, [], 0, world.now_ms + 8000)
    grant = ("benefits.grant", person("eve"), 550)
    entitled = [("person", person("eve"), 1), ("entitlement", person("eve"), 0)]
    hold = ("charter.place_hold", [["domain", ["payments"]]], ["pay"], None, "Act")

    def transfer() -> Transaction:
        return world.draft("clerk", TRANSFER)

    assert codes_of(world, transfer(), transfer()) == [Code.APPLIED] * 2
    assert codes_of(world, world.draft("admin", ("charter.revoke_role", "treasury", *clerk))) == [
        Code.APPLIED
    ]
    assert codes_of(world, transfer()) == [Code.NOT_AUTHORIZED]
    again = world.draft("admin", give, expects=[("role", clerk, 2)])
    assert codes_of(world, transfer(), again, transfer()) == [
        Code.NOT_AUTHORIZED,
        Code.APPLIED,
        Code.APPLIED,
    ]
    assert codes_of(world, transfer()) == [Code.APPLIED]
    assert codes_of(world, world.draft("social", grant, expects=entitled)) == [Code.REQUIREMENT]
    assert codes_of(world, transfer()) == [Code.APPLIED]
    assert codes_of(world, transfer()) == [Code.NOT_AUTHORIZED]  # the role has expired
    world.now_ms = FEBRUARY_MS
    assert codes_of(world, world.draft("social", grant, expects=entitled)) == [Code.APPLIED]
    give = (*give[:-1], None)
    block = [world.draft("admin", give, expects=[("role", clerk, 3)]), world.draft("admin", hold)]
    assert codes_of(world, *block) == [Code.APPLIED] * 2
    assert codes_of(world, transfer()) == [Code.HELD]
    suspend = ("charter.suspend_agency", "treasury")
    assert codes_of(
        world, world.draft("admin", suspend, expects=[("agency", ["treasury"], 1)])
    ) == [Code.APPLIED]
    assert codes_of(world, transfer()) == [Code.SUSPENDED]


def test_what_an_abandoned_block_found_is_not_believed() -> None:
    world = World()
    before = copied(world)
    revoke = world.draft(
        "admin", ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    )
    transfer = world.draft("clerk", TRANSFER)
    world.run(revoke)
    after = executed(world.ledger, world, world.state, [transfer])
    assert after.decisions[0].code == Code.NOT_AUTHORIZED
    instead = executed(world.ledger, world, before, [transfer])
    assert instead.decisions[0].code == Code.APPLIED


def test_rules_are_kept_until_a_leaf_of_theirs_moves_or_a_date_comes() -> None:
    world = World()
    ledger, state = world.ledger, world.state
    first = ledger.rules(state, world.now_ms)
    world.do("clerk", *TRANSFER)
    assert ledger.rules(state, world.now_ms) is first
    assert ledger.rules(state, FEBRUARY_MS - 1) is first
    second = ledger.rules(state, FEBRUARY_MS)
    assert second is not first
    assert second.book is first.book
    assert ledger.rules(state, FEBRUARY_MS - 1) is not second
    kept = ledger.rules(state, world.now_ms)
    world.do("admin", "charter.place_hold", [["domain", ["payments"]]], ["pay"], None, "Act")
    assert ledger.rules(state, world.now_ms) is not kept


def test_standings_are_bounded_and_unknown_keys_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authority, "STANDINGS_MAX", 2)
    world = World()
    world.ledger = of_genesis(world.genesis)  # worlds of one genesis share theirs
    world.do("nobody", *TRANSFER)
    kept = world.ledger.authority._standings
    assert not kept
    for name in ("clerk", "officer", "admin", "clerk"):
        world.do(name, *TRANSFER)
        assert public_key(name) in kept
        assert len(kept) <= 2


def test_short_fields_are_kept_and_lists_which_somebody_may_change_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records._FIELDS.clear()
    monkeypatch.setattr(records._FIELDS, "entries_max", 3)
    records._FIELDS.clear()
    values = [0, -1, 2**63 - 1, "active", b"x", None, True, "x" * 30, [], [1], [["a"], b"x" * 32]]
    for _ in range(2):
        for value in values:
            found = records.decode_field(cbor2.dumps(value))
            assert found == value
            assert type(found) is type(value)
            assert len(records._FIELDS) <= 3
            if isinstance(value, list):
                assert records.decode_field(cbor2.dumps(value)) is not found


def test_records_are_kept_with_what_was_decoded_until_row_or_kind_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "KEPT_MAX", 2)
    world = World()
    names = ("ann", "bob", "eve")
    for name in names:
        register(world, name)
    kinds = of_genesis(world.genesis).rules(world.state, world.now_ms).book.kinds
    again = {name: replace(kind) for name, kind in kinds.items()}
    kept = KeptRecords()
    paths = world.ledger.paths

    def loaded(name: str, kind: Kind) -> Record:
        components, kh = paths.record("person", person(name))
        row = world.state.get(kh)
        assert row is not None
        return kept.load(kh, components, kind, row)

    first = loaded("ann", kinds["person"])
    assert first["region"] == "north"
    assert loaded("ann", kinds["person"]) is first
    assert loaded("ann", again["person"]) is not first
    hold = world.do(
        "admin",
        "charter.place_hold",
        [["record", ["person", *person("ann")]]],
        ["all"],
        None,
        "Act",
    )
    assert hold.code == Code.APPLIED
    held = loaded("ann", again["person"])
    assert (held.held, held.version) == (1, 1)
    for name in names:
        assert loaded(name, kinds["person"]).kh == paths.record("person", person(name))[1]
        assert len(kept._found) <= 2
