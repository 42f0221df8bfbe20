"""Audits over changes of the committee: each height by its own, and every change decided."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comity.auditing.running import MemorySpace, Report, Wanted, audit
from consensus import codec
from consensus.answers import EpochStep
from consensus.audit.divergence import DivergenceError
from consensus.audit.stream import Frame, Kind, Splitter
from consensus.committee import Committee
from consensus.errors import DecodeError
from consensus.ledger.executor import BlockResult, BlockRun
from node import auditing
from scripts import chainmaker
from tests.elections import Elections, elected

CHAIN = elected().chain


def frames(data: bytes) -> list[Frame]:
    return list(Splitter().feed(data))


def judged(data: list[Frame] | bytes, **more: Any) -> Report:
    found = frames(data) if isinstance(data, bytes) else data
    return audit(iter(found), Wanted(CHAIN, **more), space=MemorySpace())


def divergence(data: list[Frame] | bytes) -> DivergenceError:
    with pytest.raises(DivergenceError) as found:
        judged(data)
    return found.value


def test_a_chain_of_four_epochs_is_audited_whole_and_from_a_folder(tmp_path: Path) -> None:
    chain = elected()
    report = judged(chain.stream())
    assert (report.last, report.certified) == (chain.tip.height, chain.tip.height)
    assert report.statement.epoch == 4
    folder = tmp_path / "data"
    chain.store(folder)
    (folder / "log").mkdir(exist_ok=True)
    sink = io.BytesIO()
    auditing.write(sink, folder, chain.genesis, 0, None, False)
    kinds = [each.kind for each in frames(sink.getvalue())]
    assert kinds.count(Kind.EPOCH) == 3
    assert judged(sink.getvalue()).statement == report.statement


def test_heights_that_begin_in_a_later_epoch_come_after_all_its_steps() -> None:
    chain = elected()
    data = chain.stream(chain.recorded[-2:], first=chain.tip.height - 1)
    kinds = [each.kind for each in frames(data)]
    assert kinds == [Kind.HEADER, *[Kind.EPOCH] * 3, *[Kind.HEIGHT] * 2, Kind.END]


# --- changes that were not decided --------------------------------------------------------------


class Usurping(BlockRun):
    """An executor that has the committee change at height 2, which nobody decided."""

    def finish(self) -> BlockResult:
        outcome = super().finish()
        if self._context.height != 2:
            return outcome
        rows = elected().founded.committee.validators
        return replace(outcome, next_committee=Committee(2, rows[::-1]))


class Clinging(BlockRun):
    """An executor that forgets that the committee was to change."""

    def finish(self) -> BlockResult:
        return replace(super().finish(), next_committee=None)


def made_by(run: type[BlockRun], monkeypatch: pytest.MonkeyPatch) -> Elections:
    monkeypatch.setattr(chainmaker, "BlockRun", run)
    return Elections()


def test_a_change_that_was_not_decided_is_found_though_a_quorum_signed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = made_by(Usurping, monkeypatch)
    for _ in range(4):
        chain.block()
    assert chain.committee.epoch == 2
    found = divergence(chain.stream())
    assert (found.height, found.problem.check) == (2, "statement")
    assert [each.place for each in found.problem.differences] == ["next committee"]


def test_a_decided_change_that_was_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = made_by(Clinging, monkeypatch)
    chain.agree(chain.members.joining("health", "chief_h"))
    chain.block(after_ms=10_000)
    chain.block()
    assert chain.committee.epoch == 1
    found = divergence(chain.stream())
    assert (found.height, found.problem.check) == (2, "statement")
    assert [each.place for each in found.problem.differences] == ["next committee"]


# --- steps that are not right -------------------------------------------------------------------


def without(number: int) -> list[Frame]:
    found = frames(elected().stream())
    at = [index for index, each in enumerate(found) if each.kind is Kind.EPOCH][number]
    return found[:at] + found[at + 1 :]


def test_a_missing_step_leaves_the_next_height_without_a_committee() -> None:
    found = divergence(without(0))
    assert found.problem.check == "chain"
    assert "epoch" in found.problem.message
    found = divergence(without(2))
    assert found.problem.check == "chain"


def altered(number: int, step: EpochStep) -> list[Frame]:
    found = frames(elected().stream())
    at = [index for index, each in enumerate(found) if each.kind is Kind.EPOCH][number]
    found[at] = replace(found[at], payload=codec.encode(step.to_value()))
    return found


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def test_a_step_that_does_not_hold_is_found_after_what_came_before_it() -> None:
    steps = elected().steps
    rows = [list(each) for each in steps[1].committee[1]]
    rows[0][5] += 1
    for step in (
        steps[2], steps[0], EpochStep(steps[1].certificate, [3, rows]),
        EpochStep(flipped(steps[1].certificate), steps[1].committee),
    ):  # fmt: skip
        found = divergence(altered(1, step))
        assert found.problem.check == "certificate"
        assert "end of an epoch does not hold" in found.problem.message
        assert found.height > 4
    with pytest.raises(DecodeError, match="epoch"):
        judged(altered(1, EpochStep(b"", steps[1].committee)))


def test_a_step_may_come_early_for_what_it_leads_to_is_executed() -> None:
    found = frames(elected().stream())
    at = [index for index, each in enumerate(found) if each.kind is Kind.EPOCH]
    early = [found[0], found[at[0]], *found[1 : at[0]], *found[at[0] + 1 :]]
    assert divergence(early).problem.check == "chain"  # the first heights are not of its epoch
