"""Measures a real network of four nodes on this machine, beside the machine's own limit.

    throughput   transfers, each signed by itself
    cosigned     transfers with two cosigners, right after the same number of seconds without
    groups       transfers in signed groups of 500
    disburse     payments of the benefits programme, each signed by itself: 3 records read, 1 made
    latency      transfers at 100 a second, open loop, from the intended send to the verified answer
    records      memory of a node with 100,000 records, and how soon it serves after a power cut
    executor     the executor alone among 100,000 records: calls, approvals, proposals, activation
    fault        transfers with one of four nodes dead, beside the healthy rate; gap and recovery
    hostile      what others still get while somebody is a burden to one node, attack by attack
    capacity     transfers with 10, 50 and 150 ms between sites, and with 7 and 10 validators
    evidence     what third parties check: audits, bundles, disclosures, histories, snapshots
    members      pauses while validators become 7 and 4 again, at 500 a second; receipts
    joining      how soon a new agency votes that has 1,000,000 records to fetch, under load

Transactions are made and signed before the clock starts: real clients are other machines. Every
signature is checked by every replica, everything is durable and over TLS. The bound is what this
machine could do if it did nothing but check one signature per transaction and replica.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import nacl.bindings
import trio
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from comity.client import Client
from comity.founding import Person
from comity.keys import Key
from comity.session import Parcel
from consensus import genesis
from consensus.genesis import SYSTEM, OpeningBalance
from consensus.ledger import batch as batches
from consensus.ledger.decision import Decision
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import of_genesis
from consensus.ledger.transaction import ORDINARY
from consensus.signing import verify
from consensus.state.state import MemoryBackend, State
from node.telemetry import process
from scripts import (
    benefits,
    capacity_benchmark,
    evidence_benchmark,
    executor_benchmark,
    fault_benchmark,
    hostile_benchmark,
    joining_benchmark,
    members_benchmark,
    register,
)
from scripts.benchmark_load import WALLETS, Load, drive, transfer
from scripts.benefits import MONTH_ZERO_2026, OFFICE_ROLES, Offices
from scripts.localnet import AGENCIES, ROOT, LocalNetwork, found, one_way_to_end

REPLICAS = 4
AUTHORS = 16
GROUP_SIZE = 500
PERSONS = 2_000
ENTITLEMENTS = 500
RECORDS = 100_000
APPROVERS = [
    Person(f"approver-{agency}", agency, SYSTEM, (("bench.approver", ()),))
    for agency in ("social", "integrity")
]
"""Those who sign transfers of ``cosigned`` beside their authors."""
USED = 500_000
"""Numbers of an author's key that are passed over for a second load in one run."""
MONTHS = 120
"""Months that the rules of ``disburse`` accept; each entitlement is paid once in each."""
ALONE_TRANSACTIONS = 500
ALONE_BLOCKS = 6
CHUNK = 64
CHUNKS_IN_FLIGHT = 4
"""Chunks of transactions that each author has under way."""
LATENCY_RATE = 100

Name = Literal[
    "throughput",
    "cosigned",
    "groups",
    "disburse",
    "latency",
    "records",
    "fault",
    "hostile",
    "capacity",
    "executor",
    "evidence",
    "members",
    "joining",
]
ALONE = ("executor", "evidence")
"""What is measured in this process, without a network."""

app = cyclopts.App(help=__doc__, name="bench")


def main() -> None:
    """Run the command line."""
    with one_way_to_end():
        app()


# --- the machine's own limit --------------------------------------------------------------------


def _checks_per_second(seconds: float) -> float:
    public, secret = nacl.bindings.crypto_sign_keypair()
    signed = nacl.bindings.crypto_sign(bytes(80), secret)
    count, end = 0, time.perf_counter() + seconds
    begin = time.perf_counter()
    while time.perf_counter() < end:
        for _ in range(100):
            nacl.bindings.crypto_sign_open(signed, public)
        count += 100
    return count / (time.perf_counter() - begin)


def verify_bound() -> float:
    """Return transactions a second if all cores only checked one signature per replica."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.map(_checks_per_second, [1.0] * cores)) / REPLICAS


# --- clients ------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(network: LocalNetwork, keys: Sequence[Key]) -> AsyncIterator[list[Client]]:
    """Give one client at each node, with a key each."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Client.connect(network.genesis, servers=[agency], key=key)
            )
            for agency, key in zip(network.agencies, keys, strict=True)
        ]


