"""Seeds 40 to 79, as ``test_seeds_0`` and ``test_seeds_1`` have the first forty."""

from __future__ import annotations

import pytest

from tests.sim.campaign import sweep

pytestmark = pytest.mark.long


@pytest.mark.parametrize("first", range(40, 80, 10))
def test_every_promise_holds_over_ten_seeds(first: int) -> None:
    sweep(range(first, first + 10))
