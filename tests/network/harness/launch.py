"""A node's process that is not quite as it should be: ``python -m tests.network.harness.launch``.

    --clock MILLISECONDS   its wall clock is so much ahead (negative: behind)
    --lie SEED             it lies to its peers, with its own key, as far as signatures let it

The product has no hook for either. The clock is what Python tells the node, ``time.time_ns``; the
lies take the place of messages on the way to the links (``tests.sim.byzantine``, the same traitor
as in the simulator). Workers of the node check signatures and are as they should be.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from comity.keys import Key
from consensus import genesis
from consensus.errors import ComityError
from consensus.hotstuff import wire
from consensus.keyfile import KeyKind
from node import config as configs
from node import keyfiles
from node.main import run
from node.network.peers import PeerNetwork
from node.network.wire import Class
from tests.sim.byzantine import Traitor


def shift_clock(offset_ms: int) -> None:
    """Have everything in this process see another time of day."""
    true_ns, true = time.time_ns, time.time
    time.time_ns = lambda: true_ns() + offset_ms * 1_000_000
    time.time = lambda: true() + offset_ms / 1000


class OneKey:
    """Signs as the simulator's keys do, with the one key that this process has."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def sign(self, public: bytes, message: bytes) -> bytes:
        """Sign with the key whose public half is given."""
        assert public == self._key.public
        return self._key.sign(message)


def lie(path: Path, seed: int) -> None:
    """Have a traitor choose what each peer is told, in place of what the node would send."""
    config = configs.load(path, {})
    founded = config.path(config.node.genesis).read_bytes()
    committee = genesis.decode(founded).committee
    index = [each.agency for each in committee.validators].index(config.node.agency)
    pair = keyfiles.load(config.path(config.node.validator_key), KeyKind.VALIDATOR)
    key = Key(pair)
    traitor = Traitor(
        index,
        key.public,
        OneKey(key),  # type: ignore[arg-type]  # the simulator's keys have more; it takes no more
        genesis.chain_id(founded),
        committee.size,
        random.Random(seed),
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


def main() -> None:
    """Run the node of a configuration file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clock", type=int, default=0)
    parser.add_argument("--lie", type=int)
    parser.add_argument("config", type=Path)
    options = parser.parse_args()
    if options.clock:
        shift_clock(options.clock)
    if options.lie is not None:
        lie(options.config, options.lie)
    try:
        run(options.config)
    except ComityError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(1)


if __name__ == "__main__":  # workers that are started anew read this module too
    main()
