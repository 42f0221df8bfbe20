"""The next executor: activated by the charter like a rule set, under the floor.

    activate_executor   says from when the next executor is in force

Its head and adoption lie beside those of domains, so its history is kept and proved like theirs,
and agencies object to it by ``object_rules``. A node whose software lacks it stops when its time
comes: it could only guess. So nodes are upgraded first.

Not here: what executors do (``versions``).
"""

from __future__ import annotations

from typing import Any

from consensus.errors import present
from consensus.ledger.kernel.plan import Acting, Plan, found
from consensus.ledger.kernel.quorum import floor_now
from consensus.ledger.kernel.rulesets import AHEAD_MS_MAX, put_adoption, put_head, step
from consensus.ledger.layout import ACTIVATED, ADOPTION, EXECUTOR_HEAD, Adoption, RulesHead
from consensus.ledger.view import RULES


def activate_executor(acting: Acting) -> Plan:
    """Say from when the next executor is in force."""
    view, now_ms = acting.view, acting.now_ms
    number, from_ms = acting.inputs["number"], acting.inputs["from"]
    head: RulesHead = found(acting, RULES, [EXECUTOR_HEAD], "number")
    current, coming = head.number_at(now_ms), head.coming(now_ms)
    least_ms = now_ms + floor_now(acting).notice_ms
    failed = None
    if coming is not None:
        failed = ("SCHEDULED", f"executor {coming[0]} is still to come")
    elif number != current + 1:
        failed = ("NUMBER", f"the next executor is {current + 1}")
    elif from_ms < least_ms:
        failed = ("NOTICE", f"the notice ends at {least_ms}, in milliseconds since 1970")
    elif from_ms > now_ms + AHEAD_MS_MAX:
        failed = ("TOO_FAR", "at most two years ahead")

    def write() -> None:
        active = [[n, at] for n, at in head.active if n == current] + [[number, from_ms]]
        put_head(view, head._replace(active=active, latest=max(head.latest, number)))
        before: Any = view.single(RULES, [EXECUTOR_HEAD, current, ADOPTION])
        adopted = present(before, "an executor in force has no adoption")
        put_adoption(view, adopted.value._replace(until_ms=from_ms))
        tried = view.single(RULES, [EXECUTOR_HEAD, number, ADOPTION])
        steps = [] if tried is None else tried.value.steps
        steps = [*steps, step(acting, "activated")]
        put_adoption(view, Adoption(EXECUTOR_HEAD, number, ACTIVATED, from_ms, None, steps))

    return Plan(write, ((RULES, [EXECUTOR_HEAD]),), failed=failed)
