"""Measure what disclosing costs, in this process: size of a field, making and checking a file.

    opened field   bytes that one field takes beyond state proof and act, its value left out
    make           the file, from rows, proof and certificate at hand
    check          the file, from the genesis hash alone; again, with its signatures known

Times are processor time, best of several repetitions. The state has as many records as asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import nacl.bindings

from consensus import codec, genesis
from consensus.committee import Committee, Validator
from consensus.evidence import trust
from consensus.evidence.disclosure import verify
from consensus.evidence.disclosure_file import Body, Item, make_item
from consensus.genesis import Agency, Genesis, Limits, Principal
from consensus.hashing import context
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.disclosures import SPACE, Disclosure
from consensus.ledger.layout import Paths
from consensus.ledger.rules import encode_definition, load_toml
from consensus.signing import TAG_COMMIT_VOTE, message
from consensus.state import salted
from consensus.state.record import StoredRecord, encode_row
from consensus.state.state import MemoryBackend, State
from scripts.stopwatch import best_us

RECORDS: Final = 100_000
DEPTH: Final = 16
VALIDATORS: Final = 4
REPETITIONS: Final = 60
LEAVES: Final = (8, 12, 16, 20)
"""Of the records whose field is opened: the longest list; eight fields of one's own beside the
kernel's four; the largest tree without decoys; one with them."""
_PAYEE: Final = bytes(32)
_RULES: Final = 'domain = "charter"\nnumber = 1\nlegal_basis = "-"\n'

_seed = context("benchmark seed")


def disclosure_figures(records: int = RECORDS) -> dict[str, Any]:
    """Return the figures: bytes, and microseconds of processor time."""
    bench = _Bench(records)
    found: dict[str, Any] = {"records": records, "state_proof_bytes": len(bench.proof(LEAVES[0]))}
    found["opened_field_bytes"] = {str(each): bench.opened_bytes(each) for each in LEAVES}
    body = bench.body(LEAVES[0])
    data = body.encode(*bench.head)
    found["file_bytes"] = len(data)
    found["make_us"] = best_us(lambda: bench.body(LEAVES[0]).encode(*bench.head), REPETITIONS)
    found["check_again_us"] = best_us(lambda: verify(data, bench.chain), REPETITIONS)
    found["check_us"] = best_us(lambda: bench.check_afresh(data), REPETITIONS)
    return found


class _Bench:
    """A certified state with a disclosure of one record of each size."""

    def __init__(self, records: int) -> None:
        self._keys = [
            nacl.bindings.crypto_sign_seed_keypair(_seed(bytes([each])))
            for each in range(2 * VALIDATORS)
        ]
        encoded = self._genesis().encode()
        self.head = genesis.split(encoded)
        self.chain = genesis.chain_of(*self.head)
        self.paths = Paths(self.chain)
        self.state = State(MemoryBackend(), DEPTH, -1)
        self.shown = {count: self._record(count) for count in LEAVES}
        self.acts = {count: self._act(count) for count in LEAVES}
        self.state.apply([])
        self.state.apply(sorted(self._writes(records)))
        self.certificate = self._certify()

    def _genesis(self) -> Genesis:
        validators = tuple(
            Validator(
                f"agency{each}",
                self._keys[each][0],
                self._keys[VALIDATORS + each][0],
                b"-",
                "127.0.0.1",
                1,
                "127.0.0.1",
                2,
            )
            for each in range(VALIDATORS)
        )
        return Genesis(
            network="benchmark",
            time_ms=0,
            executor=1,
            tree_depth=DEPTH,
            limits=Limits(),
            committee=Committee(1, validators),
            agencies=tuple(Agency(each.agency, each.agency) for each in validators),
            principals=(Principal(_PAYEE, "agency0", genesis.SYSTEM),),
            keys=((self._keys[0][0], _PAYEE),),
            roles=(),
            rules=(encode_definition(load_toml(_RULES)),),
            accounts=(),
        )

    def _record(self, count: int) -> StoredRecord:
        """Return a record of ``count`` leaves, which are all numbers."""
        names = tuple(f"field{each:02}" for each in range(count))
        kh = self.paths("record", ["thing", count])
        decoys = salted.decoy_count(count)
        salts = [_seed(bytes([count, each]))[: salted.SALT_BYTES] for each in range(count + decoys)]
        values = tuple(codec.encode(each) for each in range(count))
        columns = dict(zip(names, values, strict=True))
        hashes = salted.leaf_hashes(kh, 1, columns, salts)
        stem = codec.encode("thing") + codec.encode(1) + codec.encode([count])
        return StoredRecord(
            stem,
            1,
            names,
            (1,) * count,
            b"".join(salts[:count]),
            b"".join(hashes),
            values,
            b"".join(salted.decoys(salts[count:])),
        )

    def _act(self, count: int) -> tuple[Disclosure, bytes]:
        id_ = _seed(b"act" + bytes([count]))
        audience = ["party", "District Court"]
        words = ("case 12", "Courts Act s 4", 1, 2**40)
        act = Disclosure(id_, "thing", [count], 1, ["field03"], audience, *words, _PAYEE, "agency0")
        return act, _seed(id_)[: salted.SALT_BYTES]

    def _writes(self, records: int) -> list[tuple[bytes, bytes, bytes]]:
        writes = [
            (self.paths("record", ["other", each]), _seed(each.to_bytes(4, "big")), b"")
            for each in range(records)
        ]
        for count, record in self.shown.items():
            kh = self.paths("record", ["thing", count])
            writes.append((kh, record.root(), encode_row(record)))
            act, salt = self.acts[count]
            leaf = self.paths(SPACE, [act.id])
            value = codec.encode(list(act))
            writes.append((leaf, salted.single_leaf(leaf, 1, salt, value), value))
        return writes

    def _certify(self) -> bytes:
        zero = bytes(32)
        roots = (self.state.root, zero, zero, zero)
        statement = Statement(self.chain, 1, 1, self.state.height, zero, 1, 1, *roots, None)
        signed = message(TAG_COMMIT_VOTE, self.chain, statement.encode())
        rows = [
            (each, nacl.bindings.crypto_sign(signed, self._keys[each][1])[:64])
            for each in range(VALIDATORS - 1)
        ]
        return wire.encode_commit_cert(CommitCert(statement, tuple(rows)))

    def proof(self, count: int) -> bytes:
        """Return the state proof of an act and its record."""
        act, _ = self.acts[count]
        keys = [self.paths(SPACE, [act.id]), self.paths("record", ["thing", count])]
        return self.state.prove(keys).encode()

    def body(self, count: int) -> Body:
        """Return what opens one field of a record of ``count`` leaves."""
        item = make_item(*self.acts[count], self.shown[count], None)
        items: Sequence[Item] = [] if item is None else [item]
        return Body([], self.certificate, [], self.proof(count), items)

    def opened_bytes(self, count: int) -> int:
        """Return what opening a field adds beyond proof, act and the value itself."""
        (item,) = self.body(count).items
        _, _, definition, leaves, shown, salts, hashes, _ = item.to_value()
        parts = (definition, leaves, shown, salts, hashes)
        return sum(len(codec.encode(each)) for each in parts) - len(codec.encode(shown[2]))

    def check_afresh(self, data: bytes) -> None:
        """Verify a file as somebody who has not seen its signatures."""
        known: Any = trust._verify
        known.cache_clear()
        verify(data, self.chain)


def main() -> None:
    """Print the figures."""
    for name, value in disclosure_figures().items():
        print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
