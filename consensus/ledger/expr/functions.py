"""The functions of the language: how each is written, what it takes, gives and computes.

Not here: macros, which bind a name (``check``), and how dates are counted (``calendar``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from consensus.codec import Value
from consensus.ledger.calendar import DAY_MS, first_day_of, month_of_days, parse_point
from consensus.ledger.expr import closures
from consensus.ledger.expr.closures import MULDIV
from consensus.ledger.expr.syntax import Call, Dotted, Fault, Literal, Node
from consensus.ledger.expr.typed import (
    BOOL,
    EXAMPLES,
    INT,
    NUMBERS,
    TEXT,
    Typed,
    common,
    constant,
    scaled,
)
from consensus.ledger.model import Env, EvaluationError
from consensus.ledger.types import InputError, Type

MINUTE_MS: Final = 60_000
OFFSET_MINUTES_MAX: Final = 1439
"""Largest offset of a local time from UTC, either way: less than a day, as in RFC 3339."""
_MONTH: Final = Type("month")
_DATE: Final = Type("date")
_TEXT_METHODS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
}


class Checker(Protocol):
    """What functions ask of the checker about their arguments."""

    def path(self, node: Dotted) -> Typed:
        """A name whose absent value is None."""
        ...

    def value(self, node: Node) -> Typed:
        """Any expression; an absent value is an evaluation error."""
        ...

    def want(self, node: Node, want: Type, what: str) -> Typed:
        """An expression of the type ``want``; ``what`` names it in errors."""
        ...

    def items(self, node: Node) -> Typed:
        """Any expression, a list of records too."""
        ...

    def macro(self, node: Call) -> Typed:
        """``all`` or ``exists``."""
        ...


@dataclass(frozen=True, slots=True)
class Function:
    """One function or method. The counts of arguments include the target of a method."""

    least: int
    most: int | None
    usage: str
    check: Callable[[Checker, Call], Typed]


def check_call(checker: Checker, node: Call) -> Typed:
    """Return what a call gives; raises Fault."""
    function = FUNCTIONS.get((node.name, node.method))
    if function is None:
        other = FUNCTIONS.get((node.name, not node.method))
        if other is not None:
            form = f"{node.name}(value, …)" if node.method else f"value.{node.name}(…)"
            hint = f"write {other.usage}"
            raise Fault(f"{node.name} is written {form}", node.position, hint=hint)
        known = ", ".join(sorted(dict.fromkeys(name for name, _ in FUNCTIONS)))
        raise Fault(f"there is no function {node.name}", node.position, hint=f"known: {known}")
    count, least, most = len(node.arguments), function.least, function.most
    if count < least or (most is not None and count > most):
        wanted = f"{least - node.method}"
        if most != least:
            wanted = "two or more" if most is None else f"{wanted} or {most - node.method}"
        plural = "" if wanted == "1" else "s"
        message = f"{node.name} takes {wanted} argument{plural}"
        raise Fault(message, node.position, hint=f"write {function.usage}")
    return function.check(checker, node)


# --- values, text and lists -------------------------------------------------------------------


def _loaded(checker: Checker, node: Node) -> Typed | None:
    """Return what every record or account that is there has, if ``node`` names one that may not."""
    if isinstance(node, Dotted) and len(node.parts) == 1:
        for each in ("id", "balance"):
            with suppress(Fault):
                typed = checker.path(Dotted(node.position, (*node.parts, each)))
                if typed.optional:
                    return typed
    return None


def _has(checker: Checker, node: Call) -> Typed:
    path = node.arguments[0]
    typed = _loaded(checker, path)
    if typed is None:
        if not isinstance(path, Dotted) or len(path.parts) < 2:
            raise Fault("has() takes a field such as person.residence", path.position)
        typed = checker.path(path)
    run = typed.run
    if typed.total:
        return Typed(BOOL, lambda env: run(env) is not None, total=True)

    def present(env: Env) -> bool:
        try:
            return run(env) is not None
        except EvaluationError:
            return False

    return Typed(BOOL, present, total=True)


def _size(checker: Checker, node: Call) -> Typed:
    typed = checker.items(node.arguments[0])
    if typed.type.base not in ("text", "bytes", "list") and typed.fields is None:
        raise Fault(f"{typed.type.text} has no size", node.position)
    run = typed.run
    return Typed(INT, lambda env: len(run(env)), typed.total)


def _extreme(checker: Checker, node: Call) -> Typed:
    items = [checker.value(argument) for argument in node.arguments]
    kind = common([item.type for item in items])
    if kind is None or kind.base not in NUMBERS:
        raise Fault(f"{node.name} takes numbers or dates of one type", node.position)
    choose: Callable[..., Any] = min if node.name == "min" else max
    runs = tuple(item.run for item in items)
    return Typed(
        kind, lambda env: choose([run(env) for run in runs]), all(item.total for item in items)
    )


def _item(checker: Checker, node: Call) -> Typed:
    items = checker.value(node.arguments[0])
    if items.type.base != "list":
        raise Fault(f"item takes a list, not {items.type.text}", node.position)
    index = checker.want(node.arguments[1], INT, "the index")
    get_items, get_index = items.run, index.run

    def run(env: Env) -> Value:
        found, at = get_items(env), get_index(env)
        if not 0 <= at < len(found):
            raise EvaluationError(f"item {at} of a list of {len(found)}")
        return found[at]

    return Typed(items.type.item, run, total=False)


def _text_method(checker: Checker, node: Call) -> Typed:
    text = checker.want(node.arguments[0], TEXT, f"what {node.name} looks at")
    part = checker.want(node.arguments[1], TEXT, f"the argument of {node.name}")
    get_text, get_part, method = text.run, part.run, _TEXT_METHODS[node.name]
    return Typed(BOOL, lambda env: method(get_text(env), get_part(env)), text.total and part.total)


def _macro(checker: Checker, node: Call) -> Typed:
    return checker.macro(node)


# --- amounts ----------------------------------------------------------------------------------


def _muldiv(checker: Checker, node: Call) -> Typed:
    first, second, divisor = (checker.value(argument) for argument in node.arguments[:3])
    kind = scaled(first.type, second.type, divisor.type)
    if kind is None:
        raise Fault(
            f"cannot compute {first.type.text} * {second.type.text} / {divisor.type.text}",
            node.position,
            hint="an amount * int / int is an amount, so is amount * amount / amount; "
            "all amounts have one currency",
        )
    rounding = node.arguments[3]
    if not isinstance(rounding, Literal) or rounding.value not in MULDIV:
        raise Fault(
            "muldiv does not know how to round",
            rounding.position,
            hint=f"write one of {', '.join(map(repr, MULDIV))}",
        )
    compute = MULDIV[str(rounding.value)]
    get_first, get_second, get_divisor = first.run, second.run, divisor.run
    return Typed(
        kind, lambda env: compute(get_first(env), get_second(env), get_divisor(env)), total=False
    )


# --- months and dates -------------------------------------------------------------------------


def _point(checker: Checker, node: Call) -> Typed:
    """``month('2026-01')``: counted while it is checked."""
    text = node.arguments[0]
    if not isinstance(text, Literal) or not isinstance(text.value, str):
        raise Fault(
            f"{node.name} takes a text that is written out",
            text.position,
            hint=f"write {EXAMPLES[node.name]}",
        )
    kind = Type(node.name)
    try:
        number = parse_point(node.name, text.value)
        kind.check(number)
    except InputError as error:
        raise Fault(error.reason, text.position, hint=f"write {EXAMPLES[node.name]}") from error
    return constant(kind, number)


def _month_add(checker: Checker, node: Call) -> Typed:
    month = checker.value(node.arguments[0])
    if month.type != _MONTH:
        raise Fault(
            f"month_add takes a month, not {month.type.text}",
            node.arguments[0].position,
            hint="month_of gives the month of a date or time",
        )
    return _later(month, checker.want(node.arguments[1], INT, "the number of months"), 1)


def _days_add(checker: Checker, node: Call) -> Typed:
    point = checker.value(node.arguments[0])
    unit = {"date": 1, "time": DAY_MS}.get(point.type.base)
    if unit is None:
        raise Fault(
            f"days_add takes a date or a time, not {point.type.text}", node.arguments[0].position
        )
    return _later(point, checker.want(node.arguments[1], INT, "the number of days"), unit)


def _later(point: Typed, count: Typed, unit: int) -> Typed:
    get_point, get_count = point.run, count.run
    run = closures.ranged(point.type, lambda env: get_point(env) + get_count(env) * unit)
    return Typed(point.type, run, total=False)


def _month_of(checker: Checker, node: Call) -> Typed:
    point = checker.value(node.arguments[0])
    get_point = point.run
    match point.type.base, len(node.arguments):
        case "date", 1:
            return Typed(_MONTH, lambda env: month_of_days(get_point(env)), point.total)
        case "date", _:
            raise Fault(
                "a date has no offset from UTC", node.arguments[1].position, hint="leave it out"
            )
        case "time", count:
            day = _local_day(checker, node, point, count)
            return Typed(
                _MONTH, closures.ranged(_MONTH, lambda env: month_of_days(day(env))), total=False
            )
    raise Fault(
        f"month_of takes a date or a time, not {point.type.text}", node.arguments[0].position
    )


def _date_of(checker: Checker, node: Call) -> Typed:
    point = checker.value(node.arguments[0])
    get_point = point.run
    match point.type.base, len(node.arguments):
        case "month", 1:
            return Typed(_DATE, lambda env: first_day_of(get_point(env)), point.total)
        case "month", _:
            raise Fault(
                "a month has no offset from UTC", node.arguments[1].position, hint="leave it out"
            )
        case "time", count:
            day = _local_day(checker, node, point, count)
            return Typed(_DATE, closures.ranged(_DATE, day), total=False)
    raise Fault(
        f"date_of takes a month or a time, not {point.type.text}", node.arguments[0].position
    )


def _local_day(checker: Checker, node: Call, point: Typed, arguments: int) -> Callable[[Env], int]:
    """Return what gives the day of a moment for clocks that are some minutes ahead of UTC."""
    if arguments == 1:
        what = node.name.removesuffix("_of")
        raise Fault(
            f"the {what} of a time depends on the place", node.position,
            hint=f"give the offset from UTC in minutes: {node.name}(now, 60), or 0 for UTC",
        )  # fmt: skip
    get_point = point.run
    get_offset = checker.want(node.arguments[1], INT, "the offset in minutes").run

    def run(env: Env) -> int:
        time_ms, minutes = get_point(env), get_offset(env)
        if not -OFFSET_MINUTES_MAX <= minutes <= OFFSET_MINUTES_MAX:
            raise EvaluationError(
                f"an offset of {minutes} minutes from UTC, at most {OFFSET_MINUTES_MAX}"
            )
        day: int = (time_ms + minutes * MINUTE_MS) // DAY_MS
        return day

    return run


FUNCTIONS: Final[dict[tuple[str, bool], Function]] = {
    ("has", False): Function(1, 1, "has(record.field)", _has),
    ("size", False): Function(1, 1, "size(value)", _size),
    ("size", True): Function(1, 1, "value.size()", _size),
    ("min", False): Function(2, None, "min(a, b)", _extreme),
    ("max", False): Function(2, None, "max(a, b)", _extreme),
    ("item", False): Function(2, 2, "item(list, index)", _item),
    ("startsWith", True): Function(2, 2, "text.startsWith(part)", _text_method),
    ("endsWith", True): Function(2, 2, "text.endsWith(part)", _text_method),
    ("contains", True): Function(2, 2, "text.contains(part)", _text_method),
    ("all", True): Function(3, 3, "list.all(x, condition on x)", _macro),
    ("exists", True): Function(3, 3, "list.exists(x, condition on x)", _macro),
    ("muldiv", False): Function(4, 4, "muldiv(a, b, c, 'half_up')", _muldiv),
    ("month", False): Function(1, 1, EXAMPLES["month"], _point),
    ("date", False): Function(1, 1, EXAMPLES["date"], _point),
    ("time", False): Function(1, 1, EXAMPLES["time"], _point),
    ("month_add", False): Function(2, 2, "month_add(month, count)", _month_add),
    ("days_add", False): Function(2, 2, "days_add(date, count)", _days_add),
    ("month_of", False): Function(1, 2, "month_of(date) or month_of(time, minutes)", _month_of),
    ("date_of", False): Function(1, 2, "date_of(month) or date_of(time, minutes)", _date_of),
}
"""(name, as a method) -> the function."""
