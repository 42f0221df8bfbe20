"""What a bundle says once the world has gone on."""

from __future__ import annotations

import pytest

from consensus.evidence.verify import verify
from consensus.ledger.codes import Code
from tests.consensus.evidence.town import Town
from tests.consensus.ledger.test_reversal import REVERSE, _genesis, lend
from tests.consensus.ledger.world import token


@pytest.fixture
def town() -> Town:
    return Town(_genesis(REVERSE))  # type: ignore[arg-type]


def test_a_refreshed_bundle_says_that_the_act_was_taken_back_an_old_one_up_to_where_it_knows(
    town: Town,
) -> None:
    made = lend(town)
    old = town.file(made)
    at = town.height
    back = town.reverse("admin", made)
    assert back.code == Code.APPLIED
    town.run()
    chain = town.ledger.chain
    before, after = verify(old, chain), verify(town.file(made), chain)
    assert (before.taken_back, before.newest.height) == (None, at)
    assert (after.taken_back, after.newest.height) == (back.header.txid, town.height)
    assert before.judged
    assert after.judged


def test_the_reversal_itself_is_judged_again_with_the_history_that_it_rested_on(town: Town) -> None:
    made = lend(town)
    town.do("clerk", "loans.spend", "ann", 60)
    back = town.reverse("admin", made)
    town.run()
    found = verify(town.file(back), town.ledger.chain)
    assert found.judged
    assert found.decision.code == Code.APPLIED
    assert town.balance("debt", "ann") == -60


def test_a_bundle_is_judged_under_the_rules_and_powers_of_its_moment(town: Town) -> None:
    """The author's role is revoked since; made before or after, the bundle proves the same."""
    made = lend(town)
    old = town.file(made)
    row = town.ledger.paths("role", [token("clerk"), "loans.clerk"])
    assert town.state.get(row) is not None
    revoke = ("charter.revoke_role", "treasury", token("clerk"), "loans.clerk")
    gone = town.one(town.draft("admin", revoke))
    assert gone.code == Code.APPLIED, gone.detail
    refused = town.do("clerk", "loans.lend", "bob", 5, expects=[("loan", ["bob"], 0)])
    assert refused.code == Code.NOT_AUTHORIZED
    town.run()
    for data in (old, town.file(made)):
        found = verify(data, town.ledger.chain)
        assert found.judged
        assert found.decision.code == Code.APPLIED
    assert verify(town.file(refused), town.ledger.chain).judged
