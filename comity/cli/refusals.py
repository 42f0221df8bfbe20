"""What a certified refusal means, in one sentence for people. ``codes.Code`` lists the details."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from comity.cli.values import time_word
from comity.words import id_word, word
from consensus.codec import Value

Sentence = Callable[[Value], str]


def sentence(code: str, detail: Value) -> str:
    """Return why a transaction was refused; the detail as it is where its shape is not known."""
    say = _SENTENCES.get(code)
    if say is None:
        return "" if detail is None else word(detail, short=True)
    try:
        return say(detail)
    except (TypeError, ValueError, IndexError, KeyError):
        return word(detail, short=True)


def _name(value: Value) -> str:
    kind, id_ = value  # also an account's or a reservation's
    return f"{kind}/{id_word(id_)}"


def _stale(detail: Value) -> str:
    name, version, fields = detail
    what = f" changed: {', '.join(fields)};" if fields else ""
    return f"{_name(name)} is at version {version} now;{what} read it again before you act"


def _dated(said: str) -> str:
    """Return a sentence of the kernel with its times in words."""
    return _TIME_MS.sub(lambda found: time_word(int(found[1])), said)


_TIME_MS: Final = re.compile(r"\b([0-9]{1,15}), in milliseconds since 1970")
_GRANT_FAULTS: Final = {
    "action": "does not name this action",
    "cyclic": "leads back to itself",
    "holder": "is somebody else's",
    "missing": "does not exist",
    "suspended": "is of a suspended agency",
    "too deep": "is beyond the longest chain",
    "when": "does not reach this case (its condition)",
}


def _link(link: Value) -> str:
    match link:
        case ["role", role, why]:
            return f"the role {role} is {why}"
        case ["where"]:
            return "the role does not reach this case (its scope, or what the action asks of it)"
        case ["read", name]:
            return f"an act rests only on what its author may read, and {_name(name)} is not"
        case ["self"]:
            return "only the person whose record it is may do that"
        case ["key"]:
            return "one rotates the key with which one signs; an administrator replaces others"
        case ["office", role, "action"]:
            return f"the office's role {role} is no longer the one that the action asks for"
        case ["office", role, why]:
            return f"the office's role {role} is {why}"
        case ["grant", grant, why]:
            return f"the grant {word(grant, short=True)} {_GRANT_FAULTS.get(why, f'is {why}')}"
        case ["committee", agency]:
            return f"{agency} has no validator"
        case ["apart", role, other]:
            return f"the person also has {other}, which excludes {role}"
        case ["same_person"]:
            return "one person may not do both"
        case ["author"]:
            return "authors do not approve their own acts"
        case ["not the author"]:
            return "only its author takes it back, or an office of the author's agency"
        case ["twice"]:
            return "it approves already"
        case ["distinct", "person"]:
            return "it is the same person as another who acts or approves"
        case ["distinct", _]:
            return "it is of the same agency as another who acts or approves"
        case ["not_agency", "author"]:
            return "it is of the author's agency"
        case ["suspended", what]:
            return f"the {what} is suspended"
        case ["key", why]:
            return f"the key is {why}"
        case ["moved", action]:
            return f"the rules of {action} have moved on: it can only be drafted again"
        case ["not asked"]:
            return "nobody is asked to approve that"
        case [what, *rest]:
            return f"{what} {word(rest, short=True)}"
        case _:
            return word(link, short=True)


def lacking_words(links: Sequence[Value]) -> str:
    """Return what somebody lacks to approve a proposal, in words."""
    return "; ".join(_link(each) for each in links)


def _missing(part: Value) -> str:
    match part:
        case ["role", role, more, distinct, reasons]:
            differ = {"person": " (different people)", "agency": " (different agencies)"}
            needed = f"{_count(more)} with the role {role}{differ.get(distinct, '')}"
            said = [
                f"{word(who, short=True)} does not count: {_link(link)}" for who, link in reasons
            ]
            return "; ".join([needed, *said])
        case ["self", path, reasons]:
            others = [
                f"{word(who, short=True)} does not count: {_link(link)}" for who, link in reasons
            ]
            return "; ".join([f"the person concerned ({path})", *others])
        case ["of", _, []]:
            return "an approval that nobody can give"
        case ["of", more, parts]:
            return f"{more} of ({' | '.join(_missing(each) for each in parts)})"
        case ["when", source]:
            return f"whether one is needed cannot be said: {source} has no value"
        case ["agencies", more]:
            return f"{_count(more)} more of the agencies with a validator"
        case ["notice", until_ms]:
            return f"it waits as a proposal until {time_word(until_ms)}, then one more approval"
        case ["limit"]:
            return "the policy is too hard to satisfy"
        case _:
            return word(part, short=True)


def _not_found(what: Value, name: Value, how: Value = "") -> str:
    place = "nothing" if name is None else _name(name)
    if how == "voided":
        return f"{what}: {place} is voided: the act that made it was taken back"
    return f"{what}: {place} is not there"


def _count(number: int) -> str:
    return "one" if number == 1 else str(number)


_FULL: Final = {
    "lists": "its calls together take more records from lists than one transaction may",
    "expiries": "at too many moments reservations of the account end; a date is shared by many",
    "moves": "its calls together change amounts more often than one transaction may",
    "rules": "the agency's acts on rule sets in this block are used up; send it again",
    "proposals": "it acts on too many proposals, or too large ones, at once; act on fewer",
}
_SENTENCES: Final[dict[str, Sentence]] = {
    "REFUSED": lambda d: "the reason is not shown to this key",
    "UNKNOWN_KEY": lambda d: f"the network does not know the key {word(d, short=True)}",
    "SEQUENCE_SPENT": lambda d: f"sequence number {d} was used before",
    "SEQUENCE_OLD": lambda d: f"sequence number {d[0]} is too old; the lowest accepted is {d[1]}",
    "SEQUENCE_AHEAD": lambda d: f"sequence number {d[0]} is too far ahead of {d[1]}",
    "EXPIRED": lambda d: f"it was valid until {time_word(d[0])}; the block is of {time_word(d[1])}",
    "NOT_AFTER_TOO_FAR": lambda d: f"it may be valid until {time_word(d[1])} at most",
    "KEY_INACTIVE": lambda d: f"the key {word(d[0], short=True)} is {d[1]}",
    "SUSPENDED": lambda d: f"{_name(d)} is suspended",
    "UNSUPPORTED": lambda d: (
        "acts on proposals are not proposed themselves"
        if d == "proposal"
        else f"the network's executor does not know {d}"
    ),
    "RULES_MOVED": lambda d: f"the rules moved on to number {d[0]}; draft it again",
    "UNKNOWN_ACTION": lambda d: f"no action {d[0]}.{d[1]} is in force",
    "BAD_INPUT": lambda d: f"{d[0] or 'inputs'}: {d[1]}",
    "NOT_FOUND": lambda d: _not_found(*d),
    "NOT_AUTHORIZED": lambda d: "; ".join(_link(each) for each in d),
    "STALE": _stale,
    "BASIS_MOVED": lambda d: (
        "what it rests on reaches too far"
        if d == "limit"
        else f"{_name(d[0])} changed its {d[1]} since this was derived from it"
    ),
    "HELD": lambda d: f"held by {', '.join(word(each, short=True) for each in d)}",
    "REQUIREMENT": lambda d: f"{_dated(d[1])} ({d[0]})",
    "NEEDS_APPROVAL": lambda d: "approvals are missing: " + ", and ".join(map(_missing, d)),
    "INSUFFICIENT": lambda d: (
        f"account/{id_word(d[0])} would "
        + ("fall below its floor" if d[1] == "floor" else "overflow")
    ),
    "NOT_UNIQUE": lambda d: "taken already: " + ", ".join(word(each, short=True) for each in d),
    "NOT_DELIVERED": lambda d: "; ".join(
        f"no acknowledgement by {agency}'s node of the sealed input {name}" for _, name, agency in d
    ),
    "LIMIT": lambda d: (
        _FULL.get(d, f"{d} are full")
        if isinstance(d, str)
        else f"{d[1]} lists {d[2]} records, and the action takes {d[3]} at most"
    ),
}
