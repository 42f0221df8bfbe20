"""Sums and versions of one block, each made wrong on its own where every signature would be right.

The blocks are executed honestly; then a decision, or what the block wrote, is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from consensus import codec
from consensus.audit.accounting import Accounting
from consensus.audit.divergence import Problem
from consensus.audit.money import Money, account_in
from consensus.ledger import decision as decisions
from consensus.ledger.batch import transactions_of
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.layout import Paths
from consensus.ledger.ledger import Ledger
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import Write
from consensus.state.record import encode_single
from tests.consensus.audit.ledger import Notes
from tests.consensus.ledger.test_money import FUND, Mint


@dataclass
class Judged:
    """A block that was executed and not applied, and what its auditor finds."""

    ledger: Ledger
    source: Any
    now_ms: int
    outcome: BlockResult
    totals: dict[str, int]

    def before(self, kh: bytes) -> bytes | None:
        row = self.source.get(kh)
        return None if row is None else row.value

    @property
    def paths(self) -> Paths:
        return Paths(self.ledger.chain)

    @property
    def book(self) -> Any:
        return self.ledger.rules(self.source, self.now_ms).book

    def sums(self, writes: Sequence[Write] | None = None) -> Problem | None:
        """What is wrong with the money, if the block had written ``writes``."""
        money = Money(self.paths, self.totals)
        accounts = money.accounts_of(self.outcome.writes if writes is None else writes)
        made = self.outcome
        found = money.take(self.book, made.transactions, made.decisions, accounts, self.before)
        self.totals = money.totals
        return found

    def versions(self, writes: Sequence[Write] | None = None) -> Problem | None:
        """What is wrong with the versions, if the block had written ``writes``."""
        made = self.outcome
        moved = frozenset(Money(self.paths, {}).accounts_of(made.writes))
        written = made.writes if writes is None else writes
        return Accounting(self.paths).take(
            made.transactions, made.decisions, written, moved, self.before, self.now_ms
        )

    def says(self, index: int, leaf: str, value: Any) -> None:
        """Let a decision have another leaf."""
        made = [*self.outcome.decisions]
        old = made[index]
        leaves = {**old.leaves, leaf: codec.encode(value)}
        made[index] = decisions.Decision(old.header_cbor, old.kh, leaves, old.salts)
        self.outcome = replace(self.outcome, decisions=tuple(made))

    def said(self, index: int, leaf: str) -> Any:
        return codec.parse(self.outcome.decisions[index].leaves[leaf])


def execute(ledger: Ledger, source: Any, context: BlockContext, *items: Transaction) -> Judged:
    outcome = BlockRun(ledger, source, context, items).finish()
    return Judged(ledger, source, context.time_ms, outcome, {})


def block() -> Judged:
    """A payment, and two changes of one note."""
    chain = Notes()
    chain.block([chain.write(1)])
    items = transactions_of([chain.pay(10), chain.amend(1, 1), chain.amend(1, 2)])
    context = BlockContext(1, 2, chain.now_ms + 1, history=chain.history.root)
    return execute(chain.ledger, chain.state, context, *items)


def minted(name: str = "issue_money", amount: int = 500) -> Judged:
    """The block in which the last approval brings an act that makes or unmakes money."""
    mint = Mint()
    proposal = mint.proposed(f"charter.{name}", *FUND, amount)
    mint.approve("chief_r", proposal)
    mint.wait()
    last = mint.draft("chief_s", ("charter.approve", proposal.txid))
    context = BlockContext(1, mint.height + 1, mint.now_ms + 1000, history=mint.history.root)
    return execute(mint.ledger, mint.state, context, last)


# --- money --------------------------------------------------------------------------------------


def test_honest_blocks_have_nothing_wrong() -> None:
    for judged in (block(), minted()):
        assert judged.sums() is None
        assert judged.versions() is None


@pytest.mark.parametrize(("name", "total"), [("issue_money", 1500), ("retire_money", 500)])
def test_money_that_is_made_or_unmade_changes_the_total_of_its_currency(
    name: str, total: int
) -> None:
    judged = minted(name)
    judged.totals = {"USD": 1000, "EUR": 7}
    assert judged.sums() is None
    assert judged.totals == {"USD": total, "EUR": 7}


def test_money_that_nobody_issued_is_named_with_its_transaction() -> None:
    judged = block()
    (source, target) = judged.said(0, "moves:notes")
    judged.says(0, "moves:notes", [source, [*target[:2], target[2] + 3]])
    found = judged.sums()
    assert found is not None
    assert (found.check, found.index, found.txid) == (
        "money",
        0,
        judged.outcome.transactions[0].txid,
    )
    assert "appears or vanishes" in found.message
    assert [(each.place, each.recorded, each.found) for each in found.differences] == [
        ("sum in USD", "3", "0")
    ]


@pytest.mark.parametrize("made", [499, 501, -500])
def test_more_or_less_money_than_the_act_names_is_found(made: int) -> None:
    judged = minted()
    [row] = judged.said(1, "moves:grants")
    judged.says(1, "moves:grants", [[*row[:2], made]])
    found = judged.sums()
    assert found is not None
    assert (found.check, found.index) == ("money", 1)
    assert "than the act names" in found.message
    [difference] = found.differences
    assert (difference.recorded, difference.found) == (str(made), "500")


def test_an_amount_on_an_account_that_the_block_did_not_write_is_found() -> None:
    judged = block()
    accounts = Money(judged.paths, {}).accounts_of(judged.outcome.writes)
    found = judged.sums([each for each in judged.outcome.writes if each.kh not in accounts])
    assert found is not None
    assert found.check == "money"
    assert "did not write" in found.message


def test_accounts_that_do_not_add_up_to_what_was_founded_are_found_at_the_end() -> None:
    chain = Notes()
    rows = [(kh, row.value) for kh, row in chain.state.pending(0)]
    book = chain.ledger.rules(chain.state, chain.now_ms).book
    paths = Paths(chain.chain)
    assert Money(paths, {"USD": 1_000_000}).sum_up(book, rows) is None
    found = Money(paths, {"USD": 999_999, "EUR": 5}).sum_up(book, rows)
    assert found is not None
    assert [(each.place, each.recorded, each.found) for each in found.differences] == [
        ("sum in EUR", "0", "5"),
        ("sum in USD", "1000000", "999999"),
    ]


NOT_ACCOUNTS = {
    "nothing": b"",
    "a record": b"\x01" + bytes(60),
    "another leaf": encode_single(1, bytes(32), codec.encode([1, 2, 3])),
    "an array that breaks off": encode_single(1, bytes(32), b"\x84\x81\x61"),
    "an id that is no family": encode_single(1, bytes(32), codec.encode([[b"x"], 1, 2, 3])),
    "an empty id": encode_single(1, bytes(32), codec.encode([[], 1, 2, 3])),
    "a balance that is no number": encode_single(
        1, bytes(32), codec.encode([["fund", "a"], "1", 2, 3])
    ),
}


@pytest.mark.parametrize("name", NOT_ACCOUNTS)
def test_what_only_looks_like_an_account_is_none(name: str) -> None:
    assert account_in(NOT_ACCOUNTS[name]) is None
    row = encode_single(1, bytes(32), codec.encode([["fund", "a"], 1, 2, 3]))
    assert account_in(row) == (["fund", "a"], 1)


# --- versions -----------------------------------------------------------------------------------


def skipped(row: list[Any]) -> list[Any]:
    return [row[0], row[1] + 1, row[2] + 1, *row[3:]]


def leapt(row: list[Any]) -> list[Any]:
    return [*row[:2], row[2] + 1, *row[3:]]


@pytest.mark.parametrize("index", [1, 2])
@pytest.mark.parametrize("change", [skipped, leapt])
def test_versions_that_do_not_join_are_found(
    index: int, change: Callable[[list[Any]], list[Any]]
) -> None:
    """In the second change of the note as in the first, whose version is that of the row before."""
    judged = block()
    [row] = judged.said(index, "writes:notes")
    judged.says(index, "writes:notes", [change(row)])
    found = judged.versions()
    assert found is not None
    txid = judged.outcome.transactions[index].txid
    assert (found.check, found.index, found.txid) == ("versions", index, txid)
    assert "do not join" in found.message
    [difference] = found.differences
    assert difference.found == str(index)


def test_a_decision_whose_write_the_block_lacks_or_has_otherwise_is_found() -> None:
    for spoil in (
        lambda each: None,
        lambda each: each._replace(vh=bytes(32)),
    ):
        judged = block()
        kh = judged.paths("record", ["note", 1])
        changed = [spoil(each) if each.kh == kh else each for each in judged.outcome.writes]
        found = judged.versions([each for each in changed if each is not None])
        assert found is not None
        assert (found.check, found.index) == ("versions", 2)
        assert "is not what the block wrote" in found.message


def test_a_write_that_no_decision_names_is_found() -> None:
    judged = block()
    silent = Write(b"\x00" * 32, b"v" * 32, encode_single(1, bytes(32), codec.encode([1])))
    found = judged.versions([*judged.outcome.writes, silent])
    assert found is not None
    assert found.check == "versions"
    assert silent.kh.hex() in found.message
