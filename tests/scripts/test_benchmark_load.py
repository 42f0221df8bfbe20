"""What ``scripts/bench`` sends: signed by all who are named, and applied under its rules."""

from __future__ import annotations

from pathlib import Path

from consensus import genesis
from consensus.ledger.codes import Code
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.group import single_messages
from consensus.ledger.ledger import of_genesis
from consensus.ledger.transaction import Transaction, decode_envelope
from consensus.signing import verify
from consensus.state.state import MemoryBackend, State
from scripts import benchmark
from scripts.benchmark_load import Load, transfer


def test_transfers_of_all_loads_are_signed_and_applied(tmp_path: Path) -> None:
    network, authors = benchmark._wallets(tmp_path / "network")
    approvers = [network.key(each.agency, each.name) for each in benchmark.APPROVERS]
    founded = genesis.decode(network.genesis)
    chain = genesis.chain_id(network.genesis)
    state = State(MemoryBackend(), founded.tree_depth, -1)
    state.apply(genesis_state(founded))
    ledger = of_genesis(founded)
    book = ledger.rules(state, founded.time_ms).book
    plain = Load(chain, authors, book, founded.time_ms)
    later = Load(chain, authors, book, founded.time_ms, benchmark.USED)
    agreed = transfer(2, "transfer_agreed")
    parcels = [
        plain.single(0, transfer(1)),
        later.cosigned(0, agreed, approvers),
        later.cosigned(1, agreed, approvers[:1]),
        later.single(2, agreed),
    ]
    transactions: list[Transaction] = []
    for parcel in parcels:
        transaction = decode_envelope(chain, parcel.data)
        assert parcel.txids == (transaction.txid,)
        for key, message, signature in single_messages(chain, transaction):
            verify(key, message, signature)
        transactions.append(transaction)
    assert [len(each.signers) for each in transactions] == [1, 3, 2, 1]
    context = BlockContext(founded.committee.epoch, 1, founded.time_ms + 1, EXECUTOR)
    decisions = BlockRun(ledger, state, context, transactions).finish().decisions
    missing = Code.NEEDS_APPROVAL
    assert [each.code for each in decisions] == [Code.APPLIED, Code.APPLIED, missing, missing]
