"""Disclosures: opening fields of records to somebody, reading what was opened, and who saw what.

    wanted = Wanted("person", [token], ["region"])
    made = await client.disclose(
        wanted, to=["party", "District Court"], purpose="…", legal="…", until_ms=…
    )
    Path("region.disclosure").write_bytes(made.file)

The file is made of what a node answers once the act is certified, and is checked before it is
returned, as everything here is.

Not here: what a file proves (``consensus.evidence.disclosure``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from comity import listing
from comity.drafting import Call
from comity.errors import DraftError, KeyUnusableError, RequestError
from comity.network import Network
from comity.results import Decision, Entry, Listing
from comity.session import Statements
from comity.verify import Trust
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.evidence import disclosure as evidence
from consensus.evidence import disclosure_file as files
from consensus.evidence.disclosure import Disclosed, Field
from consensus.evidence.disclosure_file import Body, Revealed
from consensus.evidence.trust import Chain
from consensus.genesis import CITIZEN, Genesis
from consensus.ledger.disclosures import (
    AGENCY,
    BY_AUDIENCE,
    BY_AUTHOR,
    BY_RECORD,
    BY_SUBJECT,
    PRINCIPAL,
    SPACE,
    Disclosure,
    disclosure_id,
)
from consensus.ledger.layout import Key as KeyLeaf
from consensus.ledger.layout import Principal
from consensus.ledger.model import WHOLE, Kind, Rulebook
from consensus.protocol import DISCLOSURES_MAX, KEYS_MAX, PAGE_MAX, GetDisclosed, StateKey

if TYPE_CHECKING:
    from comity.client import RulesInForce
    from comity.keys import Key
    from comity.sealing import Unsealed

CALLS_MAX: Final = 64
"""Records that one transaction opens."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Fields of a record that are to be opened; ``version`` 0 is the present one."""

    kind: str
    id: Sequence[Value]
    fields: Sequence[str]
    version: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """A disclosure file, and what it proves."""

    file: bytes
    disclosed: Disclosed


@dataclass(frozen=True, slots=True)
class Disclosing:
    """What came of a disclosure: the decision on it, and the file where it was applied."""

    decision: Decision
    opened: Opened | None = None


@dataclass(frozen=True, slots=True)
class Disclosures:
    """Disclosures, the oldest first: all there were at ``height``, none left out."""

    height: int
    time_ms: int
    disclosures: tuple[Disclosure, ...]
    heights: Mapping[bytes, int] = field(default_factory=dict)
    """At which height each was made, by its id."""


