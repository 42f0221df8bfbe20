"""Who may do what over the client protocol. Reading is an act too.

| who                                   | may                                                      |
|---------------------------------------|----------------------------------------------------------|
| anonymous                             | status, committee, statements                            |
| official or system of a member agency | also submit, and read all open data                      |
| citizen                               | also submit under the own key; read rule sets, the own   |
|                                       | key, principal, roles and sequence, the own person       |
|                                       | record, records of which a leaf names it and lists of    |
|                                       | them, holds on the own person record; decisions on       |
|                                       | transactions of the own key; the own proposals, and      |
|                                       | those that wait for them or that they approved           |

That is the default. Where a kind or account family has read rules (``consensus.ledger.readers``),
they alone say who reads its records or accounts, and with them their holds, slots, indexes and
reservations, and the leaves of decisions that name them. ``may_read`` is the one function for all
of that: whatever shows a row of the state, or says that there is none, asks it.

A key counts while it, its principal and its agency are active at the newest certified height: the
server asks again at every height. Sealed values are never in the state, so never readable here;
the salt pool is, and is shown to nobody.

Not here: what the rules allow a transaction to do, which is judged when it takes effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus import answers, codec, genesis
from consensus.codec import Value, same
from consensus.ledger import layout
from consensus.ledger.disclosures import is_index
from consensus.ledger.model import AccountFamily, Kind
from consensus.ledger.proposals import Proposal
from consensus.ledger.readers import ALWAYS, account_row, record_row
from consensus.ledger.sealing import ERASURE
from consensus.protocol import (
    GetBlocks,
    GetCommittee,
    GetDecisions,
    GetMoment,
    GetPast,
    GetProposals,
    GetReversal,
    GetStatements,
    GetStatus,
    Hello,
    ListRecords,
    Request,
    StateKey,
    Stream,
    Subscribe,
    Unsubscribe,
)
from consensus.state import record
from node.api import disclosures
from node.api.backend import Identity

PERSON: Final = "person"
"""The kind of a citizen's own record."""


def level(identity: Identity | None) -> int:
    """Return ANONYMOUS, MEMBER or CITIZEN."""
    if identity is None:
        return answers.ANONYMOUS
    return answers.CITIZEN if identity.kind == genesis.CITIZEN else answers.MEMBER


def allows(access: int, request: Request) -> bool:
    """Return whether this kind of request is open to ``access`` at all.

    For citizens ``may_read`` and the server decide row by row and transaction by transaction.
    """
    match request:
        case Hello() | GetStatus() | GetCommittee() | GetStatements() | GetPast() | GetMoment():
            return True
        case Unsubscribe():
            return True
        case GetBlocks():
            return access == answers.MEMBER
        case Subscribe(stream=Stream.STATEMENTS):
            return True
        case GetProposals(agency=None):
            return access != answers.ANONYMOUS
        case ListRecords() | GetDecisions() | Subscribe() | GetProposals() | GetReversal():
            return access == answers.MEMBER
        case _:
            return access != answers.ANONYMOUS


def may_read(identity: Identity | None, own_key: bytes, key: StateKey, row: bytes | None) -> bool:
    """Return whether a row, or the fact that it is absent, may be shown.

    Args:
        own_key: the key that the connection proved.
        row: the raw row; None when absent.

    Cost: about 1 µs; a condition of a read rule that looks at the record, a few µs.
    """
    if identity is None or key.namespace == "pool":
        return False
    if key.namespace == ERASURE:
        target = _erased(key)
        raw = None if identity.raw is None else identity.raw(target)
        return may_read(identity, own_key, target, raw)
    owner = _owner(identity, key)
    if owner is not None:
        return _by_rules(identity, owner, key, row)
    member = identity.kind != genesis.CITIZEN
    components = key.components
    match key.namespace:
        case "holds":
            if not is_place(components):
                return member  # nothing lies there
            return may_see_holds(identity, target_in(components))
        case "hold":
            if row is None:
                return member and _hides_nothing(identity)
            return all(may_see_holds(identity, target) for target in targets_of_hold(row))
        case "unique":
            return member and _hides_nothing(identity, components[0] if components else None)
        case "reservation":
            return _may_read_reserved(identity, row) if row else member and _hides_nothing(identity)
        case "disclosure":
            return disclosures.may_see(identity, row) if row else member
        case "index" if components and is_index(components[0]):
            return disclosures.may_list(identity, components)
        case _ if member:
            return True
        case "rules" | "agency" | "committee" | "member_key":
            return True
        case "key" | "sequence":
            return components == (own_key,)
        case "principal":
            return components == (identity.principal,)
        case "role":
            return components[:1] == (identity.principal,)
        case "proposal":
            return len(components) == 1 and row is not None and _proposed(identity, row)
        case "index":
            person = None if identity.person is None else [*identity.person]
            return person is not None and same(_listed(key)[1], person)
        case _:
            return key.namespace == "record" and _names_person(identity, key, row)


