"""What an audit stops at: the first thing that is not as it must be, and where.

Not here: how it is found (``heights``, ``replay``), and how it is shown (``comity.cli``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.errors import VerificationError

CHECKS: Final = {
    "chain": "each block names the one before it, and none is missing",
    "certificate": "quorums of the committee signed what the blocks rest on",
    "batch": "the batches are those that the block names",
    "signature": "authors and cosigners signed every transaction",
    "decision": "executing the block again gives the recorded decisions",
    "statement": "executing the block again gives what the quorum signed",
    "changes": "executing the block again gives the recorded changes",
    "money": "the sum of each currency changes only where money is issued or retired",
    "versions": "every change of a leaf is in a decision, and its versions join without a gap",
    "state": "the rows kept are those that the decisions lead to",
    "trust": "the past is the one that the reader knew before",
}
"""What an audit checks, by name."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place in which what is recorded is not what was found. Both in words."""

    place: str
    recorded: str
    found: str


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a height.

    Args:
        check: one of CHECKS.
        message: one sentence, without the height.
        index: of the transaction in the block, where it is one's.
        txid: likewise.
        differences: leaf by leaf, where two things were compared.
    """

    check: str
    message: str
    index: int | None = None
    txid: bytes | None = None
    differences: tuple[Difference, ...] = ()


class DivergenceError(VerificationError):
    """The record of a network is not what its blocks lead to. Everything below the height holds."""

    code = "DIVERGENCE"
    advice = "keep this copy as evidence, and audit another node's"

    def __init__(self, height: int, problem: Problem) -> None:
        where = f"height {height}"
        if problem.index is not None:
            where += f", transaction {problem.index}"
        super().__init__(f"{where}: {problem.message}")
        self.height = height
        self.problem = problem


class NotAuditableError(VerificationError):
    """What an audit needs is not there: nothing is wrong, and nothing is shown to be right."""

    code = "NOT_AUDITABLE"
    advice = "audit a node or a backup that still has it"
