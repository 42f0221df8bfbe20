"""History proofs: what they show, and that nothing else passes for one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from consensus.errors import DecodeError, ProofError
from consensus.state import changes, statement
from consensus.state.changes import HistoryProof, Step, Version, verify
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import CHANGES
from consensus.state.state import MemoryBackend, State
from consensus.state.statement import Summary

ZERO = bytes(32)


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


A, B, NEVER_MADE = key(1), key(2), key(3)


class World:
    """A chain of states, with everything that ever was written down beside it."""

    def __init__(self, heights: Sequence[dict[bytes, bytes]]) -> None:
        self.state = State(MemoryBackend(), 4, -1)
        self.history = HistoryTree(MemoryNodes())
        self.statements: list[bytes] = []
        self.changes: list[list[bytes]] = []
        self.lines: dict[bytes, list[tuple[int, bytes]]] = {}
        for height, writes in enumerate(heights):
            applied = self.state.apply([(kh, vh, b"") for kh, vh in writes.items()])
            encoded = cbor2.dumps(
                [
                    b"c" * 32,
                    1,
                    height,
                    height,
                    height.to_bytes(32, "big"),
                    1000 * height,
                    1,
                    applied.state_root,
                    ZERO,
                    applied.changes_root,
                    self.history.root(),
                    None,
                ]
            )
            self.history.append(statement.read(encoded).hash)
            self.statements.append(encoded)
            self.changes.append(applied.changes)
            for kh, vh in writes.items():
                self.lines.setdefault(kh, []).append((height, vh))

    @property
    def newest(self) -> Summary:
        return statement.read(self.statements[-1])

    def step(self, kh: bytes, height: int) -> Step:
        records = self.changes[height]
        (index,) = [i for i, each in enumerate(records) if each[:32] == kh]
        path = CHANGES.path(changes.leaf_hashes(records), index)
        previous = int.from_bytes(records[index][64:], "big", signed=True)
        size = len(self.statements) - 1
        own = height == size
        return Step(
            None if own else self.statements[height],
            () if own else tuple(self.history.path(height, size)),
            len(records),
            index,
            tuple(path),
            records[index][32:64],
            previous,
        )

    def leaf(self, kh: bytes) -> bytes:
        return self.state.prove([kh]).encode()

    def prove(self, kh: bytes, first: int, last: int) -> HistoryProof:
        line = [height for height, _ in self.lines.get(kh, [])]
        before = [height for height in line if height <= first][-1:]
        between = [height for height in line if first < height <= last]
        after = [height for height in line if height > last][:1]
        if after:
            shown, leaf = [*before, *between, *after], None
        else:
            shown, leaf = [*before, *between] if between else [], self.leaf(kh)
        return HistoryProof(tuple(self.step(kh, height) for height in shown), leaf)

    def versions(self, kh: bytes, first: int, last: int) -> list[tuple[int, bytes]]:
        line = self.lines.get(kh, [])
        before = [each for each in line if each[0] <= first][-1:]
        return before + [each for each in line if first < each[0] <= last]


def made(seed: int, heights: int = 24, keys: int = 9) -> World:
    chosen = random.Random(seed)
    rows = []
    for _ in range(heights):
        writers = chosen.sample(range(1, keys + 3), chosen.randrange(0, keys))
        gone = chosen.random() < 0.2
        rows.append(
            {key(n): ZERO if gone and n == 1 else chosen.randbytes(32) for n in writers if n != 3}
        )
    return World(rows)


def shown(proof: HistoryProof, world: World, kh: bytes, first: int, last: int) -> list[Any]:
    found = verify(proof.encode(), world.newest, kh, first, last)
    for each in found:
        assert each.time_ms is None or each.time_ms == 1000 * each.height
        assert each.absent == (each.vh == ZERO)
    return [(each.height, each.vh) for each in found]


SMALL = World(
    [
        {A: b"0" * 32, B: b"a" * 32},
        {B: b"b" * 32},
        {A: b"1" * 32, B: b"c" * 32, key(7): b"x" * 32},
        {},
        {A: b"2" * 32},
        {B: b"d" * 32},
        {A: ZERO, B: b"e" * 32},
    ]
)


# --- what is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_every_range_of_every_key_is_shown_as_it_was(seed: int) -> None:
    world = made(seed)
    newest = len(world.statements) - 1
    for kh in (A, B, NEVER_MADE, key(5)):
        for first in range(0, newest + 1, 2):
            for last in range(first, newest + 1, 3):
                proof = world.prove(kh, first, last)
                expected = world.versions(kh, first, last)
                assert shown(proof, world, kh, first, last) == expected


def test_a_key_is_absent_before_its_first_change_and_after_its_deletion() -> None:
    late = World([{B: b"b" * 32}, {}, {A: b"a" * 32}, {A: ZERO}, {}])
    for height, expected in enumerate([[], [], [(2, b"a" * 32)], [(3, ZERO)], [(3, ZERO)]]):
        proof = late.prove(A, height, height)
        assert shown(proof, late, A, height, height) == expected
    assert late.prove(A, 0, 0).steps[0].previous == -1


def test_a_leaf_that_did_not_change_since_needs_no_step() -> None:
    proof = SMALL.prove(key(7), 3, 5)
    assert proof.steps == ()
    assert verify(proof.encode(), SMALL.newest, key(7), 3, 5) == (Version(2, b"x" * 32, None),)


def test_a_change_at_the_newest_height_rests_on_the_newest_statement_itself() -> None:
    proof = SMALL.prove(A, 5, 5)
    assert proof.steps[-1].statement is None
    assert shown(proof, SMALL, A, 5, 5) == [(4, b"2" * 32)]


def test_genesis_is_a_height_like_others() -> None:
    assert shown(SMALL.prove(A, 0, 0), SMALL, A, 0, 0) == [(0, b"0" * 32)]
    assert shown(SMALL.prove(B, 0, 1), SMALL, B, 0, 1) == [(0, b"a" * 32), (1, b"b" * 32)]


@pytest.mark.parametrize(("heights", "writers"), [(6, 3000), (700, 3)])
def test_a_point_takes_less_than_4_kb(heights: int, writers: int) -> None:
    quiet = {key(1000 + n): b"q" * 32 for n in range(writers)}
    world = World([{A: bytes([h % 250 + 1]) * 32, **quiet} for h in range(heights)])
    middle = heights // 2
    proof = world.prove(A, middle, middle)
    assert len(proof.steps) == 2
    assert len(proof.encode()) < 4096


# --- forgeries --------------------------------------------------------------------------------

POINT = SMALL.prove(A, 3, 3)
LIST = SMALL.prove(A, 1, 6)
WHOLE = SMALL.prove(B, 0, 6)


def refused(
    proof: HistoryProof | bytes, reason: str, kh: bytes = A, first: int = 3, last: int = 3
) -> None:
    data = proof if isinstance(proof, bytes) else proof.encode()
    with pytest.raises(ProofError, match=reason):
        verify(data, SMALL.newest, kh, first, last)


def test_the_proofs_that_are_forged_below_are_good() -> None:
    assert shown(POINT, SMALL, A, 3, 3) == [(2, b"1" * 32)]
    assert [height for height, _ in shown(LIST, SMALL, A, 1, 6)] == [0, 2, 4, 6]
    assert [height for height, _ in shown(WHOLE, SMALL, B, 0, 6)] == [0, 1, 2, 5, 6]
    assert LIST.leaf is not None
    assert POINT.leaf is None


@pytest.mark.parametrize("proof", [POINT, SMALL.prove(key(7), 3, 5)], ids=["steps", "leaf"])
def test_no_bit_of_a_proof_can_be_flipped(proof: HistoryProof) -> None:
    kh, last = (A, 3) if proof is POINT else (key(7), 5)
    data = proof.encode()
    verify(data, SMALL.newest, kh, 3, last)
    for at in range(len(data)):
        for bit in range(8):
            forged = bytearray(data)
            forged[at] ^= 1 << bit
            with pytest.raises((DecodeError, ProofError)):
                verify(bytes(forged), SMALL.newest, kh, 3, last)


@pytest.mark.parametrize("proof", [POINT, LIST], ids=["steps", "steps and leaf"])
def test_a_proof_that_is_cut_or_longer_is_malformed(proof: HistoryProof) -> None:
    data = proof.encode()
    for cut in range(len(data)):
        with pytest.raises(DecodeError):
            changes.decode(data[:cut])
    for more in (b"\0", b"\xf6", data):
        with pytest.raises(DecodeError):
            changes.decode(data + more)


def test_one_field_of_a_step_changed_is_refused_for_its_reason() -> None:
    step = POINT.steps[0]
    other = WHOLE.steps[1]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"statement": other.statement}, "the path leads to another history root|too"),
        ({"statement": None}, "a path of the newest statement to itself"),
        ({"statement": None, "history": ()}, "another root|do not ascend|too"),
        ({"history": step.history[:-1]}, "too short"),
        ({"history": (*step.history, ZERO)}, "too long"),
        ({"history": other.history}, "another history root"),
        ({"count": step.count + 1}, "too short|another root"),
        ({"count": step.count - 1, "index": 0}, "too many|another root"),
        ({"index": (step.index + 1) % step.count}, "another root"),
        ({"index": step.count}, "outside"),
        ({"path": step.path[:-1]}, "too short"),
        ({"path": (*step.path, ZERO)}, "too many"),
        ({"path": step.path[::-1]}, "another root"),
        ({"vh": b"9" * 32}, "another root"),
        ({"previous": step.previous - 1}, "another root"),
    ]
    for change, reason in cases:
        refused(HistoryProof((replace(step, **change), *POINT.steps[1:]), None), reason)


def test_a_change_of_another_key_is_refused() -> None:
    refused(SMALL.prove(B, 3, 3), "another root")
    mixed = (POINT.steps[0], SMALL.step(B, 5))
    refused(HistoryProof(mixed, None), "another root")


def test_a_path_of_another_height_is_refused() -> None:
    at_two, at_four = POINT.steps
    forged = replace(at_two, statement=at_four.statement, history=at_four.history)
    refused(HistoryProof((forged, at_four), None), "another root|do not ascend|too")


@pytest.mark.parametrize("left_out", range(1, 4))
def test_a_change_left_out_of_a_list_is_a_gap(left_out: int) -> None:
    steps = WHOLE.steps[:left_out] + WHOLE.steps[left_out + 1 :]
    gone = [0, 1, 2, 5, 6][left_out]
    refused(HistoryProof(steps, WHOLE.leaf), f"change at height {gone} is left out", B, 0, 6)


def test_the_beginning_must_be_shown() -> None:
    refused(HistoryProof(LIST.steps[1:], LIST.leaf), "in force at height 1 is not", A, 1, 6)
    refused(HistoryProof((), SMALL.leaf(A)), "in force at height 3 is not shown")
    refused(SMALL.prove(A, 4, 5), "in force at height 3 is not shown", A, 3, 5)


def test_the_end_must_be_shown() -> None:
    refused(HistoryProof(POINT.steps[:1], None), "no later changes")
    refused(HistoryProof((), None), "no later changes")
    refused(HistoryProof(LIST.steps[:-1], LIST.leaf), "the leaf has changed since", A, 1, 6)
    refused(HistoryProof(LIST.steps[:-1], None), "no later changes", A, 1, 6)


def test_nothing_superfluous_is_let_through() -> None:
    early = HistoryProof((SMALL.step(A, 0), *POINT.steps), None)
    refused(early, "passed before the beginning")
    late = HistoryProof((*POINT.steps, SMALL.step(A, 6)), None)
    refused(late, "after the end")
    refused(HistoryProof(POINT.steps, SMALL.leaf(A)), "show the same end")
    alone = HistoryProof((SMALL.step(key(7), 2),), SMALL.leaf(key(7)))
    refused(alone, "show the same end", key(7))


def test_order_and_repetition_are_refused() -> None:
    refused(HistoryProof(POINT.steps[::-1], None), "do not ascend")
    refused(HistoryProof((POINT.steps[0], *POINT.steps), None), "do not ascend")


def test_a_proof_of_another_question_is_refused() -> None:
    for kh, first, last in [(A, 1, 3), (A, 3, 4), (A, 2, 4), (A, 4, 4), (A, 1, 1), (B, 3, 3)]:
        with pytest.raises(ProofError):
            verify(POINT.encode(), SMALL.newest, kh, first, last)
    assert verify(POINT.encode(), SMALL.newest, A, 2, 3)[0].height == 2


@pytest.mark.parametrize(
    ("kh", "first", "last"), [(A, -1, 3), (A, 4, 3), (A, 3, 7), (A[:31], 3, 3), (A + b"x", 3, 3)]
)
def test_a_question_out_of_range_is_refused(kh: bytes, first: int, last: int) -> None:
    refused(POINT, "no history from", kh, first, last)


def test_a_leaf_of_another_height_or_key_is_refused() -> None:
    shorter = World(
        [{A: b"0" * 32, B: b"a" * 32}, {B: b"b" * 32}, {A: b"1" * 32, key(7): b"x" * 32}]
    )
    refused(HistoryProof((), shorter.leaf(key(7))), "is of height 2, not 6", key(7))
    refused(HistoryProof((), SMALL.leaf(B)), "entry lies outside|page|root", key(7))
    with pytest.raises(DecodeError, match=r"history proof\[2\]"):
        verify(HistoryProof((), b"\x80").encode(), SMALL.newest, A, 3, 3)


def test_a_proof_for_another_newest_statement_is_refused() -> None:
    for newest in [statement.read(each) for each in SMALL.statements[4:6]]:
        with pytest.raises(ProofError):
            verify(POINT.encode(), newest, A, 3, 3)
    with pytest.raises(ProofError):
        verify(POINT.encode(), SMALL.newest._replace(history_root=ZERO), A, 3, 3)


def test_two_valid_proofs_spliced_are_refused_unless_they_answer_the_question() -> None:
    proofs = [SMALL.prove(A, f, t) for f in range(7) for t in range(f, 7)]
    steps = [SMALL.step(A, height) for height in (0, 2, 4, 6)]
    good = {SMALL.prove(A, f, t).encode(): (f, t) for f in range(7) for t in range(f, 7)}
    chosen = random.Random(5)
    tried = 0
    for _ in range(600):
        one, two = chosen.choice(proofs), chosen.choice(proofs)
        cut = chosen.randrange(len(one.steps) + 1)
        spliced = HistoryProof(
            (*one.steps[:cut], *two.steps[chosen.randrange(len(two.steps) + 1) :]),
            chosen.choice((one.leaf, two.leaf, None)),
        )
        first = chosen.randrange(7)
        last = chosen.randrange(first, 7)
        try:
            found = verify(spliced.encode(), SMALL.newest, A, first, last)
        except ProofError:
            tried += 1
        else:
            assert [(v.height, v.vh) for v in found] == SMALL.versions(A, first, last)
            assert spliced.encode() in good
    assert tried > 100
    assert len(steps) == 4


# --- malformed --------------------------------------------------------------------------------


def plain(proof: HistoryProof) -> Any:
    return cbor2.loads(proof.encode())


def set_at(*place: int) -> Callable[[Any, Any], Any]:
    def change(value: Any, new: Any) -> Any:
        inner = value
        for index in place[:-1]:
            inner = inner[index]
        inner[place[-1]] = new
        return value

    return change


@pytest.mark.parametrize(
    ("place", "new", "path"),
    [
        ((0,), 2, "history proof[0]"),
        ((1,), None, "history proof[1]"),
        ((2,), b"", "history proof[2]"),
        ((2,), 1, "history proof[2]"),
        ((1, 0, 0), b"", "history proof[1][0][0]"),
        ((1, 0, 0), b"\x80", "history proof[1][0][0]"),
        ((1, 0, 0), b"x" * 513, "history proof[1][0][0]"),
        ((1, 0, 1), [b"short"], "history proof[1][0][1][0]"),
        ((1, 0, 1), [bytes(32)] * 65, "history proof[1][0][1]"),
        ((1, 0, 2), 0, "history proof[1][0][2]"),
        ((1, 0, 3), -1, "history proof[1][0][3]"),
        ((1, 1, 4), [bytes(32)] * 97, "history proof[1][1][4]"),
        ((1, 1, 5), bytes(31), "history proof[1][1][5]"),
        ((1, 1, 6), -2, "history proof[1][1][6]"),
        ((1, 1, 6), True, "history proof[1][1][6]"),
    ],
)
def test_what_is_malformed_is_refused_at_its_place(
    place: tuple[int, ...], new: Any, path: str
) -> None:
    value = set_at(*place)(plain(POINT), new)
    with pytest.raises(DecodeError) as found:
        verify(cbor2.dumps(value), SMALL.newest, A, 3, 3)
    assert found.value.path == path


def test_more_steps_or_bytes_than_allowed_are_refused_before_anything_is_hashed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "leaf_hashes", None)
    many = HistoryProof(POINT.steps[:1] * (changes.STEPS_MAX + 1), None)
    with pytest.raises(DecodeError, match=r"history proof\[1\]"):
        verify(many.encode(), SMALL.newest, A, 3, 3)
    with pytest.raises(DecodeError, match="at most"):
        verify(bytes(changes.PROOF_BYTES_MAX + 1), SMALL.newest, A, 3, 3)


def test_indefinite_and_long_encodings_are_refused() -> None:
    data = POINT.encode()
    assert data[:2] == b"\x83\x01"
    for forged in (b"\x9f" + data[1:] + b"\xff", b"\x83\x18\x01" + data[2:]):
        with pytest.raises(DecodeError):
            verify(forged, SMALL.newest, A, 3, 3)
