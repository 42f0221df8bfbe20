"""What a block reads and writes: the only way from the executor to the state.

Three layers: the source below the block, the block's own leaves, and what the transaction being
judged wants to write. A refused transaction leaves no trace in the second. Every first access of a
transaction is recorded as it was before the transaction's own writes, whether the leaf came from a
cache or not; whoever has exactly these leaves can execute the decision again.

    source ──> block: records, accounts, single leaves ──> transaction: drafts, changes, pending
                   ^─────────────────── commit ───────────────────────────┘

Salts come from the pool after the transaction that writes. Records and single leaves are hashed
when their transaction commits, because its decision names them; accounts and sequence windows once,
in ``finish``, or when a changed account is read.

Not here: which reads and writes are allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import Any, Final, NamedTuple, Protocol

from consensus import codec
from consensus.codec import Value
from consensus.errors import present
from consensus.hashing import ZERO
from consensus.ledger import indexes, sequence
from consensus.ledger.accounts import NO_VERSION, Account, Change, fresh_account, hash_accounts
from consensus.ledger.attached import ATTACHED as ATTACHED
from consensus.ledger.attached import cut_attached
from consensus.ledger.attached import join_attached as join_attached
from consensus.ledger.attached import split_attached as split_attached
from consensus.ledger.governing import Governing
from consensus.ledger.layout import (
    Paths,
    encode_bytes,
    encode_id,
    encode_value,
    leaf_value,
    place,
)
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.records import Draft, KeptRecords, Record, RowLike, write_entry
from consensus.ledger.sequence import Window
from consensus.state import salted
from consensus.state.record import Leaf, decode_single, encode_row, encode_single
from consensus.state.salted import NO_SALT

CHARTER: Final = "charter"
"""The kernel's own domain."""
RULES: Final = "rules"
"""The space of rule sets and of their heads and adoptions."""
AUTHORITY: Final = frozenset({"agency", "principal", "subject", "key", "role", "grant", RULES})
"""Spaces on which cached judgements of authority rest."""


class Source(Protocol):
    """The state before the block, or the leaves of a witness."""

    def get(self, kh: bytes) -> RowLike | None:
        """Return a key's row, or None."""
        ...


class Write(NamedTuple):
    """One leaf that a block changed, for the state tree."""

    kh: bytes
    vh: bytes
    row: bytes


class RulesInForce(NamedTuple):
    """A rule set in force: its number, and where its leaf lies with which hash."""

    number: int
    kh: bytes
    vh: bytes


class Single:
    """A single leaf as the block has it; never changed once made."""

    __slots__ = ("salt_start", "value", "version", "vh")

    def __init__(self, version: int, value: Any, vh: bytes, salt_start: bytes) -> None:
        self.version = version
        self.value = value
        self.vh = vh
        self.salt_start = salt_start


class Pending:
    """A single leaf as the current transaction wants it."""

    __slots__ = (
        "attachment", "before", "components", "domain", "space", "steps", "value", "version",
    )  # fmt: skip

    def __init__(
        self, space: str, components: Sequence[Value], domain: str, before: Single | None
    ) -> None:
        self.space = space
        self.components = components
        self.domain = domain
        self.before = before
        self.version = 0 if before is None else before.version
        self.steps = False
        self.value: Any = None
        self.attachment = b""


class _Slot:
    """The sequence window of one key within the block."""

    __slots__ = ("changed", "kh", "pool", "salt_start", "window")

    def __init__(self, kh: bytes, window: Window, salt_start: bytes) -> None:
        self.kh = kh
        self.window = window
        self.salt_start = salt_start
        self.pool = b""
        self.changed = False


