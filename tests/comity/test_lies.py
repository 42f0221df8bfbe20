"""A node that lies in every way the protocol allows: each lie is noticed, none is returned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from comity import Call, ForkError, StaleAnswerError
from comity.client import Client
from consensus import answers, codec
from consensus.answers import Answer
from consensus.errors import (
    CertificateError,
    ComityError,
    DecodeError,
    ProofError,
    SignatureError,
    VerificationError,
)
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert
from consensus.protocol import Event, Status
from tests.comity.twin import (
    STRANGER,
    Harness,
    Lie,
    Twin,
    certify,
    harness,
)

PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})


def note(number: int) -> Call:
    return Call("notes", "write", {"number": number, "text": f"note {number}", "amount": number})


def event(kind: Event, change: Callable[[list[Any]], Any]) -> Lie:
    """Change every event of one kind; ``change`` gets a copy of the result."""

    def lie(answer: Answer) -> list[Answer]:
        if answer.status != Status.EVENT or not answer.result or answer.result[0] != kind:
            return [answer]
        changed = change(codec.parse(codec.encode(answer.result)))
        return [] if changed is None else [Answer(answer.request_id, answer.status, changed)]

    return lie


def result(change: Callable[[list[Any]], Any], when: Callable[[Any], bool]) -> Lie:
    """Change every final result that ``when`` picks."""

    def lie(answer: Answer) -> list[Answer]:
        if answer.status != Status.OK or not when(answer.result):
            return [answer]
        changed = change(codec.parse(codec.encode(answer.result)))
        return [Answer(answer.request_id, answer.status, changed)]

    return lie


def statement_with(twin_of: list[Twin], signers: tuple[int, ...], **fields: Any) -> Lie:
    """Replace certificates by ones on a changed statement, signed by ``signers``."""

    def change(row: list[Any]) -> list[Any]:
        certificate = wire.decode_commit_cert(row[1])
        forged = replace(certificate.statement, **fields)
        return [row[0], certify(forged, signers), *row[2:]]

    return event(Event.STATEMENT, change)


def is_rows(value: Any) -> bool:
    return type(value) is list and len(value) == 3 and type(value[2]) is bytes


def is_decision(value: Any) -> bool:
    return type(value) is list and len(value) == 5 and type(value[4]) is bytes


async def prepared(h: Harness) -> tuple[bytes, bytes]:
    """Two notes and a payment, by an honest client; return the txids of the notes."""
    async with h.client(servers=["east"]) as client:
        done = []
        for number in (1, 2):
            call = note(number)
            done.append(await client.transact(call, reads=await client.read_for(call)))
        await client.transact(PAY)
    return done[0].txid, done[1].txid


async def refused_with(
    lie: Lie, error: type[ComityError], ask: Callable[[Client], Any], match: str | None = None
) -> None:
    """A client whose only node tells ``lie`` gets ``error``; one with an honest node too, truth."""
    async with harness() as h:
        await prepared(h)
        h.lies["north"] = lie
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(error, match=match):
                await ask(client)
        async with h.client(servers=["north", "south"]) as client:
            assert await ask(client) is not None
            assert "south" in h.dialled


def get_note(client: Client) -> Any:
    return client.get("record", "note", 1)


# --- certificates -----------------------------------------------------------------------------


@pytest.mark.parametrize("signers", [(), (0,), (0, 1), (0, 1, 2, 3), (0, 1, 1), (2, 1, 0)])
async def test_certificate_without_exactly_a_quorum_in_order_is_refused(
    signers: tuple[int, ...],
) -> None:
    lie = statement_with([], signers)
    await refused_with(lie, CertificateError, get_note)


async def test_certificate_with_a_signature_of_somebody_else_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        value = codec.parse(row[1])
        value[1][1][1] = value[1][0][1]
        return [row[0], codec.encode(value), *row[2:]]

    await refused_with(event(Event.STATEMENT, change), SignatureError, get_note)


async def test_certificate_of_a_stranger_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        certificate = wire.decode_commit_cert(row[1])
        rows = tuple((i, STRANGER.sign(b"x")) for i in range(3))
        forged = CommitCert(certificate.statement, rows)
        return [row[0], wire.encode_commit_cert(forged), *row[2:]]

    await refused_with(event(Event.STATEMENT, change), SignatureError, get_note)


@pytest.mark.parametrize(
    "field", ["state_root", "results_root", "block_id", "history_root", "changes_root"]
)
async def test_statement_changed_under_old_signatures_is_refused(field: str) -> None:
    def change(row: list[Any]) -> list[Any]:
        certificate = wire.decode_commit_cert(row[1])
        root: dict[str, Any] = {field: b"f" * 32}
        forged = CommitCert(replace(certificate.statement, **root), certificate.signatures)
        return [row[0], wire.encode_commit_cert(forged), *row[2:]]

    await refused_with(event(Event.STATEMENT, change), SignatureError, get_note)


async def test_certificate_of_another_network_is_refused() -> None:
    await refused_with(statement_with([], (0, 1, 2), chain=b"c" * 32), CertificateError, get_note)


async def test_certificate_of_an_unknown_epoch_is_refused() -> None:
    await refused_with(
        statement_with([], (0, 1, 2), epoch=2), CertificateError, get_note, "epoch 2"
    )


async def test_missing_certificate_is_refused() -> None:
    await refused_with(
        event(Event.STATEMENT, lambda row: None), ProofError, get_note, "no proof of height"
    )


async def test_certificate_that_is_no_certificate_is_refused() -> None:
    lie = event(Event.STATEMENT, lambda row: [row[0], b"\x00", *row[2:]])
    await refused_with(lie, DecodeError, get_note)


async def test_two_certified_statements_of_one_height_stop_the_client() -> None:
    async with harness() as h:
        await prepared(h)
        async with h.client(patience_seconds=3.0) as client:
            await client.get("record", "note", 1)
            h.lies["north"] = statement_with([], (0, 1, 2), state_root=b"f" * 32)
            h.cut()
            with pytest.raises(ForkError):
                await client.get("record", "note", 1)


# --- statements under later certificates ---------------------------------------------------------


async def history_lie(change: Callable[[list[Any]], list[Any]], error: type[ComityError]) -> None:
    async with harness(Twin(certify_every=4)) as h:
        txid, _ = await prepared(h)

        def lie(row: list[Any]) -> list[Any]:
            return change(row) if row[2] is not None else row

        h.lies["north"] = event(Event.STATEMENT, lie)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(error):
                await client.decision(txid)


async def test_statement_outside_the_history_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        statement = wire.statement_from(codec.parse(row[2]))
        forged = replace(statement, results_root=b"r" * 32)
        return [row[0], row[1], forged.encode(), row[3]]

    await history_lie(change, ProofError)


@pytest.mark.parametrize(
    "change_path",
    [
        lambda path: path[:-1],
        lambda path: [*path, b"x" * 32],
        lambda path: [b"x" * 32, *path[1:]],
        lambda path: path[::-1],
    ],
)
async def test_history_path_that_does_not_fit_is_refused(
    change_path: Callable[[list[bytes]], list[bytes]],
) -> None:
    await history_lie(lambda row: [*row[:3], change_path(row[3])], ProofError)


async def test_history_path_without_a_statement_is_refused() -> None:
    lie = event(Event.STATEMENT, lambda row: [row[0], row[1], None, [b"x" * 32]])
    await refused_with(lie, ProofError, get_note)


# --- decisions ----------------------------------------------------------------------------------


async def decision_lie(
    change: Callable[[list[Any]], list[Any]], error: type[ComityError], match: str | None = None
) -> None:
    async with harness() as h:
        txid, _ = await prepared(h)
        h.lies["north"] = result(change, is_decision)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(error, match=match):
                await client.decision(txid)


async def test_decision_of_another_transaction_is_refused() -> None:
    async with harness() as h:
        mine, other = await prepared(h)
        place = h.twin.places[other]
        block = h.twin.blocks[place.height]
        answer = answers.DecisionAnswer(
            place.height, len(block.roots), (), place.index, block.decisions[place.index]
        )

        def lie(a: Answer) -> list[Answer]:
            if a.status != Status.OK or not is_decision(a.result):
                return [a]
            event = Answer(0, Status.EVENT, block.evidence.to_value())
            return [event, Answer(a.request_id, a.status, answer.to_value())]

        h.lies["north"] = lie
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError, match="another transaction"):
                await client.decision(mine)


async def test_refusal_shown_as_applied_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        header_cbor, leaves = codec.parse(row[4])
        header = codec.parse(header_cbor)
        header[4] = 0
        return [*row[:4], codec.encode([codec.encode(header), leaves])]

    await decision_lie(change, ProofError)


@pytest.mark.parametrize("leaf", range(4))
async def test_decision_with_a_tampered_leaf_is_refused(leaf: int) -> None:
    def change(row: list[Any]) -> list[Any]:
        header, leaves = codec.parse(row[4])
        leaves[leaf][2] = leaves[leaf][2][:-1] + bytes([leaves[leaf][2][-1] ^ 1])
        return [*row[:4], codec.encode([header, leaves])]

    await decision_lie(change, VerificationError if leaf else ComityError)


async def test_decision_with_a_leaf_left_out_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        header, leaves = codec.parse(row[4])
        return [*row[:4], codec.encode([header, leaves[:-1]])]

    await decision_lie(change, ProofError)


@pytest.mark.parametrize(
    ("position", "value"),
    [(1, 2), (1, 4), (2, [b"x" * 32]), (3, 1), (3, 2**40)],
)
async def test_decision_at_another_place_is_refused(position: int, value: Any) -> None:
    def change(row: list[Any]) -> list[Any]:
        row[position] = value
        return row

    await decision_lie(change, VerificationError)


async def test_receipt_for_another_transaction_is_refused_and_asked_again_elsewhere() -> None:
    async with harness() as h:
        await prepared(h)

        def change(row: list[Any]) -> list[Any]:
            block = h.twin.blocks[3]
            stolen = [[*receipt[:3], 0, block.decisions[0]] for receipt in row[4]]
            return [row[0], 3, len(block.roots), [], stolen]

        def lie(answer: Answer) -> list[Answer]:
            (changed,) = event(Event.RECEIPTS, change)(answer)
            if changed is answer:
                return [answer]
            return [Answer(0, Status.EVENT, h.twin.blocks[3].evidence.to_value()), changed]

        h.lies["north"] = lie
        async with h.client(servers=["north", "west"]) as client:
            done = await client.transact(PAY)
            assert done.applied
            assert done.height > 3
            assert "west" in h.dialled


async def test_range_of_decisions_with_one_left_out_is_refused() -> None:
    lie = result(
        lambda rows: [[height, each[:-1]] for height, each in rows],
        lambda value: bool(value) and type(value[0]) is list and len(value[0]) == 2,
    )
    async with harness() as h:
        await prepared(h)
        h.lies["north"] = lie
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError, match="not complete"):
                await client.decisions(2)


# --- rows ---------------------------------------------------------------------------------------


async def rows_lie(
    change: Callable[[list[Any]], list[Any]],
    error: type[ComityError] = ProofError,
    ask: Callable[[Client], Any] = get_note,
) -> None:
    await refused_with(result(change, is_rows), error, ask)


async def test_tampered_field_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        leaves = row[1][0][2]
        text = next(leaf for leaf in leaves if leaf[0] == "text")
        text[3] = codec.encode("forged")
        return row

    await rows_lie(change)


@pytest.mark.parametrize("part", [1, 2])
async def test_tampered_version_or_salt_of_a_field_is_refused(part: int) -> None:
    def change(row: list[Any]) -> list[Any]:
        leaf = row[1][0][2][0]
        leaf[part] = leaf[part] + 1 if part == 1 else bytes(16)
        return row

    await rows_lie(change)


async def test_record_with_a_field_left_out_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        row[1][0][2].pop()
        return row

    await rows_lie(change)


async def test_record_header_changed_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        header = codec.parse(row[1][0][1])
        header[3] += 1
        row[1][0][1] = codec.encode(header)
        return row

    await rows_lie(change)


async def test_present_record_said_to_be_absent_is_refused() -> None:
    await rows_lie(lambda row: [row[0], [None], row[2]])


async def test_absent_record_said_to_be_present_is_refused() -> None:
    async with harness() as h:
        await prepared(h)
        rows: list[Any] = []

        def keep(row: list[Any]) -> list[Any]:
            rows.append(row[1][0])
            return row

        h.lies["north"] = result(keep, is_rows)
        async with h.client() as client:
            await client.get("record", "note", 1)
        h.lies["north"] = result(lambda row: [row[0], [rows[0]], row[2]], is_rows)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError, match="note/9 is shown, but proved absent"):
                await client.get("record", "note", 9)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError, match="permit/0xeeeeeeeeeeee… is shown, but proved"):
                await client.get("record", "permit", b"\xee" * 32)


async def test_proof_and_row_of_another_key_are_refused() -> None:
    async with harness() as h:
        await prepared(h)
        seen: list[Any] = []

        def keep(row: list[Any]) -> list[Any]:
            seen.append(row)
            return row

        h.lies["north"] = result(keep, is_rows)
        async with h.client() as client:
            await client.get("record", "note", 2)
        h.lies["north"] = result(lambda row: seen[0], is_rows)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError):
                await client.get("record", "note", 1)


async def test_row_of_another_key_under_its_own_proof_is_refused() -> None:
    """The proof is right and shows both; the rows are swapped."""
    from consensus.protocol import StateKey

    keys = [StateKey("record", ("note", 1)), StateKey("record", ("note", 2))]
    lie = result(lambda row: [row[0], row[1][::-1], row[2]], is_rows)
    await refused_with(lie, ProofError, lambda client: client.get_many(keys))


async def test_tampered_balance_is_refused() -> None:
    def change(row: list[Any]) -> list[Any]:
        value = codec.parse(row[1][0][3])
        value[1] += 1
        row[1][0][3] = codec.encode(value)
        return row

    await rows_lie(change, ask=lambda client: client.get("account", "pot", "b"))


@pytest.mark.parametrize("at", [0, 40, 80, -1])
async def test_proof_with_a_flipped_byte_is_refused(at: int) -> None:
    def change(row: list[Any]) -> list[Any]:
        proof = bytearray(row[2])
        proof[at] ^= 1
        return [row[0], row[1], bytes(proof)]

    await rows_lie(change, ComityError)


async def test_answer_for_fewer_or_more_keys_is_refused() -> None:
    await rows_lie(lambda row: [row[0], [], row[2]])
    await rows_lie(lambda row: [row[0], row[1] * 2, row[2]])


async def test_old_state_is_refused_once_a_newer_one_is_known() -> None:
    async with harness() as h:
        await prepared(h)
        kept: list[Answer] = []

        def keep(answer: Answer) -> list[Answer]:
            if answer.status == Status.OK and is_rows(answer.result):
                kept.append(answer)
            return [answer]

        h.lies["north"] = keep
        async with h.client() as client:
            await client.get("account", "pot", "b")
            old = kept[-1].result
            evidence = h.twin.evidence(old[0])
            await client.transact(PAY)

            def replay(answer: Answer) -> list[Answer]:
                if answer.status == Status.OK and is_rows(answer.result):
                    shown = Answer(0, Status.EVENT, evidence.to_value())
                    return [shown, Answer(answer.request_id, answer.status, old)]
                return [answer]

            h.lies["north"] = replay
            h.cut()
            with pytest.raises(StaleAnswerError):
                await client.get("account", "pot", "b")


async def test_hold_that_is_left_out_is_refused() -> None:
    from tests.comity.twin import ADMINISTRATOR

    async with harness() as h:
        async with h.client(ADMINISTRATOR, servers=["east"]) as client:
            for _ in range(2):
                inputs = {
                    "targets": [["record", ["note", 1]]],
                    "scopes": ["edit"],
                    "until": None,
                    "legal": "Act",
                }
                done = await client.transact(Call("charter", "place_hold", inputs))
                assert done.applied, done
            assert len((await client.holds("record", "note", 1)).holds) == 2
        for change in (
            lambda row: [row[0], row[1][:-1], row[2]],
            lambda row: [row[0], [*row[1][:-1], None], row[2]],
            lambda row: [row[0], [None, *row[1][1:]], row[2]],
            lambda row: [row[0], row[1][:1], row[2]],
            lambda row: [row[0], [*row[1][:-1], row[1][-2]], row[2]],
        ):
            h.lies["north"] = result(change, is_rows)
            async with h.client(ADMINISTRATOR, patience_seconds=1.0) as client:
                with pytest.raises((ProofError, DecodeError)):
                    await client.holds("record", "note", 1)


async def test_rule_set_that_is_not_the_active_one_is_refused() -> None:
    def is_rules(value: Any) -> bool:
        return type(value) is list and len(value) == 2 and is_rows(value[0])

    def altered(row: list[Any]) -> list[Any]:
        text = row[1][1][2]
        row[1][1][2] = text.replace(b"the amount is positive", b"the amount is negative")
        return row

    for change in (altered, lambda row: [row[0], row[1][:1]]):
        await refused_with(result(change, is_rules), ProofError, lambda client: client.rules())
