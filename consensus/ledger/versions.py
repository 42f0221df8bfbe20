"""Executor versions: which behaviour is in force, and what each released one changed.

The state names the executor's number by chain time, like that of a domain's rules; the charter's
act ``activate_executor`` brings the next one. Statements and decisions name it, so an old decision
is judged by its own. Old behaviour stays here, behind its number, for ever.

    1    the first
    2    UNKNOWN_ACTION also says which rule set of the domain is in force, 0 for none: who drafted
         against another number sees at once that the rules moved on

Not here: who may activate one (``kernel.executors``).
"""

from __future__ import annotations

from typing import Final

from consensus.ledger.codes import Code, Refused
from consensus.ledger.view import View

FIRST: Final = 1
EXECUTORS: Final[tuple[int, ...]] = (1, 2)
"""The behaviours that this release has."""


def unknown_action(view: View, domain: str, action: str) -> Refused:
    """Return the refusal of a call whose action is not in force."""
    governing = view.governing
    if governing is None or governing.executor < 2:
        return Refused(Code.UNKNOWN_ACTION, [domain, action])
    head = view.single("rules", [domain])
    number = 0 if head is None else head.value.number_at(view.now_ms)
    return Refused(Code.UNKNOWN_ACTION, [domain, action, number])
