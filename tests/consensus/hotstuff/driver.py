"""A small deterministic network of replicas in memory: virtual time, a disk that syncs, links.

The driver obeys the contract of ``events`` to the letter: what follows a ``Persist`` leaves when
that is durable, a crash forgets what was not, ``Signed`` answers ``Sign`` at once. Execution is a
hash chain. Signatures are hashes under the public key: only tests may believe them.

While it runs it watches the promises: one signature per slot and key, one block per height
everywhere, delivery in order and once.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from consensus import signing
from consensus.committee import Committee, Validator
from consensus.errors import SignatureError
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.epochs import elsewhere
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    SIGN_TAGS,
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    CommitVote,
    Message,
    PayloadItem,
    Proposal,
    SignKind,
    Timeout,
    Vote,
    first_record,
    genesis_block,
    genesis_cert,
    number_before,
    start_cert,
)

CHAIN = hashlib.sha256(b"test chain").digest()
START_MS = 1_000_000


def key_of(index: int) -> bytes:
    return hashlib.sha256(b"validator %d" % index).digest()


def committee_of(size: int) -> Committee:
    return committee_among(1, tuple(range(size)))


def committee_among(epoch: int, members: tuple[int, ...]) -> Committee:
    rows = tuple(
        Validator(f"agency-{i}", key_of(i), key_of(i + 100), b"x", "host", 1, "host", 2)
        for i in members
    )
    return Committee(epoch, rows)


def genesis_of(committee: Committee) -> Block:
    return genesis_block(CHAIN, committee.hash, START_MS - 1000)


def sign(index: int, kind: SignKind, body: bytes) -> bytes:
    signed = signing.message(SIGN_TAGS[kind], CHAIN, body)
    return hashlib.blake2b(key_of(index) + signed).digest()


def verify_signature(key: bytes, signed: bytes, signature: bytes) -> None:
    if hashlib.blake2b(key + signed).digest() != signature:
        raise SignatureError("the signature does not verify")


def verifier(committee: Committee) -> Verifier:
    start = genesis_cert(genesis_of(committee))
    return Verifier(CHAIN, committee, start, verify=verify_signature)


def ends_with(block: Block, cert: CommitCert) -> bool:
    """Whether a block ended its epoch, by a certificate of its own."""
    statement = cert.statement
    return statement.block_id == block.id and statement.next_committee_hash is not None


def batch(number: int, origin: int = 0, lane: int = 0, size_bytes: int = 300) -> PayloadItem:
    digest = hashlib.sha256(b"batch %d %d" % (origin, number)).digest()
    return PayloadItem(digest, origin, number, lane, 1, size_bytes)


@dataclass
class Disk:
    """What survives a crash."""

    record: bytes
    blocks: dict[bytes, Block] = field(default_factory=dict)
    delivered: list[tuple[Block, CommitCert | None]] = field(default_factory=list)


@dataclass
class Node:
    """One replica with its disk and executor, alive or not.

    ``index`` is the node's own, in all epochs; peers are numbered by the epoch's ``members``.
    """

    index: int
    disk: Disk
    committee: Committee
    members: tuple[int, ...]
    verifier: Verifier
    replica: Replica | None = None
    life: int = 0
    fifo: list[ev.Effect] = field(default_factory=list)
    syncing: bool = False
    timers: dict[ev.Timer, int] = field(default_factory=dict)
    roots: list[tuple[bytes, bytes]] = field(default_factory=list)
    items: dict[bytes, PayloadItem] = field(default_factory=dict)
    halted: str = ""
    evidence: list[ev.ReportEvidence] = field(default_factory=list)
    effects_left: int | None = None
    results: dict[bytes, bytes | None] = field(default_factory=dict)

    def number(self, index: int) -> int:
        """What this node's replica calls another node."""
        if index in self.members:
            return self.members.index(index)
        return len(self.members) + index

    def index_of(self, peer: int) -> int:
        size = len(self.members)
        return self.members[peer] if peer < size else peer - size

    @property
    def epoch(self) -> int:
        return self.committee.epoch


