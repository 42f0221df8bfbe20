"""The genesis file: everything all agencies must agree on before the first block.

One canonical CBOR map. ``chain`` is its hash and is bound into every signature, so two networks can
share keys without sharing a single valid message. Height 0, epoch 1, a virtual certificate; the
state root is derived from the contents (``ledger.genesis_state``), never stored.

The file is hashed in two parts, each a canonical map of some of its entries: the *head* says what
verifying takes, the network's limits and first committee; the *contents* are what the state begins
with. So evidence carries the head and a hash, not every official that a network began with:

    chain = H_genesis(head ‖ H_genesis contents(contents))

Not here: what the rows become in the state, and how a ceremony collects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from consensus import codec
from consensus.codec import Value
from consensus.committee import COMMITTEE, Committee, from_value, refuse_weak
from consensus.errors import DecodeError, invariant
from consensus.hashing import DIGEST_BYTES, H_GENESIS, context

T = TypeVar("T")

MAGIC: Final = "comity genesis"
VERSION: Final = 1
GENESIS_NAME: Final = "genesis.cbor"
"""What the file is called where nothing else is said."""
EPOCH: Final = 1
GENESIS_BYTES_MAX: Final = 64 * 1024 * 1024
HEAD_BYTES_MAX: Final = 1024 * 1024
RULE_SETS_MAX: Final = 64
"""Domains of a network. A decision has up to two leaves for each, and 256 leaves at most."""

OFFICIAL: Final = 0
SYSTEM: Final = 1
CITIZEN: Final = 2

_H_CONTENTS: Final = context("genesis contents")
_NAME: Final = codec.text(64, low=1)
_COMPONENTS: Final = codec.list_of(codec.plain, 16)

_LIMITS: Final = {
    "batch_bytes_max": codec.integer(1024, 16 * 2**20),
    "batch_transactions_max": codec.integer(1, 16_384),
    "payload_bytes_max": codec.integer(1024, 64 * 2**20),
    "payload_batches_max": codec.integer(1, 1024),
    "not_after_ms_max": codec.integer(1000, 30 * 86_400_000),
    "notice_ms": codec.integer(1000, 366 * 86_400_000),
}

_HEAD: Final = {
    "magic": codec.text(32),
    "version": codec.integer(1),
    "network": _NAME,
    "time_ms": codec.count,
    "executor": codec.integer(1),
    "tree_depth": codec.integer(4, 24),
    "limits": codec.mapping(_LIMITS),
    "committee": COMMITTEE,
}
_SHAPE: Final = codec.mapping(
    {
        **_HEAD,
        "agencies": codec.list_of(codec.array(_NAME, codec.text(256, low=1)), 1024, low=1),
        "principals": codec.list_of(
            codec.array(
                codec.bytes32,  # id
                _NAME,  # agency
                codec.integer(OFFICIAL, CITIZEN),
                codec.optional(codec.bytes32),  # subject token of the identity registrar
                codec.optional(_COMPONENTS),  # person record, for citizens
            ),
            100_000,
        ),
        "keys": codec.list_of(codec.array(codec.bytes32, codec.bytes32), 100_000),
        "roles": codec.list_of(
            codec.array(
                codec.bytes32,  # principal
                _NAME,  # role, "domain.name"
                codec.list_of(codec.array(_NAME, codec.text(256)), 16),  # scope, sorted by name
                codec.count,  # from_ms
                codec.optional(codec.count),  # until_ms, exclusive
            ),
            200_000,
        ),
        "rules": codec.list_of(codec.octets(low=1, high=2**20), RULE_SETS_MAX, low=1),
        "accounts": codec.list_of(codec.array(_NAME, _COMPONENTS, codec.integer()), 100_000),
    }
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds every block, the same at every node. Bytes, counts and milliseconds.

    ``notice_ms`` lies at least between the activation of a charter and its coming into force, and
    is the notice of all rule sets unless the charter says otherwise.
    """

    batch_bytes_max: int = 1024 * 1024
    batch_transactions_max: int = 4096
    payload_bytes_max: int = 4 * 1024 * 1024
    payload_batches_max: int = 128
    not_after_ms_max: int = 86_400_000
    notice_ms: int = 7 * 86_400_000

    def to_value(self) -> Value:
        """Return the map of the genesis file."""
        return {name: getattr(self, name) for name in _LIMITS}


