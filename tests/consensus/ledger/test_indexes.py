"""Indexes that the kernel keeps, and loads that take whole lists from them.

The rules here are read by nobody but these tests; every expected value is worked out by hand.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from pathlib import Path

import cbor2
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from pycddl import Schema

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.delegation import compile_condition
from consensus.ledger.dry import DryRun
from consensus.ledger.executor import BlockContext
from consensus.ledger.rules import (
    check_successor,
    check_text,
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.rules.report import Problem, describe
from consensus.ledger.transaction import PROPOSE
from consensus.state.record import decode_single
from tests.consensus.ledger.shelves import index_of
from tests.consensus.ledger.world import TEXTS, World, make_genesis

SCHEMA = Schema(
    (Path(__file__).parents[3] / "docs/protocol/rules.cddl").read_text(encoding="utf-8")
)

FAMILY = """\
domain = "family"
number = 1
legal_basis = "Family Act"
exports = ["child.carer", "child.status", "child.rank"]

[kinds.child]
fields.carer = { type = "text", open = true, optional = true }
fields.rank  = { type = "int", optional = true }
fields.name  = { type = "text", open = true }
status = { start = "enrolled", steps = { enrolled = ["ended"], ended = ["enrolled"] }, stops = ["ended"] }
hold_by = ["welfare"]
index  = [{ field = "carer", while = "status == 'enrolled'" }, "status", { field = "rank", while = "rank / rank == 1" }]

[actions.enrol]
actor  = { role = "payments.clerk" }
inputs = { id = "text", carer = "text?", rank = "int?" }
create = [ { kind = "child", id = ["{input.id}"], set = { carer = "input.carer", rank = "input.rank", name = "input.id" } } ]

[actions.change]
actor  = { role = "payments.clerk" }
inputs = { child = "ref:child", carer = "text?", rank = "int?" }
load   = [ ["child", "child/{input.child}"] ]
set    = [ { record = "child", fields = { carer = "input.carer", rank = "input.rank" } } ]

[actions.rename]
actor  = { role = "payments.clerk" }
inputs = { child = "ref:child", name = "text" }
load   = [ ["child", "child/{input.child}"] ]
set    = [ { record = "child", fields = { name = "input.name" } } ]

[actions.end]
phase  = "protective"
actor  = { role = "payments.clerk" }
inputs = { child = "ref:child" }
load   = [ ["child", "child/{input.child}"] ]
set    = [ { record = "child", status = "ended" } ]

[actions.resume]
actor  = { role = "payments.clerk" }
inputs = { child = "ref:child" }
load   = [ ["child", "child/{input.child}"] ]
set    = [ { record = "child", status = "enrolled" } ]

[actions.count]
actor  = { role = "payments.clerk" }
inputs = { carer = "text", count = "int" }
load   = [ ["children", "index child.carer {input.carer} max 3"] ]
require = [ { code = "COUNT", that = "size(children) == input.count", say = "another number" } ]

[actions.ask]
actor  = { role = "payments.clerk" }
inputs = { carer = "text", name = "text", least = "int" }
load   = [ ["children", "index child.carer {input.carer} max 64 by rank"] ]
require = [ { code = "NAME", that = "children.exists(c, c.name == input.name)", say = "nobody of that name" },
            { code = "RANK", that = "children.all(c, c.rank >= input.least)", say = "a lower rank" },
            { code = "OPEN", that = "children.all(c, has(c.rank) && c.status == 'enrolled')", say = "no rank" } ]
"""

WELFARE = """\
domain = "welfare"
number = 1
legal_basis = "Welfare Act"
uses = { family = ["child.carer", "child.status"] }

[kinds.case]
fields.size = { type = "int" }

[actions.open]
actor  = { role = "payments.clerk" }
inputs = { id = "text", carer = "text" }
load   = [ ["children", "index child.carer {input.carer} max 8"] ]
create = [ { kind = "case", id = ["{input.id}"], set = { size = "size(children)" } } ]

