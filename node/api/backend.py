"""What the API server asks of the node that runs it.

The runtime implements ``ApiBackend`` and calls the server's ``certified`` and ``lapsed``. Methods
that are not coroutines must be quick (memory, or a memory-mapped store); nothing here is called
once per transaction except ``find``, for transactions that are known already.

Not here: client messages. Keys, rows and decisions travel as the bytes the store has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from consensus.answers import EpochStep, StatementEvidence
from consensus.asking import Reading
from consensus.audit.stream import Recorded
from consensus.codec import Value
from consensus.evidence.making import Prepared
from consensus.ledger.dry import DryRun
from consensus.ledger.evidence import Overwritten
from consensus.ledger.readers import Reader
from consensus.protocol import Item, StateKey, Status
from consensus.reads import Page
from consensus.state.changes import Step
from node.asking import Asking
from node.sealed.keeper import Keeper

RowReader = Callable[[StateKey], bytes | None]
"""Reads a raw row of one consistent state; None is absent."""
Select = Callable[[RowReader], Sequence[StateKey]]
"""Chooses the keys to prove, perhaps after reading some; called on the state that is proved."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One item of a client's submission: untrusted bytes, not yet looked into.

    ``sender`` is the key that the connection proved; quotas are by the transactions' own authors.
    """

    kind: Item
    data: bytes
    sender: bytes


@dataclass(frozen=True, slots=True)
class Admitted:
    """The transactions of a submission are in the pool, or were decided before.

    ``decided`` maps positions in ``txids`` to the place of the decision that already exists.
    """

    txids: tuple[bytes, ...]
    decided: Mapping[int, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing of a submission was accepted. ``code`` is the ledger's for NOT_ADMITTED."""

    status: Status
    code: str
    message: str
    hint: str = ""
    retry_after_ms: int = 0


Admission = Admitted | Rejected


@dataclass(frozen=True, slots=True)
class Place:
    """Where a decision is: ``index`` in the results of ``height``. ``author`` signed its body."""

    height: int
    index: int
    author: bytes


@dataclass(frozen=True, slots=True)
class CertifiedBlock:
    """The decisions of a certified height, parallel in execution order.

    Args:
        height: of the block.
        evidence: its statement and what certifies it.
        txids: of each decision; a proposal's second decision has the proposal's.
        roots: the leaves of results_root.
        decisions: encoded, in the form that clients get.
    """

    height: int
    evidence: StatementEvidence
    txids: Sequence[bytes]
    roots: Sequence[bytes]
    decisions: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class ProvedRows:
    """Rows as the store has them, in the order of ``keys``, under one certified state.

    Args:
        height: of the certified state, whose evidence ``ApiBackend.evidence`` has.
        keys: what the selection chose.
        rows: raw rows; None is absent, deleted included.
        proof: one encoded state proof of all keys.
    """

    height: int
    keys: Sequence[StateKey]
    rows: Sequence[bytes | None]
    proof: bytes


@dataclass(frozen=True, slots=True)
class Lineage:
    """Versions of a leaf up to height ``last``, ascending, with what proves them.

    Args:
        steps: of the proof.
        ended: the proof ends with the leaf as it is now.
        rows: raw rows of the versions; None is deleted, FORGOTTEN (``consensus.past``) not kept.
        horizon: rows replaced up to this height are not kept.
    """

    last: int
    steps: tuple[Step, ...]
    ended: bool
    rows: Sequence[bytes | int | None]
    horizon: int


@dataclass(frozen=True, slots=True)
class Changed:
    """A raw row that a height made; None: deleted. ``index`` is that of its change record."""

    index: int
    place: StateKey
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """All change records of a height, joined, and the rows of those whose place is known."""

    changes: bytes
    rows: Sequence[Changed]


class PrunedError(Exception):
    """What is asked for is older than what the node keeps.

    ``height`` is the first that is kept, ``time_ms`` its time where that is known.
    """

    def __init__(self, height: int, time_ms: int | None) -> None:
        super().__init__(height)
        self.height = height
        self.time_ms = time_ms


@dataclass(frozen=True, slots=True)
class Tried:
    """A draft that was tried out on the state of an executed height."""

    height: int
    time_ms: int
    run: DryRun


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a role now, and in which scope."""

    principal: bytes
    agency: str
    scope: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A raw row of the past, and the place of its change in the change tree of its height."""

    row: bytes
    height: int
    count: int
    index: int
    previous: int
    path: Sequence[bytes]


class BehindError(Exception):
    """This node did not reach the height that was asked for in reasonable time."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A live principal at the certified tip. ``kind`` as in ``consensus.genesis``.

    ``person`` is the id of a citizen's own person record. ``reader`` judges read rules; None where
    there are none. ``raw`` reads rows of the state that the rules are judged on, ``by_path`` rows
    at key paths.
    """

    principal: bytes
    agency: str
    kind: int
    person: tuple[Value, ...] | None = None
    reader: Reader | None = field(default=None, compare=False, repr=False)
    raw: RowReader | None = field(default=None, compare=False, repr=False)
    by_path: Callable[[bytes], bytes | None] | None = field(default=None, compare=False, repr=False)


