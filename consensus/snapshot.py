"""A snapshot: the certified state of one height, in pieces that are checked one by one.

    file      = manifest, piece ...         each a CBOR byte string: head (its length), then bytes
    manifest  = {magic, version, genesis, contents, certificate, block, history, numbers,
                 key_count, depth, row, parts, epochs}                      canonical CBOR map

``epochs`` are the steps from the first committee to the one that signs the next height, where that
is another one; a manifest without them has version 1, one with them version 2.

The reader knows the chain and trusts nothing else. Ordering of the checks: length before bytes are
taken in; shape; the head of the genesis file and the hash of its contents give the chain, so the
committee in it is the first one; each step elects the next; the certificate is of a quorum; the
block is the one that the statement names; the history's frontier leads to ``history_root``; the row
of hashes leads to ``state_root``. Then each piece against its hash (``state.snapshot``) and each
row against its value hash (``ledger.stored``). The first piece that is not right is refused, by
its place.

``numbers`` alone is vouched for by nobody: per validator, the highest number of a batch delivered.
It tells a node that begins here where others' counting stands; a wrong one delays batches.

Source: design of snapshots after Firewood's range-edge bugs: no ranges but whole prefix subtrees.
Not here: files and links, and which node takes what from whom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from consensus import codec, genesis
from consensus.answers import EpochStep
from consensus.committee import COMMITTEE, VALIDATORS_MAX, Committee, from_value
from consensus.errors import DecodeError, ProofError
from consensus.evidence.trust import Chain
from consensus.genesis import EPOCH, HEAD_BYTES_MAX, Head
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import describes
from consensus.hotstuff.types import Block, CommitCert, Statement
from consensus.ledger.layout import Paths
from consensus.ledger.stored import check_rows
from consensus.state import snapshot as pieces
from consensus.state.history import HistoryTree, MemoryNodes, frontier_places
from consensus.state.snapshot import PIECE_BYTES_MAX, ROW_BITS_MAX, Chunk, Due, Split
from consensus.state.subtree import root_of_row
from consensus.state.tree import ENTRY_BYTES

MAGIC: Final = "comity snapshot"
VERSION: Final = 1
VERSION_EPOCHS: Final = 2
"""Of a manifest that shows later committees."""
ROW_BYTES_MAX: Final = DIGEST_BYTES << ROW_BITS_MAX
CERTIFICATE_BYTES_MAX: Final = 16 * 1024
HISTORY_MAX: Final = 63
MANIFEST_BYTES_MAX: Final = 2 * HEAD_BYTES_MAX + ROW_BYTES_MAX + wire.BLOCK_BYTES_MAX
"""The row, the head of the genesis file, one block and room for the rest: 4 MiB."""
EPOCHS_MAX: Final = 1024

_FIELDS: Final[dict[str, codec.Shape]] = {
    "magic": codec.text(32),
    "version": codec.integer(1),
    "genesis": codec.octets(low=1, high=HEAD_BYTES_MAX),
    "contents": codec.bytes32,
    "certificate": codec.octets(low=1, high=CERTIFICATE_BYTES_MAX),
    "block": codec.octets(low=1, high=wire.BLOCK_BYTES_MAX),
    "history": codec.list_of(codec.bytes32, HISTORY_MAX),
    "numbers": codec.list_of(codec.count, VALIDATORS_MAX, low=1),
    "key_count": codec.count,
    "depth": codec.integer(0, ROW_BITS_MAX),
    "row": codec.octets(low=DIGEST_BYTES, high=ROW_BYTES_MAX),
    "parts": codec.optional(codec.list_of(codec.count, 1 << ROW_BITS_MAX, low=1)),
}
_STEP: Final = codec.array(codec.octets(low=1, high=CERTIFICATE_BYTES_MAX), COMMITTEE)
_EPOCHS: Final = codec.list_of(_STEP, EPOCHS_MAX, low=1)
_SHAPE: Final = codec.mapping(_FIELDS)
_SHAPE_EPOCHS: Final = codec.mapping({**_FIELDS, "epochs": _EPOCHS})
_HEAD_EPOCHS: Final = bytes([0xA0 | len(_FIELDS) + 1])
"""How a map with one key more begins."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot says of itself.

    Args:
        genesis: head of the genesis file; ``contents``: hash of the rest.
        certificate: the commit certificate on the height; holds the statement.
        block: of the height.
        history: frontier of the history tree over all statements before.
        numbers: per validator, the highest batch number delivered up to the height.
        key_count: entries of the whole tree.
        depth: of the row of hashes.
        row: hashes of all nodes of that depth.
        parts: indices of the chunks that are here; None: all, with every row.
        epochs: the steps to the committee that signs the next height.
    """

    genesis: bytes
    contents: bytes
    certificate: bytes
    block: bytes
    history: tuple[bytes, ...]
    numbers: tuple[int, ...]
    key_count: int
    depth: int
    row: bytes
    parts: tuple[int, ...] | None = None
    epochs: tuple[EpochStep, ...] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        later: dict[str, codec.Value] = {}
        if self.epochs:
            later["epochs"] = [each.to_value() for each in self.epochs]
        return codec.encode(
            {
                **later,
                "magic": MAGIC,
                "version": VERSION_EPOCHS if self.epochs else VERSION,
                "genesis": self.genesis,
                "contents": self.contents,
                "certificate": self.certificate,
                "block": self.block,
                "history": list(self.history),
                "numbers": list(self.numbers),
                "key_count": self.key_count,
                "depth": self.depth,
                "row": self.row,
                "parts": None if self.parts is None else list(self.parts),
            }
        )


@dataclass(frozen=True, slots=True)
class Certified:
    """A manifest that was verified, and what it says. Only ``verify_manifest`` makes one."""

    manifest: Manifest
    chain: bytes
    head: Head
    certificate: CommitCert
    block: Block
    committees: tuple[Committee, ...]
    """Of all epochs up to that of the next height."""

    @property
    def committee(self) -> Committee:
        """Whose certificate it is."""
        return self.committees[self.statement.epoch - EPOCH]

    @property
    def statement(self) -> Statement:
        """What the certificate is on."""
        return self.certificate.statement

    @property
    def height(self) -> int:
        """The height whose state this is."""
        return self.statement.height

    @property
    def whole(self) -> bool:
        """Whether everything is here, so that a node can go on from it."""
        return self.manifest.parts is None

    @property
    def cut(self) -> Cut:
        """What checking its pieces takes."""
        depth, row_bits = self.head.tree_depth, self.manifest.depth
        time_ms = self.statement.time_ms
        return Cut(self.chain, depth, row_bits, self.height, self.whole, time_ms)

    def due(self, index: int) -> Due:
        """Return the node of one chunk."""
        at = index * DIGEST_BYTES
        return Due(1 << self.manifest.depth | index, self.manifest.row[at : at + DIGEST_BYTES])

    def chunks(self) -> list[Due]:
        """Return the nodes whose chunks are due, ascending; those without entries left out."""
        parts = self.manifest.parts
        indices = range(1 << self.manifest.depth) if parts is None else parts
        found = (self.due(index) for index in indices)
        return [due for due in found if due.hash != ZERO]

    def place(self, name: int) -> str:
        """Return how errors name a node."""
        return pieces.place_of(name, self.manifest.depth)

    def statement_nodes(self) -> list[tuple[tuple[int, int], bytes]]:
        """Return the nodes of the history tree with which a node goes on, the statement included.

        Cost: about 10 µs.
        """
        places = frontier_places(self.height)
        frontier = list(zip(places, self.manifest.history, strict=True))
        source = MemoryNodes()
        source.write(frontier)
        tree = HistoryTree(source, self.height)
        tree.append(self.statement.hash)
        return sorted({**dict(frontier), **dict(tree.pending(self.height))}.items())


def decode_manifest(data: bytes) -> Manifest:
    """Return the manifest in untrusted bytes, well-formed and no more.

    Raises:
        DecodeError: too long, of another shape or version, not canonical, or counts do not fit.
    """
    codec.refuse_crowd(data, "manifest")
    later = data[:1] == _HEAD_EPOCHS
    shape = _SHAPE_EPOCHS if later else _SHAPE
    value = codec.decode(data, shape, bytes_max=MANIFEST_BYTES_MAX, what="manifest")
    if value["magic"] != MAGIC:
        raise DecodeError("this is not a snapshot", path="manifest.magic")
    if value["version"] != (VERSION_EPOCHS if later else VERSION):
        reads = f"{VERSION}, or {VERSION_EPOCHS} with later committees"
        raise DecodeError(
            f"version {value['version']}; this software reads version {reads}",
            path="manifest.version",
            hint="install the release that made this snapshot",
        )
    depth, parts = value["depth"], value["parts"]
    if depth % 2:
        raise DecodeError("the depth is even (two bits a level)", path="manifest.depth")
    if len(value["row"]) != DIGEST_BYTES << depth:
        raise DecodeError(f"not one hash for each of {1 << depth} nodes", path="manifest.row")
    if parts is not None:
        rising = all(below < above for below, above in pairwise(parts))
        if not rising or parts[-1] >= 1 << depth:
            raise DecodeError("not ascending, or beyond the row", path="manifest.parts")
    return Manifest(
        genesis=value["genesis"],
        contents=value["contents"],
        certificate=value["certificate"],
        block=value["block"],
        history=tuple(value["history"]),
        numbers=tuple(value["numbers"]),
        key_count=value["key_count"],
        depth=depth,
        row=value["row"],
        parts=None if parts is None else tuple(parts),
        epochs=tuple(EpochStep(*each) for each in value.get("epochs", ())),
    )


def verify_manifest(manifest: Manifest, chain: bytes) -> Certified:
    """Return a manifest as verified for the network ``chain``.

    Raises:
        DecodeError: an item inside is malformed.
        VerificationError: of another network, or something in it does not lead to the certificate.

    Cost: about 0.3 ms a signature and 0.2 µs a hash of the row.
    """
    if genesis.chain_of(manifest.genesis, manifest.contents) != chain:
        raise ProofError(
            "the snapshot is of another network",
            hint="compare the hash of the genesis file with that of the other agencies",
        )
    head = genesis.decode_head(manifest.genesis)
    trust = Chain(chain, head.committee)
    trust.follow(manifest.epochs)
    certificate = trust.certificate(manifest.certificate)
    statement = certificate.statement
    ends = statement.next_committee_hash is not None
    if len(manifest.epochs) != statement.epoch - EPOCH + ends:
        raise ProofError("the steps do not lead to the committee of the next height")
    block = wire.decode_block(manifest.block)
    if block.id != statement.block_id or not describes(statement, block):
        raise ProofError("the block is not the one that the certificate is on")
    committees = (head.committee, *[from_value(each.committee) for each in manifest.epochs])
    if len(manifest.numbers) != committees[statement.epoch - EPOCH].size:
        raise DecodeError("not one number a validator", path="manifest.numbers")
    _check_history(manifest, statement)
    if manifest.depth > head.tree_depth:
        raise DecodeError("the row is deeper than the upper tree", path="manifest.depth")
    root = root_of_row(head.tree_depth, manifest.key_count, manifest.row)
    if root != statement.state_root:
        raise ProofError("the row of hashes does not lead to the certified state root")
    return Certified(manifest, chain, head, certificate, block, committees)


def _check_history(manifest: Manifest, statement: Statement) -> None:
    places = frontier_places(statement.height)
    if len(places) != len(manifest.history):
        raise ProofError(
            "the history's frontier has another number of hashes than its size asks for"
        )
    source = MemoryNodes()
    source.write(list(zip(places, manifest.history, strict=True)))
    if HistoryTree(source, statement.height).root() != statement.history_root:
        raise ProofError("the history's frontier does not lead to the certified history root")


class Piece(NamedTuple):
    """A chunk that came, not checked yet: what was due, and its untrusted bytes."""

    due: Due
    data: bytes


class Counted(NamedTuple):
    """What a checked chunk holds."""

    entries: int
    left_out: int


class Cut(NamedTuple):
    """What checking a piece takes, for whoever does it in another process.

    Args:
        chain: hash of the genesis file.
        tree_depth: D of genesis.
        row_bits: depth of the manifest's row.
        height: of the snapshot.
        whole: every row must be there.
        time_ms: chain time of the snapshot.
    """

    chain: bytes
    tree_depth: int
    row_bits: int
    height: int
    whole: bool
    time_ms: int


class Checker:
    """Checks pieces of one snapshot, each by itself; several may do so in parallel."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self.paths = Paths(cut.chain)

    def place(self, piece: Piece) -> str:
        """Return which chunk a piece is, for messages."""
        return pieces.place_of(piece.due.name, self._cut.row_bits)

    def chunk(self, piece: Piece) -> Chunk:
        """Return a checked chunk.

        Raises:
            DecodeError: malformed. VerificationError: it is not what the certificate vouches for.
                Both name the chunk.
        """
        due, data = piece
        where = self.place(piece)
        found = pieces.decode_piece(data, where)
        try:
            return self._chunk(found, due)
        except ProofError as error:
            raise ProofError(f"{where}: {error.message}") from error

    def split(self, piece: Piece) -> list[Due]:
        """Return the nodes that are due in place of one that is split; raises as ``chunk``."""
        due, data = piece
        where = self.place(piece)
        found = pieces.decode_piece(data, where)
        if isinstance(found, Chunk):
            raise ProofError(f"{where}: a chunk came in place of a split")
        try:
            return pieces.check_split(self._cut.tree_depth, found, due)
        except ProofError as error:
            raise ProofError(f"{where}: {error.message}") from error

    def _chunk(self, found: Chunk | Split, due: Due) -> Chunk:
        if isinstance(found, Split):
            raise ProofError("a split came in its place")
        pieces.check_chunk(self._cut.tree_depth, found, due, self._cut.height)
        if self._cut.whole and any(row is None for row in found.values):
            raise ProofError("a row is left out, which only an auditor's copy may")
        check_rows(self._cut.chain, self.paths, found.entries, found.values, self._cut.time_ms)
        return found


