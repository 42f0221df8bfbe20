"""A node's process that is not quite as it should be: ``python -m tests.network.harness.launch``.

    --clock MILLISECONDS   its wall clock is so much ahead (negative: behind)
    --lie SEED             it lies to its peers, with its own key, as far as signatures let it
    --attack NAME          one of the attackers of ``tests/byzantine`` chooses what it says
    --withhold             it tells nobody which results it came to
    --slow WHAT SECONDS    each ``sync`` of its log, ``flush`` of its store or ``execute`` of a
                           block takes so much longer
    --memory BYTES         it takes this for all memory that it may use

The product has no hook for any of it. The clock is what Python tells the node, ``time.time_ns``;
the lies take the place of messages on the way to the links (``tests.sim.byzantine``, the same
traitor as in the simulator). Workers of the node check signatures and are as they should be.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from comity.keys import Key
from consensus import genesis
from consensus.committee import Committee
from consensus.errors import ComityError
from consensus.hotstuff import wire
from consensus.hotstuff.events import ExecutionResult
from consensus.hotstuff.types import Block, CommitVote
from consensus.keyfile import KeyKind
from node import config as configs
from node import keyfiles
from node.execution import Execution
from node.main import run
from node.network.peers import PeerNetwork
from node.network.wire import Class
from node.storage.disk import SystemDisk
from node.storage.flush import FlushBatch
from node.storage.store import Store
from node.telemetry import process
from tests.network.harness import attack
from tests.sim.byzantine import Traitor


def shift_clock(offset_ms: int) -> None:
    """Have everything in this process see another time of day."""
    true_ns, true = time.time_ns, time.time
    time.time_ns = lambda: true_ns() + offset_ms * 1_000_000
    time.time = lambda: true() + offset_ms / 1000


@dataclass(frozen=True)
class Liar:
    """Who lies, and with which key."""

    index: int
    sign: Callable[[bytes], bytes]
    chain: bytes
    committee: Committee
    seed: int


def liar_of(path: Path, seed: int) -> Liar:
    """Return the node of a configuration as one that lies."""
    config = configs.load(path, {})
    founded = config.path(config.node.genesis).read_bytes()
    committee = genesis.decode(founded).committee
    index = [each.agency for each in committee.validators].index(config.node.agency)
    key = Key(keyfiles.load(config.path(config.node.validator_key), KeyKind.VALIDATOR))
    return Liar(index, key.sign, genesis.chain_id(founded), committee, seed)


def lie(liar: Liar) -> None:
    """Have a traitor choose what each peer is told, in place of what the node would send."""
    traitor = Traitor(
        liar.index,
        liar.sign,
        liar.chain,
        liar.committee.size,
        random.Random(liar.seed),
    )
    send = PeerNetwork.send

    def tell(network: PeerNetwork, peer: int, cls: Class, payload: bytes) -> bool:
        if cls is not Class.CONSENSUS:
            return send(network, peer, cls, payload)
        told = traitor.tell(peer, wire.decode_message(payload))
        taken = [send(network, peer, cls, wire.encode_message(each)) for each in told]
        return all(taken)

    def broadcast(network: PeerNetwork, cls: Class, payload: bytes) -> None:
        for peer in network.connected:
            tell(network, peer, cls, payload)

    PeerNetwork.send = tell  # type: ignore[method-assign]
    PeerNetwork.broadcast = broadcast  # type: ignore[method-assign]


def withhold() -> None:
    """Have no vote on a result leave."""
    send, broadcast = PeerNetwork.send, PeerNetwork.broadcast

    def is_one(cls: Class, payload: bytes) -> bool:
        return cls is Class.CONSENSUS and isinstance(wire.decode_message(payload), CommitVote)

    def tell(network: PeerNetwork, peer: int, cls: Class, payload: bytes) -> bool:
        return is_one(cls, payload) or send(network, peer, cls, payload)

    def tell_all(network: PeerNetwork, cls: Class, payload: bytes) -> None:
        if not is_one(cls, payload):
            broadcast(network, cls, payload)

    PeerNetwork.send = tell  # type: ignore[method-assign]
    PeerNetwork.broadcast = tell_all  # type: ignore[method-assign]


def slow(what: str, seconds: float) -> None:
    """Have one kind of work take longer, in the thread that does it or as long for the loop."""
    match what:
        case "sync":
            sync = SystemDisk.sync

            def slow_sync(disk: SystemDisk, handle: int) -> None:
                time.sleep(seconds)
                sync(disk, handle)

            SystemDisk.sync = slow_sync  # type: ignore[method-assign]
        case "flush":
            flush = Store.flush

            async def slow_flush(store: Store, batch: FlushBatch) -> None:
                await trio.sleep(seconds)
                await flush(store, batch)

            Store.flush = slow_flush  # type: ignore[method-assign]
        case "execute":
            execute = Execution._execute

            async def slow_execute(execution: Execution, block: Block) -> ExecutionResult:
                await trio.sleep(seconds)
                return await execute(execution, block)

            Execution._execute = slow_execute  # type: ignore[method-assign]
        case _:
            raise ValueError(what)


def main() -> None:
    """Run the node of a configuration file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clock", type=int, default=0)
    parser.add_argument("--lie", type=int)
    parser.add_argument("--attack")
    parser.add_argument("--withhold", action="store_true")
    parser.add_argument("--slow", nargs=2)
    parser.add_argument("--memory", type=int)
    parser.add_argument("config", type=Path)
    options = parser.parse_args()
    if options.clock:
        shift_clock(options.clock)
    if options.attack is not None:
        attack.attack(liar_of(options.config, options.lie or 0), options.attack)
    elif options.lie is not None:
        lie(liar_of(options.config, options.lie))
    if options.withhold:
        withhold()
    if options.slow:
        slow(options.slow[0], float(options.slow[1]))
    if options.memory:
        process.memory_max_bytes = lambda: float(options.memory)
    try:
        run(options.config)
    except ComityError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(1)


if __name__ == "__main__":  # workers that are started anew read this module too
    main()
