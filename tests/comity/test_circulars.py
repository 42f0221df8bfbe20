"""Transactions of several signers: keys at hand, and circulars that go round."""

from __future__ import annotations

import errno
import json
import stat
from dataclasses import replace
from pathlib import Path

import pycddl
import pytest

from comity import Call, Circular, Client, DraftError
from comity.sequence import ASIDE_MIN, ASIDE_SPAN
from consensus import codec
from consensus.errors import DecodeError, SignatureError
from tests.comity.shell import Shell, shell
from tests.comity.twin import ADMINISTRATOR, CITIZEN, OFFICIAL, STRANGER, harness

__all__ = ["shell"]

PUBLISH = Call("notes", "publish", {"note": [1], "text": "public"})
GRAMMAR = Path("docs/protocol/transaction.cddl").read_text(encoding="utf-8")
PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})


async def noted(client: Client) -> None:
    call = Call("notes", "write", {"number": 1, "text": "hello", "amount": 5})
    assert (await client.transact(call, reads=await client.read_for(call))).applied


async def begun(client: Client) -> Circular:
    await noted(client)
    reads = await client.read_for(PUBLISH)
    cosigners = [ADMINISTRATOR.public]
    draft = await client.draft(
        PUBLISH, reads=reads, reason="as agreed", cosigners=cosigners, later=True
    )
    return client.circulate(draft)


# --- keys at hand -------------------------------------------------------------------------------


async def test_keys_at_hand_sign_with_the_author() -> None:
    async with harness() as h, h.client() as client:
        await noted(client)
        reads = await client.read_for(PUBLISH)
        alone = await client.transact(PUBLISH, reads=reads)
        assert alone.code == "NEEDS_APPROVAL"
        assert alone.detail == [["role", "charter.administrator", 1, "", []]]
        signers = [ADMINISTRATOR, CITIZEN]
        done = await client.transact(PUBLISH, reads=reads, cosigners=signers)
        assert done.applied
        cosigners = done.leaves["authority"][2]
        assert [row[2] for row in cosigners] == sorted(each.public for each in signers)


async def test_author_is_no_cosigner() -> None:
    async with harness() as h, h.client() as client:
        with pytest.raises(DraftError, match="the author does not cosign"):
            await client.transact(PAY, cosigners=[OFFICIAL])
        with pytest.raises(DraftError, match="distinct"):
            await client.transact(PAY, cosigners=[ADMINISTRATOR, ADMINISTRATOR])
        assert (await client.transact(PAY)).applied  # the numbers were given back


# --- going round --------------------------------------------------------------------------------


async def test_circular_goes_to_the_cosigner_and_back() -> None:
    async with harness() as h, h.client() as client, h.client(ADMINISTRATOR) as other:
        circular = await begun(client)
        assert circular.missing == (ADMINISTRATOR.public,)
        received = other.read_circular(circular.encode())
        assert received == circular
        (call,) = received.calls((await other.rules()).book)
        assert (call.call.action, dict(call.inputs)) == ("publish", PUBLISH.inputs)
        assert call.in_force
        signed = client.read_circular(received.sign(ADMINISTRATOR).encode())
        assert signed.missing == ()
        decision = await client.submit(signed.envelope)
        assert decision.applied
        assert (await client.submit(signed.envelope)).height == decision.height


async def test_circular_has_the_documented_shape() -> None:
    circulars = pycddl.Schema(f"start = circular\n{GRAMMAR}")
    envelopes = pycddl.Schema(f"start = envelope\n{GRAMMAR}")
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        circulars.validate_cbor(circular.encode())
        with pytest.raises(pycddl.ValidationError):
            envelopes.validate_cbor(circular.encode())
        envelopes.validate_cbor(circular.sign(ADMINISTRATOR).envelope)
        refused = circular.encode()
        with pytest.raises(DecodeError):
            await client.submit(refused)


async def test_author_acts_on_while_it_goes_round() -> None:
    async with harness() as h, h.client() as client, h.client() as program:
        circular = await begun(client)
        for _ in range(3):
            assert (await client.transact(PAY)).applied
        assert (await program.transact(PAY)).applied
        assert (await client.submit(circular.sign(ADMINISTRATOR).envelope)).applied
        assert (await client.draft(PAY)).transaction.sequence == 5


async def test_numbers_set_aside_are_not_given_out_again() -> None:
    async with harness() as h, h.client() as client:
        aside = [
            (await client.draft(PAY, later=True)).transaction.sequence for _ in range(40)
        ]  # fmt: skip
        assert len(frozenset(aside)) == 40
        assert all(1 + ASIDE_MIN <= each <= 1 + ASIDE_MIN + ASIDE_SPAN + 40 for each in aside)
        drafts = [await client.draft(PAY) for _ in range(400)]
        taken = [each.transaction.sequence for each in drafts]
        assert not frozenset(taken) & frozenset(aside)
        assert frozenset(range(1, max(taken))) <= frozenset((*taken, *aside))


async def test_incomplete_circular_is_not_submitted() -> None:
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        with pytest.raises(DraftError, match="1 signature is missing"):
            _ = circular.envelope


async def test_somebody_who_was_not_asked_cannot_sign() -> None:
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        with pytest.raises(DraftError, match="nobody asks for a signature"):
            circular.sign(STRANGER)
        assert circular.sign(OFFICIAL) == circular  # has signed already


