"""Certificates that end: told of in the log and by a gauge, and refused by TLS afterwards."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
import trio
from prometheus_client import generate_latest
from structlog import get_logger
from structlog.testing import capture_logs

from node import ending
from node.ending import DAY_SECONDS, NO_END_MS, OBSERVERS, OWN, Endings
from node.network import tls
from node.network.transport import TlsStream
from node.telemetry.metrics import Metrics
from tests.comity.test_endings import made
from tests.node.network.test_tls import exchange, refused_by_both

DAY = 86_400_000
SEEDS = [bytes([11 + each]) * 32 for each in range(3)]
UNTIL = datetime.datetime(2031, 5, 1, 12, tzinfo=datetime.UTC)
UNTIL_MS = int(UNTIL.timestamp()) * 1000
ENDS, ENDLESS = made(SEEDS[0], UNTIL), tls.make_certificate(SEEDS[1], "east")


class Watched:
    """What a node sees of certificates at a moment of its clock."""

    def __init__(self, named: dict[str, bytes], warn_days: int = 30) -> None:
        self.now_ms = UNTIL_MS - 100 * DAY
        self.observers: list[bytes] = []
        self.metrics = Metrics()
        self.endings = Endings(
            named,
            lambda: self.observers,
            warn_days,
            self.metrics,
            get_logger(),
            lambda: self.now_ms,
        )

    def told(self, now_ms: int) -> list[tuple[str, str, int]]:
        self.now_ms = now_ms
        with capture_logs() as lines:
            self.endings.tell()
        return [(each["event"], each["whose"], each["days"]) for each in lines]

    def shown(self) -> dict[str, float]:
        self.endings.refresh()
        text = generate_latest(self.metrics.registry).decode()
        rows = [line for line in text.splitlines() if line.startswith("comity_certificate_end")]
        return {row.split('"')[1]: float(row.rsplit(" ", 1)[1]) for row in rows}


def test_a_certificate_that_nobody_can_read_is_left_out() -> None:
    seen = Watched({"north": ENDS, "east": b"no certificate"})
    seen.observers = [b"noise"]
    assert seen.shown() == {"north": UNTIL_MS / 1000}


def test_the_log_tells_from_so_many_days_before_on_and_after_the_end() -> None:
    seen = Watched({"north": ENDS, "east": ENDLESS})
    assert seen.told(UNTIL_MS - 30 * DAY - 1) == []
    assert seen.told(UNTIL_MS - 30 * DAY) == [("certificate ends", "north", 30)]
    assert seen.told(UNTIL_MS - 1) == [("certificate ends", "north", 0)]
    assert seen.told(UNTIL_MS) == [("certificate has ended", "north", 0)]
    assert seen.told(UNTIL_MS + 2 * DAY) == [("certificate has ended", "north", -2)]
    never = Watched({"north": ENDS}, warn_days=0)
    assert never.told(UNTIL_MS + DAY) == []


async def test_the_log_tells_once_a_day(autojump_clock: trio.testing.MockClock) -> None:
    seen = Watched({"north": ENDS})
    seen.now_ms = UNTIL_MS - DAY
    with capture_logs() as lines, trio.move_on_after(2.5 * DAY_SECONDS):
        await seen.endings.run()
    assert len(lines) == 3


def test_the_gauge_shows_members_the_own_one_and_the_first_of_the_observers() -> None:
    seen = Watched({"north": ENDS, OWN: ENDLESS})
    assert seen.shown() == {"north": UNTIL_MS / 1000, OWN: NO_END_MS / 1000}
    seen.observers = [ENDLESS, ENDS]
    assert seen.shown()[OBSERVERS] == UNTIL_MS / 1000
    seen.observers = []
    assert OBSERVERS not in seen.shown(), "nobody is admitted any more"


async def test_tls_refuses_a_certificate_that_has_ended_at_both_ends() -> None:
    def sides(certificate: bytes) -> tuple[Any, Any]:
        trusted = [certificate, ENDLESS]
        own = tls.peer_contexts(certificate, SEEDS[0], trusted)
        other = tls.peer_contexts(ENDLESS, SEEDS[1], trusted)
        return own, other

    now = datetime.datetime.now(datetime.UTC)
    for days, refused in ((1, False), (-1, True)):
        own, other = sides(made(SEEDS[0], now + datetime.timedelta(days=days)))
        for dial, accept in ((own.dial, other.accept), (other.dial, own.accept)):
            result = await exchange(dial, accept)
            assert refused_by_both(result) is refused
            assert refused or all(isinstance(each, TlsStream) for each in result.values())


@pytest.mark.parametrize("data", [b"", b"no certificate", ENDS[:-1]])
def test_what_is_no_certificate_has_no_end(data: bytes) -> None:
    with pytest.raises(tls.CertificateUnusable):
        tls.certificate_end_ms(data)


@pytest.mark.parametrize(
    ("certificate", "days", "said"),
    [
        (ENDLESS, 0, "certificate: without an end"),
        (ENDS, -12, "certificate: ends in 12 days; have a new node key"),
        (ENDS, 3, "certificate: HAS ENDED, nobody connects to this node"),
    ],
)
def test_a_check_says_how_long_the_own_certificate_is_good(
    monkeypatch: pytest.MonkeyPatch, certificate: bytes, days: int, said: str
) -> None:
    monkeypatch.setattr(ending, "own_certificate", lambda identity, key: certificate)
    nobody: Any = None
    assert ending.words(nobody, nobody, UNTIL_MS + days * DAY).startswith(said)
