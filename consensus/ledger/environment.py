"""What a call adds to the environment of its conditions: intermediate values, and what is absent.

Not here: what an environment is (``model``), and loading (``calls``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.codec import Value
from consensus.ledger.model import Env, EvaluationError, Let

LETS: Final = "~lets"
"""The key of an environment's ``Lets``; no name of a rule set is written so."""


class Absent:
    """A record or account that an action may do without and that does not exist."""

    __slots__ = ()

    def __getitem__(self, field: str) -> None:
        """Return the value of any field: none."""


ABSENT: Final = Absent()


class Lets:
    """The intermediate values of one call: each is computed when first asked for, and once.

    So a requirement that guards a division is judged before it, and what nobody asks for costs
    nothing. What has no value has none however often it is asked for.
    """

    __slots__ = ("_env", "_found", "_lets")

    def __init__(self, lets: Sequence[Let], env: Env) -> None:
        self._lets = lets
        self._env = env
        self._found: dict[int, Value | EvaluationError] = {}

    def value(self, index: int) -> Value:
        """Return the value of the ``index``-th.

        Raises:
            EvaluationError: it has none.
        """
        if index in self._found:
            found = self._found[index]
            if isinstance(found, EvaluationError):
                raise EvaluationError(*found.args)
            return found
        try:
            found = self._lets[index].value.evaluate(self._env)
        except EvaluationError as error:
            self._found[index] = error
            raise
        self._found[index] = found
        return found