[actions.stop]
phase  = "protective"
actor  = { role = "payments.clerk" }
inputs = { child = "ref:child" }
place_hold = [ { target = "child/{input.child}", scopes = ["all"], reason = "inquiry" } ]
"""


def hashed(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def make() -> World:
    """Return a network with the rules under test beside its own."""
    return World(make_genesis((*TEXTS, FAMILY, WELFARE)))


def enrol(world: World, id_: str, carer: str | None, rank: int | None = None) -> Decision:
    """Enrol a child."""
    expects = [("child", [id_], 0)]
    return world.do("clerk", "family.enrol", id_, carer, rank, expects=expects)


def change(world: World, action: str, id_: str, *inputs: Value) -> Decision:
    """Change a child at its present version."""
    version = world.record("child", [id_]).version
    expects = [("child", [id_], version)]
    return world.do("clerk", f"family.{action}", [id_], *inputs, expects=expects)


def count(world: World, carer: str, number: int) -> Decision:
    """Ask whether so many children are listed under a carer."""
    return world.do("clerk", "family.count", carer, number)


# --- keeping ----------------------------------------------------------------------------------


def test_records_are_listed_at_positions_in_the_order_of_their_coming() -> None:
    world = make()
    assert index_of(world, "child.carer", "ann") == ()
    for id_ in ("x", "y", "z"):
        assert enrol(world, id_, "ann").code == Code.APPLIED
    assert enrol(world, "v", "bob").code == Code.APPLIED
    assert index_of(world, "child.carer", "ann") == (["x"], ["y"], ["z"])
    assert index_of(world, "child.carer", "bob") == (["v"],)
    assert index_of(world, "child.status", "enrolled") == (["x"], ["y"], ["z"], ["v"])


def test_the_last_record_takes_the_place_of_one_that_leaves() -> None:
    world = make()
    for id_ in ("x", "y", "z"):
        enrol(world, id_, "ann")
    assert change(world, "end", "x").code == Code.APPLIED
    assert index_of(world, "child.carer", "ann") == (["z"], ["y"])
    assert index_of(world, "child.status", "enrolled") == (["z"], ["y"])
    assert index_of(world, "child.status", "ended") == (["x"],)
    change(world, "end", "y")
    assert index_of(world, "child.carer", "ann") == (["z"],)
    change(world, "end", "z")
    assert index_of(world, "child.carer", "ann") == ()
    assert change(world, "resume", "y").code == Code.APPLIED
    assert index_of(world, "child.carer", "ann") == (["y"],)


def test_a_record_whose_field_changes_moves_to_the_other_list() -> None:
    world = make()
    enrol(world, "x", "ann")
    enrol(world, "y", "ann")
    assert change(world, "change", "x", "bob", 1).code == Code.APPLIED
    assert index_of(world, "child.carer", "ann") == (["y"],)
    assert index_of(world, "child.carer", "bob") == (["x"],)
    assert change(world, "change", "x", None, 1).code == Code.APPLIED
    assert index_of(world, "child.carer", "bob") == ()


def test_an_absent_value_is_listed_nowhere() -> None:
    world = make()
    enrol(world, "x", None)
    row = world.state.get(world.ledger.paths("index", ["child.carer", None]))
    assert row is None
    assert index_of(world, "child.status", "enrolled") == (["x"],)


def test_a_while_without_a_value_is_false() -> None:
    world = make()
    enrol(world, "x", "ann", 0)  # 0 / 0 has no value
    enrol(world, "y", "ann", 7)
    assert index_of(world, "child.rank", 0) == ()
    assert index_of(world, "child.rank", 7) == (["y"],)


def test_a_write_that_changes_no_place_touches_no_index() -> None:
    world = make()
    enrol(world, "x", "ann", 1)
    decision = change(world, "rename", "x", "Xenia")
    assert [place[0] for place, *_ in cbor2.loads(decision.leaves["writes:family"])] == ["record"]
    reads = cbor2.loads(decision.leaves["reads"])[0]
    assert world.ledger.paths("index", ["child.carer", "ann"]) not in [
        reads[at : at + 32] for at in range(0, len(reads), 64)
    ]


def test_entering_writes_three_leaves_for_the_owning_domain() -> None:
    world = make()
    decision = world.do("clerk", "family.enrol", "x", "ann", None, expects=[("child", ["x"], 0)])
    rows = cbor2.loads(decision.leaves["writes:family"])
    assert [(place, old, new) for place, old, new, _, _ in rows] == [
        (["record", ["child", "x"]], 0, 1),
        (["index", ["child.carer", "ann"]], 0, 1),
        (["index", ["child.carer", "ann", 0]], 0, 1),
        (["index", ["child.carer", "ann", ["x"]]], 0, 1),
        (["index", ["child.status", "enrolled"]], 0, 1),
        (["index", ["child.status", "enrolled", 0]], 0, 1),
        (["index", ["child.status", "enrolled", ["x"]]], 0, 1),
    ]


def test_leaves_of_an_index_have_no_versions() -> None:
    world = make()
    enrol(world, "x", "ann")
    rows = cbor2.loads(enrol(world, "y", "ann").leaves["writes:family"])
    (size,) = [row for row in rows if row[0] == ["index", ["child.carer", "ann"]]]
    assert size[1:3] == [1, 1]


def test_a_refused_transaction_lists_nothing() -> None:
    world = make()
    enrol(world, "x", "ann")
    again = world.do("clerk", "family.enrol", "x", "bob", None, expects=[("child", ["x"], 1)])
    assert again.code == Code.NOT_UNIQUE
    assert index_of(world, "child.carer", "bob") == ()
    assert index_of(world, "child.carer", "ann") == (["x"],)


def test_text_that_is_too_long_to_be_listed_under_is_refused() -> None:
    world = make()
    assert enrol(world, "x", "é" * 128).code == Code.APPLIED  # 256 bytes
    decision = enrol(world, "y", "é" * 128 + "e")
    assert decision.code == Code.REQUIREMENT
    assert decision.detail == ["OUT_OF_RANGE", "carer: text in an id has at most 256 bytes"]
    assert index_of(world, "child.status", "enrolled") == (["x"],)


def test_a_proposal_that_no_index_can_list_goes_stale_and_stops_nobody() -> None:
    world = make()
    proposed = world.draft(
        "clerk",
        ("family.enrol", "y", "e" * 257, None),
        expects=[("child", ["y"], 0)],
        mode=PROPOSE,
    )
    result = world.run(proposed, world.draft("clerk", ("family.count", "ann", 0)))
    codes = [each.code for each in result.decisions]
    assert codes[-1] == Code.APPLIED
    assert Code.APPLIED not in codes[:-1]
    assert result.decisions[-2].detail[0] == "OUT_OF_RANGE"
    assert index_of(world, "child.status", "enrolled") == ()


def test_whoever_asks_first_is_told_that_no_index_can_list_it() -> None:
    world = make()
    draft = world.draft(
        "clerk", ("family.enrol", "y", "e" * 257, None), expects=[("child", ["y"], 7)]
    )
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    found = DryRun(world.ledger, world.state, context, draft).findings
    assert {each.code for each in found} >= {Code.STALE}
    draft = world.draft(
        "clerk", ("family.enrol", "y", "e" * 257, None), expects=[("child", ["y"], 0)]
    )
    (finding,) = DryRun(world.ledger, world.state, context, draft).findings
    assert (finding.code, finding.detail[0]) == (Code.REQUIREMENT, "OUT_OF_RANGE")


def test_later_calls_and_transactions_of_a_block_see_what_earlier_ones_listed() -> None:
    world = make()
    first = world.draft(
        "clerk",
        ("family.enrol", "x", "ann", None),
        ("family.count", "ann", 1),
        ("family.enrol", "y", "ann", None),
        ("family.count", "ann", 2),
        expects=[("child", ["x"], 0), ("child", ["y"], 0)],
    )
    second = world.draft("clerk", ("family.count", "ann", 2))
    stop = world.draft("clerk", ("family.end", ["x"]))
    assert [each.code for each in world.run(first, second).decisions] == [Code.APPLIED] * 2
    third = world.draft("clerk", ("family.count", "ann", 1))
    # what is protective comes first, wherever it stands in the payload
    assert [each.code for each in world.run(third, stop).decisions] == [Code.APPLIED] * 2


def test_a_record_that_comes_and_goes_within_a_transaction_is_listed_nowhere() -> None:
    world = make()
    done = world.one(
        world.draft(
            "clerk",
            ("family.enrol", "x", "ann", None),
            ("family.change", ["x"], "bob", None),
            expects=[("child", ["x"], 0)],
        )
    )
    assert done.code == Code.APPLIED
    assert index_of(world, "child.carer", "ann") == ()
    assert index_of(world, "child.carer", "bob") == (["x"],)
    row = world.state.get(world.ledger.paths("index", ["child.carer", "ann"]))
    assert row is None


# --- loading ----------------------------------------------------------------------------------


def test_a_list_is_complete_and_every_leaf_of_it_is_among_the_reads() -> None:
    world = make()
    for id_ in ("x", "y"):
        enrol(world, id_, "ann")
    decision = count(world, "ann", 2)
    assert decision.code == Code.APPLIED
    paths = world.ledger.paths
    wanted = [
        paths("index", ["child.carer", "ann"]),
        paths("index", ["child.carer", "ann", 0]),
        paths("index", ["child.carer", "ann", 1]),
        paths("record", ["child", "x"]),
        paths("record", ["child", "y"]),
    ]
    full = cbor2.loads(decision.leaves["reads"])[0]
    reads = {full[at : at + 32]: full[at + 32 : at + 64] for at in range(0, len(full), 64)}
    assert all(reads[kh] != bytes(32) for kh in wanted)


def test_the_absence_of_a_list_is_among_the_reads() -> None:
    world = make()
    decision = count(world, "nobody", 0)
    assert decision.code == Code.APPLIED
    kh = world.ledger.paths("index", ["child.carer", "nobody"])
    assert kh + bytes(32) in cbor2.loads(decision.leaves["reads"])[0]


def test_a_list_longer_than_the_rule_takes_is_refused_with_the_name_of_the_index() -> None:
    world = make()
    for id_ in ("w", "x", "y"):
        enrol(world, id_, "ann")
    assert count(world, "ann", 3).code == Code.APPLIED
    enrol(world, "z", "ann")
    decision = count(world, "ann", 4)
    assert (decision.code, decision.detail) == (Code.LIMIT, ["index", "child.carer", 4, 3])


def test_a_transaction_takes_so_many_records_from_lists() -> None:
    world = make()
    children = [f"c{number:02}" for number in range(64)]
    for half in (children[:32], children[32:]):
        calls = [("family.enrol", id_, "ann", 1) for id_ in half]
        expects: list[tuple[str, list[Value], int]] = [("child", [id_], 0) for id_ in half]
        assert world.one(world.draft("clerk", *calls, expects=expects)).code == Code.APPLIED
    ask = ("family.ask", "ann", "c63", 1)
    assert world.one(world.draft("clerk", *[ask] * 32)).code == Code.APPLIED
    decision = world.one(world.draft("clerk", *[ask] * 33))
    assert (decision.code, decision.call, decision.detail) == (Code.LIMIT, 32, "lists")
    assert world.one(world.draft("clerk", ask)).code == Code.APPLIED


def test_a_list_goes_by_ids_and_by_the_field_asked_for() -> None:
    book = compile_rulebook([load_toml(FAMILY)])
    (load,) = book.rule_sets["family"].actions["ask"].loads
    assert load.listing is not None
    assert (load.listing.most, load.listing.by, load.listing.index.name) == (
        64, "rank", "child.carer",
    )  # fmt: skip


def test_conditions_see_the_records_of_a_list() -> None:
    world = make()
    enrol(world, "x", "ann", 3)
    enrol(world, "y", "ann", 5)
    assert world.do("clerk", "family.ask", "ann", "y", 3).code == Code.APPLIED
    assert world.do("clerk", "family.ask", "ann", "z", 3).detail[0] == "NAME"
    assert world.do("clerk", "family.ask", "ann", "y", 4).detail[0] == "RANK"
    enrol(world, "z", "ann", None)  # a comparison with what is absent has no value
    assert world.do("clerk", "family.ask", "ann", "y", 3).detail[0] == "RANK"


def test_a_hold_on_a_record_of_a_list_stops_the_act() -> None:
    world = make()
    enrol(world, "x", "ann")
    enrol(world, "y", "ann")
    assert world.do("clerk", "welfare.stop", ["y"]).code == Code.APPLIED
    assert count(world, "ann", 2).code == Code.HELD
    assert count(world, "bob", 0).code == Code.APPLIED


def test_another_domain_loads_a_list_of_what_it_uses() -> None:
    world = make()
    enrol(world, "x", "ann")
    opened = world.do("clerk", "welfare.open", "c", "ann", expects=[("case", ["c"], 0)])
    assert opened.code == Code.APPLIED
    assert world.record("case", ["c"]).fields["size"] == 1


# --- what authors write -----------------------------------------------------------------------


def refusal(text: str, old: str, new: str) -> RulesError:
    """Return what is wrong with the rules once ``old`` is ``new``."""
    assert old in text
    changed = text.replace(old, new, 1)
    others = [FAMILY if "welfare" in text[:30] else WELFARE]
    rules = [load_toml(each) for each in (*others, *TEXTS)]
    with pytest.raises(RulesError) as caught:
        compile_rulebook([load_toml(changed, "changed.toml"), *rules])
    return caught.value


BAD_KINDS = [
    ('"status", {', '"stat", {', "child has no field stat"),
    ('"status", {', '"carer", {', "carer has an index already"),
    ("status == 'enrolled'", "status = 'enrolled'", "unexpected '='"),
    ("status == 'enrolled'", "now > 0", "while sees no now"),
    ("status == 'enrolled'", "child.status == 'enrolled'", "while sees no child.status"),
    ("status == 'enrolled'", "status", "expected bool, the expression is text"),
    ('while = "status', 'when = "status', "unknown key when"),
    ('field = "carer", ', "", "field is missing"),
    ('index  = [{ field = "carer"', 'index  = [3, { field = "carer"', "expected a table"),
    ("fields.rank  = { type = \"int\"", "fields.rank  = { type = \"money:USD\"", "may not be looked for"),
    ("fields.rank  = { type = \"int\"", "fields.rank  = { type = \"commitment\"", "may not be looked for"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD_KINDS)
def test_a_bad_index_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    error = refusal(FAMILY, old, new)
    assert message in error.message
    assert error.line > 0


LOAD = '"index child.carer {input.carer} max 3"'
BAD_LOADS = [
    (LOAD, '"index child.carer {input.carer}"', "is no load of an index"),
    (LOAD, '"index child {input.carer} max 3"', "is no load of an index"),
    (LOAD, '"index child.carer max 3"', "is no load of an index"),
    (LOAD, '"index child.carer {input.carer} max 3 by"', "is no load of an index"),
    (LOAD, '"index child.carer {input.carer} max three"', "is no load of an index"),
    (LOAD, '"index child.carer {input.carer} max 0"', "max 0 is outside 1 to 64"),
    (LOAD, '"index child.carer {input.carer} max 65"', "max 65 is outside 1 to 64"),
    (LOAD, '"index child.name {input.carer} max 3"', "kind child has no index by name"),
    (LOAD, '"index chld.carer {input.carer} max 3"', "there is no kind 'chld'"),
    (LOAD, '"index person.name {input.carer} max 3"', "is not in `uses`"),
    (LOAD, '"index child.carer {input.count} max 3"', "lists by text, {input.count} is int"),
    (LOAD, '"index child.rank north max 3"', "lists by int, north is text"),
    (LOAD, '"index child.carer {input.nobody} max 3"', "there is no input nobody"),
    (LOAD, '"index child.carer {size(input.carer)} max 3"', "holds more than a path"),
    (LOAD, '"index child.carer {input.carer} max 3 by nam"', "child has no field nam"),
    (LOAD, '"index child.carer {input.carer} max 3 by status"', "child has no field status"),
    ('["children", ' + LOAD, '["children?", ' + LOAD, "a list is never absent"),
    ('["children", ' + LOAD, '["carers", ' + LOAD, "nothing is called children"),
    ("size(children) ==", "children.name ==", "children is a list of child records"),
    ("size(children) ==", "children ==", "children is a list of records"),
    ("size(children) ==", "size(children.all) ==", "children is a list of child records"),
    ("size(children) == input.count", "has(children)", "has() takes a field"),
    ("size(children) == input.count", "item(children, 0) == 1", "children is a list of records"),
    ("size(children) == input.count", "1 in children", "children is a list of records"),
    ("size(children) == input.count", "children.exists(c, c.nam == 'x')", "child has no field nam"),
    ("size(children) == input.count", "children.exists(c, c == 'x')", "c is not a value"),
    ("size(children) == input.count", "children.exists(c, c.name.x == 'x')", "c.name.x is not a value"),
    ("size(children) == input.count", "children.exists(c, c.by == 'x')", "stands only in `not`"),
    ("size(children) == input.count", "children.exists(c, c.name == 3)", "cannot compare text with int"),
    ("size(children) == input.count", "children.exists(c, c.name)", "the condition of exists is text"),
    ("size(children) == input.count", "children.exists(input, true)", "already means something"),
    ("size(children) == input.count",
     "children.exists(c, children.exists(d, true))", "do not nest"),
    ("size(children) == input.count", "(true ? children : children).all(c, true)", "is a list of records"),
    ("require = [ { code = \"COUNT\"", "depends = [\"children.name\"]\nrequire = [ { code = \"COUNT\"",
     "an index has no version"),
    ("require = [ { code = \"COUNT\"", "fresh = [\"children\"]\nrequire = [ { code = \"COUNT\"",
     "children is a list"),
    ("require = [ { code = \"COUNT\"", "set = [ { record = \"children\", status = \"ended\" } ]\nrequire = [ { code = \"COUNT\"",
     "'children' is not a loaded record"),
    ("require = [ { code = \"COUNT\"", "let = [ [\"all\", \"children\"] ]\nrequire = [ { code = \"COUNT\"",
     "children is a list of records"),
    ("require = [ { code = \"COUNT\"", "period = \"children.rank\"\nrequire = [ { code = \"COUNT\"",
     "children is a list of child records"),
    ("require = [ { code = \"COUNT\"", "unique = [[\"x\", \"{children}\"]]\nrequire = [ { code = \"COUNT\"",
     "children is a list of records"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD_LOADS)
def test_a_bad_use_of_a_list_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    error = refusal(FAMILY, old, new)
    assert message in error.message
    assert error.line > 0


BAD_BORDERS = [
    (WELFARE, '"child.carer", "child.status"', '"child.status"', "is not in `uses`"),
    (WELFARE, "max 8", "max 8 by rank", "is not in `uses`"),
    (WELFARE, '"size(children)"', '"children.exists(c, c.rank == 1) ? 1 : 2"', "is not in `uses`"),
    (WELFARE, '"size(children)"', '"children.exists(c, c.name == \'x\') ? 1 : 2"', "does not export child.name"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new", "message"), BAD_BORDERS)
def test_a_list_keeps_to_the_borders_of_domains(
    text: str, old: str, new: str, message: str
) -> None:
    error = refusal(text, old, new)
    assert message in error.message
    assert error.hint
    assert error.line > 0


def test_what_is_asked_of_a_list_belongs_to_the_identity_of_the_action() -> None:
    def id_of(family: str) -> bytes:
        rules = [load_toml(each) for each in (family, WELFARE, *TEXTS)]
        found = compile_rulebook(rules).action("welfare", "open")
        assert found is not None
        return found.action_id

    base = id_of(FAMILY)
    assert (
        id_of(
            FAMILY.replace(
                'fields.name  = { type = "text"', 'fields.name  = { optional = true, type = "text"'
            )
        )
        == base
    )
    # the field that it looks for is its own concern, whatever else the kind has
    assert (
        id_of(
            FAMILY.replace(
                'fields.carer = { type = "text", open = true, optional = true }',
                'fields.carer = { type = "text", open = true }',
            ).replace('carer = "text?"', 'carer = "text"')
        )
        != base
    )


def test_actions_name_what_they_read_of_a_list() -> None:
    book = compile_rulebook([load_toml(FAMILY)])
    actions = book.rule_sets["family"].actions
    assert actions["count"].reads == (
        ("input", "carer"), ("children", "carer"), ("children",), ("input", "count"),
    )  # fmt: skip
    assert ("children", "status") in actions["ask"].reads


def test_a_field_of_text_may_be_looked_for_under_a_fixed_word() -> None:
    text = FAMILY.replace(LOAD, '"index child.carer north max 3"')
    world = World(make_genesis((*TEXTS, text)))
    world.do("clerk", "family.enrol", "x", "north", None, expects=[("child", ["x"], 0)])
    assert count(world, "south", 1).code == Code.APPLIED


def test_an_index_lies_in_the_canonical_form_as_the_grammar_says() -> None:
    data = encode_definition(load_toml(FAMILY))
    SCHEMA.validate_cbor(data)
    kinds = dict(cbor2.loads(data)[1][6])
    assert kinds["child"][3] == [
        ["index", [["carer", [["while", "status == 'enrolled'"]]], ["status"],
                   ["rank", [["while", "rank / rank == 1"]]]]]
    ]  # fmt: skip
    assert encode_definition(decode_definition(data)) == data


def test_a_kind_without_an_index_lies_as_before() -> None:
    data = encode_definition(load_toml(WELFARE))
    assert len(dict(cbor2.loads(data)[1][6])["case"]) == 3


def test_the_identity_of_an_action_with_a_list_follows_the_documented_formula() -> None:
    tables = cbor2.loads(encode_definition(load_toml(WELFARE)))[1]
    action = dict(tables[8])["open"]
    foreign = ["family", "child", [["carer", "text", True]], None]
    dependencies = [[["case", dict(tables[6])["case"]]], [foreign], [], []]
    expected = hashed(
        "rule action id", cbor2.dumps(["welfare", "open", action, dependencies], canonical=True)
    )
    rules = [load_toml(each) for each in (FAMILY, WELFARE)]
    found = compile_rulebook(rules).action("welfare", "open")
    assert found is not None
    assert found.action_id == expected


def test_leaves_of_an_index_lie_where_the_formats_say() -> None:
    world = make()
    world.do("clerk", "family.enrol", "x", "ann", None, expects=[("child", ["x"], 0)])
    key = hashed("key path", world.ledger.chain)
    for components, value in (
        (["child.carer", "ann"], [1]),
        (["child.carer", "ann", 0], [["x"]]),
        (["child.carer", "ann", ["x"]], [0]),
    ):
        kh = blake3(cbor2.dumps(["index", components], canonical=True), key=key).digest()
        row = world.state.get(kh)
        assert row is not None
        assert cbor2.loads(decode_single(row.value)[2]) == value


def test_the_condition_of_a_grant_sees_no_list() -> None:
    action = compile_rulebook([load_toml(FAMILY)]).action("family", "ask")
    assert action is not None
    assert compile_condition(action, "input.least > 0").reads == (("input", "least"),)
    for source in (
        "size(children) > 0",
        "children.exists(c, c.rank == 1)",
        "children.rank == 1",
        "children.status == 'enrolled'",
    ):
        with pytest.raises(RulesError, match="nothing that a grant may name"):
            compile_condition(action, source)


def test_people_are_told_of_indexes_and_lists() -> None:
    (summary,) = describe(compile_rulebook([load_toml(FAMILY)]))
    (kind,) = summary.kinds
    assert kind.fields == (
        "carer: text, optional, indexed while status == 'enrolled'",
        "rank: int, optional, indexed while rank / rank == 1",
        "name: text",
        "status: indexed",
    )
    count_ = next(each for each in summary.actions if each.name == "count")
    assert count_.reads == ("children = index child.carer {input.carer} max 3",)


WORDS = (
    "index", "child.carer", "child.status", "child.rank", "person.name", "child", ".", "{input.carer}",
    "{input.count}", "{children}", "{}", "{", "north", "max", "3", "64", "0", "-1", "99999999999999999999",
    "by", "rank", "name", "carer", "status", "id", "è", "", "?", "children.exists(c, c.rank == 1)",
)  # fmt: skip
CONDITIONS = (
    "status == 'enrolled'", "rank > 0", "has(rank)", "carer.startsWith('a')", "rank / 0 == 1", "true",
    "carer", "now > 0", "input.x", "child.carer == 'a'", "status.x", "", "(", "size(carer) == 1 && rank in [1]",
    "[1, 2].exists(c, c == rank)", "'" * 3, "rank == 9223372036854775808",
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join),
    st.sampled_from(["", "status", "carer", "rank", "name", "nobody", "basis", "è"]),
    st.sampled_from(CONDITIONS),
)
def test_whatever_is_written_about_an_index_compiles_or_is_refused(
    load: str, field: str, condition: str
) -> None:
    quoted = condition.replace("\\", "\\\\").replace('"', '\\"')
    text = FAMILY.replace(LOAD, f'"index {load}"').replace(
        'index  = [{ field = "carer", while = "status == \'enrolled\'" }, "status",',
        f'index  = [{{ field = "{field}", while = "{quoted}" }}, "carer",',
    )
    line = 0
    try:
        definition = load_toml(text, "family.toml")
        compile_rulebook([definition])
    except RulesError as error:
        line = error.line
    else:
        data = encode_definition(definition)
        SCHEMA.validate_cbor(data)
        line = 1 if decode_definition(data) == definition else 0
    assert line > 0


# --- from one number to the next --------------------------------------------------------------


def successor(old: str, new: str) -> list[str]:
    """Return why the family's rules cannot change so."""
    before = compile_rulebook([load_toml(FAMILY)]).rule_sets["family"]
    assert old in FAMILY
    text = FAMILY.replace("number = 1", "number = 2", 1).replace(old, new, 1)
    after = load_toml(text, "family.toml")
    found = check_successor(before, compile_rulebook([after]).rule_sets["family"], after)
    assert all(each.hint and each.line for each in found)
    return [each.message.partition(": ")[2] or each.message for each in found]


