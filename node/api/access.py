"""Who may do what over the client protocol. Reading is an act too.

| who                                   | may                                                      |
|---------------------------------------|----------------------------------------------------------|
| anonymous                             | status, committee, statements                            |
| official or system of a member agency | also submit, and read all open data                      |
| citizen                               | also submit under the own key; read rule sets, the own   |
|                                       | key, principal and sequence, the own person record,      |
|                                       | records of which a leaf names it, holds on the own       |
|                                       | person record; decisions on transactions of the own key  |

A key counts while it, its principal and its agency are active at the newest certified height: the
server asks again at every height. Sealed values are never in the state, so never readable here;
the salt pool is, and is shown to nobody.

Not here: what the rules allow a transaction to do, which is judged when it takes effect.
"""

from __future__ import annotations

from typing import Final

from consensus import answers, codec, genesis
from consensus.protocol import (
    GetCommittee,
    GetDecisions,
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
        case Hello() | GetStatus() | GetCommittee() | GetStatements() | Unsubscribe():
            return True
        case Subscribe(stream=Stream.STATEMENTS):
            return True
        case ListRecords() | GetDecisions() | Subscribe():
            return access == answers.MEMBER
        case _:
            return access != answers.ANONYMOUS


def may_read(identity: Identity | None, own_key: bytes, key: StateKey, row: bytes | None) -> bool:
    """Return whether a row, or the fact that it is absent, may be shown.

    Args:
        own_key: the key that the connection proved.
        row: the raw row; None when absent.
    """
    if identity is None or key.namespace == "pool":
        return False
    if identity.kind != genesis.CITIZEN:
        return True
    match key.namespace:
        case "rules":
            return True
        case "key" | "sequence":
            return key.components == (own_key,)
        case "principal":
            return key.components == (identity.principal,)
        case _:
            return key.namespace == "record" and _names_person(identity, key, row)


def may_see_holds(identity: Identity | None, target: StateKey) -> bool:
    """Return whether all holds on ``target`` may be listed."""
    if identity is None:
        return False
    return identity.kind != genesis.CITIZEN or (
        target.namespace == "record" and _is_person(identity, target)
    )


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