# --- what is measured ---------------------------------------------------------------------------


def _wallets(
    folder: Path, agencies: Sequence[str] = tuple(AGENCIES)
) -> tuple[LocalNetwork, list[Key]]:
    """Found a network of wallets, between which transfers go."""
    rules = [ROOT / "configs/rules/charter.toml", ROOT / "configs/bench/transfers.toml"]
    accounts = [OpeningBalance("wallet", (number,), 10**9) for number in range(WALLETS)]
    return _founded(folder, rules, accounts, (("bench.operator", ()),), agencies)


def _programme(folder: Path) -> tuple[LocalNetwork, list[Key]]:
    """Found a network with the rule sets of the demonstration and a budget that lasts."""
    rules = sorted((ROOT / "configs/rules").glob("*.toml"))
    return _founded(folder, rules, [OpeningBalance("programme", (), 10**15)], OFFICE_ROLES)


def _founded(
    folder: Path,
    rules: Sequence[Path],
    accounts: Sequence[OpeningBalance],
    roles: Any,
    agencies: Sequence[str] = tuple(AGENCIES),
) -> tuple[LocalNetwork, list[Key]]:
    people = [Person(f"author-{n}", "treasury", SYSTEM, roles) for n in range(AUTHORS)]
    network = found(folder, rules, [*people, *APPROVERS], accounts, agencies)
    return network, [network.key(each.agency, each.name) for each in people]


def _cpu_seconds(network: LocalNetwork) -> dict[str, float]:
    """Return user and system seconds used so far, of nodes, of their workers and by this client."""
    nodes = [each.pid for each in network.processes.values()]
    lists = [path for pid in nodes for path in Path(f"/proc/{pid}/task").glob("*/children")]
    workers = [int(pid) for path in lists for pid in path.read_text().split()]
    return {
        "node": process.used(nodes).cpu_seconds,
        "workers": process.used(workers).cpu_seconds,
        "client": time.process_time(),
    }


_HISTOGRAMS = {
    "comity_consensus_commit_seconds": "block_to_certificate_ms",
    "comity_log_fsync_seconds": "log_sync_ms",
    "comity_store_flush_seconds": "store_flush_ms",
    'comity_stage_seconds{stage="execute"}': "execute_block_ms",
}


def _scrape(network: LocalNetwork) -> dict[str, float]:
    """Return means of one node's latency histograms, and its counts of heights and timeouts."""
    values: dict[str, float] = {}
    page = network.http(network.agencies[0], "/metrics").partition(b"\r\n\r\n")[2].decode()
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#"):
            values[name] = float(value)
    found = {}
    for name, label in _HISTOGRAMS.items():
        base, brace, labels = name.partition("{")
        total = values.get(f"{base}_sum{brace}{labels}", 0.0)
        count = values.get(f"{base}_count{brace}{labels}", 0.0)
        found[label] = round(total / count * 1000, 2) if count else 0.0
        found[label.replace("_ms", "_count")] = count
    found["heights"] = values.get("comity_consensus_certified_height", 0.0)
    found["rounds"] = values.get("comity_consensus_round", 0.0)
    return found


def _micros(
    before: dict[str, float], after: dict[str, float], transactions: int, replicas: int = REPLICAS
) -> dict[str, float]:
    """Return microseconds of CPU a transaction and replica; the client's a transaction."""
    used = {name: (after[name] - before[name]) * 1e6 / transactions for name in before}
    return {
        "node_us_per_tx_and_replica": round(used["node"] / replicas, 1),
        "workers_us_per_tx_and_replica": round(used["workers"] / replicas, 1),
        "client_us_per_tx": round(used["client"], 1),
    }


