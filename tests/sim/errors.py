"""What a simulation finds."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

NO_OWN_BUG: Final = "no own bug"
"""The promise that is broken by whatever an honest node raises and nobody expects."""


class Violation(AssertionError):
    """A promise was broken. ``promise`` names which."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


class Crash(Exception):
    """Power fails at the effect that was to be carried out. Never leaves the machine."""


def require(condition: bool, promise: str, what: str) -> None:
    """Raise Violation unless the condition holds."""
    if not condition:
        raise Violation(promise, what)


def described(error: Exception) -> str:
    """Return what was raised and where, for a line of a campaign that goes on with other runs."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error}"
