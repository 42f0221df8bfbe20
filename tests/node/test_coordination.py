"""Refusals, holds and proposals by domain: what is shown at the beginning and by each height."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from consensus import codec
from consensus.ledger.attached import join_attached
from consensus.ledger.codes import Code
from consensus.ledger.layout import CONFIRMED, RELEASED, UNCONFIRMED, Hold, Paths
from consensus.ledger.proposals import EXECUTED, OBJECTED, OPEN, Proposal
from consensus.state.record import encode_single
from consensus.state.state import Row
from node.listed import index_entries
from node.register import Change, Register, entries_of
from node.storage.flush import FlushBatch
from node.storage.store import Store
from node.telemetry.coordination import DOMAINS_MAX, NO_DOMAIN, OTHER, PIECE, Coordination
from node.telemetry.metrics import Metrics
from tests.node.machines import Town, running
from tests.node.machines import inline_threads as inline_threads

PATHS = Paths(bytes(32))
HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "state", chain=bytes(32), map_bytes=2**22)
    opened.write(FlushBatch(0))
    yield opened
    opened.close()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def hold(
    number: int, domain: str = "compliance", until_ms: int | None = None, state: int = CONFIRMED
) -> Hold:
    id_ = number.to_bytes(32, "big")
    return Hold(id_, [["record", "note", 1]], 7, 0, until_ms, b"p" * 32, "a", domain, state, "", "")


def row(leaf: Sequence[Any], version: int = 1) -> Row:
    return Row(b"v" * 32, 1, encode_single(version, bytes(16), codec.encode([*leaf])))


def put(store: Store, *rows: tuple[bytes, Row], index: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Have the store hold rows with their entries in its index."""
    entries = [*index_entries(rows, lambda kh: False, PATHS), *index]
    store.write(FlushBatch(0, rows=rows, index=entries))


def put_holds(store: Store, *holds: Hold) -> None:
    put(store, *sorted((PATHS("hold", [each.id]), row(each)) for each in holds))


def height(
    number: int,
    changes: Sequence[tuple[Hold | None, Hold]] = (),
    *,
    known: bool = True,
    proposals: Sequence[Change] = (),
    refusals: Mapping[tuple[str, int], int] | None = None,
    time_ms: int = 0,
) -> Any:
    """A certified height; ``known``: the rows that it replaced are in memory."""
    befores = {PATHS("hold", [after.id]): before for before, after in changes}
    rows = {
        PATHS("hold", [after.id]): row(after, 1 if before is None else 2)
        for before, after in changes
    }
    rows[PATHS("account", ["pot", "a"])] = row([["pot", "a"], 1, 0, 0])
    rows = dict(sorted(rows.items()))
    before = [
        row(befores[kh]) if known and befores.get(kh) is not None else None  # type: ignore[arg-type]
        for kh in rows
    ]
    return SimpleNamespace(
        block=SimpleNamespace(height=number, time_ms=time_ms),
        refusals=refusals or {},
        rows=rows,
        before=before,
        proposals=proposals,
    )


def proposal(number: int, state: int = OPEN, domain: str = "payments", **options: Any) -> Proposal:
    calls = [[domain, "pay", bytes(32)]]
    times = options.get("proposed_ms", 1000), options.get("expires_ms", 24 * HOUR_MS)
    txid = number.to_bytes(32, "big")
    return Proposal(txid, b"k" * 32, b"p" * 32, "treasury", False, *times, state, calls, [])


def of(store: Store) -> tuple[Coordination, Metrics]:
    metrics = Metrics()
    return Coordination(metrics, store, PATHS), metrics


def in_force(metrics: Metrics, domain: str = "compliance") -> float | None:
    return value(metrics, "comity_ledger_holds_in_force", domain=domain)


# --- holds ----------------------------------------------------------------------------------------


