"""Values and places as people read them: in the command line's answers and in errors; and what
they may have meant by a word that nobody knows.

Not here: reading words back (``cli.values``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from typing import Final

from consensus.codec import Value

KERNEL_NAMESPACES: Final = (
    "account",
    "agency",
    "committee",
    "corrections",
    "disclosure",
    "erasure",
    "grant",
    "hold",
    "holds",
    "index",
    "key",
    "member_key",
    "principal",
    "proposal",
    "reservation",
    "review",
    "reviews",
    "role",
    "rules",
    "sequence",
    "subject",
    "unique",
)
"""First words of places that are no records; a kind of such a name is written ``record/…``."""
WITHOUT_ID: Final = ("committee", "rules")
"""Of these, which are places by themselves too."""
SHORT_DIGITS: Final = 12
"""Hex digits of long bytes inside values that people look at."""

_STEERING: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""Control characters but tabs and ends of lines; what breaks lines or orders text otherwise."""

KERNEL_LEAVES: Final = ("~holds", "by", "basis")
"""Leaves of records that the kernel keeps for itself."""


def visible(text: str) -> str:
    """Return a text in which what would steer a terminal, or turn its words round, is written out.

    Whoever writes a record chooses its texts, and whoever looks at it must see what is there.
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def word(value: Value, *, short: bool = False) -> str:
    """Return a value for people, on one line; ``short`` shows long bytes by their beginning."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        shown = value.hex()
        return f"0x{shown[:SHORT_DIGITS]}…" if short and len(shown) > SHORT_DIGITS else f"0x{shown}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(word(each, short=short) for each in value) + "]"
    if value is None:
        return "-"
    return "yes" if value is True else "no" if value is False else str(value)


def nearest(typed: str, known: Collection[str]) -> str:
    """Return the question whether the known word that is next to ``typed`` was meant, or ""."""
    near = get_close_matches(typed, known, 1)
    return f"did you mean {near[0]}?" if near else ""


def suggest(typed: str, known: Collection[str]) -> str:
    """Return what ``nearest`` does, or else all known words; "" where there are none."""
    return nearest(typed, known) or (f"there are {', '.join(sorted(known))}" if known else "")


def place_word(namespace: str, components: Sequence[Value], *, short: bool = False) -> str:
    """Return a place as the command line reads it; ``short`` ones are only to be looked at."""
    path = id_word(components, short=short)
    if namespace == "record":
        return f"record/{path}" if components and components[0] in KERNEL_NAMESPACES else path
    return f"{namespace}/{path}" if path else namespace


def id_word(components: Sequence[Value], *, short: bool = False) -> str:
    """Return the components of an id as the command line reads them."""
    return "/".join(_component_word(each, short=short) for each in components)


def _component_word(value: Value, *, short: bool) -> str:
    if isinstance(value, list | tuple):
        return "[" + "/".join(_component_word(each, short=short) for each in value) + "]"
    if isinstance(value, str) and (not value or re.search(r"[/\[\]]|^0x|^-?\d+$", value)):
        return f'"{value}"'
    return word(value, short=short)
