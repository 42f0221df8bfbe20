"""A range of heights as one stream of bytes: an audit file, or what a reader of a store gives.

    stream   magic "COMITYAU" 8 ‖ version 4 ‖ frame ...             integers are big-endian
    frame    length 4 ‖ kind 1 ‖ check 16 ‖ payload
    check    H_audit frame(check before ‖ kind ‖ payload), 16 bytes; before the first: 16 zero bytes

    kind 1   HEADER   [genesis file, first height, last height | null]      exactly the first frame
    kind 2   HEIGHT   [height, block, statement | null, certificate | null,
                       [[public part | null, private part | null], ...], decisions | null,
                       changes | null]                      ascending; parts are byte strings
    kind 3   ROWS     [[kh, changed height, vh, row], ...]  ascending, all of the state as it is
                                                            after the height before
    kind 4   END      [heights, rows]                       exactly the last frame
    kind 5   FAILED   [code, message, hint]                 who made the stream could not go on

The checks chain, so that bytes that were damaged, cut off or put elsewhere are found at their
offset. They are no signatures: whoever makes a stream can make them. What the heights say is
believed for what they prove, see ``heights`` and ``replay``.

Everything is bounded before it is read: a frame by FRAME_BYTES_MAX, items by their shapes.

Not here: files and pipes. Source: docs/formats/audit.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Final

from consensus import codec
from consensus.answers import EpochStep
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError, invariant
from consensus.genesis import GENESIS_BYTES_MAX
from consensus.hashing import context
from consensus.hotstuff.wire import BLOCK_BYTES_MAX, PAYLOAD_ITEMS_MAX, decode_commit_cert

MAGIC: Final = b"COMITYAU"
VERSION: Final = 1
PREFIX: Final = MAGIC + VERSION.to_bytes(4, "big")
CHECK_BYTES: Final = 16
FRAME_HEAD_BYTES: Final = 4 + 1 + CHECK_BYTES
FRAME_BYTES_MAX: Final = 512 * 2**20
"""Longest payload: of a height whose payload and decisions are as large as genesis allows."""
PART_BYTES_MAX: Final = 64 * 2**20
DECISIONS_MAX: Final = 1 << 21
DECISION_ITEM_BYTES_MIN: Final = 16
"""A row of five items has three hashes and more."""
ROWS_MAX: Final = 65_536
GENESIS_ITEMS_MAX: Final = 2**23
"""Of the genesis file in a stream: about a million accounts."""
TEXT_BYTES_MAX: Final = 4096

_check = context("audit frame")


class Kind(IntEnum):
    """Kinds of frames."""

    HEADER = 1
    HEIGHT = 2
    ROWS = 3
    END = 4
    FAILED = 5
    EPOCH = 6
    """How an epoch ended, and who votes in the next: before the first height of that one."""


EPOCH_BYTES_MAX: Final = 512 * 1024
_SMALL_BYTES_MAX: Final = {
    Kind.HEADER: GENESIS_BYTES_MAX + 64,
    Kind.END: 32,
    Kind.FAILED: 16_384,
    Kind.EPOCH: EPOCH_BYTES_MAX,
}
_EPOCH: Final = codec.array(codec.octets(low=1, high=65_536), COMMITTEE)
_BATCH: Final = codec.array(
    codec.optional(codec.octets(low=1, high=PART_BYTES_MAX)),
    codec.optional(codec.octets(high=PART_BYTES_MAX)),
)
_DECISION: Final = codec.array(
    codec.bytes32, codec.bytes32, codec.bytes32, codec.octets(low=1, high=PART_BYTES_MAX)
)
_DECISIONS: Final = codec.list_of(_DECISION, DECISIONS_MAX)
_HEADER: Final = codec.array(
    codec.octets(low=1, high=GENESIS_BYTES_MAX), codec.count, codec.optional(codec.count)
)
_HEIGHT: Final = codec.array(
    codec.count,
    codec.octets(low=1, high=BLOCK_BYTES_MAX),
    codec.optional(codec.octets(low=1, high=1024)),
    codec.optional(codec.octets(low=1, high=16_384)),
    codec.list_of(_BATCH, PAYLOAD_ITEMS_MAX),
    codec.optional(codec.octets(low=1, high=FRAME_BYTES_MAX)),
    codec.optional(codec.octets(high=FRAME_BYTES_MAX)),
)
_ROWS: Final = codec.list_of(
    codec.array(
        codec.bytes32, codec.count, codec.bytes32, codec.octets(low=1, high=PART_BYTES_MAX)
    ),
    ROWS_MAX,
    low=1,
)
_END: Final = codec.array(codec.count, codec.count)
_text = codec.text(TEXT_BYTES_MAX)
_FAILED: Final = codec.array(_text, _text, _text)


@dataclass(frozen=True, slots=True)
class Header:
    """What a stream is about: heights ``first`` to ``last`` (None: as far as it goes)."""

    genesis: bytes
    first: int
    last: int | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """One height as somebody keeps it; nothing is believed.

    ``statement``: None where only a later certificate vouches for the height and nobody wrote it
    down. ``certificate``: on this very height, if there is one. ``batches``: public and private
    parts; None for a batch that is not there, and for private parts that were dropped.
    ``decisions``: encoded, see ``check_decisions``; None where they are not kept. ``changes``:
    joined change records; None likewise.
    """

    height: int
    block: bytes
    statement: bytes | None
    certificate: bytes | None
    batches: Sequence[Sequence[bytes | None]]
    decisions: bytes | None
    changes: bytes | None


@dataclass(frozen=True, slots=True)
class StateRow:
    """A row of a node's state, as its store has it."""

    kh: bytes
    changed_height: int
    vh: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Who made the stream could not go on, and why."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class End:
    """How much came before."""

    heights: int
    rows: int


