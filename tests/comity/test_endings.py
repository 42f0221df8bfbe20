"""What ends by itself is told in time: by ``comity status``, after other commands, and by a check.

Leaves are written by hand; days and words are counted here.
"""

from __future__ import annotations

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from comity import Client, keys
from comity.cli.options import WARN_VARIABLE
from comity.endings import NO_END_MS, certificates, endings, soon
from comity.errors import NotReachableError
from consensus import keyfile
from consensus.keyfile import KeyKind
from consensus.ledger import layout
from consensus.ledger.layout import ACTIVE, COMPROMISED, REVOKED
from node.network.tls import make_certificate
from tests.comity.shell import Shell, shell
from tests.comity.test_authority import Listing, granted, written
from tests.comity.twin import NODES, OFFICIAL, Twin, harness, make_genesis
from tests.node.api.care import CLERK, IDS, WORKER, founded

__all__ = ["shell"]

HOUR, DAY = 3_600_000, 86_400_000
OFFICIAL_ID = bytes([101]) * 32
ROLE = "notes.writer"


def role(twin: Twin, until_ms: int | None, due_ms: int | None = None, status: int = ACTIVE) -> None:
    leaf = layout.Role(OFFICIAL_ID, ROLE, [], 0, until_ms, due_ms, status)
    written(twin, "role", [OFFICIAL_ID, ROLE], leaf)


def replaced(twin: Twin, until_ms: int, status: int = ACTIVE) -> None:
    leaf = layout.Key(OFFICIAL.public, OFFICIAL_ID, status, 0, until_ms, b"n" * 32)
    written(twin, "key", [OFFICIAL.public], leaf)


