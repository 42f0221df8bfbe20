"""Who this node is: the genesis file, its place in the committee of each epoch, and its keys.

A node has a place in a committee that names its agency with a validator key and a node key that it
holds. It may hold two of each: the present ones and the next, for the epoch from which on the
committee names those. Without a place it follows, and signs nothing: an observer, an agency that is
to join or that has left, a machine that was replaced.

Not here: the format of key files (``consensus.keyfile``), and signing (``signer``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from consensus import genesis
from consensus.committee import Committee, Validator
from consensus.errors import ComityError, DecodeError, invariant
from consensus.genesis import EPOCH, Genesis
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import Block, QuorumCert, genesis_block, genesis_cert
from consensus.keyfile import KeyKind, KeyPair
from node.config import Config, ConfigError
from node.epochs import Ended
from node.keyfiles import NodeKey
from node.keyring import Keyring
from node.remote_signer import RemoteKey


@dataclass(frozen=True, slots=True)
class Own:
    """Whose node this is, and the public keys that it holds."""

    agency: str
    keys: tuple[bytes, ...]
    node_keys: tuple[bytes, ...]

    def place(self, committee: Committee) -> int:
        """Return the place in a committee, or ``FOLLOWER``."""
        for index, each in enumerate(committee.validators):
            if each.agency == self.agency:
                held = each.key in self.keys and each.node_key in self.node_keys
                return index if held else FOLLOWER
        return FOLLOWER


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is in one epoch.

    ``index`` is ``FOLLOWER`` without a vote in it. ``own`` may be left out where the keys are those
    of a place in the first committee.
    """

    genesis: Genesis
    chain: bytes
    index: int
    ended: tuple[Ended, ...] = ()
    """The ends of all epochs before this one."""
    own: Own | None = None

    @property
    def committee(self) -> Committee:
        """Validators of the epoch."""
        return self.ended[-1].committee if self.ended else self.genesis.committee

    @property
    def committees(self) -> tuple[Committee, ...]:
        """Those of all epochs up to this one."""
        return (self.genesis.committee, *[each.committee for each in self.ended])

    @property
    def start(self) -> QuorumCert:
        """The virtual certificate that the epoch started from."""
        return self.ended[-1].start if self.ended else genesis_cert(self.first_block)

    @property
    def holder(self) -> Own:
        """Whose node this is, and its keys."""
        if self.own is not None:
            return self.own
        invariant(self.index != FOLLOWER and not self.ended, "a follower's keys are not known")
        row = self.genesis.committee.validators[self.index]
        return Own(row.agency, (row.key,), (row.node_key,))

    @property
    def agency(self) -> str:
        """Whose node this is."""
        return self.holder.agency

    @property
    def row(self) -> Validator | None:
        """This node in the epoch's committee; None without a vote."""
        return None if self.index == FOLLOWER else self.committee.validators[self.index]

    @property
    def last_row(self) -> Validator | None:
        """This node in the newest committee that names it, with the node key that it holds."""
        own = self.holder
        for committee in reversed(self.committees):
            for each in committee.validators:
                if each.agency == own.agency and each.node_key in own.node_keys:
                    return each
        return None

    def at(self, ended: tuple[Ended, ...]) -> Identity:
        """Return who this node is in the epoch after ``ended``."""
        if len(ended) == len(self.ended):
            return self
        own = self.holder
        return replace(self, index=own.place(ended[-1].committee), ended=ended, own=own)

    def index_in(self, epoch: int) -> int | None:
        """Return this node's place in the committee of an epoch up to this one; None: none."""
        found = self.holder.place(self.committees[epoch - EPOCH])
        return None if found == FOLLOWER else found

    @property
    def first_block(self) -> Block:
        """The block of height 0."""
        return genesis_block(self.chain, self.genesis.committee.hash, self.genesis.time_ms)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a node holds: its present keys and, where their files exist, the next ones.

    An observer has no validator key.
    """

    validators: tuple[KeyPair | RemoteKey, ...]
    nodes: tuple[NodeKey, ...]

    def own(self, agency: str) -> Own:
        """Return whose they are, with the public parts."""
        validators = tuple([each.public for each in self.validators])
        return Own(agency, validators, tuple([each.public for each in self.nodes]))


def load_identity(config: Config, keys: Keys) -> Identity:
    """Return who the configured node is in the first epoch.

    Raises:
        ComityError: the genesis file cannot be read or used.
    """
    found, data = load_genesis(config)
    own = keys.own(config.node.agency)
    return Identity(found, genesis.chain_id(data), own.place(found.committee), (), own)


def load_genesis(config: Config) -> tuple[Genesis, bytes]:
    """Return what the genesis file founds, and its bytes.

    Raises:
        ComityError: the file cannot be read or used.
    """
    path, place = config.path(config.node.genesis), config.at("node", "genesis")
    try:
        with path.open("rb") as file:
            data = file.read(genesis.GENESIS_BYTES_MAX + 1)
    except OSError as error:
        raise DecodeError(
            f"{place}cannot read the genesis file {path}: {error.strerror}",
            hint="name the file that all agencies compared in [node] genesis",
        ) from error
    try:
        found = genesis.decode(data)
    except ComityError as error:
        raise DecodeError(
            f"{place}{path} cannot be used: {error.message}",
            hint="copy the genesis file again, and compare its hash with the other agencies'",
        ) from error
    return found, data


def load_keys(config: Config, keyring: Keyring) -> Keys:
    """Return the keys in the files that the configuration names.

    With ``[signer] socket`` the validator's is another process's, to be asked for there; with
    ``socket_next`` alone the present one is a file's and the next one another process's.

    Raises:
        ComityError: a file cannot be used.
    """
    section = config.node

    def held(kind: KeyKind) -> list[KeyPair]:
        first = f"{kind}_key"
        paths = {key: config.path(getattr(section, key)) for key in (first, f"{first}_next")}
        found = []
        for key, path in paths.items():
            if key != first and not path.exists():
                continue
            with config.blaming("node", key):
                found.append(keyring.load(path, kind))
        return found

    nodes = held(KeyKind.NODE)
    validators: list[KeyPair | RemoteKey] = []
    if section.role != "observer":
        validators += _remote_keys(config)
        if not config.signer.socket:
            validators += held(KeyKind.VALIDATOR)
    return Keys(tuple(validators), tuple([NodeKey(each) for each in nodes]))


def _remote_keys(config: Config) -> list[KeyPair | RemoteKey]:
    given = config.signer
    named = [("", given.key, given.socket), ("_next", given.key_next, given.socket_next)]
    keys: list[KeyPair | RemoteKey] = []
    for suffix, key, place in named:
        if not key and not place:
            continue
        if not place or not re.fullmatch("(0x)?[0-9a-f]{64}", key):
            raise ConfigError(
                f"{config.at('signer', f'key{suffix}')}[signer] key{suffix} = {key!r} is not the "
                f"public key of the signer at socket{suffix} = {place!r}: 64 hexadecimal digits",
                hint="`comity signer check` shows it",
            )
        keys.append(RemoteKey(bytes.fromhex(key.removeprefix("0x")), config.path(place)))
    return keys


def check_role(config: Config, identity: Identity) -> None:
    """Refuse a validator whose keys no committee has ever named: a wrong file, or a wrong name.

    Whoever had a vote and has none any more follows, whatever its role.

    Raises:
        ConfigError: what does not fit.
    """
    if config.node.role != "validator" or identity.index != FOLLOWER:
        return
    own = identity.holder
    rows = [_row(committee, own.agency) for committee in identity.committees]
    if any(own.place(committee) != FOLLOWER for committee in identity.committees):
        return
    newest = next((row for row in reversed(rows) if row is not None), None)
    if newest is None:
        names = [each.agency for each in identity.committee.validators]
        raise ConfigError(
            f"{config.at('node', 'agency')}{own.agency!r} has no validator in "
            f"{config.path(config.node.genesis)}",
            hint=f"[node] agency is one of {', '.join(names)}; an agency that is to join has "
            'role = "joining", one that only follows role = "observer"',
        )
    wrong = (
        ("validator_key", config.node.validator_key, newest.key in own.keys),
        ("node_key", config.node.node_key, newest.node_key in own.node_keys),
    )
    setting, file = next((setting, file) for setting, file, held in wrong if not held)
    raise ConfigError(
        f"{config.at('node', setting)}{config.path(file)} is not the key that the genesis file "
        f"names for {own.agency}",
        hint=f"check [node] {setting}, agency and genesis; a machine that is to take over under "
        'a new key has role = "joining"',
    )


def place_words(identity: Identity) -> str:
    """Return why a node has no vote in this epoch, in words for its operator."""
    own, epoch = identity.holder, identity.committee.epoch
    row = _row(identity.committee, own.agency)
    before = [c.epoch for c in identity.committees if own.place(c) != FOLLOWER]
    if row is None:
        if before:
            return f"{own.agency} has no vote since epoch {before[-1] + 1}"
        return f"{own.agency} has no vote in epoch {epoch}"
    if row.key not in own.keys:
        return f"{own.agency} votes by another key in epoch {epoch}: another machine has taken over"
    return f"the node key that epoch {epoch} names for {own.agency} is not held here"


def _row(committee: Committee, agency: str) -> Validator | None:
    return next((each for each in committee.validators if each.agency == agency), None)


def chosen(keys: Sequence[KeyPair | RemoteKey], identity: Identity) -> KeyPair | RemoteKey | None:
    """Return the validator key that the epoch's committee names; None without a vote."""
    row = identity.row
    return None if row is None else next(each for each in keys if each.public == row.key)


def chosen_node(keys: Sequence[NodeKey], identity: Identity) -> NodeKey:
    """Return the node key that the epoch's committee names, or the newest one that did."""
    row = identity.row or identity.last_row
    held = {each.public: each for each in keys}
    return keys[0] if row is None else held.get(row.node_key, keys[0])