@dataclass(slots=True)
class Steps:
    """The steps of a network's committees, each to be given before the heights that follow it.

    Args:
        known: all of them, ascending; may grow.
    """

    known: Sequence[EpochStep]
    given: int = 0

    def before(self, height: int) -> Iterator[bytes]:
        """Yield the payloads of the steps that come before a height, once each."""
        while self.given < len(self.known):
            step = self.known[self.given]
            if decode_commit_cert(step.certificate).statement.height >= height:
                return
            self.given += 1
            yield codec.encode(step.to_value())


Item = Header | Recorded | tuple[StateRow, ...] | End | Failed


# --- making a stream ----------------------------------------------------------------------------


class Writer:
    """Makes the bytes of a stream, frame by frame."""

    def __init__(self) -> None:
        self._before = bytes(CHECK_BYTES)
        self._heights = 0
        self._rows = 0
        self.begun = False

    def begin(self, header: Header) -> bytes:
        """Return the first bytes."""
        self.begun = True
        value = [header.genesis, header.first, header.last]
        return PREFIX + self._frame(Kind.HEADER, codec.encode(value))

    def height(self, payload: bytes) -> bytes:
        """Return the frame of an encoded height (``encode_height``)."""
        self._heights += 1
        return self._frame(Kind.HEIGHT, payload)

    def rows(self, rows: Sequence[StateRow]) -> bytes:
        """Return the frame of the next rows of the state, at most ROWS_MAX, ascending."""
        self._rows += len(rows)
        value = [[row.kh, row.changed_height, row.vh, row.value] for row in rows]
        return self._frame(Kind.ROWS, codec.encode(value))

    def epoch(self, payload: bytes) -> bytes:
        """Return the frame of a step (``Steps.before``)."""
        return self._frame(Kind.EPOCH, payload)

    def end(self) -> bytes:
        """Return the last frame."""
        return self._frame(Kind.END, codec.encode([self._heights, self._rows]))

    def failed(self, failed: Failed) -> bytes:
        """Return the frame that says why there is no more."""
        words = [_cut(each) for each in (failed.code, failed.message, failed.hint)]
        return self._frame(Kind.FAILED, codec.encode(words))

    def _frame(self, kind: Kind, payload: bytes) -> bytes:
        invariant(len(payload) <= FRAME_BYTES_MAX, "a frame of an audit stream is too long")
        head = bytes([kind])
        self._before = _check(self._before + head + payload)[:CHECK_BYTES]
        return len(payload).to_bytes(4, "big") + head + self._before + payload


def encode_height(recorded: Recorded) -> bytes:
    """Return the payload of a height's frame."""
    return codec.encode(
        [
            recorded.height,
            recorded.block,
            recorded.statement,
            recorded.certificate,
            [list(row) for row in recorded.batches],
            recorded.decisions,
            recorded.changes,
        ]
    )


def _cut(text: str) -> str:
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")


# --- reading one --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame whose check holds. ``offset`` is where it begins in the stream."""

    offset: int
    kind: Kind
    payload: bytes


