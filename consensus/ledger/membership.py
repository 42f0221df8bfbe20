"""The committee as the state has it, and how a change of it takes effect.

A change that the charter's acts have agreed on takes effect in the first block whose time reaches
the change's, after all transactions of that block: the block ends its epoch. Who stays keeps its
place among those who stay, with new keys or addresses where they change; who leaves is left out;
who is admitted follows, in the order of the change.

At that moment the change is judged again. If it is not possible any more, because a certificate has
expired or an agency was suspended meanwhile, nothing changes, and its leaf says why.

Not here: what it takes to agree on a change (``kernel.committee``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from consensus import certificate, codec
from consensus.codec import Value
from consensus.committee import VALIDATORS_MAX, VALIDATORS_MIN, Committee, Validator
from consensus.errors import DecodeError, SignatureError, present
from consensus.hashing import context
from consensus.ledger.layout import ACTIVE
from consensus.ledger.seats import (
    ADMIT,
    BEGUN,
    DROPPED,
    KEYS,
    LEAVE,
    MEMBERS,
    SPACE,
    Change,
    Seats,
)
from consensus.ledger.view import CHARTER, View
from consensus.state import salted

Fault = tuple[str, str]
"""Code and sentence of a requirement that does not hold."""

_change_seed: Final = context("seed of a change of the committee")


def seats_of(committee: Committee) -> list[list[Value]]:
    """Return what the leaf says of a committee's seats."""
    return [[each.agency, each.node_key] for each in committee.validators]


def seats_now(view: View, founded: Committee) -> Seats:
    """Return who has a seat, as the transaction sees it; records the read.

    Args:
        founded: the committee of the genesis file.
    """
    found = view.single(SPACE, [], view.paths.committee)
    if found is None:
        return Seats(founded.epoch, seats_of(founded), 0, None)
    seats: Seats = found.value
    return seats


def seats_from(founded: Committee, epoch: int) -> Callable[[View], Seats] | None:
    """Return what reads who has a seat in an epoch; None in the first one."""
    return None if epoch <= founded.epoch else partial(seats_now, founded=founded)


def committee_now(view: View, founded: Committee) -> Committee:
    """Return the committee in force, whole; records the read."""
    found = view.single(SPACE, [MEMBERS])
    if found is None:
        return founded
    epoch, rows = found.value
    return Committee(epoch, tuple(Validator(*row) for row in rows))


def change_at(view: View, number: int) -> Change | None:
    """Return what became of a change, None for one that never was; records the read."""
    found = view.single(SPACE, [number])
    return None if found is None else found.value


def put_seats(view: View, seats: Seats) -> None:
    """Write who has a seat and what is to come."""
    view.put(SPACE, [], seats, CHARTER)


def put_change(view: View, change: Change) -> None:
    """Write what became of a change."""
    view.put(SPACE, [change.number], change, CHARTER)


# --- what a change makes ------------------------------------------------------------------------


def after(
    view: View, founded: Committee, changes: Sequence[Sequence[Value]]
) -> tuple[tuple[Validator, ...], Fault | None]:
    """Return the validators after changes, and what is in the way, as far as the state says it.

    Args:
        founded: the committee of the genesis file.
        changes: ``[kind, agency, row]``, each agency once.
    """
    now = committee_now(view, founded)
    rows, fault = rows_after(now, founded, changes, partial(_is_known, view))
    return rows, fault or _agency_fault(view, changes)


def _is_known(view: View, key: bytes) -> bool:
    return view.single(KEYS, [key]) is not None or view.single("key", [key]) is not None


def rows_after(
    now: Committee,
    founded: Committee,
    changes: Sequence[Sequence[Value]],
    known: Callable[[bytes], bool],
) -> tuple[tuple[Validator, ...], Fault | None]:
    """Return the validators after changes of a committee, and what of committee or keys forbids it.

    Args:
        now: the committee in force.
        founded: the committee of the genesis file.
        changes: ``[kind, agency, row]``, each agency once.
        known: whether a key is a person's, or was a validator's after the first epoch.
    """
    present = {each.agency: each for each in now.validators}
    for kind, agency, row in changes:
        if kind == ADMIT:
            if agency in present:
                return (), ("MEMBER", f"{agency} has a validator already")
        elif agency not in present:
            return (), ("NOT_MEMBER", f"{agency} has no validator")
        elif kind != LEAVE and Validator(*row) == present[agency]:
            return (), ("UNCHANGED", f"the validator of {agency} is so already")
    changed = {agency: (kind, row) for kind, agency, row in changes}
    rows = []
    for each in now.validators:
        kind, row = changed.get(each.agency, (None, None))
        if kind is None:
            rows.append(each)
        elif kind != LEAVE:
            rows.append(Validator(*row))
    rows += [Validator(*row) for kind, _, row in changes if kind == ADMIT]
    if len(rows) < VALIDATORS_MIN:
        return (), ("TOO_FEW", f"{len(rows)} validators would be left, at least {VALIDATORS_MIN}")
    if len(rows) > VALIDATORS_MAX:
        return (), ("TOO_MANY", f"{len(rows)} validators, at most {VALIDATORS_MAX}")
    for _, agency, row in changes:
        if row is not None:
            fault = _key_fault(known, founded, present.get(agency), Validator(*row), rows)
            if fault is not None:
                return (), fault
    return tuple(rows), None


