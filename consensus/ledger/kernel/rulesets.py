"""Rule sets on the chain: proposed, activated, objected to, withdrawn.

    propose_rules    lays a rule set down under the next number of its domain
    activate_rules   says from when it is in force: after a notice, and with the charter's approvals
    object_rules     an agency with a validator says no; f + 1 of them end it, before its time
    withdraw_rules   the agency that proposed it takes it back, before it is activated

Nothing runs when the time comes: which rule set is in force follows from chain time. A rule set
goes together with all that will be in force beside it, from its time on, or it is not activated. If
one that was to come is ended, those that do not hold without it end with it.

A charter is changed under the charter in force, by a quorum of agencies (``floor``), and never to
one under which nobody could change it again.

Acts are judged as far as they are cheap; what costs time, reading and compiling a rule set, comes
last, when authority and approvals are found.

Not here: who may do these acts, which the charter says.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from consensus.codec import Value
from consensus.errors import DecodeError, RulesError, present
from consensus.genesis import RULE_SETS_MAX
from consensus.ledger.authority import authorize
from consensus.ledger.codes import Code, Refused
from consensus.ledger.governing import reason_of
from consensus.ledger.kernel.plan import Acting, Plan, charter_int, charter_ms, found, successor_of
from consensus.ledger.kernel.quorum import (
    check_quorum,
    floor_now,
    governing_of,
    has_role,
    people_of,
    power_of,
    roles_of,
)
from consensus.ledger.layout import (
    ACTIVATED,
    ADOPTION,
    EXECUTOR_HEAD,
    LAPSED,
    OBJECTED,
    PROPOSED,
    WITHDRAWN,
    Adoption,
    RulesHead,
)
from consensus.ledger.model import Action, Rulebook, RuleSet
from consensus.ledger.policies import Panel
from consensus.ledger.rules.forms import decode_definition
from consensus.ledger.rules.lockout import NEEDED, locked_out
from consensus.ledger.rules.parts import parts_root
from consensus.ledger.rules.succession import check_successor
from consensus.ledger.view import CHARTER, RULES, View

NOTICE_HOURS: Final = "rules_notice_hours"
"""The charter's parameter: hours between an activation and its time; else the genesis notice."""
OBJECTIONS: Final = "rules_objections"
"""The charter's parameter: how many agencies end a rule set, if fewer than f + 1."""
AHEAD_MS_MAX: Final = 2 * 366 * 86_400_000
"""How far ahead an activation may lie: the domain takes no other until then."""

_WORDS: Final = {
    PROPOSED: "it is not activated",
    ACTIVATED: "it is activated already",
    OBJECTED: "agencies objected to it",
    WITHDRAWN: "it is withdrawn",
    LAPSED: "it lapsed with a rule set that was to come",
}

_PROPOSED: Final = "proposed"
_OBJECTED: Final = "objected"
_ACTIVATE: Final = "activate_rules"


def propose_rules(acting: Acting) -> Plan:
    """Lay a rule set down under the next number of its domain."""
    domain, number = acting.inputs["domain"], acting.inputs["number"]
    single = acting.view.single(RULES, [domain])
    head: RulesHead = RulesHead(domain, [], 0, [], 0) if single is None else single.value
    failed = None
    if number != head.latest + 1:
        failed = ("NUMBER", f"the next number of this domain is {head.latest + 1}")

    def write() -> None:
        governing = governing_of(acting)
        text: bytes = acting.inputs["rules"]
        governing.take_turn(acting.standing.agency.name, len(text))
        root = _root_of(text, domain, number)
        schedule = _Schedule(acting.view)
        book = _together(acting, schedule, {domain: text})
        _check_following(acting, book, domain)
        proposed = step(acting, _PROPOSED)
        adoption = Adoption(domain, number, PROPOSED, None, None, [proposed])
        acting.view.put(RULES, [domain, number], root, CHARTER, attachment=text)
        put_adoption(acting.view, adoption)
        put_head(acting.view, head._replace(latest=number))

    return Plan(write, ((RULES, [domain]),), failed=failed)