@dataclass(frozen=True, slots=True)
class Agency:
    """A member organisation: short ``name`` used everywhere, ``title`` for people."""

    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Principal:
    """Who can sign. ``kind`` is OFFICIAL, SYSTEM or CITIZEN.

    ``subject`` is the registrar's token of the person behind an official; ``person`` the id of a
    citizen's own person record.
    """

    id: bytes
    agency: str
    kind: int
    subject: bytes | None = None
    person: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class RoleGiven:
    """A role of a principal with its scope, valid in ``from_ms <= t < until_ms``."""

    principal: bytes
    role: str
    scope: tuple[tuple[str, str], ...] = ()
    from_ms: int = 0
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class OpeningBalance:
    """An account that exists from the start. ``balance`` in minor units of its family."""

    family: str
    id: tuple[Value, ...]
    balance: int


@dataclass(frozen=True, slots=True)
class Head:
    """What the head of a genesis file says: all that verifying needs of it."""

    network: str
    time_ms: int
    executor: int
    tree_depth: int
    limits: Limits
    committee: Committee


@dataclass(frozen=True, slots=True)
class Genesis:
    """The decoded genesis file."""

    network: str
    time_ms: int
    executor: int
    tree_depth: int
    limits: Limits
    committee: Committee
    agencies: tuple[Agency, ...]
    principals: tuple[Principal, ...]
    keys: tuple[tuple[bytes, bytes], ...]
    """(public key, principal id)"""
    roles: tuple[RoleGiven, ...]
    rules: tuple[bytes, ...]
    """Canonical rule sets, the charter among them."""
    accounts: tuple[OpeningBalance, ...]

    def encode(self) -> bytes:
        """Return the bytes of the genesis file."""
        return codec.encode(
            {
                "magic": MAGIC,
                "version": VERSION,
                "network": self.network,
                "time_ms": self.time_ms,
                "executor": self.executor,
                "tree_depth": self.tree_depth,
                "limits": self.limits.to_value(),
                "committee": self.committee.to_value(),
                "agencies": [[a.name, a.title] for a in self.agencies],
                "principals": [
                    [p.id, p.agency, p.kind, p.subject, None if p.person is None else [*p.person]]
                    for p in self.principals
                ],
                "keys": [list(pair) for pair in self.keys],
                "roles": [
                    [r.principal, r.role, [list(s) for s in r.scope], r.from_ms, r.until_ms]
                    for r in self.roles
                ],
                "rules": list(self.rules),
                "accounts": [[a.family, [*a.id], a.balance] for a in self.accounts],
            }
        )


