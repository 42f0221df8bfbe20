"""Real engines while the next executor comes into force, and releases that lack it.

No act activates it here; the executor is made to, by one transaction (the act is tried in
``tests.consensus.ledger.test_versions`` and by real nodes in ``tests.network.test_activation``).
Transactions name no known action: from the second executor on their refusals say more.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cbor2
import pytest
import trio

from consensus import codec
from consensus.hotstuff.events import Sign
from consensus.hotstuff.types import Message, Proposal, SignKind, Vote
from consensus.ledger import decision as decisions
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.kernel.rulesets import put_head
from consensus.ledger.layout import EXECUTOR_HEAD
from consensus.ledger.ledger import of_genesis
from consensus.ledger.view import RULES
from consensus.state.state import MemoryBackend, State
from node import engine, execution
from node.activation import Horizon
from node.errors import NewerExecutorError
from tests.node.machines import (  # noqa: F401 - the fixture is used by name
    GENESIS,
    START_MS,
    Machine,
    Town,
    inline_threads,
    running,
)

pytestmark = pytest.mark.usefixtures("inline_threads")

OLD, NEW = (1,), (1, 2)
NOTICE_MS = 3000
LATE = 3
"""The machine whose release is older."""
AHEAD_MAX = 4
"""Heights that may be ordered and not yet certified when a node stops."""
ACTIVATES: dict[bytes, int] = {}
"""From when the second executor is in force, by the transaction that says so."""


class ActivatingRun(BlockRun):
    """The executor, but for transactions that activate the next one."""

    def finish(self) -> BlockResult:
        for transaction in self._queue:
            if transaction.txid in ACTIVATES:
                put_second(self, ACTIVATES[transaction.txid])
        return super().finish()


def put_second(run: BlockRun, from_ms: int) -> None:
    """Have a block's state say from when the second executor is in force."""
    while run.step(1000):
        pass
    run._view.begin()
    head = run._view.single(RULES, [EXECUTOR_HEAD])
    assert head is not None
    active = [*head.value.active, [2, from_ms]]
    put_head(run._view, head.value._replace(active=active, latest=2))
    run._view.commit(run._pool)


@pytest.fixture(autouse=True)
def activating(monkeypatch: pytest.MonkeyPatch) -> None:
    ACTIVATES.clear()
    monkeypatch.setattr(execution, "BlockRun", ActivatingRun)


@pytest.fixture
def releases(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, ...]]:
    """Which executors the release on a machine has, by its number; to be changed at will."""
    known: dict[int, tuple[int, ...]] = {}
    plain = Machine.open

    def open_(machine: Machine) -> None:
        def ledger_of(genesis: Any) -> Any:
            found = of_genesis(genesis)
            found.executors = known.get(machine.index, NEW)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(engine, "of_genesis", ledger_of)
            plain(machine)

    monkeypatch.setattr(Machine, "open", open_)
    return known


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def submit(town: Town, at: int, count: int = 1) -> list[bytes]:
    """Give transactions of a day to one node."""
    return town.submit(at, count, not_after_ms=town.now_ms() + 3_600_000)


def activate(town: Town) -> int:
    (txid,) = submit(town, 0)
    ACTIVATES[txid] = town.now_ms() + NOTICE_MS
    return ACTIVATES[txid]


class Stated(NamedTuple):
    """What a certified statement says of its block."""

    time_ms: int
    executor: int


def stated(town: Town, height: int) -> Stated:
    return Stated(*cbor2.loads(town.statements[height])[5:7])


def executors(town: Town) -> list[int]:
    """The executors of all certified heights, in order, each once."""
    numbers = [stated(town, height).executor for height in sorted(town.statements)]
    return list(dict.fromkeys(numbers))


def told(machine: Machine, txid: bytes) -> Any:
    """The detail of a transaction's decision."""
    place = machine.engine.chronicle.find(txid)
    assert place is not None
    block = machine.engine.chronicle.block(place.height)
    assert block is not None
    found = decisions.decode(block.decisions[place.index])
    return codec.parse(found.leaves["code"], "code")[2]


