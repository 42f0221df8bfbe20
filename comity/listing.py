"""Lists of records: pages of what an index of the ledger proves, or of one node's own index.

Pages of an index are read one after the other, each under the state of its moment. The size leaf is
written whenever the list changes, so pages whose size leaf was written no later than before the
first of them belong together; others are refused, and ``everything`` begins again.

Not here: how a page is proved (``verify``), and which indexes a kind has (its rules).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final

from comity.errors import DraftError, MovedError
from comity.network import Network
from comity.results import Entry, Listing
from comity.session import Statements, statement_of
from comity.verify import Trust
from comity.words import suggest
from consensus import reads
from consensus.codec import Value
from consensus.ledger.indexes import SPACE
from consensus.ledger.model import Index, Rulebook
from consensus.ledger.types import InputError, Type
from consensus.protocol import INDEX_PAGE_MAX, KEYS_MAX, PAGE_MAX, GetIndex, ListRecords, StateKey

if TYPE_CHECKING:
    from comity.client import RulesInForce

ATTEMPTS_MAX: Final = 8
"""How often a list that changes while it is read is begun."""


def unknown_kind(kind: str, known: Collection[str]) -> DraftError:
    """Return the error of a kind that no rules in force have."""
    return DraftError(f"no domain has a kind {kind!r}", hint=suggest(kind, known))


def find_index(book: Rulebook, kind: str, field: str) -> tuple[Index, Type]:
    """Return a kind's index by a field, and the type of the field.

    Raises:
        DraftError: there is none.
    """
    found = book.kinds.get(kind)
    if found is None:
        raise unknown_kind(kind, book.kinds)
    for index in found.indexes:
        if index.field == field:
            declared = found.fields.get(field)
            return index, Type("text") if declared is None else declared.stored
    known = ", ".join(index.field for index in found.indexes)
    raise DraftError(
        f"the ledger keeps no index of {kind} by {field}",
        hint=f"there are indexes by {known}" if known else f"{kind} has no index at all",
    )


async def unproved(
    network: Network, kind: str, after: tuple[Value, ...] | None, limit: int
) -> Listing:
    """Return a page of all ids of a kind, from one node's own index."""

    def read(result: Value, _: Statements) -> Listing:
        page = reads.read_page(result)
        return Listing(kind, page.ids, page.height, page.next)

    return await network.ask(ListRecords(kind, after, limit), read)


async def proved(
    network: Network,
    trust: Trust,
    place: tuple[str, str, Value],
    after: tuple[Value, ...] | None,
    limit: int,
) -> Listing:
    """Return a page of what an index lists: kind, field and value are its ``place``.

    Raises:
        DraftError: ``after`` is not the ``next`` of such a page.
        MovedError: the list has changed since the page that ``after`` is of.
    """
    kind, field, value = place
    first, changed = _cursor(after)
    limit = min(limit, INDEX_PAGE_MAX)
    height_min = trust.height
    key = StateKey(SPACE, (f"{kind}.{field}", value))

    def read(result: Value, statements: Statements) -> Listing:
        rows = reads.read_rows(result)
        trust.fresh(rows.height, height_min)
        statement = statement_of(statements, rows.height)
        head, ids = trust.index(rows, statement, key, first, limit)
        total = head.value[0] if head.present else 0
        end = first + len(ids)
        return Listing(
            kind,
            ids,
            head.height,
            (end, head.changed) if end < total else None,
            field,
            value,
            head.time_ms,
            total,
            head.changed,
        )

    request = GetIndex(height_min, f"{kind}.{field}", value, first, limit)
    page = await network.ask(request, read)
    if changed is not None and page.changed != changed:
        raise MovedError(f"what {kind}.{field} lists has changed since the page before")
    return page


async def everything(turn: Callable[[tuple[Value, ...] | None], Awaitable[Listing]]) -> Listing:
    """Return all pages as one. ``turn`` gets the page after a cursor.

    Raises:
        MovedError: a list that is proved changed during every attempt.
    """
    attempts = 0
    while True:
        page = await turn(None)
        ids = [*page.ids]
        try:
            while page.next is not None:
                page = await turn(page.next)
                ids += page.ids
        except MovedError:
            attempts += 1
            if attempts == ATTEMPTS_MAX:
                raise
            continue
        return Listing(
            page.kind,
            tuple(ids),
            page.height,
            None,
            page.index,
            page.value,
            page.time_ms,
            page.total,
            page.changed,
        )


def check_value(kind: str, field: str, declared: Type, value: Value) -> None:
    """Refuse a value that no record of the kind can have in the field.

    Raises:
        DraftError: it is not of the field's type.
    """
    try:
        declared.check(value)
    except InputError as error:
        raise DraftError(f"{kind}.{field}: {error}") from error


def _cursor(after: tuple[Value, ...] | None) -> tuple[int, int | None]:
    """Return the first position, and the height at which the list changed last before it."""
    if after is None:
        return 0, None
    if len(after) != 2 or not all(type(each) is int and each >= 0 for each in after):
        raise DraftError("this is no place in an index", hint="pass the `next` of a page of it")
    return after[0], after[1]


class Lists:
    """How a client lists records; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

        async def rules(self) -> RulesInForce: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...

    async def list_records(
        self,
        kind: str,
        *,
        index: str | None = None,
        value: Value = None,
        after: tuple[Value, ...] | None = None,
        limit: int = 100,
    ) -> Listing:
        """Return a page of ids of a kind.

        Args:
            kind: of records.
            index: a field by which the ledger keeps an index: what is listed is proved, and that
                nothing is left out. None: all records, from one node's own index, not proved.
            value: of that field.
            after: the ``next`` of the page before; None: the first page.
            limit: most ids, up to 1,000; a page of an index has at most 256.

        Raises:
            DraftError: there is no such index, or the value is not of its type.
            MovedError: the list has changed since the page before.
        """
        if index is None:
            return await unproved(self._network, kind, after, limit)
        _, declared = find_index((await self.rules()).book, kind, index)
        check_value(kind, index, declared, value)
        place = (kind, index, value)
        return await proved(self._network, self.trust, place, after, limit)

    async def list_all(
        self, kind: str, *, index: str | None = None, value: Value = None
    ) -> Listing:
        """Return all ids of a kind, or all that an index lists: pages of ``list_records`` as one.

        Raises:
            DraftError: there is no such index, or the value is not of its type.
            MovedError: the list of an index changed whenever it was read.
        """
        return await everything(
            lambda after: self.list_records(
                kind, index=index, value=value, after=after, limit=PAGE_MAX
            )
        )

    async def get_listed(self, page: Listing) -> tuple[Entry, ...]:
        """Return the records of a list in its order, each proved as of when it is read."""
        keys = [StateKey("record", (page.kind, *id_)) for id_ in page.ids]
        found: list[Entry] = []
        for at in range(0, len(keys), KEYS_MAX):
            found += await self.get_many(keys[at : at + KEYS_MAX])
        return tuple(found)
