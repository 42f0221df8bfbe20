"""The validators of one epoch, in their order, and the arithmetic of quorums.

n validators, one vote each; ``f = floor((n - 1) / 3)`` may be Byzantine; a quorum is ``n - f``.
Two quorums share at least ``f + 1`` validators, hence an honest one (HotStuff, §2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, SignatureError
from consensus.hashing import H_COMMITTEE
from consensus.signing import check_key

VALIDATORS_MIN: Final = 4
VALIDATORS_MAX: Final = 64
PORT_MAX: Final = 65_535

VALIDATOR: Final = codec.array(
    codec.text(64, low=1),  # agency
    codec.bytes32,  # validator key
    codec.bytes32,  # node key
    codec.octets(low=1, high=4096),  # certificate, DER
    codec.text(255, low=1),  # peer host
    codec.integer(0, PORT_MAX),  # peer port
    codec.text(255, low=1),  # client host
    codec.integer(0, PORT_MAX),  # client port
)
COMMITTEE: Final = codec.array(
    codec.integer(1), codec.list_of(VALIDATOR, VALIDATORS_MAX, low=VALIDATORS_MIN)
)


def parse_address(text: str, port_min: int = 1) -> tuple[str, int] | None:
    """Return host and port of ``host:port`` or ``[host]:port``; None for what is no address.

    Args:
        text: as people write it; the port in decimal digits, ``port_min`` to PORT_MAX.
    """
    host, _, port = text.rpartition(":")
    digits = port.isascii() and port.isdigit() and len(port) <= len(str(PORT_MAX))
    if not host or not digits or not port_min <= int(port) <= PORT_MAX:
        return None
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class Validator:
    """One agency's voting node.

    ``key`` signs consensus messages, ``node_key`` is the Ed25519 key of ``certificate`` (DER), with
    which its TLS links and client sessions are authenticated.
    """

    agency: str
    key: bytes
    node_key: bytes
    certificate: bytes
    peer_host: str
    peer_port: int
    client_host: str
    client_port: int

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [
            self.agency,
            self.key,
            self.node_key,
            self.certificate,
            self.peer_host,
            self.peer_port,
            self.client_host,
            self.client_port,
        ]


@dataclass(frozen=True)
class Committee:
    """The validators of ``epoch``; a validator's index is its place in ``validators``."""

    epoch: int
    validators: tuple[Validator, ...]

    @property
    def size(self) -> int:
        """Number of validators, n."""
        return len(self.validators)

    @cached_property
    def faulty_max(self) -> int:
        """f, the number of Byzantine validators tolerated."""
        return faulty_max(len(self.validators))

    @cached_property
    def quorum(self) -> int:
        """q = n - f signatures make a certificate."""
        return len(self.validators) - self.faulty_max

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """Validator keys by index."""
        return tuple(validator.key for validator in self.validators)

    @cached_property
    def hash(self) -> bytes:
        """The ``committee_hash`` of blocks and statements."""
        return H_COMMITTEE(codec.encode(self.to_value()))

    def leader(self, round_: int) -> int:
        """Return the index of the leader of ``round_``: round-robin over the committee order."""
        return round_ % len(self.validators)

    def to_value(self) -> Value:
        """Return the canonical array ``[epoch, [validator, ...]]``."""
        return [self.epoch, [validator.to_value() for validator in self.validators]]


def faulty_max(size: int) -> int:
    """Return f, the number of Byzantine validators that a committee of ``size`` tolerates."""
    return (size - 1) // 3


def from_value(value: Value) -> Committee:
    """Return the committee that a decoded, shape-checked value describes.

    Raises:
        DecodeError: two validators share an agency or a key, or a key is weak.
    """
    epoch, rows = value
    validators = tuple(Validator(*row) for row in rows)
    _refuse_repeats([v.agency for v in validators], "agency")
    _refuse_repeats([key for v in validators for key in (v.key, v.node_key)], "key")
    for validator in validators:
        refuse_weak(validator.key, "committee")
        refuse_weak(validator.node_key, "committee")
    return Committee(epoch, validators)


def refuse_weak(key: bytes, path: str) -> None:
    """Raise DecodeError at ``path`` if ``key`` is no key that may sign."""
    try:
        check_key(key)
    except SignatureError as error:
        raise DecodeError(error.message, path=path) from error


def _refuse_repeats(items: Sequence[object], what: str) -> None:
    if len(set(items)) != len(items):
        raise DecodeError(f"two validators share one {what}", path="committee")
