"""One of the attackers of ``tests.byzantine.attackers`` at the mouth of a real node.

Inside, the node is as it should be. What it would tell its peers goes through the attacker, with
the node's own key; what peers tell it, the attacker hears. Snapshots and sealed values pass as they
are. The first lie is said on standard error, so that a test knows that there was one.
"""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING

from consensus.hotstuff import wire
from node import batch_wire
from node.engine import Engine
from node.network.peers import PeerNetwork
from node.network.wire import Class
from node.sealed import wire as sealed_wire
from node.snapshots import wire as snapshot_wire
from tests.byzantine.attackers.table import ATTACKERS
from tests.sim.network import Parcel

if TYPE_CHECKING:
    from tests.network.harness.launch import Liar

BATCH_BYTES_MAX = 2**20
SAID = "attacked:"
"""What the first lie is announced with."""


def attack(liar: Liar, name: str) -> None:
    """Have an attacker choose what each peer is told."""
    attacker = ATTACKERS[name](
        liar.index,
        liar.committee.size,
        liar.sign,
        liar.chain,
        random.Random(liar.seed),
    )
    send, take = PeerNetwork.send, Engine.take

    def tell(network: PeerNetwork, peer: int, cls: Class, payload: bytes) -> bool:
        parcel = _read(cls, payload)
        if parcel is None or peer >= liar.committee.size:
            return send(network, peer, cls, payload)
        before = attacker.attacks
        told = attacker.tell(peer, parcel)
        if attacker.attacks and not before:
            print(SAID, name, file=sys.stderr, flush=True)
        taken = [send(network, peer, *_written(cls, each)) for each in told]
        return all(taken)

    def broadcast(network: PeerNetwork, cls: Class, payload: bytes) -> None:
        for peer in network.connected:
            tell(network, peer, cls, payload)

    def hear(engine: Engine, peer: int, cls: Class, payload: bytes) -> None:
        parcel = _read(cls, payload)
        if parcel is not None:
            attacker.hears(peer, parcel)
        take(engine, peer, cls, payload)

    PeerNetwork.send = tell  # type: ignore[method-assign]
    PeerNetwork.broadcast = broadcast  # type: ignore[method-assign]
    Engine.take = hear  # type: ignore[method-assign]


def _read(cls: Class, payload: bytes) -> Parcel | None:
    """Return what a payload says; None: nothing that the simulator knows."""
    if sealed_wire.is_known(payload) or (cls is Class.SYNC and snapshot_wire.is_known(payload)):
        return None
    if cls is Class.BATCH or batch_wire.is_known(payload):
        return batch_wire.decode(payload, BATCH_BYTES_MAX)
    return wire.decode_message(payload)


def _written(cls: Class, parcel: Parcel) -> tuple[Class, bytes]:
    if isinstance(parcel, batch_wire.Push | batch_wire.Announce):
        return Class.BATCH, batch_wire.encode(parcel)
    if isinstance(parcel, batch_wire.Request | batch_wire.Response | batch_wire.Absent):
        return Class.SYNC, batch_wire.encode(parcel)
    return cls, wire.encode_message(parcel)
