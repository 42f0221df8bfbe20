"""Where each key and array item of a TOML text stands, so that errors name the line.

``tomllib`` gives values without places. This scanner walks text that ``tomllib`` has accepted, so
it need not recognise errors; it only has to keep its bearings.

Not here: values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

TomlPath = tuple[str | int, ...]
T = TypeVar("T")

KEY_PARTS_MAX: Final = 32
"""Parts of a dotted key. Longer ones cost the square of their length, here and in ``tomllib``."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL
)
_TOKENS: Final = re.compile(
    rf"{_STRING.pattern}|#[^\n]*|(?P<bracket>[\[\]{{}}])|(?P<number>\d[\d_]+)", re.DOTALL
)
"""What nests, and long numbers; whatever stands in strings and comments is neither."""

_PART: Final = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_STEP: Final = re.compile(r"\[(\d+)\]|(\w+)")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_LONG_KEY: Final = re.compile(rf"(?<![\w-])(?:{_PART}){{{KEY_PARTS_MAX}}}")


def line_of_long_key(text: str) -> int:
    """Return the 1-based line of a key of more than KEY_PARTS_MAX parts, or 0.

    Ask before ``tomllib`` reads a text of strangers. Cost: linear in the text.
    """
    found = _LONG_KEY.search(text)
    return _line(text, found.start()) if found else 0


def line_of_depth(text: str, depth: int) -> int:
    """Return the 1-based line on which brackets or keys are nested that deep, or 0.

    Up to there the text is valid TOML. Cost: linear in the text.
    """
    found = 0
    for each in _TOKENS.finditer(text):
        if each.lastgroup == "bracket":
            found += 1 if each.group() in "[{" else -1
            if found == depth:
                return _line(text, each.start())
    return min((line for path, line in locate(text).items() if len(path) >= depth), default=0)


def line_of_number(text: str, digits: int) -> int:
    """Return the 1-based line of a number of so many digits, or 0.

    Up to there the text is valid TOML. Cost: linear in the text.
    """
    for each in _TOKENS.finditer(text):
        if each.lastgroup == "number" and len(each.group()) >= digits:
            return _line(text, each.start())
    return 0


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def locate(text: str) -> dict[TomlPath, int]:
    """Return the 1-based line of every table, key and array item of valid TOML.

    Cost: linear in the text.
    """
    return _Scanner(text).run()


def misfit(message: str) -> tuple[str, TomlPath]:
    """Return what msgspec says is wrong with a value, and the path of the value.

    Of a field that is not known: its own path.
    """
    what, _, where = message.partition(" - at `$")
    steps = _STEP.findall(where)
    path = tuple(int(number) if number else name for number, name in steps)
    unknown = _UNKNOWN.fullmatch(what)
    return what, (*path, unknown[1]) if unknown else path


def nearest(lines: Mapping[TomlPath, T], where: TomlPath) -> T | None:
    """Return what is known of a path, or else of the closest thing around it."""
    for length in range(len(where), 0, -1):
        if where[:length] in lines:
            return lines[where[:length]]
    return None


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_at = 0
        self._line = 1
        self._found: dict[TomlPath, int] = {}
        self._counts: dict[TomlPath, int] = {}

    def run(self) -> dict[TomlPath, int]:
        table: TomlPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._peek("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._found

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        found = match.group() if match else ""
        self._at += len(found)
        return found

    def _mark(self, path: TomlPath) -> None:
        self._line += self._text.count("\n", self._line_at, self._at)
        self._line_at = self._at
        self._found.setdefault(path, self._line)

    def _header(self) -> TomlPath:
        many = self._peek("[[")
        self._at += 2 if many else 1
        path = self._resolved(self._key())
        for length in range(1, len(path)):
            self._mark(path[:length])
        if many:
            index = self._counts.get(path, 0)
            self._counts[path] = index + 1
            self._mark(path)
            path = (*path, index)
        self._mark(path)
        self._at += 2 if many else 1
        return path

    def _resolved(self, parts: TomlPath) -> TomlPath:
        """Insert the index of the newest item wherever a prefix is an array of tables."""
        path: TomlPath = ()
        for number, part in enumerate(parts):
            path = (*path, part)
            if number < len(parts) - 1 and path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _key(self) -> TomlPath:
        parts: list[str | int] = []
        while True:
            self._skip(_SPACE)
            if self._peek('"') or self._peek("'"):
                parts.append(self._skip(_STRING)[1:-1])
            else:
                parts.append(self._skip(_BARE))
            self._skip(_SPACE)
            if not self._peek("."):
                return tuple(parts)
            self._at += 1

    def _pair(self, table: TomlPath) -> None:
        start = self._at
        parts = self._key()
        end, self._at = self._at, start
        for length in range(1, len(parts) + 1):
            self._mark((*table, *parts[:length]))
        self._at = end + 1
        self._skip(_SPACE)
        self._value((*table, *parts))

    def _value(self, path: TomlPath) -> None:
        if self._peek("["):
            self._collection("]", path)
        elif self._peek("{"):
            self._collection("}", path)
        elif self._peek('"') or self._peek("'"):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _collection(self, closing: str, path: TomlPath) -> None:
        self._at += 1
        self._skip(_BLANK)
        index = 0
        while self._at < len(self._text) and not self._peek(closing):
            if closing == "]":
                self._mark((*path, index))
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            self._skip(_BLANK)
            if self._peek(","):
                self._at += 1
                self._skip(_BLANK)
        self._at += 1
