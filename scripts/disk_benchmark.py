"""What a decision and a height leave on a node's disk and cost between agencies, in bytes.

    python -m scripts.disk_benchmark [--json]

    transfers_N   transfers between 2,000 wallets, N in a block
    disburse_N    payments of the benefits programme, N in a block
    idle          heights in which nothing happens

Chains are made and certified here and written into a store as a node flushes it: state, what it
replaced, decisions, batches with their private parts, certificates, index. Bytes are those of pages
in use, from one moment of the store to a later one; they depend on no clock and no load. ``sent``
is what travels to each other agency for a transaction: its share of a batch, without TLS, votes and
certificates.

Not here: the node's log, which is turned and stays as large as what is not flushed (64 MiB), and
how many heights there are, which the load decides.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus.ledger.batch import Item
from consensus.ledger.codes import Code
from node.listed import index_entries
from node.storage.flush import FlushBatch
from node.storage.store import Store
from scripts.audit_benchmark import Ledger, payments, programme, transfer, wallets
from scripts.benefits import Act
from scripts.chainmaker import Chain, block_data

FLUSH_BLOCKS: Final = 8
"""As ``[tuning] flush_blocks``."""
IDLE_HEIGHTS: Final = 2_000
TRANSACTIONS: Final = {1: 1_000, 10: 4_000, 500: 8_000}
"""In all, by how many are in a block."""


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = figures()
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for name, each in found.items():
        print(f"{name:16}" + "  ".join(f"{key} {value:,}" for key, value in each.items()))
    return 0


def figures(scale: float = 1.0) -> dict[str, dict[str, int]]:
    """Return the figures of each load, with so many transactions."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        folder = Path(temporary)
        for block, count in TRANSACTIONS.items():
            count = int(count * scale) // block * block
            ledger = _stored(wallets(folder / f"t{block}"), folder / f"t{block}.store")
            acts: list[Act] = [(transfer(number), ()) for number in range(count)]
            found[f"transfers_{block}"] = _grown(ledger, acts, block)
        ledger = _stored(programme(folder / "d"), folder / "d.store")
        acts = payments(ledger, count)
        found[f"disburse_{block}"] = _grown(ledger, acts, block)
        found["idle"] = _idle(_stored(wallets(folder / "i"), folder / "i.store").chain, scale)
    return found


def _stored(ledger: Ledger, folder: Path) -> Ledger:
    """Return a ledger with a store, of the same network."""
    chain = StoredChain(ledger.chain.genesis, ledger.chain.keys)
    chain.keep(folder)
    ledger.chain = chain
    return ledger


def _grown(ledger: Ledger, acts: Sequence[Act], block: int) -> dict[str, int]:
    """Carry acts out; return what each of the second half left, and what was sent for one."""
    chain = ledger.chain
    assert isinstance(chain, StoredChain)
    groups = [acts[at : at + block] for at in range(0, len(acts), block)]
    middle, sent, before = len(groups) // 2, 0, 0
    for number, group in enumerate(groups):
        if number == middle:
            before = chain.settled_bytes()
        sent += chain.add([ledger.item(*act) for act in group])
    left = chain.settled_bytes() - before
    later = sum(len(group) for group in groups[middle:])
    chain.kept.close()
    return {"disk_bytes": round(left / later), "sent_bytes": round(sent / len(acts))}


def _idle(chain: Chain, scale: float) -> dict[str, int]:
    assert isinstance(chain, StoredChain)
    heights = int(IDLE_HEIGHTS * scale)
    for _ in range(heights // 2):
        chain.add()
    before = chain.settled_bytes()
    for _ in range(heights // 2):
        chain.add()
    left = chain.settled_bytes() - before
    chain.kept.close()
    return {"disk_bytes_per_height": round(left / (heights // 2))}


class StoredChain(Chain):
    """A chain that goes into a store as a node's does."""

    def keep(self, folder: Path) -> Store:
        """Begin the store, with what the chain has already."""
        self.kept = Store.open(folder, chain=self.chain)
        self.stored = -1
        self.flush()
        return self.kept

    def add(self, items: Sequence[Item] = ()) -> int:
        """Execute a block; return the bytes of its batch."""
        recorded = self.block(items)
        if recorded.height % FLUSH_BLOCKS == 0:
            self.flush()
        if any(each.code != Code.APPLIED for each in self.decisions):
            raise SystemExit("acts were refused")
        return sum(len(public or b"") + len(private or b"") for public, private in recorded.batches)

    def settled_bytes(self) -> int:
        """Return how much of the store's file is in use once all is in it."""
        self.flush()
        return self.kept.used_bytes

    def flush(self) -> None:
        """Put what was executed into memory and, once it is open, into the store."""
        height = self.state.height
        if hasattr(self, "kept") and height > self.stored:
            rows, view, paths = self.state.pending(height), self.kept.view, self.ledger.paths
            blocks = self.recorded[self.stored + 1 : height + 1]
            self.kept.write(
                FlushBatch(
                    height=height,
                    rows=rows,
                    blocks=[block_data(each, self.applied[each.height]) for each in blocks],
                    history=[(*place, node) for place, node in self.history.pending(height)],
                    index=index_entries(rows, lambda kh: view.get(kh) is not None, paths),
                )
            )
            self.stored = height
        super().flush()


if __name__ == "__main__":
    sys.exit(main())
