"""What an author may rest an act on beyond what it needs: nothing that may not be read.

``expects`` may name records that no call needs, to say what an act was decided upon. The outcome
then tells whether they are at that version, so it is asked first whether the author may read them
at all: by the read rules of their kind, or, where it has none, by this network's default. It is the
same answer for what exists and for what does not, and whichever version is named.

    records          by the read rules of their kind; else officials and systems all, citizens those
                     that name them
    agency, rules    everybody
    principal, role  officials and systems, and citizens their own; ``key`` likewise, the one used
    grant, review    officials and systems
    hold             officials and systems who may read everything of the kinds of its targets

Not here: what nodes show to whom (``node.api.access``), and read rules themselves (``readers``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from consensus import codec, genesis
from consensus.codec import Value
from consensus.ledger.authority import Standing
from consensus.ledger.layout import Hold, place
from consensus.ledger.model import AccountFamily, Kind
from consensus.ledger.readers import ALWAYS, Reader, record_row
from consensus.ledger.records import Draft, Record
from consensus.ledger.view import View

PERSON: Final = "person"
"""The kind of a citizen's own record."""
_EVERYBODY: Final = ("agency", "rules", "committee")
_OWN: Final = ("principal", "role")


class Readable:
    """What one author may read, as of the transaction at hand; reads of roles and of the rules
    that say so are recorded."""

    __slots__ = ("_reader", "_standing", "_view")

    def __init__(self, view: View, standing: Standing) -> None:
        self._view = view
        self._standing = standing

        def leaf(space: str, components: Sequence[Value]) -> Any:
            found = view.single(space, components)
            return None if found is None else found.value

        principal, agency = standing.principal, standing.agency
        self._reader = Reader(view.book, principal, agency, view.now_ms, leaf)

    def may_read(self, kind: str, id_: list[Value]) -> bool:
        """Return whether the author may read what ``[kind, id]`` names, or that it is absent."""
        space, components = place(kind, id_)
        if space == "record":
            declared = self._view.book.kinds.get(kind)
            return declared is None or self._may_read_record(declared, id_)
        if space in _EVERYBODY:
            return True
        principal = self._standing.principal
        if principal.kind == genesis.CITIZEN:
            own = components[:1] == [principal.id] if space in _OWN else False
            return own or (space == "key" and components == [self._standing.key])
        return space != "hold" or self._may_read_hold(components)

    def _may_read_record(self, kind: Kind, id_: list[Value]) -> bool:
        self._view.rules_of(kind.domain)
        found = self._view.record(kind, id_)
        before: Record | None = found.base if isinstance(found, Draft) else found
        if kind.readers is not None:
            self._note_rules()
            if before is None:
                return self._reader.may_see_absence(kind, record_row(kind, [kind.name, *id_], None))
            return self._reader.may_read(kind, before)
        principal = self._standing.principal
        if principal.kind != genesis.CITIZEN:
            return True
        if principal.person is None:
            return False
        person = codec.encode([*principal.person])
        if kind.name == PERSON and codec.encode(id_) == person:
            return True
        return before is not None and person in before.stored.values

    def _may_read_hold(self, components: list[Value]) -> bool:
        found = self._view.single("hold", components)
        if found is None:
            self._note_rules()
            return self._reader.sees_all
        hold: Hold = found.value
        return all(self._reads_all(space, within) for space, within in hold.targets)

    def _reads_all(self, space: str, components: Sequence[Value]) -> bool:
        book = self._view.book
        owner: Kind | AccountFamily | None = None
        if space == "record":
            owner = book.kinds.get(components[0])
        elif space == "account":
            owner = book.families.get(components[0])
        if owner is None:
            return True
        self._note_rules()
        return owner.readers is None or self._reader.level(owner) == ALWAYS

    def _note_rules(self) -> None:
        """Record every rule set in force: any may name roles that a read rule stands for."""
        for domain in self._view.in_force:
            self._view.rules_of(domain)
