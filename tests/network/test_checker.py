"""The checker finds every lie that a history or a log can tell: each is told to it once."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from nacl.signing import SigningKey

from tests.network.harness.chain import (
    Broken,
    Chain,
    Height,
    History,
    Outcome,
    Reader,
    count_root,
    decision_root,
    digest,
    encode,
)
from tests.network.harness.checker import judge, main, read_history

OPENING = {1: 100, 2: 100}
Lines = list[dict[str, Any]]
Heights = list[Height]


def txid(number: int) -> bytes:
    return bytes([number]) * 32


def outcome(number: int, index: int, code: int) -> Outcome:
    return Outcome(txid(number), index, code, bytes([100 + number]) * 32)


def submit(n: int, at: int, client: str, number: int, *call: object) -> dict[str, Any]:
    what = {"do": "submit", "txid": txid(number).hex(), "call": list(call)}
    return {"n": n, "at": at, "client": client, **what}


def decided(n: int, at: int, height: int, found: Outcome, code: str) -> dict[str, Any]:
    place = {"height": height, "index": found.index}
    return {"n": n, "at": at, "told": "decided", **place, "code": code, "root": found.root.hex()}


def read(n: int, at: int, client: str, kind: str, number: int) -> dict[str, Any]:
    return {"n": n, "at": at, "client": client, "do": "read", "of": [kind, number]}


def shown(n: int, at: int, height: int, value: int) -> dict[str, Any]:
    return {"n": n, "at": at, "told": "read", "height": height, "value": value}


FIRST, POOR, NEW, LATE = outcome(1, 0, 0), outcome(2, 1, 21), outcome(3, 0, 0), outcome(4, 1, 16)
AGAIN = outcome(1, 0, 3)
HEIGHTS: Heights = [
    Height(0, b"0", ()),
    Height(1, b"1", (FIRST, POOR)),
    Height(2, b"2", ()),
    Height(3, b"3", (NEW, LATE)),
    Height(4, b"4", (replace(AGAIN, index=0),)),
]
LINES: Lines = [
    submit(1, 10, "anna", 1, "pay", 1, 2, 30),
    submit(2, 11, "ben", 2, "pay", 1, 2, 1000),
    decided(1, 20, 1, FIRST, "APPLIED"),
    decided(2, 21, 1, POOR, "INSUFFICIENT"),
    read(3, 30, "anna", "wallet", 2),
    shown(3, 31, 2, 130),
    submit(4, 40, "anna", 3, "write", 7, 0),
    submit(5, 41, "ben", 4, "write", 7, 0),
    decided(4, 50, 3, NEW, "APPLIED"),
    decided(5, 51, 3, LATE, "STALE"),
    read(6, 60, "ben", "note", 7),
    shown(6, 61, 3, 1),
    submit(7, 70, "ben", 5, "pay", 2, 1, 5),
]
"""True: a payment, one that is too large, a note that two write, and a payment that never comes."""


def complaints(lines: Lines, *logs: Heights, others: frozenset[bytes] = frozenset()) -> list[str]:
    told = read_history(json.dumps(line) for line in lines)
    chains = [Chain(b"chain", tuple(heights)) for heights in logs or (HEIGHTS,)]
    return judge(told, chains, OPENING, others).complaints


def test_a_true_history_is_believed_and_what_it_had_is_counted() -> None:
    shorter = HEIGHTS[:3]
    assert complaints(LINES, HEIGHTS, shorter) == []
    told = read_history(json.dumps(line) for line in LINES)
    found = judge(told, [Chain(b"chain", tuple(HEIGHTS))], OPENING)
    assert found.marks == {
        "heights": 5,
        "epochs": 1,
        "nodes compared": 1,
        "decided": 4,
        "receipts": 4,
        "never decided": 1,
        "refused when it came again": 1,
        "ordered in real time": 2,
        "APPLIED": 2,
        "INSUFFICIENT": 1,
        "STALE": 1,
        "reads": 2,
        "reads after a certificate": 2,
    }


def test_money_is_counted_where_all_wallets_were_read_after_the_last_payment() -> None:
    def counted(first: int, second: int, height: int = 4) -> tuple[bool, list[str]]:
        lines = [*LINES, read(8, 80, "zoe", "wallet", 1), shown(8, 81, height, first)]
        lines += [read(9, 82, "zoe", "wallet", 2), shown(9, 83, height, second)]
        told = read_history(json.dumps(line) for line in lines)
        found = judge(told, [Chain(b"chain", tuple(HEIGHTS))], OPENING)
        return "money counted" in found.marks, [c for c in found.complaints if "money" in c]

    assert counted(70, 130) == (True, [])
    assert counted(71, 130) == (True, ["money was made or lost: wallets with 200 now have 201"])
    assert counted(100, 100, height=0) == (False, [])


def test_acts_of_others_are_not_judged() -> None:
    heights = [*HEIGHTS[:2], Height(2, b"2", (outcome(9, 0, 0),)), *HEIGHTS[3:]]
    assert complaints(LINES, heights) != []
    assert complaints(LINES, heights, others=frozenset({txid(9)})) == []


def said(n: int, **other: object) -> Callable[[Lines], None]:
    """Have the answer to line ``n`` say something else."""

    def change(lines: Lines) -> None:
        next(line for line in lines if line["n"] == n and "told" in line).update(other)

    return change


def asked(n: int, **other: object) -> Callable[[Lines], None]:
    def change(lines: Lines) -> None:
        next(line for line in lines if line["n"] == n and "do" in line).update(other)

    return change


def forget(n: int) -> Callable[[Lines], None]:
    """Leave out a question and its answer."""

    def change(lines: Lines) -> None:
        lines[:] = [line for line in lines if line["n"] != n]

    return change


FALSE_HISTORIES: dict[str, tuple[Callable[[Lines], None], str]] = {
    "a receipt of what is not there": (
        lambda lines: lines.append(decided(7, 80, 4, outcome(5, 1, 0), "APPLIED")),
        "is not in the log",
    ),
    "a receipt above the log": (
        lambda lines: lines.append(decided(7, 80, 9, outcome(5, 1, 0), "APPLIED")),
        "is above the log",
    ),
    "a receipt of another height": (said(4, height=2), "names another place"),
    "a receipt of another index": (said(1, index=1), "names another place"),
    "a receipt of another outcome": (said(2, code="APPLIED"), "tells another outcome"),
    "a receipt of another decision": (said(1, root=bytes(32).hex()), "tells another outcome"),
    "an act that was sent after a later one's receipt": (
        asked(1, at=55),
        "was sent after line 4 was told height 3, and stands at 1",
    ),
    "an act in the block whose receipt it followed": (
        asked(5, at=50.5),
        "was sent after line 4 was told height 3, and stands at 3",
    ),
    "a payment of another amount": (asked(1, call=["pay", 1, 2, 31]), "read 130"),
    "a payment that was not possible": (asked(1, call=["pay", 1, 2, 101]), "not INSUFFICIENT"),
    "a refusal without reason": (asked(2, call=["pay", 1, 2, 1]), "not APPLIED"),
    "a write over what was never read": (asked(4, call=["write", 7, 1]), "not STALE"),
    "a read of what never was": (said(3, value=131), "where it was 130"),
    "a read of what was before": (said(6, value=0), "where it was 1"),
    "a read that goes back behind a receipt": (said(3, height=0, value=100), "had seen height 1"),
    "a read that goes back behind a read": (
        lambda lines: lines.extend([read(8, 90, "ben", "wallet", 2), shown(8, 91, 2, 130)]),
        "had seen height 3",
    ),
    "nobody who sent it": (forget(4), "was sent by nobody"),
}


@pytest.mark.parametrize("name", FALSE_HISTORIES)
def test_a_false_history_is_found_out(name: str) -> None:
    change, says = FALSE_HISTORIES[name]
    lines = deepcopy(LINES)
    change(lines)
    assert any(says in each for each in complaints(lines)), complaints(lines)


def with_height(number: int, *outcomes: Outcome) -> Heights:
    return [replace(h, outcomes=outcomes) if h.height == number else h for h in HEIGHTS]


FALSE_LOGS: dict[str, tuple[list[Heights], str]] = {
    "lost": ([with_height(1, FIRST)], "is not in the log"),
    "doubled": ([with_height(4, replace(AGAIN, code=0))], "took effect again at height 4"),
    "doubled in one block": ([with_height(1, FIRST, POOR, FIRST)], "took effect again"),
    "invented": ([with_height(2, outcome(9, 0, 0))], "was sent by nobody"),
    "in another order": (
        [with_height(3, replace(LATE, index=0), replace(NEW, index=1))],
        "names another place",
    ),
    "two results for a height": (
        [HEIGHTS, [*HEIGHTS[:2], replace(HEIGHTS[2], statement=b"other")]],
        "height 2 was certified in two ways",
    ),
    "two orders for a height": ([HEIGHTS, with_height(1, POOR, FIRST)], "in two ways"),
}


@pytest.mark.parametrize("name", FALSE_LOGS)
def test_a_false_log_is_found_out(name: str) -> None:
    logs, says = FALSE_LOGS[name]
    found = complaints(LINES, *logs)
    assert any(says in each for each in found), found


# --- the reader of audit files -------------------------------------------------------------------


class Network:
    """Four keys that certify what they are given."""

    def __init__(self) -> None:
        self.keys = [SigningKey(bytes([i + 1]) * 32) for i in range(5)]
        self.epoch = 1
        self.genesis = encode(
            {
                **dict.fromkeys(("magic", "version", "network", "time_ms", "executor"), 1),
                **dict.fromkeys(("tree_depth", "limits", "accounts"), 1),
                "committee": self.committee(4),
            }
        )
        self.reader = Reader(self.genesis)
        self.history = History()
        self.chain = self.reader.chain
        self.heights: list[list[Any]] = []
        for number in range(3):
            self.grow(number, [b"body %d" % number] if number else [])

    def committee(self, size: int) -> list[Any]:
        """The epoch's, of the first keys."""
        keys = [key.verify_key.encode() for key in self.keys[:size]]
        return [self.epoch, [["a", key, b"", b"", "h", 1, "h", 2] for key in keys]]

    def elect(self) -> list[Any]:
        """End the epoch at height 3: from 4 on there are five. Return the step."""
        self.epoch = 2
        committee = self.committee(5)
        self.epoch = 1
        self.grow(3, [], digest("committee", encode(committee)))
        self.epoch = 2
        self.grow(4, [b"body 4"], signers=(0, 1, 3, 4))
        return [self.heights[3][3], committee]

    def read_with(self, step: list[Any], at: int = 4) -> Chain:
        for height in self.heights[:at]:
            self.reader.take(height)
        self.reader.begin(*step)
        for height in self.heights[at:]:
            self.reader.take(height)
        return self.reader.finish()

    def grow(
        self,
        height: int,
        bodies: list[bytes],
        elects: bytes | None = None,
        signers: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        public = encode([[1, 0, height, 0], [[body, [bytes(64)]] for body in bodies]])
        payload = [[digest("batch digest", public), 0, height, 0, 1, 1]] if bodies else []
        head = [self.epoch, height, height, bytes(32), None, None, height]
        block = encode([*head, payload, bytes(32)])
        rows = []
        for index, body in enumerate(bodies):
            name = digest("tx id", self.chain, body)
            header = encode([name, height, index, height, 1, []])
            leaves = [["code", bytes(16), encode([0, None, None])]]
            root = decision_root(name, height, index, header, leaves)
            rows.append([name, b"\1" * 32, root, encode([header, leaves])])
        said = [self.chain, self.epoch, height, height, digest("block id", block), height, 1]
        said += [bytes(32), count_root("results", [row[2] for row in rows]), bytes(32)]
        said += [self.history.root(), elects]
        statement = encode(said)
        self.history.add(digest("statement", statement))
        batches = [[public, None]] if bodies else []
        self.heights.append(
            [height, block, statement, self.sign(statement, signers), batches, encode(rows), b""]
        )

    def sign(self, statement: bytes, signers: tuple[int, ...] = (0, 1, 2)) -> bytes:
        message = b"comity commit vote\0" + self.chain + statement
        signed = [[each, self.keys[each].sign(message).signature] for each in signers]
        return encode([cbor2.loads(statement), signed])

    def read(self) -> Chain:
        for height in self.heights:
            self.reader.take(height)
        return self.reader.finish()


def test_a_certified_log_is_read() -> None:
    network = Network()
    found = network.read()
    assert [len(each.outcomes) for each in found.heights] == [0, 1, 1]
    assert found.heights[2].outcomes[0].txid == digest("tx id", network.chain, b"body 2")
    assert found.heights[2].signers == {0, 1, 2}


def test_heights_above_the_newest_certificate_do_not_count() -> None:
    network = Network()
    network.heights[2][3] = None
    assert len(network.read().heights) == 2


def other(at: int, make: Callable[[Network], object]) -> Callable[[Network], None]:
    def change(network: Network) -> None:
        network.heights[2][at] = make(network)

    return change


def from_the_end(network: Network) -> bytes:
    """Signatures of two: one of them is there a second time, as the last but one of four."""
    said, signed = cbor2.loads(network.sign(network.heights[2][2], (2, 2, 3)))
    signed[0][0] = -2
    return encode([said, signed])


FORGED: dict[str, tuple[Callable[[Network], None], str]] = {
    "too few signatures": (
        other(3, lambda n: n.sign(n.heights[2][2], (0, 1))),
        "has 2 signatures",
    ),
    "a signer twice": (
        other(3, lambda n: n.sign(n.heights[2][2], (0, 1, 1))),
        "about something else",
    ),
    "a signer twice, counted from the end the second time": (
        other(3, from_the_end),
        "about something else",
    ),
    "another height's certificate": (
        other(3, lambda n: n.heights[1][3]),
        "about something else",
    ),
    "a signature of nobody": (
        other(3, lambda n: n.sign(n.heights[2][2])[:-1] + b"\0"),
        "does not verify",
    ),
    "another block": (other(1, lambda n: n.heights[1][1]), "another block"),
    "another batch": (other(4, lambda n: n.heights[1][4]), "another batch"),
    "decisions left out": (other(5, lambda _: encode([])), "not those certified"),
    "another statement": (other(2, lambda n: n.heights[1][2]), "another network or height"),
    "a height left out": (lambda n: n.heights.pop(1), "height 2 after 0"),
    "another past": (
        lambda n: (
            n.heights.__setitem__(1, [1, *Network().heights[1][1:]])
            or n.reader._history.add(bytes(32))
        ),
        "another past",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_log_is_refused(name: str) -> None:
    network = Network()
    change, says = FORGED[name]
    change(network)
    with pytest.raises(Broken, match=says):
        network.read()


def test_heights_are_judged_by_the_committee_of_their_epoch() -> None:
    network = Network()
    found = network.read_with(network.elect())
    assert [each.epoch for each in found.heights] == [1, 1, 1, 1, 2]
    assert found.heights[4].signers == {0, 1, 3, 4}


def test_a_height_that_ended_an_epoch_is_certified_by_what_began_the_next() -> None:
    network = Network()
    step = network.elect()
    network.heights[3][3] = network.heights[4][3] = None
    assert len(network.read_with(step).heights) == 4


def signed_again(network: Network, signers: tuple[int, ...]) -> None:
    """The newest height with a certificate of these."""
    network.heights[4][3] = network.sign(network.heights[4][2], signers)


EPOCHS: dict[str, tuple[Callable[[Network, list[Any]], object], str]] = {
    "another committee": (lambda n, s: s.__setitem__(1, [2, s[1][1][:4]]), "than was elected"),
    "another epoch": (lambda n, s: s.__setitem__(1, [3, s[1][1]]), "than was elected"),
    "a step that too few signed": (
        lambda n, s: s.__setitem__(0, n.sign(n.heights[3][2], (0, 1))),
        "has 2 signatures",
    ),
    "a step of another height": (
        lambda n, s: s.__setitem__(0, n.heights[2][3]),
        "than was elected",
    ),
    "the old quorum in the new epoch": (
        lambda n, s: signed_again(n, (0, 1, 2)),
        "has 3 signatures",
    ),
}


@pytest.mark.parametrize("name", EPOCHS)
def test_a_forged_change_of_the_committee_is_refused(name: str) -> None:
    network = Network()
    step = network.elect()
    change, says = EPOCHS[name]
    change(network, step)
    with pytest.raises(Broken, match=says):
        network.read_with(step)


def test_nothing_follows_an_epoch_but_the_next_and_none_begins_unelected() -> None:
    network = Network()
    step = network.elect()
    with pytest.raises(Broken, match="of another epoch"):
        network.read()
    with pytest.raises(Broken, match="did not end an epoch"):
        Network().read_with(step, at=3)
    network = Network()
    network.epoch = 2
    network.grow(3, [])
    with pytest.raises(Broken, match="of another epoch"):
        network.read()


def test_a_decision_is_bound_to_its_place_and_leaves() -> None:
    network = Network()
    encoded = network.heights[2][5]
    for old, new in ((b"\x64code", b"\x64cope"), (bytes(16), bytes(15) + b"\1")):
        assert old in encoded
        copy = Network()
        copy.heights[2][5] = encoded.replace(old, new, 1)
        with pytest.raises(Broken, match="has another root"):
            copy.read()


def test_files_are_judged_by_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    network = Network()
    before, data = bytes(16), b"COMITYAU\0\0\0\1"
    payloads = [(1, encode([network.genesis, 0, None]))]
    payloads += [(2, encode(height)) for height in network.heights]
    for kind, payload in [*payloads, (4, encode([3, 0]))]:
        before = digest("audit frame", before, bytes([kind]), payload)[:16]
        data += len(payload).to_bytes(4, "big") + bytes([kind]) + before + payload
    (tmp_path / "node.audit").write_bytes(data)
    lines = [
        {**submit(n, n, "anna", n, "pay", 1, 2, 30)}
        | {"txid": digest("tx id", network.chain, b"body %d" % n).hex()}
        for n in (1, 2)
    ]
    for count, status in ((2, 0), (1, 1)):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines[:count]))
        assert main([str(path), str(tmp_path / "node.audit")]) == status
        assert json.loads(capsys.readouterr().out)["marks"]["heights"] == 3
    (tmp_path / "node.audit").write_bytes(data[:-20] + b"\1" + data[-19:])
    with pytest.raises(Broken, match="damaged"):
        main([str(path), str(tmp_path / "node.audit")])
