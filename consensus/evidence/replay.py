"""One decision judged again, by the executor that judged it first.

``Tracing`` does so where all rows are at hand, on a node, and notes what the judgement reads:
that is the decision's witness. ``Judging`` does so where nothing but a witness is at hand.

Both run the executor's own code; only the view beneath it differs. Attested and not judged again,
because the decision shows no more of it: whether a sequence number was free, and what an account
holds that was only moved.

Not here: whether the outcome is the certified one (``verify``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from consensus import codec
from consensus.codec import Value
from consensus.errors import LocalProtocolError, invariant, present
from consensus.evidence.witness import Shown, SingleLeaf, WitnessLeaf, of_record
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.ledger.accounts import Account, hash_accounts
from consensus.ledger.attached import ATTACHED, cut_attached
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.layout import Balance
from consensus.ledger.ledger import Ledger, Rules
from consensus.ledger.model import Kind
from consensus.ledger.proposals import SPACE
from consensus.ledger.records import VOIDED_CBOR, Record, Voided
from consensus.ledger.sequence import Window
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import Source, View
from consensus.state.record import StoredRecord, decode_single
from consensus.state.salted import NO_SALT

PLENTY: Final = 1 << 61
"""Stands for an amount that is attested to be enough."""


class Fresh(NamedTuple):
    """What hides the leaves that a write made: with these the reader can hash them too.

    ``salts`` are of the leaves that are new, ascending by name; ``decoys`` those of a record, if
    the write drew them anew.
    """

    salts: bytes
    decoys: bytes


@dataclass(frozen=True, slots=True)
class Trace:
    """What judging a decision again took.

    Args:
        decision: as it comes out.
        leaves: the witness, ascending by key path.
        attested: ids of the accounts that were found or moved and not looked into, ascending by
            key path.
        fresh: of each entry of the decision's writes, in their order.
        drafts: of the proposals that were looked at, as their rows have them, by txid.
        texts: rule sets that were looked at as such, by domain and number.
        sizes: of histories that were asked for.
    """

    decision: Decision
    leaves: tuple[WitnessLeaf, ...]
    attested: tuple[list[Value], ...]
    fresh: tuple[Fresh, ...]
    drafts: dict[bytes, bytes]
    texts: dict[tuple[str, int], bytes]
    sizes: tuple[int, ...]


# --- where all rows are at hand -----------------------------------------------------------------


class _TracingView(View):
    """Notes where every leaf lies, and which leaves of records are read."""

    def __init__(self, source: Source, ledger: Ledger) -> None:
        super().__init__(source, ledger.paths)
        self.source = source
        self.places: dict[bytes, tuple[str, list[Value]]] = {}
        self.drafts: dict[bytes, bytes] = {}
        self.texts: dict[tuple[str, int], bytes] = {}
        self._values: dict[bytes, set[int]] = {}
        self._versions: dict[bytes, set[int]] = {}
        self._originals: dict[bytes, StoredRecord] = {}
        self._rows: dict[bytes, bytes] = {}
        """Rows that transactions before the one to judge have written in this block."""

    def watch(self) -> None:
        """Forget what was read so far: what comes now is to be shown."""
        self.drafts, self.texts, self._values, self._versions = {}, {}, {}, {}
        hash_accounts(self._written_accounts.values())
        self._rows = {kh: each.row() for kh, each in self._written_accounts.items()}
        self._rows.update(self._written_singles)
        for kh, record in self._records.items():
            if record is not None:
                self._records[kh] = self._traced(record)

    # --- noting

    def single(self, space: str, components: Sequence[Value], kh: bytes = b"") -> Any:
        kh = kh or self.paths(space, components)
        self.places[kh] = (space, list(components))
        return super().single(space, components, kh)

    def rules_of(self, domain: str) -> tuple[Any, dict[bytes, bytes]]:
        rules = self.in_force[domain]
        self.places[rules.kh] = ("rules", [domain, rules.number])
        return super().rules_of(domain)

    def attachment(self, space: str, components: Sequence[Value]) -> bytes:
        found = super().attachment(space, components)
        if space == SPACE:
            self.drafts[cast(bytes, components[0])] = found
        else:
            self.texts[cast(tuple[str, int], tuple(components))] = found
        return found

    def overwritten(self) -> list[Any]:
        return []  # nodes keep these aside; nothing is judged by them

    def _load_record(self, kh: bytes, components: bytes, kind: Kind) -> Record | None:
        record = super()._load_record(kh, components, kind)
        return None if record is None else self._traced(record)

    def _load_account(self, id_: Sequence[Value], id_cbor: bytes) -> Account | None:
        self.places[self.paths.of("account", id_cbor)] = ("account", list(id_))
        return super()._load_account(id_, id_cbor)

    def _traced(self, record: Record) -> Record:
        """Return a record that has decoded nothing, and notes what is read of it."""
        kh, stored = record.kh, record.stored
        plain = StoredRecord(
            stored.stem,
            stored.version,
            stored.names,
            tuple(stored.versions),
            stored.salts,
            stored.hashes,
            tuple(stored.values),
            stored.decoys,
        )
        self._originals[kh] = plain
        values = self._values[kh] = set()
        versions = self._versions[kh] = set()
        if record.voided:
            values.add(record.places["status"][0])
        traced = StoredRecord(
            plain.stem,
            plain.version,
            plain.names,
            cast(tuple[int, ...], Shown(plain.versions, 0, "", versions.add)),
            plain.salts,
            plain.hashes,
            cast(tuple[bytes, ...], Shown(plain.values, b"", "", values.add)),
            plain.decoys,
        )
        return type(record)(kh, record.id_cbor, record.kind, record.places, traced, record.vh)

    # --- what was noted

    def leaves(self, opened: Collection[str]) -> list[WitnessLeaf]:
        """Return every leaf that was read and was there, ascending by key path."""
        return [self._leaf(kh, opened) for kh, vh in sorted(self.reads.items()) if vh != ZERO]

    def _leaf(self, kh: bytes, opened: Collection[str]) -> WitnessLeaf:
        stored = self._originals.get(kh)
        if stored is not None:
            values, versions = frozenset(self._values[kh]), frozenset(self._versions[kh])
            more = {at for at, name in enumerate(stored.names) if f"{stored.kind}.{name}" in opened}
            return of_record(stored, values | _status(stored) | more, versions)
        row = self._rows.get(kh)
        if row is None:
            found = self.source.get(kh)
            row = present(found, "a leaf that was read is gone").value
        if row[0] == ATTACHED:
            row = cut_attached(row)[0]
        invariant(kh in self.places, "the place of a leaf that was read is not known")
        space, components = self.places[kh]
        return SingleLeaf(space, components, *decode_single(row))

    def attested(self) -> list[list[Value]]:
        """Return the accounts that were not looked into, ascending by key path."""
        return [self.places[kh][1] for kh in sorted(self.moved) if kh not in self.reads]

    def fresh(self, decision: Decision) -> list[Fresh]:
        """Return what hides each leaf that the decision's writes name."""
        found: list[Fresh] = []
        for space, components in written_places(decision):
            kh = self.paths(space, components)
            record = self._written_records.get(kh)
            if record is not None:
                found.append(_fresh(self._originals.get(kh), record.stored))
                continue
            account = self._written_accounts.get(kh)
            row = self._written_singles.get(kh, b"") if account is None else account.row()
            if row[:1] == bytes([ATTACHED]):
                row = cut_attached(row)[0]
            found.append(Fresh(decode_single(row)[1], b""))
        return found


