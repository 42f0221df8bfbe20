"""Files in which agencies say who they are: what ``decode`` refuses that ``peek`` lets pass."""

from __future__ import annotations

import pytest
from blake3 import blake3

from consensus import memberfile
from consensus.errors import DecodeError
from consensus.memberfile import Member, Named
from tests.consensus.ledger import members

ROW = members.validator("health")


def file(*people: Named) -> bytes:
    """A file that both keys of the agency signed."""
    names = ("validator health 1", "node health 1")
    one, two = [lambda data, name=name: members.sign(name, data) for name in names]
    return memberfile.encode(Member(b"N" * 32, ROW, people), one, two)


def named(name: str, key: bytes | None = None) -> Named:
    return Named(name, b"p" * 32, None, key or members.public(name))


def test_a_file_says_what_its_keys_signed() -> None:
    data = file(named("chief"), named("clerk"))
    found = memberfile.decode(data)
    assert (found.purpose, found.validator) == (b"N" * 32, ROW)
    assert [each.name for each in found.people] == ["chief", "clerk"]
    assert memberfile.peek(data) == found
    hashed = blake3(data, derive_key_context="comity 2026-11-21 member file v1").digest()
    assert memberfile.digest(data) == hashed


@pytest.mark.parametrize("names", [("clerk", "chief"), ("chief", "chief")])
def test_people_ascend_by_name_and_each_is_there_once(names: tuple[str, str]) -> None:
    one, two = (named(name) for name in names)
    two = two._replace(key=members.public("another")) if names[0] == names[1] else two
    with pytest.raises(DecodeError, match="people ascend by name"):
        memberfile.decode(file(one, two))


@pytest.mark.parametrize("key", [ROW.key, ROW.node_key, members.public("chief")])
def test_one_key_has_one_place(key: bytes) -> None:
    with pytest.raises(DecodeError, match="one key is given twice"):
        memberfile.decode(file(named("chief"), named("clerk", key)))
