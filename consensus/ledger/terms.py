"""On which terms an act may be taken back: written into its decision, read by who takes it back.

    leaf "reversible"   [[domain, action, role, within days, shortfall account id | null, undone,
                          moves, [slot, ...], origin | null, approvals], ...]

A decision has the leaf if every call of its transaction may be taken back; one row a call, or, of a
call that took a transaction back itself, one a row of that one's. What a rule set says is resolved
when the act takes place, so nothing that changes later moves the terms, and nobody needs the
records that the act loaded. ``undone`` says that the act took something back; ``origin`` is the
transaction that did it first. ``moves`` counts the act's moves, which follow those of earlier rows;
slots are those to be freed or taken again, ``[domain, label, ...]``. ``approvals``, of the form
that ``fixed_policies`` has, are left out where taking the act back needs none.

Not here: which terms a rule set may give (``rules.reversible``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from consensus import codec
from consensus.codec import Shape, Value
from consensus.errors import DecodeError
from consensus.ledger.layout import (
    NULL,
    encode_array,
    encode_bytes,
    encode_id,
    encode_int,
    encode_text,
    encode_value,
)
from consensus.ledger.types import ID_COMPONENTS_MAX

if TYPE_CHECKING:
    from consensus.ledger.fixed_policies import Unfixed
    from consensus.ledger.model import Reference

WITHIN_DAYS_MAX: Final = 3660
"""Ten years."""
ROWS_MAX: Final = 4096
DAY_MS: Final = 86_400_000
LEAF: Final = "reversible"

_NAME: Final = codec.text(64, low=1)
# --- approvals, as ``fixed_policies`` has them

DEPTH_MAX: Final = 3
"""Leaves and branches of a policy inside one another."""
NODES_MAX: Final = 8
"""Leaves and branches of one policy."""
NAMED_MAX: Final = 8
"""Items of ``where``, ``self``, ``not`` and ``not_agency`` in one policy."""
ASKS: Final = 0
SOME: Final = 1
NEVER: Final = 2
_COUNT_MAX: Final = 64

_PATH: Final = codec.text(8192, low=1)
_NAMED: Final = codec.array(_PATH, codec.plain)
_KEYS: Final = {
    "author": codec.boolean,
    "distinct": codec.text(64, low=1),
    "not": codec.list_of(_NAMED, NAMED_MAX, low=1),
    "not_agency": codec.list_of(_NAMED, NAMED_MAX + 1, low=1),
    "self": _NAMED,
    "where": codec.list_of(codec.array(codec.text(200), _PATH, codec.plain), NAMED_MAX, low=1),
}


def _entry(value: Value, path: str) -> int:
    """Check ``[key, value]`` of a leaf."""
    key = value[0] if type(value) is list and value else None
    shape = _KEYS.get(key) if type(key) is str else None
    if shape is None:
        raise DecodeError("expected a key of a policy and its value", path=path)
    return codec.array(codec.text(16), shape)(value, path)


def _policy(depth: int) -> Shape:
    slots = codec.integer(1, _COUNT_MAX)
    more = codec.list_of(_entry, len(_KEYS))
    forms = {
        ASKS: codec.array(codec.integer(), codec.text(200), slots, more),
        NEVER: codec.array(codec.integer(), _PATH),
    }
    if depth > 1:
        among = codec.list_of(_policy(depth - 1), NODES_MAX)
        needed = codec.integer(0, NODES_MAX)
        forms[SOME] = codec.array(codec.integer(), needed, codec.text(64), among)
    return codec.tagged(forms)


# --- rows

_ROW: Final = (
    _NAME,
    _NAME,
    codec.text(200, low=1),
    codec.integer(1, WITHIN_DAYS_MAX),
    codec.optional(codec.list_of(codec.plain, ID_COMPONENTS_MAX, low=1)),
    codec.boolean,
    codec.count,
    codec.list_of(codec.list_of(codec.plain, 2 + ID_COMPONENTS_MAX, low=2), 64),
    codec.optional(codec.bytes32),
)
SHAPE: Final = codec.list_of(
    codec.one_of([codec.array(*_ROW), codec.array(*_ROW, _policy(DEPTH_MAX))]), ROWS_MAX, low=1
)


@dataclass(frozen=True, slots=True)
class Reversible:
    """On which terms an act may be taken back; see ``terms``."""

    role: str
    """Who may, beside what the charter says."""
    within_days: int
    shortfall: Reference | None
    """The account that takes what a payee no longer has."""
    free: bool
    """Whether unique slots are free again, or stay taken."""
    approvals: Unfixed | None = None
    """Who must approve that, to be fixed when the act takes place."""


class Terms(NamedTuple):
    """The terms of one act."""

    domain: str
    action: str
    role: str
    """Who may take it back."""
    within_days: int
    """Counted from the decision's time."""
    shortfall: list[Value] | None
    """The account that takes what a payee no longer has."""
    undone: bool
    """Whether the act took another back; nothing falls short when that is taken back in turn."""
    moves: int
    slots: list[list[Value]]
    origin: bytes | None
    """The transaction that an act like this, taken back and restored in turn, began with."""
    approvals: Value = None
    """Who must approve, as fixed; None: nobody."""

    def encode(self) -> bytes:
        """Return the row, encoded."""
        head, end = b"\x89", b""
        if self.approvals is not None:
            head, end = b"\x8a", encode_value(self.approvals)
        return head + b"".join(
            (
                encode_text(self.domain),
                encode_text(self.action),
                encode_text(self.role),
                encode_int(self.within_days),
                NULL if self.shortfall is None else encode_id(self.shortfall),
                b"\xf5" if self.undone else b"\xf4",
                encode_int(self.moves),
                encode_array([encode_id(slot) for slot in self.slots]),
                NULL if self.origin is None else encode_bytes(self.origin),
                end,
            )
        )

    def turned(self, txid: bytes) -> Terms:
        """Return the terms of taking back an act of ``txid`` that was done on these."""
        return self._replace(undone=not self.undone, origin=self.origin or txid)


def until_ms(terms: list[Terms], time_ms: int) -> int:
    """Return the last moment at which an act of ``time_ms`` may be taken back."""
    return time_ms + min(each.within_days for each in terms) * DAY_MS


def kept_days(terms_cbor: bytes) -> int:
    """Return for how many days what an act overwrote is needed, from the encoded leaf."""
    return min(each.within_days for each in read(codec.parse(terms_cbor, LEAF)))


def read(value: Value) -> list[Terms]:
    """Return the rows of a decision's leaf, None where it has none."""
    return [] if value is None else [Terms(*row) for row in value]


def encode_link(what: str, txid: bytes) -> bytes:
    """Return an item of a decision's links, encoded."""
    return b"\x82" + encode_value(what) + encode_bytes(txid)
