"""Decisions with closed leaves: the root stays, and what is closed is neither named nor shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pycddl
import pytest

from comity import decisions
from consensus import codec
from consensus.errors import ComityError
from consensus.ledger import decision as ledger
from consensus.ledger.showing import Shown, close
from consensus.state.salted import Opening

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/decision.json").read_text())


def encoded() -> list[tuple[bytes, bytes]]:
    """Decisions of the vectors, encoded, with the roots that independent code gave them."""
    found: list[tuple[bytes, bytes]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("encoded"), str) and isinstance(value.get("root"), str):
                found.append((bytes.fromhex(value["encoded"]), bytes.fromhex(value["root"])))
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)

    walk(VECTORS)
    return found


CASES = encoded()


def test_there_are_vectors() -> None:
    assert CASES


@pytest.mark.parametrize("case", range(len(CASES)))
def test_root_is_that_of_the_whole_whatever_is_closed(case: int) -> None:
    data, root = CASES[case]
    names = ledger.decode(data).names
    for number in range(2 ** min(len(names), 5)):
        hidden = [name for at, name in enumerate(names) if number >> at & 1]
        shown = close(data, lambda name, _, hidden=hidden: name not in hidden)  # type: ignore[misc]
        found = decisions.read(shown)
        assert found.root == root
        assert found.closed == len(hidden)
        assert set(found.leaves) == set(names) - set(hidden)


def test_what_is_closed_is_not_in_the_bytes() -> None:
    data, _ = CASES[0]
    whole = ledger.decode(data)
    shown = close(data, lambda name, _: name == "code")
    for name, value in whole.leaves.items():
        if name != "code":
            assert name.encode() not in shown
            assert value not in shown or len(value) < 4


def test_nothing_closed_gives_the_same_bytes() -> None:
    data, _ = CASES[0]
    assert close(data, lambda name, value: True) is data


def test_shown_decision_is_of_the_grammar_and_encodes_to_itself() -> None:
    grammar = (ROOT / "docs/protocol/ledger.cddl").read_text()
    schema = pycddl.Schema("start = shown-decision\n" + grammar)
    for data, _ in CASES:
        shown = close(data, lambda name, _: name == "code")
        schema.validate_cbor(shown)
        record = decisions.read(shown).record
        assert record.encode() == shown


def test_open_leaf_of_a_shown_decision_can_be_passed_on() -> None:
    data, root = CASES[0]
    record = decisions.read(close(data, lambda name, _: name in ("code", "reads"))).record
    assert isinstance(record, Shown)
    shown, hashes = record.openings(["reads"])
    assert [type(each) for each in shown.values()] == [Opening]
    count = len(record.leaves) + record.closed
    assert ledger.opened_root(record.header_cbor, count, dict(shown), hashes) == root


def test_closed_outcome_says_no_more_than_the_header() -> None:
    for data, _ in CASES:
        whole = decisions.read(data)
        found = decisions.read(close(data, lambda name, _: name != "code"))
        assert found.code == {"applied": "APPLIED", "refused": "REFUSED"}[whole.state]
        assert (found.call, found.detail) == (None, None)


@pytest.mark.parametrize(
    "rows",
    [
        [b"short"],
        [b"x" * 33],
        ["code"],
        [["code", b"s" * 16, b"\xf6"], b"x" * 32, ["code", b"s" * 16, b"\xf6"]],
        [b"x" * 32] * 257,
        [b"x" * 32, ["~", b"s" * 16, b"\xf6"]],
        [["~", b"s" * 16, b"\xf6"], b"x" * 32],
        [],
        [None],
    ],
    ids=range(9),
)
def test_misshapen_rows_are_refused(rows: list[Any]) -> None:
    header = codec.parse(CASES[0][0])[0]
    with pytest.raises(ComityError):
        decisions.read(codec.encode([header, rows]))


def test_changed_hash_of_a_closed_leaf_changes_the_root() -> None:
    data, root = CASES[0]
    header, rows = codec.parse(close(data, lambda name, _: name == "code"))
    at = next(index for index, row in enumerate(rows) if type(row) is bytes)
    rows[at] = bytes([rows[at][0] ^ 1]) + rows[at][1:]
    assert decisions.read(codec.encode([header, rows])).root != root