def _status(stored: StoredRecord) -> frozenset[int]:
    """Return the leaf that loading any record looks at: whether its making was taken back."""
    index = stored.index("status")
    return frozenset(() if index is None else (index,))


def _fresh(base: StoredRecord | None, written: StoredRecord) -> Fresh:
    salts = [written.leaf_at(index).salt for index in renewed(base, written)]
    same = base is not None and base.decoys == written.decoys
    return Fresh(b"".join(salts), b"" if same else written.decoys)


def renewed(base: StoredRecord | None, written: StoredRecord) -> list[int]:
    """Return the indices of the leaves that a write made anew: no two salts are the same."""
    before = {} if base is None else dict(zip(base.names, _split(base.hashes), strict=True))
    hashes = zip(written.names, _split(written.hashes), strict=True)
    return [index for index, (name, hash_) in enumerate(hashes) if before.get(name) != hash_]


def _split(hashes: bytes) -> list[bytes]:
    return [hashes[at : at + DIGEST_BYTES] for at in range(0, len(hashes), DIGEST_BYTES)]


def written_places(decision: Decision) -> Iterable[tuple[str, list[Value]]]:
    """Yield the places that a decision's writes name, in their order."""
    for name in decision.names:
        if name.startswith("writes:"):
            rows: Any = decision.value(name)
            for (space, components), *_ in rows:
                yield space, components


class _TracingRun(BlockRun):
    __slots__ = ()

    def _open(self, source: Source) -> View:
        return _TracingView(source, self._ledger)


def trace(
    ledger: Ledger,
    source: Source,
    context: BlockContext,
    transactions: Sequence[Transaction],
    index: int,
    opened: Collection[str] = (),
) -> Trace:
    """Judge the decision at ``index`` of a block again, and return what it was judged on.

    Args:
        ledger: one that serves no blocks; what it keeps of them would hide reads.
        source: the rows before the block.
        transactions: of the block, in the payload's order.
        opened: leaves of records, ``kind.leaf``, that are shown although nothing looked at them.

    Raises:
        LocalProtocolError: the block has no such decision, or these are not its rows.

    Cost: that of executing the block up to there.
    """
    sizes: dict[int, None] = {}
    root = context.history

    def history(size: int) -> bytes:
        sizes[size] = None
        return b"" if root is None else root(size)

    noting = BlockContext(
        context.epoch, context.height, context.time_ms, context.executor, root and history
    )
    run = _TracingRun(ledger, source, noting, transactions)
    view = cast(_TracingView, run._view)
    left = True
    while left and len(run._decisions) < index:
        left = run.step(1)
    view.watch()
    sizes.clear()
    while left and len(run._decisions) <= index:
        left = run.step(1)
    if len(run._decisions) <= index:
        raise LocalProtocolError(f"the block has no decision {index}")
    decision = run._decisions[index]
    return Trace(
        decision,
        tuple(view.leaves(opened)),
        tuple(view.attested()),
        tuple(view.fresh(decision)),
        dict(view.drafts),
        dict(view.texts),
        tuple(sizes),
    )


