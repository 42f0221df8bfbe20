"""The language of conditions and amounts: CEL's syntax, statically typed, integers only.

    syntax.py     text -> tree: lexer, parser, bounds on length and depth
    check.py      tree -> types, fields read and closures; the only place that gives names meaning
    functions.py  what can be called: its arguments, its type, what it computes
    typed.py      what is known of a checked part, and which types go together
    closures.py   what trees become, with arithmetic in checked 64 bits

``compile_expression`` is the way in. Not here: who may read which field (``rules``), and what an
evaluation error means to a transaction (the executor: a failed requirement).
"""

from __future__ import annotations

from consensus.ledger.expr.check import Scope, compile_expression
from consensus.ledger.expr.syntax import DEPTH_MAX, SOURCE_CHARACTERS_MAX, Fault
from consensus.ledger.expr.typed import Name, assignable

__all__ = [
    "DEPTH_MAX",
    "SOURCE_CHARACTERS_MAX",
    "Fault",
    "Name",
    "Scope",
    "assignable",
    "compile_expression",
]
