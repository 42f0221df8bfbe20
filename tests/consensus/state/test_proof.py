"""Proofs: what they show, their size, and every way we know to forge one."""

from __future__ import annotations

import random
from dataclasses import replace

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import DecodeError, LocalProtocolError, ProofError
from consensus.state import proof
from consensus.state.proof import Proof
from consensus.state.state import MemoryBackend, Row, State

from . import model

CROWD = b"\x5c\x31\x88"


def key(number: int, prefix: bytes = b"") -> bytes:
    return (prefix + model.digest("test key", number.to_bytes(4, "big")))[:32]


def built(keys: list[bytes], depth: int = 4, height: int = 9) -> State:
    rows = [(kh, Row(model.digest("test value", kh), i % 10, b"")) for i, kh in enumerate(keys)]
    return State(MemoryBackend(rows), depth, height)


KEYS = [key(i) for i in range(40)] + [key(i, CROWD) for i in range(40)]
STATE = built(KEYS)
ABSENT = [key(1000 + i) for i in range(10)] + [key(1000 + i, CROWD) for i in range(10)]


def refused(forged: Proof | bytes, keys: list[bytes], root: bytes = STATE.root) -> None:
    data = forged if isinstance(forged, bytes) else forged.encode()
    with pytest.raises((ProofError, DecodeError)):
        proof.verify(data, root, keys, height=9)


@pytest.mark.parametrize("kh", KEYS[::3])
def test_present_key_is_shown_with_its_value_hash_and_height(kh: bytes) -> None:
    data = STATE.prove([kh]).encode()
    expected = (model.digest("test value", kh), KEYS.index(kh) % 10)
    assert proof.verify(data, STATE.root, [kh], height=9) == {kh: expected}


@pytest.mark.parametrize("kh", [*ABSENT, bytes(32), b"\xff" * 32])
def test_absent_key_is_shown_absent(kh: bytes) -> None:
    assert proof.verify(STATE.prove([kh]).encode(), STATE.root, [kh], height=9) == {kh: None}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.sets(st.sampled_from(KEYS + ABSENT), min_size=1, max_size=20), st.sampled_from([4, 8]))
def test_many_keys_are_shown_by_one_proof(chosen: set[bytes], depth: int) -> None:
    state = built(KEYS, depth)
    keys = sorted(chosen, reverse=True)
    shown = proof.verify(state.prove(keys).encode(), state.root, keys)
    assert list(shown) == keys
    for kh in keys:
        present = (model.digest("test value", kh), KEYS.index(kh) % 10) if kh in KEYS else None
        assert shown[kh] == present


def test_empty_state_proves_absence() -> None:
    state = State(MemoryBackend(), 4)
    made = state.prove([key(1)])
    assert (made.pages, made.hashes) == ((b"",), b"")
    assert proof.verify(made.encode(), state.root, [key(1)]) == {key(1): None}


def test_proof_of_one_key_among_many_is_small() -> None:
    state = built([key(i) for i in range(3000)], depth=12)
    size = max(len(state.prove([key(i)]).encode()) for i in range(50))
    assert size <= 18 * 32 + 6 * 72


def test_proof_travels_in_the_documented_form() -> None:
    made = STATE.prove([KEYS[0]])
    version, height, depth, count, pages, bitmap, hashes = cbor2.loads(made.encode())
    assert (version, height, depth, count) == (1, 9, 4, 80)
    assert (pages, bitmap, hashes) == (list(made.pages), made.bitmap, made.hashes)
    assert proof.decode(made.encode()) == made


def test_proof_for_other_keys_or_another_root_or_height_is_refused() -> None:
    made = STATE.prove([KEYS[0]])
    refused(made, [KEYS[1]])
    refused(made, [KEYS[0], KEYS[1]])
    refused(made, [KEYS[0]], built(KEYS[1:]).root)
    refused(STATE.prove([KEYS[0], KEYS[1]]), [KEYS[0]])
    refused(replace(made, height=8), [KEYS[0]])
    for keys in ([], [b"short"], [bytes(33)]):
        with pytest.raises(ProofError):
            proof.verify(made.encode(), STATE.root, keys)


@pytest.mark.parametrize("kh", [KEYS[0], KEYS[45], ABSENT[0], ABSENT[15]])
def test_every_changed_byte_of_a_proof_is_refused(kh: bytes) -> None:
    """Every byte is hashed or checked: none is the prover's to choose."""
    data = STATE.prove([kh]).encode()
    for at in range(len(data)):
        for flip in (0x01, 0x80):
            refused(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :], [kh])
    for end in range(len(data)):
        refused(data[:end], [kh])
    refused(data + b"\0", [kh])