def _key_fault(
    known: Callable[[bytes], bool],
    founded: Committee,
    before: Validator | None,
    new: Validator,
    rows: Sequence[Validator],
) -> Fault | None:
    """Say if a validator's keys were ever another's or its own, or its addresses are another's."""
    kept = () if before is None else (("", before.key), ("node ", before.node_key))
    first = [key for each in founded.validators for key in (each.key, each.node_key)]
    others = [key for each in rows if each is not new for key in _keys_of(each, new)]
    for word, key in (("", new.key), ("node ", new.node_key)):
        if (word, key) in kept:
            continue
        if key in first or key in others or known(key):
            return "KEY_USED", f"a key of {new.agency} is in use, or was: make a new one"
    if new.key == new.node_key:
        return "KEY_USED", f"one key of {new.agency} is given twice"
    places = [
        place
        for each in rows
        if each.agency != new.agency
        for place in ((each.peer_host, each.peer_port), (each.client_host, each.client_port))
    ]
    own = ((new.peer_host, new.peer_port), (new.client_host, new.client_port))
    if own[0] == own[1] or own[0] in places or own[1] in places:
        return "ADDRESS", f"an address of {new.agency} is another's"
    return None


def _keys_of(each: Validator, new: Validator) -> tuple[bytes, ...]:
    return () if each.agency == new.agency else (each.key, each.node_key)


def _agency_fault(view: View, changes: Sequence[Sequence[Value]]) -> Fault | None:
    """Say if an agency that is to be admitted has no say now."""
    for kind, agency, _ in changes:
        found = view.single("agency", [agency]) if kind == ADMIT else None
        if found is None:
            continue
        if found.value.status != ACTIVE:
            return "SUSPENDED", f"{agency} is suspended"
        successor = found.value.successor
        taken = None if successor is None else view.single("agency", [successor])
        if taken is not None and taken.value.stands_for(agency):
            return "LEFT", f"{agency} left; {successor} took its place"
    return None


def expiry_fault(changes: Sequence[Sequence[Value]], at_ms: int) -> Fault | None:
    """Say if a certificate is not good at a time. Cost: 0.15 ms a certificate."""
    for _, agency, row in changes:
        if row is None:
            continue
        try:
            found = certificate.decode(Validator(*row).certificate)
        except (DecodeError, SignatureError):
            return "CERTIFICATE", f"the certificate of {agency} is malformed"
        if not found.from_ms <= at_ms <= found.until_ms:
            return "CERTIFICATE", f"the certificate of {agency} is not good at that time"
    return None


# --- the end of a block -------------------------------------------------------------------------


def end_block(
    view: View, founded: Committee, epoch: int, now_ms: int, pool: bytes
) -> tuple[bytes, Committee | None]:
    """Carry out the change that is due after all transactions of a block.

    Args:
        founded: the committee of the genesis file.
        epoch: of the block.
        pool: the salt pool after its transactions.

    Returns:
        The salt pool, and the committee of the next epoch; None: the epoch goes on.
    """
    view.begin()
    number = _due(view, now_ms)
    if number is None:
        return pool, None
    pool = salted.next_pool(pool, _change_seed(codec.encode(number)))
    following = _take_effect(view, founded, number, epoch, now_ms)
    view.commit(pool)
    return pool, following


def _due(view: View, now_ms: int) -> int | None:
    """Return the number of the change whose time has come; None: there is none."""
    found = view.single(SPACE, [], view.paths.committee)
    if found is None or found.value.coming is None:
        return None
    number, from_ms = found.value.coming
    return number if from_ms <= now_ms else None


def _take_effect(
    view: View, founded: Committee, number: int, epoch: int, now_ms: int
) -> Committee | None:
    """Carry out the change that is due: write what it makes, and return the next committee.

    None where it is not possible any more, which is written instead.

    Args:
        founded: the committee of the genesis file.
        epoch: that ends.
    """
    change = present(change_at(view, number), "a change that is due is missing")
    seats = seats_now(view, founded)._replace(coming=None)
    rows, fault = after(view, founded, change.changes)
    fault = fault or expiry_fault(change.changes, now_ms)
    if fault is not None:
        put_seats(view, seats)
        put_change(view, change._replace(state=DROPPED, why=list(fault)))
        return None
    following = Committee(epoch + 1, rows)
    put_seats(view, seats._replace(epoch=epoch + 1, seats=seats_of(following)))
    view.put(SPACE, [MEMBERS], tuple(_members(following)), CHARTER)
    put_change(view, change._replace(state=BEGUN, epoch=epoch + 1))
    for _, agency, row in change.changes:
        for key in () if row is None else (Validator(*row).key, Validator(*row).node_key):
            if view.single(KEYS, [key]) is None and not _founding(founded, key):
                view.put(KEYS, [key], (agency, epoch + 1), CHARTER)
    return following


def _members(committee: Committee) -> list[Value]:
    return [committee.epoch, [each.to_value() for each in committee.validators]]


def _founding(founded: Committee, key: bytes) -> bool:
    return any(key in (each.key, each.node_key) for each in founded.validators)
