"""Holds what clients were told against what was certified.

    receipts     each is in the log, once, at the place and with the outcome that was told
    once         no transaction takes effect twice, however often it was sent
    nothing else nobody's transaction is in the log that no client sent
    real time    what was sent after another act's receipt stands at a later height
    judgement    every outcome, and so every balance and version, is what a few lines here say
    reads        each shows the state of its height, and never one before a certificate that the
                 same client has seen
    conservation what the wallets are last read to have is together what they had

Everything that was sent must be a call of ``load``. It imports nothing of the product.
``python -m tests.network.harness.checker HISTORY AUDIT...`` judges files.

Not here: whether the log is certified (``chain``).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.network.harness import chain as log

APPLIED, STALE, INSUFFICIENT = 0, 16, 21
SPENT = (3, 4)
"""Codes of a transaction that comes again after it was decided: its number is spent."""
NAMES = {APPLIED: "APPLIED", STALE: "STALE", INSUFFICIENT: "INSUFFICIENT"}
COMPLAINTS_MAX = 50


@dataclass
class Asked:
    """One line of what was asked, and the answer to it, if any came."""

    n: int
    at: int
    client: str
    what: dict[str, Any]
    told_at: int | None = None
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        """Whether it was told a certified fact."""
        return self.told.get("told") in ("decided", "read")


@dataclass
class Verdict:
    """What was found. ``marks`` count what the history had: one without any shows nothing."""

    complaints: list[str] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)

    def complain(self, text: str) -> None:
        """Note a broken promise."""
        if len(self.complaints) < COMPLAINTS_MAX:
            self.complaints.append(text)

    def mark(self, name: str, count: int = 1) -> None:
        """Note that something happened."""
        self.marks[name] = self.marks.get(name, 0) + count


def read_history(lines: Iterable[str]) -> list[Asked]:
    """The questions of a history with their answers, in the order they were asked."""
    asked: dict[int, Asked] = {}
    for text in lines:
        line = json.loads(text)
        if "told" in line:
            asked[line["n"]].told_at, asked[line["n"]].told = line["at"], line
        else:
            asked[line["n"]] = Asked(line["n"], line["at"], line["client"], line)
    return list(asked.values())


def judge(
    asked: Sequence[Asked],
    chains: Sequence[log.Chain],
    opening: dict[int, int],
    others: frozenset[bytes] = frozenset(),
) -> Verdict:
    """Compare a history with the log as each node tells it.

    Args:
        asked: by clients who were the only ones, but for ``others``.
        chains: of different nodes; may end at different heights.
        opening: balances of the wallets at height 0.
        others: txids of acts that touch nothing of what is judged here.
    """
    verdict = Verdict()
    heights = _agreed(chains, verdict)
    sent = {bytes.fromhex(a.what["txid"]): a for a in asked if a.what["do"] == "submit"}
    first = _once(heights, sent, others, verdict)
    _receipts(sent, first, len(heights) - 1, verdict)
    _real_time(sent, first, verdict)
    values = _judgement(heights, sent, first, opening, verdict)
    reads = [a for a in asked if a.what["do"] == "read"]
    _reads(reads, values, verdict)
    _money(reads, values, opening, verdict)
    _monotone(asked, verdict)
    return verdict


def _agreed(chains: Sequence[log.Chain], verdict: Verdict) -> tuple[log.Height, ...]:
    """The longest log; every other one is a beginning of it."""
    longest = max(chains, key=lambda each: len(each.heights))
    for each in chains:
        for ours, theirs in zip(longest.heights, each.heights, strict=False):
            if ours.statement != theirs.statement or ours.outcomes != theirs.outcomes:
                verdict.complain(f"height {ours.height} was certified in two ways")
                break
    verdict.mark("heights", len(longest.heights))
    verdict.mark("epochs", len({each.epoch for each in longest.heights}))
    verdict.mark("nodes compared", len(chains))
    return longest.heights


Place = tuple[int, log.Outcome]


def _once(
    heights: Sequence[log.Height],
    sent: dict[bytes, Asked],
    others: frozenset[bytes],
    verdict: Verdict,
) -> dict[bytes, Place]:
    """Where each transaction was decided first; again it can only be refused as spent."""
    first: dict[bytes, Place] = {}
    for height in heights:
        for outcome in height.outcomes:
            name = outcome.txid.hex()[:16]
            if outcome.txid in others:
                verdict.mark("of others")
            elif outcome.txid not in sent:
                verdict.complain(f"{name} at height {height.height} was sent by nobody")
            elif outcome.txid not in first:
                first[outcome.txid] = height.height, outcome
            elif outcome.code not in SPENT:
                verdict.complain(f"{name} took effect again at height {height.height}")
            else:
                verdict.mark("refused when it came again")
    verdict.mark("decided", len(first))
    return first


def _receipts(
    sent: dict[bytes, Asked], first: dict[bytes, Place], newest: int, verdict: Verdict
) -> None:
    for txid, asked in sent.items():
        if not asked.answered:
            verdict.mark("decided unseen" if txid in first else "never decided")
            continue
        verdict.mark("receipts")
        told, name = asked.told, f"the receipt of {txid.hex()[:16]} (line {asked.n})"
        place = first.get(txid)
        if place is None:
            where = "is not in the log" if told["height"] <= newest else "is above the log"
            verdict.complain(f"{name} {where}: height {told['height']}")
            continue
        height, outcome = place
        if (told["height"], told["index"]) != (height, outcome.index):
            verdict.complain(f"{name} names another place than {height}.{outcome.index}")
        if told["code"] != NAMES.get(outcome.code) or told["root"] != outcome.root.hex():
            verdict.complain(f"{name} tells another outcome than {outcome.code}")


def _real_time(sent: dict[bytes, Asked], first: dict[bytes, Place], verdict: Verdict) -> None:
    """Nothing that was sent after a receipt is at its height or below."""
    ends = sorted(
        (a.told_at or 0, first[t][0], a.n) for t, a in sent.items() if _placed(a, t, first)
    )
    begins = sorted((a.at, first[txid][0], a.n) for txid, a in sent.items() if txid in first)
    highest, whose, at = -1, 0, 0
    for begun, height, n in begins:
        while at < len(ends) and ends[at][0] < begun:
            if ends[at][1] > highest:
                highest, whose = ends[at][1], ends[at][2]
            at += 1
        if at:
            verdict.mark("ordered in real time")
        if height <= highest:
            verdict.complain(
                f"line {n} was sent after line {whose} was told height {highest}, "
                f"and stands at {height}"
            )


def _placed(asked: Asked, txid: bytes, first: dict[bytes, Place]) -> bool:
    return asked.answered and txid in first


@dataclass
class _State:
    """Balances of wallets and versions of notes."""

    wallets: dict[int, int]
    notes: dict[int, int]

    def expected(self, call: Sequence[Any]) -> int:
        """The outcome of a call, which takes effect if it is APPLIED."""
        match call:
            case ["pay", source, target, amount]:
                if self.wallets[source] < amount:
                    return INSUFFICIENT
                self.wallets[source] -= amount
                self.wallets[target] += amount
                return APPLIED
            case ["write" | "amend", note, version]:
                if self.notes.get(note, 0) != version:
                    return STALE
                self.notes[note] = version + 1
                return APPLIED
        raise ValueError(f"no such call: {call}")


Values = dict[tuple[str, int], list[tuple[int, int]]]
"""Of each thing, the heights that changed it and what it was then."""


def _judgement(
    heights: Sequence[log.Height],
    sent: dict[bytes, Asked],
    first: dict[bytes, Place],
    opening: dict[int, int],
    verdict: Verdict,
) -> Values:
    """Judge everything once more in the order of the log."""
    state = _State(dict(opening), {})
    values: Values = {("wallet", number): [(0, held)] for number, held in opening.items()}
    for height in heights:
        for outcome in height.outcomes:
            if first.get(outcome.txid) != (height.height, outcome):
                continue
            call = sent[outcome.txid].what["call"]
            ought = state.expected(call)
            verdict.mark(NAMES.get(outcome.code, str(outcome.code)))
            if ought != outcome.code:
                said = NAMES.get(outcome.code, str(outcome.code))
                verdict.complain(f"{call} at height {height.height} is {said}, not {NAMES[ought]}")
            for thing, value in _touched(call, state):
                values.setdefault(thing, [(0, 0)]).append((height.height, value))
    return values


def _touched(call: Sequence[Any], state: _State) -> list[tuple[tuple[str, int], int]]:
    if call[0] == "pay":
        return [(("wallet", number), state.wallets[number]) for number in call[1:3]]
    return [(("note", call[1]), state.notes.get(call[1], 0))]


def _reads(asked: Sequence[Asked], values: Values, verdict: Verdict) -> None:
    for each in asked:
        if not each.answered:
            continue
        verdict.mark("reads")
        thing, height = (each.what["of"][0], each.what["of"][1]), each.told["height"]
        known = [value for at, value in values.get(thing, [(0, 0)]) if at <= height]
        if each.told["value"] != known[-1]:
            verdict.complain(
                f"line {each.n} read {each.told['value']} of {thing} at height {height}, "
                f"where it was {known[-1]}"
            )


def _money(
    asked: Sequence[Asked], values: Values, opening: dict[int, int], verdict: Verdict
) -> None:
    """What all wallets are proved to hold after the last payment is what they opened with."""
    paid = max(at for (kind, _), steps in values.items() if kind == "wallet" for at, _ in steps)
    held = {
        each.what["of"][1]: each.told["value"]
        for each in asked
        if each.answered and each.what["of"][0] == "wallet" and each.told["height"] >= paid
    }
    if held.keys() != opening.keys():
        return
    verdict.mark("money counted")
    now, before = sum(held.values()), sum(opening.values())
    if now != before:
        verdict.complain(f"money was made or lost: wallets with {before} now have {now}")


def _monotone(asked: Sequence[Asked], verdict: Verdict) -> None:
    """No client is shown a state older than a certificate that it has seen."""
    by_client: dict[str, list[Asked]] = {}
    for each in asked:
        by_client.setdefault(each.client, []).append(each)
    for own in by_client.values():
        ends = sorted((a.told_at or 0, a.told["height"], a.n) for a in own if a.answered)
        seen, whose, at = -1, 0, 0
        for each in own:
            while at < len(ends) and ends[at][0] < each.at:
                if ends[at][1] > seen:
                    seen, whose = ends[at][1], ends[at][2]
                at += 1
            if each.what["do"] == "read" and each.answered:
                verdict.mark("reads after a certificate", at > 0)
                if each.told["height"] < seen:
                    verdict.complain(
                        f"line {each.n} read height {each.told['height']} after the same client "
                        f"had seen height {seen} (line {whose})"
                    )


def main(words: Sequence[str]) -> int:
    """Judge a history against audit files; wallets 0 to 15 open with a million each."""
    history, *files = map(Path, words)
    verdict = judge(
        read_history(history.read_text(encoding="utf-8").splitlines()),
        [log.read(file) for file in files],
        dict.fromkeys(range(16), 1_000_000),
    )
    print(json.dumps({"marks": verdict.marks, "complaints": verdict.complaints}, indent=2))
    return 1 if verdict.complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
