"""Sites and links: the real replicas, in lock-step rounds, with a disk that syncs at once.

Nothing takes time but waiting: messages are handled one after the other in the order in which they
were sent; when none is left, the clock moves to the next timer. A round that cannot end is given up
before others are two rounds further, so that no side of a split runs away. A split that leaves
nobody able to go on is opened for the messages that ask to go on (timeouts), then ends.

Messages of replicas are not encoded, and their signatures not checked again: both are the real
thing's own. What liars send is verified as on any link. Execution is a hash chain.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consensus import signing
from consensus.committee import Committee, Validator
from consensus.errors import SignatureError, VerificationError
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier
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
    Proposal,
    SignKind,
    Timeout,
    VerifiedMessage,
    Vote,
    first_record,
    genesis_block,
    genesis_cert,
)
from tests.byzantine.twins.judge import PROGRESS, Broken, Judge
from tests.byzantine.twins.scenario import FREE, Scenario, Turn, keys_of, twins_of

CHAIN: Final = hashlib.sha256(b"a chain of twins").digest()
START_MS: Final = 1_000_000
STEPS_MAX: Final = 60_000
"""Messages and timers of one scenario; the longest have some thousands."""
ROUNDS_AFTER_MAX: Final = 10
"""New work is certified everywhere within so many rounds once all hear all."""
WAITS_MAX: Final = 12
"""Timers that fire in one round before it counts as stuck: those that fetch never end."""
NEVER_MS: Final = 10**9


def config(patient: bool) -> ev.ReplicaConfig:
    """Return parameters that make a round two milliseconds long, and three if it fails."""
    return ev.ReplicaConfig(
        CHAIN,
        timeout_base_ms=4 if patient else 1,
        timeout_max_ms=4 if patient else 1,
        heartbeat_ms=2,
        empty_block_ms=2,
        round_time_min_ms=2,
        resend_ms=NEVER_MS,
        fetch_delay_ms=0,
        fetch_retry_ms=2,
    )


def key_of(index: int) -> bytes:
    """Return the key of a validator."""
    return hashlib.sha256(b"twin %d" % index).digest()


def validators_of(size: int) -> tuple[Validator, ...]:
    """Return the validators of a network."""
    return tuple(
        Validator(f"agency-{i}", key_of(i), key_of(i + 100), b"x", "host", 1, "host", 2)
        for i in range(size)
    )


class Led(Committee):
    """A committee whose leaders the scenario names; afterwards they take turns."""

    led: tuple[Turn, ...] = ()

    def leader(self, round_: int) -> int:
        """Return the leader of a round."""
        if 0 < round_ <= len(self.led):
            return self.led[round_ - 1].leader
        return round_ % len(self.validators)


def sign(index: int, kind: SignKind, body: bytes) -> bytes:
    """Return the stand-in signature of a validator."""
    signed = signing.message(SIGN_TAGS[kind], CHAIN, body)
    return hashlib.blake2b(key_of(index) + signed).digest()


def verify(key: bytes, signed: bytes, signature: bytes) -> None:
    """Raise SignatureError unless the stand-in signature holds."""
    if hashlib.blake2b(key + signed).digest() != signature:
        raise SignatureError("the signature does not verify")


_COMMITTEES: dict[int, Led] = {}


def committee_of(size: int) -> Led:
    """Return the committee of a size, its hash worked out once."""
    if size not in _COMMITTEES:
        _COMMITTEES[size] = Led(1, validators_of(size))
        _ = _COMMITTEES[size].hash
    return _COMMITTEES[size]


@dataclass(slots=True, eq=False)
class Site:
    """A machine with a key, alive or not. ``record``, ``logged`` and ``stored`` are its disk."""

    place: int
    key: int
    record: bytes
    replica: Replica | None = None
    logged: dict[bytes, Block] = field(default_factory=dict)
    stored: list[tuple[Block, CommitCert | None]] = field(default_factory=list)
    roots: list[bytes] = field(default_factory=list)
    timers: dict[ev.Timer, int] = field(default_factory=dict)
    evidence: list[ev.ReportEvidence] = field(default_factory=list)
    halted: str = ""


Parcel = tuple[int, int, Message]
"""From place, to place, message."""


class Field:
    """One scenario.

    Args:
        on_boot: changes a replica that was just made: a mutant's.
        ignore: promises not to be judged.
        liar: in place of the second sites: is told every message, and sends by ``tell``.
        trace: is given every line of what happens.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        on_boot: Callable[[Replica], None] | None = None,
        ignore: tuple[str, ...] = (),
        liar: Callable[[Field, int, Message], None] | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.committee = committee_of(scenario.size)
        object.__setattr__(self.committee, "led", scenario.turns)
        self.genesis = genesis_block(CHAIN, self.committee.hash, START_MS - 1000)
        self.judge = Judge(scenario.size, self.genesis, ignore)
        self.now_ms = START_MS
        self.highest = 1
        """The highest round any site has entered."""
        self.open = False
        """Whether everybody hears everybody."""
        self._patient = config(True)
        self._config = config(False)
        self._on_boot = on_boot
        self._liar = liar
        self._trace = trace
        self._queue: deque[Parcel] = deque()
        self._kept: list[tuple[int, Parcel]] = []
        self._plans: list[Callable[[], object]] = []
        self._waits = self._waited_in = self._waits_all = self._restart_at = 0
        self._asked_again = False
        self.steps = 0
        """Messages taken and timers fired."""
        self._restarts = list(scenario.restarts)
        record = wire.encode_record(first_record(self.genesis))
        self.honest = scenario.size - twins_of(scenario.size)
        self.sites = [Site(place, key, record) for place, key in enumerate(keys_of(scenario.size))]
        self._places: list[tuple[int, ...]] = [
            tuple(site.place for site in self.sites if site.key == key)
            for key in range(scenario.size)
        ]
        self._verifier: Verifier | None = None

    # --- the whole of it ----------------------------------------------------------------------

    def run(self) -> Judge:
        """Run the scenario to its end, then until new work is certified everywhere.

        Raises:
            Broken: a promise was broken.
        """
        scenario = self.scenario
        for site in self.sites:
            second = site.place >= scenario.size
            lying = self._liar is not None and site.place >= self.honest
            if lying or scenario.down >> site.place & 1 or (second and scenario.copied):
                continue
            self.boot(site)
        last = len(self.scenario.turns)
        while self.highest <= last:
            self._settle()
            self._due()
            self._wait()
        self._settle()
        self._due()
        self.heal()
        self.judge.finish()
        return self.judge

    def heal(self) -> None:
        """Let everybody hear everybody, and wait for new work to be certified."""
        self.open = True
        self._release(everything=True)
        for site in self.sites:
            down = self.scenario.down >> site.place & 1
            if site.replica is None and not (self._liar or site.halted or down):
                self.boot(site)
        self._settle()
        since = self.highest
        honest = self.sites[: self.honest]
        renewed = False
        while not all(site.stored and site.stored[-1][0].round >= since for site in honest):
            if not renewed and self.highest > since + 1:
                renewed = True
                self._renew()
            self._wait()
            self._settle()
            if self.highest > since + ROUNDS_AFTER_MAX:
                raise Broken(PROGRESS, self.standing())

    def _renew(self) -> None:
        """Let every link stand anew: what was lost on it is said again."""
        self.judge.reach("links renewed")
        for site in self._alive():
            for other in self._alive():
                if other.place < self.scenario.size and site.key != other.key:
                    self.step(site, ev.Connected(other.key))
        self._settle()

    def standing(self) -> str:
        """Return where each site is."""
        return "; ".join(
            f"{s.place}: down"
            if s.replica is None
            else f"{s.place}: round {s.replica.round}, ordered {s.replica.ordered_height}, "
            f"certified {s.stored[-1][0].height if s.stored else 0}{s.halted and ' ' + s.halted}"
            for s in self.sites
        )

    # --- power --------------------------------------------------------------------------------

    def boot(self, site: Site) -> None:
        """Start a site from its disk; nothing of what it delivered was flushed."""
        state = ev.RecoveredState(
            wire.decode_record(site.record),
            ev.CertifiedTip(self.genesis, None),
            tuple(site.logged.values()),
        )
        parameters = self._patient if self.scenario.patient >> site.place & 1 else self._config
        site.replica = Replica(parameters, self.committee, site.key, state)
        if self._on_boot is not None:
            self._on_boot(site.replica)
        site.roots = [bytes(32)]
        site.timers = {}
        self.judge.restarts(site.place)
        site.stored = []
        self._say(site.place, "boots")
        self.step(site, ev.Started())

    def crash(self, site: Site) -> None:
        """Take a site's power."""
        site.replica = None
        place = site.place
        left = [parcel for parcel in self._queue if place not in parcel[:2]]
        self._queue.clear()
        self._queue.extend(left)
        self._kept = [entry for entry in self._kept if place not in entry[1][:2]]

    def _due(self) -> None:
        """Restart and copy what the scenario wants in the rounds reached."""
        while self._restarts and self._restarts[0][0] <= self.highest:
            _, waits, places = self._restarts[0]
            self._restart_at = self._restart_at or self._waits_all + waits
            if self._waits_all < self._restart_at and not self.open:
                break
            self._restart_at = 0
            self._restarts.pop(0)
            self.restart([site for site in self.sites if places >> site.place & 1])
        if self.scenario.copied and self.scenario.copied <= self.highest:
            for site in self.sites[self.scenario.size :]:
                if site.replica is None:
                    first = self.sites[self._places[site.key][0]]
                    site.record, site.logged = first.record, dict(first.logged)
                    self.judge.reach("a folder was copied")
                    self.boot(site)

    def restart(self, sites: list[Site]) -> None:
        """Take the power of sites at one moment, and give it back."""
        lying = self._liar is not None
        chosen = [site for site in sites if not (lying and site.place >= self.honest)]
        if self.scenario.copied > self.highest:
            chosen = [site for site in chosen if site.place < self.scenario.size]
        for site in chosen:
            self.crash(site)
        for site in chosen:
            self.judge.reach("restart")
            self.boot(site)

    def _alive(self) -> list[Site]:
        return [site for site in self.sites if site.replica is not None]

    # --- time ---------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Deliver what is on its way, and what that causes."""
        queue = self._queue
        while queue or self._plans:
            if not queue:
                self._plans.pop(0)()
                continue
            sender, receiver, message = queue.popleft()
            site = self.sites[receiver]
            if site.replica is None or not site.replica.wants(message):
                continue
            self._count()
            key = self.sites[sender].key
            verified = VerifiedMessage(message, key)
            if isinstance(message, BlocksResponse):
                self.step(site, ev.BlocksFetched(key, verified))
            else:
                self.step(site, ev.Received(key, verified))

    def _wait(self) -> None:
        """Move on to the next timers; without any, let what was held back pass."""
        self._waits_all += 1
        if self._release():
            return
        alive = self._alive()
        due_ms = min(
            (
                at
                for site in alive
                for at in site.timers.values()
                if at < self.now_ms + NEVER_MS // 2
            ),
            default=None,
        )
        self._waits = self._waits + 1 if self.highest == self._waited_in else 0
        self._waited_in = self.highest
        if due_ms is None or self._waits > WAITS_MAX:
            self._waits = 0
            self._unblock()
            return
        self.now_ms = max(self.now_ms, due_ms)
        for site in alive:
            for token, at_ms in list(site.timers.items()):
                if at_ms <= self.now_ms and site.timers.get(token) == at_ms:
                    del site.timers[token]
                    self._count()
                    self.step(site, ev.TimerFired(token))

    def _unblock(self) -> None:
        """Nobody has anything to wait for: the messages that ask to go on pass after all."""
        waiting = [(at, each) for at, each in self._kept if isinstance(each[2], Timeout)]
        if waiting:
            self.judge.reach("a split that nobody could end")
            self._kept = [entry for entry in self._kept if entry not in waiting]
            self._queue.extend(parcel for _, parcel in waiting)
            return
        if self.open:
            if self._asked_again:
                raise Broken(PROGRESS, f"everybody waits for ever: {self.standing()}")
            self._asked_again = True
            self._renew()
            return
        self.judge.reach("the network healed early")
        self.heal()

    def _release(self, everything: bool = False) -> bool:
        """Let pass what is late enough; return whether anything was."""
        late = self.scenario.late
        if not late:
            return False
        ready = [p for at, p in self._kept if everything or at + late <= self.highest]
        if not ready:
            return False
        self._kept = [] if everything else [e for e in self._kept if e[0] + late > self.highest]
        self.judge.reach("a message came rounds too late")
        self._queue.extend(ready)
        return True

    def _count(self) -> None:
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Broken(PROGRESS, f"no end: {self.standing()}")

    # --- one step -----------------------------------------------------------------------------

    def step(self, site: Site, event: ev.Event) -> None:
        """Give a site an event and obey the effects, each behind the ``Persist`` before it."""
        replica = site.replica
        if replica is None or site.halted:
            return
        events = deque((event,))
        while events:
            for effect in replica.step(events.popleft(), self.now_ms + site.place):
                match effect:
                    case ev.Broadcast(message):
                        self._say_all(site, message)
                    case ev.SetTimer(token, at_ms):
                        site.timers[token] = at_ms - site.place
                    case ev.CancelTimer(token):
                        site.timers.pop(token, None)
                    case ev.Sign(kind, _, _, body):
                        events.append(ev.Signed(kind, body, sign(site.key, kind, body)))
                    case ev.Persist(record, blocks):
                        site.record = record
                        for block in blocks:
                            site.logged[block.id] = block
                    case ev.Send(peer, message):
                        self._send(site, peer, message)
                    case ev.Execute(block):
                        events.append(self._execute(site, block))
                    case ev.Undo():
                        site.roots.pop()
                        self.judge.reach("undo")
                    case ev.Deliver(block, certificate):
                        self._say(site.place, f"delivers {block.height} of round {block.round}")
                        self.judge.delivers(site.place, block, certificate)
                        site.stored.append((block, certificate))
                    case ev.FetchBlocks(request, peers):
                        self.judge.reach("blocks fetched")
                        for peer in peers:
                            self._send(site, peer, request)
                    case ev.ServeBlocks(peer, request):
                        self._serve(site, peer, request)
                    case ev.ReportEvidence():
                        self._evidence(site, effect)
                    case ev.Halt(code):
                        site.halted = code
                        if site.place < self.honest:
                            raise Broken("no halt", f"site {site.place}: {code}")
                    case _:
                        pass
        self.highest = max(self.highest, replica.round)

    def _execute(self, site: Site, block: Block) -> ev.Executed:
        root = hashlib.sha256(site.roots[-1] + block.id).digest()
        site.roots.append(root)
        return ev.Executed(block.id, ev.ExecutionResult(1, root, root, root, root))

    def _evidence(self, site: Site, found: ev.ReportEvidence) -> None:
        self.judge.reach(found.kind.value)
        match found.first:
            case Proposal(block):
                culprit = self.committee.leader(block.round)
            case Vote(validator=culprit) | Timeout(validator=culprit):
                pass
            case CommitVote(validator=culprit):
                pass
            case _:
                culprit = -1
        if culprit < self.honest or found.kind is ev.EvidenceKind.RESULTS_DISAGREE:
            self.judge.accuses(f"site {site.place}: {found.kind.value}")
        site.evidence.append(found)

    # --- links --------------------------------------------------------------------------------

    def _say_all(self, site: Site, message: Message) -> None:
        if not isinstance(message, Certificates):
            if self._trace is not None:
                self._say(site.place, f"says {brief(message)}")
            self.judge.says(site.place, message)
        if self._liar is not None:
            self._liar(self, site.place, message)
        for other in self.sites:
            if other is not site:
                self._put(site, other.place, message)

    def _send(self, site: Site, peer: int, message: Message) -> None:
        if self._liar is not None:
            self._liar(self, site.place, message)
        for place in self._places[peer]:
            if place != site.place:
                self._put(site, place, message)

    def _put(self, site: Site, place: int, message: Message) -> None:
        parcel = (site.place, place, message)
        if self.open or self._passes(site, place, message):
            self._queue.append(parcel)
        elif isinstance(message, BlocksRequest):
            pass  # asked again soon, by whoever still lacks the blocks
        elif self.scenario.late or isinstance(message, Timeout):
            self._kept.append((self.highest, parcel))

    def _passes(self, site: Site, place: int, message: Message) -> bool:
        match message:
            case Vote(round=round_):
                kind = 1
            case Timeout(round=round_):
                kind = 2
            case CommitVote(statement):
                kind, round_ = 3, statement.round
            case Proposal(block):
                kind, round_ = 0, block.round
            case _:
                kind, round_ = 0, 1 if site.replica is None else site.replica.round
        turns = self.scenario.turns
        if not 0 < round_ <= len(turns):
            return True
        if self.scenario.cuts and (round_, kind, site.place, place) in self.scenario.cuts:
            return False
        split = turns[round_ - 1].splits[kind]
        return split == FREE or (split >> site.place & 1) == (split >> place & 1)

    def later(self, action: Callable[[], object]) -> None:
        """Do something once all messages on their way have been taken."""
        self._plans.append(action)

    def tell(self, key: int, place: int, message: Message) -> bool:
        """Bring a site a liar's message; return whether verification let it pass."""
        site = self.sites[place]
        if self._verifier is None:
            self._verifier = Verifier(
                CHAIN, self.committee, genesis_cert(self.genesis), verify=verify
            )
        self.judge.lies(key, message)
        self.judge.reach("a liar spoke")
        try:
            verified = self._verifier.verify(wire.decode_message(wire.encode_message(message)), key)
        except VerificationError:
            self.judge.reach("a lie refused")
            return False
        if site.replica is not None and site.replica.wants(message):
            self.step(site, ev.Received(key, verified))
        return True

    def _serve(self, site: Site, peer: int, request: BlocksRequest) -> None:
        rows = site.stored[request.from_height - 1 : request.from_height - 1 + request.count]
        for end in range(len(rows), 0, -1):
            block, certificate = rows[end - 1]
            if certificate is not None and certificate.statement.block_id == block.id:
                blocks = tuple(row[0] for row in rows[:end])
                self._send(site, peer, BlocksResponse(blocks, certificate))
                return

    def _say(self, place: int, line: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.now_ms - START_MS:5} {place} {line}")


def brief(message: Message) -> str:
    """Return a message in a few words."""
    match message:
        case Proposal(block):
            return (
                f"proposal {block.round} {block.id[:3].hex()} on {block.justify.round} "
                f"{block.parent_id[:3].hex()}"
            )
        case Vote():
            return f"vote {message.round} {message.block_id[:3].hex()}"
        case Timeout():
            return f"timeout {message.round} reporting {message.high_round}"
        case CommitVote(statement):
            return f"commit vote {statement.round} {statement.block_id[:3].hex()}"
        case _:
            return type(message).__name__
