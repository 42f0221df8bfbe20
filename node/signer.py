"""The only holder of the validator key. It refuses to sign twice, whoever asks.

``safety.py`` decides what may be signed; the signer keeps a second, independent guard, so that a
bug or a forgotten record cannot make this key equivocate:

    proposal, vote, timeout   (epoch, round) above the mark of its kind, or the identical body
    commit vote               the same; below the mark only under the two-chain proof and in the
                              same epoch, and never a second body for an (epoch, round)

The **mark** holds the whole last signed body of each kind, the commit votes signed (by epoch and
round), and the log offset known synced when it was written. It is written and synced after the log
and before the signature leaves (``write_mark``), so the log always holds what the mark tells of,
and at a start a log that ends below that offset, or is another log, has lost promises: nothing is
signed then. A log that is ahead of the mark was not sent from; the mark takes over what its record
holds before that is sent (``adopt``).

Not here: when to sign, and the key file (``node.keyfiles``). Sources: cometbft #5668; malachite
#850; design of Tendermint KMS and Aptos safety rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import nacl.bindings

from consensus import codec, hashing, signing
from consensus.errors import DecodeError, invariant
from consensus.hotstuff.types import SIGN_TAGS, SignKind
from consensus.keyfile import KeyKind, KeyPair
from node.errors import (
    DamagedMarkError,
    ForeignDataError,
    PromisesLostError,
    SigningRefusedError,
    StorageFailedError,
)
from node.storage import marks
from node.storage.disk import SYSTEM_DISK, Disk
from node.storage.marks import SlotFile

BODY_BYTES_MAX: Final = 8 * 2**10
"""Longest body, a statement, with much to spare; a slot of the mark holds one of each kind."""
LOG_IDENTITY_BYTES: Final = 16
COMMIT_VOTES_MAX: Final = 1024
"""Commit votes remembered above the settled round; beyond it the lowest are settled."""

Slot = tuple[int, int]
"""``(epoch, round)``; ordered."""

_H_BODY: Final = hashing.context("signer commit vote")


@dataclass(frozen=True, slots=True)
class SignedBody:
    """The last body signed of one kind."""

    kind: SignKind
    epoch: int
    round: int
    body: bytes

    @property
    def slot(self) -> Slot:
        """``(epoch, round)``."""
        return self.epoch, self.round


_BODY: Final = codec.array(
    codec.integer(min(SignKind), max(SignKind)),
    codec.count,
    codec.count,
    codec.octets(high=BODY_BYTES_MAX),
)
MARK_SHAPE: Final = codec.array(
    codec.bytes32,  # public key
    codec.bytes32,  # chain
    codec.bytes16,  # log identity
    codec.count,  # log offset known synced
    codec.boolean,  # promises lost
    codec.list_of(_BODY, len(SignKind)),
    codec.array(codec.integer(-1), codec.integer(-1)),  # settled
    codec.list_of(codec.array(codec.count, codec.count, codec.bytes32), COMMIT_VOTES_MAX),
)
"""What a mark holds."""
_NOTHING_SETTLED: Final = (-1, -1)


@dataclass(frozen=True, slots=True)
class Mark:
    """What a key had signed at one moment."""

    last: Mapping[SignKind, SignedBody]
    settled: Slot
    commit_votes: Mapping[Slot, bytes]


class KeyStore(Protocol):
    """Holds a validator key and signs with it: a file that was read, or a token."""

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        ...

    def seal(self, message: bytes) -> bytes:
        """Return the Ed25519 signature over ``message``. Raises KeyStoreError."""
        ...


class MemoryKey:
    """A key in this process's memory."""

    def __init__(self, key: KeyPair) -> None:
        invariant(key.kind is KeyKind.VALIDATOR, "a validator key is needed")
        self.public = key.public
        _public, self._secret = nacl.bindings.crypto_sign_seed_keypair(key.seed)

    def seal(self, message: bytes) -> bytes:
        """Return the signature. Cost: about 25 µs."""
        signed: bytes = nacl.bindings.crypto_sign(message, self._secret)
        return signed[: signing.SIGNATURE_BYTES]


