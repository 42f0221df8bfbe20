"""A certified state of many records, made without a network, and what snapshots of it take.

    export     the file written, with every hash of the state computed
    verify     every row checked, with all cores, as an auditor does
    import     the same, and a new node's store with its index written

Records are entitlements of eight fields: of fewer it would be sooner. The state is signed by
a quorum of a network's validators, whose keys the founding wrote.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import nacl.bindings

from comity import snapshots
from comity.founding import CONFIG_NAME, GENESIS_NAME
from consensus import codec, genesis
from consensus.genesis import Genesis
from consensus.hashing import context
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert, QuorumCert, Statement
from consensus.keyfile import KeyKind
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.layout import Paths
from consensus.signing import SIGNATURE_BYTES, TAG_COMMIT_VOTE, message
from consensus.state import salted
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.record import create, encode_row
from consensus.state.tree import Tree
from node import keyfiles
from node.flushing import META_NUMBERS
from node.snapshots.export import export
from node.snapshots.importing import import_file
from node.storage.bulk import Beginning, Rows
from node.storage.store import Store
from scripts.localnet import ROOT, LocalNetwork, found

RECORDS: Final = 1_000_000
TREE_DEPTH: Final = 20
HEIGHT: Final = 5
WRITTEN_TOGETHER: Final = 100_000
FLUSHED_TOGETHER: Final = 256
RULES: Final = (ROOT / "configs/rules/charter.toml",)

_pool = context("benchmark pool")


def snapshot_figures() -> dict[str, Any]:
    """Return the figures of RECORDS records; some three gigabytes are written for a while."""
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        return measure(Path(temporary))


def measure(folder: Path, records: int = RECORDS) -> dict[str, Any]:
    """Return seconds and records a second of each part."""
    network, founded = _founded(folder / "network")
    begin = time.perf_counter()
    store = folder / "given"
    certified_store(store, network, founded, records)
    made = time.perf_counter() - begin
    chain = genesis.chain_id(founded.encode())
    file = folder / "made.snapshot"

    def silent(done: int, of: int) -> None:
        pass

    seconds: dict[str, float] = {}
    begin = time.perf_counter()
    written = export(store, founded.encode(), file, silent)
    seconds["export"] = time.perf_counter() - begin
    begin = time.perf_counter()
    verified = snapshots.verify(file, chain, silent)
    seconds["verify"] = time.perf_counter() - begin
    config = folder / "network" / network.agencies[-1] / CONFIG_NAME
    begin = time.perf_counter()
    imported = import_file(file, config, silent, new_key=True)
    seconds["import"] = time.perf_counter() - begin
    if verified.entries != imported.entries or imported.entries < records:
        raise SystemExit("a snapshot lost records")
    return {
        "records": records,
        "bytes": written.size_bytes,
        "chunks": written.chunks,
        "made_seconds": round(made, 1),
        **{f"{name}_seconds": round(each, 2) for name, each in seconds.items()},
        **{f"{name}_per_s": round(records / each) for name, each in seconds.items()},
        "cores": os.cpu_count(),
    }


def _founded(folder: Path) -> tuple[LocalNetwork, Genesis]:
    """Found a network whose tree is as deep as so many records ask for."""
    network = found(folder, RULES)
    return network, deepen(network)


def deepen(network: LocalNetwork) -> Genesis:
    """Give a founded network a tree as deep as so many records ask for; return its genesis."""
    founded = replace(genesis.decode(network.genesis), tree_depth=TREE_DEPTH)
    for each in (network.folder, *network.folder.glob("*/")):
        (each / GENESIS_NAME).write_bytes(founded.encode())
    return founded


def certified_store(
    folder: Path, network: LocalNetwork, founded: Genesis, records: int, height: int = HEIGHT
) -> tuple[Block, CommitCert]:
    """Write a node's store of the founded state and so many records, at a height.

    Returns:
        The block of that height, and the certificate on it by all validators but the last.
    """
    chain = genesis.chain_id(founded.encode())
    store = Store.open(folder, chain=chain)
    rows: list[tuple[bytes, bytes]] = []
    for row in _rows(founded, Paths(chain), records, height):
        rows.append(row)
        if len(rows) == WRITTEN_TOGETHER:
            store.write_bulk(Rows(rows))
            rows = []
    store.write_bulk(Rows(rows))
    tree = Tree(founded.tree_depth, store.state.page, height)
    tree.build(store.state.entries())
    history, below = _past(height)
    committee = founded.committee
    justify = QuorumCert(1, height - 1, bytes(32), height - 1, ())
    time_ms = founded.time_ms + height
    block = Block(1, height, height, bytes(32), justify, None, time_ms, (), committee.hash)
    statement = Statement(
        chain, 1, height, height, block.id, time_ms, 1, tree.root(),
        bytes(32), bytes(32), history.root(), None,
    )  # fmt: skip
    signed = message(TAG_COMMIT_VOTE, chain, statement.encode())
    certificate = CommitCert(statement, tuple(quorum_signatures(network, signed)))
    store.write_bulk(
        Beginning(
            height=height,
            block=codec.encode([wire.encode_block(block), statement.encode()]),
            certificate=wire.encode_commit_cert(certificate),
            history=below,
            meta=[(META_NUMBERS, codec.encode([0] * committee.size))],
        )
    )
    store.close()
    return block, certificate


def _past(height: int) -> tuple[HistoryTree, list[tuple[int, int, bytes]]]:
    """Return a history of as many statements, which say nothing, with its nodes."""
    nodes = MemoryNodes()
    history = HistoryTree(nodes)
    kept: list[tuple[int, int, bytes]] = []
    for number in range(height):
        history.append(number.to_bytes(32, "big"))
        if number % FLUSHED_TOGETHER == 0 or number == height - 1:
            found = history.pending(number)
            nodes.write(found)
            history.flushed(number)
            kept += [(*place, hash_) for place, hash_ in found]
    return history, kept


def quorum_signatures(network: LocalNetwork, signed: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield signatures of the validators of four agencies, all but the last, over a message."""
    for index, member in enumerate(network.members[:3]):
        pair = keyfiles.load(network.key_file(member.name, "validator"), KeyKind.VALIDATOR)
        _, secret = nacl.bindings.crypto_sign_seed_keypair(pair.seed)
        yield index, nacl.bindings.crypto_sign(signed, secret)[:SIGNATURE_BYTES]


