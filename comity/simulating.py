"""What a node says would become of a draft: typed, not proved."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from comity.decisions import STATES
from comity.results import Finding, Holder, Simulation
from consensus.asking import read_simulated
from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.ledger.transaction import Unsigned, assemble
from consensus.protocol import Simulate

_NAMES: Final = MappingProxyType({int(code): code.name for code in Code})
_NO_SIGNATURE: Final = bytes(64)


def request(draft: Unsigned) -> Simulate:
    """Return the request that tries out a draft; nobody has to have signed it."""
    return Simulate(assemble(draft, [_NO_SIGNATURE] * len(draft.transaction.signers)))


def read(result: Value) -> Simulation:
    """Return what the node says. Raises DecodeError."""
    found = read_simulated(result)
    state, code, call, detail = found.outcome or (None, None, None, None)
    return Simulation(
        found.height,
        found.time_ms,
        None if state is None else STATES[state],
        None if code is None else _name(code),
        call,
        detail,
        tuple(Finding(_name(code), call, detail) for code, call, detail in found.findings),
        found.complete,
        found.hidden,
        {
            role: tuple(Holder(who, agency, dict(scope)) for who, agency, scope in holders)
            for role, holders in found.holders
        },
    )


def _name(code: int) -> str:
    return _NAMES.get(code) or f"CODE_{code}"
