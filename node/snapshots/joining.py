"""A node that is new or far behind takes its state from peers' snapshots, then goes on by blocks.

It runs in place of the engine, with links of its own, while nothing is signed and no client served:

    ask all peers ─► offers, each verified ─► the one that most have ─► pieces of any of them, each
    checked on arrival ─► a new store ─► in place of the old one ─► the engine starts on it

Whoever sends a piece that is not right is not asked again, and its link is closed for a fault. The
log and the signer's mark are not touched: every promise stays. Peers show, besides, the newest
certificate with this key's signature that they find; if the signer does not remember it, the key
was used before and its promises are lost: then nothing is taken.

Not here: which piece is asked of whom (``pulling``), when to join (``node.runtime``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus.errors import ComityError, ProofError, RemoteProtocolError, VerificationError
from consensus.genesis import EPOCH
from consensus.hotstuff import wire as consensus_wire
from consensus.hotstuff.certificates import Verifier, check_commit_cert
from consensus.hotstuff.types import Certificates
from consensus.snapshot import (
    Certified,
    Checker,
    Piece,
    decode_manifest,
    verify_manifest,
)
from consensus.state.snapshot import is_split
from node.errors import SnapshotError
from node.identity import Identity
from node.network.peers import Hello, PeerNetwork
from node.network.wire import Class
from node.promises import check_remembered
from node.signer import Signer
from node.snapshots import begin, wire
from node.snapshots.checking import Pool, processes_for
from node.snapshots.filling import Filler
from node.snapshots.importing import checked_chunk
from node.snapshots.pulling import Pulling, Slot
from node.snapshots.wire import Ask, Gone, Offer, Part, Want
from node.telemetry.metrics import Metrics

OFFERS_SECONDS: Final = 4.0
"""How long further offers are waited for after the first."""
PATIENCE_SECONDS: Final = 30.0
"""Without any progress for so long, joining is given up."""
ASK_SECONDS: Final = 3.0
"""A peer that did not answer is asked again."""
LOOK_SECONDS: Final = 0.5


@dataclass(slots=True)
class Progress:
    """How far joining is, for ``/readyz`` and the log.

    ``begun``, ``fetched`` and ``checked`` are moments of trio's clock: when pieces were first asked
    for, when the last one had come, and when the last one was checked and stored.
    """

    height: int = 0
    entries: int = 0
    of: int = 0
    size_bytes: int = 0
    begun: float = 0.0
    fetched: float = 0.0
    checked: float = 0.0

    def told(self) -> dict[str, float]:
        """Return what the log says once all of it is in place."""
        now = trio.current_time()
        return {
            "entries": self.entries,
            "mib": round(self.size_bytes / 2**20, 1),
            "fetched_seconds": round(self.fetched - self.begun, 2),
            "checked_seconds": round(self.checked - self.begun, 2),
            "seconds": round(now - self.begun, 2),
        }


class Joiner:
    """Joins once. Hears of the links; ``run`` does the rest.

    Args:
        signer: of this node's last life; what it remembers is compared with what peers show.
        folder: the node's data.
        above: a snapshot must be of a higher height.
    """

    def __init__(
        self,
        identity: Identity,
        signer: Signer,
        folder: Path,
        above: int,
        log: FilteringBoundLogger,
        metrics: Metrics,
    ) -> None:
        self._identity = identity
        self._signer = signer
        self._folder = folder
        self._above = above
        self._log = log
        self._metrics = metrics
        self._verifier = Verifier(identity.chain, identity.committee, identity.start)
        self._network: PeerNetwork | None = None
        self._offers: dict[int, Certified] = {}
        self._asked: dict[int, float] = {}
        self._bad: dict[int, None] = {}
        self._pulling: Pulling | None = None
        self._whole: list[Slot] = []
        self._bell = trio.Event()
        self._moved = 0.0
        self._fault: BaseException | None = None
        self.progress = Progress()

    # --- what the links bring -------------------------------------------------------------------

    def connected(self, peer: int, hello: Hello) -> None:
        """A link stands."""
        self._from_peer(peer, lambda: self._introduced(peer, hello.extras))
        self._bell.set()

    def received(self, peer: int, cls: Class, payload: bytes) -> None:
        """Take a frame; all but snapshots is for later."""
        if cls is Class.SYNC and wire.is_known(payload):
            self._from_peer(peer, lambda: self._take(peer, payload))

    def disconnected(self, peer: int, reason: str) -> None:
        """A link has ended."""
        self._asked.pop(peer, None)
        if self._pulling is not None:
            self._pulling.lost(peer)
        self._bell.set()

    def _from_peer(self, peer: int, work: Callable[[], None]) -> None:
        try:
            work()
        except (RemoteProtocolError, VerificationError) as error:
            self._drop(peer, error)
        except ComityError as error:  # what peers show of our own key
            self._fault = error
            self._bell.set()

    def _drop(self, peer: int, error: ComityError) -> None:
        """Use a peer no more."""
        self._bad[peer] = None
        self._offers.pop(peer, None)
        validators = self._identity.committee.validators
        name = validators[peer].agency if peer < len(validators) else f"guest {peer}"
        self._log.warning("peer fault", peer=name, reason=str(error))
        if self._network is not None:
            self._network.close_link(peer, str(error), error.code)
        self._bell.set()

    def _introduced(self, peer: int, extras: bytes) -> None:
        if extras:
            message = consensus_wire.decode_message(extras)
            if not isinstance(message, Certificates):
                raise RemoteProtocolError("a hello carries certificates")
            if message.epoch != self._identity.committee.epoch:
                return  # whose committee is not known here before the snapshot says it
            self._verifier.verify(message, peer)
            check_remembered(message, self._identity.index, self._signer)

    def _take(self, peer: int, payload: bytes) -> None:
        match wire.decode(payload):
            case Offer(manifest, proof):
                self._offered(peer, manifest, proof)
            case Part() as part if self._pulling is not None:
                self._moved = trio.current_time()
                match self._pulling.take(peer, part, self._moved):
                    case Want() as want:
                        self._send(peer, want)
                    case Slot() as slot:
                        self.progress.size_bytes += len(slot.data)
                        self.progress.fetched = self._moved
                        self._whole.append(slot)
                        self._bell.set()
                    case None:
                        pass
            case Gone():
                if self._pulling is not None:
                    self._pulling.lost(peer)
                self._bell.set()
            case _:  # a peer that joins too; it asks others
                self._send(peer, Gone(0))

    def _offered(self, peer: int, manifest: bytes, proof: bytes | None) -> None:
        if self._pulling is not None or peer in self._bad:
            return
        identity = self._identity
        certified = verify_manifest(decode_manifest(manifest), identity.chain)
        if not certified.whole:
            raise ProofError("a peer offers a part of the state")
        block, own = certified.block, identity.holder
        place = own.place(certified.committee)
        shown = Certificates(block.epoch, block.justify, block.timeout_cert, certified.certificate)
        check_remembered(shown, place, self._signer)
        if proof is not None:
            signed = consensus_wire.decode_commit_cert(proof)
            epoch = signed.statement.epoch
            if not EPOCH <= epoch < EPOCH + len(certified.committees):
                raise ProofError("a peer shows a certificate of an epoch that it does not lead to")
            committee = certified.committees[epoch - EPOCH]
            check_commit_cert(signed, committee, identity.chain)
            place = own.place(committee)
            check_remembered(Certificates(epoch, None, None, signed), place, self._signer)
        if certified.height > self._above:
            self._offers[peer] = certified
        self._bell.set()

    # --- joining --------------------------------------------------------------------------------

    async def run(self, network: PeerNetwork) -> int:
        """Take a snapshot over links that run; return its height.

        The new store is in place when this returns; until then the old one is.

        Raises:
            SnapshotError: no peer has one, or none of those who had goes on.
            PromisesLostError: peers show that this key has signed what its signer has forgotten.
            StorageFailedError: the store cannot be written.
        """
        self._network = network
        self._metrics.snapshot_joining.set(1)
        try:
            offers = await self._gather()
            target = _most(offers)
            self.progress = Progress(
                target.height, 0, target.manifest.key_count, begun=trio.current_time()
            )
            self._log.info(
                "joining by snapshot",
                height=target.height,
                entries=target.manifest.key_count,
                peers=len(offers),
            )
            await self._pull(target, offers)
        finally:
            self._metrics.snapshot_joining.set(0)
        begin.put_in_place(self._folder)
        self._log.info("joined by snapshot", height=target.height, **self.progress.told())
        return target.height

    async def _gather(self) -> dict[int, Certified]:
        """Ask every peer; return what they offer."""
        begun = trio.current_time()
        first: float | None = None
        peers = self._identity.committee.size - 1
        while True:
            self._check()
            now = trio.current_time()
            if self._offers and first is None:
                first = now
            if len(self._offers) + len(self._bad) >= peers and self._offers:
                return dict(self._offers)
            if first is not None and now - first > OFFERS_SECONDS:
                return dict(self._offers)
            if now - begun > PATIENCE_SECONDS:
                raise SnapshotError(
                    "no peer offers a snapshot",
                    hint="look at the links; the node goes on by blocks meanwhile",
                )
            for peer in sorted(self._connected() - self._offers.keys() - self._bad.keys()):
                if now - self._asked.get(peer, -ASK_SECONDS) >= ASK_SECONDS:
                    self._asked[peer] = now
                    self._send(peer, Ask())
            await self._wait()

    async def _pull(self, target: Certified, offers: dict[int, Certified]) -> None:
        pulling = self._pulling = Pulling(target, offers)
        self._moved = trio.current_time()
        new = begin.room(self._folder)
        filler = Filler(new, target.chain)
        try:
            checker = Checker(target.cut)
            pool = Pool(target.cut, processes_for(target.manifest.key_count))
            try:
                async with trio.open_nursery() as nursery:
                    while not pulling.done:
                        self._look(pulling)
                        for slot in self._take_whole():
                            nursery.start_soon(self._judge, pulling, pool, checker, slot)
                        for peer, want in pulling.wants(trio.current_time()):
                            if not self._send(peer, want):
                                pulling.lost(peer)
                        await self._store(pulling, filler)
                        if not pulling.done:
                            await self._wait()
            finally:
                await trio.to_thread.run_sync(pool.close)
            self.progress.checked = trio.current_time()
            _check_count(filler.entries, target)
            await trio.to_thread.run_sync(filler.finish, target, _numbers(target, offers))
        except BaseException:
            filler.close()
            begin.clear(self._folder)
            raise
        filler.close()

    def _look(self, pulling: Pulling) -> None:
        """Raise what ends joining."""
        self._check()
        if pulling.stuck():
            raise SnapshotError("no peer has the rest of the snapshot any more")
        if trio.current_time() - self._moved > PATIENCE_SECONDS:
            raise SnapshotError("no part of the snapshot came for too long")

    async def _judge(self, pulling: Pulling, pool: Pool, checker: Checker, slot: Slot) -> None:
        """Check a piece that came."""
        piece = Piece(slot.due, slot.data)
        try:
            if is_split(slot.data):
                pulling.split(slot, checker.split(piece))
            else:
                found = await trio.to_thread.run_sync(pool.check, piece)
                pulling.checked(slot, found)
        except (RemoteProtocolError, VerificationError) as error:
            self._drop(pulling.refused(slot), error)
        self._moved = trio.current_time()
        self._bell.set()

    async def _store(self, pulling: Pulling, filler: Filler) -> None:
        while (slot := pulling.ready()) is not None:
            chunk = checked_chunk(Piece(slot.due, slot.data))
            await trio.to_thread.run_sync(filler.put, chunk, slot.index)
            self.progress.entries = filler.entries
            self._metrics.snapshot_joined.set(filler.entries)

    # --- helpers --------------------------------------------------------------------------------

    def _take_whole(self) -> list[Slot]:
        found, self._whole = self._whole, []
        return found

    def _check(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _connected(self) -> frozenset[int]:
        return frozenset() if self._network is None else self._network.connected

    def _send(self, peer: int, message: wire.SnapshotMessage) -> bool:
        network = self._network
        return network is not None and network.send(peer, Class.SYNC, wire.encode(message))

    async def _wait(self) -> None:
        with trio.move_on_after(LOOK_SECONDS):
            await self._bell.wait()
        self._bell = trio.Event()


def _most(offers: dict[int, Certified]) -> Certified:
    """Return the snapshot that most peers offer, of these the newest."""
    counts = Counter(each.statement.encode() for each in offers.values())
    return max(offers.values(), key=lambda each: (counts[each.statement.encode()], each.height))


def _check_count(entries: int, target: Certified) -> None:
    if entries != target.manifest.key_count:
        raise SnapshotError("the snapshot holds another number of entries than it says")


def _numbers(target: Certified, offers: dict[int, Certified]) -> list[int]:
    """Return, per validator, a batch number that an honest peer vouches for, where it can be.

    Of those who offer the same height the faulty are too few to push the number up.
    """
    same = [each.manifest.numbers for each in offers.values() if each.height == target.height]
    faulty_max = target.committee.faulty_max
    return [
        sorted(column, reverse=True)[min(faulty_max, len(column) - 1)]
        for column in zip(*same, strict=True)
    ]
