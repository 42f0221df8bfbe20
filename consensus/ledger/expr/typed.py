"""What the checker knows of an expression or a part of one, and which types go together.

Not here: which names and functions have which type (``check``, ``functions``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from consensus.codec import Value
from consensus.ledger.expr.closures import Run
from consensus.ledger.model import Path
from consensus.ledger.types import Type

BOOL: Final = Type("bool")
INT: Final = Type("int")
TEXT: Final = Type("text")
BYTES: Final = Type("bytes")

POINTS: Final = ("month", "date", "time")
"""Types with a distance: point - point is an int, point + int a point."""
NUMBERS: Final = ("int", "money", *POINTS)
ORDERED: Final = (*NUMBERS, "text", "bytes")
NESTED: Final = ("ref", "list")
_HIDDEN: Final = ("sealed", "commitment")


@dataclass(frozen=True, slots=True)
class Name:
    """What a path stands for."""

    type: Type
    optional: bool = False
    """The value may be None."""
    fallible: bool = False
    """The value may be missing altogether (a parameter before its first date, a scope)."""
    run: Run | None = None
    """What evaluates it, where the environment has no entry of that name."""
    fields: Fields | None = None
    """Of a list of records: what a field of one stands for."""


Fields = Callable[[str, int], Name]
"""A field and its position in the text to what it stands for; raises Fault."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A checked part: its type, and the closure that evaluates it."""

    type: Type
    run: Run
    total: bool
    """It cannot raise EvaluationError."""
    optional: bool = False
    path: Path = ()
    constant: bool = False
    value: Value = None
    fields: Fields | None = None
    """Of a list of records, which only ``size`` and macros take."""


def constant(kind: Type, value: Value) -> Typed:
    """Return a part that is always ``value``."""
    return Typed(kind, lambda env: value, total=True, constant=True, value=value)


def assignable(have: Type, want: Type) -> bool:
    """True if a value of type ``have`` may be stored as ``want``."""
    if have == want:
        return True
    match want.base:
        case "money":
            return have.base == "int"
        case "commitment":
            return have.base == "sealed"
        case "ref":
            return have.base == "ref" and not want.argument
        case "list":
            return have.base == "list" and assignable(have.item, want.item)
    return False


def joined(left: Type, right: Type) -> Type | None:
    """Return the type that values of both may share, or None."""
    if left == right:
        return left
    pair = {left.base, right.base}
    if pair == {"int", "money"}:
        return left if left.base == "money" else right
    if pair <= {*_HIDDEN}:
        return Type("commitment")
    if pair == {"ref"} and not (left.argument and right.argument):
        return Type("ref")
    if pair == {"list"}:
        item = joined(left.item, right.item)
        return None if item is None else Type("list", item.text)
    return None


def common(kinds: list[Type]) -> Type | None:
    """Return the type that values of all ``kinds`` (at least one) may share, or None."""
    kind: Type | None = kinds[0]
    for each in kinds[1:]:
        kind = None if kind is None else joined(kind, each)
    return kind


def arithmetic(sign: str, left: Type, right: Type) -> Type | None:
    """Return the type of ``left sign right``, or None if there is no such operation."""
    if left.base in POINTS or right.base in POINTS:
        if sign == "-" and left == right:
            return INT
        if right.base == "int" and sign in "+-":
            return left
        return right if left.base == "int" and sign == "+" else None
    kind = joined(left, right)
    if kind is None or kind.base not in ("int", "money"):
        return None
    if kind.base == "int":
        return kind
    both = left.base == right.base
    match sign:
        case "*":
            return None if both else kind
        case "/":
            return INT if both else (kind if left.base == "money" else None)
        case "%":
            return kind if left.base == "money" else None
    return kind


def scaled(first: Type, second: Type, divisor: Type) -> Type | None:
    """Return the type of ``first * second / divisor``, or None: an amount to the power 0 or 1."""
    kind = common([first, second, divisor])
    if kind is None or kind.base not in ("int", "money"):
        return None
    power = (first.base == "money") + (second.base == "money") - (divisor.base == "money")
    return {0: INT, 1: kind}.get(power)


def mismatch_hint(left: Type, right: Type) -> str:
    """Say how values of two types that do not go together can; empty if there is no way."""
    points = [kind.base for kind in (left, right) if kind.base in POINTS]
    if len(points) == 1:
        return f"write a fixed {points[0]} as {EXAMPLES[points[0]]}"
    if left != right and "month" in points:
        return "month_of gives the month of a date or time"
    if left != right and points:
        return "date_of gives the date of a time"
    return ""


EXAMPLES: Final = {
    "month": "month('2026-01')",
    "date": "date('2026-01-31')",
    "time": "time('2026-01-31')",
}
"""How an author writes a fixed point."""
