"""Executor: what holds for any blocks whatever, most of them nonsense.

Random calls of every action, by right and wrong authors, with right and stale versions, in both
lanes. Each block is executed three times: in slices, at once by an executor with caches of its own,
and again after an undo. The promises are counted here by other means than the executor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Any

import pytest

from consensus.codec import Value
from consensus.hashing import ZERO
from consensus.ledger import decision as decisions
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.layout import RELEASED
from consensus.ledger.ledger import of_genesis
from consensus.ledger.model import Action
from consensus.ledger.transaction import Transaction
from consensus.state.state import State
from tests.consensus.ledger.reader import read_account, read_holds, read_record, value_hash
from tests.consensus.ledger.test_executor_hostile import lab, make
from tests.consensus.ledger.world import START_MS, World, person, public_key, register, token

PEOPLE = ("ann", "bob", "eve")
NAMES = ("a", "b", "main", "new", "tags")
IDS: tuple[list[Value], ...] = (*([token(name)] for name in PEOPLE), [1], [True], ["a"], ["b"])
KINDS = ("person", "entitlement", "link", "payment", "thing", "tag")
AUTHORS = {
    "charter.admin": "admin",
    "payments.clerk": "clerk",
    "payments.officer": "officer",
    "identity.officer": "registrar",
    "benefits.officer": "social",
    "lab.worker": "worker",
}
ACCOUNTS = (
    *(["purse", name] for name in (*NAMES, "c")),
    *(["payee", each] for each in IDS),
    *(["box", each] for each in IDS),
)
MONEY = 1_001_500
"""All that genesis puts into the purses."""
UNSPENT = (Code.UNKNOWN_KEY, Code.SEQUENCE_SPENT, Code.SEQUENCE_OLD, Code.SEQUENCE_AHEAD)


class Chaos:
    """A network under random transactions, on the real state."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = lab()
        for name in ("ann", "bob"):
            register(self.world, name)
        for name in ("a", "b"):
            make(self.world, name, person("ann"))
        self.other = of_genesis(self.world.genesis)
        self.state = State(self.world.state, 4, self.world.height)
        self.world.state = self.state  # type: ignore[assignment]
        self.book = self.world.ledger.rules(self.state, START_MS).book
        self.holds: dict[bytes, None] = {}

    # --- random things

    def draft(self) -> Transaction:
        """Return a transaction that is well-formed and may be anything else."""
        random, world = self.random, self.world
        lane = random.random() < 0.2
        names = [
            f"{rules.domain}.{name}"
            for rules in self.book.rule_sets.values()
            for name, action in rules.actions.items()
            if action.protective is lane
        ]
        if random.random() < 0.8:
            names = [name for name in names if not name.startswith(HARSH)]
        chosen = [random.choice(names) for _ in range(random.choice((1, 1, 1, 2, 4)))]
        author = AUTHORS.get(self.action(chosen[0]).actor.role, "ann's")
        if random.random() < 0.1:
            author = random.choice(("admin", "clerk", "one's", "nobody"))
        calls = [world.call(name, *self.inputs(self.action(name))) for name in chosen]
        expects = []
        for kind in KINDS:
            expects += [(kind, id_, self.version(kind, id_)) for id_ in IDS]
        expects += [(kind, id_, self.version(kind, id_)) for kind, id_ in OBJECTS]
        for id_ in random.sample(list(self.holds), min(3, len(self.holds))):
            expects.append(("hold", [id_], self.version("hold", [id_])))
        if random.random() < 0.7:
            used = [value for call in calls for value in call.inputs]
            expects = [each for each in expects if each[1] in used or each[1][0] in used]
        return world.draft(author, *calls, expects=expects)

    def action(self, name: str) -> Action:
        domain, _, action = name.partition(".")
        found = self.book.action(domain, action)
        assert found is not None
        return found

    def inputs(self, action: Action) -> list[Value]:
        return [
            None
            if each.optional and self.random.random() < 0.5
            else self.value(each.type.base, each.type.argument, each.name)
            for each in action.inputs
        ]

    def value(self, base: str, argument: str, name: str) -> Value:
        random = self.random
        pools: dict[str, Callable[[], Value]] = {
            "text": lambda: random.choice(TEXTS.get(name, NAMES)),
            "ref": lambda: random.choice(TARGETS if name == "target" else IDS),
            "money": lambda: random.choice((0, 1, 40, 400, 2**62, 2**63 - 1, -1)),
            "int": lambda: random.choice((0, 1, 2, 7)),
            "month": lambda: random.choice((24_312, 24_313)),
            "time": lambda: self.world.now_ms + random.choice((-5, 1500, 10_000)),
            "bool": lambda: random.random() < 0.5,
            "bytes": lambda: random.choice((public_key("spare"), public_key("clerk"), b"x")),
            "token": lambda: token(random.choice(PEOPLE)),
            "digest": lambda: random.choice((token("clerk"), token("ann"), *self.holds)),
            "sealed": lambda: bytes(32),
            "list": lambda: random.choice(
                ([], ["region", "north"])
                if name == "scope"
                else (["all"], ["edit"], ["all", "pay"])
            ),
        }
        if (base, argument) == ("list", "ref:person"):
            return random.sample(IDS, 2)
        return pools[base]()

    def version(self, kind: str, id_: list[Value]) -> int:
        """Return the version at the tip, or now and then another one."""
        if self.random.random() < 0.02:
            return self.random.choice((0, 1, 7))
        row = self.state.get(self.world.ledger.paths.named(kind, id_))
        if row is None or row.vh == ZERO:
            return 0
        if kind not in KINDS:
            return int.from_bytes(row.value[:8], "big")
        return read_record(row.value, self.book.kinds[kind]).version

    # --- blocks

    def block(self, transactions: list[Transaction]) -> BlockResult:
        """Execute a block in three ways and apply it; return its result."""
        world, state = self.world, self.state
        world.now_ms += 1000
        context = BlockContext(1, state.height + 1, world.now_ms)
        run = BlockRun(world.ledger, state, context, transactions)
        while run.step(self.random.randint(1, 3)):
            pass
        result = run.finish()
        fresh = BlockRun(self.other, state, context, transactions).finish()
        assert (fresh.results_root, fresh.writes) == (result.results_root, result.writes)
        before = state.root
        applied = state.apply([tuple(write) for write in result.writes])
        state.undo()
        assert state.root == before
        again = BlockRun(world.ledger, state, context, transactions).finish()
        assert state.apply([tuple(write) for write in again.writes]) == applied
        return result


