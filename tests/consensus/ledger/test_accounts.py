"""Money: conserved, never below its floor, whatever programme of calls is run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import INT64_MAX
from consensus.genesis import OpeningBalance
from consensus.ledger.accounts import Account, Change, hash_accounts
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import Balance, Paths, encode_id
from consensus.state import salted
from consensus.state.record import decode_single
from tests.consensus.ledger.world import World, make_genesis

FLOOR = -50
NAMES = ("a", "b", "c", "d", "e")
START = {"main": 1_000_000, "a": 1000, "b": 500, "c": 0}

moves = st.tuples(
    st.just("transfer"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(-3, 1200)
)
opens = st.tuples(st.just("open"), st.sampled_from(NAMES))
checks = st.tuples(st.just("check"), st.sampled_from(NAMES), st.integers(0, 1000))
transactions = st.lists(st.one_of(moves, opens, checks), min_size=1, max_size=5)
blocks = st.lists(st.lists(transactions, max_size=6), max_size=4)


def model(balances: dict[str, int], calls: list[tuple[object, ...]]) -> dict[str, int] | None:
    """Return the balances after a transaction, None if it is refused."""
    after = dict(balances)
    for call in calls:
        match call:
            case ("open", str(name)):
                if name in after:
                    return None
                after[name] = 0
            case ("check", str(name), balance):
                if name not in after or after[name] != balance:
                    return None
            case (_, str(source), str(target), int(amount)):
                if source not in after or target not in after or amount < 0:
                    return None
                if after[source] - amount < FLOOR:
                    return None
                after[source] -= amount
                after[target] += amount
    return after


ACTIONS = {
    "transfer": "payments.transfer",
    "open": "payments.open_purse",
    "check": "payments.check_purse",
}


@settings(max_examples=60, deadline=None)
@given(blocks)
def test_money_is_conserved_and_no_floor_is_passed(
    programme: list[list[list[tuple[object, ...]]]],
) -> None:
    world, expected = World(), dict(START)
    for block in programme:
        drafts = [
            world.draft("clerk", *[(ACTIONS[str(call[0])], *call[1:]) for call in calls])
            for calls in block
        ]
        result = world.run(*drafts)
        for calls, decision in zip(block, result.decisions, strict=True):
            after = model(expected, calls)
            assert (decision.code == Code.APPLIED) == (after is not None), decision.detail
            expected = expected if after is None else after
        balances = {name: world.balance("purse", name) for name in expected}
        assert balances == expected
        assert sum(balances.values()) == sum(START.values())
        assert min(balances.values()) >= FLOOR


def change(balance: int) -> Change:
    account = Account(bytes(32), b"", "d", Balance(["purse", "a"], balance, 0, 0), b"", bytes(16))
    return Change(account, opened=False)


@pytest.mark.parametrize(("balance", "amount", "fits"), [(0, 50, True), (0, 51, False)])
def test_debit_stops_exactly_at_the_floor(balance: int, amount: int, fits: bool) -> None:
    changed = change(balance)
    if fits:
        changed.debit(amount, FLOOR)
        assert changed.balance == FLOOR
    else:
        with pytest.raises(Refused):
            changed.debit(amount, FLOOR)
        assert changed.balance == balance


def test_credit_stops_exactly_at_64_bits() -> None:
    changed = change(INT64_MAX - 1)
    changed.credit(1)
    with pytest.raises(Refused) as refused:
        changed.credit(1)
    assert refused.value.detail == [["purse", "a"], "overflow"]


def test_credit_that_does_not_fit_is_refused_by_the_executor() -> None:
    accounts = (
        OpeningBalance("purse", ("a",), 10),
        OpeningBalance("purse", ("b",), INT64_MAX - 9),
    )
    world = World(make_genesis(accounts=accounts))
    assert world.do("clerk", "payments.transfer", "a", "b", 9).code == Code.APPLIED
    refused = world.do("clerk", "payments.transfer", "a", "b", 1)
    assert (refused.code, refused.detail) == (Code.INSUFFICIENT, [["purse", "b"], "overflow"])


def test_transfer_to_oneself_needs_the_money_and_changes_nothing() -> None:
    world = World()
    assert world.do("clerk", "payments.transfer", "b", "b", 550).code == Code.APPLIED
    assert world.balance("purse", "b") == 500
    assert world.do("clerk", "payments.transfer", "b", "b", 551).code == Code.INSUFFICIENT


def test_leaves_are_those_of_the_salted_module() -> None:
    accounts = []
    for number in range(3):
        id_ = ["purse", f"p{number}"]
        kh = Paths(bytes(32))("account", id_)
        account = Account(kh, encode_id(id_), "payments", Balance(id_, number, 0, 0), b"", b"")
        account.salt_start = bytes([number]) * 16
        account.pool = bytes([9]) * 32
        accounts.append(account)
    hash_accounts(accounts)
    for number, account in enumerate(accounts):
        salt = salted.next_single_salt(bytes([number]) * 16, bytes([9]) * 32, account.kh)
        version, found, value = decode_single(account.row())
        assert (version, found) == (1, salt)
        assert account.vh == salted.single_leaf(account.kh, 1, salt, value)


def test_salt_of_an_account_comes_from_its_last_writer_in_the_block() -> None:
    world = World()
    paths = world.ledger.paths
    kh = paths("account", ["purse", "a"])
    before = world.state.get(kh)
    pool_row = world.state.get(paths.pool)
    assert before is not None
    assert pool_row is not None
    pool = decode_single(pool_row.value)[2][2:]
    block = [
        world.draft("clerk", ("payments.transfer", "a", "b", 1)),
        world.draft("clerk", ("payments.check_purse", "a", 999)),
        world.draft("clerk", ("payments.transfer", "a", "b", 1)),
        world.draft("clerk", ("payments.transfer", "b", "c", 1)),
    ]
    world.run(*block)
    for transaction in block[:3]:
        pool = salted.next_pool(pool, transaction.seed)
    after = world.state.get(kh)
    assert after is not None
    _, salt, _ = decode_single(after.value)
    start = decode_single(before.value)[1]
    assert salt == salted.next_single_salt(start, pool, kh)
