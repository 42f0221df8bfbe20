"""Taking transactions back: what that would do, and doing it.

A node gives the evidence of what a transaction did and overwrote; it is checked here against a
certified statement before anybody signs it.

Not here: what a reversal does in the ledger (``consensus.ledger.kernel.reversal``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from comity.drafting import Call
from comity.network import Network
from comity.results import Decision, Entry
from comity.session import Statements, statement_of
from comity.verify import Trust
from comity.words import word
from consensus import answers, codec
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.ledger import evidence as ledger
from consensus.ledger import terms
from consensus.ledger.amounts import SPACE
from consensus.ledger.decision import APPLIED
from consensus.ledger.evidence import EvidenceError, Original
from consensus.ledger.fixed_policies import policy_of
from consensus.ledger.kernel.catalogue import CHARTER
from consensus.ledger.kernel.reopened import Reservations
from consensus.ledger.layout import Paths, Reservation, encode_id
from consensus.ledger.rules.policies import in_words
from consensus.ledger.terms import Terms
from consensus.protocol import KEYS_MAX, GetReversal, StateKey
from consensus.state.record import HOLDS

if TYPE_CHECKING:
    from comity.client import RulesInForce

CORRECTIONS: Final = "corrections"


@dataclass(frozen=True, slots=True)
class Payment:
    """An amount that goes back from ``source`` to ``target``, ids of accounts.

    ``short`` is what the source does not have now: it would be a debt on ``shortfall``, or, where
    that is None, make the reversal fail. ``reserved`` is the reservation in which it is set aside
    again.
    """

    source: tuple[Value, ...]
    target: tuple[Value, ...]
    amount: int
    shortfall: tuple[Value, ...] | None = None
    short: int = 0
    reserved: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """A record that would be restored, or ``voided`` because the transaction made it.

    ``fields`` are leaves with their values before the transaction; ``moved`` are those that others
    have changed since: then the reversal is refused as STALE.
    """

    kind: str
    id: tuple[Value, ...]
    voided: bool
    fields: Mapping[str, Value]
    moved: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reversal:
    """What taking a transaction back would do, as of what is certified now.

    Args:
        txid, height, time_ms: of the transaction and its decision.
        roles: all of them are needed, beside what the charter asks.
        until_ms: the last moment of chain time; None where it cannot be taken back at all.
        by: the transaction that has taken it back; None: none has.
        payments: in the order in which they would be made.
        records: in the order of the decision.
        slots: unique slots that would be free again.
        evidence: what the act carries.
        obstacle: why it would be refused, as far as can be said; empty: nothing is known to be.
        approvals: who must approve beside the author, in words; all of them.
    """

    txid: bytes
    height: int
    time_ms: int
    roles: tuple[str, ...]
    until_ms: int | None
    by: bytes | None
    payments: tuple[Payment, ...]
    records: tuple[Restored, ...]
    slots: tuple[tuple[Value, ...], ...]
    evidence: bytes
    obstacle: str = ""
    approvals: tuple[str, ...] = ()


class ReversalActs:
    """What a client does about taking acts back; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        trust: Trust
        _network: Network

        async def get(self, namespace: str, *components: Value) -> Entry: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def now_ms(self) -> int: ...
        async def transact(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...
        async def propose(self, *calls: Call, reason: str = "") -> Decision: ...

    async def reversal(self, txid: bytes) -> Reversal:
        """Return what taking a transaction back would do, and the evidence for it.

        Raises:
            RequestError: NOT_FOUND: the node has no decision, or no longer what was overwritten;
                DENIED: this key may not read all that the transaction did.
        """
        paths = Paths(self.chain)

        def read(result: Value, statements: Statements) -> tuple[bytes, Original]:
            data = answers.read_reversal(result)
            return data, _checked(data, txid, statements, paths)

        data, original = await self._network.ask(GetReversal(txid), read)
        done = await self.get(CORRECTIONS, txid)
        balances = await self._balances(original)
        reservations = await self._reservations(original)
        versions = await self._versions(original)
        freed = [slot for row in original.terms if not row.undone for slot in row.slots]
        found = Reversal(
            txid,
            original.header.height,
            original.header.time_ms,
            tuple(dict.fromkeys(row.role for row in original.terms)),
            terms.until_ms(original.terms, original.header.time_ms) if original.terms else None,
            done.value[0] if done.present else None,
            tuple(_payments(original, balances, reservations)) if original.terms else (),
            tuple(_records(original, versions)) if original.terms else (),
            tuple(tuple(slot) for slot in freed),
            data,
            approvals=tuple(dict.fromkeys(_approvals(original))),
        )
        return replace(found, obstacle=_obstacle(found, original, await self.now_ms()))

    async def reverse(self, txid: bytes, reason: str = "") -> Decision:
        """Take a transaction back and return the decision on that.

        Look at ``reversal`` first: it says what this will do.

        Raises:
            RequestError: as ``reversal``.
        """
        return await self.submit_reversal(await self.reversal(txid), reason)

    async def submit_reversal(self, found: Reversal, reason: str = "") -> Decision:
        """Take back what ``found`` shows, with its evidence."""
        return await self.transact(_call(found), reason=reason)

    async def propose_reversal(self, found: Reversal, reason: str = "") -> Decision:
        """Have the taking back of what ``found`` shows stored until it has its approvals."""
        return await self.propose(_call(found), reason=reason)

    async def _balances(self, original: Original) -> dict[bytes, int]:
        """Return what may be debited of each account that was credited."""
        ids = {
            encode_id(side.account): side.account
            for sides in original.moves().values()
            for side in sides
            if side.delta > 0
        }
        families = (await self.rules()).book.families
        found: dict[bytes, int] = {}
        for entry in await self._all([StateKey("account", tuple(id_)) for id_ in ids.values()]):
            family = families.get(str(entry.key.components[0]))
            balance = entry.value[1] - entry.reserved if entry.present else 0
            left = balance - (0 if family is None else family.floor)
            found[encode_id(list(entry.key.components))] = left
        return found

    async def _reservations(self, original: Original) -> Reservations:
        """Return the reservations from which was paid, or that were opened again, as they are."""
        ids = {
            encode_id(list(side.reservation)): tuple(side.reservation)
            for sides in original.moves().values()
            for side in sides
            if side.reservation
        }
        entries = await self._all([StateKey(SPACE, id_) for id_ in ids.values()])
        found = {
            encode_id(list(each.key.components)): Reservation(*each.value)
            for each in entries
            if each.present
        }
        return Reservations(lambda id_: found.get(encode_id(list(id_))), await self.now_ms())

    async def _versions(self, original: Original) -> dict[bytes, Entry]:
        """Return the records that were written, as they are now."""
        keys = [
            StateKey("record", tuple(each.components))
            for each in original.writes()
            if each.space == "record"
        ]
        return {encode_id(list(each.key.components)): each for each in await self._all(keys)}

    async def _all(self, keys: Sequence[StateKey]) -> list[Entry]:
        found: list[Entry] = []
        for at in range(0, len(keys), KEYS_MAX):
            found += await self.get_many(keys[at : at + KEYS_MAX])
        return found


def _call(found: Reversal) -> Call:
    return Call(CHARTER, "reverse", {"transaction": found.txid, "evidence": found.evidence})


def _approvals(original: Original) -> Iterator[str]:
    """Yield who must approve, in words."""
    for row in original.terms:
        if row.approvals is not None:
            yield in_words(policy_of(row.approvals))


def _checked(data: bytes, txid: bytes, statements: Statements, paths: Paths) -> Original:
    """Check evidence against a certified statement, which came with it."""
    try:
        size = ledger.decode(data).size
        later = statements.get(size)
        if later is not None:
            root = later.history_root
            return ledger.check(data, txid, lambda each: root if each == size else None, paths)
        own = statement_of(statements, size - 1)  # nothing certified is newer
        return ledger.check_under(data, txid, own.encode(), paths)
    except EvidenceError as error:
        raise ProofError(f"evidence of a transaction: {error.reason}") from None


def _payments(
    original: Original, left: dict[bytes, int], reservations: Reservations
) -> list[Payment]:
    moves = original.moves()
    found: list[Payment] = []
    end = sum(row.moves for row in original.terms)
    for row in reversed(original.terms):
        for at in range(end - 1, end - 1 - row.moves, -1):
            found += _back(moves.get(at, []), row, left, reservations)
        end -= row.moves
    return found


def _back(
    sides: Sequence[ledger.Moved], row: Terms, left: dict[bytes, int], reservations: Reservations
) -> list[Payment]:
    """Return what goes back for one move: from those it credited to the one it debited."""
    paid = [side for side in sides if side.delta < 0]
    target: tuple[Value, ...] = tuple(paid[0].account) if paid else ()
    opened = [reservations.back(side, again=row.undone) for side in paid]
    aside = next((each for each in opened if each is not None and each.reserved), None)
    reserved = None if aside is None else tuple(aside.after.id)
    found = []
    for side in sides:
        if side.delta > 0:
            key = encode_id(side.account)
            posted = reservations.back(side, again=row.undone)
            if posted is not None:
                left[key] = left.get(key, 0) - posted.reserved
            short = max(side.delta - max(left.get(key, 0), 0), 0)
            left[key] = left.get(key, 0) - side.delta + short
            debts = None if row.undone or row.shortfall is None else tuple(row.shortfall)
            found.append(Payment(tuple(side.account), target, side.delta, debts, short, reserved))
    return found


def _records(original: Original, now: Mapping[bytes, Entry]) -> list[Restored]:
    openings = iter(original.openings)
    found: list[Restored] = []
    for each in original.writes():
        fields: dict[str, Value] = {}
        for replaced in each.replaced:
            shown = next(openings) if replaced.shown else None
            if replaced.leaf != HOLDS:
                fields[replaced.leaf] = None if shown is None else codec.parse(shown.value, "leaf")
        if each.space != "record" or each.old == each.new:
            continue
        versions = now[encode_id(list(each.components))].versions
        if each.old == 0:
            moved = [leaf for leaf, version in versions.items() if version > each.new]
        else:
            moved = [leaf for leaf in fields if versions.get(leaf, 0) != each.new]
        kind, *id_ = each.components
        moved = [leaf for leaf in moved if leaf != HOLDS]
        found.append(Restored(kind, tuple(id_), each.old == 0, fields, tuple(moved)))
    return found


def _obstacle(found: Reversal, original: Original, now_ms: int) -> str:
    """Return why a reversal would be refused, as far as can be said here."""
    if original.header.state != APPLIED:
        return "the transaction has changed nothing"
    if found.until_ms is None:
        return "the rules it was made under do not let it be taken back"
    if found.by is not None:
        return f"transaction {word(found.by)} has taken it back"
    if now_ms > found.until_ms:
        return "the time in which it could be taken back is over"
    if any(each.moved for each in found.records):
        return "others have changed since what it would restore"
    if any(each.short and each.shortfall is None for each in found.payments):
        return "whoever was paid no longer has the amount, and no account takes the debt"
    return ""
