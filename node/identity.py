"""Who this node is: the genesis file, its place in the committee, and its keys.

Not here: the format of key files (``consensus.keyfile``), and signing (``signer``).
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus import genesis
from consensus.committee import Committee
from consensus.errors import ComityError, DecodeError
from consensus.genesis import Genesis
from consensus.hotstuff.types import Block, genesis_block
from consensus.keyfile import KeyKind, KeyPair
from node import keyfiles
from node.config import Config, ConfigError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is in the committee."""

    genesis: Genesis
    chain: bytes
    index: int

    @property
    def committee(self) -> Committee:
        """Validators of the first epoch."""
        return self.genesis.committee

    @property
    def first_block(self) -> Block:
        """The block of height 0."""
        return genesis_block(self.chain, self.committee.hash, self.genesis.time_ms)


def load_identity(config: Config) -> Identity:
    """Return who the configured node is.

    Raises:
        ComityError: the genesis file cannot be read or used, or the agency is not a member.
    """
    path = config.path(config.node.genesis)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(
            f"cannot read the genesis file {path}: {error.strerror}",
            hint="name the file that all agencies compared in [node] genesis",
        ) from error
    try:
        found = genesis.decode(data)
    except ComityError as error:
        raise DecodeError(
            f"{path} cannot be used: {error.message}",
            hint="copy the genesis file again, and compare its hash with the other agencies'",
        ) from error
    names = [validator.agency for validator in found.committee.validators]
    if config.node.agency not in names:
        raise DecodeError(
            f"{config.node.agency!r} has no validator in {path}",
            hint=f"[node] agency is one of {', '.join(names)}",
        )
    return Identity(found, genesis.chain_id(data), names.index(config.node.agency))


def load_keys(config: Config, identity: Identity) -> tuple[KeyPair, keyfiles.NodeKey]:
    """Return the validator's key and the node's key, which the genesis file must name.

    Raises:
        ComityError: a file cannot be used, or holds another key.
    """
    own = identity.committee.validators[identity.index]
    key = keyfiles.load(config.path(config.node.validator_key), KeyKind.VALIDATOR)
    node_key = keyfiles.NodeKey.load(config.path(config.node.node_key))
    for setting, file, found, named in (
        ("validator_key", config.node.validator_key, key.public, own.key),
        ("node_key", config.node.node_key, node_key.public, own.node_key),
    ):
        if found != named:
            raise ConfigError(
                f"{config.path(file)} is not the key that the genesis file names for {own.agency}",
                hint=f"check [node] {setting}, agency and genesis",
            )
    return key, node_key
