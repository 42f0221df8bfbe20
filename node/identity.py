"""Who this node is: the genesis file, its place in the committee, and its keys.

Not here: the format of key files (``consensus.keyfile``), and signing (``signer``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from consensus import genesis
from consensus.committee import Committee
from consensus.errors import ComityError, DecodeError
from consensus.genesis import EPOCH, Genesis
from consensus.hotstuff.types import Block, QuorumCert, genesis_block, genesis_cert
from consensus.keyfile import KeyKind, KeyPair
from node import keyfiles
from node.config import Config, ConfigError
from node.epochs import Ended
from node.keyring import Keyring


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is in the committee."""

    genesis: Genesis
    chain: bytes
    index: int
    ended: tuple[Ended, ...] = ()
    """The ends of all epochs before this one."""

    @property
    def committee(self) -> Committee:
        """Validators of the epoch."""
        return self.ended[-1].committee if self.ended else self.genesis.committee

    @property
    def start(self) -> QuorumCert:
        """The virtual certificate that the epoch started from."""
        return self.ended[-1].start if self.ended else genesis_cert(self.first_block)

    @property
    def agency(self) -> str:
        """Whose node this is."""
        return self.committee.validators[self.index].agency

    def at(self, ended: tuple[Ended, ...]) -> Identity:
        """Return who this node is in the epoch after ``ended``.

        Raises:
            ConfigError: its agency has no validator there.
        """
        if len(ended) == len(self.ended):
            return self
        names = [validator.agency for validator in ended[-1].committee.validators]
        if self.agency not in names:
            raise ConfigError(
                f"{self.agency} has no validator since height {ended[-1].height}",
                hint="its data can be read with `comity audit` and `comity snapshot export`",
            )
        return replace(self, index=names.index(self.agency), ended=ended)

    def index_in(self, epoch: int) -> int | None:
        """Return this agency's place in the committee of an epoch up to this one; None: none."""
        committees = [self.genesis.committee, *[each.committee for each in self.ended]]
        names = [validator.agency for validator in committees[epoch - EPOCH].validators]
        return names.index(self.agency) if self.agency in names else None

    @property
    def first_block(self) -> Block:
        """The block of height 0."""
        return genesis_block(self.chain, self.genesis.committee.hash, self.genesis.time_ms)


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


def load_keys(
    config: Config, identity: Identity, keyring: Keyring
) -> tuple[KeyPair, keyfiles.NodeKey]:
    """Return the validator's key and the node's key, which the genesis file must name.

    Raises:
        ComityError: a file cannot be used, or holds another key.
    """
    own = identity.committee.validators[identity.index]
    key = keyring.load(config.path(config.node.validator_key), KeyKind.VALIDATOR)
    node_key = keyfiles.NodeKey(keyring.load(config.path(config.node.node_key), KeyKind.NODE))
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
