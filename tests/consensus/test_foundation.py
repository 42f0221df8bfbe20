"""Hash contexts, signatures, committees and the genesis file."""

from __future__ import annotations

import dataclasses
from typing import Any

import nacl.bindings
import pytest
from blake3 import blake3

from consensus import codec, genesis, signing
from consensus.committee import Committee, Validator, from_value
from consensus.errors import (
    DecodeError,
    LocalProtocolError,
    RulesError,
    SignatureError,
    invariant,
    present,
)
from consensus.hashing import H_GENESIS, context, derive_key, keyed, stream


def keypair(label: str) -> tuple[bytes, bytes]:
    return nacl.bindings.crypto_sign_seed_keypair(blake3(label.encode()).digest())


def validator(name: str) -> Validator:
    return Validator(
        name, keypair(name)[0], keypair(name + " node")[0], b"der", "127.0.0.1", 1, "127.0.0.1", 2
    )


def sample() -> genesis.Genesis:
    person = bytes(31) + b"\1"
    return genesis.Genesis(
        network="test",
        time_ms=1_750_000_000_000,
        executor=1,
        tree_depth=8,
        limits=genesis.Limits(),
        committee=Committee(1, tuple(validator(name) for name in "abcd")),
        agencies=tuple(genesis.Agency(name, name.upper()) for name in "abcd"),
        principals=(genesis.Principal(person, "a", genesis.CITIZEN, None, (b"token",)),),
        keys=((keypair("official")[0], person),),
        roles=(genesis.RoleGiven(person, "x.officer", (("region", "north"),), 5, 9),),
        rules=(b"\x80",),
        accounts=(genesis.OpeningBalance("programme", ("a", 1), 500),),
    )


def test_a_context_is_blake3_key_derivation_of_its_name() -> None:
    expected = blake3(b"data", derive_key_context="comity 2026-11-21 thing v1")
    assert context("thing")(b"data") == expected.digest()
    assert stream("thing")(b"data", 80) == expected.digest(80)
    assert derive_key("thing", b"data") == expected.digest()
    assert context("other")(b"data") != expected.digest()
    assert keyed(b"k" * 32)(b"data") == blake3(b"data", key=b"k" * 32).digest()


def test_no_signature_tag_is_a_prefix_of_another() -> None:
    tags = [value for name, value in vars(signing).items() if name.startswith("TAG_")]
    assert len(tags) == len(set(tags)) >= 10
    assert all(tag.endswith(b"\0") and tag.count(b"\0") == 1 for tag in tags)


def test_a_signature_of_one_kind_or_chain_is_none_of_another() -> None:
    key, secret = keypair("signer")
    signed = signing.message(signing.TAG_VOTE, b"c" * 32, b"body")
    signature = nacl.bindings.crypto_sign(signed, secret)[:64]
    signing.verify(key, signed, signature)
    for other in (
        signing.message(signing.TAG_TIMEOUT, b"c" * 32, b"body"),
        signing.message(signing.TAG_VOTE, b"d" * 32, b"body"),
        signing.message(signing.TAG_VOTE, b"c" * 32, b"bodx"),
    ):
        with pytest.raises(SignatureError):
            signing.verify(key, other, signature)
    with pytest.raises(SignatureError):
        signing.verify(key, signed, signature[:63])
    with pytest.raises(SignatureError):
        signing.verify(keypair("else")[0], signed, signature)


def test_malleated_signatures_and_weak_keys_are_refused() -> None:
    key, secret = keypair("signer")
    signature = nacl.bindings.crypto_sign(b"m", secret)[:64]
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(SignatureError):
        signing.verify(key, b"m", signature[:32] + s.to_bytes(32, "little"))
    for weak in (bytes(32), b"\1" + bytes(31), b"\xff" * 32, b"short"):
        with pytest.raises(SignatureError):
            signing.check_key(weak)
    with pytest.raises(SignatureError):  # small-order key, zero S: verifies under lax rules
        signing.verify(b"\1" + bytes(31), b"m", b"\1" + bytes(63))


