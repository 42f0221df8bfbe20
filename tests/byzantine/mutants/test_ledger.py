"""Each check of the executor is needed: without it, acts come to what they must not come to."""

from __future__ import annotations

import pytest

from tests.byzantine.mutants.ledger import LEDGER, Mutant
from tests.consensus.ledger.world import founded


@pytest.mark.parametrize("mutant", LEDGER, ids=lambda mutant: mutant.name)
def test_broken_check_is_found(mutant: Mutant) -> None:
    assert anew(mutant) == mutant.expected
    try:
        with mutant.patched():
            assert anew(mutant) != mutant.expected
    finally:
        founded.cache_clear()


def anew(mutant: Mutant) -> object:
    """Do the acts on a network that has kept nothing of earlier ones."""
    founded.cache_clear()
    return mutant.acts()
