"""An agency leaves and another takes its place, by an act of each.

    name_successor      the leaving agency says who; nothing changes yet, null takes it back
    accept_succession   the successor takes its place

From then on, whoever is of the agency that left acts for its successor, with roles, keys and
history as they were; the successor's administrators are theirs. Nothing is written in the leaves of
these principals: who stands for an agency is found out when it is read. The agency that left is
never reinstated, and a name is never used twice.

A cycle cannot come about: an agency that has left can neither name nor accept, and it takes both
for one to take the place of the other.

Not here: its validator, which stays until the committee changes.
"""

from __future__ import annotations

from consensus.codec import Value
from consensus.ledger.kernel.plan import Acting, Plan, agency_of, bad, found, refuse_left
from consensus.ledger.layout import ACTIVE, PREDECESSORS_MAX, Agency
from consensus.ledger.view import CHARTER


def name_successor(acting: Acting) -> Plan:
    """Name the agency that shall take the place of one, or take that back."""
    agency = agency_of(acting)
    name = acting.inputs["successor"]
    if name is not None:
        if name == agency.name:
            raise bad("successor", "another agency")
        refuse_left(acting, found(acting, "agency", [name], "successor"), "successor")
    failed = ("UNCHANGED", "it is so already") if agency.successor == name else None
    named = agency._replace(successor=name)
    id_: list[Value] = [agency.name]
    return Plan(
        lambda: acting.view.put("agency", id_, named, CHARTER), (("agency", id_),), failed=failed
    )


def accept_succession(acting: Acting) -> Plan:
    """Take the place of an agency that named this one."""
    agency = agency_of(acting)
    name = acting.inputs["predecessor"]
    leaving: Agency = found(acting, "agency", [name], "predecessor")
    refuse_left(acting, leaving, "predecessor")
    taken = [*(agency.predecessors or ()), *(leaving.predecessors or ()), name]
    failed = None
    if leaving.successor != agency.name:
        failed = ("NOT_NAMED", "that agency does not name this one as its successor")
    elif leaving.status != ACTIVE:
        failed = ("SUSPENDED", "its people would have power again; reinstate the agency first")
    elif leaving.held:
        failed = ("HELD", "a hold on that agency is not released")
    elif len(taken) > PREDECESSORS_MAX:
        failed = ("LIMIT", f"an agency takes the place of {PREDECESSORS_MAX} at most")
    value = agency._replace(predecessors=taken)
    id_: list[Value] = [agency.name]
    return Plan(
        lambda: acting.view.put("agency", id_, value, CHARTER),
        (("agency", id_), ("agency", [name])),
        failed=failed,
    )
