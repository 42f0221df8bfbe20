"""Words of the command line to plain values, and plain values to words.

| word                    | value                                   |
|-------------------------|-----------------------------------------|
| ``0x…``                 | bytes                                   |
| digits                  | integer                                 |
| ``"…"``                 | text, even if it looks like a number    |
| ``[a/b]``               | an id inside an id                      |
| anything else           | text                                    |

An id is its components joined by ``/``: ``note/7``, ``payment/[0xab]/24319``. Inputs of actions are
read by their declared type: months as ``2026-07``, dates as ``2026-07-03``, times as
``2026-07-03T09:00Z``, lists and anything else as JSON where texts of ``0x…`` are bytes. Values of
sealed inputs are read by the type of the field that they go into.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from comity.cli.options import UsageError
from comity.drafting import Sealed
from comity.files import bounded_text, text_of
from comity.words import KERNEL_NAMESPACES, WITHOUT_ID
from consensus.codec import INT64_MAX, Value
from consensus.ledger.model import Action
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.types import Type

_MONTH: Final = re.compile(r"(\d{4})-(\d\d)")
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_TRUSTED: Final = re.compile(r"([0-9]{1,18}):(?:0x)?([0-9a-fA-F]{64})")
_EPOCH: Final = datetime.date(1970, 1, 1)
NESTING_MAX: Final = 16
"""Brackets within each other, in a word or in JSON; ids of the ledger have fewer."""


def parse_id(word: str) -> list[Value]:
    """Return the components of an id.

    Raises:
        UsageError: brackets or quotes do not match, a component is empty, or hex is not hex.
    """
    return [_component(part) for part in _split(word)]


def _split(word: str) -> list[str]:
    parts, depth, quoted = [""], 0, False
    for character in word:
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "[]":
            depth += 1 if character == "[" else -1
            if depth > NESTING_MAX:
                raise UsageError(f"{word[:40]!r}… has brackets within each other too deeply")
        if character == "/" and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    if depth or quoted:
        raise UsageError(f"brackets or quotes do not match in {word!r}")
    return parts


def _component(part: str) -> Value:
    if not part:
        raise UsageError("a part of an id is empty", hint="write kind/id, e.g. note/7")
    if part.startswith("["):
        return parse_id(part[1:-1])
    if part.startswith('"'):
        return part[1:-1]
    if part.startswith("0x"):
        return _bytes(part)
    return _integer(part) if _INTEGER.fullmatch(part) else part


def parse_place(word: str) -> tuple[str, list[Value]]:
    """Return namespace and components of ``note/7``, ``account/pot/a``, ``key/0x…``.

    Raises:
        UsageError: malformed.
    """
    first, *rest = parse_id(word)
    if not isinstance(first, str):
        raise UsageError(f"{word!r} does not begin with a kind", hint="write kind/id, e.g. note/7")
    if first in KERNEL_NAMESPACES:
        if not rest and first not in WITHOUT_ID:
            raise UsageError(f"{word!r} names no id", hint=f"write {first}/id")
        return first, rest
    if first == "record" and rest:
        first, *rest = rest
    if not rest:
        raise UsageError(f"{word!r} names a kind and no id", hint=f"`comity list {first}` has ids")
    return "record", [first, *rest]


def parse_action(word: str) -> tuple[str, str]:
    """Return domain and name of ``domain.action``.

    Raises:
        UsageError: it has another form.
    """
    domain, dot, name = word.partition(".")
    if not dot:
        raise UsageError(f"{word!r} is not domain.action", hint="e.g. payments.disburse")
    return domain, name


def parse_inputs(action: Action, words: Sequence[str]) -> dict[str, Value]:
    """Return inputs of ``name=value`` words, or of one JSON file named ``@FILE``.

    Raises:
        UsageError: a word is not of that form, or a value not of its input's type.
    """
    from comity.sealing import sealed_type  # loads a client

    types = {each.name: each.type for each in action.inputs}
    hidden = {
        each.name: sealed_type(action, each.name) or Type("text")
        for each in action.inputs
        if each.type.base == "sealed"
    }
    found: dict[str, Value] = {}
    for word in words:
        if word.startswith("@"):
            for name, value in _file(Path(word[1:])).items():
                found[name] = _given(value, types.get(name), hidden.get(name))
            continue
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(
                f"{word!r} is not name=value", hint="write inputs as name=value or @file.json"
            )
        if name in found:
            raise UsageError(f"the input {name!r} is given twice")
        if name in hidden:
            found[name] = Sealed(parse_value(text, hidden[name], name))
        else:
            found[name] = parse_value(text, types[name], name) if name in types else text
    return found


def _given(value: Any, kind: Type | None, hidden: Type | None) -> Value:
    if hidden is None or value is None:
        return input_value(value, kind)
    return Sealed(input_value(value, hidden))


def parse_value(text: str, kind: Type, name: str) -> Value:
    """Return the value that a word stands for as an input of this type.

    Raises:
        UsageError: it stands for none.
    """
    try:
        return _typed(text, kind)
    except (ValueError, KeyError, OverflowError, RecursionError, UsageError) as error:
        raise UsageError(f"{name} = {text!r} is no {kind.text}", hint=_FORMS[kind.base]) from error


def _typed(text: str, kind: Type) -> Value:
    match kind.base:
        case "text":
            return text
        case "bool":
            return {"true": True, "yes": True, "false": False, "no": False}[text.lower()]
        case "int" | "money":
            return _integer(text.replace("_", ""))
        case "month":
            found = _MONTH.fullmatch(text)
            if found is None:
                raise ValueError
            year, month = int(found[1]), int(found[2])
            if not 1 <= month <= 12:
                raise ValueError
            return year * 12 + month - 1
        case "date":
            return (datetime.date.fromisoformat(text) - _EPOCH).days
        case "time":
            if _INTEGER.fullmatch(text):
                return int(text)
            moment = datetime.datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise ValueError
            return round(moment.timestamp() * 1000)
        case "changes":
            raise ValueError
        case "definition":
            return encode_definition(load_toml(text_of(Path(text)), text))
        case "ref":
            return _reference(text, kind)
        case "list":
            return input_value(json.loads(text), kind)
        case _:
            return bytes.fromhex(text.removeprefix("0x"))


def _integer(word: str | int) -> int:
    """Return an integer of the ledger. Raises ValueError; UsageError: it is beyond 64 bits."""
    found = int(word)
    if not -INT64_MAX - 1 <= found <= INT64_MAX:
        raise UsageError(
            f"{found} is beyond 64 bits", hint='write text that looks like a number as "…"'
        )
    return found


def _reference(text: str, kind: Type) -> Value:
    """Return an id written as a place has it, ``[0xab]/7``, or as JSON."""
    if text.startswith("["):
        with suppress(ValueError):
            return input_value(json.loads(text), kind)
    return parse_id(text)


_FORMS: Final = {
    "bool": "write true or false",
    "int": "write digits, within 64 bits",
    "money": "write minor units as digits, e.g. 1250 for 12.50, within 64 bits",
    "month": "write 2026-07",
    "date": "write 2026-07-03",
    "time": "write 2026-07-03T09:00:00Z or milliseconds",
    "ref": "write the id, its parts joined by /",
    "list": 'write JSON, e.g. ["a", "b"]',
    "text": "",
    "bytes": "write 0x and hex digits",
    "digest": "write 0x and 64 hex digits",
    "commitment": "write 0x and 64 hex digits",
    "token": "write 0x and 64 hex digits",
    "definition": "name the TOML file of a rule set",
    "changes": "use `comity network propose-member`, leave or rotate",
}


def time_of(text: str, name: str) -> int:
    """Return the chain time that a word stands for; a date alone is its first moment, in UTC.

    Raises:
        UsageError: it stands for none.
    """
    hint = "write 2026-07-03T09:00Z, or 2026-07-03 for its first moment in UTC"
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{name} {text!r} is no time", hint=hint) from error
    if moment.tzinfo is None:
        if len(text) != len("2026-07-03"):
            raise UsageError(f"{name} {text!r} does not say its time zone", hint=hint)
        moment = moment.replace(tzinfo=datetime.UTC)
    found = round(moment.timestamp() * 1000)
    if found < 0:
        raise UsageError(f"{name} {text!r} is before 1970", hint=hint)
    return found


def _bytes(text: str) -> bytes:
    digits = text.removeprefix("0x")
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        raise UsageError(f"{text!r} is not hex", hint="write 0x and pairs of hex digits") from error


def _file(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(bounded_text(path, "JSON"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} does not hold an object with inputs by name")
    return found


def input_value(value: Any, kind: Type | None, nesting: int = NESTING_MAX) -> Value:
    """Return the value that one of JSON or TOML stands for as an input of this type.

    Args:
        nesting: how many lists may be within each other.

    Raises:
        UsageError: it stands for none.
    """
    if isinstance(value, str):
        if value.startswith("0x"):
            return _bytes(value)
        if kind is not None and kind.base in ("month", "date", "time"):
            return parse_value(value, kind, "a value")
        return value
    if isinstance(value, list):
        item = kind.item if kind is not None and kind.base == "list" else None
        if not nesting:
            raise UsageError("lists are within each other too deeply")
        return [input_value(each, item, nesting - 1) for each in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value)
    raise UsageError(f"{value!r} is no value of the ledger", hint="use texts, integers and lists")


# --- to words ---------------------------------------------------------------------------------


def parse_digest(word: str, what: str) -> bytes:
    """Return the 32 bytes of an id or a key in hex. Raises UsageError."""
    try:
        found = bytes.fromhex(word.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise UsageError(f"{word!r} is no {what}", hint="it has 64 hex digits")
    return found


def parse_txid(word: str) -> bytes:
    """Return a transaction id. Raises UsageError."""
    return parse_digest(word, "transaction id")


def parse_trusted(word: str) -> tuple[int, bytes]:
    """Return the height and the hash of a statement that is known. Raises UsageError."""
    found = _TRUSTED.fullmatch(word)
    if found is None:
        raise UsageError(f"{word!r} is not HEIGHT:HASH", hint="e.g. 1204:77aa… (64 hex digits)")
    return int(found[1]), bytes.fromhex(found[2])


def parse_moment(text: str, name: str) -> int:
    """Return chain time of a date (its beginning, UTC), or of a time with its offset.

    Raises:
        UsageError: it is neither.
    """
    whole = f"{text}T00:00Z" if len(text) == len("2026-12-31") and text[4] == "-" else text
    found: int = parse_value(whole, Type("time"), name)
    return found


def plain(value: Value) -> Any:
    """Return a value for JSON: bytes as ``0x…``, everything else as it is."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value


def date_word(days: int) -> str:
    """Return a date as ``2026-07-03``; days since 1970 where the calendar has no such year."""
    try:
        return (_EPOCH + datetime.timedelta(days=days)).isoformat()
    except OverflowError:
        return f"{days} days since 1970"


def time_word(time_ms: int) -> str:
    """Return chain time as ``2026-07-03 09:14:22Z``."""
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ")


def natural(word: str) -> int | None:
    """Return the int64 that decimal digits name, or None; Python reads at most 4,300 itself."""
    if len(word) > len(str(INT64_MAX)) or not word.isdecimal() or int(word) > INT64_MAX:
        return None
    return int(word)