def activate_rules(acting: Acting) -> Plan:
    """Say from when a proposed rule set is in force."""
    domain, number = acting.inputs["domain"], acting.inputs["number"]
    from_ms, now_ms = acting.inputs["from"], acting.now_ms
    head, adoption = _proposed(acting)
    coming = head.coming(now_ms)
    least_ms = now_ms + _notice_ms(acting, domain)
    failed = None
    if adoption.state != PROPOSED:
        failed = ("NOT_OPEN", _WORDS[adoption.state])
    elif coming is not None:
        failed = ("SCHEDULED", f"number {coming[0]} of this domain is still to come")
    elif number < head.number_at(now_ms):
        failed = ("PASSED_OVER", f"number {head.number_at(now_ms)} is in force")
    elif from_ms < least_ms:
        failed = ("NOTICE", f"the notice ends at {least_ms}, in milliseconds since 1970")
    elif from_ms > now_ms + AHEAD_MS_MAX:
        failed = ("TOO_FAR", "at most two years ahead")

    def write() -> None:
        view = acting.view
        if domain != CHARTER:
            governing_of(acting).take_turn(acting.standing.agency.name)
        schedule = _Schedule(view)
        if domain not in schedule.heads and len(schedule.heads) >= RULE_SETS_MAX:
            raise Refused(Code.LIMIT, "domains")
        before = head.number_at(now_ms)
        active = [[n, at] for n, at in head.active if n == before] + [[number, from_ms]]
        planned = head._replace(active=active)
        new = domain not in schedule.heads
        schedule.heads[domain] = planned
        for then_ms in schedule.times(from_ms):
            book = schedule.compiled(acting, then_ms, {})
            if then_ms == from_ms:
                _check_following(acting, book, domain)
                if domain == CHARTER:
                    _check_able(acting, book.rule_sets[domain])
        if new:
            view.put(RULES, [], tuple(sorted(schedule.heads)), CHARTER)
        put_head(view, planned)
        if before:
            put_adoption(view, _adoption(view, domain, before)._replace(until_ms=from_ms))
        steps = [*adoption.steps, step(acting, "activated")]
        put_adoption(view, adoption._replace(state=ACTIVATED, from_ms=from_ms, steps=steps))

    return Plan(write, ((RULES, [domain]), (RULES, [domain, number, ADOPTION])), failed=failed)


def check_floor(acting: Acting, action: Action) -> None:
    """Refuse to activate a charter unless a quorum of agencies wants it.

    Raises:
        Refused: NEEDS_APPROVAL, with how many agencies are missing.
    """
    if acting.inputs["domain"] == CHARTER:
        check_quorum(acting, action)


def object_rules(acting: Acting) -> Plan:
    """Object, for an agency with a validator, to a rule set that is not yet in force."""
    head, adoption = _proposed(acting)
    floor, agency = floor_now(acting), acting.standing.agency
    objectors = {
        successor_of(acting, found(acting, "agency", [each[3]], "number")).name
        for each in adoption.steps
        if each[0] == _OBJECTED
    }
    failed = None
    due = adoption.from_ms is not None and adoption.from_ms <= acting.now_ms
    if adoption.state not in (PROPOSED, ACTIVATED):
        failed = ("NOT_OPEN", _WORDS[adoption.state])
    elif due:
        failed = ("NOT_OPEN", "it is in force, or was")
    elif agency.name in objectors:
        failed = ("UNCHANGED", "this agency has objected")

    def write() -> None:
        needed = charter_int(acting, OBJECTIONS, floor.objectors)
        now = adoption._replace(steps=[*adoption.steps, step(acting, _OBJECTED)])
        if len(objectors) + 1 < min(max(needed, 1), floor.objectors):
            put_adoption(acting.view, now)
        else:
            _end(acting, head, now, OBJECTED)

    return Plan(
        write,
        ((RULES, [head.domain, adoption.number, ADOPTION]),),
        failed=failed,
        forbidden=None if floor.seated(agency) else ["committee", agency.name],
    )


def withdraw_rules(acting: Acting) -> Plan:
    """Take back a rule set that one's agency proposed, before it is activated."""
    head, adoption = _proposed(acting)
    mine = bool(adoption.steps) and acting.standing.agency.stands_for(adoption.steps[0][3])
    failed = None if adoption.state == PROPOSED else ("NOT_OPEN", _WORDS[adoption.state])

    def write() -> None:
        steps = [*adoption.steps, step(acting, "withdrawn")]
        put_adoption(acting.view, adoption._replace(state=WITHDRAWN, steps=steps))

    return Plan(
        write,
        ((RULES, [head.domain, adoption.number, ADOPTION]),),
        failed=failed,
        forbidden=None if mine else ["agency", acting.standing.agency.name],
    )


