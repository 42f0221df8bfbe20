"""Taking a transaction back: amounts, fields, records and unique slots, on its own terms.

The decision of the transaction says what it did and on which terms (``terms``); the evidence shows
it, with what it overwrote. What was moved last goes back first.

    amounts   go back. What a payee no longer has above the floor is debited to the account of
              debts, if the terms name one: no currency's sum changes
    fields    are restored if they still are as the transaction wrote them, else STALE
    records   that it made become ``voided``, if nobody has changed them since
    slots     stay taken, or are free again, as the terms say

A reversal is a transaction like others, so it can be taken back too, on the same terms: that
restores what the first one did. ``corrections/<txid>`` names the transaction that took another
back. Opened accounts stay; what a reservation paid becomes reserved again (``reopened``).

Not here: what evidence proves (``evidence``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from consensus import codec
from consensus.codec import Value
from consensus.errors import present
from consensus.ledger import holds, terms
from consensus.ledger.amounts import SPACE
from consensus.ledger.authority import Power
from consensus.ledger.codes import Code, Refused
from consensus.ledger.decision import APPLIED
from consensus.ledger.evidence import EvidenceError, Moved, Original, Overwritten, Written, check
from consensus.ledger.expects import named
from consensus.ledger.fixed_policies import policy_of
from consensus.ledger.holds import Target
from consensus.ledger.kernel.plan import Acting, Plan, bad
from consensus.ledger.kernel.reopened import Reopened, Reservations
from consensus.ledger.layout import ALL, EDIT, PAY, Reservation, RulesHead, encode_id, encode_int
from consensus.ledger.model import AccountFamily, Kind, Policy
from consensus.ledger.records import VOIDED
from consensus.ledger.terms import Terms
from consensus.ledger.view import CHARTER, View
from consensus.state.record import HOLDS

POLICIES_MAX: Final = 64
"""Different policies in the terms of one transaction: one for each of its calls."""
REVERSES: Final = "reverses"
"""The link of a reversal's decision to the transaction that it takes back."""


def reverse(acting: Acting) -> Plan:
    """Take an applied transaction back."""
    view, txid = acting.view, acting.inputs["transaction"]
    done = view.single("corrections", [txid])
    original = _original(acting)
    if failed := _failed(acting, original, None if done is None else done.value[0]):
        return Plan(lambda: None, failed=failed)
    records = [_Restored(view, *each) for each in _written(original)]
    amounts, slots = _Amounts(view, original), _Slots(view, original)
    return Plan(
        partial(_write, acting, original, records, amounts, slots),
        forbidden=_forbidden(acting, original),
        stale=next((each.stale for each in records if each.stale is not None), None),
        taken=slots.taken,
        minds=tuple(_minds(view, original, records, amounts)),
    )


def policies(acting: Acting) -> list[Policy]:
    """Return who must approve taking a transaction back, by its terms; equal ones count once.

    Raises:
        Refused: BAD_INPUT: it is not shown; LIMIT: there are more than POLICIES_MAX.
    """
    found = {
        codec.encode(each.approvals): each.approvals
        for each in _original(acting).terms
        if each.approvals is not None
    }
    if len(found) > POLICIES_MAX:
        raise Refused(Code.LIMIT, "policies")
    return [policy_of(each) for each in found.values()]


def _original(acting: Acting) -> Original:
    """Return what evidence shows; checked once in the judgement of a call."""
    found: Original | None = acting.sink.kept.get(acting.call)
    if found is None:
        view, txid = acting.view, acting.inputs["transaction"]
        try:
            found = check(acting.inputs["evidence"], txid, view.history_root, view.paths)
        except EvidenceError as error:
            raise bad("evidence", error.reason) from None
        acting.sink.kept[acting.call] = found
    return found


def _failed(acting: Acting, original: Original, by: bytes | None) -> tuple[str, str] | None:
    """Return the requirement that the transaction does not meet; ``by`` has taken it back."""
    header = original.header
    if header.state != APPLIED:
        return ("NOT_APPLIED", "the transaction has changed nothing")
    if not original.terms:
        return ("NOT_REVERSIBLE", "the rules it was made under do not let it be taken back")
    if by is not None:
        return ("REVERSED", f"transaction {by.hex()} has taken it back")
    if acting.now_ms > terms.until_ms(original.terms, header.time_ms):
        return ("TOO_LATE", "the time in which it could be taken back is over")
    return None


def _forbidden(acting: Acting, original: Original) -> Value:
    """Return the first link that is missing to the roles that may take the transaction back."""
    for role in dict.fromkeys(each.role for each in original.terms):
        power = Power(acting.view, acting.standing, role, acting.now_ms)
        if power.missing:
            return power.missing[0]
    return None


