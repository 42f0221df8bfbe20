"""Holds by people, and accounts opened by hand.

A hold that one person placed lapses unless a second confirms it: haste may stop a payment, not bury
it. The charter's parameter ``hold_unconfirmed_hours`` says after how long.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from consensus.codec import Value
from consensus.ledger import holds
from consensus.ledger.codes import Code, Refused
from consensus.ledger.holds import SPACES
from consensus.ledger.kernel.plan import (
    Acting,
    Plan,
    agency_of,
    bad,
    charter_ms,
    found,
    refuse_left,
)
from consensus.ledger.layout import (
    CONFIRMED,
    RELEASED,
    SCOPE_MASKS,
    UNCONFIRMED,
    Hold,
    Principal,
    encode_id,
)
from consensus.ledger.model import HOLD_TARGETS_MAX
from consensus.ledger.persons import one_person
from consensus.ledger.types import InputError, check_id
from consensus.ledger.view import CHARTER

UNCONFIRMED_HOURS: Final = "hold_unconfirmed_hours"
UNCONFIRMED_HOURS_DEFAULT: Final = 72
LEGAL_BYTES_MAX: Final = 1000


def open_account(acting: Acting) -> Plan:
    """Make an account with balance 0 in a family of any domain."""
    view = acting.view
    family = view.book.families.get(acting.inputs["family"])
    if family is None:
        raise Refused(Code.NOT_FOUND, ["family", None])
    id_ = [family.name, *acting.inputs["id"]]
    try:
        check_id(id_)
    except InputError as error:
        raise bad("id", error.reason) from error
    taken = ["account", id_] if view.account(id_) is not None else None
    return Plan(lambda: holds.open_account(view, id_), taken=taken, opens=id_)


def place_hold(acting: Acting) -> Plan:
    """Place a hold of some scopes on targets; records and accounts among them need not exist."""
    inputs, view = acting.inputs, acting.view
    targets = _targets(acting)
    mask = _mask(inputs["scopes"])
    lapse_ms = acting.now_ms + charter_ms(acting, UNCONFIRMED_HOURS, UNCONFIRMED_HOURS_DEFAULT)
    until_ms = inputs["until"]
    if until_ms is not None and until_ms <= acting.now_ms:
        raise bad("until", "not in the past")
    if not 0 < len(inputs["legal"].encode()) <= LEGAL_BYTES_MAX:
        raise bad("legal", f"1 to {LEGAL_BYTES_MAX} bytes")
    hold = Hold(
        acting.hold_id,
        targets,
        mask,
        acting.now_ms,
        lapse_ms if until_ms is None else min(until_ms, lapse_ms),
        acting.standing.principal.id,
        acting.standing.agency.name,
        CHARTER,
        UNCONFIRMED,
        inputs["legal"],
        "",
    )
    return Plan(lambda: holds.place(view, hold))


def confirm_hold(acting: Acting) -> Plan:
    """Confirm, as a second person, a hold that has not lapsed; it then lasts until ``until``."""
    view = acting.view
    hold: Hold = found(acting, "hold", [acting.inputs["hold"]], "hold")
    until_ms = acting.inputs["until"]
    if until_ms is not None and until_ms <= acting.now_ms:
        raise bad("until", "not in the past")
    placer: Principal = found(acting, "principal", [hold.principal], "hold")
    failed = None
    if hold.state != UNCONFIRMED or not hold.blocks(acting.now_ms):
        failed = ("NOT_OPEN", "the hold is confirmed, released or lapsed")
    confirmed = hold._replace(state=CONFIRMED, until_ms=until_ms)
    return Plan(
        lambda: holds.update(view, confirmed, CHARTER),
        (("hold", [hold.id]),),
        failed=failed,
        forbidden=["same_person"] if one_person(placer, acting.standing.principal) else None,
    )


def withdraw_hold(acting: Acting) -> Plan:
    """Release a hold that the same person placed by hand, lapsed or not."""
    plan, hold = _releasing(acting)
    placer: Principal = found(acting, "principal", [hold.principal], "hold")
    own = hold.domain == CHARTER and one_person(placer, acting.standing.principal)
    return replace(plan, forbidden=None if own else ["hold", hold.id, "placer"])


def release_hold(acting: Acting) -> Plan:
    """Release a hold, lapsed or not, of an agency: as its superior, whoever placed it there."""
    agency = agency_of(acting)
    plan, hold = _releasing(acting)
    ours = agency.stands_for(hold.agency)
    return replace(plan, forbidden=None if ours else ["agency", hold.agency])


def _releasing(acting: Acting) -> tuple[Plan, Hold]:
    view = acting.view
    hold: Hold = found(acting, "hold", [acting.inputs["hold"]], "hold")
    failed = ("RELEASED", "the hold is released already") if hold.state == RELEASED else None
    named = (("hold", [hold.id]),)
    return Plan(lambda: holds.release(view, hold, CHARTER), named, failed=failed), hold


def _targets(acting: Acting) -> list[list[Value]]:
    """Return the targets of the input, which are different places."""
    given: list[list[Value]] = acting.inputs["targets"]
    if not 0 < len(given) <= HOLD_TARGETS_MAX:
        raise bad("targets", f"1 to {HOLD_TARGETS_MAX} places")
    seen: dict[bytes, None] = {}
    for target in given:
        match target:
            case [str() as space, list() as components]:
                _check_target(acting, space, components)
            case _:
                raise bad("targets", f"each [one of {', '.join(SPACES)}, [id]]")
        seen[encode_id(target)] = None
    if len(seen) != len(given):
        raise bad("targets", "each place once")
    return given


def _check_target(acting: Acting, space: str, components: list[Value]) -> None:
    view, known = acting.view, True
    match space, components:
        case ("record", [str() as kind, _, *_]) if kind in view.book.kinds:
            view.record(view.book.kinds[kind], components[1:])
        case ("account", [str() as family, *_]) if family in view.book.families:
            account = view.account(components)
            if account is None:
                view.absent_account(components)
            else:
                view.read_account(account)
        case ("agency", [str()]):
            refuse_left(acting, found(acting, "agency", components, "targets"), "targets")
        case ("domain", [str() as domain]):
            found(acting, "rules", [domain], "targets")
        case ("action", [str() as domain, str() as action]):
            known = view.book.action(domain, action) is not None
        case _:
            raise bad("targets", f"each [one of {', '.join(SPACES)}, [id]]")
    if not known:
        raise Refused(Code.NOT_FOUND, ["targets", None])


def _mask(scopes: list[str]) -> int:
    if not scopes or scopes != sorted(dict.fromkeys(scopes)):
        raise bad("scopes", "one or more, ascending, each once")
    mask = 0
    for scope in scopes:
        if scope not in SCOPE_MASKS:
            raise bad("scopes", f"one of {', '.join(SCOPE_MASKS)}")
        mask |= SCOPE_MASKS[scope]
    return mask
