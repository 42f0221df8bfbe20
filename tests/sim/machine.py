"""A simulated machine: power, its disk's one thread, its clock and its timers.

Every wait is an action of the scheduler, and every effect may be the last one before power fails or
the process is killed. A start is the product's own: ``Log.open`` and its sorting, the signer with
its mark, the checks that no promise was lost, and what the log holds above the store. Outbox, log
and mark are the product's too; what is theirs in a worker thread is called here in one go, and is
on disk after the time that the syncs take (``files``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from consensus.committee import Committee
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    PayloadItem,
    Statement,
    epoch_of_number,
    genesis_cert,
    next_record,
    number_before,
    start_cert,
)
from consensus.hotstuff.types import first_record as record_of_genesis
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import opening
from node.batches import BatchStore
from node.checked import CheckedBatch
from node.errors import PromisesLostError, StorageError, StorageFailedError
from node.outbox import Outbox, Outgoing
from node.shown import Shown
from node.signer import Signer as RealSigner
from node.silent import SilentSigner
from node.steady import SteadyClock
from node.storage import kinds
from node.storage.log import Log
from node.storage.recovery import Recovered, recover_log
from tests.sim.disk import Disk
from tests.sim.epochs import Roster
from tests.sim.errors import NO_OWN_BUG, Crash, Violation, described
from tests.sim.keys import validator_key
from tests.sim.signer import Signer

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

FOLDER = Path("/data")
MARK = FOLDER / "mark"
LOOK_MS = 500
"""A timer is looked at again so often, as ``node.ordering`` does, because clocks may be set."""
BOOT_CRASH = 0.1
"""How often a start ends before it is through, on seeds with crashes."""


class EagerOutbox(Outbox):
    """Lets all leave without waiting for the disk: broken, to see that it is noticed."""

    def put(self, effect: Outgoing | ev.Persist) -> None:
        """Take one effect."""
        if isinstance(effect, ev.Persist):
            super().put(effect)
        else:
            self._act(effect)


@dataclass
class Height:
    """One executed height above the store."""

    block: Block
    statement: Statement
    batches: tuple[CheckedBatch, ...]
    certificate: CommitCert | None = None
    elected: Committee | None = None


@dataclass
class Life:
    """Everything that a crash takes."""

    roster: Roster
    replica: Replica
    signer: RealSigner
    log: Log
    verifier: Verifier
    outbox: Outbox
    shown: Shown
    batches: BatchStore
    state: State
    history: HistoryTree
    certified: int
    executed: int
    tip: Block
    evidence: list[bytes]
    earlier: list[CheckedBatch]
    """Own batches of earlier epochs, to be made anew."""
    heights: dict[int, Height] = field(default_factory=dict)
    events: deque[ev.Event] = field(default_factory=deque)
    stepping: bool = False
    payload_changed: bool = False
    told_items: tuple[PayloadItem, ...] = ()
    timers: dict[ev.Timer, int] = field(default_factory=dict)
    fetch_ms: int | None = None
    announce_ms: int | None = None
    flushing: bool = False
    at_disk: bool = False
    """The thread of log and mark is at work."""
    turning: bool = False
    """A new log segment is asked for."""
    grown_from: int = 0
    stopped: bool = False
    """The disk failed, or the epoch is over: nothing leaves any more."""

    @property
    def epoch(self) -> int:
        """The epoch that this life is of."""
        return self.roster.committee.epoch

    @property
    def votes(self) -> bool:
        """Whether the machine is a member of its epoch's committee."""
        return self.own != FOLLOWER

    @property
    def own(self) -> int:
        """The machine's place among the members, or ``FOLLOWER``."""
        return self.batches.own if self.batches.own is not None else FOLLOWER

    @property
    def waiting(self) -> bool:
        """Whether a batch of its own is not delivered."""
        return any(each.origin == self.own for each in self.batches.undelivered())

    @property
    def peers(self) -> list[int]:
        """The other members, by place."""
        return [number for number in range(self.roster.size) if number != self.own]


