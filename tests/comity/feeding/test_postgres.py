"""A copy in a real PostgreSQL: whole, once, resumed at any moment, grown with rules, guarded."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trio

from comity.errors import AbsentError
from comity.feeding.catalogue import Catalogue
from comity.feeding.check_postgres import PostgresCopy
from comity.feeding.checking import Report, check
from comity.feeding.errors import CopyDamagedError, FeedSetupError, StoreDownError
from comity.feeding.following import Bounds, Follower
from comity.feeding.postgres import Postgres, Target, target
from consensus.ledger.rules import compile_rulebook, load_toml
from scripts.localnet import ROOT
from tests.comity.feeding.office import EVERY, TOKEN, act, copied, office, until, worked
from tests.comity.twin import ADMINISTRATOR, Twin, harness, make_genesis
from tests.databases import PASSWORD, Cluster, execute, rows
from tests.node.api.care import AUDITOR, CHIEF, WORKER, Acts, absent, founded
from tests.node.api.test_read_past import MOVES
from tests.node.api.test_recorded_methods import seen

WEEK_MS = 7 * 86_400_000


def sink(dsn: str, schema: str = "comity") -> Postgres:
    return Postgres(Target(dsn, schema))


async def proved(client: Any, dsn: str, schema: str = "comity") -> Report:
    copy = PostgresCopy(Target(dsn, schema))
    try:
        return await check(client, copy, 0, None)
    finally:
        copy.close()


async def test_a_copy_has_every_version_and_decision_once_and_goes_on(dsn: str) -> None:
    async with office() as (h, client):
        await worked(client)
        first = await copied(client, sink(dsn))
        assert first.height == h.twin.height
        assert (await copied(client, sink(dsn))).heights == 0
        await act(client, "amend", note=[1], text="later")
        assert (await copied(client, sink(dsn))).heights == 1
        notes = rows(
            dsn,
            "SELECT _id, _version, text, status, _until IS NULL, _txid IS NOT NULL "
            "FROM comity.kind_note ORDER BY _height, _index",
        )
        assert notes == [
            ("1", 1, "n1", "open", False, True),
            ("2", 1, "n2", "open", False, True),
            ("1", 2, "slip", "open", False, True),
            ("1", 3, "n1", "open", False, True),
            ("2", 2, "n2", "closed", True, True),
            ("1", 4, "later", "open", True, True),
        ]
        assert rows(dsn, "SELECT _id, text, status FROM comity.now_note ORDER BY 1") == [
            ("1", "later", "open"),
            ("2", "n2", "closed"),
        ]
        balances = "SELECT _id, balance, currency FROM comity.now_accounts ORDER BY 1"
        assert rows(dsn, balances) == [("a", 999_970, "USD"), ("b", 30, "USD")]
        codes = "SELECT code, count(*) FROM comity.decisions GROUP BY 1 ORDER BY 1"
        assert rows(dsn, codes) == [("APPLIED", 11), ("INSUFFICIENT", 1)]
        moved = "SELECT sum(delta), count(*) FROM comity.moves WHERE account = 'b'"
        assert rows(dsn, moved) == [(30, 3)]
        reversed_ = (
            "SELECT d.actions, o.actions, l.what FROM comity.links l "
            "JOIN comity.decisions d USING (txid) JOIN comity.decisions o ON o.txid = l.other"
        )
        assert rows(dsn, reversed_) == [(["charter.reverse"], ["notes.correct"], "reverses")]
        found = await proved(client, dsn)
        assert found.divergence is None
        assert (found.heights, found.decisions) == (h.twin.height + 1, 12)
        assert (found.versions, found.unchecked) == (6 + 2 + 4, 0)


async def test_values_of_every_type_arrive_as_they_are(dsn: str) -> None:
    async with office() as (_, client):
        await worked(client)
        await copied(client, sink(dsn))
        assert (await proved(client, dsn)).divergence is None
    (first, last) = rows(
        dsn,
        "SELECT _id, bool, int, text, bytes, money, month::text, date::text, time, ref, digest, "
        "token, ints, days::text, refs, street, town, xmin_ FROM comity.now_every ORDER BY int",
    )
    key = TOKEN.hex()
    assert first == (
        f"0x{key}/{-(2**63)}",
        True,
        -(2**63),
        "a␀b 'c' \\ \t\n€",
        b"\x00\xff",
        12_345,
        "2026-11-01",
        "2024-10-04",
        datetime(2026, 9, 21, 14, 13, 20, 123_000, tzinfo=UTC),
        "1",
        b"\x22" * 32,
        TOKEN,
        [1, -2],
        "{1970-01-01,1970-01-02}",
        ["1", "2"],
        "Main 1",
        "X",
        7,
    )
    assert last[:3] == (f"0x{key}/{2**63 - 1}", False, 2**63 - 1)
    assert last[3:6] == ("", b"", 12_345)
    assert last[7] == "0001-01-01 BC"
    assert last[9:] == (
        None, b"\x22" * 32, TOKEN, [], '{"0001-01-01 BC",9999-12-31}', [], "Main 1", None, None,
    )  # fmt: skip
    months = rows(dsn, "SELECT month::text FROM comity.now_every ORDER BY int")
    assert months == [("2026-11-01",), ("0001-02-01 BC",)]


@pytest.mark.long
async def test_wherever_it_is_cut_off_the_copy_goes_on_and_is_right(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = psycopg.Connection.execute
    left = 0

    def cutting(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            execute(dsn, f"SELECT pg_terminate_backend({self.info.backend_pid})")
        return plain(self, *arguments, **options)

    monkeypatch.setattr("comity.feeding.following.PAUSE_SECONDS", 0.01)
    async with office() as (h, client):
        await worked(client)
        retries = 0
        for moment in (16, 18, 20, 22, 24):
            schema = f"cut{moment}"
            await copied(client, sink(dsn, schema), last=2)
            with monkeypatch.context() as patch:
                patch.setattr(psycopg.Connection, "execute", cutting)
                left = moment
                found = await copied(client, sink(dsn, schema))
                left = 0
            retries += found.retries
            assert found.height == h.twin.height
            assert (await proved(client, dsn, schema)).divergence is None
        assert retries >= 4


@pytest.mark.long
async def test_a_server_that_goes_away_is_waited_for(cluster: Cluster, dsn: str) -> None:
    async with office() as (h, client):
        await worked(client)
        said: list[str] = []
        follower = Follower(client, sink(dsn), Bounds(), said.append)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follower.run)
            await until(lambda: follower.progress.height >= h.twin.height)
            await trio.to_thread.run_sync(cluster.halt)
            await act(client, "amend", note=[1], text="meanwhile")
            await until(lambda: bool(said))
            await trio.to_thread.run_sync(cluster.start)
            await until(lambda: follower.progress.height >= h.twin.height)
            nursery.cancel_scope.cancel()
        assert "trying again" in said[0]
        assert (await proved(client, dsn)).divergence is None


async def test_rows_that_may_not_be_read_do_not_arrive_and_what_is_lost_is_said(dsn: str) -> None:
    twin = Twin(founded(MOVES))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [b"p" * 32], "north", expects=absent("case", [1]))
    acts.do(WORKER, "open", 2, [b"p" * 32], "north", expects=absent("case", [2]))
    acts.do(WORKER, "visit", 5, 40, expects=absent("visit", [5]))
    async with harness(twin) as h:
        cases = "SELECT _id, _version, region, _state FROM {}.kind_case ORDER BY _height, _id"
        for key, schema in ((WORKER, "worker"), (CHIEF, "chief"), (AUDITOR, "auditor")):
            async with h.client(key) as client:
                await copied(client, sink(dsn, schema))
        acts.do(WORKER, "move", [1], "south", expects=seen(1))
        for key, schema, expected in (
            (WORKER, "worker", [("1", 1, "north", "readable"), ("2", 1, "north", "readable")]),
            (CHIEF, "chief", []),
            (AUDITOR, "auditor", [("1", 1, "north", "readable"), ("2", 1, "north", "readable")]),
        ):
            async with h.client(key) as client:
                await copied(client, sink(dsn, schema))
                moved = ("1", 2, "south", "readable")
                lost = ("1", None, None, "not readable")
                after = [*expected, lost if key is WORKER else moved]
                assert rows(dsn, cases.format(schema)) == after
                assert (await proved(client, dsn, schema)).divergence is None
        visits = [rows(dsn, f"SELECT day FROM {each}.kind_visit") for each in ("worker", "chief")]
        assert visits == [[], [(40,)]]
        hidden = "SELECT count(*) FROM worker.kind_case c WHERE c::text LIKE '%south%'"
        assert rows(dsn, hidden) == [(0,)]


async def test_a_rule_set_that_brings_a_field_and_a_kind_adds_a_column_and_a_table(
    dsn: str,
) -> None:
    second = EVERY.replace("number = 1", "number = 2").replace(
        'fields.amount = { type = "int" }',
        'fields.amount = { type = "int" }\n'
        'fields.colour = { type = "text", open = true, optional = true, since = 2 }',
    )
    second += '\n[kinds.extra]\nfields.size = { type = "int" }\n[actions.extra]\n'
    second += 'actor = { role = "notes.writer" }\ninputs = { size = "int" }\n'
    second += (
        'create = [ { kind = "extra", id = ["{input.size}"], set = { size = "input.size" } } ]'
    )
    second += '\n[actions.paint]\nactor = { role = "notes.writer" }\n'
    second += 'inputs = { note = "ref:note", colour = "text" }\n'
    second += 'load = [ ["note", "note/{input.note}"] ]\n'
    second += 'set = [ { record = "note", fields = { colour = "input.colour" } } ]\n'
    async with office() as (h, client), h.client(ADMINISTRATOR) as boss:
        await act(client, "write", number=1, text="n", amount=5)
        await copied(client, sink(dsn))
        execute(dsn, "CREATE INDEX of_mine ON comity.kind_note (text)")
        assert (await boss.propose_rules(second)).applied
        from_ms = await boss.now_ms() + WEEK_MS + 60_000
        assert (await boss.activate_rules("notes", 2, from_ms)).applied
        h.twin.now_ms = from_ms
        h.twin.make_block()
        await client.statements(-1)
        await client.rules(refresh=True)
        assert (await act(client, "write", number=2, text="m", amount=6)).applied
        assert (await act(client, "paint", note=[1], colour="red")).applied
        assert (await act(client, "extra", size=3)).applied
        await copied(client, sink(dsn))
        notes = "SELECT _id, _definition, colour FROM comity.now_note ORDER BY 1"
        assert rows(dsn, notes) == [("1", 2, "red"), ("2", 2, None)]
        assert rows(dsn, "SELECT size FROM comity.now_extra") == [(3,)]
        assert (await proved(client, dsn)).divergence is None
        await copied(client, sink(dsn, "again"))
        assert (await proved(client, dsn, "again")).divergence is None


async def test_a_copy_that_begins_later_has_what_there_was(dsn: str) -> None:
    async with office() as (h, client):
        await worked(client)
        await copied(client, sink(dsn), first=4)
        assert (await proved(client, dsn)).divergence is None
        found = rows(dsn, "SELECT _id, text, _height < 4 FROM comity.kind_note ORDER BY _height, 1")
        assert found[:2] == [("1", "n1", True), ("2", "n2", True)]
        assert len(found) == 5
        with pytest.raises(AbsentError, match="not certified yet"):
            await copied(client, sink(dsn, "late"), first=h.twin.height + 5)


# --- a copy that somebody else has changed ------------------------------------------------------

CHANGES_BY_HAND = [
    ("UPDATE comity.kind_note SET text = 'x' WHERE _id = '1' AND _version = 1", "kind_note.*text"),
    ("UPDATE comity.kind_note SET _version = 9 WHERE _id = '1' AND _version = 1", "_version"),
    ("UPDATE comity.kind_note SET _until = NULL WHERE _id = '1' AND _version = 1", None),
    ("UPDATE comity.kind_note SET _until = 2 WHERE _id = '1' AND _version = 1", "_until"),
    ("DELETE FROM comity.kind_note WHERE _id = '1' AND _version = 1", "missing"),
    ("DELETE FROM comity.kind_every", "missing"),
    ("UPDATE comity.kind_every SET days = '{2000-01-01}'", "days"),
    ("UPDATE comity.kind_every SET ref = '9'", "ref"),
    ("UPDATE comity.accounts SET balance = balance + 1 WHERE _id = 'b'", "accounts.*balance"),
    ("UPDATE comity.decisions SET code = 'APPLIED'", "decisions.*code"),
    ("UPDATE comity.decisions SET agency = 'west' WHERE height = 2", "agency"),
    ("UPDATE comity.decisions SET actions = '{notes.pay}' WHERE height = 2", "actions"),
    ("DELETE FROM comity.decisions WHERE code <> 'APPLIED'", "decisions"),
    ("UPDATE comity.moves SET delta = 11 WHERE delta = 10", "moves.*delta"),
    ("DELETE FROM comity.writes WHERE height = 2", "writes"),
    ("UPDATE comity.links SET other = txid", "links"),
    ("UPDATE comity.changes SET vh = kh WHERE height = 2", "changes root"),
    ("DELETE FROM comity.changes WHERE height = 2 AND NOT shown", "changes root|changes is"),
    ("UPDATE comity.changes SET shown = false WHERE place = '1' OR place LIKE 'note/1'", "shown"),
    ("UPDATE comity.heights SET statement_hash = sha256(statement) WHERE height = 3", "heights.*3"),
    ("UPDATE comity.heights SET time = time + interval '1 s' WHERE height = 3", "time"),
    ("DELETE FROM comity.heights WHERE height = 3", "height 3 is missing"),
    (
        "UPDATE comity.heights h SET certificate = o.certificate FROM comity.heights o "
        "WHERE h.height = 3 AND o.height = 4",
        "height 3",
    ),
    (
        "INSERT INTO comity.kind_note SELECT '\\x01', 'z', 2, NULL, _time, _txid, _index, 1, "
        "_state, _definition, _created_by, _created_agency, _by, _basis, _held, _versions, "
        "status, text, amount, owner FROM comity.kind_note LIMIT 1",
        "no such change",
    ),
]


@pytest.mark.long
async def test_every_change_by_hand_is_found_and_named(dsn: str) -> None:
    async with office() as (_, client):
        await worked(client)
        await copied(client, sink(dsn))
        execute(dsn, "CREATE SCHEMA kept")
        for (name,) in rows(dsn, TABLES):
            execute(dsn, f"CREATE TABLE kept.{name} AS TABLE comity.{name}")
        for command, expected in CHANGES_BY_HAND:
            if expected is None:
                with pytest.raises(psycopg.errors.UniqueViolation):
                    execute(dsn, command)
                continue
            execute(dsn, command)
            found = await proved(client, dsn)
            assert found.divergence is not None, command
            assert re.search(expected, found.divergence), (command, found.divergence)
            name = command.partition("comity.")[2].split()[0]
            restored = f"INSERT INTO comity.{name} SELECT * FROM kept.{name}"
            execute(dsn, f"TRUNCATE comity.{name}; {restored}")
        assert (await proved(client, dsn)).divergence is None


TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'comity'"
REFUSED: list[tuple[str, type[Exception], str]] = [
    ("ALTER TABLE comity.kind_note DROP COLUMN text CASCADE", CopyDamagedError, "text .* is gone"),
    ("ALTER TABLE comity.kind_note ADD COLUMN mine int", CopyDamagedError, "column mine"),
    ("ALTER TABLE comity.moves ALTER COLUMN delta TYPE numeric", CopyDamagedError, "delta"),
    ("DROP TABLE comity.kind_note CASCADE", CopyDamagedError, "kind_note is gone"),
    ("DROP TABLE comity.links", CopyDamagedError, "links is gone"),
    ("DELETE FROM comity.feed", CopyDamagedError, "feed is empty"),
    ("UPDATE comity.feed SET height = 2", CopyDamagedError, "disagree"),
    ("UPDATE comity.feed SET format = 9", FeedSetupError, "format 9"),
    ("UPDATE comity.feed SET chain = '\\x00'", CopyDamagedError, "another network"),
    ("DELETE FROM comity.heights WHERE height = 3", CopyDamagedError, "disagree"),
]


@pytest.mark.parametrize(("command", "kind", "words"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_a_copy_changed_by_hand_is_not_written_on(
    dsn: str, command: str, kind: type[Exception], words: str
) -> None:
    async with office(Twin(make_genesis())) as (_, client):
        for number in (1, 2):
            await act(client, "write", number=number, text="n", amount=5)
        await copied(client, sink(dsn))
        execute(dsn, command)
        await act(client, "write", number=4, text="n", amount=5)
        with pytest.raises(kind, match=words):
            await copied(client, sink(dsn))


async def test_two_feeds_do_not_write_one_schema(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.feeding.postgres.LOCK_SECONDS_MAX", 0.1)
    first = sink(dsn)
    first.open(bytes(32))
    with pytest.raises(FeedSetupError, match="another feed"):
        sink(dsn).open(bytes(32))
    first.close()
    other = sink(dsn)
    assert other.open(bytes(32)) is None
    other.close()


async def test_a_role_without_rights_is_told_so(dsn: str) -> None:
    execute(dsn, f"CREATE ROLE poor LOGIN PASSWORD '{PASSWORD}'")
    poor = dsn.replace("user=owner", "user=poor")
    async with office() as (_, client):
        with pytest.raises(FeedSetupError, match="permission denied"):
            await copied(client, sink(poor))


BAD_TARGETS: list[tuple[Callable[[str], str], type[Exception], str]] = [
    (lambda dsn: dsn.replace(PASSWORD, "wrong"), FeedSetupError, "authentication failed"),
    (lambda dsn: dsn.replace("dbname=", "dbname=no"), FeedSetupError, "does not exist"),
    (lambda dsn: dsn.replace("user=owner", "user=nobody"), FeedSetupError, "authentication"),
    (lambda dsn: "host=/nowhere dbname=x", StoreDownError, "cannot be reached"),
    (lambda dsn: "service=nowhere", FeedSetupError, "service"),
]


@pytest.mark.parametrize(("turn", "kind", "words"), BAD_TARGETS, ids=range(len(BAD_TARGETS)))
def test_a_database_that_cannot_be_used_is_named_in_words(
    dsn: str, turn: Callable[[str], str], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        sink(turn(dsn)).open(bytes(32))
    assert PASSWORD not in str(caught.value)


def test_the_connection_string_comes_from_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    file = tmp_path / "reports.dsn"
    with pytest.raises(FeedSetupError, match="cannot read"):
        target(file, "", "comity")
    file.write_text("host=x dbname=y\n", encoding="utf-8")
    file.chmod(0o640)
    with pytest.raises(FeedSetupError, match="others than its owner"):
        target(file, "", "comity")
    file.chmod(0o600)
    assert target(file, "", "comity") == Target("host=x dbname=y", "comity")
    assert target(None, "reports", "s") == Target("service=reports", "s")
    for both in ((file, "reports"), (None, "")):
        with pytest.raises(FeedSetupError, match="in one way"):
            target(*both, "comity")
    for schema in ("", "pg_mine", "x" * 64):
        with pytest.raises(FeedSetupError, match="schema"):
            target(file, "", schema)
    file.write_text("this is = no string = at all", encoding="utf-8")
    with pytest.raises(FeedSetupError, match="no connection string"):
        target(file, "", "comity")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(FeedSetupError, match="no text"):
        target(file, "", "comity")


def test_questions_in_the_manual_are_understood_by_the_database(dsn: str) -> None:
    catalogue = Catalogue()
    files = sorted((ROOT / "configs/rules").glob("*.toml"))
    book = compile_rulebook([load_toml(file.read_text(encoding="utf-8")) for file in files])
    catalogue.kinds.update(book.kinds)
    feed = sink(dsn)
    assert feed.open(bytes(32)) is None
    feed.begin(catalogue, 0, ())
    feed.close()
    page = (ROOT / "docs/reporting.md").read_text(encoding="utf-8")
    asked = re.findall(r"^SELECT.*?;$", page, re.MULTILINE | re.DOTALL)
    asked += re.findall(r"`(SELECT [^`]*)`", page)
    assert len(asked) >= 5
    for question in asked:
        assert isinstance(rows(dsn, question), list)