# --- what lies in the state -------------------------------------------------------------------


def _proposed(acting: Acting) -> tuple[RulesHead, Adoption]:
    """Return head and adoption of the inputs ``domain`` and ``number``."""
    domain, number = acting.inputs["domain"], acting.inputs["number"]
    head: RulesHead = found(acting, RULES, [domain], "domain")
    adoption: Adoption = found(acting, RULES, [domain, number, ADOPTION], "number")
    return head, adoption


def _adoption(view: View, domain: str, number: int) -> Adoption:
    single: Any = view.single(RULES, [domain, number, ADOPTION])
    adoption: Adoption = present(single, "a rule set in force has no adoption").value
    return adoption


def put_adoption(view: View, adoption: Adoption) -> None:
    """Write what became of a number."""
    view.put(RULES, [adoption.domain, adoption.number, ADOPTION], adoption, CHARTER)


def put_head(view: View, head: RulesHead) -> None:
    """Write a head."""
    view.put(RULES, [head.domain], head, CHARTER)


def step(acting: Acting, what: str) -> list[Value]:
    """Return a step of an adoption: what the author of this act does."""
    standing = acting.standing
    return [what, acting.txid, standing.principal.id, standing.agency.name, acting.now_ms]


def _notice_ms(acting: Acting, domain: str) -> int:
    least_ms = floor_now(acting).notice_ms
    if charter_int(acting, NOTICE_HOURS, -1) < 0:
        return least_ms
    asked_ms = charter_ms(acting, NOTICE_HOURS, 0)
    return max(least_ms, asked_ms) if domain == CHARTER else asked_ms


