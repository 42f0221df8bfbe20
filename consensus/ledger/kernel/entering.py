"""People who come with a new agency: they act for it from the first, and admit the others.

    admit_agency   makes an agency of the ledger that has no validator, with one administrator
    enter          the same for an agency that comes with a validator (``committee``)

By ``add_agency`` alone nobody could act for an agency, since none but its own administrators make
its people. Whoever comes has the role in which the act that admits is done, with a scope that those
who consent have seen. Such a role counts as a voice of an agency wherever policies count agencies;
so under the floor a quorum of the agencies with a validator wants it, whatever the charter asks
for beside it.

Not here: validators (``committee``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused
from consensus.ledger.kernel import people
from consensus.ledger.kernel.plan import Acting, Plan
from consensus.ledger.kernel.quorum import roles_of
from consensus.ledger.view import CHARTER
from consensus.memberfile import Named


def admit_agency(acting: Acting) -> Plan:
    """Admit an agency without a validator, with its first administrator: a quorum wants it."""
    inputs, view = acting.inputs, acting.view
    plan = people.add_agency(acting)
    people.check_new_key(inputs["key"], "key")
    people.check_scope(inputs["scope"])
    who = Named("", inputs["principal"], inputs["subject"], inputs["key"])
    slots: list[list[Value]] = [["principal", [who.principal]], ["key", [who.key]]]
    known = [each for each in slots if view.single(each[0], each[1]) is not None]

    def write() -> None:
        enter(acting, "admit_agency", inputs["agency"], [who], inputs["scope"], inputs["title"])

    return replace(plan, write=write, taken=plan.taken or (known[0] if known else None))


def enter(
    acting: Acting,
    act: str,
    agency: str,
    named: Sequence[Named],
    scope: Sequence[str],
    title: str | None,
) -> None:
    """Make an agency of the ledger, if it is to be one, and people of it who can act.

    Args:
        act: of the charter; the people get the role in which it is done.
        scope: of the role: names and values in turn.
        title: of the agency; None: it is one already.

    Raises:
        Refused: NOT_UNIQUE: a person's id or a key is there already.
    """
    if title is not None:
        _do(acting, people.add_agency, {"agency": agency, "title": title})
    action = acting.view.book.rule_sets[CHARTER].actions[act]
    roles = [action.actor.role] if action.actor.role else roles_of(action)
    for each in named:
        whose: dict[str, Value] = {"agency": agency, "principal": each.principal}
        kind = "system" if each.subject is None else "official"
        about: dict[str, Value] = {"kind": kind, "subject": each.subject, "person": None}
        _do(acting, people.add_principal, {**whose, **about})
        _do(acting, people.add_key, {**whose, "key": each.key})
        for role in roles:
            given: dict[str, Value] = {"role": role, "scope": list(scope)}
            _do(acting, people.give_role, {**whose, **given, "from": acting.now_ms, "until": None})


def _do(acting: Acting, handler: people.Handler, inputs: dict[str, Value]) -> None:
    """Carry out another act of the kernel as a part of this one."""
    plan = handler(replace(acting, inputs=inputs))
    if plan.failed is not None:
        raise Refused(Code.REQUIREMENT, list(plan.failed))
    if plan.taken is not None:
        raise Refused(Code.NOT_UNIQUE, [plan.taken])
    plan.write()
