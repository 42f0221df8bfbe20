"""The evidence with which a transaction may be taken back, from what a node keeps.

Whoever gets it must be able to read the whole decision: then it may read what was overwritten too.

Not here: what the evidence proves (``consensus.ledger.evidence``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from consensus.ledger import decision as decisions
from consensus.ledger import terms
from consensus.ledger.decision import APPLIED, Decision
from consensus.ledger.evidence import Evidence, opening_hashes
from consensus.ledger.types import EVIDENCE_BYTES_MAX
from consensus.protocol import StateKey, Status
from node.api.backend import ApiBackend, CertifiedBlock
from node.api.reading import CannotAnswer, path_of

_ELSEWHERE: Final = "ask another node: each keeps it for as long as the act may be taken back"


class Past(NamedTuple):
    """Encoded evidence, the height whose statement shows that it is right, and what it tells of."""

    encoded: bytes
    height: int
    places: list[StateKey]


def evidence(
    backend: ApiBackend,
    txid: bytes,
    show: Callable[[bytes], bytes],
    tells: Callable[[str, bytes], Iterable[StateKey]],
) -> Past:
    """Return the evidence of a transaction that may be taken back.

    Args:
        show: turns a decision into what the caller may see of it.
        tells: says what a leaf of a decision tells of.

    Raises:
        CannotAnswer: it is unknown, no such one, not for the caller, or not kept here.
    """
    block, index, decision = _decision(backend, txid)
    if show(block.decisions[index]) != block.decisions[index]:
        raise CannotAnswer(
            Status.DENIED,
            "this key may not read all that the transaction did",
            "who takes it back must be able to read what is to be restored",
        )
    if terms.LEAF not in decision.leaves:
        applied = decision.header.state == APPLIED
        said = (
            "cannot be taken back: its rules do not say who may" if applied else "changed nothing"
        )
        raise CannotAnswer(
            Status.NOT_FOUND, f"the transaction {said}", "correct what is wrong by other acts"
        )
    kept, wanted = backend.overwritten(txid), opening_hashes(decision)
    past = backend.past(block.height)
    if past is None or any(each not in kept for each in wanted):
        raise CannotAnswer(
            Status.NOT_FOUND, "what the transaction overwrote is not kept here", _ELSEWHERE
        )
    statement, size, history = past
    found = Evidence(
        block.decisions[index],
        len(block.roots),
        path_of(block, index),
        statement,
        size,
        history,
        [kept[each] for each in wanted],
    ).encode()
    if len(found) > EVIDENCE_BYTES_MAX:
        raise CannotAnswer(
            Status.NOT_FOUND,
            f"the evidence has {len(found)} bytes, at most {EVIDENCE_BYTES_MAX} fit an act",
            "correct what it did by other acts",
        )
    named = [place for name, value in decision.leaves.items() for place in tells(name, value)]
    return Past(found, size if size > block.height + 1 else block.height, named)


def _decision(backend: ApiBackend, txid: bytes) -> tuple[CertifiedBlock, int, Decision]:
    found: tuple[CertifiedBlock, int, Decision] | None = None
    for height, index in backend.decisions_of(txid):
        block = backend.block(height)
        if block is not None:
            found = block, index, decisions.decode(block.decisions[index])
            if found[2].header.state == APPLIED:
                break
    if found is None:
        raise CannotAnswer(
            Status.NOT_FOUND,
            "no decision on this transaction is here",
            "it may still be on its way: ask again",
        )
    return found
