"""Feeds of a real network into a real PostgreSQL: killed in the middle, sealed values, erasure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from comity import Call, Client
from comity.cli.app import run
from comity.drafting import Sealed
from comity.founding import Person
from comity.results import Decision
from consensus.genesis import OFFICIAL, SYSTEM, OpeningBalance
from scripts.localnet import ROOT, LocalNetwork, found
from tests.databases import Cluster, programs, rows
from tests.network.town import TUNING, eventually

pytestmark = pytest.mark.process

IBAN = "DE02 1203 0000 0000 2020 51"
SINCE = 24_312
PRIVACY = (("charter.privacy", ()),)
CLERK = (("feeds.clerk", ()),)
PEOPLE = (
    Person("clerk", "treasury", SYSTEM, CLERK),
    Person("reader", "treasury", OFFICIAL, PRIVACY),
    Person("second", "treasury", OFFICIAL, PRIVACY),
    Person("reporter", "treasury", SYSTEM),
)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network of cases and wallets."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    rules = [ROOT / "configs/rules/charter.toml", Path(__file__).with_name("feeds.toml")]
    accounts = [OpeningBalance("wallet", (number,), 1_000) for number in range(2)]
    folder = tmp_path_factory.mktemp("feeds") / "network"
    with found(folder, rules, PEOPLE, accounts, tuning=TUNING) as network:
        network.start_all()
        yield network


@pytest.fixture(scope="module")
def cluster(town: LocalNetwork) -> Iterator[Cluster]:
    """A running database server."""
    folder = programs()
    assert folder is not None
    own = Cluster(folder)
    yield own
    own.stop()


def as_(town: LocalNetwork, name: str) -> Any:
    """A client with somebody's key."""
    key = town.key("treasury", name)
    return Client.connect(town.genesis, servers=["treasury"], key=key, patience_seconds=20)


async def act(client: Client, action: str, **inputs: Any) -> Decision:
    call = Call("feeds", action, inputs)
    return await client.transact(call, reads=await client.read_for(call))


async def test_a_feed_that_is_killed_goes_on_and_what_is_sealed_never_arrives(
    town: LocalNetwork,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dsn = tmp_path / "reports.dsn"
    dsn.write_text(cluster.dsn(), encoding="utf-8")
    dsn.chmod(0o600)
    home = {
        "COMITY_GENESIS": str(town.folder / "genesis.cbor"),
        "COMITY_SERVERS": "treasury",
        "COMITY_KEY_FILE": str(town.key_file("treasury", "reporter")),
    }
    for name, value in home.items():
        monkeypatch.setenv(name, value)
    command = ["feed", "postgres", "--dsn-file", str(dsn)]
    feed = subprocess.Popen(  # noqa: ASYNC220 (the loop may stand still meanwhile)
        [sys.executable, "-m", "comity.cli", *command],
        env=os.environ | home,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )

    async def written(height: int) -> bool:
        query = "SELECT to_regclass('comity.heights') IS NOT NULL"
        if not rows(cluster.dsn(), query)[0][0]:
            return False
        return bool(rows(cluster.dsn(), "SELECT 1 FROM comity.feed WHERE height >= %s", height))

    try:
        async with as_(town, "clerk") as clerk, as_(town, "reader") as reader:
            opened = await act(
                clerk, "open", number=1, words="first", since=SINCE, iban=Sealed(IBAN)
            )
            assert opened.applied, opened.detail
            await eventually(lambda: written(opened.height), "the feed writes")
            pay = Call("feeds", "pay", {"source": 0, "target": 1, "amount": 1})
            for _ in range(5):
                await clerk.submit_group([await clerk.draft(pay) for _ in range(10)])
            feed.send_signal(signal.SIGKILL)
            feed.wait()
            second = town.key("treasury", "second")
            amended = await act(clerk, "amend", case=[1], words="slip")
            assert (await clerk.reverse(amended.txid, "a slip")).applied
            erased = await reader.erase(
                "treasury", "case", [1], ["iban"], "s 17", cosigners=[second]
            )
            assert erased.applied, erased.detail
            assert not (await act(clerk, "pay", source=0, target=1, amount=9_999)).applied
            again = await act(clerk, "amend", case=[1], words="later")
            fresh = await act(
                clerk, "open", number=2, words="w", since=SINCE, iban=Sealed("other " + IBAN)
            )
            assert fresh.applied, fresh.detail
    finally:
        feed.kill()
        feed.communicate()

    def commanded(*words: str) -> Any:
        capsys.readouterr()
        assert run([*words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    done = await trio.to_thread.run_sync(commanded, *command, "--once")
    assert done["height"] >= fresh.height
    proved = await trio.to_thread.run_sync(
        commanded, "feed", "check", "postgres", "--dsn-file", str(dsn)
    )
    assert proved["divergence"] is None
    assert proved["unchecked"] == 0
    where = cluster.dsn()
    assert rows(where, "SELECT words, iban, _version FROM comity.kind_case ORDER BY _height") == [
        ("first", "erased", 1),
        ("slip", "erased", 2),
        ("first", "erased", 3),
        ("later", "erased", 4),
        ("w", "sealed", 1),
    ]
    newest = rows(where, "SELECT _txid FROM comity.now_case WHERE _id = '1'")
    assert newest == [(again.txid,)]
    counts = rows(where, "SELECT state, count(*) FROM comity.decisions GROUP BY 1 ORDER BY 1")
    assert counts == [("applied", 1 + 50 + 2 + 1 + 1 + 1), ("refused", 1)]
    assert rows(where, "SELECT balance FROM comity.now_accounts ORDER BY _id") == [(950,), (1050,)]
    found_ = rows(where, "SELECT field, version, legal FROM comity.erasures")
    assert found_ == [("iban", 1, "s 17")]
    stored = [path for path in cluster.folder.rglob("*") if path.is_file()]
    assert stored
    assert not any(IBAN.encode() in path.read_bytes() for path in stored)
    dsn.chmod(0o644)
    assert await trio.to_thread.run_sync(run, [*command, "--once"]) == 2
    assert "chmod 600" in capsys.readouterr().err
