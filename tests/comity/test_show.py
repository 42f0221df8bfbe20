"""What people are shown of keys and agencies: by chain time, in words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from comity.cli.show import entry_table, input_word
from comity.drafting import KERNEL_TOUCHES
from comity.results import Entry
from consensus.codec import Value
from consensus.ledger.kernel.catalogue import KERNEL_ACTIONS
from consensus.ledger.types import Type
from consensus.protocol import StateKey

KEY, OTHER, WHO = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32
END_MS = 1_800_000_000_000


def shown(namespace: str, name: Value, value: Value, time_ms: int) -> dict[str, str]:
    key = StateKey(namespace, (name,))
    entry = Entry(key, 9, time_ms, version=2, changed=5, value=value, present=True)
    console = Console(file=io.StringIO(), width=300)
    console.print(entry_table(entry, None))
    assert isinstance(console.file, io.StringIO)
    rows = console.file.getvalue().splitlines()[1:]
    return {name: said.strip() for name, _, said in (row.strip().partition(" ") for row in rows)}


@pytest.mark.parametrize(
    ("status", "time_ms", "word"),
    [
        (0, END_MS - 1, "active"),
        (0, END_MS, "rotated"),
        (1, END_MS - 1, "revoked"),
        (2, END_MS, "compromised"),
    ],
)
def test_status_of_a_replaced_key_goes_by_chain_time(status: int, time_ms: int, word: str) -> None:
    rows = shown("key", KEY, [KEY, WHO, status, 5, END_MS, OTHER], time_ms)
    assert rows["status"] == word
    assert rows["until"] == "2027-01-15 08:00:00Z"
    assert rows["next"].startswith("0x0202")


def test_key_that_was_not_replaced_is_active_without_end() -> None:
    rows = shown("key", KEY, [KEY, WHO, 0, 5, None, None], END_MS)
    assert (rows["status"], rows["until"]) == ("active", "-")


@pytest.mark.parametrize(("kind", "said"), [(0, "official"), (1, "system"), (2, "citizen")])
def test_kind_of_a_principal_is_said_in_a_word(kind: int, said: str) -> None:
    assert shown("principal", WHO, [WHO, "audit", kind, None, None, 0], END_MS)["kind"] == said


def test_agency_shows_whom_it_names_and_whose_place_it_took() -> None:
    rows = shown("agency", "audit", ["audit", "Audit", 0, 0, "treasury", ["court"]], END_MS)
    assert (rows["status"], rows["successor"]) == ("active", "treasury")
    assert "court" in rows["predecessors"]


def test_what_drafts_expect_of_kernel_actions_are_inputs_of_theirs() -> None:
    for action, touched in KERNEL_TOUCHES.items():
        inputs = {name for name, _ in KERNEL_ACTIONS[action].inputs}
        for namespace, names in touched:
            named = {name.removeprefix("*") for name in names if name[0] != "="}
            assert inputs.issuperset(named), (action, namespace)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (24_322, Type("month"), "2026-11"),
        (END_MS, Type("time"), "2027-01-15 08:00:00Z"),
        ([WHO], Type("ref", "person"), f"[0x{'03' * 32}]"),
        (WHO, Type("digest"), f"0x{'03' * 32}"),
        (bytes(200), Type("definition"), "200 bytes, 0x000000000000…"),
        (24_322, None, "24322"),
    ],
)
def test_inputs_are_shown_to_whoever_consents_as_they_are_meant(
    value: Value, kind: Type | None, said: str
) -> None:
    assert input_word(value, kind) == said
