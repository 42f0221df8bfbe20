"""The committee as clients see it change: who has a seat, what is to come, who has consented.

Seats and agreed changes are proved leaves of the state; the committee itself is followed from the
genesis file by certificates, and both must say the same. Proposals are proved too, but that none is
left out is one node's word.

Not here: making keys and member files (``joining``), and what the acts do (``kernel.committee``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comity.drafting import Call
from comity.errors import AbsentError, DraftError
from comity.founding import Person, admit
from comity.proposals import Proposed, ProposedPage
from comity.results import Decision, Entry, Simulation
from comity.rulesets import Step
from comity.words import word
from consensus import certificate, memberfile
from consensus.codec import Value
from consensus.committee import VALIDATORS_MAX, VALIDATORS_MIN, Committee, Validator
from consensus.errors import DecodeError, ProofError, SignatureError
from consensus.genesis import OFFICIAL
from consensus.ledger import membership, seats
from consensus.ledger.kernel.committee import Wanted, decode_changes, encode_changes, verify_file
from consensus.ledger.kernel.rulesets import AHEAD_MS_MAX
from consensus.memberfile import Member
from consensus.protocol import StateKey

if TYPE_CHECKING:
    from comity.verify import Trust
    from consensus.genesis import Genesis

SPACE: Final = seats.SPACE
STATES: Final = {
    seats.COMING: "to come",
    seats.BEGUN: "in force",
    seats.OBJECTED: "objected",
    seats.DROPPED: "dropped",
}
ACT: Final = "change_committee"
PENDING_MAX: Final = 64
"""Proposals of one agency that are looked through."""
_NEW_KEYS: Final = (
    "have the member file made with new keys: `comity network rotate`, or enrol again"
)
_DO: Final = {
    "MEMBER": "leave it out, or replace its validator",
    "NOT_MEMBER": "members are {members}",
    "UNCHANGED": "there is nothing to propose; it is as the file asks",
    "TOO_FEW": f"a committee has at least {VALIDATORS_MIN} members: admit another one first, "
    "`comity network propose-member`",
    "TOO_MANY": f"a committee has at most {VALIDATORS_MAX} members: another one leaves first, "
    "`comity network leave`",
    "KEY_USED": _NEW_KEYS,
    "ADDRESS": "have the member file made with other addresses: --peers and --clients",
    "CERTIFICATE": _NEW_KEYS,
}
"""What to do where a change of the committee cannot come true, by the ledger's codes."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One validator of a change: ``kind`` is ``admit``, ``leave`` or ``replace``."""

    kind: str
    agency: str
    validator: Validator | None