class DisclosureActs:
    """How a client opens and lists; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        genesis: Genesis
        key: Key | None
        trust: Trust
        _network: Network
        _head: tuple[bytes, bytes]

        async def get(self, namespace: str, *components: Value) -> Entry: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def now_ms(self) -> int: ...
        async def unseal(self, entry: Entry) -> dict[str, Unsealed]: ...
        async def transact(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...

    async def disclose(
        self,
        *wanted: Wanted,
        to: Sequence[Value],
        purpose: str,
        legal: str,
        until_ms: int,
        reason: str = "",
    ) -> Disclosing:
        """Open fields of records to somebody; return the decision, and the file if it was applied.

        A field that is shown with others of its group opens all of them. Of a sealed field the file
        shows the value if this key gets it from its audience, else the commitment alone.

        Args:
            wanted: 1 to 64 records; the file has them in an order of its own.
            to: ``["principal", id]``, ``["agency", name]``, or ``["party", name]`` for somebody
                outside of the network.
            purpose: what for, in words.
            legal: what it rests on.
            until_ms: chain time from which on it is over.
            reason: of the transaction.

        Raises:
            DraftError: there is no such kind or field, or the end is past by the network's time.
            RequestError: the act is certified, and its node does not give what it opens: the
                message says why. ``disclosed`` asks again.
            KeyUnusableError, UndecidedError: as ``transact``.
        """
        if not 0 < len(wanted) <= CALLS_MAX:
            raise DraftError(f"one to {CALLS_MAX} records are opened at once")
        book = (await self.rules()).book
        calls = [
            Call(
                "charter",
                "disclose",
                {
                    "kind": each.kind,
                    "id": list(each.id),
                    "version": each.version,
                    "fields": leaves_of(book, each),
                    "audience": list(to),
                    "purpose": purpose,
                    "legal": legal,
                    "until": until_ms,
                },
            )
            for each in wanted
        ]
        if until_ms <= await self.now_ms():
            raise DraftError(
                "it would be over already: the network's time is past that of its end",
                hint="name a later end; `comity statements --last 1` shows the network's time",
            )
        decision = await self.transact(*calls, reason=reason)
        if not decision.applied:
            return Disclosing(decision)
        ids = [disclosure_id(decision.txid, at) for at in range(len(calls))]
        return Disclosing(decision, await self._opened(ids, decision.height))

    async def disclosed(self, *ids: bytes) -> Opened:
        """Return what disclosures open, as a file: for their audience, and for who made them.

        Raises:
            RequestError: DENIED: one is over, or not for this key; NOT_FOUND: there is none such.
        """
        if not 0 < len(ids) <= DISCLOSURES_MAX:
            raise DraftError(f"one to {DISCLOSURES_MAX} disclosures are asked for at once")
        return await self._opened(list(dict.fromkeys(ids)), self.trust.height)

    async def _opened(self, ids: Sequence[bytes], height_min: int) -> Opened:
        network = self.genesis.network

        def read(result: Value, _: Statements) -> tuple[Body, Disclosed, Chain]:
            trust = Chain(self.chain, self.genesis.committee)
            body = files.read_body(result)
            trust.follow(body.steps)
            found = evidence.check(body, trust, network)
            self.trust.fresh(found.height, height_min)
            if [each.disclosure.id for each in found.items] != sorted(ids):
                raise ProofError("other disclosures are shown than were asked for")
            return body, found, trust

        body, found, trust = await self._network.ask(GetDisclosed(height_min, tuple(ids)), read)
        revealed = [
            each
            for at, item in enumerate(found.items)
            for each in await self._revealed(at, item.disclosure, item.fields)
        ]
        if revealed:
            body = replace(body, sealed=revealed)
            found = evidence.check(body, trust, network)
        return Opened(body.encode(*self._head), found)

    async def _revealed(
        self, at: int, disclosure: Disclosure, fields: Sequence[Field]
    ) -> list[Revealed]:
        """Return the values of sealed fields that a disclosure opens, as far as this key gets them.

        From the nodes of their audience, which record it; of the record as it is now.
        """
        kind = (await self.rules()).book.kinds.get(disclosure.kind)
        named = {} if kind is None else kind.leaves
        inside = [
            (leaf, place, name)
            for leaf, each in enumerate(fields)
            for place, name in _sealed_in(kind, each, named.get(each.name, ()))
        ]
        if not inside:
            return []
        try:
            entry = await self.get("record", disclosure.kind, *disclosure.record)
            values = await self.unseal(entry)
        except RequestError:
            return []  # the audience of a disclosure need not read the record
        found: list[Revealed] = []
        for leaf, place, name in inside:
            value = fields[leaf].value
            commitment = value if place == WHOLE else value[place]
            unsealed = values.get(name)
            opening = None if unsealed is None else unsealed.opening
            if opening is not None and opening.commitment == commitment:
                found.append(Revealed(at, leaf, place, opening))
        return found

    # --- who saw what -------------------------------------------------------------------------

    async def disclosures_of(self, kind: str, *id_: Value) -> Disclosures:
        """Return all disclosures of a record: for whom it concerns, and for auditors.

        Raises:
            RequestError: DENIED: to others.
            MovedError: the list changed whenever it was read.
        """
        return await self._listed([(BY_RECORD, [kind, *id_])])

    async def disclosures_about(self, *people: Value) -> Disclosures:
        """Return all disclosures of records that concern somebody, under any of their names.

        Args:
            people: tokens of a registrar, ids of principals, ids of person records.

        Raises:
            RequestError, MovedError: as ``disclosures_of``.
        """
        return await self._listed([(BY_SUBJECT, each) for each in people])

    async def my_disclosures(self) -> Disclosures:
        """Return all disclosures that one made, that are made to one, and of what concerns one.

        Raises:
            KeyUnusableError: there is no key.
            MovedError: a list changed whenever it was read.
        """
        who = await self._oneself()
        places: list[tuple[str, Value]] = [
            (BY_AUTHOR, [who.id]),
            (BY_AUDIENCE, [PRINCIPAL, who.id]),
        ]
        if who.kind != CITIZEN:
            places.append((BY_AUDIENCE, [AGENCY, who.agency]))
        places += [
            (BY_SUBJECT, each) for each in (who.id, who.subject, who.person) if each is not None
        ]
        return await self._listed(places)

    async def _oneself(self) -> Principal:
        if self.key is None:
            raise KeyUnusableError("there is no key to say whose disclosures are asked for")
        key = await self.get("key", self.key.public)
        if not key.present:
            raise KeyUnusableError("the network does not know this key")
        entry = await self.get("principal", KeyLeaf(*key.value).principal)
        return Principal(*entry.value)

    async def _listed(self, places: Sequence[tuple[str, Value]]) -> Disclosures:
        """Return what is listed at any of some places, each complete."""
        ids: dict[bytes, None] = {}
        pages: list[Listing] = []
        for name, value in places:
            page = await self._place(name, value)
            ids.update(dict.fromkeys(id_[0] for id_ in page.ids))
            pages.append(page)
        entries: list[Entry] = []
        keys = [StateKey(SPACE, (id_,)) for id_ in ids]
        for at in range(0, len(keys), KEYS_MAX):
            entries += await self.get_many(keys[at : at + KEYS_MAX])
        if not all(each.present for each in entries):
            raise ProofError("a list names a disclosure that there is not")
        found = sorted(
            (Disclosure(*each.value) for each in entries), key=lambda each: (each.made_ms, each.id)
        )
        oldest = min(pages, key=lambda page: page.height)
        heights = {each.value[0]: each.changed for each in entries}
        return Disclosures(oldest.height, oldest.time_ms or 0, tuple(found), heights)

    async def _place(self, name: str, value: Value) -> Listing:
        kind, _, index = name.partition(".")

        def turn(after: tuple[Value, ...] | None) -> Awaitable[Listing]:
            return listing.proved(self._network, self.trust, (kind, index, value), after, PAGE_MAX)

        return await listing.everything(turn)


def _sealed_in(kind: Kind | None, shown: Field, inside: Sequence[str]) -> list[tuple[int, str]]:
    """Return place and name of the sealed fields of a leaf that have a value."""
    if kind is None:
        return []
    names = [(WHOLE, shown.name)] if not inside or tuple(inside) == (shown.name,) else []
    names = names or list(enumerate(inside))
    found = []
    for place, name in names:
        declared = kind.fields.get(name)
        value = shown.value if place == WHOLE or shown.value is None else shown.value[place]
        if declared is not None and declared.sealed_for and value is not None:
            found.append((place, name))
    return found


def leaves_of(book: Rulebook, wanted: Wanted) -> list[str]:
    """Return the leaves that hold fields of a record, ascending.

    Raises:
        DraftError: there is no such kind or field.
    """
    kind = book.kinds.get(wanted.kind)
    if kind is None:
        raise listing.unknown_kind(wanted.kind, book.kinds)
    leaves: dict[str, None] = {}
    for name in wanted.fields:
        leaf = kind.leaf_of.get(name, name)
        if leaf not in kind.leaves:
            known = ", ".join(dict.fromkeys([*kind.fields, *kind.leaves]))
            raise DraftError(f"{kind.name} has no field {name!r}", hint=f"known: {known}")
        leaves[leaf] = None
    if not leaves:
        raise DraftError("no field is named", hint="name what is to be opened, and nothing else")
    return sorted(leaves)
