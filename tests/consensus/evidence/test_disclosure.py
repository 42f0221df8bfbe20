"""Disclosure files: what they prove, that no forgery passes, and that they hide what they hide."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import ComityError, DecodeError, ProofError, VerificationError
from consensus.evidence.disclosure import Shown, verify
from consensus.evidence.disclosure_file import FILE_BYTES_MAX, decode, is_file, make_item
from consensus.hotstuff import wire
from consensus.ledger.disclosures import SPACE, Disclosure
from consensus.ledger.layout import Paths
from consensus.state import salted
from consensus.state.record import decode_row, decode_single
from tests.consensus.evidence import forgeries, independent, vectors
from tests.consensus.evidence.forgeries import FORGERIES, ITEMS, Forgery
from tests.consensus.evidence.opened import OWNER, Town
from tests.consensus.evidence.wide import wide_file


@cache
def files() -> dict[str, bytes]:
    return forgeries.files()


@cache
def chain() -> bytes:
    return Town().chain


def refused(data: bytes) -> ComityError | None:
    """Return the error that a file fails with; None if it verifies."""
    try:
        verify(data, chain())
    except (DecodeError, VerificationError) as error:
        return error
    return None


# --- what a file proves ------------------------------------------------------------------------


def test_present_fields_are_shown_with_their_versions() -> None:
    found = verify(files()["present"], chain())
    (item,) = found.items
    assert [tuple(vars_of(each)) for each in item.fields] == [
        ("amount", 1, 7),
        ("text", 1, "a long story"),
    ]
    assert (item.current, found.network) == (True, "twin")
    assert item.disclosure.audience == ["party", "District Court"]


def vars_of(field: object) -> list[object]:
    return [getattr(field, name) for name in ("name", "version", "value")]


def test_a_version_that_was_replaced_is_shown_as_that() -> None:
    found = verify(files()["moved on"], chain())
    assert not found.items[0].current
    assert found.items[0].fields == verify(files()["present"], chain()).items[0].fields
    assert found.items[0].height < found.height


def test_an_earlier_version_is_shown_as_it_was() -> None:
    (item,) = verify(files()["earlier"], chain()).items
    assert (item.disclosure.version, item.current) == (2, False)
    assert [vars_of(each) for each in item.fields] == [["text", 2, "another story"]]


def test_a_change_is_not_of_a_height_above_the_state_that_is_proved() -> None:
    town = Town()
    act = town.disclose(fields=("text",))
    old = town.body(act)
    town.amend("another story", 1)
    new = town.body(act)
    below = wire.decode_commit_cert(old.certificate).statement.height
    newest = wire.decode_commit_cert(new.certificate).statement.height
    [item], twin = new.items, town.twin
    assert item.change is not None
    late = replace(item, change=replace(item.change, height=newest))
    shown = [(twin.statements[below].encode(), twin.history.path(below, newest))]
    forged = replace(new, proof=old.proof, items=[late], statements=shown)
    with pytest.raises(ProofError, match="a change is shown that came after the state"):
        verify(forged.encode(*town.head), town.chain)


def test_a_record_without_a_field_that_a_disclosure_names_makes_no_file() -> None:
    town = Town()
    _, salt, value = decode_single(town.row(SPACE, town.disclose(fields=("text",)))[1])
    record = decode_row(town.row("record", "note", 1)[1])
    act = Disclosure(*codec.parse(value))
    assert make_item(act, salt, record, None) is not None
    assert make_item(act._replace(leaves=["text", "title"]), salt, record, None) is None


def test_several_are_shown_in_their_order() -> None:
    found = verify(files()["three"], chain())
    assert sorted((each.disclosure.kind, each.current) for each in found.items) == [
        ("note", False), ("note", True), ("secret", True),
    ]  # fmt: skip
    assert [each.disclosure.id for each in found.items] == sorted(
        each.disclosure.id for each in found.items
    )
    fields = [vars_of(each.fields[0]) for each in found.items]
    assert ["code", 1, 4711] in fields


def test_leaves_of_the_kernel_can_be_opened() -> None:
    (item,) = verify(files()["more"], chain()).items
    shown = {each.name: each.value for each in item.fields}
    assert shown["status"] == "open"
    assert shown["owner"] == OWNER
    assert shown["by"][0][0] == "created"


def test_sealed_values_are_shown_beside_their_commitments() -> None:
    (item,) = verify(files()["sealed"], chain()).items
    inside, seal = item.fields
    assert inside.revealed == {0: "1234"}
    assert inside.value[1] == 3
    assert seal.revealed == {-1: ["a", 7]}
    assert len(seal.value) == 32


def test_a_record_of_more_than_sixteen_leaves_is_opened_along_its_tree() -> None:
    """Records of that size have a tree of leaves and decoys instead of a list."""
    data, wide_chain = wide_file()
    (item,) = verify(data, wide_chain).items
    assert [vars_of(each) for each in item.fields] == [["f03", 1, 3], ["f17", 1, 17]]
    decoded = codec.parse(data)
    for at in range(0, len(decoded[ITEMS][0][forgeries.HASHES]), 32):
        changed = codec.parse(data)
        changed[ITEMS][0][forgeries.HASHES] = forgeries.flip(
            decoded[ITEMS][0][forgeries.HASHES], at
        )
        with pytest.raises(VerificationError):
            verify(codec.encode(changed), wide_chain)


def test_one_of_eight_declared_fields_takes_at_most_250_bytes_beyond_proof_and_act() -> None:
    """Twelve leaves: three siblings and two groups, whatever the others hold."""
    data = files()["one of eight"]
    (item,) = verify(data, chain()).items
    assert [vars_of(each) for each in item.fields] == [["c", 1, 13]]
    _, _, definition, count, flat, salts, hashes, _ = codec.parse(data)[ITEMS][0]
    assert (count, flat[0], len(hashes)) == (12, forgeries.IN_FORM, 5 * 32)
    beyond = sum(len(codec.encode(each)) for each in (definition, count, flat, salts, hashes))
    assert beyond - len(codec.encode(13)) <= 190


def test_another_network_is_refused() -> None:
    with pytest.raises(VerificationError, match="another network"):
        verify(files()["present"], bytes(32))


# --- forgeries ---------------------------------------------------------------------------------


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forged_file_is_refused_with_its_reason(forgery: Forgery) -> None:
    forged = codec.encode(forgery.edit(codec.parse(files()[forgery.base])))
    assert forged != files()[forgery.base]
    error = refused(forged)
    assert error is not None
    assert type(error).__name__ == forgery.error, error
    assert forgery.says in error.message


@pytest.mark.parametrize("name", ["present", "earlier"])
def test_no_byte_of_a_file_can_be_changed(name: str) -> None:
    data = files()[name]
    for at in range(len(data)):
        for bit in (at % 8,) if at % 8 else (0, 3, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            assert refused(bytes(changed)) is not None, at


def test_no_file_can_be_cut_or_extended() -> None:
    for data in files().values():
        for at in range(0, len(data), 7):
            assert isinstance(refused(data[:at]), DecodeError)
        assert isinstance(refused(data + b"\0"), DecodeError)
        assert isinstance(refused(data + data), DecodeError)


def test_parts_of_two_files_do_not_go_together() -> None:
    """Every part of every file in the place of that part of another one."""
    found = files()
    for (name, data), (other, source) in itertools.permutations(found.items(), 2):
        for at in range(3, 7):
            value, theirs = codec.parse(data), codec.parse(source)
            if value[at] == theirs[at]:
                continue
            value[at] = theirs[at]
            assert refused(codec.encode(value)) is not None, (name, other, at)
        for at in range(8):
            value, theirs = codec.parse(data), codec.parse(source)
            if value[ITEMS][0][at] == theirs[ITEMS][0][at]:
                continue
            value[ITEMS][0][at] = theirs[ITEMS][0][at]
            assert refused(codec.encode(value)) is not None, (name, other, "item", at)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_what_is_put_together_from_valid_parts_shows_nothing_else(data: st.DataObject) -> None:
    """Whatever verifies says what some valid file says; a sealed value may be left out."""
    known = files()
    names = sorted(known)
    value = codec.parse(known[data.draw(st.sampled_from(names))])
    for _ in range(data.draw(st.integers(1, 4))):
        other = codec.parse(known[data.draw(st.sampled_from(names))])
        at = data.draw(st.integers(2, 6))
        if at < ITEMS or data.draw(st.booleans()):
            value[at] = other[at]
            continue
        items = value[ITEMS]
        index, theirs = (data.draw(st.integers(0, len(each) - 1)) for each in (items, other[ITEMS]))
        inner = data.draw(st.integers(0, 8))
        if inner == 8:
            items.append(other[ITEMS][theirs])
        else:
            items[index][inner] = other[ITEMS][theirs][inner]
    forged = codec.encode(value)
    if refused(forged) is None:
        shown = {
            told(item, sealed)
            for each in known.values()
            for item in verify(each, chain()).items
            for sealed in (True, False)
        }
        assert {told(item) for item in verify(forged, chain()).items} <= shown


def told(item: Shown, sealed: bool = True) -> str:
    """Return what an item says, with sealed values or without."""
    fields = [(vars_of(each), dict(each.revealed) if sealed else {}) for each in item.fields]
    return repr((item.disclosure, fields))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 2**16))
def test_garbage_is_refused_and_nothing_else_happens(noise: bytes, at: int) -> None:
    data = files()["present"]
    at %= len(data)
    for forged in (noise, data[:at] + noise + data[at:], data[:at] + noise):
        if forged != data:
            assert refused(forged) is not None


HEADS = [
    b"\x9b" + (2**62).to_bytes(8, "big"),  # an array of 2^62 items
    b"\x9a" + (2**32 - 1).to_bytes(4, "big"),
    b"\x5b" + (2**62).to_bytes(8, "big"),  # a byte string
    b"\xbb" + (2**62).to_bytes(8, "big"),  # a map
    b"\x9f",  # an array without end
    b"\xc2\x5b" + (2**40).to_bytes(8, "big"),  # a big number
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head[:2].hex())
def test_counts_that_promise_more_than_there_is_cost_nothing(head: bytes) -> None:
    data = files()["present"]
    start = time.perf_counter()
    for at in range(0, len(data), 3):
        changed = data[:at] + head + data[at + 1 :]
        assert changed == data or isinstance(refused(changed), ComityError)
    assert time.perf_counter() - start < 20


def test_a_file_that_is_too_long_is_not_even_parsed() -> None:
    data = files()["present"]
    with pytest.raises(DecodeError, match="at most"):
        decode(data + bytes(FILE_BYTES_MAX))


def test_whether_it_is_such_a_file_is_seen_at_its_beginning() -> None:
    assert all(is_file(data) for data in files().values())
    assert not is_file(b"")
    assert not is_file(codec.encode(["comity bundle", 1]))


# --- hiding ------------------------------------------------------------------------------------


def _strings(value: object) -> list[bytes]:
    """Return every byte string in a value, and inside byte strings that are CBOR."""
    found: list[bytes] = []
    match value:
        case bytes():
            found.append(value)
            with suppress(DecodeError):
                found += _strings(codec.parse(value)) if len(value) > 40 else []
        case list():
            for each in value:
                found += _strings(each)
        case dict():
            for each in value.values():
                found += _strings(each)
    return found


def test_who_has_the_file_and_all_values_that_a_hidden_field_may_have_cannot_tell_which() -> None:
    """The secret's code is one of 1,000, its owner one of three: nothing in the file fits any.

    Tried as a salt is every part of the file of the right length, and all that is made of its
    hashes as the ledger makes salts of pools; for each, every value, under each version there was;
    and every part of the file that could be the hash of a leaf, or of a value, is looked at.
    """
    town = Town()
    strings = _strings(codec.parse(town.file(town.disclose("secret", ("status",)))))
    parts = {each[at : at + 32] for each in strings for at in range(len(each) - 31)}
    salts = {each[at : at + 16] for each in strings for at in range(0, len(each) - 15, 8)}
    kh = Paths(town.chain)("record", ["secret", 1])
    pools = {each[at : at + 32] for each in strings for at in range(0, len(each) - 31, 32)}
    for pool in pools:
        salts |= {*salted.salts(pool, kh, 7), salted.next_single_salt(salted.NO_SALT, pool, kh)}
    values = {"code": [*range(4000, 5000)], "owner": [OWNER, [bytes([8]) * 32], None]}
    assert 4711 in values["code"]
    for salt, (name, known) in itertools.product(salts, values.items()):
        for value in known if len(known) < 10 or salt in strings else known[700:720]:
            encoded = codec.encode(value)
            assert salted.value_hash(salt, encoded) not in parts
            assert salted.leaf_hash(kh, name, 1, salt, encoded) not in parts
    assert codec.encode(4711) not in strings
    assert OWNER[0] not in b"".join(strings)


def test_two_towns_that_differ_in_a_hidden_value_alone_have_files_of_one_length() -> None:
    """Neither header, lengths nor counts depend on what is hidden."""

    class Other(Town):
        def act(self, *call: object, expects: object = ()) -> bytes:
            changed = [9999 if each == 4711 else each for each in call]
            return super().act(*changed, expects=expects)

    lengths = []
    shapes = []
    for made in (Town(), Other()):
        data = made.file(made.disclose("secret", ("status",)))
        lengths.append(len(data))
        part = codec.parse(data)[ITEMS][0]
        shapes.append((part[2:5], len(part[5]), len(part[6])))
    assert lengths[0] == lengths[1]
    assert shapes[0] == shapes[1]


# --- vectors -----------------------------------------------------------------------------------

VECTORS = json.loads(vectors.PATH.read_text(encoding="utf-8"))
GRAMMAR = (Path(__file__).parents[3] / "docs/protocol/disclosure.cddl").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_valid_vector_fits_the_grammar_and_shows_what_is_recorded(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["file"])
    pycddl.Schema(f"start = disclosure-file\n{GRAMMAR}").validate_cbor(data)
    assert vectors.shown(verify(data, bytes.fromhex(VECTORS["chain"]))) == row["shows"]


def test_every_invalid_vector_is_refused_for_what_is_recorded() -> None:
    known = {row["name"]: bytes.fromhex(row["file"]) for row in VECTORS["valid"]}
    assert len(VECTORS["invalid"]) >= 150
    for row in VECTORS["invalid"]:
        base, at = known[row["base"]], row["at"]
        data = base[:at] + bytes.fromhex(row["insert"]) + base[at + row["remove"] :]
        with pytest.raises((DecodeError, VerificationError)) as error:
            verify(data, bytes.fromhex(VECTORS["chain"]))
        assert (type(error.value).__name__, error.value.message) == (row["error"], row["why"])


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_reader_written_from_the_page_on_the_format_alone_sees_the_same(
    row: dict[str, Any],
) -> None:
    seen = independent.read(bytes.fromhex(row["file"]), bytes.fromhex(VECTORS["chain"]))
    wanted = [
        {
            "act": each["disclosure"],
            "fields": {name: [version, value] for name, version, value in each["fields"]},
            "current": each["current"],
            "sealed": each["sealed"],
        }
        for each in row["shows"]["items"]
    ]
    assert vectors.plain(seen) == wanted


def test_that_reader_refuses_every_invalid_vector() -> None:
    known = {row["name"]: bytes.fromhex(row["file"]) for row in VECTORS["valid"]}
    for row in VECTORS["invalid"]:
        base, at = known[row["base"]], row["at"]
        data = base[:at] + bytes.fromhex(row["insert"]) + base[at + row["remove"] :]
        with pytest.raises(independent.Refused):
            independent.read(data, bytes.fromhex(VECTORS["chain"]))