class ApiBackend(Protocol):
    """The node behind the API."""

    @property
    def height(self) -> int:
        """Newest certified height."""

    def identity(self, key: bytes) -> Identity | None:
        """Return who holds an active ``key`` now; None for unknown, revoked or suspended."""

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Admission]:
        """Check (in workers) and pool all submissions of one connection's turn, in order.

        A submission whose transactions are all in the pool or decided already is Admitted again.
        """

    def find(self, txid: bytes) -> Place | None:
        """Return where a certified decision is."""

    @property
    def keeper(self) -> Keeper | None:
        """What keeps sealed values; None: they are not kept here."""

    @property
    def proposals(self) -> Asking:
        """What the node says of proposals."""

    def find_effect(self, txid: bytes) -> Place | None:
        """Return where the certified second decision of a proposal is."""

    def block(self, height: int) -> CertifiedBlock | None:
        """Return a certified height's decisions; None if unknown or no longer kept."""

    def decisions_of(self, txid: bytes) -> Sequence[tuple[int, int]]:
        """Return height and index of every certified decision of a transaction, ascending."""

    def past(self, height: int) -> tuple[bytes, int, list[bytes]] | None:
        """Return what shows a certified height without an archive; None if it is not kept.

        Its statement, a number of heights under whose history root it is, and the path there. The
        height of that number proves itself, or the last of them is the height asked for.
        """

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        """Return the statement of a certified height and its path to the history root over the
        first ``size`` heights; None if it is not kept."""

    async def earlier(self, key: StateKey, version: int, upto: int) -> Earlier | None:
        """Return a record at an earlier version, as the first height up to ``upto`` that had it.

        None: no height ended with that version, or it lies too far back to be looked for.

        Raises:
            ComityError: it is not kept here any more.
        """

    @property
    def genesis_head(self) -> tuple[bytes, bytes]:
        """The head of the genesis file, and the hash of its contents."""

    async def retrace(self, height: int, index: int, opened: Sequence[str]) -> Prepared:
        """Return a certified decision judged again, for a bundle.

        Raises:
            ComityError: what it was judged on is not kept.
        """

    def recorded(self, height: int) -> Recorded | None:
        """Return all that is kept of a certified height, for auditors; None if it is not kept."""

    def overwritten(self, txid: bytes) -> Mapping[bytes, Overwritten]:
        """Return the leaves that a transaction overwrote, by their hash, as far as kept."""

    def evidence(self, height: int) -> StatementEvidence | None:
        """Return what proves a certified height's statement; None if unknown."""

    async def prove(self, height_min: int, selects: Sequence[Select]) -> Sequence[ProvedRows]:
        """Return what each selection chose, proved under one certified height >= ``height_min``.

        Raises:
            BehindError: that height was not reached within the backend's patience.
        """

    async def lineage(
        self, key: StateKey, newest: int, first: int, last: int, limit: int
    ) -> Lineage:
        """Return the versions of a leaf after the blocks ``first..last``, proved at ``newest``.

        Args:
            newest: a certified height; ``0 <= first <= last <= newest``.
            limit: most versions that came after ``first``; more cut the range.

        Raises:
            PrunedError: too old for this node.
        """

    async def changed(self, height: int, named: Sequence[StateKey]) -> ChangedRows:
        """Return what a certified height changed.

        Args:
            named: places that it wrote; those of records and accounts are found without.

        Raises:
            PrunedError: too old for this node.
        """

    def moment(self, time_ms: int) -> int | None:
        """Return the greatest height that can be proved whose time is not after ``time_ms``.

        None: the network had not begun.

        Raises:
            PrunedError: too old for this node.
        """

    def time_of(self, height: int) -> int | None:
        """Return chain time of a certified height, None where that is not kept."""

    def list_records(self, kind: str, after: tuple[Value, ...] | None, limit: int) -> Page | None:
        """Return a page of the node's own index; None for a kind that there is not."""

    async def record_reads(
        self,
        identity: Identity,
        key: bytes,
        method: str,
        purpose: str,
        shown: Sequence[tuple[int, Sequence[StateKey]]],
    ) -> None:
        """Return once it is on disk who is shown what of the states of which heights.

        Raises:
            ComityError: it is not; nothing may be shown.
        """

    async def reads_of(self, target: StateKey, skip: int, limit: int) -> Sequence[Reading]:
        """Return whom this node has shown a place to, the oldest first."""

    def simulate(self, envelope: bytes) -> Tried:
        """Try out a draft on the newest executed state; its signatures are not looked at.

        Raises:
            ComityError: it is malformed.
        """

    def holders(self, role: str, limit: int) -> Sequence[Holder]:
        """Return who has a role now, as far as the node's own index goes."""

    def committees(self, after_epoch: int, limit: int) -> Sequence[EpochStep]:
        """Return the committees elected after an epoch, ascending."""

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself: a map of plain values, open to everybody."""
