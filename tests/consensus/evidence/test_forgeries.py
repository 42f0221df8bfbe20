"""Forged bundles: made of valid parts, of parts changed at every place, and of guesses."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import DecodeError
from consensus.evidence import bundle as files
from consensus.evidence.bundle import Bundle, Sealed
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from consensus.evidence.witness import RecordLeaves, SingleLeaf
from tests.consensus.evidence.test_bundle import OUTCOMES, busy, check, sealed
from tests.consensus.evidence.town import Town

FREE = ("purpose", "audience", "expires_ms")
"""Whoever gives a file out says these; its signature covers them."""
PARTS = tuple(each.name for each in fields(Bundle) if each.name not in FREE)
STAGES = frozenset(
    {
        "file", "network", "certificate", "history", "decision", "transaction", "rules", "witness",
        "judgement", "writes", "since",
    }
)  # fmt: skip


def bundles() -> dict[str, Bundle]:
    town, decided = busy()
    return {name: town.bundle(each) for name, each in decided.items()}


def refused(town: Town, data: bytes) -> str:
    """Return the stage at which a file fails."""
    with pytest.raises((DecodeError, FailedError)) as caught:
        check(town, data)
    if isinstance(caught.value, FailedError):
        assert caught.value.stage in STAGES
        assert caught.value.message
        return caught.value.stage
    assert isinstance(caught.value, DecodeError)
    assert caught.value.path
    return "malformed"


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_another_bundle_is_taken_in_place_of_the_own(part: str) -> None:
    town, _ = busy()
    made = bundles()
    spliced = [
        replace(one, **{part: getattr(other, part)})
        for one in made.values()
        for other in made.values()
    ]
    for each in spliced:
        if each not in made.values():
            refused(town, sealed(each))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(sorted(OUTCOMES)),
    st.sampled_from(sorted(OUTCOMES)),
    st.sets(st.sampled_from(PARTS), min_size=1, max_size=6),
)
def test_parts_of_two_bundles_do_not_make_a_third(one: str, other: str, parts: set[str]) -> None:
    town, _ = busy()
    made = bundles()
    spliced = replace(made[one], **{name: getattr(made[other], name) for name in parts})
    if spliced in made.values():
        assert check(town, sealed(spliced)).judged == (spliced != made["short"])
    else:
        refused(town, sealed(spliced))


def walk(value: Any, path: tuple[int, ...] = ()) -> Any:
    """Yield every place of a tree of arrays with what is there."""
    yield path, value
    if isinstance(value, list):
        for index, each in enumerate(value):
            yield from walk(each, (*path, index))


def changed(value: Any, path: tuple[int, ...], new: Any) -> Any:
    if not path:
        return new
    return [
        changed(each, path[1:], new) if index == path[0] else each
        for index, each in enumerate(value)
    ]


def others(value: Any) -> list[Any]:
    """Return values that could stand where ``value`` does."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, 0 if value else 7]
        case bytes():
            flipped = bytes([value[0] ^ 1]) + value[1:] if value else b"x"
            return [flipped, value[:-1], value + b"\0", b""]
        case str():
            return [value + "x", ""]
        case None:
            return [0, b"", [b"k" * 32, b"s" * 64]]
        case list():
            out: list[Any] = [[]]
            if value:
                out += [value[:-1], [*value, value[-1]], [value[-1], *value[:-1]]]
            return out
    return []


@pytest.mark.parametrize("name", ["payment", "stale"])
def test_no_item_of_a_bundle_can_be_other(name: str) -> None:
    """Each item, in turn, is changed, emptied, cut, lengthened, doubled and put elsewhere."""
    town, decided = busy()
    content = town.bundle(decided[name]).content()
    value = codec.parse(content)
    stages: dict[str, int] = {}
    for path, item in walk(value):
        if path and path[0] >= len(value) - len(FREE):
            continue
        for new in others(item):
            forged = changed(value, path, new)
            if forged == value:
                continue
            stage = refused(town, Sealed(codec.encode(forged)).encode())
            stages[stage] = stages.get(stage, 0) + 1
    assert sum(stages.values()) > 300
    assert {"network", "history", "decision", "transaction", "rules", "witness"} <= set(stages)


def test_a_leaf_that_the_decision_did_not_read_cannot_be_slipped_in() -> None:
    town, decided = busy()
    payment, address = (town.bundle(decided[name]) for name in ("payment", "address"))
    paths = town.ledger.paths
    read = [paths(each.space, each.components) for each in payment.witness]
    foreign = [each for each in address.witness if paths(each.space, each.components) not in read]
    assert foreign
    both = sorted(
        [*payment.witness, foreign[0]], key=lambda leaf: paths(leaf.space, leaf.components)
    )
    assert refused(town, sealed(replace(payment, witness=tuple(both)))) == "witness"


def test_a_leaf_that_the_decision_read_cannot_be_left_out_or_hidden() -> None:
    town, decided = busy()
    payment = town.bundle(decided["payment"])
    for index, leaf in enumerate(payment.witness):
        rest = (*payment.witness[:index], *payment.witness[index + 1 :])
        assert refused(town, sealed(replace(payment, witness=rest))) == "witness"
        if not isinstance(leaf, RecordLeaves):
            continue
        kind = str(leaf.components[0])
        town_rules = town.ledger.rules(town.state, town.now_ms).book
        kh = town.ledger.paths("record", leaf.components)
        stored = leaf.stored(kh, town_rules.kinds[kind])
        hashes = [stored.hashes[at : at + 32] for at in range(0, len(stored.hashes), 32)]
        for at, item in enumerate(leaf.leaves):
            if isinstance(item, bytes):
                continue
            hidden = replace(leaf, leaves=(*leaf.leaves[:at], hashes[at], *leaf.leaves[at + 1 :]))
            witness = (*payment.witness[:index], hidden, *payment.witness[index + 1 :])
            stage = refused(town, sealed(replace(payment, witness=witness)))
            assert stage == "judgement", (kind, at)


def test_another_name_for_a_leaf_or_another_place_is_another_hash() -> None:
    town, decided = busy()
    payment = town.bundle(decided["payment"])
    single = next(each for each in payment.witness if isinstance(each, SingleLeaf))
    for moved in (
        replace(single, space="agency"),
        replace(single, components=[*single.components, "x"]),
        replace(single, version=single.version + 1),
    ):
        if moved == single:
            continue
        witness = tuple(moved if each == single else each for each in payment.witness)
        assert refused(town, sealed(replace(payment, witness=witness))) in ("witness", "malformed")


def test_huge_counts_are_refused_before_they_take_memory() -> None:
    for head in (b"\x82\x5b" + b"\xff" * 8, b"\x82\x9b\x7f" + b"\xff" * 7, b"\x9f" * 50):
        with pytest.raises(DecodeError):
            verify(head, bytes(32))
    deep = codec.encode([files.MAGIC, 1]) + b""
    nested = b"\x82" + codec.encode(deep[:-1] + b"\x81" * 500) + b"\xf6"
    with pytest.raises(DecodeError):
        verify(nested, bytes(32))