def test_key_count_is_bound() -> None:
    """Bind counts."""
    made = STATE.prove([KEYS[0]])
    for count in (0, 79, 81, 2**62):
        refused(replace(made, key_count=count), [KEYS[0]])


def test_depth_is_bound() -> None:
    made = STATE.prove([KEYS[0]])
    for depth in (6, 8, 24):
        refused(replace(made, depth=depth), [KEYS[0]])
    for depth in (0, 2, 5, 26):
        with pytest.raises(DecodeError):
            proof.verify(replace(made, depth=depth).encode(), STATE.root, [KEYS[0]])


def test_an_entry_cannot_be_hidden_to_prove_absence() -> None:
    """Absence uses the code of presence: the page is whole or the root differs."""
    for kh in (KEYS[0], KEYS[50]):
        made = STATE.prove([kh])
        page = made.pages[-1]
        assert isinstance(page, bytes)
        at = page.index(kh)
        refused(replace(made, pages=(*made.pages[:-1], page[:at] + page[at + 72 :])), [kh])
        refused(replace(made, pages=(*made.pages[:-1], b"")), [kh])
        refused(replace(made, pages=made.pages[:-1]), [kh])


def test_a_page_of_another_key_is_refused() -> None:
    """No prover-chosen prefix: position comes from the key (ICS-23 "Dragonberry")."""
    there = STATE.prove([KEYS[0]])
    here = next(kh for kh in KEYS[:40] if kh[0] >> 4 != KEYS[0][0] >> 4)
    refused(there, [here])
    made = STATE.prove([here])
    refused(replace(made, pages=there.pages), [here])
    with pytest.raises(ProofError, match="outside its page"):
        proof.verify(there.encode(), STATE.root, [here])


def test_unordered_or_repeated_entries_are_refused() -> None:
    made = STATE.prove([KEYS[0]])
    page = made.pages[0]
    assert isinstance(page, bytes)
    assert len(page) >= 144
    for forged in (page[72:144] + page[:72] + page[144:], page[:72] + page, page[:72] * 2):
        with pytest.raises(ProofError, match="ascend"):
            proof.verify(replace(made, pages=(forged,)).encode(), STATE.root, [KEYS[0]])


def test_a_page_cut_inside_an_entry_is_refused() -> None:
    made = STATE.prove([KEYS[0]])
    page = made.pages[0]
    assert isinstance(page, bytes)
    for forged in (page[:-1], page + b"\0", page[:40], page[:71]):
        with pytest.raises(ProofError, match="a page of"):
            proof.verify(replace(made, pages=(forged,)).encode(), STATE.root, [KEYS[0]])


def test_entry_changed_after_the_height_of_the_proof_is_refused() -> None:
    state = built(KEYS, height=9)
    made = state.prove([KEYS[9]])
    with pytest.raises(ProofError, match="above height"):
        proof.verify(replace(made, height=8).encode(), state.root, [KEYS[9]])


def test_a_page_that_should_have_split_is_refused() -> None:
    """A prover may not show 17 entries as a page, nor a branch over 16 or fewer."""
    made = STATE.prove([KEYS[45]])
    assert made.pages[0] == sum(kh[0] >> 4 == 5 for kh in KEYS)
    entries = b"".join(
        kh + model.digest("test value", kh) + (KEYS.index(kh) % 10).to_bytes(8, "big")
        for kh in sorted(KEYS)
        if kh[0] >> 4 == 5
    )
    forged = cbor2.dumps([1, 9, 4, 80, [entries], made.bitmap[:1], made.hashes[:192]])
    with pytest.raises(DecodeError):
        proof.verify(forged, STATE.root, [KEYS[45]])
    for count in (16, 1, 0, -1):
        with pytest.raises(DecodeError):
            proof.verify(
                replace(made, pages=(count, *made.pages[1:])).encode(), STATE.root, [KEYS[45]]
            )


def test_counts_of_branches_are_bound() -> None:
    made = STATE.prove([KEYS[45]])
    for at, item in enumerate(made.pages):
        if isinstance(item, int):
            refused(
                replace(made, pages=(*made.pages[:at], item + 1, *made.pages[at + 1 :])), [KEYS[45]]
            )


def test_a_branch_cannot_be_passed_off_as_an_upper_node_or_a_page() -> None:
    """Separate contexts for every kind of node: the walk cannot be made longer or shorter."""
    made = STATE.prove([KEYS[45]])
    refused(replace(made, pages=made.pages[1:]), [KEYS[45]])
    refused(replace(made, pages=(made.pages[0], *made.pages)), [KEYS[45]])
    one = STATE.prove([KEYS[0]])
    refused(replace(one, pages=(17, *one.pages)), [KEYS[0]])


