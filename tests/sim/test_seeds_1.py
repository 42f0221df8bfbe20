"""Seeds 50 to 99: every promise holds under all faults, and work goes on after them."""

from __future__ import annotations

import pytest

from tests.sim.campaign import sweep


@pytest.mark.parametrize("first", range(50, 100, 10))
def test_every_promise_holds_over_ten_seeds(first: int) -> None:
    sweep(range(first, first + 10))