class Signer:
    """Signs for one validator on one chain; make one with ``Signer.open``.

    ``sign`` belongs to the trio thread and changes the mark in memory; ``write_mark`` makes it
    durable in the thread of the log, and must have returned before a signature is sent.
    """

    def __init__(self, key: KeyPair | KeyStore, chain: bytes) -> None:
        self._key = MemoryKey(key) if isinstance(key, KeyPair) else key
        self.public = self._key.public
        self._chain = chain
        self._file: SlotFile | None = None
        self._log_identity = bytes(LOG_IDENTITY_BYTES)
        self._log_synced = 0
        self._lost = False
        self._last: dict[SignKind, SignedBody] = {}
        self._settled: Slot = _NOTHING_SETTLED
        self._commit_votes: dict[Slot, bytes] = {}

    @classmethod
    def open(
        cls,
        key: KeyPair,
        mark: Path,
        *,
        chain: bytes,
        log_identity: bytes,
        log_end: int,
        fresh: bool,
        disk: Disk = SYSTEM_DISK,
    ) -> Signer:
        """Open the signer of ``key`` with its mark file, checked against the log.

        Args:
            key: a validator key.
            mark: path of the mark file, in a folder that exists.
            chain: 32 bytes.
            log_identity: ``Log.identity`` of the log opened at this start.
            log_end: ``Log.end`` after opening.
            fresh: this node has never run here (``Recovered.fresh``); only then may the mark
                be missing and is made.
            disk: the system calls.

        Raises:
            PromisesLostError: mark missing, another log, or a log that ends too early.
            ForeignDataError: the mark of another key or network.
            DamagedMarkError, NewerFormatError, InUseError, StorageFailedError: see errors.
        """
        signer = cls(key, chain)
        signer._log_identity = log_identity
        signer._log_synced = log_end
        try:
            file = SlotFile.open(mark, disk=disk, fresh=signer.mark_bytes() if fresh else None)
        except FileNotFoundError as error:
            raise PromisesLostError(
                f"there is no mark at {mark}, although this node has data: what its key signed "
                "is not known"
            ) from error
        signer._file = file
        try:
            signer._restore(file.content, log_identity, log_end)
        except BaseException:
            file.close()
            raise
        return signer

    @classmethod
    def over(
        cls, key: KeyStore, file: SlotFile, *, chain: bytes, log_identity: bytes, log_end: int
    ) -> Signer:
        """Return the signer of a mark file that is open and stays open, for a log elsewhere.

        Raises:
            PromisesLostError: another log, or a log that ends too early.
            ForeignDataError, DamagedMarkError: the mark is not of this key and network.
            StorageFailedError: that promises are lost cannot be written down.
        """
        signer = cls(key, chain)
        signer._log_identity = log_identity
        signer._log_synced = log_end
        signer._file = file
        signer._restore(file.content, log_identity, log_end)
        return signer

    @property
    def failed(self) -> StorageFailedError | None:
        """The failure after which nothing is signed, or None."""
        return self._file.failed if self._file is not None else None

    def sign(
        self, kind: SignKind, epoch: int, round_: int, body: bytes, *, two_chain: bool = False
    ) -> bytes:
        """Return the signature over ``tag ‖ chain ‖ body``.

        Args:
            kind: what is signed; selects the tag.
            epoch: of the message, from 1.
            round_: of the message.
            body: at most ``BODY_BYTES_MAX`` bytes.
            two_chain: ``safety.py`` has proved the block committed by the two-chain rule; only
                for commit votes.

        Raises:
            SigningRefusedError: it would be a second body for this slot, or below the mark.
            StorageFailedError: the mark's disk has failed.

        Cost: about 30 µs.
        """
        if self.failed is not None:
            raise StorageFailedError(self.failed.message) from self.failed
        invariant(len(body) <= BODY_BYTES_MAX, "the body is too long for the mark")
        invariant(epoch >= 0 and round_ >= 0, "epoch and round are not negative")
        invariant(not two_chain or kind is SignKind.COMMIT_VOTE, "two-chain is for commit votes")
        self._judge(SignedBody(kind, epoch, round_, body), two_chain=two_chain)
        return self._seal(signing.message(SIGN_TAGS[kind], self._chain, body))

    def adopt(self, bodies: Iterable[SignedBody]) -> None:
        """Take over what the log's record holds and the mark does not tell of, durably.

        It was signed before a crash that came between log and mark, and is sent after the start.

        Raises:
            StorageFailedError: the mark cannot be written.
        """
        before = self.snapshot()
        for item in bodies:
            last = self._last.get(item.kind)
            if last is None or item.slot > last.slot:
                self._last[item.kind] = item
            if item.kind is SignKind.COMMIT_VOTE and item.slot > self._settled:
                self._commit_votes.setdefault(item.slot, _H_BODY(item.body))
        self._prune()
        if self.snapshot() != before:
            self.write_mark(self._log_synced)

    def slot_of(self, kind: SignKind) -> Slot:
        """Return the highest (epoch, round) in which something of this kind was signed."""
        last = self._last.get(kind)
        return _NOTHING_SETTLED if last is None else last.slot

    def settle(self, epoch: int, round_: int) -> None:
        """Forget commit votes up to the round of a durable commit certificate.

        From now on no commit vote at or below ``(epoch, round)`` is signed, except the last body
        again. Call it when the safety record that holds the certificate is on disk.
        """
        if (epoch, round_) > self._settled:
            self._settled = (epoch, round_)
            self._prune()

    def recovered_bodies(
        self, after: Mapping[SignKind, Slot] | None = None
    ) -> tuple[SignedBody, ...]:
        """Return the last signed body of each kind, in the order of kinds.

        Args:
            after: the slots that the log's newest safety record speaks of; bodies at or below
                them are left out. The log does not hold those that remain: it was cut or
                exchanged, unless the mark was written before the log was synced.
        """
        known = after or {}
        return tuple(
            item
            for item in (self._last.get(kind) for kind in SignKind)
            if item is not None and item.slot > known.get(item.kind, _NOTHING_SETTLED)
        )

    def mark_bytes(self) -> bytes:
        """Return the mark's content as it is now in memory."""
        return self._encode(self.snapshot())

    def _encode(self, mark: Mark) -> bytes:
        last = [mark.last[kind] for kind in SignKind if kind in mark.last]
        votes = sorted(mark.commit_votes.items())
        return codec.encode(
            [
                self.public,
                self._chain,
                self._log_identity,
                self._log_synced,
                self._lost,
                [[int(item.kind), item.epoch, item.round, item.body] for item in last],
                list(mark.settled),
                [[epoch, round_, digest] for (epoch, round_), digest in votes],
            ]
        )

    def snapshot(self) -> Mark:
        """Return everything signed so far, to be written once the log holds it."""
        return Mark(dict(self._last), self._settled, dict(self._commit_votes))

    def write_mark(self, log_synced: int, mark: Mark | None = None) -> None:
        """Return once ``mark`` is on disk; called in the thread that syncs the log.

        Args:
            log_synced: the log is on disk up to here, with all that ``mark`` tells of.
            mark: from ``snapshot``; None: everything signed so far.

        Raises:
            StorageFailedError: now or before; nothing more is signed.
        """
        self._log_synced = max(self._log_synced, log_synced)
        self._open_file().write(self._encode(self.snapshot() if mark is None else mark))

    def close(self) -> None:
        """Release the mark file; nothing can be signed durably any more."""
        if self._file is not None:
            self._file.close()

    # --- inside ---------------------------------------------------------------------------------

    def _seal(self, signed: bytes) -> bytes:
        return self._key.seal(signed)

    def _open_file(self) -> SlotFile:
        if self._file is None:
            raise StorageFailedError("the signer has no mark file")
        return self._file

    def _judge(self, asked: SignedBody, *, two_chain: bool) -> None:
        """Raise SigningRefusedError, or record ``asked`` as signed."""
        last = self._last.get(asked.kind)
        if last is not None and asked.slot == last.slot and asked.body == last.body:
            return
        if asked.kind is SignKind.COMMIT_VOTE:
            known = self._commit_votes.get(asked.slot)
            digest = _H_BODY(asked.body)
            if known is not None and known == digest:
                return
            below = last is not None and asked.slot < last.slot
            same_epoch = last is None or asked.epoch == last.epoch
            free = known is None and asked.slot > self._settled
            if not free or (below and not (two_chain and same_epoch)):
                raise self._refusal(asked, last)
            self._commit_votes[asked.slot] = digest
            if not below:
                self._last[asked.kind] = asked
            self._prune()
        else:
            if last is not None and asked.slot <= last.slot:
                raise self._refusal(asked, last)
            self._last[asked.kind] = asked

    def _refusal(self, asked: SignedBody, last: SignedBody | None) -> SigningRefusedError:
        name = asked.kind.name.lower().replace("_", " ")
        mark = f"epoch {last.epoch} round {last.round}" if last is not None else "none"
        return SigningRefusedError(
            f"refused to sign a {name} for epoch {asked.epoch} round {asked.round}: "
            f"the mark is at {mark}, settled {self._settled[0]}/{self._settled[1]}"
        )

    def _prune(self) -> None:
        while len(self._commit_votes) > COMMIT_VOTES_MAX:
            self._settled = max(self._settled, min(self._commit_votes))
            del self._commit_votes[min(self._commit_votes)]
        self._commit_votes = {
            slot: digest for slot, digest in self._commit_votes.items() if slot > self._settled
        }

    @staticmethod
    def read_mark(content: bytes, public: bytes, chain: bytes) -> list[Any]:
        """Return the fields of a mark that is of this key and network.

        Raises:
            DamagedMarkError: it is not what was written.
            ForeignDataError: of another key or network.
        """
        try:
            value: list[Any] = codec.decode(
                content, MARK_SHAPE, bytes_max=marks.CONTENT_BYTES_MAX, what="mark"
            )
        except DecodeError as error:
            raise DamagedMarkError(f"the signer's mark is not what was written: {error}") from error
        if value[0] != public:
            raise ForeignDataError("the signer's mark belongs to another key")
        if value[1] != chain:
            raise ForeignDataError("the signer's mark belongs to another network")
        return value

    def _restore(self, content: bytes, log_identity: bytes, log_end: int) -> None:
        """Take over the mark that was found, and check the log against it."""
        found = self.read_mark(content, self.public, self._chain)
        _public, _chain, identity, synced, lost, bodies, settled, votes = found
        last = [SignedBody(SignKind(kind), *rest) for kind, *rest in bodies]
        self._last = {item.kind: item for item in last}
        self._settled = (settled[0], settled[1])
        self._commit_votes = {(epoch, round_): digest for epoch, round_, digest in votes}
        self._lost = lost
        self._log_synced = synced
        signed_before = bool(self._last)
        if signed_before and identity != log_identity:
            raise PromisesLostError(
                "the log is not the one that this key signed with: a new or another log"
            )
        if signed_before and not lost and log_end < synced:
            self._lost = True
            self.write_mark(synced)
        if self._lost:
            raise PromisesLostError(
                f"the log ended at {log_end}, but {synced} was on disk when this key last signed"
            )
        self._log_synced = max(synced, log_end) if identity == log_identity else log_end
