"""An evidence bundle proves a decision to somebody who knows nothing but the genesis hash."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from consensus import codec, genesis, signing
from consensus.errors import DecodeError
from consensus.evidence import bundle as files
from consensus.evidence.bundle import Bundle, Sealed
from consensus.evidence.making import CannotOpenError
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import Verified, verify
from consensus.ledger import group
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.transaction import Unsigned
from consensus.state import salted
from consensus.state.record import decode_row
from tests.consensus.evidence.town import Town, sign
from tests.consensus.ledger.world import ent, make_genesis, person, public_key, register, token

START = "2026-01-02"


def populated() -> Town:
    """Return a network with Ann and Bob; Ann is entitled and has an account."""
    town = Town()
    for name in ("ann", "bob"):
        register(town, name)
    town.do(
        "social",
        "benefits.grant",
        person("ann"),
        400,
        expects=[("person", person("ann"), 1), (*ent("ann"), 0)],
    )
    town.do("officer", "payments.open_payee", person("ann"))
    return town


@lru_cache(maxsize=1)
def busy() -> tuple[Town, dict[str, Decision]]:
    """Return a network after a block of acts of many kinds, and their decisions."""
    town = populated()
    acts = {
        "payment": town.disburse("ann"),
        "transfer": town.draft("clerk", ("payments.transfer", "a", "b", 7)),
        "two calls": town.draft(
            "clerk", ("payments.transfer", "a", "b", 7), ("payments.transfer", "b", "a", 3)
        ),
        "short": town.draft("clerk", ("payments.transfer", "a", "b", 7000)),
        "freeze": town.draft("auditor", ("payments.freeze", person("bob"), None)),
        "nobody's": town.draft("social", ("payments.transfer", "a", "b", 7)),
        "no entitlement": town.disburse("bob"),
        "again": town.disburse("ann"),
        "address": town.draft(
            "registrar",
            ("identity.rename", person("ann"), "Anna"),
            expects=[("person", person("ann"), 1)],
        ),
        "stale": town.draft(
            "deputy",
            ("identity.rename", person("ann"), "Anne"),
            expects=[("person", person("ann"), 1)],
        ),
    }
    result = town.run(*acts.values())
    by_txid = {each.header.txid: each for each in result.decisions}
    town.run()
    return town, {name: by_txid[each.txid] for name, each in acts.items()}


def shown(data: bytes) -> Bundle:
    return files.decode(files.unseal(data).content)


def sealed(bundle: Bundle) -> bytes:
    return Sealed(bundle.content()).encode()


def check(town: Town, data: bytes, **more: Any) -> Verified:
    return verify(data, town.ledger.chain, **more)


OUTCOMES = {
    "payment": Code.APPLIED,
    "transfer": Code.APPLIED,
    "two calls": Code.APPLIED,
    "short": Code.INSUFFICIENT,
    "freeze": Code.APPLIED,
    "nobody's": Code.NOT_AUTHORIZED,
    "no entitlement": Code.NOT_FOUND,
    "again": Code.NOT_UNIQUE,
    "address": Code.APPLIED,
    "stale": Code.STALE,
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_decision_is_proved_and_judged_again_whatever_it_was(name: str) -> None:
    town, decided = busy()
    found = check(town, town.file(decided[name]))
    assert found.decision.code == OUTCOMES[name]
    assert found.decision.root == decided[name].root
    assert found.judged == (name != "short")  # the balance is attested, and not shown
    assert found.taken_back is None
    assert found.newest.height == town.height
    assert found.statement.height == decided[name].header.height


def test_the_bytes_of_a_bundle_are_read_as_they_were_written() -> None:
    town, decided = busy()
    for each in decided.values():
        bundle = town.bundle(each)
        assert files.decode(bundle.content()) == bundle


def test_what_the_rules_did_not_look_at_is_nowhere_in_the_file() -> None:
    town, decided = busy()
    data = town.file(decided["payment"])
    assert b"Ann" not in data  # the name in the person's record
    assert town.payloads[decided["payment"].header.height][0].seed not in data
    for each in town.payloads[decided["payment"].header.height]:
        assert each.seed not in data


def test_no_guess_of_a_hidden_field_can_be_tested() -> None:
    """Whoever has the file and every possible value finds no hash in it that a value makes.

    Whatever 16 bytes of the file are taken for the salt: of leaves that are shown, of what was
    written, of the private part.
    """
    town, decided = busy()
    data = town.file(decided["payment"])
    bundle = shown(data)
    record = next(each for each in bundle.witness if each.to_value()[1][0] == "person")
    hidden = [leaf for leaf in record.to_value()[4] if isinstance(leaf, bytes)]
    assert len(hidden) == 4
    kh = town.ledger.paths("record", record.to_value()[1])
    row = town.past[decided["payment"].header.height - 1].get(kh)
    assert row is not None
    stored = decode_row(row.value)
    there = {each.name: each for each in stored.leaves if each.leaf_hash in hidden}
    assert {name for name, each in there.items() if each.value_cbor == codec.encode("Ann")}
    guesses = {codec.encode(value) for value in ("Bob", "south", None, 1)}
    guesses |= {each.value_cbor for each in there.values()}  # the right ones among them
    for name, leaf in there.items():
        right = salted.leaf_hash(kh, name, leaf.version, leaf.salt, leaf.value_cbor)
        assert right in hidden  # with its salt, the guess would be seen to be right
    hashes = {data[at : at + 32] for at in range(len(data) - 31)}
    salts = {data[at : at + 16] for at in range(len(data) - 15)} | {bytes(16)}
    assert len(salts) > 5_000
    for salt in salts:
        for guess in guesses:
            value = salted.value_hash(salt, guess)
            assert value not in hashes
            for name, leaf in there.items():
                assert salted.leaf_hash_of(kh, name, leaf.version, value) not in hidden


def _after_renaming(name: str) -> tuple[list[Any], int]:
    """The bundle of a payment to Ann, whose name nobody looks at; as arrays, and its length."""
    town = populated()
    rename = ("identity.rename", person("ann"), name)
    act = town.draft("registrar", rename, expects=[("person", person("ann"), 1)])
    assert town.one(act).code == Code.APPLIED
    decision = town.one(town.disburse("ann"))
    assert decision.code == Code.APPLIED
    town.run()
    data = town.file(decision)
    return codec.parse(files.unseal(data).content), len(data)


def _form(value: Any) -> Any:
    """Lengths and counts; of bytes nothing else, since they are hashes."""
    if isinstance(value, list):
        return [_form(each) for each in value]
    return len(value) if isinstance(value, bytes) else value


def test_bundles_that_differ_in_a_hidden_value_alone_are_of_one_form() -> None:
    one, other = _after_renaming("A"), _after_renaming("Annabella Maria of the long name" * 4)
    assert one[1] == other[1]
    assert _form(one[0]) == _form(other[0])
    assert one[0] != other[0]


def test_another_network_does_not_believe_it() -> None:
    town, decided = busy()
    other = genesis.chain_id(make_genesis(network="other").encode())
    with pytest.raises(FailedError, match="of the network") as caught:
        verify(town.file(decided["payment"]), other)
    assert caught.value.stage == "network"


def test_a_bundle_is_signed_by_whoever_gives_it_out() -> None:
    town, decided = busy()
    data = town.file(decided["payment"], "auditor", purpose="audit 7", audience="court")
    found = check(town, data)
    assert found.holder == public_key("auditor")
    assert (found.bundle.purpose, found.bundle.audience) == ("audit 7", "court")
    content, _ = codec.parse(data)
    message = signing.message(signing.TAG_BUNDLE, town.ledger.chain, content)
    forged = codec.encode([content, [public_key("auditor"), sign("clerk", message)]])
    with pytest.raises(FailedError, match="does not verify") as caught:
        check(town, forged)
    assert caught.value.stage == "holder"
    with pytest.raises(FailedError, match="of the network") as caught:
        verify(data, bytes(32))  # not blamed on the signature, which is over the network too
    assert caught.value.stage == "network"


def test_an_act_of_a_signed_group_is_shown_alone() -> None:
    town = populated()
    acts = [town.draft("clerk", ("payments.transfer", "a", "b", each + 1)) for each in range(7)]
    unsigned = [Unsigned(each, b"") for each in acts]
    root = group.group_root(unsigned)
    message = group.group_message(town.ledger.chain, len(acts), root)
    whole = group.build(unsigned, [(public_key("clerk"), sign("clerk", message))])
    town.payloads.append([])
    town.payloads.pop()
    result = town.run(*whole.transactions)
    town.run()
    for part in [whole, *group.split(whole, 4)]:
        for index, each in enumerate(part.transactions):
            data = town.file(result.decisions[part.first + index], group=part)
            assert check(town, data).transaction.txid == each.txid
            assert len(shown(data).group.path) <= group.PATH_MAX  # type: ignore[union-attr]
    forged = replace(shown(data), group=None)
    with pytest.raises(FailedError) as caught:
        check(town, sealed(forged))
    assert caught.value.stage == "transaction"


def test_the_reason_is_shown_only_if_asked_for() -> None:
    town = populated()
    act = town.draft("clerk", ("payments.transfer", "a", "b", 7), reason="the case of Mr Grey")
    decision = town.one(act)
    hidden, opened = town.file(decision), town.file(decision, opened=("reason",))
    assert b"Mr Grey" not in hidden
    assert b"Mr Grey" in opened
    assert check(town, hidden).judged
    assert check(town, opened).transaction.reason == "the case of Mr Grey"


def test_a_field_that_nobody_looked_at_is_shown_if_asked_for() -> None:
    town, decided = busy()
    hidden = town.file(decided["payment"])
    opened = town.file(decided["payment"], opened=("person.name",))
    assert b"Ann" not in hidden
    assert b"Ann" in opened
    assert check(town, opened).judged


@pytest.mark.parametrize("unknown", ["nothing.here", "person.nothing", "child.token", "person."])
def test_what_no_record_that_was_read_has_is_not_passed_over(unknown: str) -> None:
    town, decided = busy()
    with pytest.raises(CannotOpenError, match=f"no record .* has {unknown}$") as caught:
        town.file(decided["payment"], opened=("person.name", unknown))
    assert "person.name" in caught.value.hint


def test_a_statement_that_the_reader_knows_must_be_among_what_it_shows() -> None:
    town, decided = busy()
    known = (2, town.statements[2].hash)
    assert check(town, town.file(decided["payment"], heights=(2,)), known=known).judged
    with pytest.raises(FailedError, match="does not show the statement of height 2"):
        check(town, town.file(decided["payment"]), known=known)
    with pytest.raises(FailedError, match="another statement of height 2"):
        check(town, town.file(decided["payment"], heights=(2,)), known=(2, bytes(32)))
    with pytest.raises(FailedError, match="older than height 999"):
        check(town, town.file(decided["payment"]), known=(999, bytes(32)))


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x80", b"\xff" * 40, codec.encode([b"\x80", None]), b"\x82\x5a\xff"]
)
def test_what_is_no_bundle_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(DecodeError):
        verify(data, bytes(32))


def test_a_newer_version_is_named() -> None:
    town, decided = busy()
    value = codec.parse(town.bundle(decided["transfer"]).content())
    value[1] = 2
    with pytest.raises(DecodeError, match="version 2; this software reads version 1"):
        check(town, Sealed(codec.encode(value)).encode())


def test_flipped_bytes_are_refused() -> None:
    """A byte anywhere in the content is signed, hashed or certified."""
    town, decided = busy()
    data = town.file(decided["transfer"])
    start = len(data) - 1
    for at in range(0, start, 61):
        forged = bytearray(data)
        forged[at] ^= 1 << at % 8
        with pytest.raises((DecodeError, FailedError)):
            check(town, bytes(forged))


def test_what_is_cut_or_lengthened_is_refused() -> None:
    town, decided = busy()
    data = town.file(decided["transfer"])
    for at in range(0, len(data), 501):
        with pytest.raises(DecodeError):
            check(town, data[:at])
    with pytest.raises(DecodeError):
        check(town, data + b"\x00")


@pytest.mark.parametrize("purse", ["a", "b"])
def test_a_hold_on_an_account_that_nobody_looked_into_is_judged_again(purse: str) -> None:
    town = populated()
    assert town.do("officer", "payments.freeze_purse", purse).code == Code.APPLIED
    decision = town.do("clerk", "payments.transfer", "a", "b", 7)
    assert decision.code == Code.HELD
    data = town.file(decision)
    assert check(town, data).judged
    assert ["purse", purse] in shown(data).attested
    assert ("holds", ["account", ["purse", purse]]) in [
        (each.space, each.components) for each in shown(data).witness
    ]


def test_people_stand_for_tokens() -> None:
    assert token("ann") != token("bob")