class _Schedule:
    """Which rule sets are in force when, as the transaction sees it; ``heads`` ascend by domain."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.heads: dict[str, RulesHead] = {}
        domains = view.single(RULES, [])
        for name in () if domains is None else domains.value:
            self.heads[name] = self._read([name])

    def _read(self, components: list[Value]) -> Any:
        single: Any = self._view.single(RULES, components)
        return present(single, "a leaf of the rules is missing from the state").value

    def times(self, from_ms: int) -> list[int]:
        """Return the times from ``from_ms`` on at which a rule set comes into force, ascending."""
        times = {at for head in self.heads.values() for _, at in head.active if at >= from_ms}
        return sorted(times)

    def texts(self, at_ms: int, fresh: dict[str, bytes]) -> list[bytes]:
        """Return the rule sets in force at ``at_ms``, by ascending domain; ``fresh`` instead."""
        texts: dict[str, bytes] = dict(fresh)
        for name, head in self.heads.items():
            number = head.number_at(at_ms)
            if number and name not in fresh:
                texts[name] = self._view.attachment(RULES, [name, number])
        return [texts[name] for name in sorted(texts)]

    def compiled(self, acting: Acting, at_ms: int, fresh: dict[str, bytes]) -> Rulebook:
        """Return the rule book of a time.

        Raises:
            Refused: REQUIREMENT, with what the checker says.
        """
        try:
            return governing_of(acting).compiled(self.texts(at_ms, fresh))
        except RulesError as error:
            raise Refused(Code.REQUIREMENT, ["RULES", reason_of(error)]) from None


# --- what a rule set must be ------------------------------------------------------------------


def _root_of(text: bytes, domain: str, number: int) -> bytes:
    try:
        definition = decode_definition(text)
    except DecodeError as error:
        raise Refused(Code.BAD_INPUT, ["rules", reason_of(error)]) from None
    if definition.domain != domain:
        raise Refused(Code.BAD_INPUT, ["rules", "it is of another domain"])
    if definition.number != number:
        raise Refused(Code.BAD_INPUT, ["rules", "it has another number"])
    return parts_root(definition)


def _together(acting: Acting, schedule: _Schedule, fresh: dict[str, bytes]) -> Rulebook:
    """Return the rule book of a proposed rule set and those in force, or else those to come."""
    try:
        return schedule.compiled(acting, acting.now_ms, fresh)
    except Refused:
        coming = schedule.times(acting.now_ms + 1)
        if not coming:
            raise
    return schedule.compiled(acting, coming[-1], fresh)


def _check_following(acting: Acting, book: Rulebook, domain: str) -> None:
    """Refuse a rule set that may not follow the one in force; a charter that locks all out."""
    before, new = acting.view.book.rule_sets.get(domain), book.rule_sets[domain]
    if before is None:
        return
    faults = check_successor(before, new)
    if faults:
        raise Refused(Code.REQUIREMENT, ["RULES", reason_of(faults[0])])
    why = locked_out(new) if domain == CHARTER else ""
    if why:
        raise Refused(Code.REQUIREMENT, ["LOCKED_OUT", why])


def _check_able(acting: Acting, new: RuleSet) -> None:
    """Refuse a charter that those who activate it could not change again by what it asks for."""
    view = acting.view
    before = view.book.rule_sets[CHARTER]
    for name in NEEDED:
        roles, old = roles_of(new.actions[name]), before.actions.get(name)
        kept = old is not None and roles_of(old) == roles
        if not kept and not any(has_role(acting, each, roles) for each in people_of(acting)):
            why = f"none of those who activate it has the role that {name} asks for"
            raise Refused(Code.REQUIREMENT, ["LOCKED_OUT", why])
    action = new.actions[_ACTIVATE]
    power = power_of(acting, acting.standing, action.actor.role)
    env: dict[str, Any] = {
        "input": acting.inputs,
        "params": action.schedule.at(acting.now_ms).values,
        "now": acting.now_ms,
        "who": power.who,
    }
    try:
        authorize(view, acting.standing, power, action, env)
        if action.approvals is not None:
            judge = partial(power_of, acting)
            Panel(
                view, action.approvals, env, acting.standing, power, acting.approvers, judge
            ).judge()
        check_quorum(acting, new.actions[_ACTIVATE])
    except Refused:
        why = "those who activate it could not activate another under it"
        raise Refused(Code.REQUIREMENT, ["LOCKED_OUT", why]) from None


# --- the end before the time ------------------------------------------------------------------


def _end(acting: Acting, head: RulesHead, adoption: Adoption, state: int) -> None:
    """End a rule set that is not in force yet, and those to come that do not hold without it."""
    if adoption.state != ACTIVATED:
        put_adoption(acting.view, adoption._replace(state=state))
        return
    schedule = _Schedule(acting.view)
    if head.domain == EXECUTOR_HEAD:
        schedule.heads = {head.domain: head}
        _take_out(acting, schedule, adoption, state)
        return
    _take_out(acting, schedule, adoption, state)
    times = schedule.times(acting.now_ms + 1)
    if times:
        governing_of(acting).take_turn(acting.standing.agency.name)
    for then_ms in times:
        due = [name for name, each in schedule.heads.items() if _at(each, then_ms)]
        while due and not _holds(acting, schedule, then_ms):
            name = due.pop(0)
            lapsed = _adoption(acting.view, name, _at(schedule.heads[name], then_ms))
            steps = [*lapsed.steps, step(acting, "lapsed")]
            _take_out(acting, schedule, lapsed._replace(steps=steps), LAPSED)


def _at(head: RulesHead, then_ms: int) -> int:
    """Return the number that comes into force at ``then_ms``, 0 for none."""
    return next((number for number, from_ms in head.active if from_ms == then_ms), 0)


def _holds(acting: Acting, schedule: _Schedule, then_ms: int) -> bool:
    try:
        schedule.compiled(acting, then_ms, {})
    except Refused:
        return False
    return True


def _take_out(acting: Acting, schedule: _Schedule, adoption: Adoption, state: int) -> None:
    view, domain = acting.view, adoption.domain
    head = schedule.heads[domain]
    active = [each for each in head.active if each[0] != adoption.number]
    schedule.heads[domain] = head._replace(active=active)
    put_head(view, schedule.heads[domain])
    for number, _ in active:
        put_adoption(view, _adoption(view, domain, number)._replace(until_ms=None))
    put_adoption(view, adoption._replace(state=state, from_ms=None))