def _write(
    acting: Acting,
    original: Original,
    records: Sequence[_Restored],
    amounts: _Amounts,
    slots: _Slots,
) -> None:
    """Carry out, and leave in the decision what was moved and on which terms it was done."""
    view, sink, txid = acting.view, acting.sink, original.header.txid
    author = (acting.standing.principal.id, acting.standing.agency.name)
    for row, positions in amounts.rows:
        moves = amounts.write(positions, sink.moves, sink.move_count)
        sink.move_count += moves
        sink.terms.append(row.turned(txid)._replace(moves=moves).encode())
    sink.covered += 1
    slots.write()
    for record in records:
        record.write(*author)
    view.put("corrections", [txid], (acting.txid,), CHARTER)
    sink.links.append(terms.encode_link(REVERSES, txid))


# --- records ----------------------------------------------------------------------------------


def _written(original: Original) -> Iterator[tuple[Written, list[Overwritten | None]]]:
    """Yield the records that a transaction wrote, each with its old leaves: None for no leaf."""
    openings = iter(original.openings)
    for written in original.writes():
        old = [next(openings) if each.shown else None for each in written.replaced]
        if written.space == "record" and written.old != written.new:
            yield written, old


class _Restored:
    """A record to be voided, or whose fields are to be restored.

    ``stale`` is the detail of the refusal if others have changed it since, else None.
    """

    __slots__ = ("_made", "_old", "_view", "kind", "record", "stale")

    def __init__(self, view: View, written: Written, old: list[Overwritten | None]) -> None:
        kind = view.book.kinds.get(written.components[0])
        record = None if kind is None else view.record(kind, written.components[1:])
        if kind is None or record is None:
            name = [written.components[0], list(written.components[1:])]
            raise Refused(Code.NOT_FOUND, ["evidence", name])
        self._view = view
        self.kind, self.record = kind, record
        self._made = written.old == 0
        self._old = {
            each.leaf: opening
            for each, opening in zip(written.replaced, old, strict=True)
            if each.leaf != HOLDS
        }
        if self._made:
            leaves = [leaf for leaf in kind.leaves if leaf != HOLDS]
            moved = [leaf for leaf in leaves if self._version(leaf) > written.new]
        else:
            moved = [leaf for leaf in self._old if self._version(leaf) != written.new]
        self.stale: Value = [named(record), record.version, moved] if moved else None

    def _version(self, leaf: str) -> int:
        return self.record.field_version(_fields(self.kind, leaf)[0])

    @property
    def target(self) -> Target:
        """The record as a hold names it."""
        return Target("record", [self.kind.name, *self.record["id"]])

    def write(self, principal: bytes, agency: str) -> None:
        """Void or restore it."""
        draft = self._view.draft(self.record)
        if self._made:
            draft.write("status", VOIDED)
            draft.enter_status(VOIDED, principal, agency)
            draft.voided = True
            return
        for leaf, opening in self._old.items():
            fields = _fields(self.kind, leaf)
            value: Any = None if opening is None else codec.parse(opening.value, "leaf")
            if opening is None or fields == (leaf,):
                value = [value] * len(fields)
            for field, each in zip(fields, value, strict=True):
                draft.write(field, each)
        draft.voided = draft["status"] == VOIDED


def _fields(kind: Kind, leaf: str) -> tuple[str, ...]:
    """Return the fields that a leaf holds; a leaf of the kernel's is one itself."""
    return kind.leaves.get(leaf) or (leaf,)


# --- unique slots -----------------------------------------------------------------------------


class _Slots:
    """Slots that are to be free again, or taken again.

    ``taken`` is what NOT_UNIQUE names: a slot that others have taken since.
    """

    __slots__ = ("_holders", "_slots", "_view", "taken")

    def __init__(self, view: View, original: Original) -> None:
        self._view = view
        self._slots: dict[bytes, list[Value]] = {}
        self._holders: dict[bytes, bytes | None] = {}
        self.taken: Value = None
        for row in reversed(original.terms):
            holder = row.origin or original.header.txid
            before, after = (None, holder) if row.undone else (holder, None)
            for slot in row.slots:
                if self._holder(slot) != before and self.taken is None:
                    self.taken = ["unique", slot[1]]
                self._holders[encode_id(slot)] = after

    def _holder(self, slot: list[Value]) -> bytes | None:
        key = encode_id(slot)
        if key not in self._holders:
            found = self._view.single("unique", slot)
            self._slots[key] = slot
            self._holders[key] = None if found is None else found.value[0]
        return self._holders[key]

    def write(self) -> None:
        """Free and take them."""
        for key, holder in self._holders.items():
            slot = self._slots[key]
            self._view.put("unique", slot, (holder,), slot[0])


# --- amounts ----------------------------------------------------------------------------------


class _Entry(NamedTuple):
    """One side of a move; ``account`` is its id."""

    account: list[Value]
    family: AccountFamily
    delta: int
    reopened: Reopened | None = None


Row = tuple[Terms, list[list[_Entry]]]
"""Terms, and the moves that belong to them."""


