"""Files that people carry between machines: an agency's member file, the contents of genesis."""

from __future__ import annotations

from dataclasses import replace

from comity import keys
from consensus import keyfile, memberfile
from consensus.errors import DecodeError, KeyFileError, SignatureError
from consensus.evidence import bundle
from consensus.genesis import decode, decode_head
from consensus.keyfile import KeyKind, KeyPair, from_seed
from consensus.memberfile import Member, Named
from tests.consensus.ledger.world import DEFAULT
from tests.fuzz.target import Target, of, vectors

FILES = vectors("files")


def member(data: bytes) -> None:
    found = memberfile.decode(data)
    assert found.people == tuple(sorted(found.people)), "accepted, but people do not ascend"


def made_members() -> list[bytes]:
    validator = from_seed(KeyKind.VALIDATOR, bytes(32))
    node = from_seed(KeyKind.NODE, b"n" * 32)
    own = replace(DEFAULT.committee.validators[0], key=validator.public, node_key=node.public)
    anna = Named("anna", b"p" * 32, b"s" * 32, from_seed(KeyKind.CLIENT, b"a" * 32).public)
    return [
        memberfile.encode(Member(bytes(32), own, people), _sign(validator), _sign(node))
        for people in ((), (anna,))
    ]


def _sign(pair: KeyPair) -> memberfile.Sign:
    return keys.Key(pair).sign


def genesis_head(data: bytes) -> None:
    decode_head(data)


def genesis_file(data: bytes) -> None:
    assert decode(data).encode() == data, "accepted, but not the canonical bytes"


def key_files(data: bytes) -> None:
    """What is said openly of any key file, and the key of a plain one."""
    info = keyfile.describe(data)
    if not info.sealed:
        keyfile.read(data)


def heads() -> list[bytes]:
    return [bundle.decode(bundle.unseal(of(vectors("bundle")["valid"], "file")[0]).content).head]


TARGETS = [
    Target("member-file", member, made_members(), (DecodeError, SignatureError)),
    Target("genesis-head", genesis_head, heads()),
    Target("genesis-vectors", genesis_file, of(FILES["genesis"]), bytes_max=32_768),
    Target("sealed-key-file", key_files, of(FILES["key_files"]), (KeyFileError,), bytes_max=2048),
]