class World:
    """n nodes, links and a clock.

    Args:
        spare: nodes beside the first committee's. ``changes`` says which batch elects whom.
        delay: ``(from, to, message) -> milliseconds``, or None for a lost message.
        sync_ms: how long a ``Persist`` takes; execute_ms: how long a block takes.
    """

    def __init__(
        self,
        size: int = 4,
        *,
        spare: int = 0,
        seed: int = 0,
        delay: Callable[[int, int, Message], int | None] | None = None,
        sync_ms: int = 0,
        execute_ms: int = 0,
        config: ev.ReplicaConfig | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.committee = committee_of(size)
        self.genesis = genesis_of(self.committee)
        self.config = config or ev.ReplicaConfig(CHAIN)
        self.delay = delay or (lambda _from, _to, _message: 10)
        self.sync_ms = sync_ms
        self.execute_ms = execute_ms
        self.now_ms = START_MS
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.sequence = 0
        record = wire.encode_record(first_record(self.genesis))
        first = tuple(range(size))
        self.nodes = [
            Node(
                i,
                Disk(record, delivered=[(self.genesis, None)]),
                self.committee,
                first,
                verifier(self.committee),
            )
            for i in range(size + spare)
        ]
        self.changes: dict[bytes, tuple[int, ...]] = {}
        self.elected: dict[bytes, tuple[Committee, tuple[int, ...]]] = {
            self.committee.hash: (self.committee, first)
        }
        self.sent: dict[tuple[int, SignKind, int, int], bytes] = {}
        self.sent_log: list[tuple[int, int, Message]] = []
        self.chain: dict[int, bytes] = {}
        self.certified_ms: dict[bytes, int] = {}
        self.result_of: Callable[[int, Block, bytes], bytes] = lambda _node, block, before: (
            hashlib.sha256(before + block.id).digest()
        )
        self.withheld: set[tuple[int, bytes]] = set()
        self.effect_hook: Callable[[Node, ev.Effect], None] = lambda _node, _effect: None

    # --- running ---

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        self.sequence += 1
        heapq.heappush(self.queue, (when_ms, self.sequence, action))

    def run(self, for_ms: int) -> None:
        until = self.now_ms + for_ms
        while self.queue and self.queue[0][0] <= until:
            self.now_ms, _, action = heapq.heappop(self.queue)
            action()
        self.now_ms = until

    def run_until(self, condition: Callable[[], bool], limit_ms: int) -> int:
        """Run until the condition holds; return how long it took."""
        start, until = self.now_ms, self.now_ms + limit_ms
        while not condition():
            if not self.queue or self.queue[0][0] > until:
                raise AssertionError(f"not reached within {limit_ms} ms")
            self.now_ms, _, action = heapq.heappop(self.queue)
            action()
        return self.now_ms - start

    def start(self, *indexes: int) -> None:
        chosen = indexes or tuple(range(len(self.nodes)))
        for index in chosen:
            self.nodes[index].effects_left = None
            self._boot(self.nodes[index])
        for index in chosen:
            for other in self.nodes:
                if other.index != index and other.replica is not None:
                    node = self.nodes[index]
                    self.step(node, ev.Connected(node.number(other.index)))
                    if other.index not in chosen:
                        self.step(other, ev.Connected(other.number(index)))

    def _boot(self, node: Node) -> None:
        node.life += 1
        node.timers, node.fifo, node.syncing = {}, [], False
        node.results = {}
        tip, cert = node.disk.delivered[-1]
        above = tuple(b for b in node.disk.blocks.values() if b.height > tip.height)
        record = wire.decode_record(node.disk.record)
        state = ev.RecoveredState(record, ev.CertifiedTip(tip, cert), above)
        node.committee, node.members = self.elected[self._committee_hash(node, record.epoch)]
        start = record.high_qc
        if record.epoch > 1:
            ends = [c for b, c in node.disk.delivered if c is not None and ends_with(b, c)]
            start = start_cert(ends[record.epoch - 2].statement)
            assert ends[record.epoch - 2].statement.epoch == record.epoch - 1
        else:
            start = genesis_cert(self.genesis)
        node.verifier = Verifier(CHAIN, node.committee, start, verify=verify_signature)
        own = node.number(node.index)
        own = own if own < len(node.members) else ev.FOLLOWER
        node.replica = Replica(self.config, node.committee, own, state)
        node.roots = [(tip.id, self._root_of(node))]
        self.step(node, ev.Started())
        self.offer(node)

    def _committee_hash(self, node: Node, epoch: int) -> bytes:
        """Who votes in an epoch, as this node's own disk tells."""
        found = self.committee.hash
        for block, cert in node.disk.delivered:
            if cert is not None and ends_with(block, cert) and block.epoch < epoch:
                found = cert.statement.next_committee_hash or b""
        return found

    def _enter(self, node: Node, record: bytes) -> None:
        """Begin the next epoch: what was delivered is durable at once, then the record."""

        def synced(life: int = node.life) -> None:
            if node.life == life:
                assert wire.decode_record(record).epoch == node.epoch + 1
                node.disk.record = record
                self._boot(node)
                for other in self.nodes:
                    if other.index != node.index and other.replica is not None:
                        self.step(node, ev.Connected(node.number(other.index)))

        node.syncing = True
        self.at(self.now_ms + self.sync_ms, synced)

    def _root_of(self, node: Node) -> bytes:
        root = bytes(32)
        for block, _ in node.disk.delivered[1:]:
            root = self.result_of(node.index, block, root)
        return root

    def crash(self, *indexes: int) -> None:
        for index in indexes or range(len(self.nodes)):
            node = self.nodes[index]
            node.replica, node.life = None, node.life + 1
            node.fifo = []

    def step(self, node: Node, event: ev.Event) -> None:
        events = [event]
        while events and node.replica is not None:
            for effect in node.replica.step(events.pop(0), self.now_ms):
                if node.effects_left is not None:
                    node.effects_left -= 1
                    if node.effects_left < 0:
                        self.crash(node.index)
                        return
                self.effect_hook(node, effect)
                if isinstance(effect, ev.Sign):
                    durable = wire.decode_record(node.disk.record).epoch
                    assert effect.epoch == durable, "signed in an epoch that is not on disk"
                    signature = sign(node.index, effect.kind, effect.body)
                    events.append(ev.Signed(effect.kind, effect.body, signature))
                else:
                    self._obey(node, effect)
        self._drain(node)

    # --- effects ---

    def _obey(self, node: Node, effect: ev.Effect) -> None:
        match effect:
            case ev.Persist() | ev.Broadcast() | ev.Send() | ev.Deliver() | ev.EndEpoch():
                node.fifo.append(effect)
            case ev.RequirePayload(block):
                if (node.index, block.id) not in self.withheld:
                    self._soon(node, 1, ev.PayloadHeld(block.id))
            case ev.Execute(block):
                assert node.roots[-1][0] == block.parent_id, "execution off the tip"
                root = self.result_of(node.index, block, node.roots[-1][1])
                node.roots.append((block.id, root))
                following = self._next_committee(block)
                node.results[block.id] = following
                assert node.results.get(block.parent_id) is None, "executed beyond an epoch's end"
                result = ev.ExecutionResult(1, root, root, root, root, following)
                self._soon(node, self.execute_ms, ev.Executed(block.id, result))
            case ev.Undo(block_id):
                assert node.roots.pop()[0] == block_id, "undo of what is not the tip"
            case ev.FetchBlocks(request, peers):
                for peer in peers:
                    self._send(node, node.index_of(peer), request)
            case ev.ServeBlocks(peer, request):
                self._serve(node, node.index_of(peer), request)
            case ev.ServeEnd(peer, epoch):
                self._serve_end(node, node.index_of(peer), epoch)
            case ev.SetTimer(token, at_ms):
                node.timers[token] = at_ms
                life = node.life
                self.at(at_ms, lambda: self._fire(node, life, token, at_ms))
            case ev.CancelTimer(token):
                del node.timers[token]
            case ev.ReportEvidence():
                node.evidence.append(effect)
            case ev.Halt(code):
                node.halted = code

    def _soon(self, node: Node, after_ms: int, event: ev.Event) -> None:
        def act(life: int = node.life) -> None:
            if node.life == life:
                self.step(node, event)

        self.at(self.now_ms + after_ms, act)

    def _fire(self, node: Node, life: int, token: ev.Timer, at_ms: int) -> None:
        if node.life == life and node.timers.get(token) == at_ms:
            del node.timers[token]
            self.step(node, ev.TimerFired(token))

    def _drain(self, node: Node) -> None:
        while node.fifo and not node.syncing:
            match node.fifo.pop(0):
                case ev.Persist() as effect:
                    if self.sync_ms == 0:
                        self._synced(node, effect)
                        continue
                    node.syncing = True

                    def done(life: int = node.life, effect: ev.Persist = effect) -> None:
                        if node.life == life:
                            node.syncing = False
                            self._synced(node, effect)
                            self._drain(node)

                    self.at(self.now_ms + self.sync_ms, done)
                case ev.Broadcast(message):
                    for peer in range(len(self.nodes)):
                        if peer != node.index:
                            self._send(node, peer, message)
                case ev.Send(peer, message):
                    self._send(node, node.index_of(peer), message)
                case ev.Deliver(block, cert):
                    self._deliver(node, block, cert)
                case ev.EndEpoch(block, cert, record):
                    assert node.disk.delivered[-1] == (block, cert), "ended before delivery"
                    assert ends_with(block, cert), "the ending block has no certificate of its own"
                    self._enter(node, record)

    def _synced(self, node: Node, effect: ev.Persist) -> None:
        node.disk.record = effect.record
        for block in effect.blocks:
            node.disk.blocks[block.id] = block

    def _send(self, node: Node, peer: int, message: Message) -> None:
        self._watch_slot(node.index, message)
        self.sent_log.append((node.index, peer, message))
        delay = self.delay(node.index, peer, message)
        if delay is None:
            return
        data = wire.encode_message(message)
        self.at(self.now_ms + delay, lambda: self.receive(peer, node.index, data))

    def receive(self, index: int, sender: int, data: bytes) -> None:
        node = self.nodes[index]
        if node.replica is None:
            return
        message = wire.decode_message(data)
        peer = node.number(sender)
        if (epoch := elsewhere(message, node.replica.epoch)) is not None:
            self.step(node, ev.OtherEpoch(peer, epoch))
            return
        if not node.replica.wants(message):
            return
        verified = node.verifier.verify(message, peer)
        if isinstance(message, BlocksResponse):
            self.step(node, ev.BlocksFetched(peer, verified))
        else:
            self.step(node, ev.Received(peer, verified))

    def _serve(self, node: Node, peer: int, request: BlocksRequest) -> None:
        stored = node.disk.delivered
        page = [
            each
            for each in stored[request.from_height : request.from_height + request.count]
            if each[0].epoch == request.epoch
        ]
        for end in range(len(page), 0, -1):
            block, cert = page[end - 1]
            if cert is not None and cert.statement.block_id == block.id:
                blocks = tuple(block for block, _ in page[:end])
                self._send(node, peer, BlocksResponse(blocks, cert))
                return
        if page and len(stored) > page[-1][0].height + 1:
            proof = stored[page[-1][0].height + 1][0].justify
            self._send(node, peer, BlocksResponse(tuple(block for block, _ in page), proof))

    def _serve_end(self, node: Node, peer: int, epoch: int) -> None:
        for block, cert in node.disk.delivered:
            if block.epoch == epoch and cert is not None and ends_with(block, cert):
                self._send(node, peer, Certificates(epoch, None, None, cert))

    def _next_committee(self, block: Block) -> bytes | None:
        """Return what a block's payload elects, if anything."""
        for item in block.payload:
            if item.digest in self.changes:
                members = self.changes[item.digest]
                committee = committee_among(block.epoch + 1, members)
                self.elected[committee.hash] = committee, members
                return committee.hash
        return None

    # --- promises watched ---

    def _deliver(self, node: Node, block: Block, cert: CommitCert) -> None:
        last = node.disk.delivered[-1][0]
        assert (block.parent_id, block.height) == (last.id, last.height + 1), "order of delivery"
        assert self.chain.setdefault(block.height, block.id) == block.id, "fork"
        assert cert.statement.height >= block.height
        self.certified_ms.setdefault(block.id, self.now_ms)
        node.disk.delivered.append((block, cert))
        for item in block.payload:
            node.items.pop(item.digest, None)
        self.offer(node)

    def _watch_slot(self, index: int, message: Message) -> None:
        match message:
            case Proposal(block):
                slot, body = (index, SignKind.PROPOSAL, block.epoch, block.round), block.id
            case Vote(epoch):
                slot, body = (index, SignKind.VOTE, epoch, message.round), message.body
            case Timeout(epoch):
                slot, body = (index, SignKind.TIMEOUT, epoch, message.round), message.body
            case CommitVote(statement):
                epoch = statement.epoch
                slot, body = (index, SignKind.COMMIT_VOTE, epoch, message.round), message.body
            case _:
                return
        assert self.sent.setdefault(slot, body) == body, f"two signatures for {slot}"

    # --- clients ---

    def submit(self, item: PayloadItem, *indexes: int) -> None:
        """Make a batch available at the given nodes, or at all."""
        for index in indexes or range(len(self.nodes)):
            self.nodes[index].items[item.digest] = item
            self.offer(self.nodes[index])

    def offer(self, node: Node) -> None:
        before = number_before(node.epoch)
        items = [replace(item, number=before + item.number) for item in node.items.values()]
        self._soon(node, 0, ev.PayloadAvailable(tuple(items)))

    def elect(self, number: int, members: tuple[int, ...], *indexes: int) -> PayloadItem:
        """Submit a batch by whose execution these nodes become the next committee."""
        item = batch(number)
        self.changes[item.digest] = members
        self.submit(item, *indexes)
        return item

    def delivered(self, index: int, item: PayloadItem) -> bool:
        blocks = self.nodes[index].disk.delivered
        return any(item.digest == each.digest for block, _ in blocks for each in block.payload)

    def height(self, index: int) -> int:
        return self.nodes[index].disk.delivered[-1][0].height