def _alone(network: LocalNetwork, keys: Sequence[Key]) -> dict[str, float]:
    """Return microseconds a transfer of each stage of a node's work, run alone in this process.

    The best of several blocks of ALONE_TRANSACTIONS: what the code takes, without waiting,
    without other processes in the caches.
    """
    founded = genesis.decode(network.genesis)
    chain = genesis.chain_id(network.genesis)
    state = State(MemoryBackend(), founded.tree_depth, -1)
    state.apply(genesis_state(founded))
    ledger = of_genesis(founded)
    load = Load(chain, keys, ledger.rules(state, founded.time_ms).book, founded.time_ms)
    best: dict[str, float] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        took = (time.process_time() - begin) * 1e6 / ALONE_TRANSACTIONS
        best[stage] = round(min(took, best.get(stage, took)), 1)
        return result

    for height in range(1, ALONE_BLOCKS + 1):
        parcels = [
            load.single(n % len(keys), transfer(height * ALONE_TRANSACTIONS + n))
            for n in range(ALONE_TRANSACTIONS)
        ]
        items = [batches.decode_item(chain, each.data) for each in parcels]
        made = batches.build(0, height, ORDINARY, items)
        public, private = made.public, made.private
        timed("check_batch", partial(batches.decode, chain, public, private, founded.limits))
        checks = batches.messages(chain, items)
        timed("verify", partial(_verify_all, checks))
        txids = b"".join([each.txid for each in made.transactions])
        decoded = timed(
            "decode_checked",
            partial(batches.decode_trusted, public, private, txids, chain=chain),
        )
        context = BlockContext(founded.committee.epoch, height, founded.time_ms + height, EXECUTOR)
        run = BlockRun(ledger, state, context, decoded.transactions)
        timed("execute", partial(run.step, ALONE_TRANSACTIONS))
        outcome = timed("leaves_and_results", run.finish)
        timed("state_tree", partial(state.apply, outcome.writes))
        timed("encode_decisions", partial(_encode_all, outcome.decisions))
    return best


def _verify_all(checks: Iterable[tuple[bytes, bytes, bytes]]) -> None:
    for each in checks:
        verify(*each)


def _encode_all(decisions: Iterable[Decision]) -> None:
    for each in decisions:
        each.encode()


def _memory(network: LocalNetwork) -> dict[str, float]:
    """Return the largest resident size of a node's main process, with and without mapped files."""
    sizes = {"memory_mib": 0.0, "memory_without_files_mib": 0.0}
    for each in network.processes.values():
        resident, shared = Path(f"/proc/{each.pid}/statm").read_text().split()[1:3]
        for name, pages in zip(sizes, (int(resident), int(resident) - int(shared)), strict=True):
            mib = round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
            sizes[name] = max(sizes[name], mib)
    return sizes


