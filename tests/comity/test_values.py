"""Words of the command line as values of each type, and words that are none."""

from __future__ import annotations

import pytest

from comity.cli.options import UsageError
from comity.cli.values import parse_value
from consensus.codec import Value
from consensus.ledger.model import Type

MEANT: list[tuple[str, str, Value]] = [
    ("text", "Ada", "Ada"),
    ("bool", "yes", True),
    ("int", "-12", -12),
    ("money", "1_250", 1250),
    ("month", "2026-01", 24312),
    ("date", "1970-01-02", 1),
    ("time", "1970-01-01T00:00:01Z", 1000),
    ("digest", "0x" + "ab" * 32, bytes([0xAB]) * 32),
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


@pytest.mark.parametrize(("base", "word"), NONSENSE)
def test_word_that_stands_for_nothing_is_refused_with_its_name(base: str, word: str) -> None:
    with pytest.raises(UsageError, match=r"^period = "):
        parse_value(word, Type(base), "period")
