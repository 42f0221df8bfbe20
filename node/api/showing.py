"""Decisions as somebody may see them: leaves that name what may not be read stay closed.

A leaf of writes or moves is open where each record, account, hold and slot that it names may be
read now. What the default lets read is never closed here: who may ask for a decision at all is
``access``'s to say.

Not here: how a leaf is closed (``consensus.ledger.showing``).
"""

from __future__ import annotations

from consensus import codec
from consensus.ledger.showing import close
from consensus.protocol import StateKey
from node.api import access
from node.api.backend import Identity


def shown(identity: Identity | None, decision: bytes) -> bytes:
    """Return an encoded decision as somebody may see it; None is somebody not in force any more.

    Cost: nothing where no read rule keeps anything from them; else about 10 µs and, for each place
    that a leaf names, a lookup of its row.
    """
    if identity is not None and access.sees_everything(identity):
        return decision

    def keep(name: str, value: bytes) -> bool:
        kind = name.partition(":")[0]
        if kind not in ("writes", "moves"):
            return True
        if identity is None:
            return False
        rows = codec.parse(value, name)
        if kind == "moves":
            return all(
                access.may_name(identity, StateKey("account", tuple(row[1]))) for row in rows
            )
        return all(access.may_name(identity, StateKey(row[0][0], tuple(row[0][1]))) for row in rows)

    return close(decision, keep)
