"""Statements as texts: read by a reader written from the page alone, refused when tampered with."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import nacl.exceptions
import nacl.signing
import pytest
from blake3 import blake3

from consensus import genesis
from consensus.errors import ComityError, DecodeError
from consensus.evidence import tlog
from consensus.evidence.tlog import TlogProof
from consensus.hotstuff.types import Statement
from tests.consensus.audit.ledger import Notes, honest, statement_of

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests/vectors/tlog.json").read_text(encoding="utf-8"))
COMMITTEE = genesis.decode(honest().genesis).committee
KEYS = [validator.key for validator in COMMITTEE.validators]
CHAIN = honest().chain


def proof(height: int, size: int = 6, chain: Notes | None = None) -> TlogProof:
    source = chain or honest()
    head = statement_of(source.recorded[size])
    path = tuple(source.history.path(height, size))
    return TlogProof(statement_of(source.recorded[height]), path, source.certify(head))


def text(height: int, size: int = 6) -> bytes:
    return tlog.encode(proof(height, size), COMMITTEE).encode()


# --- a reader that knows the page and nothing of the product ------------------------------------


class Refused(Exception):
    pass


def blake(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def check(condition: bool) -> None:
    if not condition:
        raise Refused


def unbase(word: str) -> bytes:
    try:
        data = base64.b64decode(word, validate=True)
    except ValueError as error:
        raise Refused from error
    check(base64.b64encode(data).decode() == word)
    return data


def number(word: str) -> int:
    check(word.isascii() and word.isdecimal() and (word == "0" or word[0] != "0"))
    return int(word)


def statement_in(word: str) -> tuple[bytes, list[Any]]:
    data = unbase(word)
    try:
        value = cbor2.loads(data)
    except (cbor2.CBORError, ValueError) as error:
        raise Refused from error
    check(isinstance(value, list) and len(value) == 12)
    check(cbor2.dumps(value, canonical=True) == data)
    return data, value


def independent(data: bytes, chain: bytes, keys: list[bytes], quorum: int) -> list[Any]:
    """The statement that a text proves, by the page."""
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise Refused from error
    check(whole.endswith("\n") and whole.count("\n\n") == 2)
    proved, note, signed = whole[:-1].split("\n\n")
    header, extra, index, *siblings = proved.split("\n")
    check(header == "comity/tlog-proof@v1" and extra.startswith("extra "))
    check(index.startswith("index "))
    entry, stated = statement_in(extra[6:])
    place = number(index[6:])
    check(place == stated[3] and stated[0] == chain)
    lines = note.split("\n")
    check(len(lines) == 5)
    origin, size_word, root_word, tree, head_line = lines
    check(origin == f"comity/{chain.hex()}" and tree == "tree comity-history-v1")
    check(head_line.startswith("statement "))
    head, claimed = statement_in(head_line[10:])
    size, root = number(size_word), unbase(root_word)
    check(claimed[0] == chain and claimed[3] == size and claimed[10] == root)
    rows = signed.split("\n")
    check(len(rows) == quorum)
    before = -1
    for row in rows:
        dash, name, word = row.split(" ")
        check(dash == "—" and name.startswith(f"{origin}/{claimed[1]}/"))
        signer = number(name.rpartition("/")[2])
        check(before < signer < len(keys))
        before = signer
        signature = unbase(word)
        check(len(signature) == 68)
        bound = name.encode() + b"\n\xffcomity commit vote v1" + keys[signer]
        check(hashlib.sha256(bound).digest()[:4] == signature[:4])
        message = b"comity commit vote\0" + chain + head
        try:
            nacl.signing.VerifyKey(keys[signer]).verify(message, signature[4:])
        except nacl.exceptions.BadSignatureError as error:
            raise Refused from error
    check(place < size)
    found = blake("history leaf", blake("statement", entry))
    at, last = place, size - 1
    for word in siblings:
        sibling = unbase(word)
        check(len(sibling) == 32 and last > 0)
        if at % 2 or at == last:
            found = blake("history node", sibling + found)
            while at % 2 == 0 and at:
                at, last = at // 2, last // 2
        else:
            found = blake("history node", found + sibling)
        at, last = at // 2, last // 2
    check(last == 0 and blake("history root", size.to_bytes(8, "big") + found) == root)
    return stated


def both(data: bytes) -> tuple[bool, bool]:
    """Whether the independent reader and the product accept a text."""
    try:
        independent(data, CHAIN, KEYS, COMMITTEE.quorum)
        first = True
    except (Refused, ValueError):
        first = False
    try:
        tlog.verify(data, CHAIN, COMMITTEE)
        second = True
    except ComityError:
        second = False
    return first, second


# --- what holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(1, 7))
def test_every_height_below_a_certificate_is_read_by_both(size: int) -> None:
    for height in range(size):
        data = text(height, size)
        stated = independent(data, CHAIN, KEYS, COMMITTEE.quorum)
        assert stated[3] == height
        found = tlog.verify(data, CHAIN, COMMITTEE)
        assert found == proof(height, size)
        assert Statement(*stated) == found.statement


def test_it_is_as_short_as_it_can_be() -> None:
    assert len(text(0, 6)) < 2200
    assert max(map(len, text(3).decode().split("\n"))) < 420


# --- what does not ------------------------------------------------------------------------------


def test_no_changed_character_passes() -> None:
    data = text(2)
    draw = random.Random(7)
    for at in draw.sample(range(len(data)), 400):
        changed = bytearray(data)
        changed[at] ^= 1 << draw.randrange(7)
        if bytes(changed) != data:
            assert both(bytes(changed)) == (False, False), at


def test_nothing_may_be_cut_added_or_moved() -> None:
    data = text(2)
    lines = data.split(b"\n")
    for end in range(0, len(data), 37):
        assert both(data[:end]) == (False, False)
    for at in range(len(lines)):
        assert both(b"\n".join(lines[:at] + lines[at + 1 :])) == (False, False)
        assert both(b"\n".join([*lines[:at], b"", *lines[at:]])) == (False, False)
        assert both(b"\n".join([*lines[:at], lines[at - 1], *lines[at:]])) == (False, False)
    for other in (data + b"\n", b"\n" + data, data.replace(b"\n", b"\r\n"), data[:-1], b""):
        assert both(other) == (False, False)


def test_parts_of_two_texts_do_not_join() -> None:
    """Each part of a text put into another that is as good: heights, paths, roots, signatures."""
    texts = [text(h, s) for s in (4, 5, 6) for h in range(s)]
    tried = 0
    for one in texts:
        for two in texts:
            first, second = one.decode().split("\n"), two.decode().split("\n")
            for line in range(min(len(first), len(second))):
                mixed = [*first[:line], second[line], *first[line + 1 :]]
                whole = "\n".join(mixed).encode()
                if whole in texts:
                    continue
                tried += 1
                assert both(whole) == (False, False), (first, line)
    assert tried > 500


@pytest.mark.parametrize("signers", [(0, 1), (0, 1, 2, 3), (1, 0, 2), (0, 0, 1)])
def test_a_quorum_signs_each_once_in_order(signers: tuple[int, ...]) -> None:
    head = statement_of(honest().recorded[6])
    forged = replace(proof(2), certificate=honest().certify(head, signers))
    assert both(tlog.encode(forged, COMMITTEE).encode()) == (False, False)


def test_another_network_or_committee_is_refused() -> None:
    data = text(2)
    with pytest.raises(ComityError):
        tlog.verify(data, bytes(32), COMMITTEE)
    strangers = replace(
        COMMITTEE,
        validators=tuple(
            replace(each, key=nacl.signing.SigningKey(bytes([i + 90]) * 32).verify_key.encode())
            for i, each in enumerate(COMMITTEE.validators)
        ),
    )
    with pytest.raises(ComityError):
        tlog.verify(data, CHAIN, strangers)


def test_a_root_that_the_committee_did_not_sign_is_refused() -> None:
    other = Notes()
    for amount in range(1, 7):
        other.block([other.pay(amount)])
    false = replace(proof(2, chain=other), certificate=proof(2).certificate)
    assert both(tlog.encode(false, COMMITTEE).encode()) == (False, False)


def test_errors_say_in_which_line() -> None:
    lines = text(2).decode().split("\n")
    lines[2] = "index 02"
    with pytest.raises(DecodeError, match="line 3"):
        tlog.verify("\n".join(lines).encode(), CHAIN, COMMITTEE)
    with pytest.raises(DecodeError, match="not UTF-8"):
        tlog.verify(b"comity/tlog-proof@v1\n\xff", CHAIN, COMMITTEE)
    with pytest.raises(DecodeError, match="at most"):
        tlog.verify(b"x" * (tlog.TEXT_BYTES_MAX + 1), CHAIN, COMMITTEE)


# --- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_vector_is_read_by_the_independent_reader(row: dict[str, Any]) -> None:
    chain, keys = bytes.fromhex(VECTORS["chain"]), [bytes.fromhex(k) for k in VECTORS["keys"]]
    stated = independent(row["text"].encode(), chain, keys, VECTORS["quorum"])
    assert stated[3] == row["height"]
    assert blake("statement", cbor2.dumps(stated, canonical=True)).hex() == row["hash"]
    assert (
        tlog.verify(row["text"].encode(), chain, committee_of(keys)).statement.height
        == (row["height"])
    )


@pytest.mark.parametrize("row", VECTORS["invalid"], ids=lambda row: row["name"])
def test_an_invalid_vector_is_refused_by_both(row: dict[str, Any]) -> None:
    chain, keys = bytes.fromhex(VECTORS["chain"]), [bytes.fromhex(k) for k in VECTORS["keys"]]
    with pytest.raises((Refused, ValueError)):
        independent(row["text"].encode(), chain, keys, VECTORS["quorum"])
    with pytest.raises(ComityError, match=row["reason"]):
        tlog.verify(row["text"].encode(), chain, committee_of(keys))


def committee_of(keys: list[bytes]) -> Any:
    validators = [
        replace(each, key=key) for each, key in zip(COMMITTEE.validators, keys, strict=True)
    ]
    return replace(COMMITTEE, validators=tuple(validators))
