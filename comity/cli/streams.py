"""The three streams of the process, whatever it was started with.

A stream that was closed is given to nothing, so that no file or socket gets its number. What the
encoding of the locale cannot write is written as escapes: no answer is lost over a character.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any, Final, Literal, TextIO

_CONTROLS: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What JSON need not escape and a terminal may obey."""


def prepare() -> None:
    """Open what was closed; let output have characters that its encoding has not."""
    if sys.stdin is None:
        sys.stdin = _nothing("r")
    if sys.stdout is None:
        sys.stdout = _nothing("w")
    if sys.stderr is None:
        sys.stderr = _nothing("w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nothing(mode: Literal["r", "w"]) -> TextIO:
    # The lowest free number is that of the stream, as those below it are open by now.
    return open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8")


def write_json(value: Any, *, indent: int | None = None) -> None:
    """Write a value as JSON and a line end. Characters are escaped where they must be.

    Raises:
        OSError: nobody can be told on standard output.
    """
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    text = json.dumps(value, ensure_ascii=encoding != "utf8", indent=indent)
    print(_CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text), flush=True)


def abandon_unwritten() -> None:
    """Abandon standard output if it takes nothing more: the interpreter would fail at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        abandon(sys.stdout)


def abandon(stream: TextIO) -> None:
    """Have what is still to be written to a stream, and all that follows, go nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