def _may_read_reserved(identity: Identity, row: bytes) -> bool:
    """Return whether the reservation in a row may be read: by whoever reads its account."""
    account = account_of_reservation(row)
    raw = None if identity.raw is None else identity.raw(account)
    return may_read(identity, b"", account, raw)


def _proposed(identity: Identity, row: bytes) -> bool:
    """Return whether somebody is the author of the proposal in a row, or approved it."""
    proposal = Proposal(*codec.parse(record.decode_single(row)[2], "proposal"))
    approved = any(row[1] == identity.principal for row in proposal.approvals)
    return approved or proposal.principal == identity.principal


def is_member(identity: Identity) -> bool:
    """Return whether somebody is an official or system of a member agency."""
    return identity.kind != genesis.CITIZEN


def may_judge(identity: Identity, kh: bytes) -> bool:
    """Return whether somebody may know what was read at a key path, for what it is: a record or
    account that may be read, not merely as the person concerned; or anything else."""
    row = None if identity.by_path is None else identity.by_path(kh)
    if row is None:
        return identity.by_path is not None and is_member(identity)
    if record.is_record_row(row):
        found = record.decode_row(row)
        key = StateKey("record", (found.kind, *found.id))
    else:
        single = record.is_single_row(row)
        value = codec.parse(record.decode_single(row)[2], "row") if single else None
        if type(value) is not list or len(value) < 2 or type(value[0]) is not list:
            return True
        key = StateKey("account", tuple(value[0]))
    return may_weigh(identity, key, row)


def may_weigh(identity: Identity, key: StateKey, row: bytes | None) -> bool:
    """Return whether somebody may read a record or account, not merely as the person concerned."""
    owner = _owner(identity, key)
    if owner is None:
        return is_member(identity)
    return _by_rules(identity, owner, key, row, own=False)


def may_see_holds(identity: Identity | None, target: StateKey) -> bool:
    """Return whether all holds on ``target`` may be listed.

    Whoever is let in to the target by its read rules, but not merely as the person concerned: a
    payee must not learn of an investigation.
    """
    if identity is None:
        return False
    owner = _owner(identity, target)
    if owner is not None:
        row = None if identity.raw is None else identity.raw(target)
        return _by_rules(identity, owner, target, row, own=False)
    return identity.kind != genesis.CITIZEN or (
        target.namespace == "record" and _is_person(identity, target)
    )


def closes_holds(identity: Identity | None, key: StateKey) -> bool:
    """Return whether the leaf ``~holds`` of a record that may be read stays closed."""
    if identity is None or key.namespace != "record":
        return False
    return _owner(identity, key) is not None and not may_see_holds(identity, key)


def logs_any(identity: Identity | None) -> bool:
    """Return whether the rules in force want any reading recorded."""
    reader = None if identity is None else identity.reader
    return reader is not None and reader.logs_any


def is_logged(identity: Identity | None, key: StateKey) -> bool:
    """Return whether the rules want it recorded that this row was read."""
    owner = None if identity is None else _owner(identity, key)
    return owner is not None and owner.readers is not None and owner.readers.logged


def reads_all(identity: Identity, kind: str) -> bool:
    """Return whether a member may read every record of a kind, and that there are no others."""
    if kind == "hold":
        return sees_everything(identity)
    owner = _owner(identity, StateKey("record", (kind,)))
    if owner is None or identity.reader is None:
        return True
    return identity.reader.level(owner) == ALWAYS


def is_restricted(identity: Identity, kind: str) -> bool:
    """Return whether it is not shown what of a kind there is to those who may not read it."""
    owner = _owner(identity, StateKey("record", (kind,)))
    if owner is None or owner.readers is None:
        return kind == "hold"
    return owner.readers.restricted


def sees_everything(identity: Identity | None) -> bool:
    """Return whether no read rule in force keeps anything from somebody."""
    reader = None if identity is None else identity.reader
    return reader is None or reader.sees_all


