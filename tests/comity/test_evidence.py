"""Bundles and receipts through the client and the command line, against a node that may lie."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio
from blake3 import blake3

from comity import Call, Client, RequestError, receipts
from comity.cli.app import run
from comity.cli.evidence import qr_code, receipt_text
from consensus import codec, genesis
from consensus.errors import DecodeError
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from tests.comity import twin as stage
from tests.comity.shell import Shell, shell
from tests.comity.test_wrong_input import full_disk
from tests.comity.twin import CITIZEN, RULES, Harness, Twin, harness

__all__ = ["shell"]

CHAIN = genesis.chain_id(stage.make_genesis().encode())


@pytest.fixture
async def network() -> Any:
    async with harness(Twin(certify_every=2)) as made:
        yield made


async def write(client: Client, number: int, text: str = "a note") -> bytes:
    call = Call("notes", "write", {"number": number, "text": text, "amount": 7, "owner": None})
    done = await client.transact(call, reads=await client.read_for(call), reason="a slip")
    assert done.applied, done.detail
    return done.txid


async def amend(client: Client, number: int, text: str) -> bytes:
    call = Call("notes", "amend", {"note": [number], "text": text})
    done = await client.transact(call, reads=await client.read_for(call))
    assert done.applied, done.detail
    return done.txid


async def test_a_bundle_from_a_node_is_judged_again(network: Harness) -> None:
    async with network.client() as client:
        txid = await write(client, 1)
        data = await client.bundle(txid, purpose="audit", audience="court", expires_ms=99)
    found = verify(data, CHAIN)
    assert (found.judged, found.header.txid) == (True, txid)
    bundle = found.bundle
    assert (bundle.purpose, bundle.audience, bundle.expires_ms) == ("audit", "court", 99)
    assert found.holder == stage.OFFICIAL.public
    assert b"a slip" not in data


async def test_what_cannot_be_opened_is_said_and_nothing_is_left_out_silently(
    network: Harness,
) -> None:
    async with network.client() as client:
        await write(client, 1)
        txid = await amend(client, 1, "another")
        with pytest.raises(RequestError, match=r"has note\.nothing") as caught:
            await client.bundle(txid, opened=("note.nothing",))
        assert "note.amount" in caught.value.hint
        assert verify(await client.bundle(txid, opened=("note.amount",)), CHAIN).judged


async def test_a_citizen_has_no_bundle_of_others(network: Harness) -> None:
    async with network.client() as client:
        txid = await write(client, 1)
    async with network.client(key=CITIZEN) as citizen:
        with pytest.raises(RequestError) as caught:
            await citizen.bundle(txid)
        assert caught.value.reason == "NOT_FOUND"
        with pytest.raises(RequestError) as caught:
            await citizen.receipt(txid)
        assert caught.value.reason == "NOT_FOUND"


async def test_a_receipt_proves_the_decision_and_what_it_wrote(network: Harness) -> None:
    async with network.client() as client:
        txid = await write(client, 1)
        data = await client.receipt(txid)
    found = receipts.verify(data, CHAIN)
    assert (found.decision.txid, found.decision.state) == (txid, "applied")
    (record,) = found.records
    assert record.key.components == ("note", 1)
    assert record.fields["text"] == "a note"
    derived = blake3(data, derive_key_context="comity 2026-11-21 receipt v1").digest()
    assert found.digest == receipts.digest(data) == derived
    assert len(data) < 8000


async def test_a_record_that_has_changed_is_left_out(network: Harness) -> None:
    async with network.client() as client:
        txid = await write(client, 1)
        await amend(client, 1, "another")
        data = await client.receipt(txid)
        later = await client.receipt(await amend(client, 1, "a third"))
    assert receipts.verify(data, CHAIN).records == ()
    assert receipts.verify(later, CHAIN).records[0].fields["text"] == "a third"


async def test_no_byte_of_a_receipt_can_be_changed(network: Harness) -> None:
    async with network.client() as client:
        data = await client.receipt(await write(client, 1))
    for at in range(len(data)):
        forged = bytearray(data)
        forged[at] ^= 1 << at % 8
        with pytest.raises((DecodeError, FailedError)):
            receipts.verify(bytes(forged), CHAIN)
    for part in (data[:-1], data + b"\0", b"", b"\x80"):
        with pytest.raises(DecodeError):
            receipts.verify(part, CHAIN)


async def test_parts_of_two_receipts_do_not_make_a_third(network: Harness) -> None:
    async with network.client() as client:
        one = cbor2.loads(await client.receipt(await write(client, 1)))
        other = cbor2.loads(await client.receipt(await write(client, 2)))
    spliced = 0
    for at in range(2, len(one)):
        if one[at] == other[at]:
            continue
        spliced += 1
        with pytest.raises(FailedError):
            receipts.verify(codec.encode([*one[:at], other[at], *one[at + 1 :]]), CHAIN)
    assert spliced >= 4


async def test_a_receipt_of_another_network_is_refused(network: Harness) -> None:
    async with network.client() as client:
        data = await client.receipt(await write(client, 1))
    with pytest.raises(FailedError, match="another network") as caught:
        receipts.verify(data, bytes(32))
    assert caught.value.stage == "network"


async def test_the_printed_form_names_the_digest_in_words_and_as_a_code(network: Harness) -> None:
    async with network.client() as client:
        data = await client.receipt(await write(client, 1))
    found = receipts.verify(data, CHAIN)
    text = receipt_text(found, CHAIN)
    assert found.digest.hex() in text
    assert found.decision.txid.hex() in text
    assert qr_code(found.digest) in text
    assert "a note" in text


async def test_huge_counts_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    for head in (b"\x89" + codec.encode("comity receipt") + b"\x01\x9b" + b"\xff" * 8, b"\x9a" * 9):
        with pytest.raises(DecodeError):
            receipts.verify(head, CHAIN)


async def test_the_verifier_imports_no_node_and_opens_no_socket_and_no_other_file(
    network: Harness, tmp_path: Path
) -> None:
    file = tmp_path / "note.bundle"
    async with network.client() as client:
        txid = await write(client, 1)
        await trio.Path(file).write_bytes(await client.bundle(txid))
    words = ["verify", str(file), "--genesis", CHAIN.hex(), "--json"]
    program = f"""