async def test_holds_are_counted_from_the_store_and_by_each_height_from_then_on(
    store: Store,
) -> None:
    put_holds(store, *[hold(number) for number in range(PIECE + 3)], hold(9000, state=RELEASED))
    told, metrics = of(store)
    await told.count_holds()
    told.certified(height(1, [(None, hold(9001)), (hold(1), hold(1, state=RELEASED))]))
    told.certified(height(2, [(hold(9001), hold(9001, state=RELEASED))]))
    told.certified(height(3, [(None, hold(9002, "benefits"))]))
    told.refresh(0)
    assert in_force(metrics) == PIECE + 2
    assert in_force(metrics, "benefits") == 1
    changed = "comity_ledger_holds_total"
    assert value(metrics, changed, domain="compliance", event="placed") == 1
    assert value(metrics, changed, domain="compliance", event="released") == 2
    assert value(metrics, changed, domain="benefits", event="placed") == 1


def test_salts_of_drafts_and_parts_of_records_are_not_taken_for_holds(store: Store) -> None:
    """Where a hold's value begins, the row of a draft has the end of its salt, which is drawn."""
    told, _ = of(store)
    root = codec.encode(b"r" * 32)
    for first in range(256):
        salt = bytes(15) + bytes([first])
        draft = join_attached(encode_single(1, salt, root), b"what the root proves")
        assert draft[24] == first
        record = bytes([1]) + bytes(23) + bytes([first]) + b"rest"
        found = height(1)
        found.rows = {
            bytes([at]) * 32: Row(b"v" * 32, 1, each) for at, each in [(0, draft), (1, record)]
        }
        found.before = [None, None]
        assert list(told._changed_holds(found)) == []


async def test_what_heights_change_while_the_store_is_counted_is_neither_lost_nor_doubled(
    store: Store,
) -> None:
    put_holds(store, hold(1), hold(2))
    told, metrics = of(store)
    told.certified(height(1, [(None, hold(3)), (hold(1), hold(1, state=RELEASED))], known=False))
    told.refresh(0)
    assert in_force(metrics) is None, "nothing is shown before it is known"
    await told.count_holds()
    told.refresh(0)
    assert in_force(metrics) == 2


async def test_a_store_that_grew_while_it_was_counted_is_counted_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_holds(store, hold(1), hold(2))
    told, metrics = of(store)
    pin, pins = store.pin, []

    def closing() -> Any:
        pins.append(pin())
        if len(pins) == 1:
            pins[0].close()  # as growing does
        return pins[-1]

    monkeypatch.setattr(store, "pin", closing)
    await told.count_holds()
    told.refresh(0)
    assert in_force(metrics) == 2
    assert [each.closed for each in pins] == [True, True]


async def test_a_hold_lapses_by_itself_and_by_its_new_end_where_it_was_prolonged(
    store: Store,
) -> None:
    told, metrics = of(store)
    await told.count_holds()
    short = hold(1, until_ms=HOUR_MS, state=UNCONFIRMED)
    told.certified(height(1, [(None, short), (None, hold(2, until_ms=HOUR_MS))]))
    told.certified(height(2, [(short, hold(1, until_ms=3 * HOUR_MS))]))
    shown = []
    for now_ms in (0, HOUR_MS - 1, HOUR_MS, 3 * HOUR_MS):
        told.refresh(now_ms)
        shown.append(in_force(metrics))
    assert shown == [2, 2, 1, 0]
    told.certified(height(3, [(hold(2, until_ms=HOUR_MS), hold(2, state=RELEASED))]))
    told.refresh(4 * HOUR_MS)
    assert in_force(metrics) == 0, "who lapsed is not taken off a second time"


# --- proposals ------------------------------------------------------------------------------------


def waiting(metrics: Metrics, domain: str = "payments") -> tuple[float | None, float | None]:
    names = "comity_ledger_proposals_waiting", "comity_ledger_proposal_oldest_seconds"
    count, age = (value(metrics, name, domain=domain) for name in names)
    return count, age