class Splitter:
    """Takes the bytes of a stream as they come and gives whole frames; keeps one at most.

    Raises:
        DecodeError: with the offset: no audit stream, another version, a frame that is too long, of
            unknown kind, damaged, or out of place.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._offset = 0
        self._before = bytes(CHECK_BYTES)
        self._begun = False
        self._first = True
        self.ended = False
        """Whether the last frame was given."""

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Yield the frames that ``data`` completes."""
        self._buffer += data
        if not self._begun:
            if len(self._buffer) < len(PREFIX):
                if not PREFIX.startswith(bytes(self._buffer[: len(MAGIC)])):
                    raise DecodeError("not an audit file", path="offset 0")
                return
            self._begin()
        while (frame := self._next()) is not None:
            yield frame

    def finish(self) -> None:
        """Take note that nothing more comes.

        Raises:
            DecodeError: the stream ends before its last frame.
        """
        if not self.ended:
            end = self._offset + len(self._buffer)
            raise DecodeError("the file ends before its last part", path=f"offset {end}")

    def _begin(self) -> None:
        prefix = bytes(self._buffer[: len(PREFIX)])
        if not prefix.startswith(MAGIC):
            raise DecodeError("not an audit file", path="offset 0")
        version = int.from_bytes(prefix[len(MAGIC) :], "big")
        if version != VERSION:
            raise DecodeError(
                f"version {version}; this software reads version {VERSION}",
                path=f"offset {len(MAGIC)}",
                hint="install the release that made this file",
            )
        self._skip(len(PREFIX))
        self._begun = True

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if self.ended:
            if buffer:
                raise self._bad("there is something after the last part")
            return None
        if len(buffer) < FRAME_HEAD_BYTES:
            return None
        length = int.from_bytes(buffer[:4], "big")
        try:
            kind = Kind(buffer[4])
        except ValueError:
            raise self._bad(f"a part of unknown kind {buffer[4]}") from None
        if length > _SMALL_BYTES_MAX.get(kind, FRAME_BYTES_MAX):
            raise self._bad(f"a part of {length} bytes, which is longer than any may be")
        if (kind is Kind.HEADER) is not self._first:
            raise self._bad("the header is the first part and no other")
        if len(buffer) < FRAME_HEAD_BYTES + length:
            return None
        payload = bytes(buffer[FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + length])
        check = _check(self._before + bytes([kind]) + payload)[:CHECK_BYTES]
        if check != buffer[5:FRAME_HEAD_BYTES]:
            raise self._bad("the bytes of this part have changed, or another part is missing")
        frame = Frame(self._offset, kind, payload)
        self._before, self._first = check, False
        self.ended = kind in (Kind.END, Kind.FAILED)
        self._skip(FRAME_HEAD_BYTES + length)
        return frame

    def _skip(self, count: int) -> None:
        del self._buffer[:count]
        self._offset += count

    def _bad(self, message: str) -> DecodeError:
        hint = "fetch or export the file again; a damaged copy proves nothing"
        return DecodeError(message, path=f"offset {self._offset}", hint=hint)


def read_header(frame: Frame) -> Header:
    """Return the header; raises DecodeError."""
    genesis, first, last = _decode(frame, _HEADER)
    where = f"offset {frame.offset}: header"
    codec.refuse_crowd(genesis, where, GENESIS_ITEMS_MAX)
    if last is not None and last < first:
        raise DecodeError(f"heights {first} to {last}", path=where)
    return Header(genesis, first, last)


def read_height(payload: bytes, where: str) -> Recorded:
    """Return the height in a frame's payload.

    Raises:
        DecodeError: it does not have the shape; the path begins with ``where``.
    """
    codec.refuse_crowd(payload, where)
    value = codec.decode(payload, _HEIGHT, bytes_max=FRAME_BYTES_MAX, what=where)
    return Recorded(*value)


def height_in(payload: bytes) -> int | None:
    """Return which height an unchecked payload says it is; None if it is malformed."""
    try:
        found = codec.parse(payload[1:10], "height")
    except DecodeError:
        return None
    return found if type(found) is int else None


def check_decisions(data: bytes, where: str) -> None:
    """Raise DecodeError unless these are rows ``[txid, author, root, decision]``.

    Cost: about 1 µs a decision.
    """
    codec.refuse_crowd(data, where, max(codec.ITEMS_MAX, len(data) // DECISION_ITEM_BYTES_MIN))
    codec.decode(data, _DECISIONS, bytes_max=FRAME_BYTES_MAX, what=where)


def parse_height(payload: bytes) -> Recorded:
    """Return the height in a payload whose shape was checked before."""
    return Recorded(*codec.parse(payload, "height"))


def read_rows(frame: Frame) -> tuple[StateRow, ...]:
    """Return rows of the state; raises DecodeError."""
    rows = tuple([StateRow(*row) for row in _decode(frame, _ROWS)])
    for before, after in pairwise(rows):
        if before.kh >= after.kh:
            raise DecodeError("rows do not ascend", path=f"offset {frame.offset}: rows")
    return rows


def read_epoch(frame: Frame) -> EpochStep:
    """Return how an epoch ended; raises DecodeError."""
    return EpochStep(*_decode(frame, _EPOCH))


def read_end(frame: Frame) -> End:
    """Return the last frame; raises DecodeError."""
    return End(*_decode(frame, _END))


def read_failed(frame: Frame) -> Failed:
    """Return why the stream ends early; raises DecodeError."""
    return Failed(*_decode(frame, _FAILED))


def _decode(frame: Frame, shape: codec.Shape) -> codec.Value:
    where = f"offset {frame.offset}: {frame.kind.name.lower()}"
    codec.refuse_crowd(frame.payload, where)
    return codec.decode(frame.payload, shape, bytes_max=FRAME_BYTES_MAX, what=where)