async def test_action_that_is_not_as_it_is_in_force_is_shown_by_position() -> None:
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        book = (await client.rules()).book
        domain = book.rule_sets["notes"]
        action = replace(domain.actions["publish"], action_id=bytes(32))
        other = replace(
            book,
            rule_sets={"notes": replace(domain, actions={**domain.actions, "publish": action})},
        )
        (call,) = circular.calls(other)
        assert not call.in_force
        assert call.inputs == (("0", [1]), ("1", "public"))


# --- what others send ---------------------------------------------------------------------------


async def test_circular_that_was_changed_is_refused() -> None:
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        body, signatures, (openings, seed) = codec.parse(circular.encode())
        other = await client.draft(PAY, cosigners=[ADMINISTRATOR.public])
        forged = [b"\x01" * 64, b""]
        for value, error in (
            ([body, forged, [openings, seed]], SignatureError),
            ([body, signatures[:1], [openings, seed]], DecodeError),
            ([body, signatures, [openings[:-1], seed]], DecodeError),
            ([body, signatures, [openings, bytes(32)]], DecodeError),
            ([other.transaction.body, signatures, [openings, seed]], DecodeError),
            ([body[:-1], signatures, [openings, seed]], DecodeError),
            ([body, [b"short", b""], [openings, seed]], DecodeError),
            ([body, signatures], DecodeError),
        ):
            with pytest.raises(error):
                client.read_circular(codec.encode(value))
        for data in (b"", b"\xff", b"x" * 1_000_000, circular.encode() + b"\x00"):
            with pytest.raises(DecodeError):
                client.read_circular(data)


async def test_circular_of_another_network_is_refused() -> None:
    async with harness() as h, h.client() as client:
        circular = await begun(client)
        client.chain = bytes(32)
        with pytest.raises(DecodeError, match="another network"):
            client.read_circular(circular.encode())


# --- the command line ---------------------------------------------------------------------------


def test_commands_take_a_circular_round(shell: Shell) -> None:
    assert shell.note(1).status == 0
    alone = shell("submit", "notes.publish", "note=1", "text=p")
    assert alone.status == 1
    assert "approvals are missing: one with the role charter.administrator" in alone.out
    key = "0x" + ADMINISTRATOR.public.hex()
    begin = (
        "submit", "notes.publish", "note=1", "text=public", "--reason", "as agreed",
        "--cosigner", key, "--circulate", "publish.cbor",
    )  # fmt: skip
    begun = shell(*begin)
    assert begun.status == 0
    assert "signature missing" in begun.out
    file = shell.folder / "publish.cbor"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    early = shell("send", "publish.cbor")
    assert early.status == 2
    assert "1 signature is missing" in early.err
    before = file.read_bytes()
    seen = shell("cosign", "publish.cbor", "--dry", "--key", "administrator.key", "--json")
    assert seen.json["calls"] == [
        {"action": "notes.publish", "inputs": {"note": [1], "text": "public"}, "in_force": True}
    ]
    assert seen.json["missing"] == [key]
    assert seen.json["reason"] == "as agreed"
    assert seen.json["expects"] == [["note/1", 1]]
    assert file.read_bytes() == before
    stranger = shell("cosign", "publish.cbor", "--key", "citizen.key")
    assert stranger.status == 2
    assert "nobody asks for a signature" in stranger.err
    signed = shell("cosign", "publish.cbor", "--key", "administrator.key")
    assert signed.status == 0
    assert "complete" in signed.out
    sent = shell("send", "publish.cbor")
    assert sent.status == 0
    assert "applied" in sent.out
    assert "notes.publish" in sent.out
    assert "as charter.administrator" in sent.out
    assert shell("send", "publish.cbor", "--json").json["txid"] == seen.json["txid"]


def test_no_file_is_written_over_but_the_circular_that_is_signed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.note(1).status == 0
    begin = ("submit", "notes.publish", "note=1", "text=p", "--circulate")
    genesis = (shell.folder / "genesis.cbor").read_bytes()
    taken = shell(*begin, "genesis.cbor")
    assert taken.status == 2
    assert "genesis.cbor exists" in taken.err
    assert (shell.folder / "genesis.cbor").read_bytes() == genesis
    key = ADMINISTRATOR.public.hex()
    assert shell(*begin, "x.cbor", "--cosigner", key).status == 0
    before = (shell.folder / "x.cbor").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as cut:
        cut.setattr(Circular, "encode", full)
        failed = shell("cosign", "x.cbor", "--key", "administrator.key")
    assert failed.status == 2
    assert "cannot write x.cbor: No space left on device" in failed.err
    assert (shell.folder / "x.cbor").read_bytes() == before
    assert not (shell.folder / ".x.cbor.new").exists()


@pytest.mark.parametrize("words", [("--cosigner", "0x12"), ("--cosigner", "key")])
def test_key_of_another_form_is_refused(shell: Shell, words: tuple[str, ...]) -> None:
    said = shell("submit", "notes.publish", "note=1", "text=p", *words, "--circulate", "x.cbor")
    assert said.status == 2
    assert "is no public key" in said.err


def test_cosigners_without_a_file_are_refused(shell: Shell) -> None:
    key = ADMINISTRATOR.public.hex()
    said = shell("submit", "notes.publish", "note=1", "text=p", "--cosigner", key)
    assert said.status == 2
    assert "--circulate FILE" in said.err


def test_file_that_is_no_circular_is_refused(shell: Shell) -> None:
    (shell.folder / "x.cbor").write_bytes(b"not a circular")
    for command in ("cosign", "send"):
        said = shell(command, "x.cbor", "--json")
        assert said.status == 2
        assert json.loads(said.out)["code"]
    assert shell("cosign", "absent.cbor").status == 2
