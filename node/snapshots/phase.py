"""The time in which a node is only joining: links, the joiner, and telemetry that says so.

Not here: the engine, which runs before and after (``node.main``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from structlog.typing import FilteringBoundLogger

from consensus.errors import ComityError
from node.config import Config, split_address
from node.keyfiles import NodeKey
from node.links import network_config
from node.network.peers import HelloState, PeerNetwork
from node.snapshots.joining import Joiner
from node.telemetry.health import Readiness, application, serve_telemetry
from node.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from node.runtime import Node


def node_key_for(keys: Sequence[NodeKey], present: NodeKey, attempt: int) -> NodeKey:
    """Return the node key to call peers with: the present one first, then those held beside it.

    A node that was away while a later committee named its next key is, by its present one, a former
    member to peers: they give it blocks as far as they keep them, and no snapshot.
    """
    order = [present, *[each for each in keys if each.public != present.public]]
    return order[attempt % len(order)]


async def join(
    config: Config,
    node: Node,
    log: FilteringBoundLogger,
    stopping: trio.Event,
    attempt: int = 0,
) -> bool:
    """Take a snapshot for a node whose last life has ended; return whether there is a new store.

    Args:
        node: what it was; its data is closed.
        stopping: ends this, with what was there in place.
        attempt: how many failed before.

    Raises:
        SnapshotError: no peer has one, or none goes on.
        PromisesLostError: peers show that this key has signed what its signer has forgotten.
        StorageFailedError: the store cannot be written.
    """
    metrics, above = Metrics(), node.engine.chronicle.certified
    folder = config.path(config.node.data)
    joiner = Joiner(node.identity, node.engine.signer, folder, above, log, metrics)
    hello = HelloState(node.identity.committee.epoch, above)
    node_key = node_key_for(node.node_keys, node.node_key, attempt)
    network = PeerNetwork(network_config(config, node.identity, node_key, lambda: hello), joiner)

    def readiness() -> Readiness:
        progress = joiner.progress
        problem = "asking peers for a snapshot"
        if progress.of:
            problem = f"joining by snapshot: {progress.entries} of {progress.of} entries"
        return Readiness(False, {"problem": problem, "certified": above})

    taken = False

    async def stop(scope: trio.CancelScope) -> None:
        await stopping.wait()
        scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop, nursery.cancel_scope)
            await nursery.start(network.run)
            host, port = split_address(config.listen.telemetry, "listen.telemetry")
            app = application(metrics, readiness, lambda: None)
            done = trio.Event()
            await nursery.start(serve_telemetry, app, host, port, done.wait)
            await joiner.run(network)
            taken = True
            done.set()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _single(group) from group
    return taken


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended it: an error of ours alone, or all of it."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found if isinstance(found, ComityError | OSError) else group