@pytest.mark.parametrize(
    ("size", "faulty", "quorum"), [(4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (10, 3, 7)]
)
def test_quorums_of_n_share_an_honest_validator(size: int, faulty: int, quorum: int) -> None:
    committee = Committee(1, tuple(validator(str(number)) for number in range(size)))
    assert (committee.faulty_max, committee.quorum) == (faulty, quorum)
    assert 2 * committee.quorum - size > committee.faulty_max
    assert [committee.leader(r) for r in range(size + 1)] == [*range(size), 0]


def test_a_committee_round_trips_and_refuses_repeats() -> None:
    committee = sample().committee
    assert from_value(committee.to_value()) == committee
    assert committee.size == 4
    value = committee.to_value()
    value[1][1][1] = value[1][0][1]
    with pytest.raises(DecodeError, match="share one key"):
        from_value(value)
    value = committee.to_value()
    value[1][1][0] = "a"
    with pytest.raises(DecodeError, match="share one agency"):
        from_value(value)


def test_a_genesis_file_round_trips_and_names_the_chain() -> None:
    data = sample().encode()
    assert genesis.decode(data) == sample()
    head, contents = genesis.split(data)
    assert genesis.chain_id(data) == genesis.chain_of(head, contents) == H_GENESIS(head + contents)
    assert genesis.decode_head(head).committee == sample().committee


def test_every_entry_of_a_genesis_file_is_bound_by_the_chain() -> None:
    whole = codec.parse(sample().encode())
    chains = {genesis.chain_id(sample().encode())}
    for name in whole:
        chains.add(genesis.chain_id(changed(**{name: "other"})))
    assert len(chains) == 1 + len(whole)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff"])
def test_what_is_no_map_has_no_chain(data: bytes) -> None:
    with pytest.raises(DecodeError):
        genesis.chain_id(data)


def changed(**fields: Any) -> bytes:
    value = codec.parse(sample().encode())
    value.update(fields)
    return codec.encode(value)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"magic": "something else"}, "not a genesis file"),
        ({"version": 2}, "reads version 1"),
        ({"executor": 2}, "executor 1 only"),
        ({"tree_depth": 7}, "even"),
        ({"surprise": 1}, "unknown field"),
        ({"agencies": [["a", "A"]]}, "unknown agency"),
        ({"agencies": [["a", "A"]] * 2}, "unknown agency|twice"),
        ({"keys": [[keypair("official")[0], bytes(32)]]}, "unknown principal"),
        ({"principals": [[bytes(32), "zz", 0, None, None]], "keys": [], "roles": []}, "agency"),
        ({"roles": [[bytes(32), "x.y", [], 0, None]]}, "unknown principal"),
        ({"roles": [[bytes(31) + b"\1", "x.y", [["b", ""], ["a", ""]], 0, None]]}, "sorted"),
        ({"keys": [[bytes(32), bytes(31) + b"\1"]]}, "valid Ed25519"),
        ({"limits": {}}, "missing"),
    ],
)
def test_a_genesis_file_is_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        genesis.decode(changed(**fields))


def test_a_genesis_file_with_a_weak_validator_key_is_refused() -> None:
    for column in (1, 2):
        committee = sample().committee.to_value()
        committee[1][2][column] = bytes(31) + b"\1"
        with pytest.raises(DecodeError, match="valid Ed25519"):
            genesis.decode(changed(committee=committee))


def test_a_network_has_at_most_64_rule_sets() -> None:
    assert genesis.decode(changed(rules=[b"r"] * 64)).rules == (b"r",) * 64
    with pytest.raises(DecodeError, match="65 items"):
        genesis.decode(changed(rules=[b"r"] * 65))


def test_a_genesis_of_a_later_epoch_or_with_repeats_is_refused() -> None:
    later = dataclasses.replace(sample(), committee=Committee(2, sample().committee.validators))
    with pytest.raises(DecodeError, match="first epoch"):
        genesis.decode(later.encode())
    twice = dataclasses.replace(sample(), keys=sample().keys * 2)
    with pytest.raises(DecodeError, match="twice"):
        genesis.decode(twice.encode())


def test_errors_carry_code_place_and_advice() -> None:
    error = RulesError("no such kind", where="rules.toml", line=7)
    assert str(error) == "rules.toml:7: no such kind"
    assert error.code == "BAD_RULES"
    assert error.hint
    with pytest.raises(LocalProtocolError, match="two is two"):
        invariant(1 == 2, "two is two")
    with pytest.raises(LocalProtocolError, match="a leaf is gone"):
        present(None, "a leaf is gone")
    assert present(0, "nought is something") == 0
    invariant(True, "nothing happens")
