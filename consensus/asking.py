"""What a node says of itself to who asks before an act, or after a reading.

What would refuse a draft now and who could give what is missing; whom the node has shown a record.
Nothing of it is proved. Shapes are checked
here and nothing is believed. Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec, protocol
from consensus.codec import Value

FINDINGS_MAX: Final = 256
"""Most failing checks in one answer."""
ROLES_MAX: Final = 32
"""Most roles of which holders are named."""
HOLDERS_MAX: Final = 64
"""Most holders named of one role."""

_NAME: Final = codec.text(128, low=1)
_CALL: Final = codec.optional(codec.integer(0, 63))
_OUTCOME: Final = codec.array(codec.integer(0, 2), codec.integer(0, 255), _CALL, codec.plain)
_FINDING: Final = codec.array(codec.integer(0, 255), _CALL, codec.plain)
_SCOPE: Final = codec.list_of(codec.array(codec.text(64), codec.text(256)), 32)
_HOLDER: Final = codec.array(codec.bytes32, codec.text(64, low=1), _SCOPE)
_SIMULATED: Final = codec.array(
    codec.count,
    codec.count,
    codec.optional(_OUTCOME),
    codec.list_of(_FINDING, FINDINGS_MAX),
    codec.boolean,
    codec.boolean,
    codec.list_of(codec.array(_NAME, codec.list_of(_HOLDER, HOLDERS_MAX)), ROLES_MAX),
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What became of a draft that was tried out.

    Args:
        height, time_ms: of the state it was tried on, executed and perhaps not yet certified.
        outcome: ``[state, code, call, detail]`` as a decision would say; None where it rests on
            what the caller may not read.
        findings: ``[code, call, detail]`` of every check that fails.
        complete: False where something could not be judged for what failed before it.
        hidden: True where findings are left out that rest on what the caller may not read.
        holders: ``[role, [[principal, agency, scope], ...]]`` of roles that approvals ask for.
    """

    height: int
    time_ms: int
    outcome: list[Value] | None
    findings: tuple[list[Value], ...]
    complete: bool
    hidden: bool
    holders: tuple[list[Value], ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [
            self.height,
            self.time_ms,
            self.outcome,
            [*self.findings],
            self.complete,
            self.hidden,
            [*self.holders],
        ]


def read_simulated(result: Value) -> Simulated:
    """Return the answer to ``simulate``. Raises DecodeError."""
    _SIMULATED(result, "simulated")
    height, time_ms, outcome, findings, complete, hidden, holders = result
    return Simulated(height, time_ms, outcome, tuple(findings), complete, hidden, tuple(holders))


# --- who has read -----------------------------------------------------------------------------

_READ: Final = codec.array(
    codec.count,
    codec.count,
    codec.text(64),
    codec.text(32, low=1),
    codec.text(protocol.PURPOSE_BYTES_MAX),
    codec.optional(codec.bytes32),
)
_READS: Final = codec.list_of(_READ, protocol.READS_MAX)


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer of one node that showed a record, as it was recorded.

    Args:
        time_ms: of the node's clock.
        height: of the state that was shown.
        agency: of who read.
        method: of the request.
        purpose: as the reader said it; empty if nothing was said.
        principal: who read; None where the caller may not know.
    """

    time_ms: int
    height: int
    agency: str
    method: str
    purpose: str
    principal: bytes | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [
            self.time_ms, self.height, self.agency, self.method, self.purpose, self.principal,
        ]  # fmt: skip


def read_readings(result: Value) -> tuple[Reading, ...]:
    """Return the answer to ``reads``. Raises DecodeError."""
    _READS(result, "reads")
    return tuple(Reading(*row) for row in result)