import os, sys
seen = []
def hook(event, args):
    if event.split(".")[0] in ("socket", "subprocess") or event in ("os.fork", "os.posix_spawn"):
        seen.append(event)
    elif event == "open" and not str(args[0]).endswith((".py", ".pyc", ".so")):
        seen.append(os.fsdecode(args[0]))
from comity.cli.app import run
sys.addaudithook(hook)
status = run({words!r})
found = [name for name in sys.modules if name == "node" or name.startswith("node.")]
print(status, found, seen == [{str(file)!r}], seen)
"""
    done = await trio.run_process(
        [sys.executable, "-c", program], capture_stdout=True, capture_stderr=True, check=False
    )
    *said, last = done.stdout.decode().splitlines()
    assert last.startswith("0 [] True"), (said, last, done.stderr.decode())
    found = json.loads("".join(said))
    assert (found["valid"], found["txid"]) == (True, f"0x{txid.hex()}")  # as everywhere


INSISTING = (
    (("--as", "court"), 0, "VALID"),
    (("--as", "court", "--strict"), 0, "VALID"),
    (("--as", "press"), 0, "it is meant for court, not for press"),
    (("--as", "press", "--strict"), 1, "it is meant for court, not for press"),
    (("--strict",), 1, "say it with --as"),
    (("--genesis", "00" * 32), 1, "it is of the network"),
    (("--genesis", "zz"), 2, "neither a hash"),
    (("--not-older-than", "2099-01-01"), 1, "older than you allow"),
    (("--trust", f"99:{'00' * 32}"), 1, "older than height 99 that you know"),
    (("--trust", "99"), 2, "is not HEIGHT:HASH"),
    (("--digest", "00"), 2, "is of a receipt"),
)
ENDED = (
    ((), 0, "its use ended 1970-01-01"),
    (("--as", "court", "--strict"), 1, "its use ended 1970-01-01"),
)


async def test_readers_say_what_they_insist_on(
    network: Harness, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with network.client() as client:
        txid = await write(client, 1)
        for until_ms, cases in ((None, INSISTING), (99, ENDED)):
            file = tmp_path / f"{until_ms}.bundle"
            data = await client.bundle(txid, audience="court", expires_ms=until_ms)
            await trio.Path(file).write_bytes(data)
            for words, status, says in cases:
                usual = () if "--genesis" in words else ("--genesis", CHAIN.hex())
                assert run(["verify", str(file), *usual, *words]) == status, words
                said = capsys.readouterr()
                assert says in " ".join((said.out + said.err).split()), words


def test_a_file_that_cannot_be_written_is_named_and_not_begun(shell: Shell) -> None:
    txid = shell.note(1).json["txid"]
    for words in (("bundle", txid), ("receipt", txid), ("statement", "0", "--tlog")):
        with full_disk():
            said = shell(*words, "-o", "file", "--json")
        assert (said.status, said.json["code"]) == (2, "FILE"), said
        assert said.json["error"] == "cannot write file: File too large"
        assert not Path("file").exists()
        assert shell(*words, "-o", "file").status == 0
        Path("file").unlink()


def test_a_receipt_names_its_actions_where_their_rules_are_at_hand(shell: Shell) -> None:
    txid = shell.note(1).json["txid"]
    assert shell("receipt", txid, "-o", "note.receipt").status == 0
    assert shell("bundle", txid, "-o", "note.bundle").status == 0
    chain = f"0x{shell.twin.chain.hex()}"
    rules = Path("rules")
    rules.mkdir()
    for words, action in (
        (("--genesis", "genesis.cbor"), "notes.write (rules 1)"),
        (("--genesis", chain), "notes (rules 1)"),
        (("--genesis", chain, "--rules", "rules"), "notes.write (rules 1)"),
        (("--genesis", "genesis.cbor", "--rules", "rules"), "notes.write (rules 1)"),
    ):
        if "--rules" in words:  # an action's name does not depend on the number of its rule set
            (rules / "notes.toml").write_text(RULES.replace("number = 1", "number = 2"))
        said = shell("verify", "note.receipt", *words)
        assert said.status == 0, said
        assert re.search(r"^action +(.*?) *$", said.out, re.MULTILINE)[1] == action
        [name] = shell("verify", "note.receipt", *words, "--json").json["actions"]
        assert name == ("notes.write" if "." in action else None)
    (rules / "notes.toml").write_text(RULES.replace("[actions.write]", "[actions.put]"))
    other = shell("verify", "note.receipt", "--genesis", chain, "--rules", "rules", "--json")
    assert (other.status, other.json["actions"]) == (0, [None])
    for words, status, says in (
        (("note.receipt", "--rules", "nowhere"), 2, "there is no folder nowhere"),
        (("note.bundle", "--rules", "rules"), 2, "--rules is of a receipt"),
    ):
        said = shell("verify", *words, "--genesis", chain)
        assert (said.status, says in said.err) == (status, True), said


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "bundle file: not CBOR: it ends too early at byte 0"),
        (b"\x82\x5b" + b"\xff" * 8, "left: 0 at byte 1"),
        (codec.encode([b"\x9b" + b"\xff" * 8, None]), "bundle: not CBOR: items announced"),
        (b"\x82\x41\x80\xf6\x00\x00", "bundle file: not CBOR: bytes too many: 2 at byte 4"),
        (codec.encode([b"\x81" * 65_536 + b"\xf6", None]), "bundle: not CBOR"),
        (codec.encode([codec.encode(["comity bundle", 2]), None]), "bundle.version: version 2"),
        (codec.encode([codec.encode(["comity bungle", 1]), None]), "this is no evidence bundle"),
    ],
)
def test_bad_files_end_with_2_and_say_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, says: str
) -> None:
    file = tmp_path / "bad.bundle"
    file.write_bytes(data)
    assert run(["verify", str(file), "--genesis", CHAIN.hex()]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "CDDL" not in said  # that is for who writes such files, not for who was given one


@pytest.mark.parametrize(
    ("data", "command"),
    [
        (b"COMITYAU\0\0\0\1", "comity audit"),
        (b"\x59\x10\x00\xac\x65magic\x6fcomity snapshot", "comity snapshot verify"),
        (b"comity/tlog-proof@v1\n", "comity statement"),
        (b"hello", "ask whoever made it for another copy"),
    ],
)
def test_a_file_of_another_kind_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, command: str
) -> None:
    file = tmp_path / "other"
    file.write_bytes(data)
    assert run(["verify", str(file), "--genesis", CHAIN.hex()]) == 2
    assert command in capsys.readouterr().err


def test_a_file_without_end_is_not_read_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", "/dev/zero", "--genesis", CHAIN.hex()]) == 2
    assert "more than 67108864 bytes" in capsys.readouterr().err
