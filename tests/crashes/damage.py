"""The last segment of a validator's log cut and flipped at every offset, beside its own mark.

The logs are those of the recorded run at its end. Each damage either leaves exactly the entries
before it, and then no slot of the past gets a second signature; or the start is refused, with the
place and what to do. Where entries lie is read here from the documented layout.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from consensus.hotstuff.types import SignKind
from node import opening
from node.errors import DamagedLogError, PromisesLostError, SigningRefusedError
from node.signer import Signer
from node.storage.log import Log
from node.storage.recovery import recover_log
from tests.crashes.deaths import CrashRun, DyingNode
from tests.sim.errors import require
from tests.sim.files import File, Files
from tests.sim.keys import validator_key
from tests.sim.machine import FOLDER, MARK

HEADER_BYTES: Final = 96
FIRST_AT: Final = 72
"""Where the header says how much was synced before the segment got its name."""
HEAD_BYTES: Final = 21
GROUP_KIND: Final = 0
FLIPS: Final = (0x01, 0xFF)
Entry = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Damage:
    """One damage to the last segment.

    Args:
        offset: where in the segment.
        flip: the bits turned there; 0: the segment ends there.
    """

    offset: int
    flip: int

    def __str__(self) -> str:
        return (
            f"flip of {self.flip:#04x} at {self.offset}" if self.flip else f"cut at {self.offset}"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """An entry or group header: from ``start`` to ``end`` of the segment."""

    start: int
    end: int
    kind: int
    payload: bytes


@dataclass
class Total:
    """How many damages had which end."""

    whole: int = 0
    prefix: int = 0
    refused: int = 0
    lost: int = 0
    failed: int = 0
    slots: int = 0

    def enter(self, verdict: str) -> None:
        """Count one."""
        name, _, slots = verdict.partition(" ")
        setattr(self, name, getattr(self, name) + 1)
        self.slots += int(slots or 0)

    def __str__(self) -> str:
        count = self.whole + self.prefix + self.refused + self.lost + self.failed
        return (
            f"{count} damages to the last segment: {self.whole} left every entry, "
            f"{self.prefix} the exact prefix, {self.refused} refused at their offset, "
            f"{self.lost} refused because promises are lost; "
            f"{self.slots} second signatures asked for and refused; {self.failed} failed"
        )


@dataclass
class DamagedLog:
    """The disk of one validator, of which the last segment is damaged again and again."""

    name: str
    node: DyingNode
    chain: bytes
    signed: list[tuple[SignKind, int]]
    """Every slot that its key has used in what it sent: kind and round."""
    places: list[Place] = field(default_factory=list)
    before: list[Entry] = field(default_factory=list)
    """Entries of older segments."""

    def __post_init__(self) -> None:
        names = {n: f for n, f in self.node.disk.files._names.items() if "/log/" in n}
        self.last = max(names)
        for name in sorted(names):
            places = _places(bytes(names[name].durable))
            if name == self.last:
                self.places = places
                self.content = bytes(names[name].durable)
            else:
                self.before += [(p.kind, p.payload) for p in places if p.kind != GROUP_KIND]
        self.base = int(Path(self.last).stem)
        self.first_bytes = int.from_bytes(self.content[FIRST_AT : FIRST_AT + 8])
        self.end = self.places[-1].end
        groups = [p for p in self.places if p.kind == GROUP_KIND]
        self.synced = max(int.from_bytes(p.payload[8:16]) for p in groups) - self.base
        """Below it, the segment itself says that all was on disk."""

    def damages(self, stride: int = 1) -> list[Damage]:
        """Return every damage, or every ``stride``-th."""
        room = min(len(self.content), self.end + 64)
        flips = [Damage(offset, flip) for offset in range(room) for flip in FLIPS]
        cuts = [Damage(offset, 0) for offset in range(room)]
        return [*cuts, *flips][::stride]

    def judge(self, damage: Damage) -> str:
        """Start from the damaged disk; return what came of it, as ``Total`` counts.

        Raises:
            Violation: neither the exact prefix nor a refusal with its place and advice.
        """
        content = bytearray(self.content)
        if damage.flip:
            content[damage.offset] ^= damage.flip
        else:
            del content[damage.offset :]
        hit = next((p for p in self.places if p.end > damage.offset), None)
        keeps = self.end if hit is None else max(hit.start, HEADER_BYTES)
        if damage.offset < HEADER_BYTES:
            keeps = 0
        # A cut takes what said that more was synced; the group headers before it still count.
        told = [p for p in self.places if p.kind == GROUP_KIND and (damage.flip or p.end <= keeps)]
        synced = max((int.from_bytes(p.payload[8:16]) for p in told), default=0) - self.base
        damaged = keeps < max(self.first_bytes, synced if damage.flip else 0)
        files = self._files(content)
        try:
            recovered = recover_log(
                cast(Any, self.node.disk.store),
                FOLDER,
                chain=self.chain,
                disk=files,
                reserve_bytes=4096,
            )
        except DamagedLogError as error:
            require(damaged, "what a crash can leave is mended", str(error))
            require(error.offset == self.base + keeps, "the offset is told", str(error))
            told_place = str(error.offset) in error.message and bool(error.hint)
            require(told_place and error.segment == Path(self.last).name, "advice", str(error))
            return "refused"
        require(not damaged, "damage is refused", f"{recovered.log.end - self.base}")
        require(recovered.log.end == self.base + keeps, "the exact prefix", f"{keeps}")
        self._replays(files, keeps)
        return self._signs(recovered, files, keeps)

    def _files(self, content: bytearray) -> Files:
        """Return a disk with everything of the node's, and that as the last segment."""
        files = Files(random.Random(0))
        for name, file in self.node.disk.files._names.items():
            data = content if name == self.last else file.durable
            files._names[name] = File(bytearray(data), bytearray(data))
        files._durable_names = dict(files._names)
        return files

    def _replays(self, files: Files, keeps: int) -> None:
        """Check that a later start, too, replays the prefix and nothing else."""
        files.settle()
        files.kill()
        seen: list[Entry] = []
        Log.open(
            FOLDER / "log",
            lambda _offset, kind, payload: seen.append((kind, payload)),
            chain=self.chain,
            disk=files,
            reserve_bytes=4096,
        )
        kept = [(p.kind, p.payload) for p in self.places if p.end <= keeps and p.kind != GROUP_KIND]
        require(seen == self.before + kept, "no wrong replay", f"{len(seen)} entries")

    def _signs(self, recovered: Any, files: Files, keeps: int) -> str:
        """Open the signer; no slot that was used may be signed again."""
        try:
            signer = Signer.open(
                validator_key(self.node.index),
                MARK,
                chain=self.chain,
                log_identity=recovered.log.identity,
                log_end=recovered.log.end,
                fresh=recovered.fresh,
                disk=files,
            )
            opening.refuse_rollback(recovered, signer)
        except PromisesLostError as error:
            require(keeps < self.end, "no promise is lost", str(error))
            require(bool(error.hint), "advice", str(error))
            return "lost"
        require(self._has_newest(keeps), "no start without the newest promise", f"{keeps}")
        signer.adopt(opening.signed_bodies(recovered, self.node.index))
        for kind, round_ in self.signed:
            try:
                signer.sign(kind, 1, round_, b"something else")
            except SigningRefusedError:
                continue
            require(False, "one signature a slot", f"{kind.name} of round {round_}")
        return f"{'whole' if keeps == self.end else 'prefix'} {len(self.signed)}"

    def _has_newest(self, keeps: int) -> bool:
        """Whether the log still holds all that the mark was written after."""
        return self.base + keeps >= self.node.marked_at