async def decided(town: Town, txids: list[bytes], *indices: int) -> None:
    machines = [town.machines[index] for index in indices]
    await town.until(
        lambda: all(m.engine.chronicle.find(txid) is not None for m in machines for txid in txids)
    )


def signed_for(town: Town, sent: list[Message], from_ms: int) -> list[Message]:
    """What of some messages is a signature for a block of the new executor's time."""
    found: list[Message] = []
    for message in sent:
        match message:
            case Proposal(block):
                time_ms = block.time_ms
            case Vote(block_id=block_id):
                time_ms = town.blocks[block_id].time_ms
            case _:
                continue
        if time_ms >= from_ms:
            found.append(message)
    return found


async def test_the_next_executor_comes_into_force_everywhere_at_once(
    town: Town, releases: dict[int, tuple[int, ...]], autojump_clock: object
) -> None:
    async with running(town):
        first = submit(town, 1, 2)
        from_ms = activate(town)
        await decided(town, first, 0, 1, 2, 3)
        await town.until(lambda: town.now_ms() > from_ms)
        second = submit(town, 2, 2)
        await decided(town, second, 0, 1, 2, 3)
        machine = town.machines[1]
        assert len(told(machine, first[0])) == 2
        assert told(machine, second[0]) == [*told(machine, first[0]), 0]
        status = machine.engine.horizon.status(machine.engine.chronicle.time_ms())
        assert status == {"in_force": 2, "next": None, "from_ms": None, "known": [1, 2]}
    assert executors(town) == [1, 2]
    times = {h: stated(town, h).time_ms for h in town.statements}
    assert all((times[h] >= from_ms) == (stated(town, h).executor == 2) for h in times)


async def test_a_release_that_lacks_it_stops_before_says_so_and_goes_on_once_upgraded(
    town: Town, releases: dict[int, tuple[int, ...]], autojump_clock: object
) -> None:
    releases[LATE] = OLD
    late = town.machines[LATE]
    async with running(town) as nursery:
        first = submit(town, 1, 2)
        from_ms = activate(town)
        await decided(town, first, 0, 1, 2, LATE)
        await town.until(lambda: late.engine.chronicle.time_ms() > town.now_ms() - 2000)
        horizon, now_ms = late.engine.horizon, late.engine.chronicle.time_ms()
        assert late.engine.stopped is None
        assert horizon.status(now_ms) == {
            "in_force": 1,
            "next": 2,
            "from_ms": from_ms,
            "known": [1],
        }
        assert horizon.lacks_from_ms(now_ms) == from_ms
        news = horizon.news(now_ms)
        assert news is not None
        assert "executor 2 is in force, and this release" in news
        assert horizon.news(now_ms) is None  # once
        await town.until(lambda: town.now_ms() > from_ms)
        second = submit(town, 2, 2)
        await decided(town, second, 0, 1, 2)
        await town.until(lambda: late.engine.stopped is not None)
        assert late.engine.stopped is not None
        assert late.engine.stopped.code == "UNKNOWN_EXECUTOR"
        assert "executor 2 is in force, and this release has 1" in late.engine.stopped.reason
        assert "install a release that has it" in late.engine.stopped.reason
        assert not signed_for(town, late.sent, from_ms)
        last = max(height for height in town.statements if stated(town, height).executor == 1)
        assert last - AHEAD_MAX <= late.height <= last  # it stopped right before
        assert late.engine.chronicle.find(first[0]) is not None  # and serves what it has

        late.cut_power()
        await town.until(lambda: not late.powered)
        late.lose()
        await nursery.start(late.run)  # the same release again: it says it again
        await town.until(lambda: late.engine.stopped is not None)
        assert late.engine.stopped.code == "UNKNOWN_EXECUTOR"
        assert late.height <= last

        late.cut_power()
        await town.until(lambda: not late.powered)
        late.lose()
        del releases[LATE]
        await nursery.start(late.run)
        third = submit(town, LATE, 2)
        await decided(town, [*second, *third], 0, 1, 2, LATE)
        before = len(late.sent)
        await decided(town, submit(town, 1, 2), 0, 1, 2, LATE)
        assert signed_for(town, late.sent[before:], from_ms)
    assert executors(town) == [1, 2]
    assert not town.faults


