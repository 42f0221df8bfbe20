"""Amounts that are reserved, posted and voided, or paid in order: more than plain moves.

A reservation takes an amount out of what an account may spend, without moving it. To post it moves
it, or a part of it; to void it gives it back. It is known by ``[domain, component, ...]``, which
can never be used again; only actions of that domain can end it, once: posted or voided. One that
has an end of its own stops counting at that moment, although nobody writes anything then.

    reserve ──> RESERVED ── post ──> POSTED          what is not posted is given back, or
                   │  └──── post, keep ──> RESERVED  stays reserved
                   ├─────── void ──> VOIDED
                   └─────── time passes: it counts for nothing, and can only be voided

The account's leaf has the sum of what is reserved and the moments at which parts of it end
(``accounts``); ``reservation/<id>`` has the rest. So a debit is guarded by the account alone, and
accounts are attested here as everywhere.

A **waterfall** pays the records of a list one after the other, each up to a bound, and then the
rest. All its accounts must exist, and none may be held, whether or not anything is left for them.

All that may fail for other reasons than guards is found
before the first amount changes.

Not here: plain moves (``effects``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, assert_never

from consensus.codec import INT64_MAX, INT64_MIN, Value, same
from consensus.errors import present
from consensus.ledger.accounts import Account, Change
from consensus.ledger.calendar import DAY_MS
from consensus.ledger.codes import Code, Refused
from consensus.ledger.environment import ABSENT, EACH, NoValue
from consensus.ledger.layout import (
    POSTED,
    RESERVED,
    VOIDED,
    Reservation,
    encode_id,
    encode_int,
)
from consensus.ledger.model import (
    AccountFamily,
    Env,
    EvaluationError,
    Expression,
    Load,
    Move,
    Post,
    Reference,
    Reserve,
    Void,
    Waterfall,
)
from consensus.ledger.view import View

Amount = Move | Reserve | Post | Void | Waterfall
End = tuple[list[Value], Account | None]
"""An account that an effect touches; None while the call has yet to open it."""

SPACE: Final = "reservation"
CHANGES_MAX: Final = 1024
"""Changes of amounts in a transaction that does more than move: its decision names each."""
_STATES: Final = {RESERVED: "reserved", POSTED: "posted", VOIDED: "voided"}
_ENDS: Final = {
    POSTED: ("POSTED", "the reservation was posted"),
    VOIDED: ("VOIDED", "the reservation was voided"),
}


def funds(state: Account | Change, family: AccountFamily | None, id_: list[Value]) -> Any:
    """Return an account as conditions read it.

    ``available`` is what may still be debited or reserved: the balance without what is reserved
    and without the floor, at the bounds of 64 bits if it exceeds them.
    """
    balance, reserved = state.balance, state.reserved
    available = balance - reserved - (0 if family is None else family.floor)
    return {
        "balance": balance,
        "reserved": reserved,
        "available": max(INT64_MIN, min(INT64_MAX, available)),
        "id": id_,
    }


def reservation(view: View, load: Load, id_: list[Value], env: Env) -> Any:
    """Return a reservation as conditions read it, as of the block's time; ABSENT if it may be.

    Raises:
        Refused: NOT_FOUND: there is none, or what would name its account has no value;
            REQUIREMENT: it is on another account.
    """
    leaf = view.single(SPACE, id_)
    if leaf is None:
        if load.optional:
            return ABSENT
        raise Refused(Code.NOT_FOUND, [load.name, [SPACE, id_]])
    found: Reservation = leaf.value
    try:
        on = None if load.account is None else load.account.resolve(env)
    except EvaluationError:
        raise Refused(Code.NOT_FOUND, [load.name, None]) from None
    if on is None or not same(found.account, on):
        raise _other_account()
    state = "expired" if found.state == RESERVED and not found.lasts(view.now_ms) else None
    return {
        "amount": found.amount,
        "posted": found.posted,
        "left": found.amount - found.posted if found.state == RESERVED and not state else 0,
        "state": state or _STATES[found.state],
        "ends": found.until_ms,
    }


def check_opened(view: View, id_: list[Value], opened: Sequence[list[Value]]) -> None:
    """Refuse an account that does not exist, unless the call opens it.

    Raises:
        Refused: NOT_FOUND.
    """
    if not any(same(id_, each) for each in opened):
        view.absent_account(id_)
        raise Refused(Code.NOT_FOUND, [id_[0], ["account", id_]])


class _Found(NamedTuple):
    """An effect with what it is on; ``before`` is the reservation as it was before the call."""

    effect: Move | Reserve | Post | Void
    source: End
    target: End | None
    id: list[Value]
    before: Reservation | None


class _Shares(NamedTuple):
    """A waterfall with the accounts that it pays: for each record what is read, and where to."""

    effect: Waterfall
    source: End
    shares: Sequence[tuple[Env, End]]
    rest: End | None


class Step(NamedTuple):
    """One change that an effect comes to.

    ``moved`` goes from ``source`` to ``target``; None: it is only set aside or given back. With a
    reservation, ``after`` is what becomes of it and ``freed`` how much less of it is reserved until
    ``until_ms``, negative where it is made.
    """

    source: End
    target: End | None
    floor: int
    moved: int
    freed: int = 0
    until_ms: int | None = None
    after: Reservation | None = None
    taken: list[Value] | None = None
    """The id under which a reservation is made, if it was used before."""


class Amounts:
    """The amounts of one call of an action that does more than move, in declared order.

    Args:
        effects: of the call, those that change amounts.
        env: what its expressions read.
        opened: ids of the accounts that the call opens.
    """

    __slots__ = ("_effects", "_env", "_found", "_opened", "_steps", "_view", "ends", "freed")

    def __init__(
        self, view: View, effects: Sequence[Amount], env: Env, opened: Sequence[list[Value]]
    ) -> None:
        self._view = view
        self._effects = effects
        self._env = env
        self._opened = opened
        self._found: list[_Found | _Shares] = []
        self._steps: list[Step] = []
        self.ends: list[End] = []
        """Accounts that are debited or credited, or of which something is reserved."""
        self.freed: list[End] = []
        """Accounts to which something is given back."""

    def resolve(self) -> None:
        """Find accounts and reservations.

        Raises:
            Refused: NOT_FOUND: an account, or a reservation to be posted or voided.
            NoValue: what would name one has no value.
        """
        for effect in self._effects:
            if isinstance(effect, Waterfall):
                self._found.append(self._shares(effect))
                continue
            source = self._end(effect.source, self._env)
            target = None
            if isinstance(effect, Move | Post):
                target = self._end(effect.target, self._env)
            ends = self.freed if isinstance(effect, Void) else self.ends
            ends += (source,) if target is None else (source, target)
            id_: list[Value] = []
            before = None
            if not isinstance(effect, Move):
                id_ = _id(effect.id, self._env)
                leaf = self._view.single(SPACE, id_)
                before = None if leaf is None else leaf.value
                if before is None and not isinstance(effect, Reserve):
                    raise Refused(Code.NOT_FOUND, [SPACE, [SPACE, id_]])
            self._found.append(_Found(effect, source, target, id_, before))

    def _shares(self, effect: Waterfall) -> _Shares:
        source = self._end(effect.source, self._env)
        shares = []
        for each in self._env[effect.each]:
            env = {**self._env, EACH: each}
            shares.append((env, self._end(effect.target, env)))
        rest = None if effect.rest is None else self._end(effect.rest, self._env)
        self.ends += (source, *[end for _, end in shares])
        if rest is not None:
            self.ends.append(rest)
        return _Shares(effect, source, shares, rest)

    def _end(self, reference: Reference, env: Env) -> End:
        id_ = _id(reference, env)
        account = self._view.account(id_)
        if account is None:
            check_opened(self._view, id_, self._opened)
        return id_, account

    # --- what ---------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Compute what every effect comes to.

        Raises:
            Refused: REQUIREMENT: an amount is negative or more than what is reserved, or a
                reservation is over, lies on another account or would end at once.
            NoValue: an expression has no value.
        """
        present: dict[bytes, Reservation] = {}
        for found in self._found:
            if isinstance(found, _Shares):
                self._steps += self._fall(found)
                continue
            step = self._step(found, present.get(encode_id(found.id), found.before))
            if step.after is not None:
                present[encode_id(found.id)] = step.after
            self._steps.append(step)

    def _step(self, found: _Found, before: Reservation | None) -> Step:
        effect = found.effect
        match effect:
            case Move():
                floor = effect.source_family.floor
                return Step(
                    found.source, found.target, floor, self._amount(effect.amount, self._env)
                )
            case Reserve():
                return self._reserve(found, effect, before)
            case Post():
                return self._post(found, effect, self._open(found, before))
            case Void():
                return self._void(found, self._open(found, before))
            case _:
                assert_never(effect)

    def _fall(self, found: _Shares) -> list[Step]:
        """Return the payments of a waterfall that are more than nothing."""
        effect = found.effect
        left = self._amount(effect.amount, self._env)
        steps: list[Step] = []
        for env, target in found.shares:
            share = min(self._amount(effect.up_to, env), left)
            left -= share
            steps.append(Step(found.source, target, effect.source_family.floor, share))
        if found.rest is not None:
            steps.append(Step(found.source, found.rest, effect.source_family.floor, left))
        return [step for step in steps if step.moved]

    def _reserve(self, found: _Found, effect: Reserve, before: Reservation | None) -> Step:
        amount = self._amount(effect.amount, self._env)
        until_ms = None if effect.expires is None else _value(effect.expires, self._env)
        if until_ms is not None:
            if effect.expires is not None and effect.expires.type.base == "date":
                until_ms *= DAY_MS
            if until_ms <= self._view.now_ms:
                raise _requirement("NOT_LATER", "the reservation would end at once")
        made = Reservation(found.id, found.source[0], amount, 0, until_ms, RESERVED)
        floor = effect.source_family.floor
        taken = None if before is None else found.id
        return Step(found.source, None, floor, 0, -amount, until_ms, made, taken)

    def _open(self, found: _Found, there: Reservation | None) -> Reservation:
        """Return a reservation that has been neither posted nor voided."""
        before = present(there, "a reservation that was found is gone")
        if before.state != RESERVED:
            raise _requirement(*_ENDS[before.state])
        if not same(before.account, found.source[0]):
            raise _other_account()
        return before

    def _post(self, found: _Found, effect: Post, before: Reservation) -> Step:
        if not before.lasts(self._view.now_ms):
            raise _requirement("EXPIRED", "the reservation has expired")
        reserved = before.amount - before.posted
        amount = reserved
        if effect.amount is not None:
            amount = self._amount(effect.amount, self._env)
        if amount > reserved:
            raise _requirement("OVER_RESERVED", "more than what is left of the reservation")
        kept = effect.keep and amount < reserved
        after = before._replace(posted=before.posted + amount, state=RESERVED if kept else POSTED)
        freed = amount if kept else reserved
        return Step(found.source, found.target, 0, amount, freed, before.until_ms, after)

    def _void(self, found: _Found, before: Reservation) -> Step:
        freed = before.amount - before.posted if before.lasts(self._view.now_ms) else 0
        after = before._replace(state=VOIDED)
        return Step(found.source, None, 0, 0, freed, before.until_ms, after)

    def _amount(self, expression: Expression, env: Env) -> int:
        amount: int = _value(expression, env)
        if amount < 0:
            raise _requirement("NEGATIVE", f"{expression.source} is < 0")
        return amount

    # --- carrying out -------------------------------------------------------------------------

    def carry_out(
        self, position: int, domain: str, entries: dict[str, list[bytes]], taken: list[Value]
    ) -> int:
        """Change the amounts.

        Args:
            position: of the first change in the transaction.
            domain: of the action.
            entries: of the decision's moves by owning domain; those of the call are added.
            taken: what the call makes and exists already; ids of reservations are added.

        Returns:
            The position of the next change.

        Raises:
            Refused: INSUFFICIENT; LIMIT: too many moments at which reservations end, or changes in
                the transaction.
        """
        if position + len(self._steps) > CHANGES_MAX:
            raise Refused(Code.LIMIT, "moves")
        for step in self._steps:
            if step.taken:
                taken.append([SPACE, step.taken])
            else:
                self._carry_out(step, position, domain, entries)
            position += 1
        return position

    def _carry_out(
        self, step: Step, position: int, domain: str, entries: dict[str, list[bytes]]
    ) -> None:
        view, after = self._view, step.after
        debtor = self._account(step.source)
        place = encode_int(position)
        if after is None:
            view.move(debtor).debit(step.moved, step.floor)
            entry = b"\x83" + place + debtor.id_cbor + encode_int(-step.moved)
        else:
            if step.freed < 0:
                view.move(debtor).reserve(-step.freed, step.until_ms, step.floor)
            else:
                view.move(debtor).free(step.freed, step.until_ms, step.moved)
            view.put(SPACE, after.id, after, domain)
            entry = b"\x85" + place + debtor.id_cbor + encode_int(-step.moved)
            entry += encode_int(-step.freed) + encode_id(after.id)
        entries.setdefault(debtor.domain, []).append(entry)
        if step.target is not None:
            creditor = self._account(step.target)
            view.move(creditor).credit(step.moved)
            entry = b"\x83" + place + creditor.id_cbor + encode_int(step.moved)
            entries.setdefault(creditor.domain, []).append(entry)

    def _account(self, end: End) -> Account:
        account = end[1] or self._view.account(end[0])
        return present(account, "an account that the call opened is missing")


def _id(reference: Reference, env: Env) -> list[Value]:
    try:
        return reference.resolve(env)
    except EvaluationError:
        raise NoValue(reference.source) from None


def _value(expression: Expression, env: Env) -> Any:
    try:
        return expression.evaluate(env)
    except EvaluationError:
        raise NoValue(expression.source) from None


def _other_account() -> Refused:
    return _requirement("OTHER_ACCOUNT", "the reservation is on another account")


def _requirement(code: str, sentence: str) -> Refused:
    return Refused(Code.REQUIREMENT, [code, sentence])
