"""An agency took the place of another: its node fetches what is sealed for that one.

Nobody else may have these values, and the node of the agency that left gives them only while it has
a seat. So it is asked at once, not when somebody reads: record by record of the kinds that seal a
field for that agency, one value at a time, as they are in the records now. What was overwritten
before is not asked for.

Not here: giving and fetching (``keeper``), and who takes whose place (the ledger).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from consensus.codec import Value
from consensus.ledger.model import Rulebook
from consensus.reads import Page
from consensus.sealed import ABSENT, OPEN
from consensus.state.record import decode_row
from node.sealed.keeper import Keeper
from node.sealed.seen import sealed_fields

LOOK_SECONDS: Final = 5.0
"""How often it is looked whether the node of an agency that left is there to be asked."""
AGAIN_SECONDS: Final = 600.0
"""How long after having gone through all records once it is done again."""
PAGE_RECORDS_MAX: Final = 100

List = Callable[[str, tuple[Value, ...] | None, int], Page | None]


class Heir:
    """Takes over the sealed values of agencies whose place this node's agency took.

    Args:
        keeper: of this node.
        book: returns the rules in force.
        list_records: returns a page of the ids of a kind.
        log: is told how many came.
    """

    def __init__(
        self,
        keeper: Keeper,
        book: Callable[[], Rulebook],
        list_records: List,
        log: Callable[..., object],
    ) -> None:
        self._keeper = keeper
        self._book = book
        self._list = list_records
        self._log = log

    async def run(self) -> None:
        """Look, and fetch, until cancelled."""
        while True:
            names = self._keeper.seated_predecessors()
            if names:
                came, missing = await self.take_over(names)
                self._log("sealed values taken over", of=names, came=came, missing=missing)
            await trio.sleep(AGAIN_SECONDS if names else LOOK_SECONDS)

    async def take_over(self, names: Sequence[str]) -> tuple[int, int]:
        """Fetch what is sealed for agencies and not here; return how many came, and how many not.

        Cost: a row read for every record of the kinds; for a value that is missing, at most
        ``FETCH_SECONDS_MAX``.
        """
        came = missing = 0
        for kind in self._book().kinds.values():
            if not any({*each.sealed_for} & {*names} for each in kind.fields.values()):
                continue
            after: tuple[Value, ...] | None = None
            while (page := self._list(kind.name, after, PAGE_RECORDS_MAX)) is not None:
                for id_ in page.ids:
                    for state in await self._fetch(kind.name, id_, names):
                        came += state == OPEN
                        missing += state == ABSENT
                    await trio.lowlevel.checkpoint()
                after = page.next
                if after is None:
                    break
        return came, missing

    async def _fetch(self, kind_name: str, id_: Sequence[Value], names: Sequence[str]) -> list[int]:
        """Fetch what is missing of one record; return what became of each value."""
        keeper = self._keeper
        kind, row = self._book().kinds.get(kind_name), keeper.record(kind_name, id_)
        if kind is None or row is None:
            return []
        found: list[int] = []
        for name, commitment, version in sealed_fields(kind, decode_row(row)):
            audience = kind.fields[name].sealed_for
            if {*audience} & {*names} and not keeper.knows(commitment):
                place = (kind_name, *id_, name)
                found.append((await keeper.fetch(commitment, place, version, audience)).state)
        return found
