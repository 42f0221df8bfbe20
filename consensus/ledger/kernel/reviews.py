"""Reviews of emergency acts: was it justified?

Whoever reviews holds the role that the action's emergency form names, and is another person than
the one who acted.
"""

from __future__ import annotations

from consensus.codec import Value
from consensus.ledger import emergency
from consensus.ledger.kernel.plan import Acting, Plan, found
from consensus.ledger.layout import JUSTIFIED, OPEN, UNJUSTIFIED, Principal, Review
from consensus.ledger.persons import one_person


def review(acting: Acting) -> Plan:
    """Say whether the use of an emergency form was justified; if it was not, its power ends."""
    view, inputs = acting.view, acting.inputs
    due: Review = found(acting, "review", [inputs["review"]], "review")
    user: Principal = found(acting, "principal", [due.principal], "review")
    closed = due._replace(
        state=JUSTIFIED if inputs["justified"] else UNJUSTIFIED,
        reviewer=acting.standing.principal.id,
        reviewed_ms=acting.now_ms,
    )
    return Plan(
        lambda: emergency.close(view, closed),
        (("review", [due.id]),),
        failed=None if due.state == OPEN else ("REVIEWED", "it was reviewed already"),
        forbidden=_barred(acting, due, user),
    )


def _barred(acting: Acting, due: Review, user: Principal) -> Value:
    """Return the link that keeps somebody from reviewing, or None."""
    me = acting.standing.principal
    if one_person(user, me):
        return ["same_person"]
    given = acting.view.single("role", [me.id, due.role])
    why = "missing" if given is None else given.value.fault(acting.now_ms)
    return ["role", due.role, why] if why else None