@dataclass(frozen=True, slots=True)
class CommitteeChange:
    """A change that a quorum agreed on, and what became of it.

    Args:
        state: ``to come``, ``in force``, ``objected`` or ``dropped``.
        epoch: that began with it, None if none did.
        why: code and sentence of what was in its way when its time came, if it was dropped.
        steps: who agreed and who objected, oldest first.
    """

    number: int
    state: str
    from_ms: int
    epoch: int | None
    why: tuple[str, str] | None
    changes: tuple[Changed, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ProposedChange:
    """A change that waits for its quorum.

    Args:
        proposed: the proposal.
        number, from_ms, wanted: what it asks for; None where this key may not read it. A time of
            None is the end of the notice, once the quorum is there.
        consented, missing: agencies with a seat, in the committee's order.
        needed: how many more must consent.
    """

    proposed: Proposed
    number: int | None
    from_ms: int | None
    wanted: tuple[Wanted, ...] | None
    consented: tuple[str, ...]
    missing: tuple[str, ...]
    needed: int


@dataclass(frozen=True, slots=True)
class Members:
    """The committee at a certified height, and what is to come."""

    height: int
    time_ms: int
    committee: Committee
    latest: int
    coming: CommitteeChange | None
    notice_ms: int


class MemberActs:
    """What a client does about the committee; a part of ``Client``."""

    if TYPE_CHECKING:
        genesis: Genesis
        chain: bytes
        trust: Trust

        async def get(self, namespace: str, *components: Value) -> Entry: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def committee(self) -> Committee: ...
        async def read_for(self, call: Call) -> tuple[Entry, ...]: ...
        async def proposal(self, txid: bytes) -> Proposed: ...
        async def proposals(
            self, agency: str, state: str = "open", *, after: bytes | None = None, limit: int = 64
        ) -> ProposedPage: ...
        async def propose(
            self,
            *calls: Call,
            reads: Sequence[Entry] = (),
            under: Sequence[bytes] = (),
            reason: str = "",
            not_after_ms: int | None = None,
        ) -> Decision: ...
        async def simulate(
            self, *calls: Call, reads: Sequence[Entry] = (), propose: bool = False
        ) -> Simulation: ...
        async def transact(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...

    async def members(self) -> Members:
        """Return the committee, and the change that is to come, both proved.

        Raises:
            ProofError: the state and the certificates name other members.
        """
        entry = await self.get(SPACE)
        committee = await self.committee()
        found = seats.Seats(*entry.value) if entry.present else None
        pairs = [(each.agency, each.node_key) for each in committee.validators]
        first = committee.epoch == self.genesis.committee.epoch
        lies = not first if found is None else found.pairs != pairs
        if lies and (found is None or found.epoch == committee.epoch):
            raise ProofError("the state names other members than the certificates")
        coming = None
        if found is not None and found.coming is not None:
            coming = await self.committee_change(found.coming[0])
        return Members(
            entry.height,
            entry.time_ms,
            committee,
            0 if found is None else found.latest,
            coming,
            self.genesis.limits.notice_ms,
        )

    async def committee_change(self, number: int) -> CommitteeChange | None:
        """Return what became of a change of the committee, proved; None: there is none yet."""
        entry = await self.get(SPACE, number)
        if not entry.present:
            return None
        found = seats.Change(*entry.value)
        rows = [
            Changed(str(kind), str(agency), None if row is None else Validator(*row))
            for kind, agency, row in found.changes
        ]
        return CommitteeChange(
            found.number,
            STATES.get(found.state, str(found.state)),
            found.from_ms,
            found.epoch,
            None if found.why is None else (found.why[0], found.why[1]),
            tuple(rows),
            tuple(Step(*each) for each in found.steps),
        )

    async def proposed_changes(self) -> tuple[ProposedChange, ...]:
        """Return the proposed changes that wait for their quorum, from one node's index.

        Each is proved; that none is left out is not. A request or two an agency with a seat.
        """
        committee = await self.committee()
        found: list[ProposedChange] = []
        for each in committee.validators:
            page = await self.proposals(each.agency, limit=PENDING_MAX)
            for proposed in page.proposals:
                if any(call[:2] == ("charter", ACT) for call in proposed.calls):
                    whole = await self.proposal(proposed.txid)
                    if whole.state == "open":
                        found.append(proposed_change(whole, committee))
        return tuple(found)

    async def propose_changes(
        self,
        changes: Sequence[Sequence[Value]],
        *,
        from_ms: int | None = None,
        reason: str = "",
    ) -> Decision:
        """Propose changes of the committee under the next number; others approve the proposal.

        Args:
            changes: as ``admission``, ``replacement`` and ``departure`` give them.
            from_ms: chain time from which on they hold; None: once the notice is over, which begins
                when the last agency of the quorum consents.

        Raises:
            DraftError: as ``check_changes``.
        """
        call = await self._change(changes, from_ms)
        return await self.propose(call, reads=await self.read_for(call), reason=reason)

    async def simulate_changes(
        self, changes: Sequence[Sequence[Value]], *, from_ms: int | None = None
    ) -> Simulation:
        """Return what would become of proposing changes of the committee now, as ``simulate``.

        Raises:
            DraftError: as ``check_changes``.
        """
        call = await self._change(changes, from_ms)
        return await self.simulate(call, reads=await self.read_for(call), propose=True)

    async def _change(self, changes: Sequence[Sequence[Value]], from_ms: int | None) -> Call:
        number = await self.check_changes(changes, from_ms=from_ms)
        encoded = encode_changes([list(each) for each in changes])
        return Call("charter", ACT, {"number": number, "changes": encoded, "from": from_ms})

    async def check_changes(
        self, changes: Sequence[Sequence[Value]], *, from_ms: int | None = None
    ) -> int:
        """Return the number that changes of the committee would have, if a quorum could agree now.

        What the last approval would be refused for is refused here, before anybody is asked: by the
        committee that certificates prove and the proved state. That an agency to be admitted is
        suspended may pass until then.

        Raises:
            DraftError: a change is to come already, or this one cannot come true.
            AbsentError: who is to leave, or gets another validator, has none.
        """
        entry = await self.get(SPACE)
        found = seats.Seats(*entry.value) if entry.present else None
        if found is not None and found.coming is not None:
            raise DraftError(
                f"change {found.coming[0]} of the committee is still to come",
                hint="wait until it is in force, or object to it: `comity network object`",
            )
        try:
            wanted = decode_changes(encode_changes([list(each) for each in changes]))
        except DecodeError as error:
            raise DraftError(
                f"what is to change cannot be written: {error.message}",
                hint="name each agency once, by its name of 1 to 64 bytes",
            ) from error
        for each in wanted:
            if each.member is not None:
                read_member(each.file, self.chain)
        committee = await self.committee()
        _, fault = membership.rows_after(
            committee,
            self.genesis.committee,
            [each.row() for each in wanted],
            (await self._known_keys(wanted)).__contains__,
        )
        least_ms = entry.time_ms + self.genesis.limits.notice_ms
        begins_ms = least_ms if from_ms is None else from_ms
        fault = fault or _ending_fault(wanted, begins_ms)
        if fault is not None:
            code, sentence = fault
            names = ", ".join(each.agency for each in committee.validators)
            kind = AbsentError if code == "NOT_MEMBER" else DraftError
            raise kind(sentence, hint=_DO[code].format(members=names))
        if not least_ms <= begins_ms <= entry.time_ms + AHEAD_MS_MAX:
            raise DraftError(
                "the change would begin before the end of the notice, or above two years ahead",
                hint="leave the time out (--from): it begins once the notice is over",
            )
        return 1 if found is None else found.latest + 1

    async def _known_keys(self, wanted: Sequence[Wanted]) -> set[bytes]:
        """Return which keys of changes are a person's, or were a validator's in any epoch."""
        new = [each.member.validator for each in wanted if each.member is not None]
        keys = {key for each in new for key in (each.key, each.node_key)}
        places = [StateKey(space, (key,)) for key in sorted(keys) for space in (seats.KEYS, "key")]
        if not places:
            return set()
        found = await self.get_many(places)
        return {
            key.components[0] for key, entry in zip(places, found, strict=True) if entry.present
        }

    async def propose_member(
        self,
        file: bytes,
        *,
        title: str | None = None,
        scope: Sequence[tuple[str, str]] = (),
        from_ms: int | None = None,
        reason: str = "",
    ) -> Decision:
        """Propose what a member file asks for: to admit its agency, or to replace its validator.

        Args:
            file: that the agency made.
            title: of an agency that is none of the ledger's yet; None for others.
            scope: of the role that the people of a new member get, names ascending.

        Raises:
            DraftError: the file is not in order, or is not for this network.
        """
        member = read_member(file, self.chain)
        agency = member.validator.agency
        present = [each.agency for each in (await self.committee()).validators]
        if agency in present:
            if title is not None or scope or member.people:
                raise DraftError(
                    f"{agency} is a member: a title, a scope or people are for one that joins",
                    hint="leave them out, and enrol without --person",
                )
            changes = [replacement(file, member)]
        else:
            changes = [admission(file, member, title, scope)]
        return await self.propose_changes(changes, from_ms=from_ms, reason=reason)

    async def propose_leave(
        self, agency: str, *, from_ms: int | None = None, reason: str = ""
    ) -> Decision:
        """Propose that an agency's validator leaves the committee."""
        return await self.propose_changes([departure(agency)], from_ms=from_ms, reason=reason)

    async def propose_agency(
        self,
        agency: str,
        title: str,
        key: bytes,
        *,
        subject: bytes | None = None,
        scope: Sequence[tuple[str, str]] = (),
        reason: str = "",
    ) -> Decision:
        """Propose to admit an agency without a validator, with its first administrator.

        Args:
            key: public, of the administrator, an official: made by nobody else.
            subject: the registrar's token of that person; None: one that nobody else has.
            scope: of the administrator's role.

        Raises:
            DraftError: there is such an agency.
        """
        who = admit(Person("administrator", agency, OFFICIAL, subject=subject), key)
        flat: list[Value] = [each for pair in sorted(scope) for each in pair]
        inputs: dict[str, Value] = {
            "agency": agency,
            "title": title,
            "principal": who.principal,
            "subject": who.subject,
            "key": who.key,
            "scope": flat,
        }
        call = Call("charter", "admit_agency", inputs)
        reads = await self.read_for(call)
        if any(each.present for each in reads):
            raise DraftError(
                f"{agency} is an agency of the ledger already",
                hint="its administrators admit its people; look with comity get agency/NAME",
            )
        return await self.propose(call, reads=reads, reason=reason)

    async def object_committee(self, number: int, *, reason: str = "") -> Decision:
        """Object, for one's agency, to a change of the committee before its time."""
        call = Call("charter", "object_committee", {"number": number})
        return await self.transact(call, reads=await self.read_for(call), reason=reason)


# --- what is asked for --------------------------------------------------------------------------


def read_member(file: bytes, chain: bytes) -> Member:
    """Return what a member file says, verified as the ledger will.

    Raises:
        DraftError: it is not in order, or is not for this network.
    """
    hint = "have the agency make it again with `comity network enrol` or `comity network rotate`"
    try:
        return verify_file(file, chain)
    except SignatureError as error:
        said = "the member file was changed after it was made: its signatures do not hold"
        raise DraftError(said, hint=hint) from error
    except DecodeError as error:
        raise DraftError(f"the member file cannot be used: {error.message}", hint=hint) from error


def admission(
    file: bytes, member: Member, title: str | None, scope: Sequence[tuple[str, str]] = ()
) -> list[Value]:
    """Return the change that admits an agency with its validator and people."""
    flat: list[Value] = [each for pair in sorted(scope) for each in pair]
    return [seats.ADMIT, member.validator.agency, file, title, flat]


def replacement(file: bytes, member: Member) -> list[Value]:
    """Return the change that replaces keys, certificate or addresses of a member."""
    return [seats.REPLACE, member.validator.agency, file]


def _ending_fault(wanted: Sequence[Wanted], begins_ms: int) -> membership.Fault | None:
    """Say if a certificate ends before a change begins.

    One that is not good yet may be by then: chain time stands still while nothing is decided.
    """
    for each in wanted:
        if each.member is not None:
            found = certificate.decode(each.member.validator.certificate)
            if found.until_ms < begins_ms:
                return "CERTIFICATE", f"the certificate of {each.agency} ends before that time"
    return None


def departure(agency: str) -> list[Value]:
    """Return the change by which a validator leaves."""
    return [seats.LEAVE, agency]


def proposed_change(proposed: Proposed, committee: Committee) -> ProposedChange:
    """Return what a proposal asks for, and who of a committee has consented."""
    number, from_ms, wanted = None, None, None
    for index, (domain, action, _) in enumerate(proposed.calls):
        if (domain, action) == ("charter", ACT) and proposed.draft is not None:
            number, data, from_ms = proposed.draft.inputs(index)[0]
            wanted = tuple(decode_changes(data))
    given = {proposed.agency, *(each.agency for each in proposed.approvals)}
    names = [each.agency for each in committee.validators]
    consented = tuple(each for each in names if each in given)
    missing = tuple(each for each in names if each not in given)
    needed = max(committee.quorum - len(consented), 0)
    return ProposedChange(proposed, number, from_ms, wanted, consented, missing, needed)


# --- in words -----------------------------------------------------------------------------------


def wanted_words(wanted: Sequence[Wanted], before: Committee | None = None) -> list[str]:
    """Return lines that say what changes, for whoever is to consent to it.

    Args:
        before: the committee in force, to say what of a validator becomes new.
    """
    lines: list[str] = []
    present = {each.agency: each for each in before.validators} if before is not None else {}
    for each in wanted:
        if each.member is None:
            lines.append(f"{each.agency} leaves")
            continue
        new, old = each.member.validator, present.get(each.agency)
        if each.kind == seats.ADMIT:
            titled = "" if each.title is None else f", a new agency: {each.title}"
            lines.append(f"{each.agency} is admitted{titled}")
        else:
            lines.append(f"{each.agency} has another validator")
        lines += [f"  {name}: {word}" for name, word in _rows(new, old)]
        pairs = zip(each.scope[::2], each.scope[1::2], strict=False)
        scope = ", ".join(f"{name}={value}" for name, value in pairs)
        for person in each.member.people:
            scoped = f", {scope}" if scope else ""
            lines.append(f"  acts for it: {person.name}, key {word(person.key)}{scoped}")
        lines.append(f"  hash of its file: {word(memberfile.digest(each.file))}")
    return lines


def _words(each: Validator | None) -> list[tuple[str, str]]:
    if each is None:
        return []
    return [
        ("validator key", word(each.key)),
        ("node key", word(each.node_key)),
        ("peers", _place(each.peer_host, each.peer_port)),
        ("clients", _place(each.client_host, each.client_port)),
    ]


def _rows(new: Validator, old: Validator | None) -> list[tuple[str, str]]:
    rows = [(name, word, dict(_words(old)).get(name)) for name, word in _words(new)]
    found = [(name, now if was != now else f"{now} (as before)") for name, now, was in rows]
    if old is not None and old.certificate != new.certificate and old.node_key == new.node_key:
        found.append(("certificate", "another, of the same key"))
    return found


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
