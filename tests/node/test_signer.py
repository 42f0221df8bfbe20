"""The signer refuses a second signature for any slot, over restarts, torn marks and lost logs.

Lessons 6 (malachite #850, a vote sent before it was durable) and 11 (cometbft #5668, a guard that
checked nothing).
"""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from consensus import keyfile, signing
from consensus.errors import LocalProtocolError
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind
from node import signer as signer_module
from node.errors import (
    DamagedMarkError,
    ForeignDataError,
    InUseError,
    PromisesLostError,
    SigningRefusedError,
    StorageFailedError,
)
from node.signer import BODY_BYTES_MAX, SignedBody, Signer
from node.storage import marks
from tests.node.storage.memory_disk import MemoryDisk

MARK = Path("/data/signer.mark")
CHAIN = bytes(range(32))
LOG = b"log identity 16b"
KEY = keyfile.from_seed(KeyKind.VALIDATOR, bytes(range(1, 33)))
TAGS = {
    SignKind.PROPOSAL: b"comity proposal\0",
    SignKind.VOTE: b"comity vote\0",
    SignKind.TIMEOUT: b"comity timeout\0",
    SignKind.COMMIT_VOTE: b"comity commit vote\0",
}
KINDS = list(SignKind)


def opened(
    disk: MemoryDisk,
    *,
    log_end: int = 1000,
    identity: bytes = LOG,
    fresh: bool = True,
    chain: bytes = CHAIN,
    key: keyfile.KeyPair = KEY,
) -> Signer:
    return Signer.open(
        key, MARK, chain=chain, log_identity=identity, log_end=log_end, fresh=fresh, disk=disk
    )


def restarted(disk: MemoryDisk, *, log_end: int = 1000) -> Signer:
    return opened(disk.crash(), fresh=False, log_end=log_end)


def refused(signer: Signer, *arguments: object, **named: object) -> None:
    before = signer.mark_bytes()
    with pytest.raises(SigningRefusedError):
        signer.sign(*arguments, **named)  # type: ignore[arg-type]
    assert signer.mark_bytes() == before, "a refusal changes nothing"


# --- what is signed -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_is_over_tag_chain_and_body(kind: SignKind) -> None:
    signature = opened(MemoryDisk()).sign(kind, 1, 5, b"body")
    signing.verify(KEY.public, TAGS[kind] + CHAIN + b"body", signature)


@pytest.mark.parametrize("kind", KINDS)
def test_one_body_for_a_slot_and_the_same_again(kind: SignKind) -> None:
    signer = opened(MemoryDisk())
    first = signer.sign(kind, 1, 5, b"body")
    refused(signer, kind, 1, 5, b"other")
    refused(signer, kind, 1, 5, b"body ")
    assert signer.sign(kind, 1, 5, b"body") == first


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slot", [(2, 4), (2, 0), (1, 999), (0, 5)])
def test_nothing_new_is_signed_below_the_mark(kind: SignKind, slot: tuple[int, int]) -> None:
    signer = opened(MemoryDisk())
    signer.sign(kind, 2, 5, b"body")
    refused(signer, kind, *slot, b"body")
    refused(signer, kind, *slot, b"other")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slot", [(2, 6), (3, 0), (3, 5), (2, 10**9)])
def test_the_next_rounds_and_epochs_are_signed(kind: SignKind, slot: tuple[int, int]) -> None:
    signer = opened(MemoryDisk())
    signer.sign(kind, 2, 5, b"body")
    signer.sign(kind, *slot, b"next")
    refused(signer, kind, *slot, b"other")
    if kind is not SignKind.COMMIT_VOTE:
        refused(signer, kind, 2, 5, b"body")


def test_kinds_have_marks_of_their_own() -> None:
    signer = opened(MemoryDisk())
    signer.sign(SignKind.TIMEOUT, 9, 9, b"body")
    for kind in (SignKind.PROPOSAL, SignKind.VOTE, SignKind.COMMIT_VOTE):
        signer.sign(kind, 1, 1, b"body")


def test_malformed_requests_are_our_own_bug() -> None:
    signer = opened(MemoryDisk())
    with pytest.raises(LocalProtocolError):
        signer.sign(SignKind.VOTE, 1, 1, bytes(BODY_BYTES_MAX + 1))
    with pytest.raises(LocalProtocolError):
        signer.sign(SignKind.VOTE, 1, -1, b"")
    with pytest.raises(LocalProtocolError):
        signer.sign(SignKind.VOTE, 1, 1, b"", two_chain=True)
    with pytest.raises(LocalProtocolError):
        opened(MemoryDisk(), key=keyfile.from_seed(KeyKind.NODE, bytes(32)))


