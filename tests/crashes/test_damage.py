"""An even sample of the damages to the last segment; ``scripts/crashes`` takes every offset."""

from __future__ import annotations

from functools import cache

import pytest

from node.signer import Signer
from tests.crashes.damage import DamagedLog, Total, logs
from tests.sim.errors import Violation

STRIDE = 211


@cache
def all_logs() -> tuple[DamagedLog, ...]:
    """Return the logs, made once."""
    return tuple(logs())


def judge_all() -> Total:
    """Judge the sample of every log."""
    total = Total()
    for log in all_logs():
        for damage in log.damages(STRIDE):
            total.enter(log.judge(damage))
    return total


def test_damage_leaves_the_exact_prefix_or_is_refused_and_no_slot_is_signed_twice() -> None:
    total = judge_all()
    assert min(total.whole, total.prefix, total.refused, total.lost) > 0
    assert total.slots > 100


def test_logs_turned_and_their_tails_are_ahead_of_the_mark_or_not() -> None:
    assert len(all_logs()) == 8
    assert all(log.base > 0 for log in all_logs())
    ahead = [log for log in all_logs() if log.base + log.end > log.node.marked_at]
    assert len(ahead) >= 4


def test_log_that_cuts_what_was_synced_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.storage.segment.later_synced", lambda *_: 0)
    with pytest.raises(Violation, match="damage is refused"):
        judge_all()


def test_signer_that_takes_any_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    restore = Signer._restore

    def trusting(self: Signer, content: bytes, identity: bytes, _end: int) -> None:
        restore(self, content, identity, 2**62)

    monkeypatch.setattr(Signer, "_restore", trusting)
    monkeypatch.setattr("node.opening.refuse_rollback", lambda *_: None)
    with pytest.raises(Violation, match="no start without the newest promise"):
        judge_all()
