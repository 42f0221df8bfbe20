"""The auditor's file: what it proves, and that nothing else passes for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from comity import Call
from consensus import codec
from consensus import genesis as genesis_file
from consensus.errors import ComityError, DecodeError, ProofError
from consensus.protocol import StateKey
from scripts.demo_parts import evidence
from scripts.demo_parts.evidence import Copies, Paper
from tests.comity.twin import Twin, certify, harness


async def made_paper() -> tuple[bytes, Paper]:
    """A file about note 1, with the hash of its network."""
    async with harness(Twin()) as h:
        copies = Copies(h.dial)
        h.dial = copies.dial
        async with h.client() as client:
            call = Call("notes", "write", {"number": 1, "text": "as it is", "amount": 5})
            await client.transact(call, reads=await client.read_for(call))
            entry = await client.get("record", "note", 1)
            return h.twin.chain, copies.paper(client, h.twin.genesis.encode(), entry)


async def test_file_proves_its_record_to_whoever_knows_the_genesis_hash() -> None:
    chain, paper = await made_paper()
    entry, signers, size = evidence.check(chain, paper.encode())
    assert (entry.fields["text"], entry.fields["amount"], entry.version) == ("as it is", 5, 1)
    assert (signers, size) == (3, 4)


async def test_every_changed_byte_outside_the_genesis_file_is_noticed() -> None:
    chain, paper = await made_paper()
    data = paper.encode()
    begin = data.index(paper.genesis)
    places = [*range(begin), *range(begin + len(paper.genesis), len(data))]
    for position in places:
        changed = bytearray(data)
        changed[position] ^= 0x10
        with pytest.raises(ComityError):
            evidence.check(chain, bytes(changed))


def other_text(paper: Paper) -> Paper:
    rows: Any = codec.parse(codec.encode(paper.rows))
    for leaf in rows[1][0][2]:
        if leaf[0] == "text":
            leaf[3] = codec.encode("as it isn't")
    return replace(paper, rows=rows)


def other_record(paper: Paper) -> Paper:
    return replace(paper, key=StateKey("record", ("note", 2)))


def too_few_signers(paper: Paper) -> Paper:
    statement: Any = codec.parse(codec.encode(paper.statement))
    signed = codec.parse(statement[1])
    signed[1] = signed[1][:2]
    statement[1] = codec.encode(signed)
    return replace(paper, statement=statement)


def other_network(paper: Paper) -> Paper:
    made = genesis_file.decode(paper.genesis)
    return replace(paper, genesis=replace(made, network="other").encode())


@pytest.mark.parametrize("forge", [other_text, other_record, too_few_signers, other_network])
async def test_forged_file_proves_nothing(forge: Callable[[Paper], Paper]) -> None:
    chain, paper = await made_paper()
    with pytest.raises(ComityError):
        evidence.check(chain, forge(paper).encode())


async def test_statement_that_the_committee_signed_for_another_root_fails_the_proof() -> None:
    async with harness(Twin()) as h:
        copies = Copies(h.dial)
        h.dial = copies.dial
        async with h.client() as client:
            entry = await client.get("account", "pot", "a")
            paper = copies.paper(client, h.twin.genesis.encode(), entry)
        statement = h.twin.statements[entry.height]
        forged = certify(replace(statement, state_root=bytes(32)))
        value: Any = codec.parse(codec.encode(paper.statement))
        value[1:] = [forged, None, []]
        with pytest.raises(ProofError):
            evidence.check(h.twin.chain, replace(paper, statement=value).encode())


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 40])
def test_what_is_no_file_of_this_kind_is_malformed(data: bytes) -> None:
    with pytest.raises(DecodeError):
        evidence.check(bytes(32), data)


async def test_program_says_what_it_found_and_ends_with_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain, paper = await made_paper()
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(paper.encode())
    bad.write_bytes(other_text(paper).encode())
    assert evidence.main([str(good), chain.hex()]) == 0
    assert "proved: version 1" in capsys.readouterr().out
    assert evidence.main([str(bad), chain.hex()]) == 1
    assert "is not what the state holds" in capsys.readouterr().out
    assert evidence.main([str(good), "no hash"]) == 2
    assert evidence.main([str(tmp_path / "missing"), chain.hex()]) == 2
    assert evidence.main([]) == 2
