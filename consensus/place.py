"""Where a leaf of the state is, as requests name it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value

NAME: Final = codec.text(64, low=1)
COMPONENTS: Final = codec.list_of(codec.plain, 16)
STATE_KEY: Final = codec.array(NAME, COMPONENTS)


@dataclass(frozen=True, slots=True)
class StateKey:
    """Where a leaf of the state is: a namespace and its components."""

    namespace: str
    components: tuple[Value, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.namespace, [*self.components]]


def key_from(value: Value) -> StateKey:
    """Return the place in a value of the shape STATE_KEY."""
    return StateKey(value[0], tuple(value[1]))
