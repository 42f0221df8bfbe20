"""What a call is judged on: the action as its author knew it, inputs, parameters and loads.

    RULES_MOVED  BAD_INPUT  NOT_FOUND  LIMIT

Not here: judging the call (``calls``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from consensus.codec import Value
from consensus.ledger import indexes
from consensus.ledger.amounts import funds, reservation
from consensus.ledger.authority import Power
from consensus.ledger.codes import Code, Refused
from consensus.ledger.effects import Active
from consensus.ledger.environment import ABSENT
from consensus.ledger.holds import Target
from consensus.ledger.model import Action, Env, EvaluationError
from consensus.ledger.records import VOIDED, Record
from consensus.ledger.transaction import Call, Transaction
from consensus.ledger.types import InputError
from consensus.ledger.view import View


class Loading:
    """Reads what the calls of one transaction name, in order."""

    __slots__ = ("_tx", "_view", "listed")

    _view: View
    _tx: Transaction
    listed: int
    """Records that were taken from indexes. Whoever judges the calls sets these."""

    def _inputs(self, index: int, call: Call, active: Active) -> dict[str, Value]:
        action = active.action
        values, params = self._tx.inputs(index)
        moved = action.periods is None and params != active.params.digest
        same = call.action_id == action.action_id and not moved
        if call.protective != action.protective or not (same or action.protective):
            raise Refused(Code.RULES_MOVED, [active.number, moved])
        try:
            return action.bind(values)
        except InputError as error:
            raise Refused(Code.BAD_INPUT, [error.name, error.reason]) from None

    def _dated(self, index: int, active: Active, env: Env) -> Mapping[str, Value]:
        """Return the values of the parameters for the period of the call."""
        params = active.params_of(env)
        if not active.action.protective and self._tx.inputs(index)[1] != params.digest:
            raise Refused(Code.RULES_MOVED, [active.number, True])
        return params.values

    def _loaded(
        self,
        action: Action,
        env: dict[str, Any],
        absent: dict[str, Target | None],
        power: Power,
    ) -> dict[str, Record]:
        """Return ``_load``; whoever has no power learns nothing of what is absent.

        What is looked for in vain may be named by a record that was loaded before.
        """
        try:
            return self._load(action, env, absent)
        except Refused:
            if power.missing:
                raise Refused(Code.NOT_AUTHORIZED, power.missing) from None
            raise

    def _load(
        self, action: Action, env: dict[str, Any], absent: dict[str, Target | None]
    ) -> dict[str, Record]:
        """Return the loaded records; note in ``absent`` the optional ones, None without an id.

        Records of a list are there under the list's name and their position, as ``debts[0]``.
        """
        records: dict[str, Record] = {}
        view = self._view
        for load in action.loads:
            try:
                id_ = load.reference.resolve(env)
            except EvaluationError:
                if load.optional:
                    env[load.name], absent[load.name] = ABSENT, None
                    continue
                raise Refused(Code.NOT_FOUND, [load.name, None]) from None
            if load.kind is not None:
                if load.listing is not None:
                    room = max(indexes.LISTED_MAX - self.listed, 0)
                    found = indexes.load(view, load.kind, load.listing, id_[0], room)
                    self.listed += len(found)
                    env[load.name] = found
                    records.update((f"{load.name}[{at}]", each) for at, each in enumerate(found))
                    continue
                record = view.record(load.kind, id_)
                if record is None:
                    if load.optional:
                        env[load.name] = ABSENT
                        absent[load.name] = Target("record", [load.kind.name, *id_])
                        continue
                    raise Refused(Code.NOT_FOUND, [load.name, [load.kind.name, id_]])
                if record.voided:
                    name = [load.kind.name, id_]
                    raise Refused(Code.NOT_FOUND, [load.name, name, VOIDED])
                env[load.name] = records[load.name] = record
                continue
            if load.account is not None:
                env[load.name] = reservation(view, load, id_, env)
                continue
            account = view.account(id_)
            if account is None:
                view.absent_account(id_)
                if load.optional:
                    env[load.name], absent[load.name] = ABSENT, Target("account", id_)
                    continue
                raise Refused(Code.NOT_FOUND, [load.name, ["account", id_]])
            env[load.name] = funds(view.read_account(account), load.family, id_)
        return records
