"""How a check of evidence fails: which stage of it, and why.

Not here: the checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from consensus.errors import ComityError, DecodeError, VerificationError


class FailedError(VerificationError):
    """A check that fails; ``stage`` is one of those that the verifier of the file names."""

    code = "NOT_VALID"
    advice = "do not rely on this file; ask its maker for another"

    def __init__(self, stage: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stage = stage


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Have what fails within fail the stage ``name``; malformed bytes stay a DecodeError."""
    try:
        yield
    except (FailedError, DecodeError):
        raise
    except ComityError as error:
        hint = "" if error.hint == error.advice else error.hint  # what helps with answers of nodes
        raise FailedError(name, error.message, hint=hint) from error
    except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        # All that is read here was written by nobody we trust: no shape of it may do harm.
        raise FailedError(name, f"it is malformed ({type(error).__name__})") from error
