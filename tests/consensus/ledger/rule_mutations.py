"""Rule sets with things wrong or odd about them: mutations of real ones, as tables and as text.

Half of the mutations keep the shape (other numbers, operators, names, texts of the same key), so
that many results still compile and can be executed; the others break it in every way they know.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.consensus.ledger import governed, pairs, test_reservations, test_waterfall
from tests.consensus.ledger.test_executor_hostile import LAB, LENDING
from tests.consensus.ledger.world import TEXTS

ROOT: Final = Path(__file__).parents[3]
EDGES: Final = (
    0, 1, -1, 2, 7, 63, 64, 65, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**62,
    2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64, 10**40,
)  # fmt: skip
OPERATORS: Final = ("+", "-", "*", "/", "%", "<", "<=", "==", "!=", ">", "&&", "||", "in", "?", ".")
WORDS: Final = (
    "input", "who", "params", "tx", "now", "id", "status", "by", "created", "size", "item", "min",
    "max", "exists", "all", "sum", "o", "each", "balance", "basis", "version", "charter", "person",
    "record", "text", "int", "money:USD", "money:EUR", "bool", "month", "date", "time", "bytes",
    "list:int", "list:text", "ref:person", "token:identity", "digest", "self", "when", "null",
)  # fmt: skip
ODD: Final[tuple[Any, ...]] = (
    "", " ", "x", "{input.person}", "{tx}", "{", "}", "{{}}", "'", "\\", "\0", "\n", "é", "e\u0301",
    "\U0001f600", "1 / 0 == 0", "9223372036854775807 + 1 > 0", "-9223372036854775808 / -1 == 0",
    "true", "false", "null", "input", "who.principal", [], {}, True, False, 1.5, float("inf"),
    [[]], [{}], {"": ""}, {"type": "int"}, "x" * 300, "x" * 5000, "(" * 900 + "1" + ")" * 900,
    "!" * 3000 + "true", "-" * 3000 + "1", "1" + " + 1" * 2000, "a.b" * 500, "[" * 500,
    "true ? 1 : " * 400 + "1", "'" + "a" * 4000 + "' == 'b'", "index person.region {input.x} max 9",
)  # fmt: skip
_WORD: Final = re.compile(r"[a-z_][a-z0-9_]*|\d+|[-+*/%<>=!&|?.]+")

Node = tuple[Any, Any]
"""A container, and the key or position of a value in it."""


def networks() -> dict[str, tuple[str, ...]]:
    """Return the rule sets that belong together, by a name; each has a charter."""
    found = {
        "world": tuple(TEXTS),
        "lab": (*TEXTS[:3], LENDING, LAB),
        "pairs": (pairs.CHARTER, *TEXTS[1:3], pairs.PAYMENTS),
        "waterfall": (*TEXTS, test_waterfall.DEBTS, test_waterfall.TAX),
        "governed": tuple(governed.TEXTS),
        "reservations": (*TEXTS[:3], test_reservations.PERMITTED, test_reservations.GRANTS),
    }
    for folder in (ROOT / "configs" / "rules", *(ROOT / "configs" / "programmes").glob("*/rules")):
        texts = tuple(path.read_text() for path in sorted(folder.glob("*.toml")))
        found[str(folder.relative_to(ROOT))] = texts
    return dict(sorted(found.items()))


def dump(value: Any) -> str:
    """Return a value as TOML writes it in one line."""
    match value:
        case dict():
            return "{" + ", ".join(f"{_quoted(k)} = {dump(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(dump(each) for each in value) + "]"
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case int() | float():
            return repr(value)
    return str(value)


def dump_table(table: dict[str, Any]) -> str:
    """Return a table as a whole TOML text."""
    return "".join(f"{_quoted(key)} = {dump(value)}\n" for key, value in table.items())


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def nodes(tree: Any) -> Iterator[Node]:
    """Yield every place of a tree that holds a value."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from nodes(value)


def words_of(texts: Sequence[str]) -> list[str]:
    """Return the names that rule sets use, each once."""
    return list(dict.fromkeys(each for text in texts for each in re.findall(r"[a-z_]{2,}", text)))


def mutated(random: Random, texts: Sequence[str]) -> list[str]:
    """Return the texts with one of them, seldom two, changed in one to four places."""
    result = list(texts)
    words = [*words_of(texts), *WORDS]
    for _ in range(random.choice((1, 1, 1, 2))):
        at = random.randrange(len(result))
        if random.random() < 0.15:
            result[at] = _torn(random, result[at])
            continue
        try:
            table = tomllib.loads(result[at])
        except tomllib.TOMLDecodeError:
            continue
        soft = random.random() < 0.75
        for _ in range(random.choice((1, 1, 2, 4))):
            (_change if soft else _break)(random, table, words)
        result[at] = dump_table(table)
    return result