class Machine(ABC):
    """A machine with a disk, on or off.

    Args:
        simulation: what it is part of.
        index: of the validator.
        disk: as the first start finds it.
    """

    def __init__(self, simulation: Simulation, index: int, disk: Disk) -> None:
        self._simulation = simulation
        self._founded = simulation.founded
        self._options = simulation.options
        self._clock = simulation.clock
        self._marks = simulation.marks
        self._watch = simulation.watch
        self.index = index
        self.disk = disk
        self.skew_ms = simulation.options.skew_of(index)
        """What this machine's clock shows beyond virtual time."""
        self._steady_ms = SteadyClock(self.now_ms)
        self.number = 0
        """Which life this is; actions planned in an earlier one come to nothing."""
        self.life: Life | None = None
        self.effects_left: int | None = None
        """Power fails when this many further effects have begun."""
        self.crashed: Callable[[], None] = lambda: None
        self._begins = False
        """The last start was to begin an epoch."""
        self._logged: bytes | None = None
        """The record that the log held when an epoch was begun without it (a mutant)."""

    # --- power --------------------------------------------------------------------------------

    def boot(self) -> bool:
        """Start from the disk, as ``node.engine`` does; return whether it came up."""
        self.number += 1
        self.effects_left = None
        self._steady_ms = SteadyClock(self.now_ms)
        try:
            recovered, blocks = self._recover()
            life = self._open(recovered, blocks)
        except StorageFailedError as error:
            self._marks.reach("no start from a failed disk")
            self._clock.trace(f"{self.index} cannot start: {error}")
            self._cut_off(power=False)
            return False
        except (PromisesLostError, StorageError) as error:
            raise Violation("no promise is lost", f"node {self.index}: {error}") from error
        options = self._options
        healed = self._simulation.healed
        may_crash = (options.crash_every_ms or options.elect_every_ms) and not healed
        if may_crash and self._clock.chance(BOOT_CRASH):
            self._marks.reach("power failed during recovery")
            if self._begins:
                self._marks.reach("power failed as an epoch began")
            self._clock.trace(f"{self.index} fails while it starts")
            self._cut_off(power=self._clock.chance(0.5))
            return False
        self.disk.files.settle()
        self.disk.started(recovered.found, blocks)
        if self._simulation.mutant.hasty_epoch:
            self.disk.record = self._logged
        if life.votes:
            self.disk.marks.add(life.signer.public)
        self.life = life
        self._begin(life)
        return True

    def _recover(self) -> tuple[Recovered, list[Block]]:
        disk, options = self.disk, self._options
        recovered = recover_log(
            cast(Any, disk.store),
            FOLDER,
            chain=self._founded.chain,
            disk=disk.files,
            reserve_bytes=options.reserve_bytes,
        )
        blocks = [wire.decode_block(each.value.data) for each in recovered.found.blocks]
        disk.compare(recovered.found, blocks, f"node {self.index}")
        self._simulation.blocks.update({block.id: block for block in blocks})
        if recovered.log.cut_bytes:
            self._marks.reach("torn tail of the log cut")
        return recovered, blocks

    def _open(self, recovered: Recovered, blocks: Sequence[Block]) -> Life:
        founded, store, found = self._founded, self.disk.store, recovered.found
        mutant = self._simulation.mutant
        roster = Roster(store.ended[-1].committee if store.ended else founded.committee)
        committee, own = mutant.committee(roster.committee), roster.own(self.index)
        signer = self._open_signer(recovered, roster)
        tip = ev.CertifiedTip(store.blocks[-1][0], store.blocks[-1][2])
        self._begin_epoch(recovered, tip)
        opening.refuse_rollback(recovered, signer)
        before = signer.snapshot()
        signer.adopt(opening.signed_bodies(recovered, own))
        if signer.snapshot() != before:
            self._marks.reach("log ahead of the signer's mark")
        if tip.ends(committee.epoch - 1):
            store.numbers = [number_before(committee.epoch)] * committee.size
        batches = BatchStore(committee.size, None if own == ev.FOLLOWER else own, committee.epoch)
        logged = opening.logged_batches(recovered, founded.chain, store.numbers)
        current = [each for each in logged if epoch_of_number(each.number) == committee.epoch]
        batches.restore(store.numbers, current, self.steady_ms())
        record = found.safety
        replica = Replica(
            self._simulation.config,
            committee,
            own,
            ev.RecoveredState(
                record_of_genesis(founded.first) if record is None else wire.decode_record(record),
                tip,
                tuple([block for block in blocks if block.epoch == committee.epoch]),
            ),
        )
        make = EagerOutbox if mutant.eager_outbox else Outbox
        outbox = make(
            cast(Any, None), signer, self.act, record, [each.value for each in found.blocks]
        )
        if found.blocks:
            self._marks.reach("restart with blocks above the store")
        start = genesis_cert(founded.first)
        if store.ended:
            start = start_cert(store.ended[-1].certificate.statement)
        return Life(
            roster=roster,
            replica=replica,
            signer=signer,
            log=recovered.log,
            verifier=Verifier(founded.chain, committee, start, verify=self._simulation.keys.verify),
            outbox=outbox,
            shown=Shown(outbox, replica.certificates),
            batches=batches,
            state=State(store.backend, founded.genesis.tree_depth, store.height),
            history=HistoryTree(store.nodes, store.height + 1),
            certified=store.height,
            executed=store.height,
            tip=tip.block,
            evidence=list(found.evidence),
            earlier=self._earlier(logged, committee.epoch),
            grown_from=recovered.log.end - recovered.log.segment_bytes,
        )

    def _open_signer(self, recovered: Recovered, roster: Roster) -> RealSigner:
        """Open the signer of the key that votes in this epoch; each key has a mark of its own."""
        founded, own = self._founded, roster.own(self.index)
        if own == ev.FOLLOWER:
            return SilentSigner(validator_key(self.index), founded.chain)
        public = roster.committee.keys[own]
        signer = Signer.open(
            validator_key(self.index, public),
            MARK if public == validator_key(self.index).public else MARK.with_name(public.hex()),
            chain=founded.chain,
            log_identity=recovered.log.identity,
            log_end=recovered.log.end,
            fresh=recovered.fresh or public not in self.disk.marks,
            disk=self.disk.files,
        )
        cast(Signer, signer).keys = self._simulation.keys
        return signer

    def _begin_epoch(self, recovered: Recovered, tip: ev.CertifiedTip) -> None:
        """Make the epoch's first record durable if the stored tip ended the one before."""
        found, certificate = recovered.found, tip.commit_cert
        before = 1 if found.safety is None else wire.decode_record(found.safety).epoch
        self._begins = tip.ends(before)
        if certificate is not None and self._begins:
            record = wire.encode_record(next_record(certificate))
            if self._simulation.mutant.hasty_epoch:
                self._logged, found.safety = found.safety, record
                return
            self.disk.writing = (*self.disk.writing, kinds.safety(record))
        self._logged = found.safety
        opening.begin_epoch(recovered, tip)

    def _earlier(self, logged: list[CheckedBatch], epoch: int) -> list[CheckedBatch]:
        """Return own batches of earlier epochs that the log holds: they were never delivered."""
        places = [self._founded.committee, *[each.committee for each in self.disk.store.ended]]
        return [
            each
            for each in logged
            if (of := epoch_of_number(each.number)) < epoch
            and Roster(places[of - 1]).own(self.index) == each.origin
        ]

    @abstractmethod
    def _begin(self, life: Life) -> None:
        """Take up what was recovered."""

    @abstractmethod
    def act(self, effect: Outgoing) -> None:
        """Send or deliver; everything that it promises is durable."""

    @abstractmethod
    def carried(self, life: Life) -> list[kinds.Entry]:
        """Return what a new log segment begins with."""

    def crash(self, *, power: bool = True) -> None:
        """Power fails, or the process is killed. What is on the disk then is ``files``' matter."""
        if self.life is None:
            return
        if self.disk.files.busy:
            self._marks.reach("crash during a sync")
        self._clock.trace(f"{self.index} " + ("loses power" if power else "is killed"))
        self._cut_off(power=power)

    def _cut_off(self, *, power: bool) -> None:
        if power:
            self.disk.files.power()
        else:
            self.disk.files.kill()
            self._marks.reach("process killed")
        self.life = None
        self.number += 1

    def enter(self, action: Callable[[], None]) -> None:
        """Do something on this machine; power may fail in the middle."""
        try:
            action()
            self._use_disk()
        except Crash:
            self._marks.reach("crash between two effects")
            self.crash(power=self._clock.chance(0.7))
            self.crashed()
        except Violation:
            raise
        except Exception as error:
            raise Violation(NO_OWN_BUG, f"node {self.index}: {described(error)}") from error

    def soon(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` after a delay, unless this machine has crashed by then."""
        number = self.number

        def act() -> None:
            if self.number == number:
                self.enter(action)

        self._clock.after(delay_ms, act)

    def repeat(self, every_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` at intervals, until this machine crashes."""

        def act() -> None:
            action()
            self.soon(every_ms, act)

        self.soon(every_ms, act)

    def begin_effect(self, _what: object) -> None:
        """Power may fail here, before ``_what`` is carried out."""
        if self.effects_left is not None:
            self.effects_left -= 1
            if self.effects_left < 0:
                raise Crash

    def end_epoch(self) -> None:
        """The epoch is over: once what was delivered is stored, the machine starts into the next.

        The process goes on, but nothing of its memory does; so this is a start like any other.
        """
        life = self.alive
        life.stopped = True
        life.outbox.close()
        life.events.clear()
        life.timers.clear()
        self.soon(self._clock.random.randint(0, 20), self._store_epoch)

    def _store_epoch(self) -> None:
        life = self.alive
        if life.at_disk or life.flushing:
            self.soon(2, self._store_epoch)
            return
        if self.disk.files.failing:
            self.fail(life, "the last flush of an epoch failed")
            return
        self.store_heights(life, life.certified)
        self.begin_effect(life)
        self._clock.trace(f"{self.index} leaves epoch {life.epoch}")
        self.disk.files.kill()  # all calls are through: no more than closing
        self.life = None
        self.number += 1
        self.begin_effect(life)
        self._simulation.next_epoch(self.index)

    @abstractmethod
    def store_heights(self, life: Life, upto: int) -> None:
        """Flush the heights up to this one."""

    @property
    def alive(self) -> Life:
        """The present life of a node that is up."""
        if self.life is None:
            raise Crash
        return self.life

    # --- the disk -----------------------------------------------------------------------------

    def _use_disk(self) -> None:
        """Give the thread of log and mark its next work, if it has none."""
        life = self.life
        if life is None or life.at_disk or life.stopped:
            return
        try:
            if life.turning:
                life.turning = False
                self._turn_log(life)
            else:
                self._sync(life)
        except StorageFailedError as error:
            self.disk.files.settle()
            self.fail(life, str(error))

    def _sync(self, life: Life) -> None:
        turn = life.outbox.take()
        if turn is None:
            return
        self.disk.writing = turn.entries
        if turn.entries:
            for kind, payload in turn.entries:
                life.log.append(kind, payload)
            synced = life.log.sync()
            if turn.mark is not None:
                life.signer.write_mark(synced, turn.mark)

        def through() -> None:
            life.at_disk = False
            self.disk.files.settle()
            self.disk.synced(self._simulation.blocks)
            life.outbox.carry_out(turn)

        life.at_disk = True
        syncs = (turn.mark is not None) + bool(turn.entries)
        self.soon(sum(self._sync_ms() for _ in range(syncs)), through)

    def _turn_log(self, life: Life) -> None:
        """Begin a new segment and drop the others, as ``node.flushing`` does."""
        carried = self.carried(life)
        self.disk.writing = carried
        life.log.rotate(carried)
        life.grown_from = life.log.synced
        life.log.drop_before(life.log.synced)
        self._marks.reach("log turned")

        def through() -> None:
            life.at_disk = False
            self.disk.files.settle()
            self.disk.turned(f"node {self.index}")
            self.disk.synced(self._simulation.blocks)

        life.at_disk = True
        self.soon(self._sync_ms() + self._sync_ms(), through)

    def fail(self, life: Life, why: str) -> None:
        """The disk failed: nothing is signed, sent or delivered any more."""
        life.stopped = True
        life.outbox.close()
        life.events.clear()
        life.timers.clear()
        self._marks.reach(f"stopped by a failing disk: {self.disk.files.failing}")
        self._clock.trace(f"{self.index} stops signing: {why}")

    def _sync_ms(self) -> int:
        options, rng = self._options, self._clock.random
        sync_ms = rng.randint(0, options.sync_ms)
        spike = not self._simulation.healed and self._clock.chance(options.sync_spike)
        return sync_ms * 30 if spike else sync_ms

    # --- the clock ----------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return what this machine's clock shows."""
        return self._clock.now_ms + self.skew_ms

    def steady_ms(self) -> int:
        """Return the time by which retries are counted."""
        return self._steady_ms()

    def jump(self, delta_ms: int) -> None:
        """The clock is set."""
        self.skew_ms += delta_ms
        self._marks.reach("a clock set forward" if delta_ms > 0 else "a clock set back")
        self._clock.trace(f"{self.index} clock set by {delta_ms} ms")
        if self.life is not None:
            back = delta_ms < 0
            look_ms = self._clock.random.randint(0, LOOK_MS)
            self.soon(look_ms, lambda: self._look_at_timers(back=back))

    def set_timer(self, life: Life, token: ev.Timer, at_ms: int) -> None:
        """Have a timer fire when this machine's clock shows ``at_ms``, or some time later."""
        life.timers[token] = at_ms
        late_ms = self._clock.random.choice((0, 0, 0, 1, 5))
        self.soon(max(at_ms - self.now_ms(), 0) + late_ms, lambda: self._fire(token, at_ms))

    def _fire(self, token: ev.Timer, at_ms: int) -> None:
        timers = self.alive.timers
        if timers.get(token) != at_ms:
            return
        left_ms = at_ms - self.now_ms()
        if left_ms > 0:  # the clock was set back
            self.soon(min(left_ms, LOOK_MS), lambda: self._fire(token, at_ms))
            return
        del timers[token]
        self.post(ev.TimerFired(token))

    def _look_at_timers(self, *, back: bool) -> None:
        """Fire what is due after the clock was set: all timers if it was set ``back``."""
        now_ms, timers = self.now_ms(), self.alive.timers
        for token in [token for token, at_ms in timers.items() if back or at_ms <= now_ms]:
            if timers.pop(token, None) is not None:
                self.post(ev.TimerFired(token))

    @abstractmethod
    def post(self, event: ev.Event) -> None:
        """Take up an event."""
