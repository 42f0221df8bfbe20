"""Duties that no one person may have at once: ``separate = [["payments.clerk", "audit.reader"]]``.

What a rule set says of it binds the roles of its own domain, the charter's binds all. Not here:
where it is enforced (``persons``).
"""

from __future__ import annotations

from collections.abc import Mapping

from consensus.ledger.kernel.catalogue import CHARTER
from consensus.ledger.rules.kinds import Domain
from consensus.ledger.rules.schema import Skip
from consensus.ledger.rules.values import check_role


def compile_separate(domain: Domain) -> Mapping[str, tuple[str, ...]]:
    """Return each role that is bound, with the roles that nobody who has it may have."""
    apart: dict[str, dict[str, None]] = {}
    own = f"{domain.name}."
    for number, group in enumerate(domain.definition.separate):
        place = domain.place.of("separate", number)
        try:
            for at, role in enumerate(group):
                check_role(role, place.of(at))
            if len(group) < 2 or len(dict.fromkeys(group)) != len(group):
                raise place.refuse(
                    "two or more different roles", 'write ["payments.clerk", "payments.controller"]'
                )
            bound = [role for role in group if domain.name == CHARTER or role.startswith(own)]
            if not bound:
                raise place.refuse(
                    f"none of these roles belongs to domain {domain.name}",
                    "a rule set binds its own roles; the charter binds all",
                )
        except Skip:
            continue
        for role in bound:
            others = apart.setdefault(role, {})
            others.update(dict.fromkeys(other for other in group if other != role))
    return {role: tuple(others) for role, others in apart.items()}