def may_name(identity: Identity, key: StateKey) -> bool:
    """Return whether a decision that somebody may see may name a place: no read rule forbids it."""
    raw = identity.raw
    if raw is None:
        return True
    match key.namespace:
        case "unique":
            return _hides_nothing(identity, key.components[0])
        case "holds" if len(key.components) >= 2:
            targets = [target_in(key.components)]
        case "hold":
            row = raw(key)
            targets = [] if row is None else targets_of_hold(row)
        case "disclosure":
            row = raw(key)
            return row is None or disclosures.may_see(identity, row)
        case "index" if is_index(key.components[0]):
            return disclosures.may_list(identity, key.components)
        case "erasure":
            return may_name(identity, _erased(key))
        case "reservation":
            row = raw(key)
            return row is None or may_name(identity, account_of_reservation(row))
        case _:
            return _owner(identity, key) is None or may_read(identity, b"", key, raw(key))
    return all(_owner(identity, each) is None or may_see_holds(identity, each) for each in targets)


def _owner(identity: Identity, key: StateKey) -> Kind | AccountFamily | None:
    """Return the kind or family whose read rules count for a place; None for the default."""
    reader, components = identity.reader, key.components
    if reader is None or not components or type(components[0]) is not str:
        return None
    found: Kind | AccountFamily | None = None
    match key.namespace:
        case "record":
            found = reader.book.kinds.get(components[0])
        case "account":
            found = reader.book.families.get(components[0])
        case "index":
            found = reader.book.kinds.get(components[0].partition(".")[0])
    return found if found is not None and found.readers is not None else None


def _by_rules(
    identity: Identity,
    owner: Kind | AccountFamily,
    key: StateKey,
    row: bytes | None,
    *,
    own: bool = True,
) -> bool:
    reader = identity.reader
    if reader is None:
        return False
    if key.namespace == "index":
        return isinstance(owner, Kind) and reader.may_list(owner, *_listed(key))
    if isinstance(owner, Kind):
        shown = record_row(owner, key.components, row)
    else:
        shown = account_row(key.components, row)
    if row is None:
        return reader.may_see_absence(owner, shown)
    return reader.may_read(owner, shown, own=own)


def _erased(key: StateKey) -> StateKey:
    """Return the record of which a leaf says that values were erased."""
    return StateKey("record", key.components[:-1])


def _hides_nothing(identity: Identity, domain: Value = None) -> bool:
    """Return whether no restricted kind or family, of a domain or at all, is kept from somebody."""
    reader = identity.reader
    return reader is None or all(
        owner.readers is None
        or not owner.readers.restricted
        or reader.level(owner) == ALWAYS
        or (domain is not None and owner.domain != domain)
        for owner in reader.book.read_by_rules
    )


def _listed(key: StateKey) -> tuple[str, Value]:
    """Return field and value of a leaf of an index: ``[kind.field, value, ...]``."""
    name, value = (*key.components, "", None)[:2]
    return str(name).partition(".")[2], value


def is_place(components: Sequence[Value]) -> bool:
    """Return whether components that somebody made up begin with a space and its components."""
    return len(components) >= 2 and type(components[0]) is str and type(components[1]) is list


def target_in(components: Sequence[Value]) -> StateKey:
    """Return the target of a hold or of a list of holds: ``[space, components, ...]``."""
    return StateKey(str(components[0]), tuple(components[1]))


def account_of_reservation(row: bytes) -> StateKey:
    """Return the account of the reservation in a row."""
    found = layout.Reservation(*codec.parse(record.decode_single(row)[2], "reservation"))
    return StateKey("account", tuple(found.account))


def targets_of_hold(row: bytes) -> list[StateKey]:
    """Return the targets of the hold in a row."""
    hold = layout.Hold(*codec.parse(record.decode_single(row)[2], "hold"))
    return [target_in(each) for each in hold.targets]


def _names_person(identity: Identity, key: StateKey, row: bytes | None) -> bool:
    if _is_person(identity, key):
        return True
    if identity.person is None or row is None:
        return False
    return codec.encode([*identity.person]) in record.decode_row(row).values


def _is_person(identity: Identity, key: StateKey) -> bool:
    if identity.person is None or len(key.components) < 2 or key.components[0] != PERSON:
        return False
    return codec.encode([*key.components[1:]]) == codec.encode([*identity.person])