def test_an_index_of_a_field_that_records_have_cannot_be_added() -> None:
    (why,) = successor('"status", {', '"status", "name", {')
    assert "missing from an index by name" in why


def test_an_index_of_a_new_field_may_be_added() -> None:
    field = "status = { start"
    new = 'fields.area = { type = "text", open = true, optional = true, since = 2 }\n' + field
    assert successor(field, new) == []
    text = FAMILY.replace(field, new).replace("number = 1", "number = 2", 1)
    text = text.replace('"status", {', '"status", "area", {')
    before = compile_rulebook([load_toml(FAMILY)]).rule_sets["family"]
    after = compile_rulebook([load_toml(text)]).rule_sets["family"]
    assert check_successor(before, after) == []


def test_the_condition_of_an_index_stays() -> None:
    (why,) = successor("status == 'enrolled'", "status != 'ended'")
    assert "as the old `while` says" in why
    (why,) = successor(""", while = "rank / rank == 1\"""", "")
    assert "as the old `while` says" in why


def test_an_index_may_be_dropped_and_does_not_come_back() -> None:
    assert successor('"status", {', "{") == []
    before = load_toml(FAMILY.replace('"status", {', "{").replace("number = 1", "number = 2", 1))
    after = load_toml(FAMILY.replace("number = 1", "number = 3", 1))
    books = [compile_rulebook([each]).rule_sets["family"] for each in (before, after)]
    (why,) = check_successor(books[0], books[1])
    assert "missing from an index by status" in why.message


def test_check_of_a_text_says_nothing_against_lists() -> None:
    found = check_text(FAMILY, "family.toml")
    assert [each for each in found if isinstance(each, Problem)] == []
    assert not any("children" in each.message for each in found)