class View:
    """The state as one block sees it.

    Args:
        source: rows before the block.
        paths: key paths of the network.
        kept: records that earlier blocks read.
    """

    def __init__(self, source: Source, paths: Paths, kept: KeptRecords | None = None) -> None:
        self._get = source.get
        self.paths = paths
        self._kept = KeptRecords() if kept is None else kept
        self.book = Rulebook({})
        self.in_force: Mapping[str, RulesInForce] = {}
        """The rule sets in force; set with ``book`` once they are known."""
        self.governing: Governing | None = None
        """What acts on rule sets ask of the network; set with ``book``."""
        self.now_ms = 0
        """The block's time; set with them."""
        self.history_root: Callable[[int], bytes | None] = lambda _: None
        """The root over the statements of so many heights, from 0; None where it is not known."""
        # of the block
        self._singles: dict[bytes, Single | None] = {}
        self._records: dict[bytes, Record | None] = {}
        self._accounts: dict[bytes, Account | None] = {}
        self._slots: dict[bytes, _Slot] = {}
        self._written_accounts: dict[bytes, Account] = {}
        self._written_singles: dict[bytes, bytes] = {}
        self._attachments: dict[bytes, bytes] = {}
        self._written_records: dict[bytes, Record] = {}
        # of the transaction
        self.reads: dict[bytes, bytes] = {}
        self.moved: dict[bytes, None] = {}
        self._pending: dict[bytes, Pending] = {}
        self._drafts: dict[bytes, Draft] = {}
        self._changes: dict[bytes, Change] = {}
        self.indexed: dict[bytes, indexes.Entered] = {}
        """Drafts of kinds that have indexes."""
        self.authority_moved = False
        """Whether the transaction writes what authority rests on; caches must not serve it."""

    # --- transactions -------------------------------------------------------------------------

    def begin(self) -> None:
        """Start a transaction that has read nothing."""
        self.reads = {}
        self.moved = {}
        self.authority_moved = False

    def rollback(self) -> None:
        """Forget what the transaction wants to write, not what it has read."""
        self._pending = {}
        self._drafts = {}
        self._changes = {}
        self.indexed = {}

    def reads_cbor(self) -> bytes:
        """Return the decision's reads, encoded.

        Two byte strings: ``kh ‖ vh`` ascending, zeros for an absent leaf; and the ``kh`` of
        accounts that were found or moved and not looked into, ascending.
        """
        reads = self.reads
        full = b"".join(sorted(map(add, reads, reads.values())))
        only = b"".join(sorted([kh for kh in self.moved if kh not in reads]))
        return b"\x82" + encode_bytes(full) + encode_bytes(only)

    def commit(self, pool: bytes) -> dict[str, list[bytes]]:
        """Let the block see what the transaction writes.

        Args:
            pool: the salt pool after the transaction.

        Returns:
            The encoded entries of the decision's writes leaves by owning domain: records, accounts
            that were made or held, other leaves, each in the order of their first write.

        Raises:
            Refused: an index cannot list a record; nothing is committed.
        """
        if self.indexed:
            indexes.settle(self)
            self.indexed = {}
        entries: dict[str, list[bytes]] = {}
        if self._drafts:
            for kh, draft in self._drafts.items():
                record, entry = draft.finish(pool)
                if entry:
                    self._records[kh] = self._written_records[kh] = record
                    entries.setdefault(record.kind.domain, []).append(entry)
            self._drafts = {}
        if self._changes:
            for kh, change in self._changes.items():
                self._commit_account(kh, change, pool, entries)
            self._changes = {}
        if self._pending:
            for kh, pending in self._pending.items():
                self._commit_single(kh, pending, pool, entries)
            self._pending = {}
        return entries

    def _commit_account(
        self, kh: bytes, change: Change, pool: bytes, entries: dict[str, list[bytes]]
    ) -> None:
        account = change.account
        account.balance = change.balance
        account.reserved = change.reserved
        account.expiring = change.expiring
        account.pool = pool
        account.vh = b""
        self._written_accounts[kh] = account
        if not change.opened and change.held == account.held:
            return
        account.held = change.held
        self._accounts[account.id_cbor] = account
        hash_accounts([account])
        old = 0 if change.opened else NO_VERSION
        entry = write_entry("account", account.id_cbor, old, NO_VERSION, account.vh)
        entries.setdefault(account.domain, []).append(entry)

    def _commit_single(
        self, kh: bytes, pending: Pending, pool: bytes, entries: dict[str, list[bytes]]
    ) -> None:
        before = pending.before
        start = NO_SALT if before is None else before.salt_start
        version = pending.version + pending.steps
        salt = salted.next_single_salt(start, pool, kh)
        attachment = pending.attachment
        value = encode_bytes(pending.value) if attachment else encode_value(list(pending.value))
        vh = salted.single_leaf(kh, version, salt, value)
        self._singles[kh] = Single(version, pending.value, vh, start)
        row = encode_single(version, salt, value)
        if attachment:
            self._attachments[kh] = attachment
            row = join_attached(row, attachment)
        self._written_singles[kh] = row
        components = encode_id(pending.components)
        entry = write_entry(pending.space, components, pending.version, version, vh)
        entries.setdefault(pending.domain, []).append(entry)

    # --- single leaves ------------------------------------------------------------------------

    def single(
        self, space: str, components: Sequence[Value], kh: bytes = b""
    ) -> Single | Pending | None:
        """Return a leaf as the transaction sees it, or None; records the read.

        ``value`` is the tuple that ``layout.leaf_value`` makes, ``version`` the version before the
        transaction.

        Args:
            kh: the key path, where the caller has it.
        """
        kh = kh or self.paths(space, components)
        if kh in self._singles:
            found = self._singles[kh]
        else:
            found = self._singles[kh] = self._load_single(space, components, kh)
        if kh not in self.reads:
            self.reads[kh] = ZERO if found is None else found.vh
        return self._pending.get(kh, found) if self._pending else found

    def _load_single(self, space: str, components: Sequence[Value], kh: bytes) -> Single | None:
        row = self._get(kh)
        if row is None or row.vh == ZERO:
            return None
        if row.value[0] == ATTACHED:
            version, salt, data = decode_single(cut_attached(row.value)[0])
            return Single(version, codec.parse(data, "leaf"), row.vh, salt)
        version, salt, data = decode_single(row.value)
        value = leaf_value(space, components, codec.parse(data, "leaf"))
        return Single(version, value, row.vh, salt)

    def rules_of(self, domain: str) -> tuple[Any, dict[bytes, bytes]]:
        """Return a domain's head, and the leaves that say which of its rules are in force."""
        kh, rules = self.paths("rules", [domain]), self.in_force[domain]
        head = present(self.single("rules", [domain], kh), "a domain in force has a head")
        self.reads[rules.kh] = rules.vh
        return head, {kh: self.reads[kh], rules.kh: rules.vh}

    def unchanged(self, leaves: Mapping[bytes, bytes]) -> bool:
        """Return whether single leaves, ``kh`` to ``vh``, are so in the block; records no read."""
        singles, get = self._singles, self._get
        for kh, vh in leaves.items():
            now = singles.get(kh) or get(kh)
            if (ZERO if now is None else now.vh) != vh:
                return False
        return True

    def attachment(self, space: str, components: Sequence[Value]) -> bytes:
        """Return what lies beside a leaf that is a root and that exists. Records the read."""
        kh = self.paths(space, components)
        present(self.single(space, components, kh), "a leaf with an attachment does not exist")
        pending = self._pending.get(kh)
        if pending is not None:
            return pending.attachment
        written = self._attachments.get(kh)
        if written is not None:
            return written
        # not kept: what a block reads may be much longer than the block
        return cut_attached(present(self._get(kh), "a leaf that was read is gone").value)[1]

    def put(
        self,
        space: str,
        components: Sequence[Value],
        value: Any,
        domain: str,
        *,
        steps: bool = True,
        kh: bytes = b"",
        attachment: bytes = b"",
    ) -> None:
        """Write a leaf, reading it first if the transaction has not.

        Args:
            value: a tuple, the leaf's new value; with an attachment a root of 32 bytes.
            domain: whose writes leaf names it.
            steps: whether the version steps (once, however often it is written).
            kh: the key path, where the caller has it.
            attachment: what lies beside the leaf in its row, and is proved by the root.
        """
        kh = kh or self.paths(space, components)
        if space in AUTHORITY:
            self.authority_moved = True
        pending = self._pending.get(kh)
        if pending is None:
            self.single(space, components, kh)
            pending = Pending(space, components, domain, self._singles[kh])
            self._pending[kh] = pending
        pending.value = value
        pending.attachment = attachment
        pending.steps = pending.steps or steps or pending.before is None

    # --- records ------------------------------------------------------------------------------

    def record_path(self, kind: str, id_: Sequence[Value]) -> tuple[bytes, bytes]:
        """Return encoded components and key path of a record."""
        return self.paths.record(kind, id_)

    def record(self, kind: Kind, id_: Sequence[Value]) -> Record | None:
        """Return a record as the transaction sees it, or None; records the read."""
        return self.record_at(kind, *self.record_path(kind.name, id_))

    def record_at(self, kind: Kind, components: bytes, kh: bytes) -> Record | None:
        """Return ``record`` for the encoded components and key path that ``record_path`` gives."""
        if kh in self._records:
            found = self._records[kh]
        else:
            found = self._records[kh] = self._load_record(kh, components, kind)
        if kh not in self.reads:
            self.reads[kh] = ZERO if found is None else found.vh
        return self._drafts.get(kh, found) if self._drafts else found

    def _load_record(self, kh: bytes, components: bytes, kind: Kind) -> Record | None:
        row = self._get(kh)
        if row is None or row.vh == ZERO:
            return None
        return self._kept.load(kh, components, kind, row)

    def draft(self, record: Record) -> Draft:
        """Return the draft of a record that the transaction has read, making it if need be.

        A call may have loaded one record under two names: both lead to the same draft.
        """
        found = self._drafts.get(record.kh)
        if found is not None:
            return found
        kind = record.kind
        draft = Draft(record.kh, record.id_cbor, kind, kind.places[-1], record, record["id"])
        self._drafts[record.kh] = draft
        if kind.indexes:
            self.indexed[record.kh] = indexes.Entered(draft)
        return draft

    def create(self, kind: Kind, id_: list[Value], components: bytes, kh: bytes) -> Draft:
        """Return the draft of a new record, whose ``record_path`` is ``components`` and ``kh``.

        The caller has found that there is none, or has made the id from the transaction.
        """
        draft = Draft(kh, components, kind, kind.places[-1], None, id_)
        self._drafts[kh] = draft
        if kind.indexes:
            self.indexed[kh] = indexes.Entered(draft)
        return draft

    # --- accounts -----------------------------------------------------------------------------

    def account(self, id_: Sequence[Value]) -> Account | None:
        """Return an account, or None; notes that it is there. ``read_account`` looks into it."""
        id_cbor = encode_id(id_)
        if id_cbor in self._accounts:
            account = self._accounts[id_cbor]
        else:
            account = self._load_account(id_, id_cbor)
        if account is None and self._changes:
            change = self._changes.get(self.paths.of("account", id_cbor))
            return None if change is None else change.account
        if account is not None:
            self.moved[account.kh] = None
        return account

    def _load_account(self, id_: Sequence[Value], id_cbor: bytes) -> Account | None:
        kh = self.paths.of("account", id_cbor)
        row = self._get(kh)
        account = None
        if row is not None and row.vh != ZERO:
            _, salt, data = decode_single(row.value)
            value = codec.parse(data, "account")
            account = Account(kh, id_cbor, self._owner(id_), value, row.vh, salt)
            if account.expiring:
                account.expire(self.now_ms)
        self._accounts[id_cbor] = account
        return account

    def _owner(self, id_: Sequence[Value]) -> str:
        family = self.book.families.get(id_[0])
        return CHARTER if family is None else family.domain

    def read_account(self, account: Account) -> Account | Change:
        """Return what the transaction sees of an account; records the read."""
        kh = account.kh
        change = self._changes.get(kh)
        if kh not in self.reads:  # one that the transaction opens is there as absent
            hash_accounts([account])
            self.reads[kh] = account.vh
        return account if change is None else change

    def move(self, account: Account) -> Change:
        """Return what the transaction makes of an account, to be debited or credited."""
        kh = account.kh
        change = self._changes.get(kh)
        if change is None:
            change = self._changes[kh] = Change(account, opened=False)
        return change

    def absent_account(self, id_: Sequence[Value]) -> None:
        """Record that there is no such account."""
        kh = self.paths.of("account", encode_id(id_))
        self.reads.setdefault(kh, ZERO)

    def open(self, id_: list[Value]) -> None:
        """Make an account with balance 0; the caller has found that there is none."""
        id_cbor = encode_id(id_)
        kh = self.paths.of("account", id_cbor)
        self.reads.setdefault(kh, ZERO)
        account = fresh_account(kh, id_, id_cbor, self._owner(id_))
        self._changes[kh] = Change(account, opened=True)

    def account_held(self, account: Account) -> int:
        """Return the mask of scopes with unreleased holds on an account."""
        change = self._changes.get(account.kh) if self._changes else None
        return account.held if change is None else change.held

    def hold_account(self, account: Account, mask: int) -> None:
        """Set the mask of an account; nothing else of it changes."""
        self.read_account(account)
        change = self._changes.get(account.kh)
        if change is None:
            change = self._changes[account.kh] = Change(account, opened=False)
        change.held = mask

    # --- versions -----------------------------------------------------------------------------

    def overwritten(self) -> list[Leaf]:
        """Return the leaves of records that the transaction overwrites, as they were."""
        return [leaf for draft in self._drafts.values() for leaf in draft.overwritten()]

    def version_named(self, kind: str, id_: list[Value]) -> int:
        """Return the version, before the transaction, of what ``[kind, id]`` names; 0 if absent."""
        space, components = place(kind, id_)
        if space != "record":
            single = self.single(space, components)
            return 0 if single is None else single.version
        declared = self.book.kinds.get(kind)
        if declared is None:
            return 0
        record = self.record(declared, id_)
        return 0 if record is None else record.version

    # --- sequence windows ---------------------------------------------------------------------

    def window(self, key: bytes) -> Window:
        """Return the window of a key; it is attested, not read."""
        slot = self._slots.get(key)
        if slot is None:
            kh = self.paths("sequence", [key])
            row = self._get(kh)
            if row is None or row.vh == ZERO:
                slot = _Slot(kh, Window(), NO_SALT)
            else:
                _, salt, data = decode_single(row.value)
                window = sequence.from_value(codec.parse(data, "sequence"))
                slot = _Slot(kh, window, salt)
            self._slots[key] = slot
        return slot.window

    def spend(self, key: bytes, number: int, pool: bytes) -> None:
        """Mark a number of a key as used; ``pool`` is that after the transaction."""
        slot = self._slots[key]
        slot.window.spend(number)
        slot.pool = pool
        slot.changed = True

    # --- the end ------------------------------------------------------------------------------

    def finish(self) -> list[Write]:
        """Return the block's writes, ascending by key path, without the pool's."""
        writes = []
        accounts = self._written_accounts.values()
        hash_accounts(accounts)
        writes += [Write(each.kh, each.vh, each.row()) for each in accounts]
        for record in self._written_records.values():
            writes.append(Write(record.kh, record.vh, encode_row(record.stored)))
        for kh, row in self._written_singles.items():
            single = self._singles[kh]
            writes.append(Write(kh, present(single, "a written leaf is gone").vh, row))
        for slot in self._slots.values():
            if slot.changed:
                value = encode_value(slot.window.to_value())
                writes.append(single_write(slot.kh, value, slot.salt_start, slot.pool))
        writes.sort()
        return writes


def single_write(
    kh: bytes, value_cbor: bytes, salt_start: bytes, pool: bytes, version: int = NO_VERSION
) -> Write:
    """Return the write of a single leaf whose last writer left ``pool``."""
    salt = salted.next_single_salt(salt_start, pool, kh)
    vh = salted.single_leaf(kh, version, salt, value_cbor)
    return Write(kh, vh, encode_single(version, salt, value_cbor))
