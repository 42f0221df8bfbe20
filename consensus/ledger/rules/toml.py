"""TOML texts, within bounds: what ``tomllib`` chokes on is said to be no TOML either.

``tomllib`` recurses into what is nested, takes the square of a long key's parts, and leaves numbers
of thousands of digits to ``int``, which refuses them in words of its own.

Not here: where values stand in the text (``lines``), and what they mean.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from consensus.ledger.rules.lines import (
    KEY_PARTS_MAX,
    line_of_depth,
    line_of_long_key,
    line_of_number,
)

NESTING_MAX: Final = 64
"""Tables and arrays within each other."""
DIGITS_MAX: Final = 4300
"""Of a number: more, and ``int`` does not read it."""
TOO_DEEP: Final = "arrays or tables are nested too deeply"


def read_text(text: str) -> dict[str, Any]:
    """Return what a TOML text says.

    Raises:
        tomllib.TOMLDecodeError: it is none, or beyond the bounds.
    """
    if line := line_of_long_key(text):
        raise _fault(f"a key of more than {KEY_PARTS_MAX} parts", line)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = text.rstrip().count("\n") + 1
        raise tomllib.TOMLDecodeError(
            str(error).replace("(at end of document)", f"(at line {last}, at the end)")
        ) from error
    except RecursionError as error:
        raise _fault(TOO_DEEP, line_of_depth(text, NESTING_MAX)) from error
    except ValueError as error:
        line = line_of_number(text, DIGITS_MAX + 1)
        raise _fault("a number of too many digits", line) from error
    level: list[Any] = [found]
    for _ in range(NESTING_MAX):
        level = [each for value in level for each in _inside(value)]
        if not level:
            return found
    raise _fault(TOO_DEEP, line_of_depth(text, NESTING_MAX))


def _fault(what: str, line: int) -> tomllib.TOMLDecodeError:
    """Return an error in the words of ``tomllib``."""
    return tomllib.TOMLDecodeError(f"{what} (at line {line}, column 1)")


def _inside(value: Any) -> list[Any]:
    """Return the tables and arrays right inside one."""
    items = value.values() if isinstance(value, dict) else value
    return [each for each in items if isinstance(each, dict | list)]
