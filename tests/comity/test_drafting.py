"""What a draft says of the entries that its author read."""

from __future__ import annotations

import pytest

from comity.drafting import expects_of
from comity.errors import DraftError
from comity.results import Entry
from consensus.codec import Value
from consensus.protocol import StateKey


def entry(version: int, *components: Value) -> Entry:
    return Entry(StateKey("record", components), 1, 1, version=version)


def test_ids_of_several_components_are_expected_each_once() -> None:
    payment = entry(0, "payment", [b"child"], 24_312)
    again = entry(0, "payment", [b"child"], 24_312)
    found = expects_of([payment, entry(2, "entitlement", b"child"), again])
    assert [(each.kind, each.id, each.version) for each in found] == [
        ("payment", [[b"child"], 24_312], 0),
        ("entitlement", [b"child"], 2),
    ]


def test_one_entry_read_at_two_versions_is_refused() -> None:
    with pytest.raises(DraftError, match="read at two versions"):
        expects_of([entry(1, "payment", [b"child"], 1), entry(2, "payment", [b"child"], 1)])
