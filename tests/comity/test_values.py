"""Words of the command line as values of each type, and words that are none."""

from __future__ import annotations

import re

import pytest

from comity.cli.options import UsageError
from comity.cli.show import typed_word
from comity.cli.values import input_value, parse_id, parse_place, parse_value
from comity.words import place_word
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.types import Type

MEANT: list[tuple[str, str, Value]] = [
    ("text", "Ada", "Ada"),
    ("bool", "yes", True),
    ("int", "-12", -12),
    ("money", "1_250", 1250),
    ("month", "2026-01", 24312),
    ("date", "1970-01-02", 1),
    ("time", "1970-01-01T00:00:01Z", 1000),
    ("digest", "0x" + "ab" * 32, bytes([0xAB]) * 32),
    ("ref", "0xab/7", [b"\xab", 7]),
    ("ref", "[0xab]/[24322]", [[b"\xab"], [24322]]),
    ("ref", '["0xab", [24322]]', [b"\xab", [24322]]),
]
SHOWN: list[tuple[Type, Value, str]] = [
    (Type("month"), 24312, "2026-01"),
    (Type("month"), 11, "0000-12"),
    (Type("date"), 1, "1970-01-02"),
    (Type("date"), -719_163, "-719163 days since 1970"),  # the day before 0001-01-01
    (Type("time"), 1000, "1970-01-01 00:00:01Z"),
    (Type("money", "USD"), 1250, "1250 USD (minor units)"),
    (Type("list", "month"), [24312, 24313], "[2026-01, 2026-02]"),
    (Type("month"), None, "-"),
    (Type("bool"), True, "yes"),
    (Type("int"), 24312, "24312"),
]
NONSENSE = [
    ("bool", "perhaps"),
    ("int", "twelve"),
    ("money", "12.50"),
    ("month", "July"),
    ("month", "2026"),
    ("month", "2026-13"),
    ("month", "2026-00"),
    ("date", "2026-02-30"),
    ("time", "noon"),
    ("time", "2026-07-03T09:00:00"),
    ("ref", "[1,"),
    ("list", "a, b"),
    ("digest", "0xno"),
]


@pytest.mark.parametrize(("base", "word", "value"), MEANT)
def test_word_stands_for_its_value(base: str, word: str, value: Value) -> None:
    assert parse_value(word, Type(base), "input") == value


@pytest.mark.parametrize(("kind", "value", "word"), SHOWN)
def test_value_is_shown_by_its_type(kind: Type, value: Value, word: str) -> None:
    assert typed_word(value, kind) == word


@pytest.mark.parametrize(("base", "word"), NONSENSE)
def test_word_that_stands_for_nothing_is_refused_with_its_name(base: str, word: str) -> None:
    with pytest.raises(UsageError, match=r"^period = "):
        parse_value(word, Type(base), "period")


@pytest.mark.parametrize(
    ("base", "word"), [("month", "2026"), ("date", "x"), ("time", "2026-01-31")]
)
def test_a_value_in_a_file_that_stands_for_nothing_is_refused(base: str, word: str) -> None:
    with pytest.raises(UsageError, match=r"^a value = "):
        input_value(word, Type(base))


def test_place_of_a_reservation_begins_with_its_domain() -> None:
    assert parse_place("reservation/grants/1/main") == ("reservation", ["grants", 1, "main"])


def test_every_object_of_the_kernel_can_be_named_as_a_place() -> None:
    told = re.findall(r"^    ([a-z]+) +\[", layout.__doc__ or "", re.MULTILINE)
    spaces = {each for each in told if each not in ("record", "pool")}
    assert {"corrections", "review", "holds"} <= spaces
    for space in spaces:
        assert parse_place(f"{space}/0xab") == (space, [b"\xab"]), space


def test_a_kind_that_is_called_like_an_object_of_the_kernel_is_written_in_full() -> None:
    assert parse_place("record/corrections/1") == ("record", ["corrections", 1])
    assert place_word("record", ["corrections", 1]) == "record/corrections/1"
    assert place_word("record", ["note", 1]) == "note/1"


@pytest.mark.parametrize("word", ["[" * 5000 + "a" + "]" * 5000, "[" * 17 + "1" + "]" * 17])
def test_brackets_within_each_other_have_a_bound(word: str) -> None:
    with pytest.raises(UsageError, match="too deeply"):
        parse_id(word)
    for kind in (Type("ref", "note"), Type("list", "int")):
        with pytest.raises(UsageError):
            parse_value(word, kind, "it")
