"""One call of an action: every check in its order, then its effects.

    RULES_MOVED  BAD_INPUT  NOT_FOUND  NOT_AUTHORIZED  STALE  BASIS_MOVED  HELD  REQUIREMENT
    NEEDS_APPROVAL  INSUFFICIENT  NOT_UNIQUE  NOT_DELIVERED  LIMIT

The values of all effects are computed from what the call loaded, before its first effect; later
calls of the transaction see what it wrote. A protective call is judged on the present state: no
expected versions, no holds. Accounts that are only moved are attested, not read.

With ``approvals_first`` the policy is judged as soon as everything is loaded: whatever else refuses
the call then, its approvals are complete.

Not here: the checks of the transaction (``executor``), what calls load (``loading``), what kernel
actions do (``kernel``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from consensus.codec import Value
from consensus.errors import present
from consensus.ledger import emergency, holds, sealing
from consensus.ledger.authority import Power, Standing, authorize
from consensus.ledger.codes import Code, Refused
from consensus.ledger.delegation import grant_id
from consensus.ledger.effects import Active, Effects, hold_id
from consensus.ledger.environment import LETS, Lets
from consensus.ledger.expects import Expectations, check_fresh
from consensus.ledger.holds import Target
from consensus.ledger.kernel.perform import FLOORS, HANDLERS, POLICIES
from consensus.ledger.kernel.plan import Acting
from consensus.ledger.layout import ALL, EDIT, PAY, encode_int
from consensus.ledger.leaves import leaves_of
from consensus.ledger.loading import Loading
from consensus.ledger.model import Action, Env, EvaluationError, Expression, Policy, ReviewDue
from consensus.ledger.policies import Panel, PowerOf
from consensus.ledger.proposals import Judgement
from consensus.ledger.terms import Reversible, Terms
from consensus.ledger.transaction import Call, Transaction
from consensus.ledger.view import View


class Calls(Loading):
    """Judges and carries out the calls of one transaction, in order.

    Args:
        approvers: who approves beside the author: cosigners, or those whose approvals of a
            proposal are recorded; None: approvals are not judged, with ``approvals_first``.
        power_of: gives what a principal has from a role.
        proposing: judges the proposals that the calls act on.
        approvals_first: judge approvals before everything else that can be judged later.
    """

    __slots__ = (
        "_approvals_first",
        "_approvers",
        "_expects",
        "_now_ms",
        "_power_of",
        "_proposing",
        "_standing",
        "covered",
        "filled",
        "kept",
        "links",
        "move_count",
        "moves",
        "terms",
    )

    def __init__(
        self,
        view: View,
        transaction: Transaction,
        standing: Standing,
        now_ms: int,
        expects: Expectations,
        approvers: Sequence[Standing] | None,
        power_of: PowerOf,
        proposing: Judgement,
        *,
        approvals_first: bool = False,
    ) -> None:
        self._view = view
        self._tx = transaction
        self.listed = 0
        self._standing = standing
        self._now_ms = now_ms
        self._expects = expects
        self._approvers = approvers
        self._power_of = power_of
        self._proposing = proposing
        self._approvals_first = approvals_first
        self.filled: list[bytes] = []
        """Encoded entries of the decision's authority leaf: which approver fills which leaf."""
        self.move_count = 0
        self.moves: dict[str, list[bytes]] = {}
        """Encoded entries of the decision's moves leaves, by owning domain."""
        self.terms: list[bytes] = []
        """On which terms the calls may be taken back, encoded; ``covered`` of them have any."""
        self.covered = 0
        self.links: list[bytes] = []
        """Encoded links to other transactions."""
        self.kept: dict[int, Any] = {}
        """What a judgement of a kernel's call found that another of it needs, by call."""

    def run(self, index: int, call: Call, active: Active, power: Power) -> None:
        """Judge and carry out one call.

        Raises:
            Refused: the first check that fails; the caller rolls back what was written.
        """
        action = active.action
        inputs = self._inputs(index, call, active)
        env: dict[str, Any] = {
            "input": inputs,
            "params": active.params.values,
            "now": self._now_ms,
            "who": power.who,
        }
        absent: dict[str, Target | None] = {}
        records = self._loaded(action, env, absent, power) if action.loads else {}
        if self._approvals_first:
            self._approve_first(index, active, power, env)
        if action.kernel:
            self._kernel(index, active, power, env)
            return
        if action.periods is not None:
            env["params"] = self._dated(index, active, env)
        if action.lets:
            env[LETS] = Lets(action.lets, dict(env))
        effects = Effects(self._view, self._tx.txid, index, active, env, records, absent)
        # first: what an absent account is called may come from a record that was loaded
        authorize(self._view, self._standing, power, action, env)
        effects.resolve()
        if not action.protective and (effects.acts.versioned or effects.named):
            self._check_versions(effects)
        for load in action.fresh:
            if load in records:
                check_fresh(self._view, records[load])
        scopes = (ALL | PAY | EDIT) & ~active.ignored
        if scopes & self._any_mask(effects, power):
            self._check_holds(effects, power, scopes)
        if action.require:
            _check_requirements(action, env)
        effects.evaluate()
        if action.approvals is not None and not self._approvals_first:
            self._approve(index, action.approvals, power, env)
        self._carry_out(effects)
        if action.review is not None:
            self._answer_for(index, action, action.review, power)

    def _answer_for(self, index: int, action: Action, due: ReviewDue, power: Power) -> None:
        """Note that an emergency form was used, which is to be reviewed.

        Raises:
            Refused: LIMIT.
        """
        act = emergency.Act(self._tx.txid, index, action, self._standing, power, due)
        emergency.use(self._view, act, self._now_ms)

    def objection(
        self,
        index: int,
        call: Call,
        active: Active,
        power: Power,
        approver: Standing,
        *,
        objects: bool = False,
    ) -> list[Value]:
        """Return why somebody could not approve a call now beside those who do; empty if able.

        Somebody may approve who may fill a leaf, whether or not others fill it already. The links
        are those of NOT_AUTHORIZED. Nothing is written.

        Args:
            objects: whether it is about objecting, for which there may be a policy of its own.

        Raises:
            Refused: what comes before the policy: RULES_MOVED, BAD_INPUT, NOT_FOUND.
        """
        env = self._environment(index, call, active, power)
        policies = self._policies(index, active.action, env)
        if objects and active.action.objections is not None:
            policies = [active.action.objections]
        approvers = [*(self._approvers or ()), approver]
        links: list[Value] = []
        for policy in policies:
            found = self._panel(policy, power, env, approvers).objection()
            if not found:
                return []
            links += [link for link in found if link not in links]
        return links or [["not asked"]]

    def check_approvals(self, index: int, call: Call, active: Active, power: Power) -> None:
        """Judge alone what approvals a call asks for: its policy, and the floor beyond it.

        Raises:
            Refused: NEEDS_APPROVAL, or what comes before the policy.
        """
        action = active.action
        if action.approvals is None and not action.kernel:
            return
        env = self._environment(index, call, active, power)
        for policy in self._policies(index, action, env):
            self._panel(policy, power, env, self._approvers or ()).judge()
        _check_floor(self._acting(index, env), action)

    def names(
        self, index: int, call: Call, active: Active, who: Standing, path: Expression
    ) -> bool:
        """Return whether the inputs of a call, by themselves, say that a path names somebody."""
        try:
            named = path.evaluate({"input": self._inputs(index, call, active)})
        except (Refused, EvaluationError, KeyError):
            return False
        return named is not None and who.is_same(named)

    def _environment(self, index: int, call: Call, active: Active, power: Power) -> dict[str, Any]:
        """Return what conditions of a call may read, without judging it further."""
        env: dict[str, Any] = {
            "input": self._inputs(index, call, active),
            "params": active.params.values,
            "now": self._now_ms,
            "who": power.who,
        }
        self._load(active.action, env, {})
        self._complete(index, active, env)
        return env

    def _approve_first(self, index: int, active: Active, power: Power, env: dict[str, Any]) -> None:
        if self._approvers is None:
            return
        action = active.action
        if action.approvals is not None or action.kernel:
            self._complete(index, active, env)
            self._approve_all(index, action, power, env)

    def _complete(self, index: int, active: Active, env: dict[str, Any]) -> None:
        """Add to an environment with every load what conditions may read beside them."""
        action = active.action
        if action.periods is not None:
            env["params"] = self._dated(index, active, env)
        if action.lets:
            env[LETS] = Lets(action.lets, dict(env))

    def _approve(self, index: int, policy: Policy, power: Power, env: Env, before: int = 0) -> None:
        """Judge a policy of a call, which has ``before`` leaves of other ones before it.

        Raises:
            Refused: NEEDS_APPROVAL.
        """
        for each in self._panel(policy, power, env, self._approvers or ()).judge():
            place = encode_int(index) + encode_int(before + each.leaf) + encode_int(each.approver)
            self.filled.append(b"\x84" + place + each.power.cbor)

    def _approve_all(self, index: int, action: Action, power: Power, env: Env) -> None:
        """Judge every policy of a call, and what the floor asks of it.

        Raises:
            Refused: NEEDS_APPROVAL, or what keeps one from being known.
        """
        before = 0
        for policy in self._policies(index, action, env):
            self._approve(index, policy, power, env, before)
            before += len(leaves_of(policy))
        _check_floor(self._acting(index, env), action)

    def _policies(self, index: int, action: Action, env: Env) -> list[Policy]:
        """Return the policies of a call: its action's, and those of what it acts upon."""
        found = [] if action.approvals is None else [action.approvals]
        beyond = POLICIES.get(action.name) if action.kernel else None
        return found if beyond is None else [*found, *beyond(self._acting(index, env))]

    def _panel(
        self, policy: Policy, power: Power, env: Env, approvers: Sequence[Standing]
    ) -> Panel:
        return Panel(self._view, policy, env, self._standing, power, approvers, self._power_of)

    def check_form(self, index: int, call: Call, active: Active) -> None:
        """Check what no state can change: the action as its author knew it, and the inputs.

        Raises:
            Refused: RULES_MOVED, BAD_INPUT.
        """
        self._inputs(index, call, active)

    def check_delivery(self, index: int, active: Active) -> None:
        """Check alone that the audience of what a call seals has it.

        Raises:
            Refused: NOT_DELIVERED, or BAD_INPUT.
        """
        if active.sealed:
            values, _ = self._tx.inputs(index)
            self._check_delivery(index, active, active.action.bind(values))

    def _check_delivery(self, index: int, active: Active, inputs: Mapping[str, Value]) -> None:
        sealing.check(self._view, self._tx, index, active.sealed, inputs)

    def _check_versions(self, effects: Effects) -> None:
        expects, view = self._expects, self._view
        for load, fields in effects.acts.versioned.items():
            found = effects.records.get(load)
            if found is not None:
                expects.check_record(found, fields)
            elif (target := effects.absent[load]) is not None:
                expects.check_object(target.components[0], target.components[1:])
        for each in effects.named:
            kind = each.create.kind
            record = view.record_at(kind, each.id_cbor, each.kh)
            expects.check(kind.name, each.id, each.id_cbor, 0 if record is None else record.version)

    def _any_mask(self, effects: Effects, power: Power) -> int:
        """Return the masks of all that the call touches; all scopes where something is absent."""
        if effects.opened or effects.named:
            return ALL | PAY | EDIT
        view = self._view
        if effects.absent and any(
            target is not None and holds.index_of(view, target).held
            for target in effects.absent.values()
        ):
            return ALL | PAY | EDIT
        mask = self._standing.agency.held | power.held | effects.active.held
        if effects.records:
            for record in effects.records.values():
                mask |= record.held
        freed = () if effects.beside is None else effects.beside.freed
        for _, account in (*effects.ends, *freed):
            mask |= view.account_held(present(account, "an account that is not there is moved"))
        return mask

    def _check_holds(self, effects: Effects, power: Power, minding: int) -> None:
        active, view, now_ms = effects.active, self._view, self._now_ms
        ids: list[bytes] = []
        paying = PAY if effects.acts.pays else 0
        editing = EDIT if effects.writes_records else 0
        self._held_above(active, power, (ALL | paying | editing) & minding, ids)
        written = [assign.load for assign in effects.acts.assigns]
        for load, record in effects.records.items():
            scopes = (ALL | EDIT if load in written else ALL) & minding
            if record.held & scopes:
                target = Target("record", [record.kind.name, *record["id"]])
                ids += holds.blocking(view, now_ms, target, scopes)
        for absent in effects.absent.values():
            if absent is not None:
                ids += holds.blocking(view, now_ms, absent, ALL & minding)
        scopes = (ALL | PAY) & minding
        for id_, account in effects.ends:
            if account is not None and view.account_held(account) & scopes:
                ids += holds.blocking(view, now_ms, Target("account", id_), scopes)
        for id_, account in () if effects.beside is None else effects.beside.freed:
            if account is not None and view.account_held(account) & ALL & minding:
                ids += holds.blocking(view, now_ms, Target("account", id_), ALL & minding)
        scopes = (ALL | EDIT) & minding
        for each in effects.named:
            if each.held(view) & scopes:
                ids += holds.blocking(view, now_ms, each.target, scopes)
        for id_ in effects.opened:
            ids += holds.blocking(view, now_ms, Target("account", id_), ALL & minding)
        if ids:
            raise Refused(Code.HELD, list(dict.fromkeys(ids)))

    def _held_above(self, active: Active, power: Power, scopes: int, ids: list[bytes]) -> None:
        """Look at holds on the agencies whose power this is, the domain and the action."""
        view, now_ms, action = self._view, self._now_ms, active.action
        for agency in (self._standing.agency, *power.agencies):
            if agency.held & scopes:
                ids += holds.blocking(view, now_ms, Target("agency", [agency.name]), scopes)
        if active.held & scopes:
            ids += holds.blocking(view, now_ms, Target("domain", [action.domain]), scopes)
            target = Target("action", [action.domain, action.name])
            ids += holds.blocking(view, now_ms, target, scopes)

    def _carry_out(self, effects: Effects) -> None:
        active, acts = effects.active, effects.acts
        first = self.move_count
        taken: list[Value] = []
        if effects.opened:
            effects.open(taken)
        if acts.moves:
            effects.move(self.move_count, self.moves)
            self.move_count += len(acts.moves)
        elif effects.beside is not None:
            domain = active.action.domain
            self.move_count = effects.beside.carry_out(self.move_count, domain, self.moves, taken)
        for slot in effects.slots:
            self._take(slot, taken)
        if effects.named:
            self._check_created(effects, taken)
        if taken:
            raise Refused(Code.NOT_UNIQUE, taken)
        if active.sealed:
            self._check_delivery(effects.index, active, effects.env["input"])
        if acts.creates or acts.assigns or acts.places or acts.releases:
            effects.write(self._standing, self._now_ms)
        if active.action.reversible is not None:
            self._note_terms(active.action, active.action.reversible, effects, first)

    def _note_terms(
        self, action: Action, reversible: Reversible, effects: Effects, first: int
    ) -> None:
        """Note on which terms the call may be taken back; its moves begin at ``first``."""
        row = Terms(
            action.domain,
            action.name,
            reversible.role,
            reversible.within_days,
            effects.shortfall,
            False,
            self.move_count - first,
            effects.slots if reversible.free else [],
            None,
            effects.approvals,
        )
        self.terms.append(row.encode())
        self.covered += 1

    def _take(self, slot: list[Value], taken: list[Value]) -> None:
        view = self._view
        kh = view.paths("unique", slot)
        found = view.single("unique", slot, kh)
        if found is not None and found.value[0] is not None:
            taken.append(["unique", slot[1]])
        else:
            view.put("unique", slot, (self._tx.txid,), slot[0], kh=kh)

    def _check_created(self, effects: Effects, taken: list[Value]) -> None:
        """Refuse ids that the transaction itself has used; others fail on their version."""
        seen: dict[bytes, None] = {}
        for each in effects.named:
            kind, kh = each.create.kind, each.kh
            if kh in seen or self._view.record_at(kind, each.id_cbor, kh) is not None:
                taken.append([kind.name, each.id])
            seen[kh] = None

    def _acting(self, index: int, env: Env) -> Acting:
        """Return what a kernel action needs to know."""
        txid = self._tx.txid
        return Acting(
            self._view,
            self._standing,
            self._now_ms,
            hold_id(txid, index, 0),
            grant_id(txid, index),
            env["input"],
            txid,
            index,
            self._proposing,
            self._approvers or (),
            self,
        )

    def _kernel(self, index: int, active: Active, power: Power, env: Env) -> None:
        action, view = active.action, self._view
        acting = self._acting(index, env)
        plan = HANDLERS[action.name](acting)
        authorize(view, self._standing, power, action, env)
        if plan.forbidden is not None:
            raise Refused(Code.NOT_AUTHORIZED, [plan.forbidden])
        if plan.absent is not None:
            raise Refused(Code.NOT_FOUND, plan.absent)
        if plan.lacking:
            raise Refused(Code.NOT_AUTHORIZED, list(plan.lacking))
        if not action.protective:
            for kind, id_ in plan.touches:
                self._expects.check_object(kind, id_)
        if plan.stale is not None:
            raise Refused(Code.STALE, plan.stale)
        scopes = (ALL | PAY | EDIT) & ~active.ignored
        if scopes:
            ids: list[bytes] = []
            self._held_above(active, power, scopes, ids)
            if plan.opens is not None and ALL & scopes:
                ids += holds.blocking(view, self._now_ms, Target("account", plan.opens), ALL)
            if plan.moved is not None and view.account_held(plan.moved[0]) & (ALL | PAY) & scopes:
                target = Target("account", plan.moved[0].id)
                ids += holds.blocking(view, self._now_ms, target, (ALL | PAY) & scopes)
            for target, minded in plan.minds:
                ids += holds.blocking(view, self._now_ms, target, minded & scopes)
            if ids:
                raise Refused(Code.HELD, list(dict.fromkeys(ids)))
        _check_requirements(action, env)
        if plan.failed is not None:
            raise Refused(Code.REQUIREMENT, list(plan.failed))
        if self._approvers is None:  # to be stored
            _check_floor(acting, action)
        elif not self._approvals_first:
            self._approve_all(index, action, power, env)
        if plan.taken is not None:
            raise Refused(Code.NOT_UNIQUE, [plan.taken])
        plan.write()
        if plan.moved is not None:
            account, delta = plan.moved
            entry = b"\x83" + encode_int(self.move_count) + account.id_cbor + encode_int(delta)
            self.moves.setdefault(account.domain, []).append(entry)
            self.move_count += 1


def _check_floor(acting: Acting, action: Action) -> None:
    """Check what the floor asks of an action, beyond its policy."""
    floor = FLOORS.get(action.name) if action.kernel else None
    if floor is not None:
        floor(acting, action)


def _check_requirements(action: Action, env: Env) -> None:
    for requirement in action.require:
        try:
            met = requirement.that.evaluate(env)
        except EvaluationError:
            met = False
        if met is not True:
            raise Refused(Code.REQUIREMENT, [requirement.code, requirement.say])
