"""What shows a node that has no archive what an earlier transaction did, and what it overwrote.

    evidence = [decision, total, path, statement, size, history path, [opening, ...]]
    opening  = [version, salt, value]                     of a leaf as it was

The decision leads by ``path`` (among ``total``) to the ``results_root`` of the statement, the
statement by its path to the root over the first ``size`` statements, which every node knows of the
last HISTORY_HEIGHTS_MAX heights. Openings stand for the old leaves that the decision's writes name,
in their order; those of ``~holds``, and of leaves that were not there, are left out. Each must hash
to what the decision names. So whoever signs evidence can leave nothing out and add nothing.

Nothing here depends on how bytes fail to be read: the reasons are part of outcomes, for ever.

Not here: what may be done on such evidence (``kernel.reversal``).
Source: docs/protocol/ledger.cddl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError
from consensus.hashing import H_STATEMENT, ZERO
from consensus.ledger import decision as decisions
from consensus.ledger import terms
from consensus.ledger.decision import Decision, Header
from consensus.ledger.layout import Paths
from consensus.ledger.terms import Terms
from consensus.ledger.types import EVIDENCE_BYTES_MAX
from consensus.state import salted
from consensus.state.history import verify_inclusion
from consensus.state.merkle import RESULTS
from consensus.state.record import HOLDS
from consensus.state.salted import SALT_BYTES

HISTORY_HEIGHTS_MAX: Final = 1 << 20
"""Roots of the history that a node must know; twelve days at a block a second."""
OPENINGS_MAX: Final = 65_536

_STATEMENT_BYTES_MAX: Final = 4096
_STATEMENT: Final = codec.array(
    codec.bytes32,
    codec.count,
    codec.count,
    codec.count,
    codec.bytes32,
    codec.count,
    codec.count,
    codec.bytes32,
    codec.bytes32,
    codec.bytes32,
    codec.bytes32,
    codec.optional(codec.bytes32),
)
_HEIGHT: Final = 3
_RESULTS_ROOT: Final = 8
_EVIDENCE: Final = codec.array(
    codec.octets(low=1, high=EVIDENCE_BYTES_MAX),
    codec.integer(1),
    codec.list_of(codec.bytes32, 256),
    codec.octets(low=1, high=_STATEMENT_BYTES_MAX),
    codec.count,
    codec.list_of(codec.bytes32, 64),
    codec.list_of(
        codec.array(
            codec.count, codec.octets(SALT_BYTES), codec.octets(low=1, high=EVIDENCE_BYTES_MAX)
        ),
        OPENINGS_MAX,
    ),
)


class EvidenceError(Exception):
    """Evidence does not show what it should. ``reason`` is fixed text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Overwritten(NamedTuple):
    """A leaf as it was before a write: ``value`` is its canonical CBOR."""

    version: int
    salt: bytes
    value: bytes


class Replaced(NamedTuple):
    """A leaf that a write names: its hash before, zeros where it was not there."""

    leaf: str
    hash: bytes

    @property
    def shown(self) -> bool:
        """Whether evidence must open it."""
        return self.leaf != HOLDS and self.hash != ZERO


class Written(NamedTuple):
    """An entry of a decision's writes."""

    space: str
    components: list[Value]
    old: int
    new: int
    replaced: tuple[Replaced, ...]


class Moved(NamedTuple):
    """One side of a move, and how much more is reserved since; of which reservation, if any."""

    position: int
    account: list[Value]
    delta: int
    reserved: int = 0
    reservation: Sequence[Value] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence, decoded and not yet believed."""

    decision: bytes
    total: int
    path: Sequence[bytes]
    statement: bytes
    size: int
    history: Sequence[bytes]
    openings: Sequence[Overwritten]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            [
                self.decision,
                self.total,
                [*self.path],
                self.statement,
                self.size,
                [*self.history],
                [list(each) for each in self.openings],
            ]
        )


@dataclass(frozen=True, slots=True)
class Original:
    """A decision that evidence has shown to be this chain's, and what it overwrote."""

    decision: Decision
    header: Header
    terms: list[Terms]
    openings: Sequence[Overwritten]
    """Of the leaves that ``writes`` name as shown, in their order."""

    def writes(self) -> Iterator[Written]:
        """Yield what the transaction wrote, in the order of the decision's leaves."""
        return writes_of(self.decision)

    def moves(self) -> dict[int, list[Moved]]:
        """Return the sides of each move by its position in the transaction."""
        found: dict[int, list[Moved]] = {}
        for name in self.decision.names:
            if name.startswith("moves:"):
                rows: Any = self.decision.value(name)
                for row in rows:
                    found.setdefault(row[0], []).append(Moved(*row))
        return found


