"""Inputs, rows and evidence of forms that nobody makes, and bounds that are seldom reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, LocalProtocolError, ProofError
from consensus.ledger import authority, disclosures, executor, stored
from consensus.ledger.authority import Standing, same_person
from consensus.ledger.codes import Code, Refused
from consensus.ledger.evidence import EvidenceError, Moved, check_under
from consensus.ledger.executor import FIRST, BlockContext, BlockRun
from consensus.ledger.kernel import entering
from consensus.ledger.kernel.plan import Plan, duration_ms
from consensus.ledger.kernel.reopened import Reservations
from consensus.ledger.layout import POSTED, RESERVED, Paths, Reservation, name_of, place
from consensus.ledger.transaction import ENVELOPE_BYTES_MAX, from_envelope
from consensus.ledger.types import CHECKS, KERNEL_BASES, InputError, Type
from consensus.ledger.view import View
from tests.consensus.ledger.test_reversal import REVERSE, _genesis, lend
from tests.consensus.ledger.world import CHARTER, TEXTS, World, make_genesis, public_key, token

# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", KERNEL_BASES)
def test_inputs_of_kernel_acts_are_bytes_of_bounded_length(base: str) -> None:
    kind = Type(base)
    for wrong in (None, 7, "text", [b"x"]):
        with pytest.raises(InputError, match="expected"):
            CHECKS[base](kind, wrong)
    CHECKS[base](kind, b"x")
    with pytest.raises(InputError, match="at most"):
        CHECKS[base](kind, b"x" * (2**20))


def test_an_envelope_that_is_too_long_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match=f"at most {ENVELOPE_BYTES_MAX} allowed"):
        from_envelope(b"C" * 32, ["no", "envelope"], ENVELOPE_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("space", "components", "name"),
    [
        ("record", ["note", 1, "a"], ["note", [1, "a"]]),
        ("agency", ["treasury"], ["agency", ["treasury"]]),
        ("hold", [b"h" * 32], ["hold", [b"h" * 32]]),
    ],
)
def test_the_name_of_a_place_is_the_place_of_the_name(
    space: str, components: list[Value], name: list[Value]
) -> None:
    assert name_of(space, components) == name
    assert place(name[0], name[1]) == (space, components)


# --- evidence and rows --------------------------------------------------------------------------


def test_evidence_is_under_the_statement_that_one_knows() -> None:
    world = World(_genesis(REVERSE))  # type: ignore[arg-type]
    made = lend(world)
    data, own = world.evidence(made).encode(), world.statements[made.header.height].encode()
    found = check_under(data, made.header.txid, own, world.ledger.paths)
    assert found.header == made.header
    other = world.statements[made.header.height - 1].encode()
    with pytest.raises(EvidenceError) as caught:
        check_under(data, made.header.txid, other, world.ledger.paths)
    assert caught.value.reason == "the statement is not in the history of this network"


PATHS = Paths(b"C" * 32)
RECORD = b"\x01"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (RECORD + bytes(5), "a record row is cut short"),
        (bytes(8), "a single leaf is cut short"),
    ],
)
def test_a_row_that_is_cut_short_is_refused_by_key(row: bytes, said: str) -> None:
    kh = b"k" * 32
    with pytest.raises(ProofError, match=f"row of key {kh.hex()}: {said}"):
        stored.check_row(b"C" * 32, PATHS, kh, b"v" * 32, row)


@pytest.mark.parametrize(
    "names", [b"\xff", codec.encode("a"), codec.encode(["a", 1]), b"\x98\x01\x61a"]
)
def test_the_names_of_leaves_are_a_canonical_array_of_texts(names: bytes) -> None:
    row = bytearray(stored._RECORD.size)
    stored._RECORD.pack_into(row, 0, 1, 0, len(names), 0, 1)
    with pytest.raises(ProofError, match="row of key"):
        stored.check_row(b"C" * 32, PATHS, b"k" * 32, b"v" * 32, bytes(row) + names)


# --- who acts -----------------------------------------------------------------------------------


def viewed(world: World) -> View:
    view = View(world.state, world.ledger.paths)
    rules = world.ledger.rules(world.state, world.now_ms)
    view.book, view.in_force, view.now_ms = rules.book, rules.in_force, world.now_ms
    view.begin()
    return view


def test_powers_that_are_kept_of_one_key_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "POWERS_MAX", 2)
    world = World()
    view = viewed(world)
    standing = Standing(view, public_key("clerk"), world.now_ms)
    kept = authority.Authority()
    for role in ("payments.clerk", "a", "b"):
        found = kept.power(view, standing, role, world.now_ms)
        assert bool(found.missing) == (role != "payments.clerk")
        assert len(standing.powers) <= 2
    assert list(standing.powers) == ["b"]


def test_only_what_is_a_person_is_the_same_person() -> None:
    world = World()
    view = viewed(world)
    standing = Standing(view, public_key("clerk"), world.now_ms)
    assert same_person(view, standing, token("clerk"))
    assert same_person(view, standing, [token("clerk")])
    for other in (token("officer"), token("nobody"), 7, "clerk", [7], [token("clerk"), 1], []):
        assert not same_person(view, standing, other)


# --- blocks -------------------------------------------------------------------------------------


def test_a_block_is_finished_in_as_many_slices_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    acts = [world.draft("clerk", ("payments.transfer", "a", "b", each)) for each in (1, 2, 3)]
    context = BlockContext(1, 1, world.now_ms + 1000)
    whole = BlockRun(world.ledger, world.state, context, acts).finish()
    run = BlockRun(world.ledger, world.state, context, acts)
    monkeypatch.setattr(executor, "TRANSACTIONS_MAX", 1)
    sliced = run.finish()
    assert len(sliced.decisions) == 3
    assert (sliced.writes, sliced.results_root) == (whole.writes, whole.results_root)


def test_a_state_that_does_not_name_its_executor_has_the_first() -> None:
    world = World()
    named = world.ledger.executors_from(world.state, world.now_ms)
    assert named == [(FIRST, world.genesis.time_ms)]
    del world.state._rows[world.ledger.paths.executor]
    ledger = world.ledger.apart()
    assert ledger.executors_from(world.state, world.now_ms) == []
    run = BlockRun(ledger, world.state, BlockContext(1, 1, world.now_ms + 1000), [])
    assert run.executor == FIRST


def test_a_state_without_its_leaves_is_our_own_bug() -> None:
    world = World()
    for place_ in (world.ledger.paths.pool, world.ledger.paths("rules", [])):
        kept = world.state._rows.pop(place_)
        with pytest.raises(LocalProtocolError):
            BlockRun(world.ledger.apart(), world.state, BlockContext(1, 1, world.now_ms), [])
        world.state._rows[place_] = kept


# --- what the charter says ----------------------------------------------------------------------

AUDITORS = """
[params]
disclosures_read_by = { by = "now", type = "text", values = [ { from = "2026-01", value = "audit.one" }, { from = "2026-03", value = "audit.two" } ] }
"""  # noqa: E501


def test_a_parameter_of_the_charter_counts_from_its_time_on() -> None:
    hours = CHARTER.replace('"2026-01", value = 48 }', '"2026-03", value = 48 }')
    assert hours != CHARTER
    world = World(make_genesis((hours, *TEXTS[1:])))
    book = world.ledger.rules(world.state, world.now_ms).book
    march_ms = 1_772_323_200_000
    for now_ms, count in ((march_ms - 1, 7), (march_ms, 48)):
        found = duration_ms(book, now_ms, "hold_unconfirmed_hours", 7)
        assert found == count * 3_600_000


def test_who_sees_all_disclosures_is_said_by_the_charter_from_its_time_on() -> None:
    world = World(make_genesis((CHARTER.replace("\n[params]\n", AUDITORS), *TEXTS[1:])))
    book = world.ledger.rules(world.state, world.now_ms).book
    for now_ms, role in (
        (1_767_225_600_000 - 1, disclosures.AUDITORS_DEFAULT),
        (1_767_225_600_000, "audit.one"),
        (1_772_323_200_000 - 1, "audit.one"),
        (1_772_323_200_000, "audit.two"),
    ):
        assert disclosures.auditors(book, now_ms) == role
    plain = World().ledger.rules(World().state, world.now_ms).book
    assert disclosures.auditors(plain, world.now_ms) == disclosures.AUDITORS_DEFAULT


@dataclass
class Inputs:
    """As much of an act as is replaced in a part of it."""

    inputs: Any = None


@pytest.mark.parametrize(
    ("made", "code", "detail"),
    [
        (Plan(lambda: None, failed=("APART", "two")), Code.REQUIREMENT, ["APART", "two"]),
        (Plan(lambda: None, taken=["key", [b"k"]]), Code.NOT_UNIQUE, [["key", [b"k"]]]),
    ],
)
def test_an_act_that_is_a_part_of_another_fails_with_it(
    made: Plan, code: Code, detail: Value
) -> None:
    with pytest.raises(Refused) as caught:
        entering._do(Inputs(), lambda _: made, {})  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.detail) == (code, detail)


# --- reservations that are opened again ---------------------------------------------------------


def test_a_reservation_that_is_gone_or_elsewhere_is_not_opened_again() -> None:
    box: list[Value] = ["box"]
    posted = Reservation(["odd", "r"], box, 100, 60, None, POSTED)
    side = Moved(0, box, -60, 0, ["odd", "r"])
    found = Reservations(lambda _: posted, 0).back(side, again=False)
    assert found is not None
    assert (found.after.state, found.after.posted, found.after.amount) == (RESERVED, 0, 60)
    elsewhere = posted._replace(account=["box", "b"])
    for there in (None, elsewhere):
        assert Reservations(lambda _, there=there: there, 0).back(side, again=False) is None
    assert (
        Reservations(lambda _: posted, 0).back(side._replace(reservation=()), again=False) is None
    )
