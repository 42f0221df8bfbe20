"""Decisions as somebody may see them: leaves that name what may not be read stay closed.

A leaf of writes or moves is open where each record, account, hold and slot that it names may be
read now. What the default lets read is never closed here: who may ask for a decision at all is
``access``'s to say.

A refusal that is quiet shows its header alone, to its author too, unless every record and account
that the judgement read may be read by whoever looks, and not merely as the person concerned. So
all such refusals of an action look alike.

Not here: how a leaf is closed (``consensus.ledger.showing``).
"""

from __future__ import annotations

from typing import Final

from consensus import codec
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.decision import QUIET_ITEMS
from consensus.ledger.disclosures import SPACE
from consensus.ledger.showing import close
from consensus.protocol import StateKey
from consensus.state.salted import split
from node.api import access, places
from node.api.backend import Identity

_ALWAYS: Final = ("links",)
_DISCLOSURE: Final = codec.encode(SPACE)
"""Every decision that writes a disclosure has this in it, and hardly another."""


def shown(identity: Identity | None, decision: bytes) -> bytes:
    """Return an encoded decision as somebody may see it; None is somebody not in force any more.

    Cost: nothing for members from whom no read rule keeps anything; else about 10 µs and, for each
    place that a leaf names, a lookup of its row.
    """
    everything = identity is not None and access.is_member(identity)
    if everything and access.sees_everything(identity) and _DISCLOSURE not in decision:
        return decision
    leaves = {row[0]: row[2] for row in codec.parse(decision, "decision")[1] if type(row) is list}
    quiet = len(codec.parse(leaves["code"], "code")) == QUIET_ITEMS
    told = not quiet or (identity is not None and _may_judge(identity, leaves["reads"]))

    def keep(name: str, value: bytes) -> bool:
        kind = name.partition(":")[0]
        if kind not in ("writes", "moves"):
            return told or kind in _ALWAYS
        if identity is None:
            return False
        rows = codec.parse(value, name)
        if kind == "moves":
            places = [StateKey("account", tuple(row[1])) for row in rows]
        else:
            places = [StateKey(row[0][0], tuple(row[0][1])) for row in rows]
        return all(access.may_name(identity, place) for place in places)

    return close(decision, keep)


def receipt(identity: Identity | None, own_key: bytes, decision: bytes) -> bytes:
    """Return an encoded decision as it is shown to whoever sent its transaction.

    Receipts are not recorded as readings. Who signed the transaction sees of its decision what they
    may; for others each leaf stays closed that names what rules want recorded: they may ask for
    the decision, which is.

    Cost: as ``shown``; where rules want readings recorded, about 10 µs more.
    """
    found = shown(identity, decision)
    if identity is None or not access.logs_any(identity) or places.signed_by(found, own_key):
        return found

    def keep(name: str, value: bytes) -> bool:
        told = places.of_leaf(identity, name, value)
        return not any(access.is_logged(identity, place) for place in told)

    return close(found, keep)


def _may_judge(identity: Identity, reads: bytes) -> bool:
    """Return whether somebody may read every record and account that a judgement read."""
    pairs, moved = codec.parse(reads, "reads")
    paths = [pair[:DIGEST_BYTES] for pair in split(pairs, 2 * DIGEST_BYTES)]
    paths += split(moved, DIGEST_BYTES)
    return all(access.may_judge(identity, kh) for kh in paths)