YEARS_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def made(seed: bytes, until: datetime.datetime, begin: datetime.datetime = YEARS_AGO) -> bytes:
    """A certificate of a node key with an end, as another tool makes it."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    return (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(begin).not_valid_after(until).sign(key, None)
        .public_bytes(serialization.Encoding.DER)
    )  # fmt: skip


# --- what ends ------------------------------------------------------------------------------------


async def test_a_role_ends_at_its_end_or_unreviewed_whichever_comes_first() -> None:
    twin = Twin()
    async with harness(twin) as net, net.client(OFFICIAL) as client:
        assert endings(await client.authority(listed=False)) == ()
        for until_ms, due_ms, first, why in (
            (twin.now_ms + 5 * DAY, None, 5 * DAY, "given until then"),
            (twin.now_ms + 5 * DAY, twin.now_ms + DAY, DAY, "not reviewed"),
            (None, twin.now_ms + DAY, DAY, "not reviewed"),
        ):
            base = twin.now_ms
            role(twin, until_ms, due_ms)
            (found,) = endings(await client.authority(listed=False))
            assert (found.what, found.name, found.until_ms) == ("role", ROLE, base + first)
            assert why in found.why
            twin.now_ms = base
        role(twin, twin.now_ms + DAY, status=REVOKED)
        assert endings(await client.authority(listed=False)) == (), "what was taken has no end"


async def test_a_key_that_was_replaced_ends_and_one_that_was_taken_does_not() -> None:
    twin = Twin()
    async with harness(twin) as net, net.client(OFFICIAL) as client:
        until_ms = twin.now_ms + 3 * DAY
        replaced(twin, until_ms)
        (found,) = endings(await client.authority(listed=False))
        assert (found.what, found.name) == ("key", f"0x{OFFICIAL.public.hex()}")
        assert found.until_ms == until_ms
        words = found.words(until_ms - 2 * DAY - HOUR)
        assert words.startswith(f"key 0x{OFFICIAL.public.hex()} ends in 2 days, at 20")
        assert "has ended 5 hours ago" in found.words(until_ms + 5 * HOUR)
        assert "in 90 minutes" in found.words(until_ms - 90 * 60_000)
        assert "in 1 minutes" in found.words(until_ms - 1)


@pytest.mark.parametrize(
    ("changes", "left", "why"),
    [
        ({"until_ms": 9 * DAY}, 9 * DAY, "it was given until then"),
        ({"role": {"until_ms": 2 * DAY}, "until_ms": 9 * DAY}, 2 * DAY, "the role that it rests"),
        ({"suspends_at_ms": 4 * DAY}, 4 * DAY, "not reviewed"),
        ({"role": {"status": REVOKED}, "until_ms": 9 * DAY}, None, ""),
        pytest.param({"status": REVOKED, "until_ms": 9 * DAY}, None, "", marks=pytest.mark.long),
        pytest.param({}, None, "", marks=pytest.mark.long),
    ],
)
async def test_a_grant_ends_with_the_first_link_of_its_chain(
    changes: dict[str, Any], left: int | None, why: str
) -> None:
    twin = Listing(founded())
    now_ms = twin.now_ms

    def moved(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: each + now_ms if name.endswith("_ms") else each for name, each in values.items()
        }

    both = moved(changes)
    both["role"] = moved(both.pop("role", {}))
    granted(twin, [b"1" * 32, b"2" * 32], [IDS[CLERK]], **both)
    twin.listed = {"grant": [b"1" * 32, b"2" * 32], "key": [CLERK.public, WORKER.public]}
    async with harness(twin) as net, net.client(CLERK) as client:
        found = [each for each in endings(await client.authority()) if each.what == "grant"]
        if left is None:
            assert found == []
        else:
            (ending,) = found
            assert (ending.name, ending.until_ms) == ("0x" + "32" * 32, now_ms + left)
            assert why in ending.why
        assert endings(await client.authority(listed=False)) == (), "grants are not looked for"


def test_certificates_without_an_end_are_none_and_others_say_theirs() -> None:
    seeds = [bytes([11 + each]) * 32 for each in range(4)]
    until = datetime.datetime(2031, 5, 1, 12, tzinfo=datetime.UTC)
    shown = [made(seeds[0], until), make_certificate(seeds[1], "east"), b"no certificate", b"x"]
    (found,) = certificates(make_genesis(shown).committee)
    assert (found.what, found.name) == ("certificate", "north")
    assert found.until_ms == int(until.timestamp()) * 1000 < NO_END_MS


def test_soon_is_so_many_days_before_and_after() -> None:
    seeds = [bytes([11 + each]) * 32 for each in range(4)]
    until = datetime.datetime(2031, 5, 1, 12, tzinfo=datetime.UTC)
    ends = certificates(make_genesis([made(seeds[0], until), b"x", b"x", b"x"]).committee)
    end_ms = ends[0].until_ms
    assert soon(ends, end_ms - 30 * DAY, 30) == ends
    assert soon(ends, end_ms - 30 * DAY - 1, 30) == ()
    assert soon(ends, end_ms + 30 * DAY, 30) == ends
    assert soon(ends, end_ms + 30 * DAY + 1, 30) == ()
    assert soon(ends, end_ms, 0) == (), "0 days: never"


# --- the commands ---------------------------------------------------------------------------------


def test_status_warns_on_standard_error_and_leaves_its_output_alone(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell("status", "--json").err == ""
    role(shell.twin, shell.twin.now_ms + 12 * DAY)
    said = shell("status", "--json")
    assert (said.status, said.json["agency"]) == (0, "north")
    assert f"warning: your role {ROLE} ends in 11 days" in said.err
    assert "have the role given again" in said.err
    monkeypatch.setenv(WARN_VARIABLE, "7")
    assert shell("status").err == ""
    monkeypatch.setenv(WARN_VARIABLE, "0")
    role(shell.twin, shell.twin.now_ms + DAY)
    assert shell("status").err == ""
    monkeypatch.setenv(WARN_VARIABLE, "soon")
    said = shell("status")
    assert said.status == 2
    assert "COMITY_WARN_DAYS is 'soon'" in said.err


def test_other_commands_warn_after_their_work_where_a_person_looks(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(shell.twin, shell.twin.now_ms + 3 * DAY)
    assert shell.note(1).err == "", "no person looks"
    monkeypatch.setattr(sys.stderr.__class__, "isatty", lambda self: True, raising=False)
    monkeypatch.setattr(os, "isatty", lambda handle: False)
    said = shell.note(2)
    assert said.json["state"] == "applied"
    assert "ends in 2 days" in said.err
    assert "go over to the key that has replaced it" in said.err


def test_an_anonymous_client_and_an_unknown_key_are_warned_of_nothing(shell: Shell) -> None:
    role(shell.twin, shell.twin.now_ms + DAY)
    for name in ("stranger.key", "citizen.key"):
        said = shell("status", "--key", name)
        assert (said.status, said.err) == (0, "")


async def test_what_cannot_be_asked_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from comity.cli.options import WARN_SECONDS_MAX, warn_of_ends

    async def nobody(self: object, **given: object) -> None:
        raise NotReachableError("no node")

    async with harness(Twin()) as net, net.client(OFFICIAL) as client:
        monkeypatch.setattr(Client, "authority", nobody)
        await warn_of_ends(client, 30)
    assert capsys.readouterr().err == ""
    assert WARN_SECONDS_MAX <= 5


def test_a_check_with_the_network_lists_what_ends_and_its_status_says_soon(shell: Shell) -> None:
    said = shell("keys", "check", "official.key", "--network", "--json")
    assert (said.status, said.json["ends"], said.json["agency"]) == (0, [], "north")
    end_ms = shell.twin.now_ms + 40 * DAY
    role(shell.twin, end_ms)
    said = shell("keys", "check", "official.key", "--network", "--json")
    assert said.status == 0
    (found,) = said.json["ends"]
    assert found == {
        "what": "role", "name": ROLE, "until_ms": end_ms, "why": "it was given until then"
    }  # fmt: skip
    said = shell("keys", "check", "official.key", "--network", "--warn-days", "60")
    assert said.status == 1
    assert "ends in 39 days" in said.out + said.err
    assert "warning: role" in said.err
    assert shell("keys", "check", "official.key", "--network", "--warn-days", "0").status == 0


def test_a_check_of_a_key_that_is_over_or_unknown_says_so(shell: Shell) -> None:
    replaced(shell.twin, shell.twin.now_ms - DAY, COMPROMISED)
    for name in ("official.key", "stranger.key"):
        public = keys.open_pair(Path(name)).public.hex()
        said = shell("keys", "check", name, "--network")
        assert said.status == 1
        assert all(each in said.out for each in ("client", public, "in force for nobody"))
        assert "warning: this key is in force for nobody in this network; ask your" in said.err
        assert f"`comity get key/0x{public}`" in said.err
        said = shell("keys", "check", name, "--network", "--json")
        assert (said.status, said.err, said.json) == (1, "", {
            "file": name, "kind": "client", "public": f"0x{public}", "sealed": False,
            "opens": True, "principal": None, "agency": None,
            "fault": "in force for nobody in this network", "ends": [],
        })  # fmt: skip
    said = shell("keys", "check", "official.key", "--network", "--key", "citizen.key")
    assert said.status == 2
    assert "--key names another key" in said.err
    for days in ("-1", "99999"):
        assert shell("keys", "check", "official.key", f"--warn-days={days}").status == 2


def test_a_check_of_a_nodes_key_says_when_its_certificate_ends(shell: Shell) -> None:
    path = Path("node.key")
    keys.create(path, keyfile.from_seed(KeyKind.NODE, bytes([11]) * 32))
    assert NODES[0].public == keys.open_pair(path).public
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC).replace(microsecond=0)
    for days, status in ((10, 1), (200, 0)):
        until = now + datetime.timedelta(days=days, minutes=5)
        other = [b"x"] * 3
        found = make_genesis([made(bytes([11]) * 32, until), *other])
        Path("other.cbor").write_bytes(found.encode())
        said = shell("keys", "check", "node.key", "--genesis", "other.cbor", "--json")
        assert said.status == status
        assert said.json["named_for"] == ["north"]
        assert [each["until_ms"] for each in said.json["ends"]] == [int(until.timestamp()) * 1000]
    said = shell("keys", "check", "node.key", "--network", "--json")
    assert (said.status, said.json["named_for"], said.json["ends"]) == (0, ["north"], [])
