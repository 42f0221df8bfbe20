"""Private parts: a bad copy is told from a bad author."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from consensus.errors import ComityError, CopyError, DecodeError
from consensus.ledger import private, transaction
from consensus.ledger.transaction import Draft, Transaction
from tests.consensus.ledger.authors import ANNA, CHAIN, envelope, seed_of, signed

ID = b"A" * 32
CALL = ["payments", "transfer", ID, False]


def test_changed_private_part_is_a_bad_copy() -> None:
    found = signed(reason="why")
    ops, seed = list(found.openings), found.seed
    flipped = ops[0][:-1] + bytes([ops[0][-1] ^ 1])
    for openings, other_seed in (
        ([flipped, *ops[1:]], seed),
        (ops[:2], seed),
        ([*ops, cbor2.dumps([])], seed),
        ([*ops, ops[0], ops[0]], seed),
        ([ops[1], ops[0], ops[2]], seed),
        (ops[:1], seed),
        ([], seed),
        (ops, b"s" * 32),
        (ops, seed[:31]),
        (ops, b""),
        ([b"x" * 262_145, *ops[1:]], seed),
        ([b"", *ops[1:]], seed),
    ):
        with pytest.raises(CopyError):
            transaction.with_private(CHAIN, found, openings, other_seed)


def committed(openings: list[bytes], calls: int = 1) -> tuple[Transaction, list[bytes], bytes]:
    """A transaction whose author committed to whatever these openings are."""
    seed = seed_of(ANNA, 1)
    root = private.private_root(private.slot(CHAIN, ANNA.key, 1), calls, openings, seed)
    body = cbor2.dumps([1, ANNA.key, 1, 0, 0, [], [CALL] * calls, root])
    return transaction.decode_body(CHAIN, body), openings, seed


IN0, CONTEXT = cbor2.dumps([[], b"P" * 32]), cbor2.dumps([[], []])
RECORD = [["record", ["E-17"]], 1]


def acks(*places: tuple[int, int, str]) -> bytes:
    """Return acknowledgements of these calls, inputs and agencies."""
    return cbor2.dumps([[*place, b"K" * 32, b"S" * 64] for place in places])


BAD_OPENINGS: dict[str, list[bytes]] = {
    "not CBOR": [b"\xff", CONTEXT],
    "empty": [b"", CONTEXT],
    "inputs null": [cbor2.dumps(None), CONTEXT],
    "inputs without params": [cbor2.dumps([[]]), CONTEXT],
    "inputs with more": [cbor2.dumps([[], b"P" * 32, 1]), CONTEXT],
    "values not an array": [cbor2.dumps([1, b"P" * 32]), CONTEXT],
    "values 65": [cbor2.dumps([[0] * 65, b"P" * 32]), CONTEXT],
    "params short": [cbor2.dumps([[], b"P" * 31]), CONTEXT],
    "params null": [cbor2.dumps([[], None]), CONTEXT],
    "value a float": [cbor2.dumps([[1.5], b"P" * 32]), CONTEXT],
    "value a map": [cbor2.dumps([[{}], b"P" * 32]), CONTEXT],
    "value beyond int64": [cbor2.dumps([[2**63], b"P" * 32]), CONTEXT],
    "value text not NFC": [cbor2.dumps([["e\u0301"], b"P" * 32]), CONTEXT],
    "value in a long head": [b"\x82\x81\x18\x01\x58\x20" + b"P" * 32, CONTEXT],
    "value undefined": [b"\x82\x81\xf7\x58\x20" + b"P" * 32, CONTEXT],
    "value too deep": [b"\x82" + b"\x81" * 40 + b"\x01\x58\x20" + b"P" * 32, CONTEXT],
    "trailing byte": [IN0 + b"\x00", CONTEXT],
    "trailing byte moved over": [IN0[:-1], CONTEXT],
    "context null": [IN0, cbor2.dumps(None)],
    "context short": [IN0, cbor2.dumps([[]])],
    "context long head": [IN0, b"\x82\x98\x00\x80"],
    "expects null": [IN0, cbor2.dumps([None, []])],
    "expects not an entry": [IN0, cbor2.dumps([[1], []])],
    "expects without version": [IN0, cbor2.dumps([[[["record", ["E-17"]]]], []])],
    "expects version negative": [IN0, cbor2.dumps([[[["record", ["E-17"]], -1]], []])],
    "expects version true": [IN0, cbor2.dumps([[[["record", ["E-17"]], True]], []])],
    "expects version beyond int64": [IN0, cbor2.dumps([[[["record", [1]], 2**63]], []])],
    "expects kind empty": [IN0, cbor2.dumps([[[["", ["E-17"]], 1]], []])],
    "expects kind long": [IN0, cbor2.dumps([[[["k" * 65, ["E-17"]], 1]], []])],
    "expects kind bytes": [IN0, cbor2.dumps([[[[b"record", ["E-17"]], 1]], []])],
    "expects id empty": [IN0, cbor2.dumps([[[["record", []], 1]], []])],
    "expects id text": [IN0, cbor2.dumps([[[["record", "E-17"], 1]], []])],
    "expects id null": [IN0, cbor2.dumps([[[["record", [None]], 1]], []])],
    "expects id of nine": [IN0, cbor2.dumps([[[["record", [0] * 9], 1]], []])],
    "expects id five deep": [IN0, cbor2.dumps([[[["record", [[[[[1]]]]]], 1]], []])],
    "expects a record twice": [IN0, cbor2.dumps([[RECORD, RECORD], []])],
    "expects a record in two versions": [IN0, cbor2.dumps([[RECORD, [RECORD[0], 2]], []])],
    "expects 513": [IN0, cbor2.dumps([[[["record", [n]], 1] for n in range(513)], []])],
    "under null": [IN0, cbor2.dumps([[], None])],
    "under short": [IN0, cbor2.dumps([[], [b"G" * 31]])],
    "under 17": [IN0, cbor2.dumps([[], [b"G" * 32] * 17])],
    "reason empty at the end": [IN0, CONTEXT, cbor2.dumps("")],
    "reason bytes": [IN0, CONTEXT, cbor2.dumps(b"why")],
    "reason long": [IN0, CONTEXT, cbor2.dumps("x" * 4097)],
    "reason in a long head": [IN0, CONTEXT, b"\x78\x01x"],
    "acks empty": [IN0, CONTEXT, cbor2.dumps("why"), cbor2.dumps([])],
    "acks short key": [IN0, CONTEXT, cbor2.dumps("w"), cbor2.dumps([[0, 0, "a", b"", b"S" * 64]])],
    "acks 65": [IN0, CONTEXT, cbor2.dumps("w"), acks(*[(0, 0, f"{n:02}") for n in range(65)])],
    "acks of three parts": [
        IN0,
        CONTEXT,
        cbor2.dumps("w"),
        cbor2.dumps([["a", b"K" * 32, b"S" * 64]]),
    ],
    "acks twice": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, 0, "a"), (0, 0, "a"))],
    "acks descending": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, 0, "b"), (0, 0, "a"))],
    "acks of another call": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, 0, "a"), (1, 0, "a"))],
    "acks of no input": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, 64, "a"))],
    "acks of nobody": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, 0, ""))],
    "acks before": [IN0, CONTEXT, cbor2.dumps("w"), acks((0, -1, "a"))],
}


@pytest.mark.parametrize("name", BAD_OPENINGS)
def test_author_who_commits_to_bad_openings_is_to_blame(name: str) -> None:
    found, openings, seed = committed(BAD_OPENINGS[name])
    with pytest.raises(DecodeError):
        transaction.with_private(CHAIN, found, openings, seed)


@pytest.mark.parametrize(
    "openings",
    [
        [IN0, CONTEXT],
        [IN0, CONTEXT, cbor2.dumps("x" * 4096)],
        [IN0, CONTEXT, cbor2.dumps(""), acks(*[(0, n, "a") for n in range(64)])],
        [IN0, CONTEXT, cbor2.dumps(""), acks((0, 0, "a"), (0, 0, "b"), (0, 1, "a"))],
        [IN0, cbor2.dumps([[[["record", [True]], 1], [["record", [1]], 1]], [b"G" * 32] * 16])],
        [cbor2.dumps([[[[[1]]], -(2**63), 2**63 - 1, None, ""], b"P" * 32]), CONTEXT],
    ],
)
def test_author_may_commit_to(openings: list[bytes]) -> None:
    found, _, seed = committed(openings)
    assert transaction.with_private(CHAIN, found, openings, seed).openings == tuple(openings)


def test_sum_of_openings_is_bounded() -> None:
    room = private.PRIVATE_BYTES_MAX - 1000
    assert signed(calls=[Draft("d", "a", ID, [b"x" * room], b"P" * 32)]).size_bytes > room
    with pytest.raises(DecodeError):
        signed(calls=[Draft("d", "a", ID, [b"x" * room], b"P" * 32)] * 2)


@pytest.mark.parametrize(
    "private_part",
    [
        None,
        [],
        [[b"a", b"b"]],
        [b"", b"s" * 32],
        [[b"a", None], b"s" * 32],
        [[b"a"] * 68, b"s" * 32],
    ],
)
def test_private_part_of_another_shape_is_refused(private_part: Any) -> None:
    body, slots, _ = cbor2.loads(envelope())
    with pytest.raises(ComityError):
        transaction.decode_envelope(CHAIN, cbor2.dumps([body, slots, private_part]))
