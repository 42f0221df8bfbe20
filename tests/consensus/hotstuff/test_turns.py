"""For whom the short timer is set, by what the ordered chain shows."""

from __future__ import annotations

import pytest

from consensus.hotstuff.turns import Turns

from . import builders as make
from .driver import committee_of

SIZE = 4


def chain(*rounds: int) -> Turns:
    """The turns of four leaders after blocks in these rounds on one branch."""
    turns = Turns(make.COMMITTEE, 0)
    for block in make.chain(*rounds):
        turns.ordered(block)
    return turns


class Story:
    """Turns of leader 0 of four, told one by one; the others never fail."""

    def __init__(self) -> None:
        self.turns = Turns(make.COMMITTEE, 0)
        self.round = 0
        self.parent = make.block()

    def take(self, *outcomes: bool) -> Story:
        """The next turns of leader 0: whether they end well."""
        for well in outcomes:
            for step in range(SIZE):
                self.round += 1
                if step < SIZE - 1 or well:
                    high = make.quorum_cert(self.parent, ())
                    self.parent = make.block(high, self.round)
                    self.turns.ordered(self.parent)
        return self

    @property
    def marked(self) -> bool:
        """Known once the turn after it has ended."""
        self.take_next()
        return self.turns.marked(0)

    def take_next(self) -> None:
        """Let a block of the next leader show how the last turn ended, without counting twice."""
        high = make.quorum_cert(self.parent, ())
        self.turns.ordered(make.block(high, self.round + 1))

    def good_until_cleared(self) -> int:
        count = 0
        while self.marked:
            self.take(True)
            count += 1
        return count


def test_leaders_whose_turns_end_well_are_not_marked() -> None:
    turns = chain(1, 2, 3, 4, 5, 6, 7, 8)
    assert [turns.marked(leader) for leader in range(SIZE)] == [False] * SIZE


def test_leader_of_a_round_that_the_chain_skips_is_marked_and_nobody_else() -> None:
    turns = chain(1, 2, 4, 5)
    assert [turns.marked(leader) for leader in range(SIZE)] == [False, False, False, True]


def test_more_than_f_failures_in_a_row_mark_nobody() -> None:
    turns = chain(1, 4, 5, 9)
    assert [turns.marked(leader) for leader in range(SIZE)] == [False] * SIZE


def test_f_failures_in_a_row_mark_each_of_seven() -> None:
    turns = Turns(committee_of(7), 0)
    for block in make.chain(1, 4):
        turns.ordered(block)
    assert [leader for leader in range(7) if turns.marked(leader)] == [2, 3]


def test_rounds_before_the_beginning_are_nobodys_failures() -> None:
    turns = Turns(make.COMMITTEE, 3)
    for block in make.chain(1, 2, 4, 6):
        turns.ordered(block)
    assert [leader for leader in range(SIZE) if turns.marked(leader)] == [1]


def test_each_round_is_counted_once_whatever_is_ordered_again() -> None:
    turns = Turns(make.COMMITTEE, 0)
    first, second, third = make.chain(1, 3, 4)
    turns.ordered(first)
    turns.ordered(second)
    for _ in range(3):
        turns.ordered(first)
        turns.ordered(second)
    turns.ordered(third)
    assert turns.marked(2)
    for block in make.chain(1, 3, 4, 5, 6, 7, 8, 9, 10)[3:]:
        turns.ordered(block)
    assert not turns.marked(2), "two good turns, in rounds 6 and 10, clear the first mark"


def test_rival_branch_does_not_count_an_ordered_round_as_failed() -> None:
    turns = chain(1, 2)
    rival = make.block(make.quorum_cert(make.chain(1)[0]), 3, entry=None)
    turns.ordered(rival)
    assert not turns.marked(2)


@pytest.mark.parametrize(("failures", "turns"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 64), (9, 64)])
def test_mark_is_cleared_after_two_to_the_power_of_the_failures(failures: int, turns: int) -> None:
    assert Story().take(*[False] * failures).good_until_cleared() == turns


def test_failure_while_marked_begins_anew() -> None:
    story = Story().take(False, True, False)
    assert story.good_until_cleared() == 4


def test_failures_older_than_a_hundred_turns_are_forgotten() -> None:
    story = Story().take(*[False] * 6, *[True] * 94)
    assert Story().take(False).good_until_cleared() == 2
    story.take(False)  # five of the six are still among the last hundred turns
    assert story.good_until_cleared() == 64
    story = Story().take(*[False] * 6, *[True] * 100, False)
    assert story.good_until_cleared() == 2


def test_who_fails_whenever_it_is_not_marked_gains_one_full_wait_in_twenty_turns() -> None:
    story, waits, count = Story(), 0, 2000
    for _ in range(count):
        fails = not story.marked
        waits += fails
        story.take(not fails)
    assert 20 <= waits <= count // 20
