"""The certified log, read from an audit file by a second reader that trusts nothing in it.

Written from docs/formats/audit.md and docs/protocol alone, with its own hashing and verification;
it imports nothing of the product. What it returns is certified: the newest certificate has a quorum
of the committee that the genesis file names, every statement lies under its history root, every
decision under its statement's results root, and every decision is of a transaction in the block's
batches, whose digests the block names, whose id the certified statement has. Committees follow one
another from the genesis file's: each is named by a statement that a quorum of the one before has
certified, and judges the heights of its own epoch alone.

Not here: executing anything.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cbor2
from blake3 import blake3
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

PREFIX = b"COMITYAU\0\0\0\1"
HEADER, HEIGHT, END, EPOCH = 1, 2, 4, 6
PROPOSED = 1
"""Code of a stored proposal (docs/protocol/ledger.cddl)."""
HEAD_ENTRIES = (
    "magic", "version", "network", "time_ms", "executor", "tree_depth", "limits", "committee",
)  # fmt: skip


class Broken(Exception):
    """The file is not what a network certified; the message says where."""


@dataclass(frozen=True)
class Outcome:
    """One decision: ``code`` is the number in docs/protocol/ledger.cddl."""

    txid: bytes
    index: int
    code: int
    root: bytes


@dataclass(frozen=True)
class Height:
    """One certified height and its decisions in their order."""

    height: int
    statement: bytes
    outcomes: tuple[Outcome, ...]
    signers: frozenset[int] = frozenset()
    """Validators in the certificate on this height itself; none where it has no own."""
    epoch: int = 1


@dataclass(frozen=True)
class Chain:
    """All heights from 0 to the newest that a certificate vouches for."""

    chain: bytes
    heights: tuple[Height, ...]


def digest(purpose: str, *parts: bytes) -> bytes:
    """BLAKE3 in its mode of key derivation, one context a purpose."""
    return blake3(b"".join(parts), derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def u64(number: int) -> bytes:
    """Eight bytes, big-endian."""
    return number.to_bytes(8, "big")


def encode(value: object) -> bytes:
    """Deterministic CBOR."""
    return cbor2.dumps(value, canonical=True)


def count_root(purpose: str, leaves: Sequence[bytes]) -> bytes:
    """The root of a 4-ary tree that binds its count (docs/formats/state.md)."""
    level = [
        digest(f"{purpose} leaf", *leaves[at : at + 4]) for at in range(0, len(leaves), 4)
    ] or [bytes(32)]
    while len(level) > 1:
        level = [
            digest(f"{purpose} node", b"".join(level[at : at + 4]).ljust(128, b"\0"))
            for at in range(0, len(level), 4)
        ]
    return digest(f"{purpose} root", u64(len(leaves)), level[0])


class History:
    """The tree over all statements so far, as its complete subtrees (RFC 9162, section 2.1)."""

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, statement_hash: bytes) -> None:
        """Append a leaf."""
        self._size += 1
        self._peaks.append((1, digest("history leaf", statement_hash)))
        while len(self._peaks) > 1 and self._peaks[-1][0] == self._peaks[-2][0]:
            (size, left), (_, right) = self._peaks[-2:]
            self._peaks[-2:] = [(2 * size, digest("history node", left, right))]

    def root(self) -> bytes:
        """The root over what was added."""
        top = bytes(32)
        for number, (_, peak) in enumerate(reversed(self._peaks)):
            top = digest("history node", peak, top) if number else peak
        return digest("history root", u64(self._size), top)


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kinds and payloads of the file's frames, each checked."""
    if data[:12] != PREFIX:
        raise Broken("not an audit file")
    file, before = io.BytesIO(data[12:]), bytes(16)
    while head := file.read(21):
        length, kind, check = int.from_bytes(head[:4], "big"), head[4], head[5:]
        payload = file.read(length)
        before = digest("audit frame", before, bytes([kind]), payload)[:16]
        if len(payload) != length or before != check:
            raise Broken(f"a frame of kind {kind} is damaged at offset {file.tell() + 12}")
        yield kind, payload


def read(path: Path, genesis: bytes | None = None) -> Chain:
    """Read a file from height 0 on; ``genesis`` is the file whose network is expected."""
    parts = list(frames(path.read_bytes()))
    inner = [kind for kind, _ in parts[1:-1]]
    if (parts[0][0], parts[-1][0]) != (HEADER, END) or not set(inner) <= {HEIGHT, EPOCH}:
        raise Broken("header, heights with epochs between them, and an end are expected")
    founded, first, _ = cbor2.loads(parts[0][1])
    if first != 0 or (genesis is not None and founded != genesis):
        raise Broken("another network, or not from its beginning")
    reader = Reader(founded)
    for kind, payload in parts[1:-1]:
        if kind == EPOCH:
            reader.begin(*cbor2.loads(payload))
        else:
            reader.take(cbor2.loads(payload))
    return reader.finish()