HARSH = ("charter.suspend", "charter.revoke", "charter.place_hold", "identity.record_death")
"""What would end an episode early if it came as often as the rest."""
SCOPES: tuple[list[Value], ...] = ([], ["region", "north"])
BLOCKS: tuple[list[Value], ...] = (["all"], ["edit"], ["all", "pay"], [])
TEXTS = {
    "agency": ("treasury", "services", "newcomer"),
    "namespace": ("record", "account", "agency", "domain", "action", "nothing"),
    "region": ("north", "south"),
    "role": ("payments.clerk", "lab.worker"),
    "family": ("purse", "payee", "box", "none"),
    "kind": ("official", "citizen", "robot"),
}
OBJECTS: tuple[tuple[str, list[Value]], ...] = (
    ("agency", ["newcomer"]),
    ("agency", ["services"]),
    ("key", [public_key("spare")]),
    ("key", [public_key("clerk")]),
    ("principal", [token("ann")]),
    ("principal", [token("clerk")]),
    ("role", [token("clerk"), "lab.worker"]),
    ("role", [token("clerk"), "payments.clerk"]),
)
"""What the kernel's actions may be about, beside holds."""
TARGETS: tuple[list[Value], ...] = (
    ["person", token("ann")],
    ["thing", "a"],
    ["purse", "a"],
    ["purse", "new"],
    ["payee", [token("ann")]],
    ["services"],
    ["payments"],
    ["payments", "transfer"],
)


@lru_cache(maxsize=1)
def episodes() -> list[tuple[Chaos, list[tuple[list[Transaction], BlockResult]]]]:
    """Return networks after some blocks each, made once for all tests."""
    found = []
    for seed in range(16):
        chaos = Chaos(seed)
        blocks = []
        for _ in range(6):
            transactions = [chaos.draft() for _ in range(chaos.random.randint(0, 20))]
            result = chaos.block(transactions)
            blocks.append((transactions, result))
            for decision in result.decisions:
                entries = decision.value("writes:charter") or []
                chaos.holds |= {e[0][1][0]: None for e in entries if e[0][0] == "hold"}
        found.append((chaos, blocks))
    return found


def outcomes() -> Iterator[tuple[Chaos, Transaction, decisions.Decision]]:
    """Yield every decision with its transaction."""
    for chaos, blocks in episodes():
        for transactions, result in blocks:
            by_id: dict[bytes, Transaction] = {each.txid: each for each in transactions}
            for each in result.decisions:
                yield chaos, by_id[each.header.txid], each


def test_every_transaction_gets_one_decision_and_protective_ones_come_first() -> None:
    for _, blocks in episodes():
        for transactions, result in blocks:
            order = [each.header.txid for each in result.decisions]
            first = [each.txid for each in transactions if each.lane]
            rest = [each.txid for each in transactions if not each.lane]
            assert order == first + rest
            assert [each.header.index for each in result.decisions] == list(range(len(order)))


