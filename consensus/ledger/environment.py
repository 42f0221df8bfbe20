"""What a call adds to the environment of its conditions: intermediate values, and what is absent.

Not here: what an environment is (``model``), and loading (``calls``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused
from consensus.ledger.model import Env, EvaluationError, Let

LETS: Final = "~lets"
"""The key of an environment's ``Lets``; no name of a rule set is written so."""


FUNDS: Final = ("balance", "reserved", "available")
"""What conditions read of an account."""
EACH: Final = "each"
"""What the expressions of a waterfall call the record that is paid."""


class NoValue(Exception):
    """An expression or template of an effect has no value."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.source = source

    @property
    def refused(self) -> Refused:
        """The outcome."""
        return Refused(Code.REQUIREMENT, ["NO_VALUE", f"{self.source} has no value"])


class Absent:
    """A record or account that an action may do without and that does not exist."""

    __slots__ = ()

    def __getitem__(self, field: str) -> None:
        """Return the value of any field: none."""


ABSENT: Final = Absent()


class Lets:
    """The intermediate values of one call: each is computed when first asked for, and once.

    So a requirement that guards a division is judged before it. What has no value has none however
    often it is asked for. Those before it are computed first, one after the other, so that a long
    chain of them is no deeper than one.
    """

    __slots__ = ("_found", "_lets")

    def __init__(self, lets: Sequence[Let]) -> None:
        self._lets = lets
        self._found: list[Value | EvaluationError] = []

    def value(self, index: int, env: Env) -> Value:
        """Return the value of the ``index``-th.

        Args:
            env: of the call, or of an expression in it that names more.

        Raises:
            EvaluationError: it has none.
        """
        found = self._found
        while len(found) <= index:
            try:
                found.append(self._lets[len(found)].value.evaluate(env))
            except EvaluationError as error:
                found.append(EvaluationError(*error.args))
        value = found[index]
        if isinstance(value, EvaluationError):
            raise EvaluationError(*value.args)
        return value
