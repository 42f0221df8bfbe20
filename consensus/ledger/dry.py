"""Asking before acting: what would refuse a draft now, all of it, as far as it can be judged.

``DryRun`` judges one transaction on the newest executed state, with the executor's own parts, and
changes nothing. Its ``outcome`` is what the executor would decide in the next block. ``findings``
are every check that fails: first the one that decides, then the others in their order. What was
loaded lets versions, bases, holds, conditions and approvals be judged each by itself.

- What comes before authority and authority itself end a call's judgement: whoever may not act is
  told no more.
- Effects are tried only where nothing else fails; later calls then see them. ``complete`` is
  False where something could not be judged for what failed before it.
- A draft that is to be stored as a proposal may lack approvals: what it would need besides is
  found out all the same.

Signatures are not looked at: cosigners count as approving. The salts are of no block.

Not here: who may ask, and what they are told (``node.api.simulating``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from consensus.codec import Value
from consensus.errors import present
from consensus.ledger import indexes
from consensus.ledger.authority import Power, Standing, authorize
from consensus.ledger.calls import Calls
from consensus.ledger.codes import Code, Refused
from consensus.ledger.decision import Decision
from consensus.ledger.effects import Active, Effects
from consensus.ledger.environment import LETS, Lets
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.expects import Expectations, check_fresh
from consensus.ledger.holds import Target
from consensus.ledger.judged import Judged
from consensus.ledger.layout import ALL, EDIT, PAY, place
from consensus.ledger.ledger import Ledger
from consensus.ledger.model import Action, EvaluationError
from consensus.ledger.records import Record
from consensus.ledger.transaction import PROPOSE, PROTECTIVE, Call, Transaction
from consensus.ledger.versions import unknown_action
from consensus.ledger.view import Source

FINDINGS_MAX: Final = 256
"""Findings told of one draft."""


class Finding(NamedTuple):
    """A check that fails: as the code leaf of a decision says it."""

    code: Code
    call: int | None
    detail: Value


class DryRun(BlockRun):
    """One transaction judged on a state, for nobody but whoever asks.

    Args:
        ledger: of its own, so that nothing judged here is kept for blocks.
        source: the newest executed state.
        context: of the block that would follow.
        transaction: its form has been checked, its signatures not.
    """

    __slots__ = ("_transaction", "complete", "findings", "outcome", "places", "quiet")

    def __init__(
        self, ledger: Ledger, source: Source, context: BlockContext, transaction: Transaction
    ) -> None:
        super().__init__(ledger, source, context, [])
        self._transaction = transaction
        trial = BlockRun(ledger, source, context, [transaction])
        trial.step(1)
        self.outcome: Decision = trial.first
        self.complete = True
        self.quiet = False
        """Whether an action among the calls is quiet."""
        self.findings: list[Finding] = []
        self.places: list[tuple[str, list[Value]]] = []
        """Space and components of what the draft names and of the records and accounts that the
        findings rest on."""
        self._view.begin()
        self._find()
        first = Finding(self.outcome.code, self.outcome.call, self.outcome.detail)
        if first.code not in (Code.APPLIED, Code.PROPOSED):
            # of a proposal, a later call may decide: what may change refuses nothing when stored
            self.findings = [first, *[each for each in self.findings if each != first]]

    # --- the transaction's own checks

    def _find(self) -> None:
        transaction, view = self._transaction, self._view
        now_ms = self._context.time_ms
        expects = Expectations(view, transaction)
        self.places += [place(kind, id_) for kind, id_, _ in expects.entries.values()]
        standing = self._bench.standing(transaction.author)
        if not standing.known:
            self._stop(standing.fault)
            return
        self._note(None, view.window(transaction.author).check, transaction.sequence)
        if now_ms > transaction.not_after_ms:
            self._add(Refused(Code.EXPIRED, [transaction.not_after_ms, now_ms]), None)
        if standing.fault is not None:
            self._stop(standing.fault)
            return
        approvers: list[Standing] = []
        for key in transaction.cosigners:
            self._note(None, self._approves, key, approvers)
        calls = _DryCalls(self, transaction, standing, expects, approvers)
        for index, call in enumerate(transaction.calls):
            active = self._bench.action(call)
            if active is None:
                self._add(unknown_action(view, call.domain, call.action), index)
                self.complete = False
                continue
            self.quiet = self.quiet or active.action.quiet
            power = self._bench.power_for(standing, active.action, expects.under)
            if not calls.attempt(index, call, active, power) and index + 1 < len(transaction.calls):
                self.complete = False
        if view.indexed:
            self._note(None, indexes.settle, view)
        proposed = transaction.mode == PROPOSE
        fails = [each for each in self.findings if not proposed or each.code != Code.NEEDS_APPROVAL]
        if expects.entries and transaction.lane != PROTECTIVE and not fails:
            self._note(None, expects.check_rest, standing)
        view.rollback()
        self._desk.clear()

    def _approves(self, key: bytes, approvers: list[Standing]) -> None:
        approvers.append(self._bench.cosigner(key, Judged()))

    def _stop(self, fault: Refused | None) -> None:
        self._add(present(fault, "a key without standing has a fault"), None)
        self.complete = False

    def _add(self, refused: Refused, call: int | None) -> None:
        finding = Finding(refused.code, call, refused.detail)
        if finding not in self.findings and len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)

    def _note(self, call: int | None, check: Callable[..., Any], *arguments: Any) -> bool:
        """Make a check; note why it fails; return whether it holds."""
        try:
            check(*arguments)
        except Refused as refused:
            self._add(refused, call)
            return False
        return True


class _DryCalls(Calls):
    """The calls of a draft, each check made although others failed."""

    __slots__ = ("_at", "_run")

    def __init__(
        self,
        run: DryRun,
        transaction: Transaction,
        standing: Standing,
        expects: Expectations,
        approvers: list[Standing],
    ) -> None:
        bench, proposing = run._bench, run._proposing
        super().__init__(
            bench.view,
            transaction,
            standing,
            bench.now_ms,
            expects,
            approvers,
            bench.power,
            proposing,
        )
        self._run = run
        self._at = 0

    def _note(self, check: Callable[..., Any], *arguments: Any) -> bool:
        return self._run._note(self._at, check, *arguments)

    def attempt(self, index: int, call: Call, active: Active, power: Power) -> bool:
        """Judge one call and return whether it was carried out. Nothing is raised."""
        self._at = index
        action = active.action
        if action.kernel:
            return self._note(self.run, index, call, active, power)
        known = self._run.complete
        self._run.complete = False
        env: dict[str, Any] = {
            "params": active.params.values, "now": self._now_ms, "who": power.who,
        }  # fmt: skip
        absent: dict[str, Target | None] = {}
        records: dict[str, Record] = {}
        begun = self._note(self._begin, index, call, active, power, env, absent, records)
        self._place_loads(action, env)
        if not begun:
            return False
        if action.lets:
            env[LETS] = Lets(action.lets, dict(env))
        effects = Effects(self._view, self._tx.txid, index, active, env, records, absent)
        if not self._note(authorize, self._view, self._standing, power, action, env):
            return False
        resolved = self._note(effects.resolve)
        self._place_effects(effects)
        before = len(self._run.findings)
        if resolved:
            self._judge(effects, power)
        self._require(effects)
        sound = resolved and self._note(effects.evaluate) and len(self._run.findings) == before
        approvals = action.approvals
        if approvals is not None and not self._note(self._approve, index, approvals, power, env):
            sound = sound and self._tx.mode == PROPOSE
        if not sound:
            return False
        self._run.complete = known
        carried = self._note(self._carry_out, effects)
        if carried and action.review is not None:
            carried = self._note(self._answer_for, index, action, action.review, power)
        return carried

    def _begin(
        self,
        index: int,
        call: Call,
        active: Active,
        power: Power,
        env: dict[str, Any],
        absent: dict[str, Target | None],
        records: dict[str, Record],
    ) -> None:
        """Take inputs, loads and parameters."""
        env["input"] = self._inputs(index, call, active)
        records.update(self._loaded(active.action, env, absent, power))
        if active.action.periods is not None:
            env["params"] = self._dated(index, active, env)

    def _place_loads(self, action: Action, env: dict[str, Any]) -> None:
        """Note the places of what was loaded, or looked for."""
        places = self._run.places
        for load in action.loads:
            try:
                id_ = (load.account or load.reference).resolve(env)
            except (EvaluationError, KeyError):
                continue
            if load.kind is None:
                places.append(("account", id_))
            elif load.listing is None:
                places.append(("record", [load.kind.name, *id_]))
            else:
                found = env.get(load.name, ())
                places += [("record", [load.kind.name, *each["id"]]) for each in found]

    def _place_effects(self, effects: Effects) -> None:
        """Note the places of what would be made or moved."""
        places = self._run.places
        places += [("account", id_) for id_, _ in effects.ends]
        places += [("account", id_) for id_ in effects.opened]
        places += [(each.target.space, each.target.components) for each in effects.named]
        if effects.beside is not None:
            places += [("account", id_) for id_, _ in effects.beside.freed]

    def _judge(self, effects: Effects, power: Power) -> None:
        """Look at versions, bases and holds."""
        active = effects.active
        if not active.action.protective:
            self._versions(effects)
        for load in active.action.fresh:
            if load in effects.records:
                self._note(check_fresh, self._view, effects.records[load])
        scopes = (ALL | PAY | EDIT) & ~active.ignored
        if scopes & self._any_mask(effects, power):
            self._note(self._check_holds, effects, power, scopes)

    def _versions(self, effects: Effects) -> None:
        """Compare every version that counts, not the first that moved alone."""
        expects, view = self._expects, self._view
        for load, fields in effects.acts.versioned.items():
            found, target = effects.records.get(load), effects.absent.get(load)
            if found is not None:
                self._note(expects.check_record, found, fields)
            elif target is not None:
                self._note(expects.check_object, target.components[0], target.components[1:])
        for each in effects.named:
            kind = each.create.kind
            record = view.record_at(kind, each.id_cbor, each.kh)
            now = 0 if record is None else record.version
            self._note(expects.check, kind.name, each.id, each.id_cbor, now)

    def _require(self, effects: Effects) -> None:
        """Judge every condition."""
        for requirement in effects.active.action.require:
            try:
                met = requirement.that.evaluate(effects.env)
            except EvaluationError:
                met = False
            if met is not True:
                refused = Refused(Code.REQUIREMENT, [requirement.code, requirement.say])
                self._run._add(refused, self._at)