# --- commit votes ---------------------------------------------------------------------------------


def test_a_commit_vote_below_the_mark_needs_the_two_chain_proof() -> None:
    signer = opened(MemoryDisk())
    signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
    refused(signer, SignKind.COMMIT_VOTE, 1, 5, b"five")
    five = signer.sign(SignKind.COMMIT_VOTE, 1, 5, b"five", two_chain=True)
    signing.verify(KEY.public, b"comity commit vote\0" + CHAIN + b"five", five)
    refused(signer, SignKind.COMMIT_VOTE, 1, 5, b"other", two_chain=True)
    assert signer.sign(SignKind.COMMIT_VOTE, 1, 5, b"five") == five
    refused(signer, SignKind.COMMIT_VOTE, 1, 7, b"seven")
    signer.sign(SignKind.COMMIT_VOTE, 1, 10, b"ten")


def test_the_two_chain_proof_does_not_allow_a_second_statement_for_a_round() -> None:
    signer = opened(MemoryDisk())
    signer.sign(SignKind.COMMIT_VOTE, 1, 5, b"five")
    signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
    refused(signer, SignKind.COMMIT_VOTE, 1, 5, b"other", two_chain=True)
    refused(signer, SignKind.COMMIT_VOTE, 1, 9, b"other", two_chain=True)


def test_the_two_chain_proof_does_not_reach_into_an_older_epoch() -> None:
    signer = opened(MemoryDisk())
    signer.sign(SignKind.COMMIT_VOTE, 2, 9, b"nine")
    refused(signer, SignKind.COMMIT_VOTE, 1, 20, b"old", two_chain=True)


def test_commit_votes_below_the_mark_are_remembered_over_a_restart() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
    five = signer.sign(SignKind.COMMIT_VOTE, 1, 5, b"five", two_chain=True)
    signer.write_mark(1000)
    again = restarted(disk)
    refused(again, SignKind.COMMIT_VOTE, 1, 5, b"other", two_chain=True)
    assert again.sign(SignKind.COMMIT_VOTE, 1, 5, b"five", two_chain=True) == five
    again.sign(SignKind.COMMIT_VOTE, 1, 6, b"six", two_chain=True)


def test_settled_rounds_get_no_commit_vote_even_under_the_proof() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.COMMIT_VOTE, 1, 3, b"three")
    signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
    signer.settle(1, 6)
    signer.settle(1, 4)
    signer.write_mark(1000)
    for each in (signer, restarted(disk)):
        refused(each, SignKind.COMMIT_VOTE, 1, 6, b"six", two_chain=True)
        refused(each, SignKind.COMMIT_VOTE, 1, 3, b"three", two_chain=True)
        each.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
        each.sign(SignKind.COMMIT_VOTE, 1, 7, b"seven", two_chain=True)


def test_settling_the_last_round_still_lets_the_last_body_be_signed_again() -> None:
    signer = opened(MemoryDisk())
    nine = signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine")
    signer.settle(1, 9)
    assert signer.sign(SignKind.COMMIT_VOTE, 1, 9, b"nine") == nine
    refused(signer, SignKind.COMMIT_VOTE, 1, 9, b"other", two_chain=True)


def test_remembered_commit_votes_are_bounded_and_what_is_forgotten_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signer_module, "COMMIT_VOTES_MAX", 4)
    signer = opened(MemoryDisk())
    for round_ in range(10, 20):
        signer.sign(SignKind.COMMIT_VOTE, 1, round_, b"%d" % round_)
    for round_ in range(10, 16):
        refused(signer, SignKind.COMMIT_VOTE, 1, round_, b"%d" % round_, two_chain=True)
    for round_ in range(16, 20):
        signer.sign(SignKind.COMMIT_VOTE, 1, round_, b"%d" % round_)
        refused(signer, SignKind.COMMIT_VOTE, 1, round_, b"other", two_chain=True)


