"""What a simulation finds."""

from __future__ import annotations


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
