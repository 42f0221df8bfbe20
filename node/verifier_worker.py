"""A worker process: the first to look into bytes from outside, and the one who checks signatures.

Started by ``node.verifier`` as ``python -m node.verifier_worker``. It reads jobs from standard
input and writes one answer each to standard output, in order; both are frames of a 4-byte length
and MessagePack, between two processes of one release. It ends when its input does.

A job is a list of whole batches, or of items that clients submitted, each judged by itself.
Accepted means: strictly decoded, canonical, private parts matching their roots, every signature
verified.
Signatures found good are remembered, so what came in a submission and again in a peer's batch is
verified once. A verdict carries the txids, which the main process then need not compute again.

Not here: scheduling, restarts, and everything with a socket (``node.verifier``).
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final

import msgspec

from consensus.errors import ComityError, CopyError, DecodeError, SignatureError, VerificationError
from consensus.genesis import Limits
from consensus.hashing import context
from consensus.ledger import batch as batches
from consensus.ledger.batch import Batch, Item
from consensus.signing import verify

LENGTH: Final = struct.Struct(">I")
VERIFIED_MAX: Final = 65_536
"""Verified signatures remembered, about 130 bytes each."""

GC_ALLOCATIONS: Final = 50_000
"""Objects between two searches for reference cycles, here and in the main process, which make few.
The interpreter's default is 700."""

ACCEPTED: Final = 0
MALFORMED: Final = 1
BAD_COPY: Final = 2
BAD_SIGNATURE: Final = 3

_H_VERIFIED: Final = context("verified signature")


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """The first frame: the network whose transactions are judged."""

    chain: bytes
    batch_bytes_max: int
    batch_transactions_max: int


class Job(msgspec.Struct, array_like=True, frozen=True):
    """Single items; or batches, each with its public part, its private part, and whether its
    signatures are to be checked: all else is checked in any case."""

    items: list[bytes] = []
    batches: list[tuple[bytes, bytes, bool]] = []


class Verdict(msgspec.Struct, array_like=True, frozen=True):
    """About a batch or an item. ``txids``, and for a batch the rest, if ACCEPTED."""

    code: int
    message: str = ""
    txids: bytes = b""
    digest: bytes = b""
    origin: int = 0
    number: int = 0
    lane: int = 0
    not_after_ms: int = 0


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """One verdict for each batch or item; ``signatures`` is how many were checked."""

    verdicts: list[Verdict]
    signatures: int


class Judge:
    """Decides about batches and items of one network."""

    def __init__(self, chain: bytes, limits: Limits, verified_max: int = VERIFIED_MAX) -> None:
        self._chain = chain
        self._limits = limits
        self._verified: dict[bytes, None] = {}
        self._verified_max = verified_max
        self.signatures = 0
        """Signatures checked so far, without those remembered."""

    def answer(self, job: Job) -> Answer:
        """Return the verdicts about a job. Raises nothing that its bytes could cause."""
        before = self.signatures
        verdicts = [self.judge_batch(*batch) for batch in job.batches]
        verdicts += [self.judge_item(item) for item in job.items]
        return Answer(verdicts, self.signatures - before)

    def judge_batch(self, public: bytes, private: bytes, signatures: bool = True) -> Verdict:
        """Return the verdict about one batch."""
        try:
            batch = self.check_batch(public, private, signatures)
        except (DecodeError, CopyError, VerificationError) as error:
            return refusal(error)
        txids = b"".join([each.txid for each in batch.transactions])
        last_ms = max([each.not_after_ms for each in batch.transactions])
        return Verdict(
            ACCEPTED, "", txids, batch.digest, batch.origin, batch.number, batch.lane, last_ms
        )

    def judge_item(self, data: bytes) -> Verdict:
        """Return the verdict about one envelope or group."""
        try:
            item = self.check_item(data)
        except (DecodeError, CopyError, VerificationError) as error:
            return refusal(error)
        return Verdict(ACCEPTED, txids=b"".join([each.txid for each in item.transactions]))

    def check_batch(self, public: bytes, private: bytes, signatures: bool = True) -> Batch:
        """Return one batch, or raise what is wrong with it."""
        batch = batches.decode(self._chain, public, private, self._limits)
        if signatures:
            self._check_signatures(batch.items)
        return batch

    def check_item(self, data: bytes) -> Item:
        """Return one envelope or group, or raise what is wrong with it."""
        item = batches.decode_item(self._chain, data)
        self._check_signatures([item])
        return item

    def _check_signatures(self, items: Sequence[Item]) -> None:
        for key, message, signature in batches.messages(self._chain, items):
            mark = _H_VERIFIED(key + signature + message)
            if mark in self._verified:
                continue
            self.signatures += 1
            verify(key, message, signature)
            if len(self._verified) >= self._verified_max:
                del self._verified[next(iter(self._verified))]
            self._verified[mark] = None


def refusal(error: ComityError) -> Verdict:
    """Return the verdict that passes on an error of ``Judge.check_batch`` or ``check_item``."""
    match error:
        case CopyError():
            return Verdict(BAD_COPY, error.message)
        case SignatureError():
            return Verdict(BAD_SIGNATURE, error.message)
        case _:
            return Verdict(MALFORMED, error.message)


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer jobs until ``source`` ends."""
    first = _read(source)
    if first is None:
        return
    setup = msgspec.msgpack.decode(first, type=Setup)
    limits = Limits(
        batch_bytes_max=setup.batch_bytes_max, batch_transactions_max=setup.batch_transactions_max
    )
    judge = Judge(setup.chain, limits)
    decoder = msgspec.msgpack.Decoder(Job)
    encoder = msgspec.msgpack.Encoder()
    while (frame := _read(source)) is not None:
        answer = encoder.encode(judge.answer(decoder.decode(frame)))
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = source.read(length)
    return body if len(body) == length else None


def main() -> None:
    """Serve standard input. Ctrl-C is the main process's to handle, which then ends our input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(GC_ALLOCATIONS)
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library might print must not get between the frames.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
