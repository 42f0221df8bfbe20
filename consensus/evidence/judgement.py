"""A decision judged again on its witness, and compared with the certified one.

Everything must come out as it is certified, but for the salts, which nobody may know beforehand:
the leaves that were written are hashed with those of the bundle. What the decision does not show is
attested by its certificate and not judged: whether a sequence number was free, and what accounts
hold that were not looked into.

Not here: that the witness is what the decision read (``verify``), and running (``replay``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.codec import INT64_MAX, INT64_MIN, Value
from consensus.errors import DecodeError, LocalProtocolError, ProofError
from consensus.evidence.bundle import Bundle
from consensus.evidence.replay import (
    PLENTY,
    FixedRules,
    Fresh,
    Judging,
    Witness,
    WitnessRow,
    renewed,
)
from consensus.evidence.stages import stage
from consensus.evidence.witness import NotShownError
from consensus.genesis import Head
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.hotstuff.types import Statement
from consensus.ledger import decision as decisions
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext
from consensus.ledger.layout import EDIT, Balance, HoldsIndex, Paths
from consensus.ledger.ledger import Rules
from consensus.ledger.model import Rulebook
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import RulesInForce
from consensus.state import salted
from consensus.state.record import StoredRecord, decode_single
from consensus.state.salted import SALT_BYTES

ATTESTED: Final = frozenset(
    {Code.SEQUENCE_SPENT, Code.SEQUENCE_OLD, Code.SEQUENCE_AHEAD, Code.INSUFFICIENT, Code.LIMIT}
)
"""Refusals that rest on what no decision shows, such as the balance of an account that was only to
be moved, or what the block had done before: the certificate alone vouches for them."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a decision is judged on.

    Args:
        head: of the genesis file.
        book: the rules that were in force.
        reads: the value hash of every leaf that the decision read, by key path; zeros: absent.
        shown: the leaves that were there.
        statements: verified ones, by height.
    """

    bundle: Bundle
    paths: Paths
    head: Head
    book: Rulebook
    reads: Mapping[bytes, bytes]
    shown: Mapping[bytes, WitnessRow]
    transaction: Transaction
    decision: Decision
    statements: Mapping[int, Statement]


def judge(case: Case, chain: bytes) -> bool:
    """Run the executor on the witness; return False where the outcome is only attested.

    Raises:
        ProofError: it comes to something else than is certified.
        NotShownError: it needs what is not shown.
        FailedError: of the stage ``writes``.
    """
    decision, header, head = case.decision, case.decision.header, case.head
    if decision.code in ATTESTED:
        if case.bundle.fresh:
            with stage("writes"):
                raise ProofError("salts of leaves that a refused transaction did not write")
        return False
    ledger = FixedRules(chain, head.limits, head.committee)
    in_force = {}
    for domain, number, _, active in case.bundle.rules:
        if active:
            kh = case.paths("rules", [domain, number])
            in_force[domain] = RulesInForce(number, kh, case.reads.get(kh, ZERO))
    ledger.fixed = Rules(case.book, in_force, {}, INT64_MIN, INT64_MAX, (), header.executor)
    context = BlockContext(
        case.statements[header.height].epoch,
        header.height,
        header.time_ms,
        header.executor,
        _history(case.statements),
    )
    failure: ProofError | None = None
    for attested in _attested(case):
        run = Judging(ledger, Witness(case.shown, attested, case.paths.pool), context)
        try:
            _compare(_run(run, case.transaction, decision), decision)
        except ProofError as error:
            failure = failure or error
            continue
        except (DecodeError, LocalProtocolError) as error:
            # An account that had other than is tried here may lead to what was never read.
            failure = failure or ProofError(f"the rules cannot be run on it: {error.message}")
            continue
        with stage("writes"):
            _writes(case, run)
        return True
    raise failure or ProofError("there is nothing to run")


def _attested(case: Case) -> Iterator[dict[bytes, Balance]]:
    """Yield what accounts that were found and not looked into may have been like.

    Of an applied transaction, exactly what its moves took: a reversal debits no more than there
    is, so that is also all there was where it was short. Otherwise enough for everything; or
    for nothing, since a proposal is stored whether its moves are possible by now or not. The
    holds that matter are in the witness; others are of a scope that no account is used in.
    """
    needed: dict[bytes, int] = {}
    running: dict[bytes, int] = {}
    for _, id_, delta in _moves(case.decision):
        kh = case.paths("account", id_)
        running[kh] = running.get(kh, 0) + delta
        needed[kh] = max(needed.get(kh, 0), -running[kh])
    applied = case.decision.header.state == decisions.APPLIED
    for enough in (0,) if applied else (PLENTY, 0):
        for idle in (0, EDIT):
            found: dict[bytes, Balance] = {}
            for id_ in case.bundle.attested:
                kh = case.paths("account", id_)
                family = case.book.families.get(str(id_[0]))
                if family is None:
                    raise ProofError(f"no rule set shown has the account {id_}")
                row = case.shown.get(case.paths("holds", ["account", id_]))
                held = idle if row is None else HoldsIndex(*_single(row)).held
                found[kh] = Balance(id_, family.floor + needed.get(kh, enough), 0, held)
            yield found
            if not found:
                return


def _writes(case: Case, run: Judging) -> None:
    """Check the hash of every leaf that the decision says was written."""
    entries = [
        row
        for name in case.decision.names
        if name.startswith("writes:")
        for row in _rows(case.decision.value(name))
    ]
    if len(entries) != len(case.bundle.fresh):
        raise ProofError("another number of written leaves than the decision names")
    for ((space, components), _, _, vh, _), fresh in zip(entries, case.bundle.fresh, strict=True):
        kh = case.paths(space, components)
        written = run.written(kh)
        before = case.shown.get(kh)
        if isinstance(written, StoredRecord):
            base = None if before is None else before.shown
            found = _record_hash(kh, base, written, fresh)
        else:
            version, _, value = decode_single(written)
            if len(fresh.salts) != SALT_BYTES or fresh.decoys:
                raise ProofError("a single leaf has one salt")
            found = salted.single_leaf(kh, version, fresh.salts, value)
        if found != vh:
            raise ProofError(f"run again, {space} {components} becomes something else")


def _history(statements: Mapping[int, Statement]) -> Callable[[int], bytes]:
    """Return the roots of the history of which statements are shown."""

    def root(size: int) -> bytes:
        found = statements.get(size)
        if found is None:
            raise NotShownError(f"the statement of height {size} is needed and not shown")
        return found.history_root

    return root


def _run(run: Judging, transaction: Transaction, decision: Decision) -> Decision | None:
    """Judge again what the decision was about: a transaction, or a proposal that was approved."""
    links: Any = decision.value("links") or []
    if any(what == "approval" for what, _ in links):
        return run.settle(transaction.txid)
    return run.judge(transaction)


def _compare(found: Decision | None, certified: Decision) -> None:
    """Compare what comes out with what is certified, but for the salts of what was written.

    Raises:
        ProofError: they differ; the message says where.
    """
    if found is None:
        raise ProofError("run again, the proposal still lacks approvals")
    ours, theirs = found.header, certified.header
    if (ours.state, ours.actions) != (theirs.state, theirs.actions):
        raise ProofError(f"run again, the outcome is {found.code.name}, under other actions")
    for name in sorted({*found.names, *certified.names}):
        one, other = found.leaves.get(name), certified.leaves.get(name)
        if name.startswith("writes:") and one is not None and other is not None:
            one, other = (_without_hashes(each.value(name)) for each in (found, certified))
        if one != other:
            said = ""
            if name == "code":
                said = f": {found.code.name} instead of {certified.code.name}"
            raise ProofError(f"run again, the decision differs in its {name}{said}")


def _without_hashes(value: Any) -> bytes:
    return codec.encode([[place, old, new, pairs] for place, old, new, _, pairs in value])


def _rows(value: Any) -> list[Any]:
    return list(value)


def _moves(decision: Decision) -> list[tuple[int, list[Value], int]]:
    """Return position, account and change of what is at its disposal, in order."""
    found: list[tuple[int, list[Value], int]] = []
    for name in decision.names:
        if name.startswith("moves:"):
            for position, id_, delta, *reserved in _rows(decision.value(name)):
                found.append((position, id_, delta - (reserved[0] if reserved else 0)))
    return sorted(found, key=lambda row: (row[0], row[2] > 0))


def _record_hash(
    kh: bytes, base: StoredRecord | None, written: StoredRecord, fresh: Fresh
) -> bytes:
    """Return the value hash of a record as written, under the salts of the bundle."""
    places = renewed(base, written)
    salts = salted.split(fresh.salts, SALT_BYTES)
    if len(salts) != len(places) or len(fresh.salts) % SALT_BYTES:
        raise ProofError("another number of salts than of leaves that were written")
    hashes = bytearray(written.hashes)
    for index, salt in zip(places, salts, strict=True):
        leaf = written.leaf_at(index)
        at = index * DIGEST_BYTES
        hashes[at : at + DIGEST_BYTES] = salted.leaf_hash(
            kh, leaf.name, leaf.version, salt, leaf.value_cbor
        )
    drawn = base is None or written.decoys != base.decoys
    decoys = fresh.decoys if drawn else written.decoys
    if len(fresh.decoys) != (len(written.decoys) if drawn else 0):
        raise ProofError("another number of decoys than the write draws")
    return salted.joined_root(salted.RECORD, written.header, bytes(hashes), decoys)


def _single(row: WitnessRow) -> Any:
    return codec.parse(decode_single(row.value)[2], "leaf")
