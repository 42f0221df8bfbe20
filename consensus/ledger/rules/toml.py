"""TOML texts, within bounds: what ``tomllib`` chokes on is said to be no TOML either.

``tomllib`` recurses into what is nested, takes the square of a long key's parts, and leaves numbers
of thousands of digits to ``int``, which refuses them in words of its own.

Not here: where values stand in the text (``lines``), and what they mean.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from consensus.ledger.rules.lines import KEY_PARTS_MAX, line_of_long_key

NESTING_MAX: Final = 64
"""Tables and arrays within each other."""
TOO_DEEP: Final = "arrays or tables are nested too deeply"


def read_text(text: str) -> dict[str, Any]:
    """Return what a TOML text says.

    Raises:
        tomllib.TOMLDecodeError: it is none, or beyond the bounds.
    """
    if line := line_of_long_key(text):
        message = f"a key of more than {KEY_PARTS_MAX} parts (at line {line}, column 1)"
        raise tomllib.TOMLDecodeError(message)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise tomllib.TOMLDecodeError(TOO_DEEP) from error
    except ValueError as error:
        raise tomllib.TOMLDecodeError("a number of too many digits") from error
    level: list[Any] = [found]
    for _ in range(NESTING_MAX):
        level = [each for value in level for each in _inside(value)]
        if not level:
            return found
    raise tomllib.TOMLDecodeError(TOO_DEEP)


def _inside(value: Any) -> list[Any]:
    """Return the tables and arrays right inside one."""
    items = value.values() if isinstance(value, dict) else value
    return [each for each in items if isinstance(each, dict | list)]
