"""Taking back what reservations paid: open again, posted again, and never more than there is."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from functools import lru_cache
from random import Random
from typing import Any

import pytest

from consensus import codec
from consensus.genesis import OpeningBalance, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import POSTED, RESERVED, VOIDED, Reservation
from consensus.state.record import decode_single
from tests.consensus.ledger.reader import read_account
from tests.consensus.ledger.test_reversal import DAY_MS, REVERSE
from tests.consensus.ledger.world import CHARTER, NORTH, TEXTS, World, make_genesis, token

DUES = """\
domain = "dues"
number = 1
legal_basis = "Dues Act"

[accounts.pot]
currency = "USD"

[accounts.till]
currency = "USD"

[accounts.owed]
currency = "USD"
floor = -1000

[actions.promise]
actor  = { role = "dues.clerk" }
inputs = { name = "text", amount = "money:USD", until = "time?" }
reserve = [ { id = ["{input.name}"], from = "account/pot", amount = "input.amount", expires = "input.until", when = "has(input.until)" },
            { id = ["{input.name}"], from = "account/pot", amount = "input.amount", when = "!has(input.until)" } ]

[actions.pay]
actor  = { role = "dues.clerk" }
inputs = { name = "text", amount = "money:USD" }
post   = [ { id = ["{input.name}"], from = "account/pot", to = "account/till", amount = "input.amount" } ]
reversible = { by = "dues.clerk", within_days = 90, shortfall = "account/owed" }

[actions.part]
actor  = { role = "dues.clerk" }
inputs = { name = "text", amount = "money:USD" }
post   = [ { id = ["{input.name}"], from = "account/pot", to = "account/till", amount = "input.amount", keep = true } ]
reversible = { by = "dues.clerk", within_days = 90, shortfall = "account/owed" }

[actions.release]
actor  = { role = "dues.clerk" }
inputs = { name = "text" }
void   = [ { id = ["{input.name}"], from = "account/pot" } ]

[actions.spend]
actor  = { role = "dues.clerk" }
inputs = { amount = "money:USD" }
move   = [ { from = "account/till", to = "account/pot", amount = "input.amount" } ]

