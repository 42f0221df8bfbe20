"""What people are shown of accounts and reservations: by chain time, in words."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from comity.cli.show import entry_table, entry_value
from comity.results import Entry
from consensus.codec import Value
from consensus.ledger.rules import compile_rulebook, load_toml
from consensus.protocol import StateKey
from tests.comity.test_show import END_MS, shown

ACCOUNT: list[Value] = [
    ["fund", "main"], 1000, 750, 0, [[END_MS, 300], [END_MS + 1000, 50]],
]  # fmt: skip


def account(time_ms: int, value: Value) -> Entry:
    return Entry(StateKey("account", ("fund", "main")), 9, time_ms, 1, 5, value, present=True)


@pytest.mark.parametrize(
    ("time_ms", "reserved"), [(END_MS - 1, 750), (END_MS, 450), (END_MS + 1000, 400)]
)
def test_what_is_reserved_of_an_account_goes_by_chain_time(time_ms: int, reserved: int) -> None:
    entry = account(time_ms, ACCOUNT)
    assert entry.reserved == reserved
    said = shown("account", "fund", ACCOUNT, time_ms)
    assert (said["balance"], said["reserved"]) == ("1000", str(reserved))


def test_what_of_an_account_is_available_leaves_reserved_and_floor_alone() -> None:
    rules = 'domain = "d"\nnumber = 1\nlegal_basis = "x"\n'
    rules += '[accounts.fund]\ncurrency = "USD"\nfloor = -20\n'
    book = compile_rulebook([load_toml(rules)])
    found = entry_value(account(END_MS, ACCOUNT), book)
    assert (found["balance"], found["reserved"], found["available"]) == (1000, 450, 570)
    assert entry_value(account(END_MS, ACCOUNT), None)["available"] is None
    plain: list[Value] = [["fund", "main"], 7, 0, 0]
    assert entry_value(account(END_MS, plain), book)["available"] == 27
    console = Console(file=io.StringIO(), width=300)
    console.print(entry_table(account(END_MS, ACCOUNT), book))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "450 USD (minor units)" in text
    assert "570 USD (minor units)" in text


def test_a_record_has_nothing_reserved() -> None:
    entry = Entry(StateKey("record", ("note", 1)), 9, END_MS, 1, 5, {"a": 1}, present=True)
    assert entry.reserved == 0
    assert Entry(StateKey("account", ("fund", 1)), 9, END_MS).reserved == 0


@pytest.mark.parametrize(
    ("state", "until_ms", "time_ms", "word"),
    [
        (0, None, END_MS, "reserved"),
        (0, END_MS, END_MS - 1, "reserved"),
        (0, END_MS, END_MS, "expired"),
        (1, END_MS, END_MS, "posted"),
        (2, END_MS, END_MS, "voided"),
    ],
)
def test_state_of_a_reservation_goes_by_chain_time(
    state: int, until_ms: int | None, time_ms: int, word: str
) -> None:
    value: list[Value] = [["grants", 1], ["fund", "main"], 700, 300, until_ms, state]
    rows = shown("reservation", "grants", value, time_ms)
    assert (rows["state"], rows["amount"], rows["posted"]) == (word, "700", "300")
