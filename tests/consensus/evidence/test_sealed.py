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


CLAIMS = """
[kinds.claim]
fields.said = { type = "text", open = true }

[actions.claim]
actor   = { role = "payments.officer" }
inputs  = { name = "text", said = "text" }
load    = [ ["file", "file/{input.name}"] ]
depends = ["file.iban"]
create  = [ { kind = "claim", id = ["{input.name}"], set = { said = "input.said" }, \
basis = ["file.iban"] } ]

[actions.rely]
actor   = { role = "payments.clerk" }
inputs  = { name = "text" }
load    = [ ["claim", "claim/{input.name}"] ]
fresh   = ["claim"]
depends = ["claim.said"]
require = [ { code = "ABROAD", that = "claim.said == 'domestic'", say = "it is no domestic one" } ]
"""


def test_claim_about_a_sealed_value_carries_acts_until_the_value_is_another() -> None:
    """Its basis is the sealed leaf: who relies on it, or judges that again, has no value."""
    charter, *others = test_sealing.TEXTS_OF_FILES
    town = Town(make_genesis((charter, others[0] + CLAIMS, *others[1:])))
    assert filed(town).code == Code.APPLIED
    read = [("file", ["a"], 1), ("claim", ["a"], 0)]
    claimed = town.do("officer", "files.claim", "a", "domestic", expects=read)
    assert claimed.code == Code.APPLIED, claimed.detail
    relied = town.do("clerk", "files.rely", "a", expects=[("claim", ["a"], 1)])
    assert relied.code == Code.APPLIED, relied.detail
    iban = opening(town, "FR76 3000", input_=1)
    call = ("files.note", "a", iban.commitment)
    acks = [ack(town, iban, "treasury")]
    noted = town.one(town.draft("clerk", call, expects=[("file", ["a"], 1)], acks=acks))
    assert noted.code == Code.APPLIED, noted.detail
    moved = town.do("clerk", "files.rely", "a", expects=[("claim", ["a"], 1)])
    assert moved.code == Code.BASIS_MOVED
    town.run()
    for each in (claimed, relied, moved):
        data = town.file(each)
        assert verify(data, town.ledger.chain).judged
        assert VALUE.encode() not in data


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