def test_the_longest_mark_fits_its_slot() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    for kind in KINDS:
        signer.sign(kind, 2**60, 2**60, bytes(BODY_BYTES_MAX))
    for round_ in range(signer_module.COMMIT_VOTES_MAX - 1):
        signer.sign(SignKind.COMMIT_VOTE, 2**60, 2**59 + round_, b"x", two_chain=True)
    assert len(signer.mark_bytes()) < marks.CONTENT_BYTES_MAX
    signer.write_mark(2**60)
    assert restarted(disk, log_end=2**60).mark_bytes() == signer.mark_bytes()


# --- restart --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_keeps_the_marks(kind: SignKind) -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    first = signer.sign(kind, 3, 7, b"body")
    signer.write_mark(1000)
    again = restarted(disk)
    refused(again, kind, 3, 7, b"other")
    refused(again, kind, 3, 6, b"body")
    assert again.sign(kind, 3, 7, b"body") == first
    assert again.recovered_bodies() == (SignedBody(kind, 3, 7, b"body"),)


def test_recovered_bodies_are_those_after_the_safety_record() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    for round_, kind in enumerate(KINDS, start=5):
        signer.sign(kind, 1, round_, kind.name.encode())
    signer.write_mark(1000)
    again = restarted(disk)
    assert [(item.kind, item.round) for item in again.recovered_bodies()] == [
        (SignKind.PROPOSAL, 5),
        (SignKind.VOTE, 6),
        (SignKind.TIMEOUT, 7),
        (SignKind.COMMIT_VOTE, 8),
    ]
    after = {SignKind.PROPOSAL: (1, 5), SignKind.VOTE: (1, 5), SignKind.TIMEOUT: (2, 0)}
    assert [item.body for item in again.recovered_bodies(after)] == [b"VOTE", b"COMMIT_VOTE"]


def test_a_mark_torn_at_any_byte_leaves_the_older_mark() -> None:
    """What the torn write spoke of was not sent: its sync had not returned."""
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(1000)
    place = 2 % 2 * marks.SLOT_BYTES
    before = bytes(disk.files[MARK].shown[place : place + 400])
    signer.sign(SignKind.VOTE, 1, 6, b"six")
    signer.write_mark(1000)
    written = bytes(disk.files[MARK].shown[place : place + 400])
    length = marks.HEAD_BYTES + len(signer.mark_bytes())
    assert length < 400
    for count in range(length + 1):
        after = disk.copy()
        after.files[MARK].shown[place : place + 400] = written[:count] + before[count:]
        again = opened(after, fresh=False)
        complete = written[:count] + before[count:length] == written[:length]
        assert again.recovered_bodies()[0].round == (6 if complete else 5)
        refused(again, SignKind.VOTE, 1, 5, b"other")


def test_both_slots_damaged_means_no_signing() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(1000)
    for slot in range(2):
        disk.files[MARK].shown[slot * marks.SLOT_BYTES + 70] ^= 1
    signer.close()
    with pytest.raises(DamagedMarkError):
        opened(disk, fresh=False)


def test_a_mark_with_foreign_content_is_damage() -> None:
    disk = MemoryDisk()
    marks.SlotFile.open(MARK, disk=disk, fresh=b"\x80").close()
    with pytest.raises(DamagedMarkError, match="not what was written"):
        opened(disk)


def test_the_mark_of_another_key_or_network_is_refused() -> None:
    disk = MemoryDisk()
    opened(disk).close()
    with pytest.raises(ForeignDataError, match="another key"):
        opened(disk, key=keyfile.from_seed(KeyKind.VALIDATOR, bytes(32)))
    with pytest.raises(ForeignDataError, match="another network"):
        opened(disk, chain=bytes(32))
    opened(disk, fresh=False).close()


def test_one_key_does_not_run_twice_on_one_mark() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    with pytest.raises(InUseError):
        opened(disk)
    signer.close()
    opened(disk)


# --- lost promises --------------------------------------------------------------------------------


def test_a_missing_mark_on_a_used_node_means_no_signing() -> None:
    with pytest.raises(PromisesLostError, match="no mark") as caught:
        opened(MemoryDisk(), fresh=False)
    assert "new key" in caught.value.hint


@pytest.mark.parametrize(
    ("log_end", "lost"), [(0, True), (4999, True), (5000, False), (9000, False)]
)
def test_a_log_that_ends_below_the_mark_has_lost_promises(log_end: int, lost: bool) -> None:
    disk = MemoryDisk()
    signer = opened(disk, log_end=100)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(5000)
    if not lost:
        restarted(disk, log_end=log_end).sign(SignKind.VOTE, 1, 6, b"six")
        return
    with pytest.raises(PromisesLostError, match=f"ended at {log_end}, but 5000") as caught:
        restarted(disk, log_end=log_end)
    assert "does not vote" in caught.value.hint