def _rows(founded: Genesis, paths: Paths, records: int, at: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the rows of a store, ascending by key, all written at one height."""
    height = at.to_bytes(8, "big")
    rows = {each.kh: height + each.vh + each.row for each in genesis_state(founded)}
    numbers = {paths("record", ["entitlement", _token(n)]): n for n in range(records)}
    for kh in sorted([*rows, *numbers]):
        if kh in rows:
            yield kh, rows[kh]
        else:
            vh, row = _entitlement(kh, numbers[kh])
            yield kh, height + vh + row


def _token(number: int) -> bytes:
    return _pool(number.to_bytes(8, "big"))


def _entitlement(kh: bytes, number: int) -> tuple[bytes, bytes]:
    person = _token(number + 1)
    values: Sequence[tuple[str, Any]] = (
        ("amount", 40_000 + number % 10_000),
        ("basis", [[["person", [person]], "status", 1]]),
        ("by", [["created", person, "social", number]]),
        ("person", [person]),
        ("programme", "child benefit"),
        ("region", "north" if number % 2 else "south"),
        ("since", 24_312),
        ("status", "active"),
    )
    encoded = {name: codec.encode(value) for name, value in values}
    salts = salted.salts(person, kh, len(encoded))
    stem = codec.encode(["entitlement", 1, [_token(number)]])[1:]
    record, vh = create(kh, stem, encoded, salts)
    return vh, encode_row(record)