# --- where a witness is at hand -----------------------------------------------------------------


class WitnessRow(NamedTuple):
    """A row as a witness shows it; of a record, ``shown`` is what is shown of it."""

    vh: bytes
    value: bytes
    shown: StoredRecord | None = None


class Witness:
    """The leaves of a witness as the source of a view, by key path.

    Args:
        rows: leaves that were there; each has the value hash that the decision names.
        attested: accounts that were only moved: what is at their disposal, and holds.
    """

    __slots__ = ("_rows", "attested", "pool")

    def __init__(
        self,
        rows: Mapping[bytes, WitnessRow],
        attested: Mapping[bytes, Balance],
        pool: bytes,
    ) -> None:
        self._rows = rows
        self.attested = attested
        self.pool = pool

    def get(self, kh: bytes) -> WitnessRow | None:
        """Return a leaf; None where there was none."""
        return _POOL_ROW if kh == self.pool else self._rows.get(kh)


_POOL_ROW: Final = WitnessRow(ZERO, bytes(8) + NO_SALT + codec.encode(bytes(DIGEST_BYTES)))
"""A pool is never shown; the salts that come of this one are replaced by those of the bundle."""


class _AnyNumber(Window):
    """A window whose number was free: that is attested."""

    __slots__ = ()

    def check(self, number: int) -> None:
        pass


class _Endless(dict[int, int]):
    """Reservations that are attested to hold what is taken from them."""

    def __missing__(self, until_ms: int) -> int:
        return PLENTY


class _WitnessView(View):
    def __init__(self, witness: Witness, ledger: Ledger) -> None:
        super().__init__(cast(Source, witness), ledger.paths)
        self._witness = witness

    def _load_record(self, kh: bytes, components: bytes, kind: Kind) -> Record | None:
        row = self._witness.get(kh)
        if row is None or row.shown is None:
            return None
        stored = row.shown
        places = kind.places[stored.definition - 1]
        status = stored.values[places["status"][0]]
        make = Voided if status == VOIDED_CBOR else Record
        return make(kh, components, kind, places, stored, row.vh)

    def _load_account(self, id_: Sequence[Value], id_cbor: bytes) -> Account | None:
        kh = self.paths.of("account", id_cbor)
        balance = self._witness.attested.get(kh)
        if balance is None:
            return super()._load_account(id_, id_cbor)
        account = Account(kh, id_cbor, self._owner(id_), balance, ZERO, NO_SALT)
        account.expiring = _Endless()
        self._accounts[id_cbor] = account
        return account

    def window(self, key: bytes) -> Window:
        return _AnyNumber()

    def spend(self, key: bytes, number: int, pool: bytes) -> None:
        pass

    def overwritten(self) -> list[Any]:
        return []


class FixedRules(Ledger):
    """A ledger whose rules are given, not found in a state."""

    __slots__ = ("fixed",)

    fixed: Rules

    def rules(self, source: Source, time_ms: int) -> Rules:
        """Return the rules given."""
        return self.fixed


class Judging(BlockRun):
    """A decision judged again on a witness.

    Args:
        ledger: with the rules that were in force.
        witness: the leaves.
        context: of the decision's block.
    """

    __slots__ = ()

    def __init__(self, ledger: FixedRules, witness: Witness, context: BlockContext) -> None:
        super().__init__(ledger, cast(Source, witness), context, [])

    def _open(self, source: Source) -> View:
        return _WitnessView(cast(Witness, source), self._ledger)

    def judge(self, transaction: Transaction) -> Decision:
        """Return the outcome of a transaction; its salts are none."""
        self._execute(transaction)
        return self._decisions[0]

    def settle(self, txid: bytes) -> Decision | None:
        """Return the outcome of a proposal that was approved; None if it was to wait on."""
        self._settle(txid)
        return self._decisions[0] if self._decisions else None

    def written(self, kh: bytes) -> StoredRecord | bytes:
        """Return what the judgement wrote at a key path: a record, or the row of a single leaf."""
        record = self._view._written_records.get(kh)
        if record is not None:
            return record.stored
        account = self._view._written_accounts.get(kh)
        if account is not None:
            hash_accounts([account])
            return account.row()
        row = self._view._written_singles.get(kh)
        row = present(row, "a leaf that a decision names was not written")
        return cut_attached(row)[0] if row[0] == ATTACHED else row