def _torn(random: Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    start = random.randrange(len(lines))
    end = start + random.randint(0, 4)
    match random.randrange(5):
        case 0:
            return "".join(lines[:start] + lines[end:])
        case 1:
            return "".join(lines[:end] + lines[start:])
        case 2:
            return "".join(lines[:start] + lines[start:end][::-1] + lines[end:])
        case 3:
            at = random.randrange(len(text))
            return text[:at] + text[at + random.randint(0, 9) :]
    at = random.randrange(len(text))
    return text[:at] + random.choice("\"'[]{}=.,#\\\0\n\r\té\U0001f600") + text[at:]


def _change(random: Random, table: dict[str, Any], words: list[str]) -> None:
    """Change one value into another of its type."""
    places = list(nodes(table))
    plain = [(p, k) for p, k in places if not isinstance(p[k], dict | list)]
    parent, key = random.choice(plain)
    value = parent[key]
    same = [p[k] for p, k in plain if k == key and type(p[k]) is type(value)]
    match random.randrange(6), value:
        case 0, _:
            parent[key] = random.choice(same)
        case (1, bool()):
            parent[key] = not value
        case (_, int()):
            parent[key] = random.choice(EDGES)
        case (1 | 2 | 3, str()):
            parent[key] = _reworded(random, value, words)
        case (4, str()):
            number = random.choice(EDGES[:17])
            parent[key] = random.choice(
                (
                    f"({value}) {random.choice(OPERATORS)} {number}", f"-({value})", f"!({value})",
                    f"({value}) + ({random.choice(same)})", f"({value}) * ({value})",
                    f"({value}) && ({random.choice(same)})", f"size([{value}]) > 0",
                    f"({value}) == ({random.choice(same)})", f"{value}?",
                )
            )  # fmt: skip
        case _:
            _lists(random, places)


def _lists(random: Random, places: list[Node]) -> None:
    """Take an item away from a list or table, repeat one, or turn the order around."""
    holders = [p[k] for p, k in places if isinstance(p[k], list) and p[k]]
    if not holders:
        return
    items = random.choice(holders)
    at = random.randrange(len(items))
    match random.randrange(4):
        case 0:
            del items[at]
        case 1:
            items.insert(at, deepcopy(items[at]))
        case 2:
            items.reverse()
        case _:
            like = [q for q in holders if q is not items and type(q[0]) is type(items[at])]
            if like:
                items.append(deepcopy(random.choice(random.choice(like))))


def _reworded(random: Random, value: str, words: list[str]) -> str:
    """Put another word, number or operator in the place of one."""
    found = list(_WORD.finditer(value))
    if not found:
        return random.choice(words)
    part = random.choice(found)
    text = part.group()
    if text.isdigit():
        new = str(random.choice(EDGES))
    elif text[0].isalpha() or text[0] == "_":
        new = random.choice(words)
    else:
        new = random.choice(OPERATORS)
    return value[: part.start()] + new + value[part.end() :]


def _break(random: Random, table: dict[str, Any], words: list[str]) -> None:
    """Change one value or key without regard for its type."""
    places = list(nodes(table))
    if not places:
        return
    parent, key = random.choice(places)
    other, other_key = random.choice(places)
    value = parent[key]
    match random.randrange(10):
        case 0:
            del parent[key]
        case 1:
            parent[key], other[other_key] = deepcopy(other[other_key]), deepcopy(value)
        case 2:
            parent[key] = deepcopy(other[other_key])
        case 3:
            parent[key] = [value]
        case 4:
            parent[key] = {random.choice(words): value}
        case 5:
            parent[key] = random.choice((str(value), len(str(value)), not value, list(str(value))))
        case 6:
            parent[key] = random.choice(ODD)
        case 7 if isinstance(parent, dict):
            odd = (*words, "", "X", "a" * 60, "a b", "é", "~holds", "charter")
            parent[random.choice(odd)] = deepcopy(value)
        case 8 if isinstance(parent, dict):
            parent[random.choice(words)] = parent.pop(key)
        case 9:
            parent[key] = [deepcopy(value) for _ in range(random.choice((2, 33, 65, 300)))]
        case _:
            deep: Any = value
            for _ in range(random.choice((5, 20, 60))):
                deep = [deep]
            parent[key] = deep