[actions.draw]
actor  = { role = "dues.clerk" }
inputs = { amount = "money:USD" }
move   = [ { from = "account/pot", to = "account/till", amount = "input.amount" } ]
"""


@lru_cache(maxsize=1)
def dues_genesis() -> Any:
    before = make_genesis()
    return make_genesis(
        (CHARTER + REVERSE, *TEXTS[1:], DUES),
        roles=(*before.roles, RoleGiven(token("clerk"), "dues.clerk", NORTH)),
        accounts=(
            *before.accounts,
            OpeningBalance("pot", (), 1000),
            OpeningBalance("till", (), 0),
            OpeningBalance("owed", (), 0),
        ),
    )


class Dues(World):
    """A network with promises on one pot."""

    def __init__(self) -> None:
        super().__init__(dues_genesis())

    def act(self, name: str, *inputs: Any) -> Decision:
        return self.do("clerk", f"dues.{name}", *inputs)

    def done(self, name: str, *inputs: Any) -> Decision:
        made = self.act(name, *inputs)
        assert made.code == Code.APPLIED, (name, inputs, made.detail)
        return made

    def back(self, made: Decision) -> Decision:
        back = self.reverse("clerk", made)
        assert back.code == Code.APPLIED, back.detail
        return back

    @property
    def pot(self) -> tuple[int, int]:
        """Balance of the pot and what of it is reserved, as the leaf says."""
        row = self.state.get(self.ledger.paths("account", ["pot"]))
        assert row is not None
        found = read_account(row.value)
        return found.balance, found.reserved

    def reservation(self, name: str) -> Reservation:
        row = self.state.get(self.ledger.paths("reservation", ["dues", name]))
        assert row is not None
        return Reservation(*codec.parse(decode_single(row.value)[2]))


def test_reservation_is_open_again_with_all_of_it() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    paid = world.done("pay", "a", 100)
    assert world.pot == (900, 0)
    back = world.back(paid)
    assert world.pot == (1000, 100)
    found = world.reservation("a")
    assert (found.amount, found.posted, found.state) == (100, 0, RESERVED)
    assert back.value("moves:dues") == [
        [0, ["pot"], 100, 100, ["dues", "a"]],
        [0, ["till"], -100],
    ]
    assert [row[0] for row in back.value("writes:dues") or ()] == [["reservation", ["dues", "a"]]]
    assert world.act("draw", 901).code == Code.INSUFFICIENT
    world.done("draw", 900)
    world.done("pay", "a", 100)
    assert world.pot == (0, 0)


def test_what_a_post_gave_back_stays_free() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    paid = world.done("pay", "a", 60)
    world.done("draw", 940)
    world.back(paid)
    assert world.pot == (60, 60)
    found = world.reservation("a")
    assert (found.amount, found.posted, found.state) == (60, 0, RESERVED)
    assert world.act("pay", "a", 61).detail[0] == "OVER_RESERVED"
    world.done("pay", "a", 60)
    assert world.pot == (0, 0)


def test_parts_are_taken_back_in_any_order() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    first, second = world.done("part", "a", 40), world.done("part", "a", 60)
    assert (world.reservation("a").state, world.pot) == (POSTED, (900, 0))
    world.back(first)
    assert (world.reservation("a").state, world.pot) == (RESERVED, (940, 40))
    world.back(second)
    assert (world.reservation("a").posted, world.pot) == (0, (1000, 100))


def test_debts_make_the_reservation_whole() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    paid = world.done("pay", "a", 100)
    world.done("spend", 70)
    world.back(paid)
    assert (world.balance("till"), world.balance("owed")) == (0, -70)
    assert world.pot == (1070, 100)


def test_what_was_voided_since_is_not_reserved_again() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    paid = world.done("part", "a", 40)
    world.done("release", "a")
    back = world.back(paid)
    assert world.pot == (1000, 0)
    assert (world.reservation("a").state, world.reservation("a").posted) == (VOIDED, 40)
    assert back.value("moves:dues")[0] == [0, ["pot"], 40]


def test_what_has_expired_since_sets_nothing_aside_and_can_be_voided() -> None:
    world = Dues()
    world.done("promise", "a", 100, world.now_ms + DAY_MS)
    paid = world.done("pay", "a", 100)
    world.now_ms += DAY_MS
    back = world.back(paid)
    assert back.value("moves:dues")[0] == [0, ["pot"], 100, 0, ["dues", "a"]]
    assert world.pot == (1000, 0)
    world.done("draw", 1000)
    assert world.act("pay", "a", 100).detail[0] == "EXPIRED"
    world.done("release", "a")
    assert world.reservation("a").state == VOIDED


def test_it_ends_when_it_would_have_ended() -> None:
    world = Dues()
    world.done("promise", "a", 100, world.now_ms + DAY_MS)
    world.back(world.done("pay", "a", 100))
    assert world.act("draw", 901).code == Code.INSUFFICIENT
    world.now_ms += DAY_MS
    world.done("draw", 1000)


def test_reversal_of_the_reversal_posts_again_without_a_guard() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    back = world.back(world.done("pay", "a", 60))
    world.done("draw", 940)
    again = world.back(back)
    assert again.value("moves:dues") == [
        [0, ["till"], 60],
        [0, ["pot"], -60, -60, ["dues", "a"]],
    ]
    assert (world.pot, world.reservation("a").state) == ((0, 0), POSTED)
    world.back(again)
    assert (world.pot, world.reservation("a").state) == ((60, 60), RESERVED)


def test_reversal_of_the_reversal_takes_what_is_free_where_the_reservation_is_used() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    back = world.back(world.done("pay", "a", 100))
    world.done("pay", "a", 100)  # once more, for itself
    assert world.pot == (900, 0)
    world.back(back)
    assert world.pot == (800, 0)
    assert world.reservation("a").posted == 100


@pytest.mark.parametrize(("left", "code"), [(100, Code.APPLIED), (99, Code.INSUFFICIENT)])
def test_reversal_of_the_reversal_is_guarded_once_the_reservation_is_over(
    left: int, code: Code
) -> None:
    world = Dues()
    world.done("promise", "a", 100, world.now_ms + DAY_MS)
    back = world.back(world.done("pay", "a", 100))
    world.now_ms += DAY_MS
    world.done("draw", 1000 - left)
    again = world.reverse("clerk", back)
    assert again.code == code
    assert world.reservation("a").state == (POSTED if code == Code.APPLIED else RESERVED)


def test_two_posts_of_one_transaction_go_back_together() -> None:
    world = Dues()
    world.done("promise", "a", 100, None)
    calls = (("dues.part", "a", 30), ("dues.part", "a", 70))
    made = world.one(world.draft("clerk", *calls))
    assert made.code == Code.APPLIED, made.detail
    back = world.back(made)
    assert (world.pot, world.reservation("a").posted) == ((1000, 100), 0)
    world.back(back)
    assert (world.pot, world.reservation("a").posted) == ((900, 0), 100)


def test_no_room_for_its_end_refuses_the_reversal_and_changes_nothing() -> None:
    world = Dues()
    world.done("promise", "a", 1, world.now_ms + 400 * DAY_MS)
    paid = world.done("pay", "a", 1)
    for number in range(128):
        world.done("promise", f"n{number}", 1, world.now_ms + (200 + number) * DAY_MS)
    before = world.pot
    refused = world.reverse("clerk", paid)
    assert (refused.code, refused.detail) == (Code.LIMIT, "expiries")
    assert world.pot == before
    world.done("release", "n0")
    world.back(paid)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_reserved_is_the_sum_of_what_is_open_and_no_money_is_made(seed: int) -> None:
    world, random = Dues(), Random(seed)
    names: list[str] = []
    reversible: list[Decision] = []
    for _ in range(120):
        what = random.choice(("promise", "pay", "part", "part", "release", "spend", "draw", "back"))
        if what == "promise":
            names.append(f"r{len(names)}")
            ends = random.choice((None, world.now_ms + random.randrange(1, 40) * 1000))
            made = world.act(what, names[-1], random.randrange(300), ends)
        elif what in ("spend", "draw"):
            made = world.act(what, random.randrange(200))
        elif what == "back":
            if not reversible:
                continue
            made = world.reverse("clerk", random.choice(reversible))
        elif not names:
            continue
        elif what == "release":
            made = world.act(what, random.choice(names))
        else:
            made = world.act(what, random.choice(names), random.randrange(200))
        if made.code == Code.APPLIED and what in ("pay", "part", "back"):
            reversible.append(made)
        world.act("draw", 0)  # writes the pot, so that its leaf has no moment that is over
        open_ = [world.reservation(name) for name in names if _made(world, name)]
        assert all(0 <= each.posted <= each.amount for each in open_)
        left = sum(
            each.amount - each.posted
            for each in open_
            if each.state == RESERVED and each.lasts(world.now_ms)
        )
        balance, reserved = world.pot
        assert reserved == left
        assert balance >= reserved
        assert balance + world.balance("till") + world.balance("owed") == 1000


def _made(world: Dues, name: str) -> bool:
    return world.state.get(world.ledger.paths("reservation", ["dues", name])) is not None