class Reader:
    """Takes heights one by one."""

    def __init__(self, genesis: bytes) -> None:
        file = cbor2.loads(genesis)
        head = {name: file[name] for name in HEAD_ENTRIES}
        contents = {name: part for name, part in file.items() if name not in head}
        self.chain = digest("genesis", encode(head), digest("genesis contents", encode(contents)))
        self._seat(file["committee"])
        self._ending: bytes | None = None  # what names the next committee
        self._history = History()
        self._heights: list[Height] = []
        self._certified = -1
        self._proposed: set[bytes] = set()  # what is decided a second time, later

    def _seat(self, committee: list[Any]) -> None:
        """Have the heights that follow judged by a committee."""
        self._epoch = committee[0]
        self._keys = [row[1] for row in committee[1]]
        self._quorum = len(self._keys) - (len(self._keys) - 1) // 3

    def begin(self, certificate: bytes, committee: list[Any]) -> None:
        """Check an audit-epoch: the committee that the height before has elected."""
        if self._ending is None:
            raise Broken(f"height {len(self._heights) - 1} did not end an epoch")
        about, _ = said = cbor2.loads(certificate)
        if digest("committee", encode(committee)) != about[11] or committee[0] != self._epoch + 1:
            raise Broken(f"another committee follows epoch {self._epoch} than was elected")
        self._certified = len(self._heights) - 1
        self._check(self._certified, self._ending, said)
        self._seat(committee)
        self._ending = None

    def take(self, recorded: list[Any]) -> None:
        """Check one audit-height below everything that a certificate must still vouch for."""
        height, block, statement, certificate, batches, decisions, _ = recorded
        if height != len(self._heights):
            raise Broken(f"height {height} after {len(self._heights) - 1}")
        said = cbor2.loads(statement)
        if said[0] != self.chain or said[3] != height:
            raise Broken(f"the statement of height {height} is of another network or height")
        if self._ending is not None or said[1] != self._epoch or cbor2.loads(block)[0] != said[1]:
            raise Broken(f"height {height} is of another epoch than its committee")
        if height and said[10] != self._history.root():
            raise Broken(f"the statement of height {height} has another past")
        if digest("block id", block) != said[4]:
            raise Broken(f"the statement of height {height} is about another block")
        outcomes = self._outcomes(height, decisions, said[8])
        self._compare(height, cbor2.loads(block)[7], batches, outcomes)
        signers: frozenset[int] = frozenset()
        if certificate is not None:
            signers = self._check(height, statement, cbor2.loads(certificate))
            self._certified = height
        self._history.add(digest("statement", statement))
        self._heights.append(Height(height, statement, outcomes, signers, self._epoch))
        self._ending = None if said[11] is None else statement

    def finish(self) -> Chain:
        """All that is certified."""
        if self._certified < 1:
            raise Broken("no height is certified")
        return Chain(self.chain, tuple(self._heights[: self._certified + 1]))

    def _outcomes(self, height: int, encoded: bytes, root: bytes) -> tuple[Outcome, ...]:
        found = []
        for index, (txid, _, said, decision) in enumerate(cbor2.loads(encoded)):
            header, rows = cbor2.loads(decision)
            if cbor2.loads(header)[:3] != [txid, height, index]:
                raise Broken(f"decision {index} of height {height} is of another place")
            if decision_root(txid, height, index, header, rows) != said:
                raise Broken(f"decision {index} of height {height} has another root")
            code = next(cbor2.loads(value)[0] for name, _, value in rows if name == "code")
            found.append(Outcome(txid, index, code, said))
        if height and count_root("results", [each.root for each in found]) != root:
            raise Broken(f"the decisions of height {height} are not those certified")
        return tuple(found)

    def _compare(
        self,
        height: int,
        payload: list[list[Any]],
        batches: list[list[Any]],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Each batch is the one that the block names; each transaction of it is decided."""
        sent: list[bytes] = []
        for item, (public, _) in zip(payload, batches, strict=True):
            if digest("batch digest", public) != item[0]:
                raise Broken(f"height {height} has another batch than its block")
            for each in cbor2.loads(public)[1]:
                bodies = [each[0]] if len(each) == 2 else [row[0] for row in each[4]]
                sent += [digest("tx id", self.chain, body) for body in bodies]
        if not set(sent) <= {each.txid for each in outcomes}:
            raise Broken(f"height {height} leaves a transaction undecided")
        if height and not {each.txid for each in outcomes} <= self._proposed.union(sent):
            raise Broken(f"height {height} decides what nobody sent")
        self._proposed.update(each.txid for each in outcomes if each.code == PROPOSED)

    def _check(self, height: int, statement: bytes, certificate: list[Any]) -> frozenset[int]:
        about, signatures = certificate
        signers = [index for index, _ in signatures]
        ascending = sorted(set(signers)) == signers and signers[:1] >= [0]
        if encode(about) != statement or not ascending:
            raise Broken(f"the certificate of height {height} is about something else")
        if len(signers) != self._quorum:
            raise Broken(f"the certificate of height {height} has {len(signers)} signatures")
        for index, signature in signatures:
            try:
                signed = b"comity commit vote\0" + self.chain + statement
                VerifyKey(self._keys[index]).verify(signed, signature)
            except (BadSignatureError, IndexError) as error:
                raise Broken(f"a signature on height {height} does not verify") from error
        return frozenset(signers)


def decision_root(
    txid: bytes, height: int, index: int, header: bytes, rows: Sequence[Sequence[Any]]
) -> bytes:
    """The hash of a decision of up to 16 leaves, from all of them."""
    kh = digest("decision slot", txid, u64(height), u64(index))
    if len(rows) > 16:
        raise Broken("a decision of more leaves than this reader knows")
    leaves = [
        digest("field", encode([kh, name, 0]), digest("value", salt, value))
        for name, salt, value in rows
    ]
    return digest("decision root", header, *leaves)
