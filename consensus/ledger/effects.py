"""The effects of one call: what they are on, what they come to, and their writing.

Three steps, with the call's checks between them. ``resolve`` finds accounts and ids, ``evaluate``
computes every value from what the call loaded, ``write`` carries out. A template or expression
without a value is a failed requirement, whichever step meets it.

Not here: in which order the checks come (``calls``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from consensus.codec import Value, same
from consensus.errors import present
from consensus.hashing import H_ID, context
from consensus.ledger import holds
from consensus.ledger.accounts import Account
from consensus.ledger.amounts import Amounts, End, check_opened
from consensus.ledger.authority import Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.decision import encode_action
from consensus.ledger.environment import NoValue
from consensus.ledger.expects import named
from consensus.ledger.holds import Target
from consensus.ledger.kernel.catalogue import RELEASING
from consensus.ledger.layout import (
    ALL,
    CONFIRMED,
    EDIT,
    PAY,
    RELEASED,
    SCOPE_MASKS,
    Hold,
    encode_id,
    encode_int,
    name_of,
)
from consensus.ledger.model import (
    Action,
    Assign,
    Create,
    Effect,
    Env,
    EvaluationError,
    Expression,
    Kind,
    Move,
    OpenAccount,
    Path,
    PlaceHold,
    Post,
    Reference,
    ReleaseHold,
    Reserve,
    Void,
    Waterfall,
)
from consensus.ledger.records import Record
from consensus.ledger.schedule import ParamValues
from consensus.ledger.types import InputError
from consensus.ledger.view import View

AMOUNTS: Final = (Move, Reserve, Post, Void, Waterfall)
"""Effects that change amounts."""
_H_HOLD: Final = context("hold id")


class Created:
    """A record that a call makes: where it will lie and which fields it will have."""

    __slots__ = ("_held", "create", "id", "id_cbor", "kh", "values")

    def __init__(self, view: View, create: Create, id_: list[Value]) -> None:
        self.create = create
        self.id = id_
        self.id_cbor, self.kh = view.record_path(create.kind.name, id_)
        self.values: dict[str, Value] = {}
        self._held: int | None = None

    @property
    def target(self) -> Target:
        """The record as a hold names it."""
        return Target("record", [self.create.kind.name, *self.id])

    def held(self, view: View) -> int:
        """Return the mask of unreleased holds that were placed before the record exists."""
        if self._held is None:
            self._held = holds.index_of_record(
                view, self.create.kind.name, self.id, self.id_cbor
            ).held
        return self._held


class Acts:
    """Effects by what they do, and the ``versioned`` fields of loads: expected versions matter.

    ``moves`` are all that change amounts where all are plain moves; otherwise ``amounts`` are.
    ``pays`` says whether any debits, credits or reserves.
    """

    __slots__ = (
        "amounts",
        "assigns",
        "creates",
        "moves",
        "opens",
        "pays",
        "places",
        "releases",
        "versioned",
    )

    def __init__(self, action: Action, effects: Sequence[Effect]) -> None:
        self.opens = [each for each in effects if isinstance(each, OpenAccount)]
        self.moves = [each for each in effects if isinstance(each, Move)]
        self.amounts = [each for each in effects if isinstance(each, AMOUNTS)]
        self.pays = bool(self.moves)
        if len(self.amounts) > len(self.moves):
            self.pays = any(not isinstance(each, Void) for each in self.amounts)
            self.moves = []
        else:
            self.amounts = []
        self.creates = [each for each in effects if isinstance(each, Create)]
        self.assigns = [each for each in effects if isinstance(each, Assign)]
        self.places = [each for each in effects if isinstance(each, PlaceHold)]
        self.releases = [each for each in effects if isinstance(each, ReleaseHold)]
        fields = {each.name: dict[str, None]() for each in action.loads if each.kind is not None}
        for load, field in action.depends:
            fields[load][field] = None
        for assign in self.assigns:
            fields[assign.load].update(dict.fromkeys(_written_fields(assign)))
        self.versioned = {load: tuple(names) for load, names in fields.items() if names}


class Active(Acts):
    """An action as it is in force in a block, with what every call of it needs.

    It has all its effects; ``conditional`` says that not all of them need take place. ``held`` is
    the mask of domain and action, ``ignored`` the scopes of holds that do not block,
    ``reads`` the rules it rests on, ``cbor`` its item in a decision's header.
    """

    __slots__ = (
        "action",
        "cbor",
        "conditional",
        "dated",
        "held",
        "ignored",
        "number",
        "params",
        "reads",
        "sealed",
    )

    def __init__(
        self, action: Action, number: int, now_ms: int, held: int, reads: dict[bytes, bytes]
    ) -> None:
        super().__init__(action, action.effects)
        self.action = action
        self.number = number
        self.params = action.schedule.at(now_ms)
        self.dated: dict[int, ParamValues] = {}
        """Parameters by the start of the interval of periods to which they belong."""
        self.held = held
        self.reads = reads
        self.cbor = encode_action(action.domain, number, action.action_id)
        self.conditional = any(each.when is not None for each in action.effects)
        self.sealed = [
            (at, each) for at, each in enumerate(action.inputs) if each.type.base == "sealed"
        ]
        self.ignored = 0
        for scope in action.ignores_holds:
            self.ignored |= SCOPE_MASKS[scope]
        if action.protective or self._only_releases():
            self.ignored = ALL | PAY | EDIT

    def params_of(self, env: Env) -> ParamValues:
        """Return the parameters for the period of a call; ``env`` has every load."""
        periods = present(self.action.periods, "the parameters of an action have no periods")
        start = periods.schedule.start_of(periods.start_ms(env))
        found = self.dated.get(start)
        if found is None:
            found = self.dated[start] = periods.with_those_of(self.params, start)
        return found

    def _only_releases(self) -> bool:
        if self.action.kernel:
            return self.action.name in RELEASING
        return bool(self.releases) and len(self.releases) == len(self.action.effects)


class Effects:
    """The effects of one call.

    Args:
        env: what conditions read, with every load.
        records: the loads that are records.
        absent: the optional loads that do not exist; None for one whose id has no value.
    """

    __slots__ = (
        "_fault",
        "_placed",
        "_released",
        "_set_values",
        "_txid",
        "_view",
        "absent",
        "active",
        "acts",
        "amounts",
        "approvals",
        "beside",
        "created",
        "ends",
        "env",
        "index",
        "named",
        "opened",
        "records",
        "shortfall",
        "slots",
    )

    def __init__(
        self,
        view: View,
        txid: bytes,
        index: int,
        active: Active,
        env: Env,
        records: Mapping[str, Record],
        absent: Mapping[str, Target | None],
    ) -> None:
        self._view = view
        self._txid = txid
        self.index = index
        """Of the call in its transaction."""
        self.active = active
        self.acts: Acts = active
        """The effects that take place."""
        self.env = env
        self.records = records
        self.absent = absent
        self._fault: Refused | None = None
        self.opened: Sequence[list[Value]] = ()
        """Ids of accounts to open."""
        self.ends: list[End] = []
        """Accounts that are debited, credited or reserved from; of plain moves source and target in
        turn."""
        self.beside: Amounts | None = None
        """What the call does to amounts where it does more than to move them."""
        self.created: Sequence[Created] = ()
        """Records to make."""
        self.named: Sequence[Created] = ()
        """Those of them whose id the call names; others get theirs from the transaction."""
        self.amounts: list[int] = []
        self.slots: list[list[Value]] = []
        self.shortfall: list[Value] | None = None
        """The account that takes what a payee no longer has, should the call be taken back."""
        self.approvals: Value = None
        """Who must approve that."""
        self._set_values: list[dict[str, Value]] = []
        self._placed: list[tuple[list[list[Value]], int, int | None]] = []
        self._released: list[Hold] = []

    @property
    def writes_records(self) -> bool:
        """Whether the call makes or changes records."""
        return bool(self.acts.creates or self.acts.assigns)

    # --- where --------------------------------------------------------------------------------

    def resolve(self) -> None:
        """Find the ids of what the effects are on.

        Raises:
            Refused: NOT_FOUND: an account to be moved neither exists nor is opened by the call, or
                a record to be set is absent.
        """
        try:
            if self.active.conditional:
                self.acts = self._chosen()
            acts = self.acts
            if self.absent:
                for assign in acts.assigns:
                    if assign.load in self.absent:
                        target = self.absent[assign.load]
                        name = None if target is None else name_of(*target)
                        raise Refused(Code.NOT_FOUND, [assign.load, name])
            if acts.opens:
                self.opened = [self._id(each.account) for each in acts.opens]
            if acts.moves:
                self._find_ends(acts.moves)
            elif acts.amounts:
                self.beside = Amounts(self._view, acts.amounts, self.env, self.opened)
                self.beside.resolve()
                self.ends = self.beside.ends
            if acts.creates:
                self.created = [self._creation(each) for each in acts.creates]
                self.named = [each for each in self.created if each.create.id is not None]
        except NoValue as fault:
            self._fault = fault.refused

    def _chosen(self) -> Acts:
        """Return the effects that take place; none if the condition of one has no value."""
        action = self.active.action
        self.acts = Acts(action, ())
        return Acts(
            action,
            [each for each in action.effects if each.when is None or self._value(each.when)],
        )

    def _find_ends(self, moves: Sequence[Move]) -> None:
        view = self._view
        for move in moves:
            for reference in (move.source, move.target):
                id_ = self._id(reference)
                account = view.account(id_)
                if account is None:
                    check_opened(view, id_, self.opened)
                self.ends.append((id_, account))

    def _creation(self, create: Create) -> Created:
        if create.id is None:
            id_: list[Value] = [record_id(self._txid, self.index, create.index)]
        else:
            id_ = self._id(create.id)
        return Created(self._view, create, id_)

    def _id(self, reference: Reference) -> list[Value]:
        try:
            return reference.resolve(self.env)
        except EvaluationError:
            raise NoValue(reference.source) from None

    # --- what ---------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Compute the value of every effect.

        Raises:
            Refused: REQUIREMENT: a value is absent, of a wrong range or sign, or a status is no
                step from the present one; NOT_FOUND: a hold to be released is unknown.
        """
        if self._fault is not None:
            raise self._fault.again()
        acts = self.acts
        try:
            for move in acts.moves:
                amount = self._value(move.amount)
                if amount < 0:
                    raise Refused(Code.REQUIREMENT, ["NEGATIVE", f"{move.amount.source} is < 0"])
                self.amounts.append(amount)
            if self.beside is not None:
                self.beside.evaluate()
            for created in self.created:
                create = created.create
                created.values = self._values(create.kind, create.assignments)
            if acts.assigns:
                self._evaluate_assigns()
            for unique in self.active.action.unique:
                self.slots.append(self._slot(unique.resolve, unique.source))
            reversible = self.active.action.reversible
            if reversible is not None and reversible.shortfall is not None:
                self.shortfall = self._id(reversible.shortfall)
            if reversible is not None and reversible.approvals is not None:
                self.approvals = reversible.approvals.fix(self.env)
            for place in acts.places:
                until = None if place.until is None else self._value(place.until)
                self._placed.append((self._targets(place), _mask(place.scopes), until))
            for release in acts.releases:
                self._released.append(self._hold(release))
        except NoValue as fault:
            raise fault.refused from None

    def _value(self, expression: Expression) -> Any:
        try:
            return expression.evaluate(self.env)
        except EvaluationError:
            raise NoValue(expression.source) from None

    def _slot(self, resolve: Callable[[Env], list[Value]], source: str) -> list[Value]:
        try:
            return resolve(self.env)
        except EvaluationError:
            raise NoValue(source) from None

    def _values(
        self, kind: Kind, assignments: tuple[tuple[str, Expression], ...]
    ) -> dict[str, Value]:
        values = {}
        for name, expression in assignments:
            value = self._value(expression)
            field = kind.fields[name]
            if value is None:
                if not field.optional:
                    raise NoValue(expression.source)
            else:
                try:
                    field.stored.check(value)
                except InputError as error:
                    raise Refused(
                        Code.REQUIREMENT, ["OUT_OF_RANGE", f"{name}: {error.reason}"]
                    ) from None
            values[name] = value
        return values

    def _evaluate_assigns(self) -> None:
        present: dict[bytes, Value] = {}
        for assign in self.acts.assigns:
            record = self.records[assign.load]
            if assign.status:
                before = present.get(record.kh, record["status"])
                if assign.status not in assign.kind.steps.get(before, ()):
                    sentence = f"{assign.kind.name} cannot go from {before} to {assign.status}"
                    raise Refused(Code.REQUIREMENT, ["NO_STEP", sentence])
                present[record.kh] = assign.status
            self._set_values.append(self._values(assign.kind, assign.assignments))

    def _target(self, reference: Reference) -> Target:
        id_ = self._id(reference)
        if reference.space == "account":
            return Target("account", id_)
        return Target("record", [reference.name, *id_])

    def _targets(self, place: PlaceHold) -> list[list[Value]]:
        """Return the targets of a hold, each once."""
        found: dict[bytes, list[Value]] = {}
        for reference in place.targets:
            target: list[Value] = list(self._target(reference))
            found[encode_id(target)] = target
        return list(found.values())

    def _hold(self, release: ReleaseHold) -> Hold:
        target: list[Value] = list(self._target(release.target))
        id_ = self._value(release.hold)
        hold = None if id_ is None else holds.hold_named(self._view, id_)
        if hold is None or not any(same(each, target) for each in hold.targets):
            raise Refused(Code.REQUIREMENT, ["NO_HOLD", "the target has no such hold"])
        if hold.domain != self.active.action.domain:
            sentence = f"domain {hold.domain} placed the hold, and releases it"
            raise Refused(Code.REQUIREMENT, ["NOT_OURS", sentence])
        if hold.state == RELEASED or hold in self._released:
            raise Refused(Code.REQUIREMENT, ["RELEASED", "the hold is released already"])
        return hold

    # --- writing ------------------------------------------------------------------------------

    def open(self, taken: list[Value]) -> None:
        """Open accounts; add those that exist to ``taken``."""
        view = self._view
        for id_ in self.opened:
            if view.account(id_) is not None:
                taken.append(["account", id_])
                continue
            holds.open_account(view, id_)

    def move(self, position: int, entries: dict[str, list[bytes]]) -> None:
        """Move the amounts.

        Args:
            position: of the first move in the transaction.
            entries: of the decision's moves by owning domain; those of the call are added.

        Raises:
            Refused: INSUFFICIENT.
        """
        view, ends = self._view, iter(self.ends)
        for move, amount, source, target in zip(
            self.acts.moves, self.amounts, ends, ends, strict=True
        ):
            debtor = source[1] or self._opened(source[0])
            creditor = target[1] or self._opened(target[0])
            view.move(debtor).debit(amount, move.source_family.floor)
            view.move(creditor).credit(amount)
            head = b"\x83" + encode_int(position)
            for account, delta in ((debtor, -amount), (creditor, amount)):
                entry = head + account.id_cbor + encode_int(delta)
                entries.setdefault(account.domain, []).append(entry)
            position += 1

    def _opened(self, id_: list[Value]) -> Account:
        return present(self._view.account(id_), "an account that the call opened is missing")

    def write(self, standing: Standing, now_ms: int) -> None:
        """Make and change records, place and release holds.

        Raises:
            Refused: LIMIT: a target has too many holds.
        """
        author = (standing.principal.id, standing.agency.name)
        acts, view, domain = self.acts, self._view, self.active.action.domain
        bases = [self._basis(create.basis) for create in acts.creates]
        set_bases = [None if a.basis is None else self._basis(a.basis) for a in acts.assigns]
        for created, basis in zip(self.created, bases, strict=True):
            self._create(created, basis, author)
        for at, assign in enumerate(acts.assigns):
            draft = view.draft(self.records[assign.load])
            for field, value in self._set_values[at].items():
                draft.write(field, value)
            if assign.basis is not None:
                draft.write("basis", set_bases[at] or None)
            if assign.status:
                draft.write("status", assign.status)
                draft.enter_status(assign.status, *author)
        for place, (targets, mask, until_ms) in zip(acts.places, self._placed, strict=True):
            hold = Hold(
                hold_id(self._txid, self.index, place.index),
                targets,
                mask,
                now_ms,
                until_ms,
                *author,
                domain,
                CONFIRMED,
                place.legal,
                place.reason,
            )
            holds.place(view, hold)
        for hold in self._released:
            holds.release(view, hold, domain)

    def _create(self, created: Created, basis: list[Value], author: tuple[bytes, str]) -> None:
        create, view = created.create, self._view
        kind = create.kind
        draft = view.create(kind, created.id, created.id_cbor, created.kh)
        draft.update(created.values)
        by: list[Value] = [["created", *author]]
        if kind.start:
            draft["status"] = kind.start
            by.append([kind.start, *author])
        draft["by"] = by
        if basis:
            draft["basis"] = basis
        if create.id is not None:
            draft.held = created.held(view)

    def _basis(self, paths: tuple[Path, ...]) -> list[Value]:
        rows: list[Value] = []
        for load, field in paths:
            if load in self.absent:
                target = self.absent[load]
                if target is None:
                    raise NoValue(f"{load}.{field}").refused
                rows.append([name_of(*target), field, 0])
                continue
            record = self.records[load]
            rows.append([named(record), field, record.field_version(field)])
        return rows


def record_id(txid: bytes, call: int, effect: int) -> bytes:
    """Return the id of a record that is made under ``{tx}``."""
    return H_ID(txid + call.to_bytes(4, "big") + effect.to_bytes(4, "big"))


def hold_id(txid: bytes, call: int, effect: int) -> bytes:
    """Return the id of the hold that is placed by a call's ``effect``-th placing."""
    return _H_HOLD(txid + call.to_bytes(4, "big") + effect.to_bytes(4, "big"))


def _written_fields(assign: Assign) -> list[str]:
    """Return the fields whose expected version matters to an ``Assign``."""
    fields = [name for name, _ in assign.assignments]
    if assign.status:
        fields.append("status")
    if assign.basis is not None:
        fields.append("basis")
    return fields


def _mask(scopes: tuple[str, ...]) -> int:
    mask = 0
    for scope in scopes:
        mask |= SCOPE_MASKS[scope]
    return mask
