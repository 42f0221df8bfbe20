"""What checked trees become: closures over an environment, and the arithmetic they use.

Numbers are signed 64 bits: an operation gives the exact result or raises EvaluationError; division
truncates, and a remainder has the sign of the dividend. Source: CEL specification, "Overflow",
"Logical Operators". ``MULDIV`` rounds as the General Decimal Arithmetic Specification names it.

Not here: types; a closure trusts that its operands were checked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

from consensus.codec import INT64_MAX, INT64_MIN, Value, same
from consensus.errors import invariant
from consensus.ledger.model import Env, EvaluationError, Path
from consensus.ledger.types import LIST_ITEMS_MAX, InputError, Type

Run = Callable[[Env], Value]

_OVERFLOW: Final = "the number does not fit 64 bits"


def add(left: int, right: int) -> int:
    """Return the sum."""
    result = left + right
    if INT64_MIN <= result <= INT64_MAX:
        return result
    raise EvaluationError(_OVERFLOW)


def subtract(left: int, right: int) -> int:
    """Return the difference."""
    result = left - right
    if INT64_MIN <= result <= INT64_MAX:
        return result
    raise EvaluationError(_OVERFLOW)


def multiply(left: int, right: int) -> int:
    """Return the product."""
    result = left * right
    if INT64_MIN <= result <= INT64_MAX:
        return result
    raise EvaluationError(_OVERFLOW)


def divide(left: int, right: int) -> int:
    """Return the quotient, rounded towards zero."""
    if right == 0:
        raise EvaluationError("division by zero")
    result = abs(left) // abs(right)
    if (left < 0) != (right < 0):
        return -result
    if result > INT64_MAX:
        raise EvaluationError(_OVERFLOW)
    return result


def remainder(left: int, right: int) -> int:
    """Return what ``divide`` leaves; its sign is that of ``left``."""
    if right == 0:
        raise EvaluationError("division by zero")
    result = abs(left) % abs(right)
    return -result if left < 0 else result


def _muldiv(up: Callable[[int, int, int], bool]) -> Callable[[int, int, int], int]:
    """Return ``a * b / c``, rounded once. ``up`` says, of the quotient without its sign, twice the
    remainder and the divisor, whether the next number away from zero stands for it."""

    def muldiv(first: int, second: int, divisor: int) -> int:
        if divisor == 0:
            raise EvaluationError("division by zero")
        product, size = first * second, abs(divisor)
        quotient, rest = divmod(abs(product), size)
        quotient += up(quotient, 2 * rest, size)
        result = quotient if (product < 0) == (divisor < 0) else -quotient
        if INT64_MIN <= result <= INT64_MAX:
            return result
        raise EvaluationError(_OVERFLOW)

    return muldiv


MULDIV: Final[dict[str, Callable[[int, int, int], int]]] = {
    "half_up": _muldiv(lambda quotient, twice, size: twice >= size),
    "half_even": _muldiv(
        lambda quotient, twice, size: twice > size or (twice == size and quotient % 2 == 1)
    ),
    "down": _muldiv(lambda quotient, twice, size: False),
}
"""Ties go away from zero, or to the even neighbour; ``down`` goes towards zero, as ``divide``."""
ARITHMETIC: Final[dict[str, Callable[[int, int], int]]] = {
    "+": add,
    "-": subtract,
    "*": multiply,
    "/": divide,
    "%": remainder,
}
COMPARISONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

SAME: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": same,
    "!=": lambda left, right: not same(left, right),
}
"""References and lists: a component true is not a component 1."""


# --- closures ---------------------------------------------------------------------------------


def getter(parts: Path, *, fallible: bool) -> Run:
    """Read a path; where it is ``fallible`` a missing key is an evaluation error."""
    if len(parts) == 1:
        (only,) = parts
        return lambda env: env[only]
    if len(parts) == 2 and not fallible:
        first, second = parts
        return lambda env: env[first][second]
    text = ".".join(parts)

    def run(env: Env) -> Value:
        found: Any = env
        try:
            for part in parts:
                found = found[part]
        except KeyError:
            raise EvaluationError(f"{text} has no value") from None
        return found

    return run


def present(run: Run, path: Path) -> Run:
    """Turn None into an evaluation error that names ``path``."""
    text = ".".join(path)

    def checked(env: Env) -> Value:
        value = run(env)
        if value is None:
            raise EvaluationError(f"{text} has no value")
        return value

    return checked


def ranged(kind: Type, run: Run) -> Run:
    """Turn a number that is not of ``kind`` (a month after the year 9999) into an error."""
    check = kind.check

    def checked(env: Env) -> Value:
        value = run(env)
        try:
            check(value)
        except InputError as error:
            raise EvaluationError(error.reason) from None
        return value

    return checked


def compare(sign: str, left: Run, right: Run, *, nested: bool) -> Run:
    """Compare two values; ``nested`` ones may hold values of several types."""
    operation = (SAME if nested else COMPARISONS)[sign]
    return lambda env: operation(left(env), right(env))


def member(item: Run, items: Run, *, nested: bool) -> Run:
    """Look for a value in a list of values of its type."""
    if not nested:
        return lambda env: item(env) in items(env)

    def run(env: Env) -> bool:
        wanted = item(env)
        return any(same(wanted, each) for each in items(env))

    return run


def compare_constant(sign: str, left: Run, constant: Value, path: Path) -> Run:
    """Compare with a constant; ``path`` is given if ``left`` only reads a plain field."""
    if sign == "==" and len(path) == 2:
        load, field = path
        return lambda env: env[load][field] == constant
    operation = COMPARISONS[sign]
    return lambda env: operation(left(env), constant)


def logic(runs: tuple[Run, ...], *, conjunction: bool, total: bool) -> Run:
    """``&&`` or ``||``. ``total``: no operand but the last can fail, so none needs absorbing."""
    if total and len(runs) == 2:
        first, second = runs
        if conjunction:
            return lambda env: first(env) and second(env)
        return lambda env: first(env) or second(env)

    def run(env: Env) -> bool:
        failed: tuple[Any, ...] | None = None
        for each in runs:
            try:
                if each(env) is not conjunction:
                    return not conjunction
            except EvaluationError as error:
                failed = failed or error.args
        if failed is not None:
            raise EvaluationError(*failed)
        return conjunction

    return run


def macro(items: Run, variable: str, condition: Run, *, decisive: bool) -> Run:
    """``exists`` (true decides) or ``all`` (false decides)."""

    def run(env: Env) -> bool:
        found = items(env)
        invariant(len(found) <= LIST_ITEMS_MAX, "a list is longer than its type allows")
        inner = dict(env)
        failed: tuple[Any, ...] | None = None
        for item in found:
            inner[variable] = item
            try:
                if bool(condition(inner)) == decisive:
                    return decisive
            except EvaluationError as error:
                failed = failed or error.args
        if failed is not None:
            raise EvaluationError(*failed)
        return not decisive

    return run
