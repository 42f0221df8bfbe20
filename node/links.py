"""Where the links of one node go and who is let in: the committees, as its configuration amends.

A node trusts the certificates of its epoch's committee, and of all committees before it that it has
followed: each was elected by a block that the one before has certified. So two nodes find each
other however many epochs lie between them, as long as one node key of the later committee stood in
one of those that the earlier of the two knows.

Not here: the links themselves (``network``), and who observes (``observers``).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from consensus.committee import Validator
from consensus.hotstuff.events import FOLLOWER
from node.config import Config, ConfigError, split_address
from node.identity import Identity
from node.keyfiles import NodeKey
from node.network.guests import Guest
from node.network.peers import HelloState, NetworkConfig, PeerAddress
from node.network.tls import make_certificate, peer_contexts
from node.observers import observer_door

FORMER_MAX: Final = 256
"""Nodes of earlier committees, and certificates of them, that are still known: the newest."""
NOWHERE: Final = "", -1
"""The address of a node that nobody dials: it has no vote, and dials itself."""


def network_config(
    config: Config, identity: Identity, node_key: NodeKey, hello: Callable[[], HelloState]
) -> NetworkConfig:
    """Return what the links of a node depend on.

    Args:
        hello: asked for every introduction.

    Raises:
        ConfigError: an observer to which no door is named.
    """
    certificate = own_certificate(identity, node_key)
    known = {each.certificate: None for each in identity.committee.validators}
    for row in _before(identity):
        if len(known) < FORMER_MAX:
            known[row.certificate] = None
    host, port = _listens(config, identity)
    votes = identity.index != FOLLOWER
    return NetworkConfig(
        own_index=identity.index,
        peers=_addresses(config, identity),
        contexts=peer_contexts(certificate, node_key.seed, known),
        chain=identity.chain,
        listen_host=host,
        listen_port=port,
        hello=hello,
        jitter=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads retries, no secret
        own_key=node_key.public,
        former=_former(identity),
        observers=observer_door(config, certificate, node_key.seed) if votes else None,
    )


def own_certificate(identity: Identity, node_key: NodeKey) -> bytes:
    """Return the certificate (DER) of a node: the one that a committee names, if one does."""
    for row in (identity.row, identity.last_row):
        if row is not None and row.node_key == node_key.public:
            return row.certificate
    return make_certificate(node_key.seed, identity.agency)


def _listens(config: Config, identity: Identity) -> tuple[str, int]:
    row = identity.row
    if row is None:
        return NOWHERE
    if config.listen.peers:
        return split_address(config.listen.peers, "listen.peers")
    return row.peer_host, row.peer_port


def _addresses(config: Config, identity: Identity) -> tuple[PeerAddress, ...]:
    """Return where to dial whom, in the order of the committee."""
    found = []
    for index, validator in enumerate(identity.committee.validators):
        doors = _doors(config, identity, validator)
        if doors and index != identity.index:
            host, port = doors[0]
            others = tuple(doors[1:])
            found.append(
                PeerAddress(index, validator.agency, host, port, validator.node_key, others)
            )
    if config.node.role == "observer" and not found:
        names = ", ".join(each.agency for each in identity.committee.validators)
        raise ConfigError(
            "no door for observers is named",
            hint=f'write [follow] and agency = "host:port" of at least one of {names}',
        )
    return tuple(found)


def _doors(config: Config, identity: Identity, validator: Validator) -> list[tuple[str, int]]:
    """Return where a member may be dialled, the best first.

    Without a vote that is its door for observers, and then the peers' door: a node that the network
    has elected meanwhile, or had elected before, is let in there.
    """
    found = []
    follows = identity.index == FOLLOWER
    if follows and validator.agency in config.follow:
        found.append(split_address(config.follow[validator.agency], "follow"))
    if validator.agency in config.peers:
        found.append(split_address(config.peers[validator.agency], "peers"))
    elif config.node.role != "observer":
        found.append((validator.peer_host, validator.peer_port))
    return found


def _before(identity: Identity) -> Iterator[Validator]:
    """Yield the members of the committees before the epoch's, the newest first."""
    for committee in reversed(identity.committees[:-1]):
        yield from committee.validators


def _former(identity: Identity) -> tuple[Guest, ...]:
    """Return the nodes that earlier committees name and the epoch's does not, with their rights."""
    now = {each.node_key for each in identity.committee.validators}
    found: dict[bytes, Guest] = {}
    for committee in reversed(identity.committees[:-1]):
        for each in committee.validators:
            if each.node_key not in now and len(found) < FORMER_MAX:
                guest = Guest(each.agency, each.node_key, committee.epoch)
                found.setdefault(each.node_key, guest)
    return tuple(found.values())
