"""People behind principals: who is one person, and duties that no one person may have.

A principal names the registrar's token of the person behind it, a citizen's the own record. Where
the id of that record is one token, the two are compared: an official is the person of that record,
and nobody's own case is decided by way of another kind of principal. ``subject/<token>`` (or the
person's id, where it has several parts) lists the principals of one person, so that roles can be
held against each other across agencies and keys.

A rule set says which roles no person may have at once (``separate``). That binds the roles of its
own domain, and every role if it is the charter: so no domain takes power from another's people.

Not here: when this is looked at (``authority`` for acts, ``kernel.people`` for roles given).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from consensus.codec import Value, same
from consensus.ledger.layout import Principal, Role
from consensus.ledger.view import View

Read = Callable[[str, list[Value]], Any]
"""Return the object of a leaf, or None, and note that it was read."""

NOBODY: Final[tuple[bytes, ...]] = ()


def one_person(one: Principal, other: Principal) -> bool:
    """Return whether two principals are one, or stand for the same person."""
    if one.id == other.id or (one.subject is not None and one.subject == other.subject):
        return True
    return any(is_person(other, name) for name in _names(one))


def is_person(principal: Principal, value: Value) -> bool:
    """Return whether ``value`` names the person behind a principal: a token, or a person's id."""
    name = _bare(value)
    return any(same(name, known) for known in _names(principal))


def _names(principal: Principal) -> list[Value]:
    """Return what the person behind a principal is known by: nothing of a system."""
    names = [] if principal.subject is None else [principal.subject]
    person = _bare(principal.person)
    return names if person is None or person in names else [*names, person]


def _bare(value: Value) -> Value:
    """Return the token itself of an id that is one token."""
    if type(value) is list and len(value) == 1 and type(value[0]) is bytes:
        return value[0]
    return value


def listed_under(principal: Principal) -> list[list[Value]]:
    """Return the components of the leaves that list a principal: none for a system."""
    return [[name] for name in _names(principal)]


def principals_of(read: Read, principal: Principal) -> list[bytes]:
    """Return the principals of the person behind one, itself first."""
    found = {principal.id: None}
    for components in listed_under(principal):
        found.update(dict.fromkeys(read("subject", components) or NOBODY))
    return list(found)


def conflicts(view: View, read: Read, principal: Principal, role: str) -> list[Role]:
    """Return what the person behind a principal was given and nobody with ``role`` may have.

    Those that are revoked or have ended too: the caller knows which time matters.
    """
    others = view.book.separate.get(role)
    if others is None:
        return []
    given = [
        read("role", [id_, other]) for id_ in principals_of(read, principal) for other in others
    ]
    return [each for each in given if each is not None]


def rules_behind(view: View, role: str) -> list[str]:
    """Return the domains whose rule sets say what ``role`` must not meet, each once."""
    return list(dict.fromkeys(view.book.separate.get(role, {}).values()))
