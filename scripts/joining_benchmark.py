"""How soon a new agency votes that has everything to fetch: ``scripts/bench joining``.

A network of four with RECORDS records works at RATE transactions a second. A fifth agency starts a
node with an empty folder, which follows through the members' doors for observers, takes a snapshot
and catches up; then the four agree to admit it, and it votes. All five nodes, and the clients,
share this machine's processors.

The records are made once, straight as certified rows with a quorum's signatures, written to a
snapshot file and taken up by one node as an operator would (``snapshot import``); the other three
get copies of its store and their own first promises. Seconds count from the start of the process.

Not here: how the records are made (``snapshot_benchmark``).
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from comity.client import Client
from comity.founding import CONFIG_NAME, Person
from consensus.genesis import SYSTEM, OpeningBalance
from consensus.hotstuff import wire
from consensus.hotstuff.types import (
    SIGN_TAGS,
    Block,
    CommitCert,
    QuorumCert,
    SafetyRecord,
    SignKind,
    vote_body,
)
from consensus.keyfile import KeyKind
from consensus.signing import message
from node import keyfiles
from node.opening import MARK_FILE
from node.signer import Signer
from node.snapshots.export import export
from node.snapshots.importing import import_file
from node.storage import kinds
from node.storage.log import Log
from node.storage.recovery import LOG_FOLDER, STORE_FOLDER
from scripts import localmembers, snapshot_benchmark
from scripts.benchmark_load import WALLETS, Load
from scripts.localmembers import Town
from scripts.localnet import AGENCIES, ROOT, LocalNetwork
from scripts.steady_load import SteadyLoad

RECORDS: Final = 1_000_000
RATE: Final = 100
AUTHORS: Final = 16
HEIGHT: Final = 5_000
"""Of the state that is given: so far behind, a new node takes a snapshot."""
JOINING: Final = "health"
AIM_SECONDS: Final = 180.0
SECONDS_MAX: Final = 420.0
READY_SECONDS_MAX: Final = 120.0
WARM_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.2
CLOSE_HEIGHTS: Final = 4
"""So few heights behind the others, a node has caught up: they certify several a second."""
PATIENCE_SECONDS: Final = 60.0
RULES: Final = (ROOT / "configs/rules/charter.toml", ROOT / "configs/bench/transfers.toml")
VOTES: Final = b'comity_stage_seconds_count{stage="vote"} '


@dataclass(frozen=True, slots=True)
class Given:
    """A network that is founded, with its records; nothing runs."""

    town: Town
    records: int
    snapshot_bytes: int
    made_seconds: float


def measure(records: int = RECORDS, rate: int = RATE) -> dict[str, Any]:
    """Return seconds until each stage; some ten gigabytes are written for a while.

    Raises:
        SystemExit: a transaction was not decided.
        trio.TooSlowError: the node does not vote in SECONDS_MAX.
    """
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        return joined(prepare(Path(temporary), records), rate)


# --- the network with its records ---------------------------------------------------------------


def prepare(folder: Path, records: int = RECORDS) -> Given:
    """Found the network and give every member the same certified records."""
    begin = time.monotonic()
    people = [
        Person(f"author-{n}", "treasury", SYSTEM, (("bench.operator", ()),)) for n in range(AUTHORS)
    ]
    accounts = [OpeningBalance("wallet", (number,), 10**9) for number in range(WALLETS)]
    town = localmembers.found(folder / "network", RULES, people, accounts)
    network = town.network
    founded = snapshot_benchmark.deepen(network)
    given, file = folder / "given", folder / "given.snapshot"
    block, certificate = snapshot_benchmark.certified_store(
        given, network, founded, records, HEIGHT
    )
    written = export(given, founded.encode(), file, lambda done, of: None)
    shutil.rmtree(given)
    *others, first = network.agencies  # the one whose key is in no certificate
    home = network.folder / first
    import_file(file, home / CONFIG_NAME, lambda done, of: None, new_key=True)
    file.unlink()
    for agency in others:
        shutil.copytree(home / "data" / STORE_FOLDER, town.home(agency) / "data" / STORE_FOLDER)
    record = _ordered(network, town.chain, block, certificate)
    for agency in network.agencies:
        _promise(town, agency, record, fresh=agency != first)
    return Given(town, records, written.size_bytes, time.monotonic() - begin)


def _ordered(
    network: LocalNetwork, chain: bytes, block: Block, certificate: CommitCert
) -> SafetyRecord:
    """Return the record of a key that knows that a block is ordered and certified."""
    place = block.epoch, block.round, block.id, block.height
    signed = message(SIGN_TAGS[SignKind.VOTE], chain, vote_body(*place))
    votes = tuple(snapshot_benchmark.quorum_signatures(network, signed))
    known = QuorumCert(*place, votes)
    return SafetyRecord(
        block.epoch, known, known, certificate, None, None, None, (), block.round, ()
    )


def _promise(town: Town, agency: str, record: SafetyRecord, *, fresh: bool) -> None:
    """Have a member's log begin with a record.

    ``fresh``: it has no mark yet; it gets one of a key that has signed what the record knows of.
    """
    folder = town.home(agency) / "data"
    log = Log.open(folder / LOG_FOLDER, lambda offset, kind, payload: None, chain=town.chain)
    try:
        if fresh:
            key = keyfiles.load(town.network.key_file(agency, "validator"), KeyKind.VALIDATOR)
            signer = Signer.open(
                key,
                folder / MARK_FILE,
                chain=town.chain,
                log_identity=log.identity,
                log_end=log.end,
                fresh=True,
            )
            known, certificate = record.high_qc, record.commit_cert
            place = known.epoch, known.round
            body = vote_body(*place, known.block_id, known.height)
            signer.sign(SignKind.VOTE, *place, body)
            if certificate is not None:
                signer.sign(SignKind.COMMIT_VOTE, *place, certificate.statement.encode())
            signer.settle(record.epoch, record.commit_floor)
            signer.write_mark(log.end)
            signer.close()
        log.append(*kinds.safety(wire.encode_record(record)))
        log.sync()
    finally:
        log.close()


# --- joining ------------------------------------------------------------------------------------


def joined(given: Given, rate: int = RATE) -> dict[str, Any]:
    """Start the network, let the new agency join under load, and return the figures."""
    town = given.town
    newcomer = town.add(JOINING, "joining")
    with town.network:
        for agency in AGENCIES:
            town.network.start(agency)
        begin = time.monotonic()
        while not all(town.network.ready(agency) for agency in AGENCIES):
            if time.monotonic() - begin > READY_SECONDS_MAX:
                raise town.network.not_ready(next(iter(AGENCIES)))
            time.sleep(LOOK_SECONDS)
        figures = trio.run(_joined, town, newcomer, rate)
    return {
        "records": given.records,
        "rate": rate,
        "aim_seconds": AIM_SECONDS,
        **figures,
        "made_seconds": round(given.made_seconds, 1),
    }


async def _joined(town: Town, newcomer: localmembers.Newcomer, rate: int) -> dict[str, Any]:
    network = town.network
    keys = [network.key("treasury", f"author-{n}") for n in range(AUTHORS)]
    seconds: dict[str, float] = {}
    async with Client.connect(
        network.genesis,
        servers=tuple(AGENCIES),
        key=keys[0],
        spread=True,
        patience_seconds=PATIENCE_SECONDS,
    ) as client:
        rules = await client.rules()
        making = Load(client.chain, keys, rules.book, rules.time_ms)
        load = SteadyLoad.prepared(making, AUTHORS, rate, SECONDS_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, [client])
            await trio.sleep(WARM_SECONDS)
            warm = trio.current_time() - WARM_SECONDS / 2, trio.current_time()
            begin = trio.current_time()
            network.start(JOINING)
            told: dict[str, Any] = {}
            with trio.fail_after(SECONDS_MAX - 2 * WARM_SECONDS):
                await _until(lambda: "joining by snapshot" in _log(network))
                seconds["offered"] = trio.current_time() - begin
                await _until(lambda: _said(network, told))
                seconds["snapshot_in_place"] = trio.current_time() - begin
                await _until(lambda: _caught_up(network))
                seconds["caught_up"] = trio.current_time() - begin
                await town.change(town.admission(newcomer), by=tuple(AGENCIES)[:3])
                seconds["admitted"] = trio.current_time() - begin
                await _until(lambda: _votes(network))
                seconds["first_vote"] = trio.current_time() - begin
            during = begin, trio.current_time()
            load.ending = True
    figures = {
        "snapshot_mib": told["mib"],
        "entries": told["entries"],
        "fetched_seconds": told["fetched_seconds"],
        "checked_and_stored_seconds": told["checked_seconds"],
        **{f"{name}_seconds": round(each, 1) for name, each in seconds.items()},
        "p99_ms_before": round(load.p99_ms(*warm), 1),
        "p99_ms_meanwhile": round(load.p99_ms(*during), 1),
        "longest_gap_ms_meanwhile": round(load.longest_gap_ms(*during), 1),
        "sent": load.sent,
        "unanswered": load.unanswered,
        "refused": load.refused,
    }
    if load.unanswered or load.refused:
        raise SystemExit(f"not everything was decided and applied: {figures}")
    return figures


async def _until(condition: Callable[[], object]) -> None:
    """Return once a look at the network, from a thread, shows what is waited for."""
    while True:
        if await trio.to_thread.run_sync(condition):
            return
        await trio.sleep(LOOK_SECONDS)


def _log(network: LocalNetwork) -> str:
    """Return what the new node has written; nothing before its process has begun."""
    try:
        return network.log(JOINING)
    except FileNotFoundError:
        return ""


def _said(network: LocalNetwork, told: dict[str, Any]) -> bool:
    """Whether the new node has said what it took; keep that."""
    for line in _log(network).splitlines():
        if "joined by snapshot" in line:
            told.update(json.loads(line))
    return bool(told)


def _status(network: LocalNetwork, agency: str) -> dict[str, Any]:
    body = network.http(agency, "/readyz").partition(b"\r\n\r\n")[2]
    return json.loads(body) if body else {}


def _caught_up(network: LocalNetwork) -> bool:
    others, own = _status(network, next(iter(AGENCIES))), _status(network, JOINING)
    if not others or not own or not own["ready"]:
        return False
    return int(own["certified"]) >= int(others["certified"]) - CLOSE_HEIGHTS


def _votes(network: LocalNetwork) -> bool:
    """Whether the new node has voted for a block that it was sent."""
    for line in network.http(JOINING, "/metrics").splitlines():
        if line.startswith(VOTES):
            return float(line.removeprefix(VOTES)) > 0
    return False