def test_lost_promises_stay_lost_when_the_log_grows_past_the_mark() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(5000)
    after = disk.crash()
    with pytest.raises(PromisesLostError):
        opened(after, fresh=False, log_end=4000)
    with pytest.raises(PromisesLostError):
        opened(after.crash(), fresh=False, log_end=9000)


def test_another_log_has_other_promises_and_the_right_one_is_accepted_again() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(1000)
    signer.close()
    with pytest.raises(PromisesLostError, match="another log"):
        opened(disk, identity=b"another identity", log_end=10**6)
    with pytest.raises(PromisesLostError):
        opened(disk, identity=b"another identity", log_end=10**6, fresh=False)
    opened(disk, fresh=False).sign(SignKind.VOTE, 1, 6, b"six")


def test_a_mark_that_never_signed_takes_any_log() -> None:
    disk = MemoryDisk()
    opened(disk, log_end=5000).close()
    signer = opened(disk, identity=b"another identity", log_end=100)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    signer.write_mark(100)
    signer.close()
    opened(disk, identity=b"another identity", log_end=100, fresh=False)


# --- durability -----------------------------------------------------------------------------------


class GatedDisk(MemoryDisk):
    """Each sync waits until the test lets it through."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.gated = False

    def sync(self, handle: int) -> None:
        if self.gated:
            self.begun.release()
            self.gate.acquire()
        super().sync(handle)


def test_a_mark_holds_what_was_signed_at_its_snapshot() -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    mark = signer.snapshot()
    signer.sign(SignKind.VOTE, 1, 6, b"six")
    signer.write_mark(2000, mark)
    assert restarted(disk, log_end=2000).recovered_bodies()[0].round == 5
    signer.write_mark(2000)
    assert restarted(disk, log_end=2000).recovered_bodies()[0].round == 6


@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_failed_mark_ends_all_signing(step: str) -> None:
    disk = MemoryDisk()
    signer = opened(disk)
    signer.sign(SignKind.VOTE, 1, 5, b"five")
    disk.fail = {step: 0}
    with pytest.raises(StorageFailedError, match="injected"):
        signer.write_mark(2000)
    assert signer.failed is not None
    for attempt in (b"five", b"six"):
        with pytest.raises(StorageFailedError, match="injected"):
            signer.sign(SignKind.VOTE, 1, 6, attempt)
    with pytest.raises(StorageFailedError, match="injected"):
        signer.write_mark(2000)


@pytest.mark.parametrize("seed", range(20))
def test_no_two_sent_bodies_for_one_slot_whatever_crashes_in_between(seed: int) -> None:
    """The oracle is a plain set of what was sent: signed, and persisted before it left."""
    chooser = random.Random(seed)
    disk = MemoryDisk()
    signer = opened(disk)
    sent: dict[tuple[SignKind, int, int], set[bytes]] = {}
    waiting: list[tuple[SignKind, int, int, bytes]] = []
    counts = {"signed": 0, "refused": 0, "crashed": 0}
    for _ in range(400):
        action = chooser.random()
        if action < 0.75:
            kind = chooser.choice(KINDS)
            slot = chooser.randint(1, 2), chooser.randint(1, 12)
            body = chooser.choice([b"a", b"b"])
            two_chain = kind is SignKind.COMMIT_VOTE and chooser.random() < 0.5
            try:
                signer.sign(kind, *slot, body, two_chain=two_chain)
                waiting.append((kind, *slot, body))
                counts["signed"] += 1
            except SigningRefusedError:
                counts["refused"] += 1
        elif action < 0.9:
            signer.write_mark(1000)
            for kind, epoch, round_, body in waiting:
                sent.setdefault((kind, epoch, round_), set()).add(body)
            waiting.clear()
        else:
            keep = chooser.choice(["none", "all", "half"])
            if chooser.random() < 0.5:
                disk.fail = {chooser.choice(["write", "sync"]): 0}
                with pytest.raises(StorageFailedError):
                    signer.write_mark(1000)
            disk = disk.crash(keep=keep)
            signer = opened(disk, fresh=False)
            waiting.clear()
            counts["crashed"] += 1
    assert all(len(bodies) == 1 for bodies in sent.values())
    assert min(counts.values()) > 10
    assert len(sent) > 3
