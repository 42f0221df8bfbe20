"""Several replicas over links and disks: the promises hold, and work gets done in time.

``World`` itself watches for forks, double signatures, and delivery out of order or twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from consensus.hotstuff import events as ev
from consensus.hotstuff.types import (
    BlocksResponse,
    Certificates,
    CommitVote,
    Message,
    Proposal,
    Timeout,
    Vote,
)

from . import builders as make
from .driver import CHAIN, START_MS, World, batch

MINUTE_MS = 60_000
Delay = Callable[[int, int, Message], int | None]


def all_deliver(world: World, number: int, limit_ms: int, *indexes: int) -> int:
    """Submit a batch everywhere; return how long until these nodes delivered it."""
    item = batch(number)
    world.submit(item)
    chosen = indexes or tuple(range(len(world.nodes)))
    return world.run_until(lambda: all(world.delivered(i, item) for i in chosen), limit_ms)


def sent(world: World, kind: type[Message]) -> int:
    return sum(isinstance(message, kind) for _, _, message in world.sent_log)


# --- good times ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 5, 7, 10])
def test_payload_is_final_three_message_delays_after_the_proposal(size: int) -> None:
    world = World(size, delay=lambda *_: 100)
    world.start()
    world.run(500)
    took = all_deliver(world, 1, 1000)
    assert took == 301  # one millisecond for the payload check


def test_idle_network_sends_a_heartbeat_block_every_three_seconds_and_nothing_else() -> None:
    world = World()
    world.start()
    world.run(100)
    world.sent_log.clear()
    world.run(MINUTE_MS)
    assert 18 <= world.height(0) <= 20
    assert sent(world, Timeout) == 0
    per_block = 3 + 4 * 3 + 4 * 3 + 3  # proposal, votes, commit votes, certificates to the leader
    assert len(world.sent_log) <= 20 * per_block


def test_one_payload_costs_one_block() -> None:
    world = World()
    world.start()
    world.run(100)
    all_deliver(world, 1, 1000)
    world.run(2000)
    assert [world.height(i) for i in range(4)] == [1, 1, 1, 1]


def test_replicas_that_see_the_batch_late_do_not_matter_when_the_leader_has_it() -> None:
    world = World()
    world.start()
    item = batch(1)
    world.submit(item, 1)
    assert world.run_until(lambda: world.delivered(3, item), 1000) == 31


def test_steady_load_certifies_every_batch_once() -> None:
    world = World(sync_ms=3, execute_ms=2)
    world.start()
    for number in range(200):
        world.submit(batch(number, origin=number % 4))
        world.run(7)
    world.run(500)
    blocks = world.nodes[0].disk.delivered
    numbers = [item.number for block, _ in blocks for item in block.payload]
    assert sorted(numbers) == list(range(200))
    assert sent(world, Timeout) == 0


# --- crashes of leaders -------------------------------------------------------------------------


def test_crashed_leader_costs_one_timeout_and_work_goes_on() -> None:
    world = World()
    world.start()
    world.run(100)
    world.crash(1)  # leads round 1
    took = all_deliver(world, 1, 5000, 0, 2, 3)
    assert 1000 < took < 1200


def test_f_crashed_of_seven_still_make_progress() -> None:
    world = World(7)
    world.start()
    world.run(100)
    world.crash(1, 2)
    assert all_deliver(world, 1, 10_000, 0, 3, 4, 5, 6) < 2500
    for number in range(2, 12):
        all_deliver(world, number, 10_000, 0, 3, 4, 5, 6)


def test_more_than_f_crashed_halt_and_resume_when_one_returns() -> None:
    world = World()
    world.start()
    world.crash(2, 3)
    world.submit(batch(1))
    world.run(MINUTE_MS)
    assert world.height(0) == 0
    world.start(3)
    assert all_deliver(world, 2, 10_000, 0, 1, 3) < 6000


@pytest.mark.parametrize("minutes", [1, 30])
def test_lesson_1_f_plus_one_away_for_long_and_back_within_a_few_rounds(minutes: int) -> None:
    cut: list[bool] = [True]

    def delay(sender: int, peer: int, _message: Message) -> int | None:
        return None if cut[0] and (sender < 2) != (peer < 2) else 10

    world = World(delay=delay)
    world.start()
    world.submit(batch(1))
    world.run(minutes * MINUTE_MS)
    assert max(world.height(i) for i in range(4)) == 0
    rounds = max(node.replica.round for node in world.nodes if node.replica)
    cut[0] = False
    assert all_deliver(world, 2, 60_000) <= 10_000
    assert max(node.replica.round for node in world.nodes if node.replica) <= rounds + 4


def test_lesson_2_lost_certificate_of_entry_does_not_split_the_rounds() -> None:
    """Timeouts of round 1 reach only node 0, which alone enters round 2."""

    def delay(_sender: int, peer: int, message: Message) -> int | None:
        lost = isinstance(message, Timeout) and message.round == 1 and peer != 0
        return None if lost or isinstance(message, Certificates) else 10

    world = World(delay=delay)
    world.start()
    world.crash(1)
    assert all_deliver(world, 1, 20_000, 0, 2, 3) < 8000


# --- branches -----------------------------------------------------------------------------------


def test_withheld_certificate_then_branch_and_undo() -> None:
    """Votes of round 1 reach node 3 alone: it orders and executes what the others abandon."""
    hidden = [True]

    def delay(_sender: int, peer: int, message: Message) -> int | None:
        if hidden[0] and isinstance(message, Vote) and message.round == 1 and peer != 3:
            return None
        if hidden[0] and peer != 3 and isinstance(message, Certificates | CommitVote):
            return None
        return 10

    undone: list[int] = []
    world = World(delay=delay)

    def watch(node: object, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Undo):
            undone.append(world.nodes.index(node))  # type: ignore[arg-type]  # World gives its nodes

    world.effect_hook = watch
    world.start()
    world.submit(batch(1))
    world.run(60)
    world.crash(3)  # its certificate of round 1 is forgotten
    world.run(3000)
    hidden[0] = False
    world.start(3)
    all_deliver(world, 2, 20_000)
    assert world.delivered(0, batch(1))


def test_commit_votes_held_back_by_timeouts_are_freed_by_the_two_chain() -> None:
    """Everyone times out in round 1, then its block is ordered late: nobody may commit-vote it."""
    slow = [True]

    def delay(_sender: int, _peer: int, message: Message) -> int | None:
        return 1500 if slow[0] and isinstance(message, Vote) and message.round == 1 else 10

    exempt: list[bool] = []
    world = World(delay=delay)

    def watch(_node: object, effect: ev.Effect) -> None:
        if isinstance(effect, ev.Sign) and effect.two_chain:
            exempt.append(True)

    world.effect_hook = watch
    world.start()
    world.submit(batch(1))
    world.run(1600)
    slow[0] = False
    world.run(8000)
    assert all(world.delivered(i, batch(1)) for i in range(4))


# --- links --------------------------------------------------------------------------------------


def test_everything_lost_is_repaired_by_reconnecting() -> None:
    lossy = [True]
    world = World(delay=lambda *_: None if lossy[0] else 10)
    world.start()
    item = batch(1)
    world.submit(item)
    world.run(100)
    lossy[0] = False
    for node in world.nodes:
        for other in world.nodes:
            if node is not other:
                world.step(node, ev.Connected(other.index))
    assert world.run_until(lambda: all(world.delivered(i, item) for i in range(4)), 500) < 100


def test_everything_lost_is_repaired_by_resending_without_any_new_link() -> None:
    lossy = [True]
    world = World(delay=lambda *_: None if lossy[0] else 10)
    world.start()
    world.submit(batch(1))
    world.run(100)
    lossy[0] = False
    assert all_deliver(world, 2, 10_000) < 2500


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_lossy_links_slow_the_chain_and_never_stop_it(loss: float) -> None:
    dice = random.Random(5)
    world = World(delay=lambda *_: None if dice.random() < loss else dice.randint(1, 40))
    world.start()
    for number in range(10):
        all_deliver(world, number, 60_000)


def test_lost_commit_votes_are_answered_with_the_certificate() -> None:
    """Node 3 never hears a commit vote; asking again it gets the certificate."""

    def delay(_sender: int, peer: int, message: Message) -> int | None:
        return None if peer == 3 and isinstance(message, CommitVote) else 10

    world = World(delay=delay)
    world.start()
    all_deliver(world, 1, 5000)


# --- catching up --------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [3, 40, 150])
def test_node_that_was_away_catches_up_by_proved_pages(blocks: int) -> None:
    world = World()
    world.start()
    world.crash(3)
    for number in range(blocks):
        all_deliver(world, number, 10_000, 0, 1, 2)
    world.start(3)
    assert world.run_until(lambda: world.height(3) == world.height(0), 10_000) < 2000
    chain = [block.id for block, _ in world.nodes[3].disk.delivered]
    assert chain == [block.id for block, _ in world.nodes[0].disk.delivered]


def test_requests_go_to_the_next_peer_when_one_stays_silent() -> None:
    def delay(sender: int, _peer: int, message: Message) -> int | None:
        return None if sender in (0, 1) and isinstance(message, BlocksResponse) else 10

    world = World(delay=delay)
    world.start()
    world.crash(3)
    for number in range(60):
        all_deliver(world, number, 10_000, 0, 1, 2)
    world.start(3)
    assert world.run_until(lambda: world.height(3) == world.height(0), 20_000) < 5000


def test_node_without_storage_history_starts_from_genesis_and_catches_up() -> None:
    world = World()
    world.start(0, 1, 2)
    for number in range(40):
        all_deliver(world, number, 10_000, 0, 1, 2)
    world.start(3)
    assert world.run_until(lambda: world.height(3) == world.height(0), 10_000) < 3000


# --- execution ----------------------------------------------------------------------------------


def test_slow_execution_holds_payload_back_and_everything_is_certified_in_the_end() -> None:
    world = World(execute_ms=120)
    world.start()
    ahead = 0
    for number in range(40):
        world.submit(batch(number))
        world.run(30)
        for node in world.nodes:
            if node.replica:
                executed = node.replica._tree.executed.block.height
                ahead = max(ahead, node.replica.ordered_height - executed)
    world.run_until(lambda: all(world.delivered(3, batch(n)) for n in range(40)), 60_000)
    assert ahead <= 6  # the window of 2, the block of the round, and empty ones meanwhile


def test_one_diverging_replica_halts_alone() -> None:
    world = World()
    honest = world.result_of
    world.result_of = lambda i, block, before: (
        b"w" * 32 if i == 2 and block.payload else honest(i, block, before)
    )
    world.start()
    all_deliver(world, 1, 5000, 0, 1, 3)
    world.run(1000)
    assert [node.halted for node in world.nodes] == ["", "", "RESULT_DIVERGENCE", ""]
    assert all_deliver(world, 2, 30_000, 0, 1, 3) < 5000


def test_split_results_stop_delivery_everywhere_and_every_node_says_so() -> None:
    world = World()
    honest = world.result_of
    world.result_of = lambda i, block, before: (
        bytes([i % 2]) * 32 if block.payload else honest(i, block, before)
    )
    world.start()
    world.submit(batch(1))
    world.run(10_000)
    world.submit(batch(2))
    world.run(10_000)
    assert [world.height(i) for i in range(4)] == [0] * 4
    for node in world.nodes:
        assert [e.kind for e in node.evidence][:1] == [ev.EvidenceKind.RESULTS_DISAGREE]
        assert node.halted == ""
        assert node.replica is not None
        assert 15 <= node.replica.ordered_height <= 25  # empty blocks, one a second
    payloads = [m.block.payload for _, _, m in world.sent_log if isinstance(m, Proposal)]
    assert all(batch(2) not in payload for payload in payloads)


# --- restarts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after_ms", [0, 5, 11, 15, 21, 25, 31, 500, 1001, 1005, 1015, 1500])
def test_all_restart_at_once_and_resume_by_themselves(after_ms: int) -> None:
    """Lesson 7. In the first second the round is under way, later timeouts are signed."""
    world = World(sync_ms=2)
    world.start()
    world.run(50)
    if after_ms > 500:
        world.withheld = {(i, b"") for i in range(4)}
        world.crash(1)
    world.submit(batch(1))
    world.run(after_ms)
    world.crash()
    world.start()
    assert all_deliver(world, 2, 10_000) < 6000
    assert world.run_until(lambda: world.delivered(0, batch(1)), 5000) >= 0


def test_restart_of_all_after_timeouts_were_signed_for_different_rounds() -> None:
    cut: list[bool] = [True]
    world = World(delay=lambda *_: None if cut[0] else 10)
    world.start()
    world.submit(batch(1))
    world.run(1500)
    cut[0] = False
    world.run(15)
    world.crash()
    world.start()
    assert all_deliver(world, 2, 10_000) < 5000


@pytest.mark.parametrize("victim", range(4))
def test_lesson_6_kill_one_at_every_effect_and_restart(victim: int) -> None:
    """No second signature for a slot, no lost or repeated delivery, and progress."""
    for boundary in range(60):
        world = World(sync_ms=boundary % 3)
        world.start()
        world.run(20)
        node = world.nodes[victim]
        node.effects_left = boundary
        others = [i for i in range(4) if i != victim]
        all_deliver(world, 1, 20_000, *others)
        if node.replica is not None:
            break
        world.start(victim)
        all_deliver(world, 2, 20_000)
    assert boundary > 5


def test_lesson_7_kill_all_at_every_effect_and_restart() -> None:
    for boundary in range(60):
        world = World(sync_ms=boundary % 3)
        world.start()
        world.run(20)
        for node in world.nodes:
            node.effects_left = boundary
        world.submit(batch(1))
        world.run(3000)
        world.crash()
        world.start()
        assert all_deliver(world, 2, 20_000) < 6000


# --- everything at once -------------------------------------------------------------------------


def stormy(seed: int, size: int) -> World:
    """Random losses, delays, crashes at effects and restarts; then good weather."""
    dice = random.Random(seed)
    loss, slowest = dice.choice([0, 0.02, 0.2, 0.5]), dice.choice([5, 20, 100, 600, 2000])
    storm = [True]

    def delay(_sender: int, _peer: int, _message: Message) -> int | None:
        if not storm[0]:
            return 10
        return None if dice.random() < loss else dice.randint(1, slowest)

    world = World(
        size, delay=delay, sync_ms=dice.choice([0, 2, 20, 100]), execute_ms=dice.choice([0, 5, 50])
    )
    world.start()
    for phase in range(dice.randint(3, 10)):
        for number in range(dice.randint(0, 4)):
            count = size if dice.random() < 0.6 else dice.randint(1, size)
            world.submit(batch(10 * phase + number), *dice.sample(range(size), count))
        alive = [node for node in world.nodes if node.replica is not None]
        chance = dice.random()
        if chance < 0.5:
            for node in alive if chance < 0.2 else alive[:1]:
                node.effects_left = dice.randint(0, 30)
        elif chance < 0.7:
            world.crash(*dice.sample(range(size), dice.randint(1, size)))
        for node in world.nodes:
            if node.replica is None and dice.random() < 0.6:
                world.start(node.index)
        world.run(dice.choice([10, 100, 500, 1000, 5000]))
    storm[0] = False
    for node in world.nodes:
        node.effects_left = None
    dead = [node.index for node in world.nodes if node.replica is None]
    returning = dead[min(len(dead), dice.randint(0, world.committee.faulty_max)) :]
    if returning:
        world.start(*returning)
    return world


@pytest.mark.parametrize("seed", range(40))
def test_after_any_storm_a_quorum_certifies_new_work(seed: int) -> None:
    world = stormy(seed, 7 if seed % 5 == 4 else 4)
    alive = [node.index for node in world.nodes if node.replica is not None]
    assert all_deliver(world, 9999, 30_000, *alive) <= 15_000
    assert not any(node.halted for node in world.nodes)


def test_same_seed_gives_the_same_messages() -> None:
    first, second = (stormy(3, 4).sent_log for _ in range(2))
    assert first == second


def test_configuration_of_the_chain_is_used() -> None:
    """A slower heartbeat, spacing and timeout are obeyed."""
    config = ev.ReplicaConfig(CHAIN, heartbeat_ms=10_000)
    world = World(config=config)
    world.start()
    world.run(35_000)
    assert world.height(0) == 3
    assert world.now_ms == START_MS + 35_000
    assert make.GENESIS.height == 0
