"""Pages of ids, without what the caller may not read.

A page of the node's index is gone through row by row where read rules keep some of it from the
caller. What is left out leaves no trace: ids, the number of entries and the place where the next
page begins all come from what may be read. So a search among too many rows that may not be read is
given up; it goes on where it ended, unless that would name what is restricted.

Not here: the index (the backend), and who may read (``access``).
"""

from __future__ import annotations

from typing import Final

from consensus.codec import Value
from consensus.ledger.layout import place
from consensus.protocol import PAGE_MAX, StateKey, Status
from consensus.reads import Page
from node.api import access
from node.api.backend import ApiBackend, Identity
from node.api.reading import CannotAnswer

SCAN_MAX: Final = 5000
"""Most rows gone through for one page."""


def page(
    backend: ApiBackend,
    identity: Identity | None,
    own_key: bytes,
    kind: str,
    after: tuple[Value, ...] | None,
    limit: int,
) -> Page:
    """Return a page of the ids of a kind that the caller may read.

    Raises:
        CannotAnswer: there is no such kind, or nothing to read among too many rows.

    Cost: as the backend's page where the caller reads the whole kind; else a row's read each.
    """
    if identity is None or access.reads_all(identity, kind):
        return _page(backend, kind, after, limit)
    ids: list[tuple[Value, ...]] = []
    height = backend.height
    scanned = 0
    while scanned < SCAN_MAX:
        found = _page(backend, kind, after, PAGE_MAX)
        height = min(height, found.height)
        for id_ in found.ids:
            space, components = place(kind, id_)
            key = StateKey(space, tuple(components))
            row = None if identity.raw is None else identity.raw(key)
            if row is not None and access.may_read(identity, own_key, key, row):
                if len(ids) == limit:
                    return Page(height, tuple(ids), ids[-1])
                ids.append(id_)
        scanned += max(len(found.ids), 1)
        if found.next is None:
            return Page(height, tuple(ids), None)
        after = found.next
    if ids:
        return Page(height, tuple(ids), ids[-1])
    if not access.is_restricted(identity, kind):
        return Page(height, (), after)
    said = f"none of the first {SCAN_MAX} records of {kind} may be read with this key"
    raise CannotAnswer(Status.UNAVAILABLE, said, "ask for the records that you know")


def _page(backend: ApiBackend, kind: str, after: tuple[Value, ...] | None, limit: int) -> Page:
    found = backend.list_records(kind, after, limit)
    if found is None:
        hint = "`comity rules show DOMAIN` lists the kinds of a domain"
        raise CannotAnswer(Status.NOT_FOUND, f"no kind {kind!r} exists", hint)
    return found