def _reserved(view: View, id_: Sequence[Value]) -> Reservation | None:
    leaf = view.single(SPACE, id_)
    return None if leaf is None else leaf.value


class _Amounts:
    """What goes back between accounts.

    ``rows`` are in the order in which they are carried out.
    """

    __slots__ = ("_left", "_reservations", "_view", "accounts", "rows")

    def __init__(self, view: View, original: Original) -> None:
        self._view = view
        self._left: dict[bytes, int] = {}
        self._reservations = Reservations(partial(_reserved, view), view.now_ms)
        self.accounts: dict[bytes, list[Value]] = {}
        """Every account that is debited or credited, by its encoded id."""
        self.rows: list[Row] = []
        moved = original.moves()
        end = sum(each.moves for each in original.terms)
        for row in reversed(original.terms):
            span = range(end - 1, end - 1 - row.moves, -1)
            end -= row.moves
            self.rows.append((row, [self._back(moved[at], row) for at in span if at in moved]))

    def _back(self, sides: Sequence[Moved], row: Terms) -> list[_Entry]:
        """Return the sides of the move that takes another back; credits come first."""
        shortfall = None if row.undone else row.shortfall
        entries: list[_Entry] = []
        for side in sides:
            if side.delta <= 0:
                reopened = self._reservations.back(side, again=row.undone)
                self._add(entries, side.account, -side.delta, reopened)
        short = 0
        for side in sides:
            if side.delta > 0:
                amount = side.delta
                if shortfall is not None:
                    amount = min(amount, max(self._available(side.account), 0))
                    short += side.delta - amount
                reopened = self._reservations.back(side, again=row.undone)
                self._add(entries, side.account, -amount, reopened)
        if short and shortfall is not None:
            self._add(entries, shortfall, -short)
        return entries

    def _add(
        self,
        entries: list[_Entry],
        account: list[Value],
        delta: int,
        reopened: Reopened | None = None,
    ) -> None:
        key = encode_id(account)
        self.accounts[key] = account
        entries.append(_Entry(account, self._family(account), delta, reopened))
        reserved = 0 if reopened is None else reopened.reserved
        self._left[key] = self._available(account) + delta - reserved

    def _available(self, id_: list[Value]) -> int:
        """Return what may still be debited; 0 less the floor for an account yet to be opened."""
        key = encode_id(id_)
        if key not in self._left:
            account = self._view.account(id_)
            left = 0
            if account is not None:
                change = self._view.move(account)
                left = change.balance - change.reserved
            self._left[key] = left - self._family(id_).floor
        return self._left[key]

    def _family(self, id_: list[Value]) -> AccountFamily:
        family = self._view.book.families.get(id_[0])
        if family is None:
            raise Refused(Code.NOT_FOUND, ["evidence", ["account", id_]])
        return family

    def write(self, moves: list[list[_Entry]], found: dict[str, list[bytes]], first: int) -> int:
        """Move the amounts; return how many moves there were.

        Args:
            found: entries of the decision's moves by owning domain; these are added.
            first: position of the first move in the transaction.

        Raises:
            Refused: INSUFFICIENT.
        """
        view = self._view
        for position, entries in enumerate(moves, first):
            for entry in entries:
                account = view.account(entry.account)
                if account is None:
                    holds.open_account(view, entry.account)
                    account = view.account(entry.account)
                account = present(account, "an account that was opened is missing")
                change, reopened = view.move(account), entry.reopened
                if reopened is not None:
                    reopened.write(view, change, entry.delta, entry.family.floor)
                elif entry.delta < 0:
                    change.debit(-entry.delta, entry.family.floor)
                else:
                    change.credit(entry.delta)
                row = encode_int(position) + account.id_cbor + encode_int(entry.delta)
                if reopened is None:
                    row = b"\x83" + row
                else:
                    row = b"\x85" + row + encode_int(reopened.reserved)
                    row += encode_id(reopened.after.id)
                found.setdefault(account.domain, []).append(row)
        return len(moves)


# --- holds ------------------------------------------------------------------------------------


def _minds(
    view: View, original: Original, records: Sequence[_Restored], amounts: _Amounts
) -> Iterator[tuple[Target, int]]:
    """Yield what is touched and has holds, with the scopes that count."""
    scopes = ALL | (PAY if amounts.accounts else 0) | (EDIT if records else 0)
    for domain, action in dict.fromkeys((each.domain, each.action) for each in original.terms):
        single = view.single("rules", [domain])
        head: RulesHead | None = None if single is None else single.value
        if head is not None and head.held_for(action) & scopes:
            yield Target("domain", [domain]), scopes
            yield Target("action", [domain, action]), scopes
    for each in records:
        if each.record.held & (ALL | EDIT):
            yield each.target, ALL | EDIT
    for id_ in amounts.accounts.values():
        account = view.account(id_)
        if account is None or view.account_held(account) & (ALL | PAY):
            yield Target("account", id_), ALL | PAY
