"""Every change of the state is in a decision, and versions join without a gap: checked without the
executor, from the decisions' writes and moves and the rows before and after.

- The entries that decisions of a block make for one leaf join: each names as its old version the
  new one of the entry before, the first that of the row before the block (0 if there is none), the
  last that of the row after it and, but for accounts, its hash. A version steps by one or not at
  all.
- What a block writes is in one of its decisions: as a write, as an account that was moved, as the
  window of an author's key, or it is the salt pool.

So a record's history, which the changes of all heights give, has no gap and no silent entry.

Not here: amounts (``money``), and which fields a write may touch (the ledger).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from consensus import codec
from consensus.audit.differences import word
from consensus.audit.divergence import Difference, Problem
from consensus.audit.money import ReadRow
from consensus.genesis import EPOCH
from consensus.ledger.attached import ATTACHED
from consensus.ledger.decision import Decision
from consensus.ledger.layout import Paths
from consensus.ledger.seats import KEYS as MEMBER_KEYS
from consensus.ledger.seats import MEMBERS
from consensus.ledger.seats import SPACE as COMMITTEE
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import Write
from consensus.state.record import decode_single

_WRITES: Final = "writes:"
_RECORD: Final = 1
_RECORD_VERSION: Final = slice(7, 15)
"""Where the version is in the row of a record (``state.record``)."""


def version_in(row: bytes) -> int:
    """Return the version that a row of the state has.

    Cost: 0.3 µs.
    """
    if row[0] == _RECORD:
        return int.from_bytes(row[_RECORD_VERSION], "big")
    start = 1 if row[0] == ATTACHED else 0
    return int.from_bytes(row[start : start + 8], "big")


class Accounting:
    """Checks of one network's blocks; counts what it has seen."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self.writes = 0

    def take(
        self,
        transactions: Sequence[Transaction],
        decisions: Sequence[Decision],
        writes: Sequence[Write],
        moved: frozenset[bytes],
        before: ReadRow,
        time_ms: int,
    ) -> Problem | None:
        """Check a block; return the first problem.

        Args:
            time_ms: of the block: a change of the committee that is due takes effect at its end.
            transactions: what each decision is about.
            writes: of the block.
            moved: key paths of the accounts that the block wrote.
            before: the state before the block.

        Cost: about 8 µs an entry of a decision.
        """
        after = {write.kh: write for write in writes}
        joined: dict[bytes, tuple[int, bytes, int, bytes]] = {}
        for index, decision in enumerate(decisions):
            txid = transactions[index].txid
            for name, leaf in decision.leaves.items():
                if not name.startswith(_WRITES):
                    continue
                for (space, components), old, new, vh, _ in codec.parse(leaf, "writes"):
                    self.writes += 1
                    kh = self._paths(space, components)
                    last = joined.get(kh)
                    expected = _version_before(kh, before) if last is None else last[0]
                    if old != expected or not old <= new <= old + 1:
                        place = word([space, components])
                        said = f"the versions of {place} do not join: the decision skips some"
                        differences = (Difference("old and new", f"{old}, {new}", f"{expected}"),)
                        return Problem("versions", said, index, txid, differences)
                    joined[kh] = (new, b"" if space == "account" else vh, index, txid)
        ending = self._at_the_end(after, before, time_ms)
        for kh, (version, vh, index, txid) in joined.items():
            write = after.get(kh)
            named = write is not None and version_in(write.row) == version
            if write is None or not named or (vh and vh != write.vh):
                said = "what the decision says was written is not what the block wrote"
                return Problem("versions", said, index, txid)
        return self._silent(after, joined, moved | ending, transactions)

    def _at_the_end(
        self, after: dict[bytes, Write], before: ReadRow, time_ms: int
    ) -> frozenset[bytes]:
        """Return what the end of the block may write without a decision: a change that was due.

        The seats, the members, the change itself, and whose the members' keys are.
        """
        kh = self._paths(COMMITTEE, [])
        write = after.get(kh)
        if write is None:
            return frozenset()
        epoch, _, number, _ = _value(write.row)
        row = before(kh)
        was: Any = _value(row) if row else [EPOCH, [], 0, None]
        due = was[3] is not None and time_ms >= was[3][1]
        if not due and epoch == was[0]:
            return frozenset()
        numbers = [number, *(was[3][:1] if due else [])]
        places = [(COMMITTEE, []), (COMMITTEE, [MEMBERS]), *((COMMITTEE, [n]) for n in numbers)]
        members = after.get(self._paths(COMMITTEE, [MEMBERS]))
        for each in () if members is None else _value(members.row)[1]:
            places += [(MEMBER_KEYS, [each[1]]), (MEMBER_KEYS, [each[2]])]
        return frozenset(self._paths(space, where) for space, where in places)

    def _silent(
        self,
        after: dict[bytes, Write],
        named: dict[bytes, tuple[int, bytes, int, bytes]],
        moved: frozenset[bytes],
        transactions: Sequence[Transaction],
    ) -> Problem | None:
        """Return the problem of a write that no decision names, if there is one."""
        rest = after.keys() - named.keys() - moved
        rest.discard(self._paths.pool)
        for author in {each.author for each in transactions} if rest else ():
            rest.discard(self._paths("sequence", [author]))
        if not rest:
            return None
        said = f"the block changes leaves that no decision names, such as {min(rest).hex()}"
        return Problem("versions", said)


def _value(row: bytes) -> Any:
    """Return the value in the row of a single leaf that was executed here."""
    return codec.parse(decode_single(row)[2], "leaf")


def _version_before(kh: bytes, before: ReadRow) -> int:
    row = before(kh)
    return 0 if row is None else version_in(row)
