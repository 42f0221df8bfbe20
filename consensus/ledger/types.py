"""The types of inputs, fields, parameters and expressions, and what values of them are.

Values come from the codec: integers have 64 bits and text is in NFC already. Not here: the types
that rule authors write (``rules.values``), and how expressions combine them (``expr``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from consensus.codec import Value, head_bytes

TEXT_BYTES_MAX: Final = 4096
OCTETS_MAX: Final = 4096
EVIDENCE_BYTES_MAX: Final = 192 * 1024
"""Longest evidence of an earlier transaction; an input of the kernel's alone."""
LIST_ITEMS_MAX: Final = 64
ID_COMPONENTS_MAX: Final = 8
ID_DEPTH_MAX: Final = 4
"""Arrays inside arrays of one id; each level is a reference used as a component."""
ID_TEXT_BYTES_MAX: Final = 256
ID_OCTETS_MAX: Final = 64
DEFINITION: Final = "definition"
"""A rule set in its canonical form: an input of a kernel action, and nothing else."""
DEFINITION_BYTES_MAX: Final = 192 * 1024
"""Longest rule set that is proposed on the chain; with all else a private part must hold it."""
ID_BYTES_MAX: Final = 1024
"""Longest encoding of a whole id, with everything nested in it."""
MONTH_MAX: Final = 9999 * 12 + 11
DATE_MIN: Final = -719_528
"""Days from 1970-01-01 to 0000-01-01."""
DATE_MAX: Final = 2_932_896
"""Days from 1970-01-01 to 9999-12-31."""
TIME_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""


EVIDENCE: Final = "evidence"
"""The type of that input."""
CHANGES: Final = "changes"
"""Changes of the committee, see ``kernel.committee``: likewise."""
CHANGES_BYTES_MAX: Final = 64 * 1024
"""Longest encoding of them."""


