"""The member file: what one agency says of itself before it is a member. Pure functions.

Whoever founds a network or joins one makes its keys at home and sends this one file, and so does a
member that replaces its keys or moves. Nothing in it is secret. Canonical CBOR:

    file = ["comity member", 1, body, validator signature, node signature]
    body = bytes of [purpose, validator, [[name, principal, subject, key], ...]]
    purpose     32 bytes: the hash of the terms of a founding; or the chain that is joined, or in
                which a member changes its validator
    validator   as in the committee: agency, keys, certificate, addresses
    people      of the agency, ascending by name: id, the registrar's token, public key

Both keys sign ``tag ‖ purpose ‖ body``: so they are the sender's, and a file for one purpose is of
no use for another.

Not here: whose file it is, which people must compare by word of mouth; what becomes of it.
Source: docs/protocol/files.cddl.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from consensus import codec
from consensus.codec import Value
from consensus.committee import VALIDATOR, Validator, refuse_weak
from consensus.errors import DecodeError
from consensus.hashing import context
from consensus.signing import TAG_MEMBER, message, verify

MAGIC: Final = "comity member"
VERSION: Final = 1
FILE_BYTES_MAX: Final = 1024 * 1024
PEOPLE_MAX: Final = 4096

_H_FILE: Final = context("member file")
_PERSON: Final = codec.array(
    codec.text(64, low=1), codec.bytes32, codec.optional(codec.bytes32), codec.bytes32
)
_BODY: Final = codec.array(codec.bytes32, VALIDATOR, codec.list_of(_PERSON, PEOPLE_MAX))
_FILE: Final = codec.array(
    codec.text(32),
    codec.integer(1),
    codec.octets(low=1, high=FILE_BYTES_MAX),
    codec.bytes64,
    codec.bytes64,
)

Sign = Callable[[bytes], bytes]
"""Returns a key's signature over bytes."""


class Named(NamedTuple):
    """A person of the agency: ``subject`` is the registrar's token of who an official is."""

    name: str
    principal: bytes
    subject: bytes | None
    key: bytes


@dataclass(frozen=True, slots=True)
class Member:
    """What an agency says of itself. ``people`` ascend by name."""

    purpose: bytes
    validator: Validator
    people: tuple[Named, ...]

    def body(self) -> bytes:
        """Return the bytes that are signed."""
        people: list[Value] = [list(each) for each in self.people]
        return codec.encode([self.purpose, self.validator.to_value(), people])


def encode(member: Member, validator: Sign, node: Sign) -> bytes:
    """Return a member file that both keys have signed."""
    body = member.body()
    signed = message(TAG_MEMBER, member.purpose, body)
    return codec.encode([MAGIC, VERSION, body, validator(signed), node(signed)])


def digest(data: bytes) -> bytes:
    """Return the hash by which people compare a file."""
    return _H_FILE(data)


def decode(data: bytes) -> Member:
    """Return what a member file says, once both its keys are known to have signed it.

    Raises:
        DecodeError: malformed, of a newer version, a weak key, one key in two places, or people
            that do not ascend.
        SignatureError: somebody changed the file.
    """
    member, body, signatures = _read(data)
    names = [each.name for each in member.people]
    if any(before >= after for before, after in pairwise(names)):
        raise DecodeError("people ascend by name, each once", path="member[2]")
    own = member.validator
    keys = [own.key, own.node_key, *(each.key for each in member.people)]
    if len(set(keys)) != len(keys):
        raise DecodeError("one key is given twice", path="member")
    for key in keys:
        refuse_weak(key, "member")
    signed = message(TAG_MEMBER, member.purpose, body)
    for key, signature in zip((own.key, own.node_key), signatures, strict=True):
        verify(key, signed, signature)
    return member


def peek(data: bytes) -> Member:
    """Return what a member file says, whoever made it: ``decode`` without all that takes time.

    Raises:
        DecodeError: malformed, or of a newer version.
    """
    return _read(data)[0]


def _read(data: bytes) -> tuple[Member, bytes, tuple[bytes, bytes]]:
    """Return what a file says, the bytes that are signed, and the signatures."""
    magic, version, body, *signatures = codec.decode(
        data, _FILE, bytes_max=FILE_BYTES_MAX, what="member file"
    )
    if magic != MAGIC:
        raise DecodeError("this is not a member file", path="member file[0]")
    if version != VERSION:
        raise DecodeError(
            f"version {version}; this software reads version {VERSION}",
            path="member file[1]",
            hint="install the release that made this file",
        )
    purpose, row, people = codec.decode(body, _BODY, bytes_max=FILE_BYTES_MAX, what="member")
    member = Member(purpose, Validator(*row), tuple(Named(*each) for each in people))
    return member, body, (signatures[0], signatures[1])