def chain_id(data: bytes) -> bytes:
    """Return ``chain``, the 32-byte hash of a genesis file's bytes.

    Raises:
        DecodeError: not a CBOR map.
    """
    return chain_of(*split(data))


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the head of a genesis file, and the hash of its contents.

    Raises:
        DecodeError: not a CBOR map.
    """
    value = codec.parse(data, "genesis")
    if type(value) is not dict:
        raise DecodeError("expected a map", path="genesis")
    head = {name: part for name, part in value.items() if name in _HEAD}
    contents = {name: part for name, part in value.items() if name not in _HEAD}
    return codec.encode(head), _H_CONTENTS(codec.encode(contents))


def chain_of(head: bytes, contents_hash: bytes) -> bytes:
    """Return ``chain`` of a head and the hash of the contents."""
    invariant(len(contents_hash) == DIGEST_BYTES, "a hash of contents has 32 bytes")
    return H_GENESIS(head + contents_hash)


def decode_head(data: bytes) -> Head:
    """Return what the head of a genesis file says.

    Raises:
        DecodeError: malformed, or of a newer version.
    """
    value = codec.decode(data, codec.mapping(_HEAD), bytes_max=HEAD_BYTES_MAX, what="genesis head")
    return _head(value)


def _head(value: dict[str, Value]) -> Head:
    if value["magic"] != MAGIC:
        raise DecodeError("this is not a genesis file", path="genesis.magic")
    if value["version"] != VERSION:
        raise DecodeError(
            f"version {value['version']}; this software reads version {VERSION}",
            path="genesis.version",
            hint="install the release that made this file",
        )
    if value["executor"] != 1:
        raise DecodeError("this software has executor 1 only", path="genesis.executor")
    if value["tree_depth"] % 2:
        raise DecodeError("the tree depth is even (two bits a level)", path="genesis.tree_depth")
    committee = from_value(value["committee"])
    if committee.epoch != EPOCH:
        raise DecodeError("the first epoch is 1", path="genesis.committee")
    return Head(
        network=value["network"],
        time_ms=value["time_ms"],
        executor=value["executor"],
        tree_depth=value["tree_depth"],
        limits=Limits(**value["limits"]),
        committee=committee,
    )


def decode(data: bytes) -> Genesis:
    """Return the genesis that a file's bytes describe.

    Raises:
        DecodeError: malformed, of a newer version, or its parts do not fit together (an unknown
            agency or principal, a repeated id or key, a weak key, an unsorted scope).
    """
    value = codec.decode(data, _SHAPE, bytes_max=GENESIS_BYTES_MAX, what="genesis")
    head = _head(value)
    genesis = Genesis(
        network=head.network,
        time_ms=head.time_ms,
        executor=head.executor,
        tree_depth=head.tree_depth,
        limits=head.limits,
        committee=head.committee,
        agencies=tuple(Agency(*row) for row in value["agencies"]),
        principals=tuple(
            Principal(row[0], row[1], row[2], row[3], None if row[4] is None else tuple(row[4]))
            for row in value["principals"]
        ),
        keys=tuple((key, principal) for key, principal in value["keys"]),
        roles=tuple(
            RoleGiven(row[0], row[1], tuple((k, v) for k, v in row[2]), row[3], row[4])
            for row in value["roles"]
        ),
        rules=tuple(value["rules"]),
        accounts=tuple(OpeningBalance(f, tuple(i), b) for f, i, b in value["accounts"]),
    )
    _check_references(genesis)
    return genesis


def _check_references(genesis: Genesis) -> None:
    agencies = _distinct([a.name for a in genesis.agencies], "agencies")
    principals = _distinct([p.id for p in genesis.principals], "principals")
    _distinct([key for key, _ in genesis.keys], "keys")
    for validator in genesis.committee.validators:
        if validator.agency not in agencies:
            raise DecodeError(f"unknown agency {validator.agency!r}", path="genesis.committee")
    for principal in genesis.principals:
        if principal.agency not in agencies:
            raise DecodeError(f"unknown agency {principal.agency!r}", path="genesis.principals")
    for key, owner in genesis.keys:
        refuse_weak(key, "genesis.keys")
        if owner not in principals:
            raise DecodeError("a key of an unknown principal", path="genesis.keys")
    for role in genesis.roles:
        if role.principal not in principals:
            raise DecodeError("a role of an unknown principal", path="genesis.roles")
        names = [name for name, _ in role.scope]
        if names != sorted(set(names)):
            raise DecodeError("a scope is sorted by name, each once", path="genesis.roles")


def _distinct(items: Sequence[T], what: str) -> set[T]:
    found = set(items)
    if len(found) != len(items):
        raise DecodeError("an entry occurs twice", path=f"genesis.{what}")
    return found