class InputError(Exception):
    """A value is not of its declared type. Never leaves the executor: it is ``BAD_INPUT``."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason)
        self.reason = reason
        self.name = name


@dataclass(frozen=True, slots=True)
class Type:
    """The type of an input, field, parameter or expression.

    ``argument`` is the kind of a ``ref``, the currency of ``money``, the registrar of a ``token``,
    the audience of ``sealed`` (agencies in ascending order, joined by commas), or the text of a
    list's item type; otherwise it is empty.
    """

    base: str
    argument: str = ""

    @property
    def text(self) -> str:
        """The type as rule authors write it, e.g. ``list:money:USD``."""
        return f"{self.base}:{self.argument}" if self.argument else self.base

    @property
    def item(self) -> Type:
        """The item type of a list."""
        base, _, argument = self.argument.partition(":")
        return Type(base, argument)

    @property
    def audience(self) -> tuple[str, ...]:
        """The agencies that receive a sealed value."""
        return tuple(self.argument.split(",")) if self.base == "sealed" else ()

    def check(self, value: Value) -> None:
        """Raise InputError unless the plain ``value`` is of this type (formats: input encodings).

        ``value`` comes from the codec: integers have 64 bits and text is in NFC already.
        """
        CHECKS[self.base](self, value)


def _want(wanted: str, value: Value) -> InputError:
    return InputError(f"expected {wanted}, got {_NAMES.get(type(value), 'another value')}")


_NAMES: Final[dict[type, str]] = {
    bool: "bool",
    int: "int",
    str: "text",
    bytes: "bytes",
    list: "a list",
    type(None): "nothing",
}


def _check_bool(kind: Type, value: Value) -> None:
    if type(value) is not bool:
        raise _want("bool", value)


def _check_int(kind: Type, value: Value) -> None:
    if type(value) is not int:
        raise _want(kind.text, value)


def _check_range(low: int, high: int) -> Callable[[Type, Value], None]:
    def check(kind: Type, value: Value) -> None:
        if type(value) is not int:
            raise _want(kind.text, value)
        if not low <= value <= high:
            raise InputError(f"{value} is outside the range of {kind.text}, {low} to {high}")

    return check


def _check_text(kind: Type, value: Value) -> None:
    if type(value) is not str:
        raise _want("text", value)
    length = len(value) if value.isascii() else len(value.encode())
    if length > TEXT_BYTES_MAX:
        raise InputError(f"{length} bytes of text, at most {TEXT_BYTES_MAX}")


def _check_bytes(kind: Type, value: Value) -> None:
    if type(value) is not bytes:
        raise _want("bytes", value)
    if len(value) > OCTETS_MAX:
        raise InputError(f"{len(value)} bytes, at most {OCTETS_MAX}")


def _check_evidence(kind: Type, value: Value) -> None:
    if type(value) is not bytes:
        raise _want("evidence", value)
    if len(value) > EVIDENCE_BYTES_MAX:
        raise InputError(f"{len(value)} bytes of evidence, at most {EVIDENCE_BYTES_MAX}")


def _check_changes(kind: Type, value: Value) -> None:
    if type(value) is not bytes:
        raise _want("changes of the committee", value)
    if len(value) > CHANGES_BYTES_MAX:
        raise InputError(f"changes of {len(value)} bytes, at most {CHANGES_BYTES_MAX}")


def _check_32(kind: Type, value: Value) -> None:
    if type(value) is not bytes:
        raise _want(kind.text, value)
    if len(value) != 32:
        raise InputError(f"{kind.text} has 32 bytes, got {len(value)}")


def _check_definition(kind: Type, value: Value) -> None:
    if type(value) is not bytes:
        raise _want("a rule set in its canonical form", value)
    if len(value) > DEFINITION_BYTES_MAX:
        raise InputError(f"a rule set of {len(value)} bytes, at most {DEFINITION_BYTES_MAX}")


def _check_list(kind: Type, value: Value) -> None:
    if type(value) is not list:
        raise _want(kind.text, value)
    if len(value) > LIST_ITEMS_MAX:
        raise InputError(f"{len(value)} items, at most {LIST_ITEMS_MAX}")
    item = kind.item
    for each in value:
        item.check(each)


def _check_ref(kind: Type, value: Value) -> None:
    check_id(value)


CHECKS: Final[dict[str, Callable[[Type, Value], None]]] = {
    "bool": _check_bool,
    "int": _check_int,
    "text": _check_text,
    "bytes": _check_bytes,
    "list": _check_list,
    "money": _check_int,
    "month": _check_range(0, MONTH_MAX),
    "date": _check_range(DATE_MIN, DATE_MAX),
    "time": _check_range(0, TIME_MS_MAX),
    "ref": _check_ref,
    "digest": _check_32,
    "commitment": _check_32,
    "sealed": _check_32,
    "token": _check_32,
    DEFINITION: _check_definition,
    EVIDENCE: _check_evidence,
    CHANGES: _check_changes,
}
"""``CHECKS[t.base](t, value)`` is ``t.check(value)`` without its call."""

KERNEL_BASES: Final = (DEFINITION, EVIDENCE, CHANGES)
"""Types that inputs of kernel actions alone have."""
BASES: Final = tuple(base for base in CHECKS if base not in KERNEL_BASES)


def check_id(value: Value) -> None:
    """Raise InputError unless ``value`` may be the id of a record or account.

    An id is an array of 1 to 8 components: integers, bools, short text, short bytes, or ids.
    """
    if _id_bytes(value, 1) > ID_BYTES_MAX:
        raise InputError(f"an id has at most {ID_BYTES_MAX} bytes")


def _id_bytes(value: Value, depth: int) -> int:
    """Return how many bytes the encoding of an id has; check it on the way."""
    if type(value) is not list:
        raise _want("an id (an array of components)", value)
    if not 1 <= len(value) <= ID_COMPONENTS_MAX:
        raise InputError(f"an id has 1 to {ID_COMPONENTS_MAX} components, got {len(value)}")
    size = 1
    for each in value:
        kind = type(each)
        if kind is bytes:
            length = len(each)
            if length > ID_OCTETS_MAX:
                raise InputError(f"a component of an id has at most {ID_OCTETS_MAX} bytes")
            size += length + (1 if length < 24 else 2)
        elif kind is str:
            length = len(each) if each.isascii() else len(each.encode())
            if length > ID_TEXT_BYTES_MAX:
                raise InputError(f"text in an id has at most {ID_TEXT_BYTES_MAX} bytes")
            size += length + (1 if length < 24 else 2 if length < 256 else 3)
        elif kind is list:
            if depth >= ID_DEPTH_MAX:
                raise InputError(f"an id nests at most {ID_DEPTH_MAX} deep")
            size += _id_bytes(each, depth + 1)
        elif kind is int:
            size += head_bytes(each if each >= 0 else -1 - each)
        elif kind is bool:
            size += 1
        else:
            raise _want("a component of an id", each)
    return size