def counted(chunk: Chunk) -> Counted:
    """Return what a chunk holds."""
    return Counted(len(chunk.entries) // ENTRY_BYTES, sum(row is None for row in chunk.values))


# --- files --------------------------------------------------------------------------------------


def frame(data: bytes) -> bytes:
    """Return manifest or piece as it stands in a file."""
    return codec.encode(data)


class Reader:
    """Reads a snapshot file front to back; takes in one frame at a time.

    Args:
        read: returns up to so many bytes more, fewer only at the end.
        chain: hash of the genesis file.

    Raises:
        DecodeError: malformed; says at which offset or path. VerificationError: not certified.
    """

    def __init__(self, read: Callable[[int], bytes], chain: bytes) -> None:
        self._read = read
        self.offset = 0
        data = self._frame(MANIFEST_BYTES_MAX, "the manifest")
        if data is None:
            raise DecodeError("the file is empty", path="offset 0")
        self.certified = verify_manifest(decode_manifest(data), chain)
        self._checker = Checker(self.certified.cut)

    def pieces(self) -> Iterator[Piece]:
        """Yield every chunk of the file, unchecked, where it is due; splits are checked here.

        Raises:
            DecodeError, VerificationError: a chunk is missing or out of place, a split is wrong,
                or something is left over.
        """
        waiting = self.certified.chunks()
        waiting.reverse()
        place = self.certified.place
        while waiting:
            due = waiting.pop()
            where = place(due.name)
            data = self._frame(PIECE_BYTES_MAX, where)
            if data is None:
                raise ProofError(f"{where}: it is missing; the file ends at offset {self.offset}")
            name = pieces.name_in(data)
            if name != due.name:
                later = any(each.name == name for each in waiting)
                came = place(name) if name >= 1 << self.certified.manifest.depth else "another"
                why = "it is missing" if later else "out of place"
                raise ProofError(f"{where}: {why}; {came} came in its place")
            if pieces.is_split(data):
                waiting += reversed(self._checker.split(Piece(due, data)))
            else:
                yield Piece(due, data)
        if self._read(1):
            raise ProofError(
                f"something is left over after the last chunk, at offset {self.offset}"
            )

    def finish(self, entries: int) -> None:
        """Check that the chunks hold as many entries as the state root binds.

        Raises:
            ProofError: they do not.
        """
        if self.certified.whole and entries != self.certified.manifest.key_count:
            raise ProofError(
                f"{entries} entries, but the state root binds {self.certified.manifest.key_count}"
            )

    def _frame(self, bytes_max: int, what: str) -> bytes | None:
        """Return the next frame's content, None at the end of the file."""
        begin = self.offset
        head = self._take(1)
        if not head:
            return None
        size = {0x58: 1, 0x59: 2, 0x5A: 4, 0x5B: 8}.get(head[0], 0)
        if 0x40 <= head[0] < 0x58:
            length = head[0] - 0x40
        elif size:
            tail = self._take(size)
            length = int.from_bytes(tail, "big")
            if len(tail) < size or codec.head_bytes(length) != 1 + size:
                raise DecodeError(f"not the head of {what}", path=f"offset {begin}")
        else:
            raise DecodeError(f"not the head of {what}", path=f"offset {begin}")
        if length > bytes_max:
            raise DecodeError(
                f"{what} says {length} bytes, at most {bytes_max} allowed", path=f"offset {begin}"
            )
        data = self._take(length)
        if len(data) < length:
            raise DecodeError(f"the file ends inside {what}", path=f"offset {self.offset}")
        return data

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        self.offset += len(data)
        return data


def check_all(reader: Reader) -> Counted:
    """Check every chunk of a file, one after the other; return what they hold together.

    Raises:
        DecodeError, VerificationError: at the first that is not right.
    """
    checker = Checker(reader.certified.cut)
    entries = left_out = 0
    for piece in reader.pieces():
        found = counted(checker.chunk(piece))
        entries += found.entries
        left_out += found.left_out
    reader.finish(entries)
    return Counted(entries, left_out)