def test_branches_below_the_last_bit_of_a_key_are_refused() -> None:
    made = STATE.prove([KEYS[0]])
    endless = replace(made, pages=tuple([17] * 200))
    with pytest.raises(ProofError, match="last bit"):
        proof.verify(endless.encode(), STATE.root, [KEYS[0]])
    short = replace(made, pages=tuple([17] * 126))
    with pytest.raises(ProofError, match="missing"):
        proof.verify(short.encode(), STATE.root, [KEYS[0]])
    full = replace(made, pages=(*[17] * 126, b""), bitmap=bytes(48), hashes=b"")
    refused(full, [KEYS[0]])


def test_zero_marked_present_is_refused() -> None:
    state = built([KEYS[0]])
    made = state.prove([KEYS[0]])
    assert made.bitmap == b"\x00"
    for bit in range(6):
        forged = replace(made, bitmap=bytes([0x80 >> bit]), hashes=bytes(32))
        with pytest.raises(ProofError, match="marked present"):
            proof.verify(forged.encode(), state.root, [KEYS[0]])


def test_leftover_or_missing_bits_and_bytes_are_refused() -> None:
    made = STATE.prove([KEYS[0]])
    for forged in (
        replace(made, bitmap=made.bitmap + b"\0"),
        replace(made, bitmap=made.bitmap[:-1]),
        replace(made, bitmap=made.bitmap[:-1] + bytes([made.bitmap[-1] | 1])),
        replace(made, hashes=made.hashes + bytes(32)),
        replace(made, hashes=made.hashes + b"\1"),
        replace(made, hashes=made.hashes[:-32]),
        replace(made, hashes=made.hashes[:-1]),
        replace(made, pages=(*made.pages, b"")),
        replace(made, pages=(*made.pages, 17)),
        replace(made, pages=made.pages * 2),
    ):
        refused(forged, [KEYS[0]])


def test_swapped_siblings_are_refused() -> None:
    made = STATE.prove([KEYS[0]])
    parts = [made.hashes[at : at + 32] for at in range(0, len(made.hashes), 32)]
    for at in range(len(parts) - 1):
        swapped = [*parts[:at], parts[at + 1], parts[at], *parts[at + 2 :]]
        refused(replace(made, hashes=b"".join(swapped)), [KEYS[0]])


def test_every_part_of_a_split_pages_path_is_covered() -> None:
    made = STATE.prove([KEYS[45]])
    for at in range(len(made.hashes) // 32):
        forged = bytearray(made.hashes)
        forged[at * 32] ^= 1
        refused(replace(made, hashes=bytes(forged)), [KEYS[45]])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_garbage_is_refused_with_the_documented_error(data: bytes) -> None:
    with pytest.raises((ProofError, DecodeError)):
        proof.verify(data, STATE.root, [KEYS[0]])


def test_near_valid_garbage_is_refused_with_the_documented_error() -> None:
    rng = random.Random(11)
    pools: list[list[object]] = [
        [1, 0, 2, None, "1"],
        [9, -1, 2**63 - 1, b""],
        [4, 24, 25, 5, True],
        [80, 0, -1, []],
        [[], [b""], [17], [17, b""], [b"", 17], [None], [b"x" * 72], [b"x" * 1152], [17] * 500, 3],
        [b"", b"\xff", bytes(100), 0],
        [b"", bytes(32), b"\1" * 32 * 6, []],
    ]
    for _ in range(500):
        data = cbor2.dumps([rng.choice(pool) for pool in pools])
        with pytest.raises((ProofError, DecodeError)):
            proof.verify(data, STATE.root, rng.sample(KEYS, rng.randint(1, 3)))


def test_non_canonical_encoding_of_a_good_proof_is_refused() -> None:
    data = STATE.prove([KEYS[0]]).encode()
    assert data[:3] == b"\x87\x01\x09"
    for forged in (
        b"\x98\x07" + data[1:],
        b"\x87\x18\x01" + data[2:],
        b"\x9f" + data[1:] + b"\xff",
    ):
        with pytest.raises(DecodeError):
            proof.verify(forged, STATE.root, [KEYS[0]])


def test_number_of_keys_is_bounded_on_both_sides() -> None:
    for keys in ([], [key(i) for i in range(1025)]):
        with pytest.raises(LocalProtocolError):
            STATE.prove(keys)
        with pytest.raises(ProofError):
            proof.verify(STATE.prove([KEYS[0]]).encode(), STATE.root, keys)


def test_many_keys_at_once_cover_a_whole_state() -> None:
    keys = KEYS + ABSENT
    made = STATE.prove(keys)
    shown = proof.verify(made.encode(), STATE.root, keys)
    assert sum(found is not None for found in shown.values()) == 80
