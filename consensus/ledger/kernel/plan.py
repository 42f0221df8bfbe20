"""What a kernel action is about to do, before it does it.

A handler looks at the state and returns a ``Plan``; the executor runs the checks in their order
on it (expected versions, holds, requirements, unique slots) and then lets it write. So kernel
actions are judged exactly like those of rule sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from consensus.codec import Value
from consensus.ledger.accounts import Account
from consensus.ledger.authority import Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.holds import Target
from consensus.ledger.layout import Agency, Principal, in_force
from consensus.ledger.model import Rulebook
from consensus.ledger.proposals import Judgement
from consensus.ledger.view import CHARTER, View

Name = tuple[str, list[Value]]
"""Kind and id of a kernel object, as ``expects`` names it."""


class Sink(Protocol):
    """What a transaction's decision will say beside its writes; encoded."""

    moves: dict[str, list[bytes]]
    """Sides of moves by owning domain."""
    move_count: int
    """Moves so far: the position of the next."""
    terms: list[bytes]
    """On which terms its calls may be taken back, see ``terms``."""
    covered: int
    """Calls that have such terms."""
    links: list[bytes]
    kept: dict[int, Any]
    """What one judgement of a call found that another needs, by call."""
    listed: int
    """Records that were taken from indexes, or will be for proposals: one bound for all."""


@dataclass(frozen=True, slots=True)
class Acting:
    """A call of a kernel action: who acts, when, with which inputs."""

    view: View
    standing: Standing
    now_ms: int
    hold_id: bytes
    """The id of the hold that the call may place."""
    grant_id: bytes
    """The id of the grant that the call may make."""
    inputs: Mapping[str, Value]
    txid: bytes
    """Of the transaction that the call is in."""
    call: int
    """Which of the transaction's calls it is."""
    proposing: Judgement
    """Judges proposals for acts on them, which leave word on its desk."""
    approvers: Sequence[Standing]
    """Who approves beside the author; all of them live for a transaction that is not stored."""
    sink: Sink
    """Takes what the decision will say beside the writes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written.

    ``touches`` must be named in ``expects``; ``failed`` is a requirement that does not hold, as
    ``(code, sentence)``; ``forbidden`` the link of authority that is missing beyond the charter's;
    ``taken`` what exists already, as the detail of NOT_UNIQUE; ``opens`` the account to be opened;
    ``lacking`` all links of authority that are missing, where there may be several; ``moved`` an
    account whose balance ``write`` changes, and by how much; ``stale`` what has changed since, as
    the detail of STALE; ``minds`` targets whose holds bind, with the scopes that count; ``absent``
    a record that is not there, as the detail of NOT_FOUND, which only those with power are told.
    """

    write: Callable[[], None]
    touches: tuple[Name, ...] = ()
    failed: tuple[str, str] | None = None
    forbidden: Value = None
    taken: Value = None
    opens: list[Value] | None = None
    lacking: Sequence[Value] = ()
    moved: tuple[Account, int] | None = None
    stale: Value = None
    minds: tuple[tuple[Target, int], ...] = ()
    absent: Value = None


_HOUR_MS: Final = 3_600_000
_HOURS_MAX: Final = 24 * 365


def charter_int(acting: Acting, name: str, default: int) -> int:
    """Return the number that the charter's parameter ``name`` has now, ``default`` for none."""
    return _number(acting.view.book, acting.now_ms, name, default)


def charter_ms(acting: Acting, name: str, default_hours: int) -> int:
    """Return a duration that the charter's parameter ``name`` gives in hours, 1 to a year.

    ``default_hours`` counts where the charter has no such number in force.
    """
    return duration_ms(acting.view.book, acting.now_ms, name, default_hours)


def duration_ms(book: Rulebook, now_ms: int, name: str, default_hours: int) -> int:
    """Return ``charter_ms`` of a rule book, for those who carry out no act."""
    return min(max(_number(book, now_ms, name, default_hours), 1), _HOURS_MAX) * _HOUR_MS


def _number(book: Rulebook, now_ms: int, name: str, default: int) -> int:
    rules = book.rule_sets.get(CHARTER)
    param = None if rules is None else rules.params.get(name)
    number = default
    if param is not None and param.type.base == "int":
        for from_ms, value in param.values:
            if from_ms <= now_ms:
                number = value
    return number


def bad(name: str, reason: str) -> Refused:
    """Return the refusal of an input that has its type but no sense."""
    return Refused(Code.BAD_INPUT, [name, reason])


def found(acting: Acting, kind: str, id_: list[Value], name: str) -> Any:
    """Return the object that ``[kind, id]`` names.

    Raises:
        Refused: NOT_FOUND, for the input ``name``.
    """
    single = acting.view.single(kind, id_)
    if single is None:
        raise Refused(Code.NOT_FOUND, [name, [kind, id_]])
    return single.value


def agency_of(acting: Acting) -> Agency:
    """Return the agency of the input ``agency``, which has not left."""
    agency: Agency = found(acting, "agency", [acting.inputs["agency"]], "agency")
    refuse_left(acting, agency, "agency")
    return agency


def successor_of(acting: Acting, agency: Agency) -> Agency:
    """Return who stands for an agency now: itself unless it has left."""
    return in_force(agency, lambda name: _agency(acting, name))


def refuse_left(acting: Acting, agency: Agency, name: str) -> None:
    """Refuse an agency that has left.

    Raises:
        Refused: BAD_INPUT, for the input ``name``, with who took its place.
    """
    now = successor_of(acting, agency)
    if now.name != agency.name:
        raise bad(name, f"it left; {now.name} took its place")


def _agency(acting: Acting, name: str) -> Agency:
    agency: Agency = found(acting, "agency", [name], "agency")
    return agency


def principal_of(acting: Acting) -> Principal:
    """Return the principal of the inputs ``principal`` and ``agency``.

    Raises:
        Refused: NOT_FOUND: there is none, or it belongs to another agency. Who belonged to one that
            left belongs to its successor.
    """
    id_ = [acting.inputs["principal"]]
    principal: Principal = found(acting, "principal", id_, "principal")
    agency = successor_of(acting, _agency(acting, principal.agency))
    if agency.name != acting.inputs["agency"]:
        raise Refused(Code.NOT_FOUND, ["principal", ["principal", id_]])
    return principal
