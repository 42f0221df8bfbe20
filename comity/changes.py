"""Heights with all that they changed: what a client gets that keeps a copy of what it may read.

Of every height come all decisions, and a record of hashes for each key of the state that it
changed: none is missing, because their tree has the statement's ``changes_root``. The rows of those
that this key may read come with them, each the one whose hash is certified there.

Checked, in this order: the decisions make the results root; the change records ascend and make the
changes root; each row is of the place that it names, and is what the record at its index says.

Not here: connections (``network``), and what is made of it (``comity.feeding``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from comity.results import Entry, Height
from comity.session import FeedItem
from comity.verify import Trust, entry_of
from consensus.answers import StatementEvidence
from consensus.errors import ProofError
from consensus.hashing import ZERO
from consensus.hotstuff.types import Statement
from consensus.state.changes import Change, leaf_hashes, read, split
from consensus.state.merkle import CHANGES


@dataclass(frozen=True, slots=True)
class ChangedHeight:
    """A certified height: its decisions, and every change of the state that it made.

    Args:
        height: of it, with all its decisions; none at height 0, which has no transactions.
        statement: what the certificate signs of it.
        evidence: that certificate, or a later one with the path to it.
        changes: of every key that it changed, ascending by key path.
        entries: rows that this key may read, by the index of their change; absent: gone.
    """

    height: Height
    statement: Statement
    evidence: StatementEvidence = field(repr=False)
    changes: tuple[Change, ...]
    entries: dict[int, Entry]


def verified(item: FeedItem, height: Height, trust: Trust) -> ChangedHeight:
    """Return what a height of a stream of changes proves.

    Args:
        item: as received; ``height`` was made of it, decisions and all.

    Raises:
        DecodeError: a row is malformed.
        ProofError: a change is missing, or a row is not what the height made.
    """
    statement = item.statement
    if item.changes is None:
        raise ProofError("a subscription brings something else than asked for")
    records = split(item.changes)
    found = tuple(read(record) for record in records)
    if CHANGES.root(leaf_hashes(records)) != statement.changes_root:
        raise ProofError("the changes of the height are not complete")
    return ChangedHeight(
        height, statement, item.evidence, found, _entries(item, found, trust, statement)
    )


def _entries(
    item: FeedItem, changes: Sequence[Change], trust: Trust, statement: Statement
) -> dict[int, Entry]:
    entries: dict[int, Entry] = {}
    before = -1
    for index, place, row in item.rows:
        if not before < index < len(changes):
            raise ProofError("rows of a height do not ascend")
        before = index
        change = changes[index]
        if trust.paths(place.namespace, place.components) != change.kh:
            raise ProofError("a row is of another place than its change")
        shown = None if change.vh == ZERO and row is None else (change.vh, statement.height)
        entries[index] = entry_of(place, change.kh, row, shown, statement.height, statement.time_ms)
    return entries
