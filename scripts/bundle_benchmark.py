"""Measure what evidence bundles cost, in this process: a payment with two approvals.

    bytes       of the file, and without the rule sets' text
    make        judging the decision again on the rows before it, and writing the file
    verify      from the genesis hash alone: the first time, with the rules to compile and every
                signature to check, and again
    state proof of one key: bytes, making and checking

Times are processor time, the best of several repetitions. The state has as many records as asked
for; of the million of the state proof only the tree is made.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from comity.keys import Key
from consensus import genesis, keyfile, signing
from consensus.codec import Value
from consensus.evidence import trust, verify
from consensus.evidence.bundle import Bundle, Sealed
from consensus.evidence.making import Decided, Prepared, Proved, prepare
from consensus.hashing import context
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.transaction import Expect, Transaction
from consensus.signing import TAG_COMMIT_VOTE, message
from consensus.state import proof
from consensus.state.merkle import RESULTS
from consensus.state.state import MemoryBackend, Row, State
from scripts.executor_benchmark import Bench
from scripts.stopwatch import best_us

RECORDS: Final = 20_000
KEYS: Final = 1_000_000
"""Of the tree whose proof is measured."""
DEPTH: Final = 20
"""What a network of a million records is founded with."""
REPETITIONS: Final = 40
QUORUM: Final = 3

_path = context("benchmark key")


def bundle_figures(records: int = RECORDS, keys: int = KEYS) -> dict[str, Any]:
    """Return bytes, and microseconds of processor time."""
    with TemporaryDirectory() as folder:
        bench = _Payments(Path(folder) / "network")
        bench.enter(records)
        found = bench.figures()
    return {"records": records, **found, "state_proof": _state_proof(keys)}


class _Rows:
    """The rows of the executor's state as they were before a block: of those it reads."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: dict[bytes, Row | None] = {}

    def get(self, kh: bytes) -> Row | None:
        if kh not in self._kept:
            self._kept[kh] = self._state.get(kh)
        return self._kept[kh]


class _Payments(Bench):
    """A ledger with certified heights, on which payments are approved by two people."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._encoded = (folder / "genesis.cbor").read_bytes()
        founded = genesis.decode(self._encoded)
        self._validators = [
            keyfile.read((folder / each.agency / "keys/validator.key").read_bytes(), None)
            for each in founded.committee.validators
        ]

    def figures(self) -> dict[str, Any]:
        """Return the figures of bundles."""
        prepared, remake, before = self._payment()
        proved = self._proved(prepared)
        data = Sealed(prepared.bundle(proved).content()).encode()
        bundle = prepared.bundle(proved)
        texts = sum(len(text) for _, _, text, _ in bundle.rules)
        chain = self._ledger.chain

        def afresh() -> None:
            verify._compiled.cache_clear()
            verify._root_of.cache_clear()
            trust._verify = trust.remembering(signing.verify)
            verify.verify(data, chain)

        if not verify.verify(data, chain).judged:
            raise SystemExit("the bundle is not judged again")
        return {
            "bytes": len(data),
            "bytes_without_rules": len(data) - texts,
            "make_us": best_us(lambda: self._make(remake(before), proved), REPETITIONS),
            "verify_first_us": best_us(afresh, REPETITIONS),
            "verify_again_us": best_us(lambda: verify.verify(data, chain), REPETITIONS),
        }

    def _make(self, prepared: Prepared, proved: Proved) -> bytes:
        made: Bundle = prepared.bundle(proved)
        return Sealed(made.content()).encode()

    def _payment(self) -> tuple[Prepared, Callable[[_Rows], Prepared], _Rows]:
        """Pay once; return the bundle but for what is newest, and what makes it once more."""
        payment = self._draft(
            "clerk",
            "desk.pay_approved",
            [7],
            7,
            1,
            2,
            expects=[Expect("item", [7], 1), Expect("payment", [7], 0)],
            cosigners=("controller", "auditor"),
        )
        signed = self._signed(payment.transaction, payment.message)
        before = _Rows(self._state)
        decided, context_ = self._decide(signed, before)
        self._height -= 1
        self._applied([payment])

        def again(rows: _Rows) -> Prepared:
            return prepare(self._ledger.apart(), rows, context_, decided)

        return again(before), again, before

    def _signed(self, transaction: Transaction, signed: bytes) -> Transaction:
        keys = {each.public: each for each in self._keys.values()}
        return transaction.signed([keys[key].sign(signed) for key in transaction.signers])

    def _decide(self, transaction: Transaction, rows: _Rows) -> tuple[Decided, BlockContext]:
        """Judge the payment on the rows before it, which are kept that way."""
        self._height += 1
        self._now_ms += 1
        found = BlockContext(self._epoch, self._height, self._now_ms, 1)
        run = BlockRun(self._ledger.apart(), rows, found, [transaction])
        decision: Decision = run.finish().decisions[0]
        self._now_ms -= 1
        decided = Decided(decision, [decision.root], [transaction], transaction)
        prepare(self._ledger.apart(), rows, found, decided)
        return decided, found

    def _proved(self, prepared: Prepared) -> Proved:
        places: list[tuple[str, list[Value]]] = [(s, list(c)) for s, c in prepared.places]
        khs = [self._ledger.paths(space, components) for space, components in places]
        found = [self._state.get(kh) for kh in khs]
        zero = bytes(32)
        header = prepared.decided.decision.header
        results = RESULTS.root(prepared.decided.roots)
        statement = Statement(
            self._ledger.chain, 1, 1, header.height, zero, header.time_ms, 1,
            self._state.root, results, zero, zero, None,
        )  # fmt: skip
        signed = message(TAG_COMMIT_VOTE, self._ledger.chain, statement.encode())
        votes = tuple((each, Key(self._validators[each]).sign(signed)) for each in range(QUORUM))
        proved = self._state.prove(khs)
        return Proved(
            genesis.split(self._encoded),
            (),
            wire.encode_commit_cert(CommitCert(statement, votes)),
            lambda height: None,
            header.height,
            proved.encode(),
            [None if row is None else row.value for row in found],
        )


def _state_proof(keys: int) -> dict[str, Any]:
    """Return bytes and microseconds of the proof of one key among so many."""
    state = State(MemoryBackend(), DEPTH, -1)
    value = bytes(range(32))
    paths = [_path(each.to_bytes(4, "big")) for each in range(keys)]
    state.apply([(kh, value, b"") for kh in paths])
    sample = paths[:: max(1, keys // 1000)]
    sizes = [len(state.prove([kh]).encode()) for kh in sample]
    kh = sample[len(sample) // 2]
    data = state.prove([kh]).encode()
    return {
        "keys": keys,
        "bytes_median": statistics.median(sizes),
        "bytes_99": sorted(sizes)[len(sizes) * 99 // 100],
        "make_us": best_us(lambda: state.prove([kh]).encode(), 400),
        "check_us": best_us(lambda: proof.verify(data, state.root, [kh]), 400),
    }