async def _loaded(
    network: LocalNetwork,
    keys: Sequence[Key],
    seconds: float,
    make: Callable[[Load, float], list[list[list[Parcel]]]],
    in_flight: int = CHUNKS_IN_FLIGHT,
    used: int = 0,
) -> dict[str, Any]:
    async with connected(network, [keys[0]] * len(network.members)) as clients:
        rules = await clients[0].rules()
        load = Load(clients[0].chain, keys, rules.book, rules.time_ms, used)
        lanes = make(load, seconds)
        before = _cpu_seconds(network)
        driven = await drive(clients, lanes, seconds, in_flight)
        after = _cpu_seconds(network)
    latencies = sorted(driven.latencies)
    return {
        "tx_per_s": round(driven.count / driven.seconds, 1),
        "transactions": driven.count,
        "p50_ms": round(statistics.median(latencies) * 1000, 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
        "stages": {
            **_micros(before, after, driven.total, len(network.members)),
            **_scrape(network),
        },
        **_memory(network),
    }


def _singles(load: Load, seconds: float) -> list[list[list[Parcel]]]:
    lanes, per_lane, chunk = AUTHORS, int(seconds * 3), CHUNK
    return [
        [
            [load.single(author, transfer(author * 100_003 + n * chunk + i)) for i in range(chunk)]
            for n in range(per_lane)
        ]
        for author in range(lanes)
    ]


async def _cosigned(network: LocalNetwork, keys: Sequence[Key], seconds: float) -> dict[str, Any]:
    """Move money without approvals, then with two; both in one run, so that the machine is one."""
    approvers = [network.key(each.agency, each.name) for each in APPROVERS]

    def agreed(load: Load, seconds: float) -> list[list[list[Parcel]]]:
        def chunk(author: int, first: int) -> list[Parcel]:
            calls = (transfer(first + i, "transfer_agreed") for i in range(CHUNK))
            return [load.cosigned(author, call, approvers) for call in calls]

        per_lane = int(seconds * 2)
        return [
            [chunk(author, author * 100_003 + n * CHUNK) for n in range(per_lane)]
            for author in range(AUTHORS)
        ]

    plain = await _loaded(network, keys, seconds, _singles)
    figures = await _loaded(network, keys, seconds, agreed, used=USED)
    rate = figures["tx_per_s"] / plain["tx_per_s"]
    return {
        **figures,
        "plain_tx_per_s": plain["tx_per_s"],
        "rate_beside_plain": round(rate, 3),
        "rate_counted_by_signatures": round(rate * (1 + len(APPROVERS)), 3),
    }


def _groups(load: Load, seconds: float) -> list[list[list[Parcel]]]:
    per_lane = max(2, int(seconds * 8000 / GROUP_SIZE / AUTHORS * 1.2))
    return [
        [
            [
                load.group(
                    author,
                    [
                        load.draft(author, transfer(author * 100_003 + n * GROUP_SIZE + i))
                        for i in range(GROUP_SIZE)
                    ],
                )
            ]
            for n in range(per_lane)
        ]
        for author in range(AUTHORS)
    ]


async def _disburse(network: LocalNetwork, keys: Sequence[Key], seconds: float) -> dict[str, Any]:
    """Load the programme, then pay each entitlement once a month and transaction."""
    people = register.people(PERSONS, seed=1)
    households = register.households(people, ENTITLEMENTS)
    async with connected(network, keys[-REPLICAS:]) as offices:
        cases = await benefits.load(Offices.everybody(offices), people, households)

    def payments(load: Load, seconds: float) -> list[list[list[Parcel]]]:
        authors, per_lane = AUTHORS - REPLICAS, int(seconds * 3)
        count = min(authors * per_lane * CHUNK, len(cases) * MONTHS)
        lanes: list[list[list[Parcel]]] = [[] for _ in range(authors)]
        for first in range(0, count - CHUNK + 1, CHUNK):
            author = first // CHUNK % authors
            chunk = []
            for number in range(first, first + CHUNK):
                month, case = divmod(number, len(cases))
                call, reads = cases[case].disbursement(MONTH_ZERO_2026 + month)
                chunk.append(load.single(author, call, reads))
            lanes[author].append(chunk)
        return lanes

    return await _loaded(network, keys, seconds, payments)


async def _records(network: LocalNetwork, keys: Sequence[Key], _seconds: float) -> dict[str, Any]:
    """Enter people until there are RECORDS, then kill all nodes at once and start them again."""
    people = register.people(RECORDS, seed=1)
    begin = time.monotonic()
    async with connected(network, keys[:REPLICAS]) as offices:
        await benefits.load(Offices.everybody(offices), people, [])
    loaded = time.monotonic() - begin
    memory = _memory(network)
    for agency in network.agencies:
        network.kill(agency)
    begin = time.monotonic()
    network.start_all()
    ready = time.monotonic() - begin
    agency = network.agencies[0]
    async with Client.connect(network.genesis, servers=[agency], key=keys[0]) as client:
        entry = await client.get("record", "person", people[-1].token)
        if not entry.present:
            raise SystemExit("the last record is missing after the restart")
    return {
        "tx_per_s": round(RECORDS / loaded, 1),
        "records": RECORDS,
        "p50_ms": None,
        "p99_ms": None,
        "stages": _scrape(network),
        **memory,
        "memory_after_restart_mib": _memory(network)["memory_mib"],
        "ready_seconds": round(ready, 2),
        "served_seconds": round(time.monotonic() - begin, 2),
    }


async def _latency(network: LocalNetwork, keys: Sequence[Key], seconds: float) -> dict[str, Any]:
    waits: list[float] = []
    async with connected(network, [keys[0]] * len(network.members)) as clients:
        rules = await clients[0].rules()
        load = Load(clients[0].chain, keys, rules.book, rules.time_ms)
        count = int(LATENCY_RATE * (seconds + 1))
        parcels = [load.single(n % AUTHORS, transfer(n)) for n in range(count)]
        for client in clients:
            await client.status()
        before = _cpu_seconds(network)
        begin = trio.current_time() + 0.2

        async def one(number: int) -> None:
            intended = begin + number / LATENCY_RATE
            await trio.sleep_until(intended)
            await clients[number % len(clients)].deliver([parcels[number]])
            if number >= LATENCY_RATE:  # the first second warms up
                waits.append(trio.current_time() - intended)

        async with trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(one, number)
        after = _cpu_seconds(network)
    waits.sort()
    return {
        "tx_per_s": LATENCY_RATE,
        "transactions": len(waits),
        "p50_ms": round(statistics.median(waits) * 1000, 1),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        "stages": {**_micros(before, after, count, len(network.members)), **_scrape(network)},
        **_memory(network),
    }


def _machine() -> dict[str, Any]:
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "python": platform.python_version()}