def test_the_episodes_reach_most_outcomes() -> None:
    reached = {decision.code for _, _, decision in outcomes()}
    wanted = "APPLIED UNKNOWN_KEY BAD_INPUT NOT_FOUND NOT_AUTHORIZED STALE HELD REQUIREMENT"
    wanted += " INSUFFICIENT NOT_UNIQUE SUSPENDED NOT_DELIVERED"
    assert {Code[name] for name in wanted.split()} <= reached
    applied = {
        action.action_id for _, _, d in outcomes() if d.code == 0 for action in d.header.actions
    }
    book = episodes()[0][0].book
    known = {n: a.action_id for r in book.rule_sets.values() for n, a in r.actions.items()}
    assert len(applied) >= 15, [name for name, id_ in known.items() if id_ not in applied]


def test_every_decision_is_decoded_from_its_bytes() -> None:
    for _, _, decision in outcomes():
        again = decisions.decode(decision.encode())
        assert again.root == decision.root
        assert (again.header, again.code, again.detail) == (
            decision.header,
            decision.code,
            decision.detail,
        )


def test_a_refusal_writes_nothing_and_an_application_moves_nothing_into_being() -> None:
    for _, _, decision in outcomes():
        names = [name for name in decision.names if name.startswith(("writes:", "moves:"))]
        if decision.code != Code.APPLIED:
            assert not names
        deltas: dict[int, int] = {}
        for name in names:
            if name.startswith("moves:"):
                for position, _, delta, *_ in decision.value(name) or []:
                    deltas[position] = deltas.get(position, 0) + delta
        assert not any(deltas.values())


def test_money_is_neither_made_nor_lost_and_no_floor_is_passed() -> None:
    for chaos, _ in episodes():
        total = 0
        for id_ in ACCOUNTS:
            row = chaos.state.get(chaos.world.ledger.paths("account", list(id_)))
            if row is not None:
                balance = read_account(row.value).balance
                assert balance >= (-50 if id_[0] == "purse" else 0)
                total += balance
        assert total == MONEY


def test_every_row_leads_to_its_hash_in_the_tree() -> None:
    for _, blocks in episodes():
        for _, result in blocks:
            for write in result.writes:
                assert value_hash(write.kh, write.row) == write.vh


def test_the_mask_of_a_target_is_that_of_its_unreleased_holds() -> None:
    seen = 0
    for chaos, _ in episodes():
        paths, state = chaos.world.ledger.paths, chaos.state
        for space, components in [
            *(("record", [kind, *id_]) for kind in KINDS for id_ in IDS),
            *(("account", list(id_)) for id_ in ACCOUNTS),
        ]:
            row = state.get(paths(space, components))
            if row is None:
                continue
            held: Any
            if space == "account":
                held = read_account(row.value).held
            else:
                held = read_record(row.value, chaos.book.kinds[components[0]]).held
            mask = 0
            for hold in read_holds(state, paths, space, components):
                assert hold.state != RELEASED
                assert hold.targets == [[space, components]]
                mask |= hold.scopes
            assert held == mask, (space, components)
            seen += bool(mask)
    assert seen > 10


def test_a_number_is_spent_by_every_outcome_but_four() -> None:
    for chaos, blocks in episodes():
        again = [each for transactions, _ in blocks for each in transactions]
        before = {d.header.txid: d.code for _, result in blocks for d in result.decisions}
        result = chaos.block(again[-40:])
        for decision in result.decisions:
            if before[decision.header.txid] in UNSPENT:
                assert decision.code == before[decision.header.txid]
            else:
                assert decision.code == Code.SEQUENCE_SPENT


@pytest.mark.parametrize("seed", [3, 7])
def test_an_empty_block_changes_nothing(seed: int) -> None:
    chaos, _ = episodes()[seed]
    root = chaos.state.root
    assert chaos.block([]).writes == []
    assert chaos.state.root == root


def test_a_world_of_its_own_agrees() -> None:
    """The same seed gives the same state in another process-wide order of caches."""
    one, other = Chaos(99), Chaos(99)
    lists = [[one.draft() for _ in range(10)] for _ in range(2)]
    same = [[other.draft() for _ in range(10)] for _ in range(2)]
    assert [[t.txid for t in block] for block in lists] == [[t.txid for t in b] for b in same]
    for block in lists:
        assert one.block(block).results_root == other.block(block).results_root
    assert one.state.root == other.state.root
    assert isinstance(one.world, World)
