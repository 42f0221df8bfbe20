"""Names, types and parameter values of a rule set.

Not here: where each may stand (``kinds``, ``actions``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from consensus.codec import INT64_MIN, Value
from consensus.ledger.calendar import DAY_MS, days_from_epoch, parse_date, parse_point
from consensus.ledger.model import Param
from consensus.ledger.rules.definition import ParamDef
from consensus.ledger.rules.schema import Place, Skip, suggest
from consensus.ledger.schedule import ParamValues, Schedule, param_values
from consensus.ledger.types import BASES, InputError, Type

NOW: Final = "now"
PERIOD: Final = "period"
"""What selects the value of a parameter: the block's time, or the period that the action names."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,47}\.[a-z][a-z0-9_]{0,47}")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,47}")
_CURRENCY: Final = re.compile(r"[A-Z][A-Z0-9]{2,7}")
_AGENCY: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

ROOTS: Final = ("input", "params", "now", "who")
WORDS: Final = ("true", "false", "null", "in")
"""Words of the expression language: nothing that an expression names is called so."""
RESERVED: Final = (*ROOTS, *WORDS, "account", "index")
_PLAIN: Final = ("bool", "int", "text", "bytes", "month", "date", "time", "digest")
INPUT_BASES: Final = BASES
FIELD_BASES: Final = tuple(base for base in BASES if base != "sealed")
PARAM_BASES: Final = (*_PLAIN, "money", "list")
COMPONENT_BASES: Final = (
    "int", "bool", "text", "bytes", "month", "date", "time", "digest", "token", "ref",
)  # fmt: skip
"""Types that may stand in an id, or be looked for in an index: nothing hidden, no amounts."""
_ITEM_BASES: Final = (*_PLAIN, "money", "token", "ref")


def check_name(name: str, place: Place, what: str, reserved: Sequence[str] = RESERVED) -> None:
    """Report a name that is not lower case letters, digits and underscores, or is reserved."""
    if not _NAME.fullmatch(name):
        raise place.refuse(
            f"{what} {name!r} is not a name",
            "use a lower case letter, then letters, digits and underscores, at most 48",
        )
    if name in reserved:
        raise place.refuse(f"{what} may not be called {name}: the word has a meaning of its own")


def check_role(role: str, place: Place) -> None:
    """Report a role that is not ``domain.name``."""
    if not _ROLE.fullmatch(role):
        raise place.refuse(f"{role!r} is not a role", "write domain.name, as in payments.officer")


def check_code(code: str, place: Place) -> None:
    """Report a code that is not upper case."""
    if not _CODE.fullmatch(code):
        raise place.refuse(f"{code!r} is not a code", "write it like NOT_ACTIVE")


def check_agencies(names: Sequence[str], place: Place) -> None:
    """Report an audience that names no agencies or one twice."""
    for name in names:
        if not _AGENCY.fullmatch(name):
            raise place.refuse(f"{name!r} is not the name of an agency")
    if len(frozenset(names)) != len(names):
        raise place.refuse("an agency is named twice")


def check_currency(currency: str, place: Place) -> None:
    """Report what is no currency."""
    if not _CURRENCY.fullmatch(currency):
        raise place.refuse(f"{currency!r} is not a currency", "write its code, as in USD")


def parse_type(text: str, place: Place, bases: Sequence[str]) -> Type:
    """Return the type that an author wrote.

    Args:
        text: such as ``money:USD``.
        place: where it stands.
        bases: what is allowed there.
    """
    base, colon, argument = text.partition(":")
    if base not in BASES:
        raise place.refuse(f"there is no type {text!r}", suggest(base, BASES))
    if base not in bases:
        hint = 'write its type and sealed_for = ["agency"]' if base == "sealed" else ""
        raise place.refuse(f"a {base} may not stand here", hint)
    match base:
        case "money":
            check_currency(argument, place)
        case "ref" if argument:
            check_name(argument, place, "the kind")
        case "token":
            check_name(argument, place, "the registrar")
        case "sealed":
            audience = argument.split(",")
            check_agencies(audience, place)
            return Type(base, ",".join(sorted(audience)))
        case "list":
            item = parse_type(argument, place, _ITEM_BASES)
            return Type(base, item.text)
        case _ if colon:
            raise place.refuse(
                f"{base} takes no argument", f"write {base}" if base != "ref" else ""
            )
    return Type(base, argument)


# --- parameters -------------------------------------------------------------------------------


def start_ms(text: str, place: Place) -> int:
    """Return the first millisecond (UTC) of ``YYYY-MM`` or ``YYYY-MM-DD``."""
    try:
        year, month, day = parse_date(text)
    except InputError as error:
        raise place.refuse(error.reason) from error
    return days_from_epoch(year, month, day or 1) * DAY_MS


def parameter_value(kind: Type, plain: Any, place: Place) -> Value:
    """Return the value that an author wrote for a parameter of type ``kind``."""
    if kind.base == "list":
        if not isinstance(plain, tuple):
            raise place.refuse(f"expected an array of {kind.item.text}")
        return [parameter_value(kind.item, each, place.of(n)) for n, each in enumerate(plain)]
    value: Value = plain
    if isinstance(plain, str):
        match kind.base:
            case "month" | "date" | "time":
                try:
                    value = parse_point(kind.base, plain)
                except InputError as error:
                    raise place.refuse(error.reason) from error
            case "bytes" | "digest":
                if not re.fullmatch(r"(?:[0-9a-f]{2})*", plain):
                    raise place.refuse(f"a {kind.base} is written in lower case hex")
                value = bytes.fromhex(plain)
    elif kind.base in ("month", "date"):
        raise place.refuse(f"a {kind.base} is written as text", 'as in "2026-01"')
    try:
        kind.check(value)
    except InputError as error:
        raise place.refuse(error.reason) from error
    return value


def compile_param(name: str, definition: ParamDef, place: Place) -> Param:
    """Return a parameter; raises Skip after reporting."""
    check_name(name, place, "a parameter")
    kind = parse_type(definition.type, place.of("type"), PARAM_BASES)
    if definition.by not in (NOW, PERIOD):
        raise place.of("by").refuse(
            f"by = {definition.by!r} is unknown", 'write by = "now" or by = "period"'
        )
    if not definition.values:
        raise place.of("values").refuse("a parameter has at least one value")
    values: list[tuple[int, Value]] = []
    complete = True
    for number, each in enumerate(definition.values):
        here = place.of("values", number)
        try:
            start = start_ms(each.start, here.of("from"))
            value = parameter_value(kind, each.value, here.of("value"))
        except Skip:
            complete = False
            continue
        if values and start <= values[-1][0]:
            here.of("from").fault("the values are not in ascending order of their dates")
            complete = False
        values.append((start, value))
    if not complete:
        raise Skip
    return Param(name, kind, definition.by, tuple(values))


def schedule(params: Sequence[Param]) -> Schedule:
    """Return what the parameters of one action are worth over time."""
    ordered = sorted(params, key=lambda param: param.name)
    starts = sorted({INT64_MIN, *(start for param in ordered for start, _ in param.values)})
    intervals: list[ParamValues] = []
    for at in starts:
        values: dict[str, Value] = {}
        for param in ordered:
            current = [value for start, value in param.values if start <= at]
            if current:
                values[param.name] = current[-1]
        intervals.append(param_values(values))
    return Schedule(tuple(starts), tuple(intervals))