async def test_with_too_many_that_lack_it_the_network_waits_and_forks_nowhere(
    town: Town, releases: dict[int, tuple[int, ...]], autojump_clock: object
) -> None:
    releases[2] = releases[LATE] = OLD
    async with running(town) as nursery:
        from_ms = activate(town)
        await town.until(lambda: town.now_ms() > from_ms + 1000)
        waiting = submit(town, 0, 2)
        await trio.sleep(20)
        assert executors(town) == [1]
        assert all(town.machines[at].engine.stopped is not None for at in (2, LATE))
        assert not signed_for(town, [*town.machines[2].sent, *town.machines[LATE].sent], from_ms)
        late = town.machines[LATE]
        late.cut_power()
        await town.until(lambda: not late.powered)
        late.lose()
        del releases[LATE]
        await nursery.start(late.run)
        await decided(town, waiting, 0, 1, LATE)
    assert executors(town) == [1, 2]


async def test_data_of_a_newer_executor_is_refused_in_words(
    town: Town, releases: dict[int, tuple[int, ...]], autojump_clock: object
) -> None:
    machine = town.machines[LATE]
    async with running(town):
        from_ms = activate(town)
        await town.until(lambda: town.now_ms() > from_ms)
        await decided(town, submit(town, 0, 2), 0, 1, 2, LATE)
        await town.until(lambda: stated(town, machine.engine.store.height).executor == 2)
    releases[LATE] = OLD
    machine.lose()
    with pytest.raises(NewerExecutorError) as refused:
        machine.open()
    assert refused.value.code == "NEWER_EXECUTOR"
    assert "is of executor 2, and this release" in refused.value.message
    assert "an older one could only guess" in refused.value.hint
    del releases[LATE]
    machine.lose()
    machine.open()  # the newer one goes on
    machine.engine.close()


# --- which block counts ---------------------------------------------------------------------------


def horizon_of(known: tuple[int, ...], from_ms: int) -> Horizon:
    """What a release goes by whose executed state activates the second executor."""
    ledger = of_genesis(GENESIS)
    state = State(MemoryBackend(), GENESIS.tree_depth, -1)
    state.apply(genesis_state(GENESIS))
    run = BlockRun(ledger, state, BlockContext(1, 1, START_MS), [])
    put_second(run, from_ms)
    state.apply(run.finish().writes)
    ledger.executors = known
    return Horizon(ledger, state)


def proposal(round_: int, time_ms: int) -> Any:
    return SimpleNamespace(block=SimpleNamespace(round=round_, time_ms=time_ms))


def test_only_the_block_that_is_about_to_be_signed_counts() -> None:
    from_ms = START_MS + 5000
    horizon = horizon_of(OLD, from_ms)
    vote = Sign(SignKind.VOTE, 1, 7, b"vote")
    horizon.proposed(proposal(7, from_ms - 1))
    assert horizon.forbids(vote) is None
    horizon.proposed(proposal(7, from_ms + 9))  # a second one of the round is not voted for
    assert horizon.forbids(vote) is None
    horizon.proposed(proposal(8, from_ms))  # early or not: it is not asked for yet
    for kind in (SignKind.COMMIT_VOTE, SignKind.TIMEOUT):
        assert horizon.forbids(Sign(kind, 1, 8, b"")) is None
    halt = horizon.forbids(Sign(SignKind.VOTE, 1, 8, b"vote"))
    assert halt is not None
    assert halt.code == "UNKNOWN_EXECUTOR"
    own = Sign(SignKind.PROPOSAL, 1, 9, b"", block=proposal(9, from_ms).block)
    assert horizon.forbids(own) is not None
    early = Sign(SignKind.PROPOSAL, 1, 9, b"", block=proposal(9, from_ms - 1).block)
    assert horizon.forbids(early) is None


def test_a_release_that_has_it_signs_on() -> None:
    horizon = horizon_of(NEW, START_MS + 5000)
    own = Sign(SignKind.PROPOSAL, 1, 9, b"", block=proposal(9, START_MS + 6000).block)
    assert horizon.forbids(own) is None
    assert horizon.lacks_from_ms(START_MS) is None
    assert horizon.news(START_MS) is None
