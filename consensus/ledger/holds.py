"""Holds: blocks on acts of some scope, which bind by default.

A target is a place ``(space, components)``: a record, an account, an action, a domain or an agency.
The target's own leaf carries a mask of the scopes with unreleased holds; while it is zero, nothing
else is read. Otherwise, and for a target that does not exist yet, ``holds/<target>`` tells how many
there are and one leaf per position names each. A released hold's place is taken by the last one.

    all   blocks whatever touches the target: a load, a write, a payment, an act under it
    pay   blocks debits and credits of an account; under a domain, action or agency, every payment
    edit  blocks writes of a record; under a domain, action or agency, every write of a record

A hold may have several targets; it is placed on all and released from all.

A hold lapses by itself at ``until_ms``, derived when read; the mask keeps it until it is released.

Not here: who may place or release (rule sets), and when holds are looked at (``calls``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from consensus.codec import Value
from consensus.errors import invariant, present
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import RELEASED, Hold, HoldsIndex, RulesHead, array_head, encode_text
from consensus.ledger.view import CHARTER, View

HOLDS_MAX: Final = 64
"""Unreleased holds of one target."""
SPACES: Final = ("record", "account", "action", "domain", "agency")


_RECORD_HEAD: Final = array_head(2) + encode_text("record")


class Target(NamedTuple):
    """What a hold is on."""

    space: str
    components: list[Value]

    def index_components(self) -> list[Value]:
        """Return where ``holds/<target>`` lies."""
        return [self.space, self.components]


def index_of(view: View, target: Target) -> HoldsIndex:
    """Return how many unreleased holds a target has, and their scopes."""
    found = view.single("holds", target.index_components())
    if found is None:
        return HoldsIndex(0, 0)
    index: HoldsIndex = found.value
    return index


def index_of_record(view: View, kind: str, id_: list[Value], id_cbor: bytes) -> HoldsIndex:
    """Return ``index_of`` a record, whose ``[kind, *id]`` is at hand encoded."""
    kh = view.paths.of("holds", _RECORD_HEAD + id_cbor)
    found = view.single("holds", ["record", [kind, *id_]], kh)
    return HoldsIndex(0, 0) if found is None else cast(HoldsIndex, found.value)


def hold_named(view: View, id_: bytes) -> Hold | None:
    """Return a hold by its id, or None."""
    found = view.single("hold", [id_])
    return None if found is None else found.value


def blocking(view: View, now_ms: int, target: Target, scopes: int) -> list[bytes]:
    """Return the ids of holds on ``target`` in force at ``now_ms`` with one of ``scopes``.

    Call it where the target's mask has one of ``scopes``, or where the target does not exist.
    """
    index = index_of(view, target)
    if not index.held & scopes:
        return []
    ids = []
    for position in range(index.size):
        hold = _hold_at(view, target, position)
        if hold.scopes & scopes and hold.blocks(now_ms):
            ids.append(hold.id)
    return ids


def place(view: View, hold: Hold) -> None:
    """Place a hold on its targets, which are different.

    Raises:
        Refused: LIMIT: one of them has HOLDS_MAX unreleased ones.
    """
    domain = hold.domain
    _put(view, "hold", [hold.id], hold, domain)
    for space, components in hold.targets:
        target = Target(space, components)
        index = index_of(view, target)
        if index.size >= HOLDS_MAX:
            raise Refused(Code.LIMIT, "holds")
        _put(view, "holds", [*target.index_components(), index.size], (hold.id,), domain)
        _put_index(view, target, HoldsIndex(index.size + 1, index.held | hold.scopes), domain)


def release(view: View, hold: Hold, domain: str) -> None:
    """Release an unreleased hold; the last of each of its targets takes its position there."""
    for space, components in hold.targets:
        _vacate(view, Target(space, components), hold.id, domain)
    _put(view, "hold", [hold.id], hold._replace(state=RELEASED), domain)


def _vacate(view: View, target: Target, id_: bytes, domain: str) -> None:
    index = index_of(view, target)
    holds = [_hold_at(view, target, position) for position in range(index.size)]
    ids = [each.id for each in holds]
    invariant(id_ in ids, "an unreleased hold is missing from its target's index")
    position, last = ids.index(id_), index.size - 1
    if position != last:
        _put(view, "holds", [*target.index_components(), position], (ids[last],), domain)
    _put(view, "holds", [*target.index_components(), last], (None,), domain)
    mask = 0
    for each in holds:
        if each.id != id_:
            mask |= each.scopes
    _put_index(view, target, HoldsIndex(last, mask), domain)


def open_account(view: View, id_: list[Value]) -> None:
    """Make an account; the holds that were placed on it before it existed bind it."""
    view.open(id_)
    account, held = view.account(id_), index_of(view, Target("account", id_)).held
    if held and account is not None:
        view.hold_account(account, held)


def update(view: View, hold: Hold, domain: str) -> None:
    """Store a hold whose scopes and target stay."""
    _put(view, "hold", [hold.id], hold, domain)


def _hold_at(view: View, target: Target, position: int) -> Hold:
    entry = view.single("holds", [*target.index_components(), position])
    hold = None if entry is None else hold_named(view, entry.value[0])
    return present(hold, "a holds index names a hold that does not exist")


def _put(view: View, space: str, components: list[Value], value: Any, domain: str) -> None:
    view.put(space, components, value, domain, steps=space == "hold")


def _put_index(view: View, target: Target, index: HoldsIndex, domain: str) -> None:
    _put(view, "holds", target.index_components(), index, domain)
    _set_mask(view, target, index.held)


def _set_mask(view: View, target: Target, mask: int) -> None:
    """Carry the mask in the target's own leaf, where the target exists."""
    space, components = target
    if space == "record":
        kind = view.book.kinds.get(components[0])
        record = None if kind is None else view.record(kind, components[1:])
        if record is not None:
            view.draft(record).held = mask
    elif space == "account":
        account = view.account(components)
        if account is not None:
            view.hold_account(account, mask)
    elif space == "agency":
        found: Any = present(view.single("agency", components), "a held agency does not exist")
        view.put("agency", components, found.value._replace(held=mask), CHARTER, steps=False)
    else:
        _set_rules_mask(view, components, mask)


def _set_rules_mask(view: View, components: Sequence[Value], mask: int) -> None:
    """Carry the mask of a domain (one component) or of an action of it (two)."""
    domain = components[0]
    found: Any = present(view.single("rules", [domain]), "a held domain does not exist")
    head: RulesHead = found.value
    if len(components) == 1:
        head = head._replace(held=mask)
    else:
        others = [each for each in head.held_actions if each[0] != components[1]]
        if mask:
            others.append([components[1], mask])
        head = head._replace(held_actions=sorted(others))
    view.put("rules", [domain], head, CHARTER, steps=False)
