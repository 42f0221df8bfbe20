"""What a bundle says once the world has gone on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from consensus.evidence.making import CannotOpenError
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import _Reading, verify
from consensus.ledger.codes import Code
from consensus.state.state import State
from tests.consensus.evidence.test_bundle import populated, sealed
from tests.consensus.evidence.town import Town
from tests.consensus.ledger import governed, test_erasing, test_sealing
from tests.consensus.ledger.desk import DESK_CHARTER
from tests.consensus.ledger.governed import Governed
from tests.consensus.ledger.test_reversal import REVERSE, _genesis, lend
from tests.consensus.ledger.world import TEXTS, public_key, token


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


def test_what_came_later_is_not_shown_as_of_a_height_before_the_decision() -> None:
    """There no correction can be: true, proved, and no answer to what the reader asks."""
    town = populated()
    act = town.draft("clerk", ("payments.transfer", "a", "b", 7))
    early = town.height
    decision = town.one(act)
    town.run()
    bundle = town.bundle(decision, heights=(early,))
    places = [
        town.ledger.paths("corrections", [act.txid]),
        *_Reading(bundle, town.ledger.chain)._unread(),
    ]
    then = State(town.past[early], town.genesis.tree_depth, early)
    proof = then.prove(places).encode()
    forged = replace(bundle, later=replace(bundle.later, proof=proof))
    with pytest.raises(FailedError, match=f"as of height {early}, before the decision") as caught:
        verify(sealed(forged), town.ledger.chain)
    assert caught.value.stage == "since"
    assert verify(sealed(bundle), town.ledger.chain).newest.height == town.height


def test_the_reversal_itself_is_judged_again_with_the_history_that_it_rested_on(town: Town) -> None:
    made = lend(town)
    town.do("clerk", "loans.spend", "ann", 60)
    back = town.reverse("admin", made)
    town.run()
    found = verify(town.file(back), town.ledger.chain)
    assert found.judged
    assert found.decision.code == Code.APPLIED
    assert town.balance("debt", "ann") == -60


def test_what_was_voided_is_judged_again_as_that(town: Town) -> None:
    made = town.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    assert town.reverse("admin", made).code == Code.APPLIED
    gone = town.do("clerk", "loans.read_note", ["n"])
    assert gone.detail == ["slip", ["slip", ["n"]], "voided"]
    town.run()
    found = verify(town.file(gone), town.ledger.chain)
    assert (found.judged, found.decision.code) == (True, Code.NOT_FOUND)


def test_a_field_that_shares_its_leaf_is_shown_with_the_others_of_it(town: Town) -> None:
    lend(town)
    named = [("loan", ["ann"], 1)]
    housed = town.do("clerk", "loans.house", ["ann"], "Mill Lane 4", "Norton", expects=named)
    assert housed.code == Code.APPLIED, housed.detail
    settled = town.do("clerk", "loans.settle", ["ann"], None, expects=[("loan", ["ann"], 2)])
    with pytest.raises(CannotOpenError, match=r"loan\.street shares a leaf") as caught:
        town.file(settled, opened=("loan.street",))
    assert caught.value.hint == "ask for all of them, loan.address"
    assert b"Mill Lane" in town.file(settled, opened=("loan.address",))


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


@dataclass
class Changing(Town, Governed):
    """A network with evidence, whose rules change."""


def test_adopting_a_rule_set_is_judged_again() -> None:
    """Whoever adopts one is judged by whether it compiles with the others in force then."""
    town = Changing(governed.founding())
    town.signers |= {public_key(name): name for name in governed.CHIEFS}
    town.adopt(governed.numbered(TEXTS[-1], 2))
    [decision] = town.blocks[-1].decisions
    assert [each.domain for each in decision.header.actions] == ["charter"]
    assert decision.code == Code.APPLIED
    found = verify(town.file(decision), town.ledger.chain)
    assert (found.judged, found.decision.root) == (True, decision.root)


def test_one_bundle_outlives_rules_keys_values_and_private_parts_together() -> None:
    """Its rules were replaced, its author's key too, its value erased, its private part dropped."""
    charter = DESK_CHARTER + governed.ACTS + test_erasing.ERASE
    town = Changing(governed.founding((charter, test_sealing.FILES, *TEXTS[1:])))
    town.signers |= {public_key(name): name for name in (*governed.CHIEFS, "later")}
    iban = test_sealing.opening(town, "DE02 1203")
    made = test_sealing.decide(town, iban, acks=test_sealing.acks_of(town, iban))
    assert made.code == Code.APPLIED, made.detail
    town.run()
    old, at = town.file(made), town.height

    act = "[actions.open]\nactor  = { role = "
    moved = governed.numbered(
        test_sealing.FILES, 2, (f'{act}"payments.clerk"', f'{act}"payments.officer"')
    )
    town.wait_until(town.adopt(moved))
    town.run()
    assert town.numbers()["files"] == 2
    keys = [("key", [public_key("clerk")], 1), ("key", [public_key("later")], 0)]
    rotated = town.do(
        "admin",
        "charter.replace_key",
        *("treasury", token("clerk"), public_key("clerk"), public_key("later"), town.now_ms + 1000),
        expects=keys,
    )
    assert rotated.code == Code.APPLIED, rotated.detail
    erased = test_erasing.erase(town, ["iban"])
    assert erased.code == Code.APPLIED, erased.detail
    town.run()
    for author, code in (("clerk", Code.KEY_INACTIVE), ("later", Code.NOT_AUTHORIZED)):
        call = ("files.open", "b", test_sealing.SINCE, None, None)
        assert town.do(author, *call, expects=[("file", ["b"], 0)]).code == code
    town.run()
    fresh = town.file(made)
    town.payloads.clear()  # private parts and replaced rows are gone from every node
    town.past.clear()

    chain = town.ledger.chain
    for data, height in ((old, at), (fresh, town.height)):
        found = verify(data, chain)
        assert found.judged
        assert found.decision.root == made.root
        assert (found.rules["files"], found.taken_back) == (1, None)
        assert (found.statement.height, found.newest.height) == (made.header.height, height)
        assert b"DE02" not in data
