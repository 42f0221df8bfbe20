"""Acts on reservations are judged again from a bundle: loaded, paid, taken back, and once more."""

from __future__ import annotations

from dataclasses import replace

from consensus.codec import Value
from consensus.evidence.verify import verify
from consensus.genesis import OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from tests.consensus.evidence.town import Town
from tests.consensus.ledger import test_reservation_loads as loads
from tests.consensus.ledger.test_reservations import (
    BENEFITS,
    CHARTER,
    GRANTS,
    IDENTITY,
    PERMITTED,
)
from tests.consensus.ledger.test_reversal_reservations import dues_genesis
from tests.consensus.ledger.world import make_genesis


def done(town: Town, action: str, *inputs: Value) -> Decision:
    return town.do("clerk", action, *inputs)


def check(town: Town, decisions: dict[str, Decision]) -> None:
    town.run()
    for name, decision in decisions.items():
        found = verify(town.file(decision), town.ledger.chain)
        assert found.decision.root == decision.root, name
        assert found.judged, name


def test_what_a_reversal_opens_again_is_judged_again() -> None:
    town = Town(dues_genesis())
    made: dict[str, Decision] = {}
    done(town, "dues.promise", "a", 100, None)
    done(town, "dues.promise", "timed", 100, town.now_ms + 1_000_000)
    made["post"] = done(town, "dues.pay", "a", 60)
    made["timed"] = done(town, "dues.pay", "timed", 60)
    made["taken back"] = town.reverse("clerk", made["post"])
    made["and that"] = town.reverse("clerk", made["taken back"])
    made["twice"] = town.reverse("clerk", made["taken back"])
    assert [each.code for each in made.values()] == [Code.APPLIED] * 4 + [Code.REQUIREMENT]
    check(town, made)


def test_what_a_condition_reads_of_a_reservation_is_judged_again() -> None:
    genesis = make_genesis((CHARTER, IDENTITY, BENEFITS, PERMITTED, GRANTS + loads.LOOK))
    funds = [OpeningBalance("fund", (name,), 1000) for name in ("main", "a", "b")]
    town = Town(replace(genesis, accounts=(*genesis.accounts, *funds)))
    until = town.now_ms + 60_000
    done(town, "grants.commit", 1, 100, until)
    made = {
        "open": done(town, "grants.look", 1, "reserved", 100, 0),
        "another amount": done(town, "grants.look", 1, "reserved", 99, 0),
        "none": done(town, "grants.look", 2, "reserved", 0, 0),
        "another account": done(town, "grants.look_from", 1, "b"),
        "absent": done(town, "grants.withdraw_if", 3),
    }
    town.now_ms = until
    made["expired"] = done(town, "grants.look", 1, "expired", 0, 0)
    assert [each.code.name for each in made.values()] == [
        "APPLIED", "REQUIREMENT", "NOT_FOUND", "REQUIREMENT", "APPLIED", "APPLIED",
    ]  # fmt: skip
    check(town, made)
