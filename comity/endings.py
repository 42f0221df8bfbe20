"""What ends by itself, and when: keys that are replaced, roles, grants, and nodes' certificates.

    key          goes on until a time after it was replaced (``charter.replace_key until=…``)
    role         was given until a time, or for an emergency that was not reviewed yet
    grant        likewise; it ends with the first link of its chain that ends, the office's role
    certificate  of a member's node; those that ``comity network enrol`` makes have no end

Nothing else of a network ends by itself: not a validator's or a node's key, not a seat, not a rule
set in force. What was taken away (revoked, suspended) has no end to warn of.

Not here: looking (``inquiry``), and how it is shown (``cli.keys``).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from comity.authority import Authority, GrantHeld
from comity.words import word
from consensus import certificate
from consensus.committee import Committee
from consensus.errors import ComityError
from consensus.ledger.calendar import DAY_MS

NO_END_MS: Final = 253_402_300_799_000
"""What a certificate without an end gives as its end: 9999-12-31 23:59:59 (RFC 5280, §4.1.2.5)."""
ADVICE: Final[Mapping[str, str]] = {
    "key": "go over to the key that has replaced it; `comity authority` shows both",
    "role": "have the role given again by who gives it, or the act reviewed that it was given for",
    "grant": "have it granted again, or the role renewed that it rests on",
    "certificate": "make a new node key and certificate, and have them admitted: "
    "`comity network rotate`",
}
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Ending:
    """Something that ends by itself at ``until_ms``, exclusive.

    Args:
        what: ``key``, ``role``, ``grant`` or ``certificate``.
        name: of a key or grant its id, as people read it; of a certificate the agency.
        why: it ends, in words.
    """

    what: str
    name: str
    until_ms: int
    why: str

    @property
    def advice(self) -> str:
        """What to do about it."""
        return ADVICE[self.what]

    def words(self, now_ms: int) -> str:
        """Return what ends when, in one sentence without its full stop."""
        moment = datetime.datetime.fromtimestamp(self.until_ms / 1000, datetime.UTC)
        at = moment.strftime("%Y-%m-%d %H:%MZ")
        left = self.until_ms - now_ms
        verb = f"ends in {_span(left)}" if left > 0 else f"has ended {_span(-left)} ago"
        return f"{self.what} {self.name} {verb}, at {at}: {self.why}"


def endings(found: Authority) -> tuple[Ending, ...]:
    """Return what of a principal's power ends by itself or has, the earliest first."""
    ends = [
        Ending("key", word(key.key), key.until_ms, "it was replaced")
        for key in found.keys
        if key.until_ms is not None and key.fault in ("", "rotated")
    ]
    for role in found.roles:
        at = _first((role.until_ms, "it was given until then"), (role.due_ms, _UNREVIEWED))
        if at is not None and not _taken(role.fault):
            ends.append(Ending("role", role.role, *at))
    ends += [each for each in map(_of_grant, found.grants) if each is not None]
    return tuple(sorted(ends, key=lambda each: (each.until_ms, each.what, each.name)))


def certificates(committee: Committee) -> tuple[Ending, ...]:
    """Return when the certificates of a committee's nodes end, the earliest first.

    Left out are those without an end (RFC 5280, §4.1.2.5), and any that this software cannot read:
    a link's TLS judges it. Cost: 0.15 ms each.
    """
    ends = []
    for each in committee.validators:
        until_ms = certificate_end_ms(each.certificate)
        if until_ms is not None and until_ms < NO_END_MS:
            ends.append(Ending("certificate", each.agency, until_ms, _UNLINKED))
    return tuple(sorted(ends, key=lambda each: (each.until_ms, each.name)))


def certificate_end_ms(der: bytes) -> int | None:
    """Return when a certificate ends; None if it is not one that this software reads."""
    try:
        return certificate.decode(der).until_ms
    except ComityError:
        return None


def soon(ends: Iterable[Ending], now_ms: int, days: int) -> tuple[Ending, ...]:
    """Return what ends within so many days, or has ended within as many; none for 0 days."""
    span = days * DAY_MS
    return tuple(each for each in ends if span and abs(each.until_ms - now_ms) <= span)


def _of_grant(grant: GrantHeld) -> Ending | None:
    ends = []
    for link in grant.chain:
        if _taken(link.fault):
            return None
        whose = "the role that it rests on" if link.what == "office" else "it"
        if link.what == "grant" and link.id != grant.id:
            whose = f"the grant {word(link.id)} that it rests on"
        ends += [(link.until_ms, f"{whose} was given until then"), (link.due_ms, _UNREVIEWED)]
    at = _first(*ends)
    return None if at is None else Ending("grant", word(grant.id), *at)


def _first(*ends: tuple[int | None, str]) -> tuple[int, str] | None:
    known = [(until_ms, why) for until_ms, why in ends if until_ms is not None]
    return min(known, default=None)


def _taken(fault: str) -> bool:
    return "revoked" in fault or "missing" in fault


def _span(ms: int) -> str:
    if ms >= 2 * DAY_MS:
        return f"{ms // DAY_MS} days"
    return f"{ms // _HOUR_MS} hours" if ms >= 2 * _HOUR_MS else f"{max(1, ms // 60_000)} minutes"


_UNREVIEWED: Final = "what it was given for was not reviewed yet"
_UNLINKED: Final = "afterwards no node and no client connects to it"
