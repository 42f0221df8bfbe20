"""Acts that change the committee: who is admitted, who leaves, whose keys or addresses change.

    change_committee   says what changes, and from when, after the genesis notice
    object_committee   an agency with a seat says no; f + 1 of them end it, before its time

Both lie under the floor: a quorum of agencies with a seat wants a change, whatever the charter asks
for beside it. One change is to come at a time; it takes effect as ``membership`` says. ``changes``
is canonical CBOR:

    changes = [["admit", agency, member file, title | null, [name, value, ...]],
               ["leave", agency], ["replace", agency, member file], ...]   each agency once

A member file is made for this chain and signed by both keys of the validator it brings, so nobody
can bring a key that is not the agency's own. Who is admitted is an agency of the ledger, or becomes
one by the act itself (``title``). The people of its file become people of the agency, with the role
by which these acts are done and the scope that the act says: so a new agency has administrators.
They have them from the act on; the validator has its seat from the change's time on.

The files are verified before anybody's consent is counted, so a proposal that could never take
effect is not stored.

Not here: what stands in the way of a change (``membership.after``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from consensus import certificate, codec, memberfile
from consensus.codec import Value
from consensus.errors import DecodeError, SignatureError
from consensus.ledger import membership
from consensus.ledger.codes import Code, Refused
from consensus.ledger.governing import reason_of
from consensus.ledger.kernel import people
from consensus.ledger.kernel.entering import enter
from consensus.ledger.kernel.plan import Acting, Plan, bad, charter_int, found, successor_of
from consensus.ledger.kernel.quorum import check_quorum, governing_of
from consensus.ledger.kernel.rulesets import AHEAD_MS_MAX, OBJECTIONS, step
from consensus.ledger.model import Action
from consensus.ledger.seats import (
    ADMIT,
    BEGUN,
    COMING,
    DROPPED,
    LEAVE,
    OBJECTED,
    REPLACE,
    SPACE,
    Change,
)
from consensus.ledger.types import CHANGES_BYTES_MAX
from consensus.memberfile import Member
from consensus.table import Table

CHANGES_MAX: Final = 16
"""Validators that one act changes."""
PEOPLE_MAX: Final = 16
"""People that a member file brings into the ledger."""
FILE_BYTES_MAX: Final = 16 * 1024
_VERIFIED_MAX: Final = 64
_ACT: Final = "change_committee"
_OBJECTED: Final = "objected"
_AGENCY: Final = codec.text(64, low=1)
_FILE: Final = codec.octets(low=1, high=FILE_BYTES_MAX)
_SHAPES: Final = {
    ADMIT: codec.array(
        codec.text(8),
        _AGENCY,
        _FILE,
        codec.optional(codec.text(people.TITLE_BYTES_MAX, low=1)),
        codec.list_of(codec.text(256), 2 * people.SCOPE_PAIRS_MAX),
    ),
    LEAVE: codec.array(codec.text(8), _AGENCY),
    REPLACE: codec.array(codec.text(8), _AGENCY, _FILE),
}
_CHANGES: Final = codec.list_of(codec.plain, CHANGES_MAX, low=1)

_WORDS: Final = {
    BEGUN: "it has taken effect",
    OBJECTED: "agencies objected to it",
    DROPPED: "it was not possible any more when its time came",
}


class Wanted(NamedTuple):
    """One change that an act asks for. ``member`` is what its file says, verified or not."""

    kind: str
    agency: str
    file: bytes
    member: Member | None
    title: str | None = None
    scope: tuple[str, ...] = ()

    def row(self) -> list[Value]:
        """Return the row of the leaf."""
        member = self.member
        validator = None if member is None else member.validator.to_value()
        return [self.kind, self.agency, validator]


def encode_changes(wanted: list[list[Value]]) -> bytes:
    """Return the input ``changes``."""
    return codec.encode(list(wanted))


def decode_changes(data: bytes) -> list[Wanted]:
    """Return what the input ``changes`` asks for; signatures are not looked at.

    Raises:
        DecodeError: malformed, an agency twice, or a file of another agency.
    """
    rows = codec.decode(data, _CHANGES, bytes_max=CHANGES_BYTES_MAX, what="changes")
    wanted: list[Wanted] = []
    for at, row in enumerate(rows):
        where = f"changes[{at}]"
        shape = _SHAPES.get(row[0]) if type(row) is list and row and type(row[0]) is str else None
        if shape is None:
            raise DecodeError(f"one of {', '.join(_SHAPES)}", path=where)
        shape(row, where)
        kind, agency, *rest = row
        if agency in [each.agency for each in wanted]:
            raise DecodeError(f"{agency} is named twice", path=where)
        if kind == LEAVE:
            wanted.append(Wanted(kind, agency, b"", None))
            continue
        member = memberfile.peek(rest[0])
        if member.validator.agency != agency:
            raise DecodeError(f"the file is of {member.validator.agency}", path=where)
        title, scope = (rest[1], tuple(rest[2])) if kind == ADMIT else (None, ())
        wanted.append(Wanted(kind, agency, rest[0], member, title, scope))
    return wanted


def verify_file(data: bytes, chain: bytes) -> Member:
    """Return what a member file says that changes the committee of a chain.

    Raises:
        DecodeError: malformed, weak keys, made for something else, a certificate that is malformed
            or of another key, an address that none is, or too many people.
        SignatureError: not signed by the keys that it brings.

    Cost: 0.4 ms.
    """
    member = memberfile.decode(data)
    own = member.validator
    if member.purpose != chain:
        raise DecodeError("it was made for another network, or for a founding", path="member file")
    if certificate.decode(own.certificate).key != own.node_key:
        raise DecodeError("the certificate is of another key", path="member file")
    for host, port in ((own.peer_host, own.peer_port), (own.client_host, own.client_port)):
        if not port or not all("!" <= each <= "~" for each in host):
            raise DecodeError("an address is a host and a port", path="member file")
    if len(member.people) > PEOPLE_MAX:
        raise DecodeError(f"{PEOPLE_MAX} people at most", path="member file")
    return member


def _verify(key: tuple[bytes, bytes]) -> Member:
    return verify_file(*key)


_VERIFIED: Final = Table(_verify, _VERIFIED_MAX)
"""By file and chain."""


def change_committee(acting: Acting) -> Plan:
    """Say what changes in the committee, and from when."""
    view, now_ms, number = acting.view, acting.now_ms, acting.inputs["number"]
    governing = governing_of(acting)
    wanted = _wanted(acting)
    seats = membership.seats_now(view, governing.founded)
    changes = [each.row() for each in wanted]
    least_ms = now_ms + governing.floor(view).notice_ms
    from_ms = least_ms if acting.inputs["from"] is None else acting.inputs["from"]
    failed: tuple[str, str] | None = None
    if seats.coming is not None:
        failed = ("SCHEDULED", f"change {seats.coming[0]} is still to come")
    elif number != seats.latest + 1:
        failed = ("NUMBER", f"the next change is {seats.latest + 1}")
    elif from_ms < least_ms:
        failed = ("NOTICE", f"the notice ends at {least_ms}, in milliseconds since 1970")
    elif from_ms > now_ms + AHEAD_MS_MAX:
        failed = ("TOO_FAR", "at most two years ahead")
    else:
        _, failed = membership.after(view, governing.founded, changes)

    if failed is None:
        _check_entering(acting, wanted)

    def write() -> None:
        fault = membership.expiry_fault(changes, from_ms)
        if fault is not None:
            raise Refused(Code.REQUIREMENT, list(fault))
        for each in wanted:
            if each.kind == ADMIT:
                named = () if each.member is None else each.member.people
                enter(acting, _ACT, each.agency, named, each.scope, each.title)
        steps = [step(acting, "agreed")]
        change = Change(number, COMING, from_ms, None, None, changes, steps)
        membership.put_change(view, change)
        membership.put_seats(view, seats._replace(latest=number, coming=[number, from_ms]))

    return Plan(write, failed=failed)


def check_floor(acting: Acting, action: Action) -> None:
    """Refuse files that are not in order, and then unless a quorum of agencies wants the change.

    Raises:
        Refused: BAD_INPUT; NEEDS_APPROVAL, with how many agencies are missing.
    """
    chain = governing_of(acting).chain
    for each in _wanted(acting):
        if each.kind == LEAVE:
            continue
        try:
            _VERIFIED[each.file, chain]
        except DecodeError as error:
            raise bad("changes", f"{each.agency}: {reason_of(error)}") from None
        except SignatureError:
            why = "the file is not signed by the keys that it brings"
            raise bad("changes", f"{each.agency}: {why}") from None
    check_quorum(acting, action)


def object_committee(acting: Acting) -> Plan:
    """Object, for an agency with a seat, to a change that has not taken effect."""
    number, view = acting.inputs["number"], acting.view
    governing = governing_of(acting)
    floor, agency = governing.floor(acting.view), acting.standing.agency
    change: Change = found(acting, SPACE, [number], "number")
    objectors = {
        successor_of(acting, found(acting, "agency", [each[3]], "number")).name
        for each in change.steps
        if each[0] == _OBJECTED
    }
    failed = None
    if change.state != COMING:
        failed = ("NOT_OPEN", _WORDS[change.state])
    elif change.from_ms <= acting.now_ms:
        failed = ("NOT_OPEN", "its time has come")
    elif agency.name in objectors:
        failed = ("UNCHANGED", "this agency has objected")

    def write() -> None:
        needed = charter_int(acting, OBJECTIONS, floor.objectors)
        now = change._replace(steps=[*change.steps, step(acting, _OBJECTED)])
        if len(objectors) + 1 >= min(max(needed, 1), floor.objectors):
            now = now._replace(state=OBJECTED)
            seats = membership.seats_now(view, governing.founded)
            membership.put_seats(view, seats._replace(coming=None))
        membership.put_change(view, now)

    return Plan(
        write,
        failed=failed,
        forbidden=None if floor.seated(agency) else ["committee", agency.name],
    )


def _wanted(acting: Acting) -> list[Wanted]:
    try:
        return decode_changes(acting.inputs["changes"])
    except DecodeError as error:
        raise bad("changes", reason_of(error)) from None


# --- who comes with a validator -----------------------------------------------------------------


def _check_entering(acting: Acting, wanted: list[Wanted]) -> None:
    """Check that those who are to be admitted are agencies, or become some that can act.

    Raises:
        Refused: NOT_FOUND: there is no such agency, and it is given no title. NOT_UNIQUE: there is,
            and it is given one. BAD_INPUT: a new agency without people.
    """
    for each in wanted:
        if each.kind != ADMIT:
            continue
        known = acting.view.single("agency", [each.agency]) is not None
        if each.title is None and not known:
            raise Refused(Code.NOT_FOUND, ["changes", ["agency", [each.agency]]])
        if each.title is not None and known:
            raise Refused(Code.NOT_UNIQUE, [["agency", [each.agency]]])
        if each.title is not None and not (each.member and each.member.people):
            raise bad("changes", f"{each.agency}: a new agency needs somebody who acts for it")