def _case(
    folder: Path, agencies: Sequence[str], delay_ms: int | None, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the figures of transfers at full load, and at a hundred a second, on a new network."""
    network, keys = _wallets(folder, agencies)
    with network, capacity_benchmark.apart(network, delay_ms):
        network.start_all()
        slow = trio.run(_latency, network, keys, seconds)
        return trio.run(_loaded, network, keys, seconds, _singles, CHUNKS_IN_FLIGHT, USED), slow


def measure(name: Name, seconds: float) -> dict[str, Any]:
    """Run one benchmark and return its figures."""
    if name == "executor":
        with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
            figures = executor_benchmark.measure(Path(temporary) / "network")
        return {"name": name, **figures, "machine": _machine()}
    networks: dict[str, Callable[[], dict[str, Any]]] = {
        "capacity": partial(capacity_benchmark.measure, _case, seconds),
        "members": partial(members_benchmark.measure, seconds),
        "joining": joining_benchmark.measure,
    }
    if name in networks:
        return {
            "name": name,
            **networks[name](),
            "verify_bound_tx_per_s": round(verify_bound(), 1),
            "seconds": seconds,
            "machine": _machine(),
        }
    if name == "evidence":
        return {"name": name, **evidence_benchmark.measure(), "machine": _machine()}
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        make = _programme if name in ("disburse", "records") else _wallets
        network, keys = make(Path(temporary) / "network")
        with network:
            network.start_all()
            match name:
                case "throughput":
                    figures = trio.run(_loaded, network, keys, seconds, _singles)
                case "cosigned":
                    figures = trio.run(_cosigned, network, keys, seconds)
                case "groups":
                    figures = trio.run(_loaded, network, keys, seconds, _groups, 1)
                case "disburse":
                    figures = trio.run(_disburse, network, keys, seconds)
                case "records":
                    figures = trio.run(_records, network, keys, seconds)
                case "fault":
                    figures = trio.run(fault_benchmark.measure, network, keys, seconds)
                case "hostile":
                    files = [network.key_file("treasury", f"author-{n}") for n in range(AUTHORS)]
                    half = AUTHORS // 2
                    figures = hostile_benchmark.measure(network, keys[:half], files[half:], seconds)
                case "latency":
                    figures = trio.run(_latency, network, keys, seconds)
        if name == "throughput":
            figures["stages"]["alone_us_per_tx"] = _alone(network, keys)
    signatures = 1 + len(APPROVERS) if name == "cosigned" else 1
    bound = verify_bound() / signatures
    return {
        "name": name,
        **figures,
        "verify_bound_tx_per_s": round(bound, 1),
        "ratio": round(figures["tx_per_s"] / bound, 3),
        "replicas": REPLICAS,
        "seconds": seconds,
        "machine": _machine(),
    }


@app.default
def bench(
    name: Name,
    *,
    seconds: float = 12.0,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> None:
    """Measure one figure.

    Args:
        name: what to measure.
        seconds: how long the load lasts after warming up.
        json_file: write the figures to this file as well.
    """
    figures = measure(name, seconds)
    where = "in one process" if name in ALONE else f"{figures.get('replicas', 'n')} replicas"
    table = Table("figure", "value", title=f"{name}, {where} on this machine")
    for key, value in figures.items():
        _add_rows(table, key, value)
    Console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def _add_rows(table: Table, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for inner, each in value.items():
            _add_rows(table, f"{name}.{inner}", each)
    else:
        table.add_row(name, str(value))


if __name__ == "__main__":
    main()
