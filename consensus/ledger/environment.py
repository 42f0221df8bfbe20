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
    chain of them is no deeper than one. They are the call's, whoever asks: an approver, of whom a
    policy speaks as ``who``, changes none.

    Args:
        env: of the call; one that does not hold this leaves no cycle behind.
    """

    __slots__ = ("_env", "_found", "_lets")

    def __init__(self, lets: Sequence[Let], env: Env) -> None:
        self._lets = lets
        self._env = env
        self._found: list[Value | EvaluationError] = []

    def value(self, index: int) -> Value:
        """Return the value of the ``index``-th.

        Raises:
            EvaluationError: it has none.
        """
        found = self._found
        while len(found) <= index:
            try:
                env = {**self._env, LETS: self}
                found.append(self._lets[len(found)].value.evaluate(env))
            except EvaluationError as error:
                found.append(EvaluationError(*error.args))
        value = found[index]
        if isinstance(value, EvaluationError):
            raise EvaluationError(*value.args)
        return value
