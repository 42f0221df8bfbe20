"""Bundles and receipts through the client and the command line, against a node that may lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest
import trio
from blake3 import blake3

from comity import Call, Client, RequestError, receipts
from comity.cli.evidence import qr_code, receipt_text
from consensus import codec, genesis
from consensus.errors import DecodeError
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from tests.comity import twin as stage
from tests.comity.twin import CITIZEN, Harness, Twin, harness

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


async def test_the_verifier_imports_no_node_and_opens_no_socket(
    network: Harness, tmp_path: Path
) -> None:
    file = tmp_path / "note.bundle"
    async with network.client() as client:
        await trio.Path(file).write_bytes(await client.bundle(await write(client, 1)))
    words = ["verify", str(file), "--genesis", CHAIN.hex(), "--json"]
    program = f"""
import socket, sys
def refused(*_): raise SystemExit("a socket was opened")
socket.socket.__init__ = refused
from comity.cli.app import run
status = run({words!r})
found = [name for name in sys.modules if name == "node" or name.startswith("node.")]
print(status, found)
"""
    done = await trio.run_process(
        [sys.executable, "-c", program], capture_stdout=True, capture_stderr=True, check=False
    )
    *said, last = done.stdout.decode().splitlines()
    assert last == "0 []", (said, last, done.stderr.decode())
    assert json.loads("".join(said))["valid"] is True
