"""Compiles an expression where a rule author wrote it: its faults are reported with their place.

Not here: what expressions may name (``scope``, ``indexes``).
"""

from __future__ import annotations

from consensus.errors import RulesError
from consensus.ledger.expr import Scope, compile_expression
from consensus.ledger.model import Expression
from consensus.ledger.rules.schema import Place, Skip
from consensus.ledger.types import Type


def compile_written(
    source: str, scope: Scope, place: Place, want: Type | None = None, *, optional: bool = False
) -> Expression:
    """Return a compiled expression (see ``compile_expression``); raises Skip after reporting."""
    line = place.line
    where = place.report.where if line else _unlined(place)
    try:
        return compile_expression(
            source, scope, want=want, optional=optional, where=where, line=line
        )
    except RulesError as error:
        place.report.problems.append(error.again())
        raise Skip from error


def _unlined(place: Place) -> str:
    path = ".".join(map(str, place.path))
    return f"{place.report.where}: {path}" if place.report.where else path
