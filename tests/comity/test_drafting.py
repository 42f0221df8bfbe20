"""What a draft says of the entries that its author read."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

import pytest
from blake3 import blake3

from comity.drafting import Call, Needs, build, expects_of, find_action
from comity.errors import DraftError
from comity.results import Entry
from consensus.codec import Value
from consensus.ledger.rules import compile_rulebook, load_toml
from consensus.protocol import StateKey


def entry(version: int, *components: Value) -> Entry:
    return Entry(StateKey("record", components), 1, 1, version=version)


def test_ids_of_several_components_are_expected_each_once() -> None:
    payment = entry(0, "payment", [b"child"], 24_312)
    again = entry(0, "payment", [b"child"], 24_312)
    found = expects_of([payment, entry(2, "entitlement", b"child"), again])
    assert [(each.kind, each.id, each.version) for each in found] == [
        ("payment", [[b"child"], 24_312], 0),
        ("entitlement", [b"child"], 2),
    ]


def test_one_entry_read_at_two_versions_is_refused() -> None:
    with pytest.raises(DraftError, match="read at two versions"):
        expects_of([entry(1, "payment", [b"child"], 1), entry(2, "payment", [b"child"], 1)])


RULES = """\
domain = "grants"
number = 1
legal_basis = "Grants Act"

[kinds.note]
fields.amount = { type = "int" }

[actions.decide]
actor  = { role = "grants.clerk" }
inputs = { note = "ref:note", least = "int", mine = "bool" }
load   = [ ["n", "note/{input.note}"] ]
let    = [ ["ours", "who.agency == 'a'"], ["enough", "n.amount >= input.least"], ["twice", "input.least * 2"] ]
set    = [ { record = "n", fields = { amount = "0" }, when = "enough" } ]
create = [ { kind = "note", id = ["{twice}"], set = { amount = "1" }, when = "!enough" },
           { kind = "note", id = ["mine"], set = { amount = "1" }, when = "input.mine && ours" } ]
"""


@pytest.mark.parametrize(
    ("least", "mine", "expected"),
    [
        (5, False, [([7], 3)]),
        (6, False, [([12], 0)]),
        (6, True, [([12], 0), (["mine"], 0)]),  # who acts is not known here
    ],
)
def test_an_effect_that_does_not_take_place_expects_nothing(
    least: int, mine: bool, expected: list[tuple[list[Value], int]]
) -> None:
    book = compile_rulebook([load_toml(RULES)])
    action = find_action(book, "grants", "decide")
    needs = Needs(book, action, {"note": [7], "least": least, "mine": mine}, 0)
    while (key := needs.next_key()) is not None:
        known = key.components == ("note", 7)
        needs.give(
            Entry(key, 1, 1, version=3, definition=1, value={"amount": 5}, present=True)
            if known
            else Entry(key, 1, 1, version=0)
        )
    found = [(list(each.key.components[1:]), each.version) for each in needs.expected]
    assert found == expected


PERIOD = """\
domain = "grants"
number = 1
legal_basis = "Grants Act"

[params]
rate = { by = "period", type = "int", values = [ { from = "2026-01", value = 1 }, { from = "2026-03", value = 2 } ] }

[kinds.cycle]
fields.month = { type = "month" }

[actions.pay]
actor   = { role = "grants.clerk" }
inputs  = { cycle = "ref:cycle" }
load    = [ ["c", "cycle/{input.cycle}"] ]
period  = "c.month"
require = [ { code = "RATE", that = "params.rate > 0", say = "no rate" } ]
"""

TWO_CYCLES = """
[kinds.claim]
fields.of      = { type = "ref", kind = "cycle" }
fields.charged = { type = "ref", kind = "cycle" }

[actions.settle]
actor   = { role = "grants.clerk" }
inputs  = { claim = "ref:claim" }
load    = [ ["claim", "claim/{input.claim}"], ["c", "cycle/{claim.of}"], ["paid", "cycle/{claim.charged}"] ]
period  = "c.month"
depends = ["claim.of", "paid.month"]
require = [ { code = "RATE", that = "params.rate > 0", say = "no rate" } ]
"""


def test_a_draft_names_the_parameters_of_its_period() -> None:
    book = compile_rulebook([load_toml(PERIOD)])
    needs = Needs(book, find_action(book, "grants", "pay"), {"cycle": [7]}, 0)
    assert needs.next_key() == StateKey("record", ("cycle", 7))
    march = 2026 * 12 + 2
    read = Entry(
        StateKey("record", ("cycle", 7)), 1, 1, 1, 1, {"month": march}, {}, 1, present=True
    )
    needs.give(read)
    assert needs.next_key() is None
    assert needs.expected == [read]

    def drafted(*reads: Entry) -> bytes:
        made = build(
            bytes(32), book, [Call("grants", "pay", {"cycle": [7]})], author=bytes(32), sequence=1,
            now_ms=0, not_after_ms=1, seed=bytes(32), reads=reads,
        )  # fmt: skip
        return bytes(made.transaction.inputs(0)[1])

    assert (
        drafted(read)
        == blake3(
            b"\x81\x82\x64rate\x02", derive_key_context="comity 2026-11-21 rule param values v1"
        ).digest()
    )
    with pytest.raises(DraftError, match=r"goes by c.month, which was not read"):
        drafted()
    absent = Entry(StateKey("record", ("cycle", 7)), 1, 1, present=False)
    with pytest.raises(DraftError, match=r"cycle/7 is absent, and grants.pay goes by its month"):
        drafted(absent)


def test_the_period_of_a_record_named_by_another_is_found_among_its_kind() -> None:
    march, january = 2026 * 12 + 2, 2026 * 12
    book = compile_rulebook([load_toml(PERIOD + TWO_CYCLES)])
    stored: dict[tuple[Value, ...], dict[str, Value]] = {
        ("claim", 1): {"of": [7], "charged": [8]},
        ("cycle", 7): {"month": march},
        ("cycle", 8): {"month": january},
    }
    needs = Needs(book, find_action(book, "grants", "settle"), {"claim": [1]}, 0)
    while (key := needs.next_key()) is not None:
        needs.give(Entry(key, 1, 1, 1, 1, stored[key.components], {}, 1, present=True))
    made = build(
        bytes(32), book, [Call("grants", "settle", {"claim": [1]})], author=bytes(32), sequence=1,
        now_ms=0, not_after_ms=1, seed=bytes(32), reads=needs.expected,
    )  # fmt: skip
    of_march = blake3(
        b"\x81\x82\x64rate\x02", derive_key_context="comity 2026-11-21 rule param values v1"
    ).digest()
    assert bytes(made.transaction.inputs(0)[1]) == of_march