def _places(content: bytes) -> list[Place]:
    """Return what lies where in a whole segment."""
    found: list[Place] = []
    here = HEADER_BYTES
    while here + HEAD_BYTES <= len(content):
        length, kind = int.from_bytes(content[here : here + 4]), content[here + 4]
        if content[here : here + HEAD_BYTES] == bytes(HEAD_BYTES):
            break
        end = here + HEAD_BYTES + length
        found.append(Place(here, end, kind, content[here + HEAD_BYTES : end]))
        here = end
    return found


class _Stopped(BaseException):
    """The run has come to the moment at which it is looked at; nothing has gone wrong."""


class _StoppedRun(CrashRun):
    """The recorded run, up to one moment."""

    def __init__(self, point: int) -> None:
        super().__init__()
        self._at = point

    def moment(self, node: DyingNode, what: str, *, stored: bool) -> None:
        """See CrashRun."""
        if len(self.points) == self._at:
            raise _Stopped
        super().moment(node, what, stored=stored)


def logs() -> list[DamagedLog]:
    """Return the log of each validator after the run, and once ahead of its mark."""
    run = CrashRun().play()
    found = [_log(run, index, "at the end") for index in range(len(run.nodes))]
    for index in range(len(run.nodes)):
        at = max(
            point.number
            for point in run.points
            if point.node == index and point.what == "write mark" and point.role != "starts"
        )
        stopped = _StoppedRun(at)
        try:
            stopped.play()
        except _Stopped:
            found.append(_log(stopped, index, "ahead of its mark"))
    return found


def _log(run: CrashRun, index: int, when: str) -> DamagedLog:
    node = run.nodes[index]
    assert isinstance(node, DyingNode)
    node.disk.files.settle()
    signed = [(kind, round_) for who, kind, _, round_ in run.watch._slots if who == index]
    return DamagedLog(f"log of node {index} {when}", node, run.founded.chain, signed)
