"""Where the links of one node go: the committee's addresses, as its configuration amends them.

Not here: the links themselves (``network``).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable

from node.config import Config, split_address
from node.identity import Identity
from node.keyfiles import NodeKey
from node.network.peers import HelloState, NetworkConfig, PeerAddress
from node.network.tls import peer_contexts


def network_config(
    config: Config, identity: Identity, node_key: NodeKey, hello: Callable[[], HelloState]
) -> NetworkConfig:
    """Return what the links of a node depend on.

    Args:
        hello: asked for every introduction.
    """
    committee = identity.committee
    own = committee.validators[identity.index]
    peers = []
    for index, validator in enumerate(committee.validators):
        host, port = validator.peer_host, validator.peer_port
        if validator.agency in config.peers:
            host, port = split_address(config.peers[validator.agency], "peers")
        peers.append(PeerAddress(index, validator.agency, host, port, validator.node_key))
    listen = own.peer_host, own.peer_port
    if config.listen.peers:
        listen = split_address(config.listen.peers, "listen.peers")
    certificates = [validator.certificate for validator in committee.validators]
    return NetworkConfig(
        own_index=identity.index,
        peers=tuple(peers),
        contexts=peer_contexts(own.certificate, node_key.seed, certificates),
        chain=identity.chain,
        listen_host=listen[0],
        listen_port=listen[1],
        hello=hello,
        jitter=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads retries, no secret
    )
