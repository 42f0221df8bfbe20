"""Seeds 100 to 199, as ``test_seeds_0`` and ``test_seeds_1`` have those before."""

from __future__ import annotations

import pytest

from tests.sim.campaign import sweep

pytestmark = pytest.mark.long


@pytest.mark.parametrize("first", range(100, 200, 10))
def test_every_promise_holds_over_ten_seeds(first: int) -> None:
    sweep(range(first, first + 10))