def writes_of(decision: Decision) -> Iterator[Written]:
    """Yield the entries of a decision's writes, in the order of its leaves."""
    for name in decision.names:
        if name.startswith("writes:"):
            rows: Any = decision.value(name)
            for (space, components), old, new, _, pairs in rows:
                replaced = tuple(Replaced(*pair) for pair in pairs)
                yield Written(space, components, old, new, replaced)


def decode(data: bytes) -> Evidence:
    """Return the evidence in untrusted bytes.

    Raises:
        EvidenceError: it is no evidence.
    """
    try:
        value = codec.decode(data, _EVIDENCE, bytes_max=EVIDENCE_BYTES_MAX, what="evidence")
    except DecodeError:
        raise EvidenceError("it is not readable") from None
    openings = tuple(Overwritten(*each) for each in value[6])
    return Evidence(value[0], value[1], value[2], value[3], value[4], value[5], openings)


def check(
    data: bytes, txid: bytes, history_root: Callable[[int], bytes | None], paths: Paths
) -> Original:
    """Return the decision of ``txid`` that untrusted ``data`` shows, with what it overwrote.

    Args:
        history_root: the root over the first so many statements, None where it is not known.

    Raises:
        EvidenceError: it does not show that.

    Cost: about 300 µs with four openings; the decision is most of it.
    """
    evidence, decision, results_root = _read(data, txid)
    root = history_root(evidence.size)
    if root is None:
        raise EvidenceError("it rests on a history that is too old, or not certain yet")
    height, hash_ = decision.header.height, H_STATEMENT(evidence.statement)
    try:
        verify_inclusion(root, evidence.size, height, hash_, evidence.history)
    except ProofError:
        raise EvidenceError("the statement is not in the history of this network") from None
    return _completed(evidence, decision, results_root, paths)


def check_under(data: bytes, txid: bytes, statement: bytes, paths: Paths) -> Original:
    """Return what ``check`` does, for who knows the ``statement`` of the decision's height.

    Raises:
        EvidenceError: it does not show that.
    """
    evidence, decision, results_root = _read(data, txid)
    if evidence.statement != statement:
        raise EvidenceError("the statement is not in the history of this network")
    return _completed(evidence, decision, results_root, paths)


def _read(data: bytes, txid: bytes) -> tuple[Evidence, Decision, bytes]:
    """Return evidence, decision and results root, which fit each other in name only."""
    evidence = decode(data)
    try:
        decision = decisions.decode(evidence.decision)
        statement = codec.decode(
            evidence.statement, _STATEMENT, bytes_max=_STATEMENT_BYTES_MAX, what="statement"
        )
    except DecodeError:
        raise EvidenceError("it is not readable") from None
    header = decision.header
    if header.txid != txid:
        raise EvidenceError("it is of another transaction")
    if statement[_HEIGHT] != header.height:
        raise EvidenceError("the statement is of another height than the decision")
    return evidence, decision, statement[_RESULTS_ROOT]


def _completed(
    evidence: Evidence, decision: Decision, results_root: bytes, paths: Paths
) -> Original:
    """Return what is shown by evidence whose statement is the network's."""
    header = decision.header
    try:
        RESULTS.verify_path(
            results_root, evidence.total, header.index, decision.root, evidence.path
        )
    except ProofError:
        raise EvidenceError("the decision is not among the results of its height") from None
    _check_openings(decision, evidence.openings, paths)
    return Original(decision, header, terms.read(decision.value(terms.LEAF)), evidence.openings)


def _check_openings(decision: Decision, openings: Sequence[Overwritten], paths: Paths) -> None:
    wanted = [
        (paths(each.space, each.components), replaced)
        for each in writes_of(decision)
        for replaced in each.replaced
        if replaced.shown
    ]
    if len(wanted) != len(openings):
        raise EvidenceError(f"it opens {len(openings)} overwritten leaves of {len(wanted)}")
    for (kh, replaced), opening in zip(wanted, openings, strict=True):
        found = salted.leaf_hash(kh, replaced.leaf, opening.version, opening.salt, opening.value)
        if found != replaced.hash:
            raise EvidenceError(f"{replaced.leaf} was not what it opens")


def opening_hashes(decision: Decision) -> list[bytes]:
    """Return the hashes of the leaves that evidence of a decision must open, in their order."""
    return [
        replaced.hash
        for each in writes_of(decision)
        for replaced in each.replaced
        if replaced.shown
    ]
