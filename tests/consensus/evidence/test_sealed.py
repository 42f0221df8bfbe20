"""Bundles about sealed values: judged again without them, never with a wrong acknowledgement."""

from __future__ import annotations

import pytest

from consensus.errors import ComityError
from consensus.evidence.making import CannotOpenError
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from tests.consensus.evidence.town import Town
from tests.consensus.ledger import test_erasing, test_sealing
from tests.consensus.ledger.test_sealing import SALT, ack, acks_of, opening
from tests.consensus.ledger.world import make_genesis

VALUE = "DE02 1203 0000 0000 2020 51"


def filed(town: Town, *, signature: bytes | None = None) -> Decision:
    """Open a file whose account is sealed; return the decision."""
    iban = opening(town, VALUE)
    acks = acks_of(town, iban)
    if signature is not None:
        acks = [ack(town, iban, "treasury", signature=signature)]
    decision = test_sealing.decide(town, iban, acks=acks)
    town.run()
    return decision


def test_decision_on_a_sealed_value_is_judged_again_without_it() -> None:
    town = Town(test_sealing.GENESIS)
    decision = filed(town)
    assert decision.code == Code.APPLIED
    data = town.file(decision)
    found = verify(data, town.ledger.chain)
    assert (found.judged, found.decision.root) == (True, decision.root)
    assert VALUE.encode() not in data
    assert SALT not in data


def test_sealed_value_is_opened_by_a_disclosure_and_by_no_bundle() -> None:
    town = Town(test_erasing.GENESIS)
    filed(town)
    erased = test_erasing.erase(town, ["iban"])
    town.run()
    with pytest.raises(CannotOpenError, match=r"file\.iban is sealed") as caught:
        town.file(erased, opened=("file.iban",))
    assert "comity disclose" in caught.value.hint


def test_refusal_for_want_of_delivery_is_judged_again() -> None:
    town = Town(test_sealing.GENESIS)
    decision = test_sealing.decide(town, opening(town, VALUE), acks=[])
    town.run()
    assert decision.code == Code.NOT_DELIVERED
    assert verify(town.file(decision), town.ledger.chain).judged


def test_acknowledgement_that_does_not_verify_is_refused_whoever_certified_it() -> None:
    town = Town(test_sealing.GENESIS)
    decision = filed(town, signature=bytes(64))
    assert decision.code == Code.APPLIED  # its signatures are not the executor's to check
    with pytest.raises(ComityError) as caught:
        verify(town.file(decision), town.ledger.chain)
    assert isinstance(caught.value, FailedError)
    assert caught.value.stage == "transaction"


def test_bundle_outlives_the_erasure_of_what_it_is_about() -> None:
    town = Town(test_erasing.GENESIS)
    decision = filed(town)
    before = town.file(decision)
    erased = test_erasing.erase(town, ["iban"])
    town.run()
    assert erased.code == Code.APPLIED
    for data in (before, town.file(decision), town.file(erased)):
        assert verify(data, town.ledger.chain).judged


def test_node_keys_are_those_of_the_genesis_file() -> None:
    """Whoever claims other nodes claims another network."""
    town = Town(test_sealing.GENESIS)
    data = town.file(filed(town))
    other = make_genesis(test_sealing.TEXTS_OF_FILES, network="other")
    assert other.committee == town.genesis.committee
    with pytest.raises(ComityError):
        verify(data, Town(other).ledger.chain)