def ended(metrics: Metrics, end: str) -> tuple[float | None, float | None]:
    name = "comity_ledger_proposal_seconds"
    labels = {"domain": "payments", "end": end}
    return tuple(value(metrics, f"{name}_{part}", **labels) for part in ("count", "sum"))  # type: ignore[return-value]


def test_proposals_wait_until_they_end_and_the_time_that_took_is_told(store: Store) -> None:
    told, metrics = of(store)
    first, second = proposal(1, proposed_ms=0), proposal(2, proposed_ms=60_000)
    told.certified(height(1, proposals=[(None, first), (None, second)]))
    told.refresh(90_000)
    assert waiting(metrics) == (2, 90)
    done = proposal(1, EXECUTED, proposed_ms=0)
    told.certified(height(2, proposals=[(first, done)], time_ms=120_000))
    told.refresh(120_000)
    assert waiting(metrics) == (1, 60)
    told.certified(
        height(3, proposals=[(second, proposal(2, OBJECTED, proposed_ms=60_000))], time_ms=180_000)
    )
    told.refresh(180_000)
    assert waiting(metrics) == (0, 0)
    assert (ended(metrics, "executed"), ended(metrics, "objected")) == ((1, 120), (1, 120))


def test_a_proposal_that_expires_waits_no_more_and_has_waited_till_then(store: Store) -> None:
    told, metrics = of(store)
    told.certified(height(1, proposals=[(None, proposal(1, proposed_ms=0, expires_ms=60_000))]))
    told.refresh(60_000)
    assert waiting(metrics) == (1, 60)
    for _ in range(2):
        told.refresh(60_001)
        assert waiting(metrics) == (0, 0)
        assert ended(metrics, "expired") == (1, 60)


def test_proposals_of_the_store_wait_from_the_beginning_unless_they_expired(store: Store) -> None:
    found = [proposal(1, proposed_ms=0), proposal(2, expires_ms=10_000)]
    put(
        store,
        *sorted((PATHS("proposal", [each.txid]), row(each)) for each in found),
        index=[entry for each in found for entry in entries_of(each)],
    )
    told, metrics = of(store)
    rules = SimpleNamespace(domain="payments", actions={"pay": None})
    book: Any = SimpleNamespace(rule_sets={"payments": rules})
    told.begin(Register(store), book, 20_000)
    told.refresh(20_000)
    assert waiting(metrics) == (1, 20)


# --- refusals and labels --------------------------------------------------------------------------


def test_domains_beyond_the_bound_share_a_label_and_nobody_can_name_one_so(store: Store) -> None:
    told, metrics = of(store)
    many = {(f"domain{number}", int(Code.HELD)): 1 for number in range(DOMAINS_MAX + 5)}
    told.certified(height(1, refusals={**many, (NO_DOMAIN, int(Code.EXPIRED)): 3}))
    told.certified(height(2, refusals=many))
    labels = {
        sample.labels["domain"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "comity_ledger_refusals_total"
    }
    assert len(labels) == DOMAINS_MAX + 2
    assert (labels[OTHER], labels[NO_DOMAIN], labels["domain0"]) == (10, 3, 2)
    told.refresh(0)
    assert value(metrics, "comity_ledger_proposals_waiting", domain=OTHER) == 0


@pytest.mark.usefixtures("inline_threads")
async def test_what_a_network_refuses_is_told_by_every_node(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    async with running(town):
        town.submit(0, 3)  # each may be applied for longer than the network allows

        def told(metrics: Metrics) -> float:
            name, labels = "comity_ledger_refusals_total", {"domain": NO_DOMAIN}
            return value(metrics, name, code="NOT_AFTER_TOO_FAR", **labels) or 0

        await town.until(lambda: min(each.height for each in town.machines) > 2)
        assert [told(each.metrics) for each in town.machines] == [3] * len(town.machines)
        assert (value(town.machines[0].metrics, "comity_consensus_certificates_total") or 0) > 1
