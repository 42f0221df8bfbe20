"""An agency took the place of another: its node fetches what is sealed for that one.

Nobody else may have these values, and the node of the agency that left gives them only while it has
a seat. So it is asked at once, not when somebody reads: record by record of the kinds that seal a
field for that agency, one value at a time, as they are in the records now. What was overwritten
before is not asked for.

Not here: giving and fetching (``keeper``), and who takes whose place (the ledger).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
MISSING_SECONDS: Final = 60.0
"""How long after having gone through all records, of which some are missing, it is done again."""
AGAIN_SECONDS: Final = 3600.0
"""How long after nothing was missing."""
PAGE_RECORDS_MAX: Final = 100


@dataclass(slots=True)
class Taken:
    """What became of the values sealed for others, in the records of the store at ``height``."""

    height: int
    came: int = 0
    missing: int = 0


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
        known: list[str] = []
        since = 0
        while True:
            names, pause = self._keeper.seated_predecessors(), LOOK_SECONDS
            if names != known:
                known, since = names, self._keeper.height
            if names:
                found = await self.take_over(names)
                told = {"of": names, "came": found.came, "missing": found.missing}
                self._log("sealed values taken over", **told)
                if found.height >= since:  # else the newest records are not listed yet
                    pause = MISSING_SECONDS if found.missing else AGAIN_SECONDS
            await trio.sleep(pause)

    async def take_over(self, names: Sequence[str]) -> Taken:
        """Fetch what is sealed for agencies and not here; return what became of it.

        Cost: a row read for every record of the kinds; for a value that is missing, at most
        ``FETCH_SECONDS_MAX``.
        """
        taken = Taken(self._keeper.height)
        for kind in self._book().kinds.values():
            if not any({*each.sealed_for} & {*names} for each in kind.fields.values()):
                continue
            after: tuple[Value, ...] | None = None
            while (page := self._list(kind.name, after, PAGE_RECORDS_MAX)) is not None:
                taken.height = min(taken.height, page.height)
                for id_ in page.ids:
                    for state in await self._fetch(kind.name, id_, names):
                        taken.came += state == OPEN
                        taken.missing += state == ABSENT
                    await trio.lowlevel.checkpoint()
                after = page.next
                if after is None:
                    break
        return taken

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
