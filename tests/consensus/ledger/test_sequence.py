"""The sequence window against a set of numbers that remembers everything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.ledger.codes import Code, Refused
from consensus.ledger.sequence import JUMP_MAX, WINDOW_BITS, Window, from_value

steps = st.one_of(
    st.integers(-WINDOW_BITS - 5, 40), st.sampled_from([JUMP_MAX, JUMP_MAX + 1, WINDOW_BITS])
)


def outcome(window: Window, number: int) -> Code | None:
    try:
        window.check(number)
    except Refused as refused:
        return refused.code
    return None


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=60))
def test_window_agrees_with_a_set_that_remembers_everything(moves: list[int]) -> None:
    window, used, highest = Window(), set[int](), 0
    for move in moves:
        number = max(1, highest + move)
        if number > highest + JUMP_MAX:
            expected = Code.SEQUENCE_AHEAD
        elif number <= highest - WINDOW_BITS:
            expected = Code.SEQUENCE_OLD
        elif number in used:
            expected = Code.SEQUENCE_SPENT
        else:
            expected = None
        assert outcome(window, number) == expected
        if expected is None:
            window.spend(number)
            used.add(number)
            highest = max(highest, number)
        again = from_value(window.to_value())
        assert (again.highest, again.used) == (window.highest, window.used)
        assert len(window.to_value()[1]) <= WINDOW_BITS // 8


@pytest.mark.parametrize("number", [1, 2, WINDOW_BITS, JUMP_MAX])
def test_first_number_may_be_any_within_the_jump(number: int) -> None:
    window = Window()
    assert outcome(window, number) is None
    window.spend(number)
    assert outcome(window, number) == Code.SEQUENCE_SPENT


def test_details_name_the_bounds() -> None:
    window = Window()
    window.spend(5000)
    with pytest.raises(Refused) as old:
        window.check(5000 - WINDOW_BITS)
    assert old.value.detail == [3976, 3977]
    with pytest.raises(Refused) as ahead:
        window.check(5001 + JUMP_MAX)
    assert ahead.value.detail == [5001 + JUMP_MAX, 5000 + JUMP_MAX]
