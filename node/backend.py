"""The node as the client port sees it: pool, certified decisions, proofs, its own index.

Reads are proved under the state at the tip and answered once that height is certified, so a client
never waits for a block that nobody needs, and never sees what could still be undone.

Not here: access control, limits, client messages (``node.api``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import trio

from consensus import codec
from consensus.answers import EpochStep, StatementEvidence
from consensus.asking import Reading
from consensus.audit.stream import Recorded
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import (
    ComityError,
    CopyError,
    DecodeError,
    LocalProtocolError,
    SignatureError,
)
from consensus.evidence.making import Prepared
from consensus.genesis import EPOCH
from consensus.hashing import ZERO
from consensus.ledger.batch import Item
from consensus.ledger.dry import DryRun
from consensus.ledger.evidence import Overwritten
from consensus.ledger.executor import BlockContext
from consensus.ledger.layout import (
    ACTIVE,
    Agency,
    Key,
    Principal,
    Role,
    in_force,
    leaf_value,
)
from consensus.ledger.ledger import Ledger
from consensus.ledger.readers import Reader
from consensus.ledger.transaction import decode_envelope
from consensus.protocol import StateKey, Status
from consensus.reads import Page, RuleText
from consensus.state.record import decode_single
from node import aside, changing, earlier
from node.api.backend import (
    Admission,
    Admitted,
    BehindError,
    CertifiedBlock,
    ChangedRows,
    Earlier,
    Holder,
    Identity,
    Lineage,
    Place,
    ProvedRows,
    PrunedError,
    Rejected,
    Select,
    Submission,
    Tried,
)
from node.asking import Asking
from node.chronicle import Chronicle
from node.dissemination import Dissemination
from node.epochs import Ended
from node.errors import StorageFailedError
from node.execution import Execution
from node.lineage import Lineages
from node.listed import KERNEL_KINDS, id_of, index_key
from node.mempool import Busy, TooLarge
from node.past import Past, Pruned
from node.readlog import Read, ReadLog
from node.retracing import Retracing
from node.sealed.keeper import Keeper
from node.storage.store import Store
from node.telemetry.metrics import Metrics
from node.verifier import Verifier, VerifierBusy, WorkerFailed

PATIENCE_SECONDS: Final = 5.0
"""A read waits this long for the height that it asks for, or that it was proved under."""
BUSY_RETRY_MS: Final = 200
HOLDERS_SCAN_MAX: Final = 5000
"""Roles gone through to find those who have one."""


class Backend:
    """Implements ``node.api.backend.ApiBackend`` over one node.

    Args:
        status: what the node says of itself.
        refusing: None while transactions are accepted, else why not.
        read_log: where reads are recorded; None: what must be recorded is not shown.
        genesis_head: the head of the genesis file, and the hash of its contents: of bundles.
        past: what the state was.
        ended: the ends of all epochs before this one.
    """

    def __init__(
        self,
        ledger: Ledger,
        committee: Committee,
        execution: Execution,
        chronicle: Chronicle,
        dissemination: Dissemination,
        verifier: Verifier,
        store: Store,
        status: Callable[[], dict[str, Any]],
        refusing: Callable[[], Rejected | None],
        metrics: Metrics,
        past: Past,
        read_log: ReadLog | None = None,
        genesis_head: tuple[bytes, bytes] = (b"", b""),
        ended: Sequence[Ended] = (),
    ) -> None:
        self._ended = ended
        self._past = past
        self._ledger = ledger
        self._committee = committee
        self._execution = execution
        self._chronicle = chronicle
        self._dissemination = dissemination
        self._verifier = verifier
        self._store = store
        self._status = status
        self._refusing = refusing
        self._metrics = metrics
        self._read_log = read_log
        self.keeper: Keeper | None = None
        """What keeps sealed values, once the node has begun with it."""
        self.genesis_head = genesis_head
        self._retracing = Retracing(ledger, chronicle, past, self._history_root)
        self._lineages = Lineages(past, chronicle)
        self._ingress_seconds = metrics.stage_seconds.labels(stage="ingress")
        self._advanced = trio.Event()
        self._dry = ledger.apart()
        self._dry.nodes = None  # a draft is tried out before its sealed values are delivered
        """Judges drafts: what it keeps is never used for blocks."""
        self.proposals = Asking(
            self._dry,
            lambda: execution.state,
            chronicle.proposals,
            lambda: chronicle.certified,
            chronicle.time_ms,
            self._history_root,
            committee.epoch,
        )

    def advanced(self) -> None:
        """A height was certified: wake reads that wait for it."""
        self._advanced.set()
        self._advanced = trio.Event()

    @property
    def height(self) -> int:
        """Newest certified height."""
        return self._chronicle.certified

    # --- people -------------------------------------------------------------------------------

    def identity(self, key: bytes) -> Identity | None:
        """Return who holds an active key now; None for unknown, revoked or suspended."""
        row = self._single("key", [key])
        if row is None:
            return None
        holder = Key(*row)
        person = self._single("principal", [holder.principal])
        if person is None or holder.fault(self._chronicle.time_ms()):
            return None
        principal = Principal(*person)
        agency = in_force(self._agency(principal.agency), self._agency)
        if principal.status != ACTIVE or agency.status != ACTIVE:
            return None
        own = None if principal.person is None else tuple(principal.person)
        book, now_ms = self._rules().book, self._chronicle.time_ms()
        reader = Reader(book, principal, agency, now_ms, self._leaf)
        return Identity(
            principal.id, agency.name, principal.kind, own, reader, self._raw, self._by_path
        )

    def _agency(self, name: str) -> Agency:
        row = self._single("agency", [name])
        if row is None:
            raise LocalProtocolError(f"the state has no agency {name!r}")
        return Agency(*row)

    def _leaf(self, space: str, components: Sequence[Value]) -> Any:
        found = self._single(space, [*components])
        return None if found is None else leaf_value(space, components, found)

    def _raw(self, key: StateKey) -> bytes | None:
        return self._by_path(self._path(key))

    def _by_path(self, kh: bytes) -> bytes | None:
        row = self._execution.state.get(kh)
        return None if row is None or row.vh == ZERO else row.value

    def _single(self, namespace: str, components: list[Value]) -> Value | None:
        row = self._execution.state.get(self._ledger.paths(namespace, components))
        if row is None or row.vh == ZERO:
            return None
        return codec.parse(decode_single(row.value)[2], namespace)

    # --- transactions -------------------------------------------------------------------------

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Admission]:
        """Check in workers and pool all submissions, in order."""
        refusal = self._refusing()
        if refusal is not None:
            return [refusal] * len(submissions)
        begin = time.monotonic()
        try:
            items = await self._verifier.check_items([each.data for each in submissions])
        except (VerifierBusy, WorkerFailed) as error:
            return [self._rejected(error) for _ in submissions]
        self._ingress_seconds.observe(time.monotonic() - begin)
        return [self._admit(item) for item in items]

    def _admit(self, item: Item | ComityError) -> Admission:
        if not isinstance(item, ComityError):
            txids = tuple([each.txid for each in item.transactions])
            decided: dict[int, Place] = {}
            for position, txid in enumerate(txids):
                place = self._chronicle.find(txid)
                if place is not None:
                    decided[position] = place
            if len(decided) == len(txids):
                return Admitted(txids, decided)
            try:
                self._dissemination.add(item)
            except (Busy, TooLarge, DecodeError) as error:
                return self._rejected(error)
            return Admitted(txids, decided)
        return self._rejected(item)

    def _rejected(self, error: ComityError) -> Rejected:
        match error:
            case Busy():
                self._metrics.busy.inc()
                status, retry_ms = Status.BUSY, error.retry_after_ms
            case VerifierBusy():
                self._metrics.busy.inc()
                status, retry_ms = Status.BUSY, BUSY_RETRY_MS
            case WorkerFailed():
                status, retry_ms = Status.UNAVAILABLE, BUSY_RETRY_MS
            case SignatureError():
                # The error's own advice is for those who were sent data; this one signed it.
                hint = "sign with the key that the transaction names, for this network"
                return Rejected(Status.BAD_SIGNATURE, "BAD_SIGNATURE", error.message, hint)
            case CopyError():
                hint = "send the private part that was signed, unchanged"
                return Rejected(Status.MALFORMED, "MALFORMED", error.message, hint)
            case _:
                status, retry_ms = Status.MALFORMED, 0
        return Rejected(status, status.name, error.message, error.hint, retry_ms)

    # --- certified heights ----------------------------------------------------------------------

    def find(self, txid: bytes) -> Place | None:
        """Return where a certified decision is."""
        return self._chronicle.find(txid)

    def find_effect(self, txid: bytes) -> Place | None:
        """Return where the certified second decision of a proposal is."""
        return self._chronicle.find_effect(txid)

    def block(self, height: int) -> CertifiedBlock | None:
        """Return a certified height's decisions."""
        return self._chronicle.block(height)

    def decisions_of(self, txid: bytes) -> Sequence[tuple[int, int]]:
        """Return height and index of every certified decision of a transaction, ascending."""
        return self._chronicle.decisions_of(txid)

    def past(self, height: int) -> tuple[bytes, int, list[bytes]] | None:
        """Return statement, history size and path that show a height without an archive."""
        return self._chronicle.past(height)

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        """Return a height's statement, and its path to the root over the first ``size`` heights."""
        return self._chronicle.statement_under(height, size)

    async def earlier(self, key: StateKey, version: int, upto: int) -> Earlier | None:
        """Return a record at an earlier version; see ``node.earlier``."""
        find = partial(earlier.find, self._past, self._path(key), version, upto)
        return await trio.to_thread.run_sync(find, limiter=self._lineages.turn)

    async def retrace(self, height: int, index: int, opened: Sequence[str]) -> Prepared:
        """Return a certified decision judged again, for a bundle.

        Raises:
            ComityError: what it was judged on is not kept.
        """
        return await self._retracing.prepare(height, index, opened)

    def recorded(self, height: int) -> Recorded | None:
        """Return all that is kept of a certified height, for auditors."""
        return self._chronicle.recorded(height)

    def _history_root(self, size: int) -> bytes:
        return self._execution.history.root(size)

    def overwritten(self, txid: bytes) -> Mapping[bytes, Overwritten]:
        """Return the leaves that a transaction overwrote, by their hash, as far as kept."""
        value = self._chronicle.aside(aside.key(txid))
        return {} if value is None else aside.read(value)

    def evidence(self, height: int) -> StatementEvidence | None:
        """Return what proves a certified height's statement."""
        return self._chronicle.evidence(height)

    async def prove(self, height_min: int, selects: Sequence[Select]) -> Sequence[ProvedRows]:
        """Return what each selection chose, proved under one certified height.

        Raises:
            BehindError: that height was not reached in time.
        """
        with trio.move_on_after(PATIENCE_SECONDS):
            while True:
                while self._chronicle.executed < max(height_min, 1):
                    await self._advanced.wait()
                height, root = self._execution.state.height, self._execution.state.root
                proved = [self._prove(select) for select in selects]
                while self._chronicle.certified < height <= self._chronicle.executed:
                    await self._advanced.wait()
                if height > self._chronicle.certified:
                    continue  # it was taken back
                if self._chronicle.state_root(height) == root:
                    return proved
        raise BehindError

    def _prove(self, select: Select) -> ProvedRows:
        state = self._execution.state

        def read(key: StateKey) -> bytes | None:
            row = state.get(self._path(key))
            return None if row is None or row.vh == ZERO else row.value

        keys = select(read)
        paths = [self._path(key) for key in keys]
        rows = [state.get(kh) for kh in paths]
        return ProvedRows(
            height=state.height,
            keys=keys,
            rows=[None if row is None or row.vh == ZERO else row.value for row in rows],
            proof=state.prove(paths).encode(),
        )

    def _path(self, key: StateKey) -> bytes:
        return self._ledger.paths(key.namespace, list(key.components))

    # --- the past ---------------------------------------------------------------------------------

    async def lineage(
        self, key: StateKey, newest: int, first: int, last: int, limit: int
    ) -> Lineage:
        """Return the versions of a leaf after the blocks ``first..last``, proved at ``newest``."""
        try:
            return await self._lineages.of(self._path(key), newest, first, last, limit)
        except Pruned as error:
            raise self._pruned(error) from error

    async def changed(self, height: int, named: Sequence[StateKey]) -> ChangedRows:
        """Return what a certified height changed, with the rows whose places are known."""
        places = {self._path(key): key for key in named}
        paths = self._ledger.paths
        find = partial(changing.find, self._past, height, places, paths)
        try:
            return await trio.to_thread.run_sync(find, limiter=self._lineages.turn)
        except Pruned as error:
            raise self._pruned(error) from error

    def moment(self, time_ms: int) -> int | None:
        """Return the greatest provable height whose time is not after ``time_ms``."""
        try:
            return self._lineages.at(time_ms)
        except Pruned as error:
            raise self._pruned(error) from error

    def time_of(self, height: int) -> int | None:
        """Return chain time of a certified height, None where that is not kept."""
        return self._lineages.time_of(height)

    def _pruned(self, error: Pruned) -> PrunedError:
        return PrunedError(error.horizon, self._lineages.time_of(error.horizon))

    # --- lists --------------------------------------------------------------------------------

    def list_records(self, kind: str, after: tuple[Value, ...] | None, limit: int) -> Page | None:
        """Return a page of the node's own index; None for a kind that there is not."""
        if kind not in KERNEL_KINDS and kind not in self._rules().book.kinds:
            return None
        prefix = codec.encode(kind)
        start = b"" if after is None else index_key(kind, after)
        rows = self._store.view.records(prefix, after=start, count_max=limit + 1)
        ids: list[tuple[Value, ...]] = []
        for _key, kh in rows[:limit]:
            row = self._execution.state.get(kh)
            if row is not None:
                ids.append(id_of(kind, row.value))
        return Page(self._store.height, tuple(ids), ids[-1] if len(rows) > limit else None)

    # --- the log of reads ---------------------------------------------------------------------

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
            StorageFailedError: it is not; nothing may be shown.
        """
        if self._read_log is None:
            raise StorageFailedError("this node has no log of reads")
        now_ms = time.time_ns() // 1_000_000
        who, agency = identity.principal, identity.agency
        reads = [
            Read(now_ms, height, who, key, agency, method, purpose, tuple(places))
            for height, places in shown
        ]
        await self._read_log.record(*reads)

    async def reads_of(self, target: StateKey, skip: int, limit: int) -> Sequence[Reading]:
        """Return whom this node has shown a place to, the oldest first."""
        if self._read_log is None:
            return []
        return [
            Reading(r.time_ms, r.height, r.agency, r.method, r.purpose, r.principal)
            for r in await self._read_log.of(target, skip, limit)
        ]

    # --- drafts -------------------------------------------------------------------------------

    def simulate(self, envelope: bytes) -> Tried:
        """Try out a draft on the newest executed state, by a ledger that serves no blocks.

        Raises:
            ComityError: it is malformed.
        """
        transaction = decode_envelope(self._ledger.chain, envelope)
        state, time_ms = self._execution.state, self._chronicle.executed_time_ms()
        context = BlockContext(
            self._committee.epoch, state.height + 1, time_ms, history=self._history_root
        )
        run = DryRun(self._dry, state, context, transaction)
        return Tried(state.height, time_ms, run)

    def holders(self, role: str, limit: int) -> Sequence[Holder]:
        """Return who has a role now, as far as the node's own index goes."""
        found: list[Holder] = []
        now_ms = self._chronicle.time_ms()
        rows = self._store.view.records(codec.encode("role"), count_max=HOLDERS_SCAN_MAX)
        for _, kh in rows:
            row = self._execution.state.get(kh)
            if row is None or row.vh == ZERO:
                continue
            given = Role(*codec.parse(decode_single(row.value)[2], "role"))
            if given.role != role or given.fault(now_ms):
                continue
            person = Principal(*self._single("principal", [given.principal]) or ())
            agency = in_force(self._agency(person.agency), self._agency)
            if person.status == ACTIVE and agency.status == ACTIVE:
                scope = tuple((name, value) for name, value in given.scope)
                found.append(Holder(given.principal, agency.name, scope))
            if len(found) == limit:
                break
        return found

    def _rules(self) -> Any:
        return self._ledger.rules(self._execution.state, self._chronicle.time_ms())

    def rule_sets(self, domain: str | None) -> Sequence[RuleText]:
        """Return the rule sets in force, of one domain or of all."""
        book = self._rules().book
        return [
            RuleText(each.domain, each.number, each.encoded)
            for each in book.rule_sets.values()
            if domain is None or each.domain == domain
        ]

    def committees(self, after_epoch: int, limit: int) -> Sequence[EpochStep]:
        """Return the committees elected after an epoch, ascending."""
        return [each.step() for each in self._ended[after_epoch - EPOCH :][:limit]]

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself."""
        return self._status()
