"""Messages of the client protocol: against the grammar, encoded a second time, read and written.

Their values are written down from ``docs/protocol/client.cddl``; byte strings that other grammars
describe (envelopes, certificates, decisions) hold a byte or two here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import pycddl
import pytest

from consensus import answers, asking, changed, past, protocol, reads, sealed
from consensus.audit import pages
from consensus.errors import DecodeError, RemoteProtocolError
from consensus.evidence import disclosure_file
from consensus.protocol import Item, Status
from tests.consensus.test_files_vectors import plain

ROOT = Path(__file__).parents[2]
CDDL = (ROOT / "docs/protocol/client.cddl").read_text(encoding="utf-8")
VECTORS = json.loads((ROOT / "tests/vectors/client.json").read_text(encoding="utf-8"))
READERS: dict[str, Callable[[Any], Any]] = {
    "greeting-event": answers.read_greeting,
    "statement-event": answers.read_statement,
    "receipts-event": answers.read_receipts,
    "height-event": answers.read_height_event,
    "changes-event": changed.read_part,
    "problem-answer": answers.read_problem,
    "result-hello": answers.read_welcome,
    "result-submit": answers.read_tickets,
    "result-decision": answers.read_decision,
    "result-get": reads.read_rows,
    "result-holds": reads.read_rows,
    "result-index": reads.read_rows,
    "result-list": reads.read_page,
    "result-decisions": answers.read_decisions,
    "result-rules": reads.read_rules,
    "result-status": answers.read_status,
    "result-committee": answers.read_committees,
    "result-statements": answers.read_heights,
    "result-effect": answers.read_decision,
    "result-reversal": answers.read_reversal,
    "result-bundle": answers.read_bundle,
    "result-disclosed": disclosure_file.read_body,
    "result-proposal": reads.read_proposal,
    "result-proposals": reads.read_proposals,
    "result-past": answers.read_past,
    "result-blocks": pages.read_page,
    "result-simulate": asking.read_simulated,
    "result-reads": asking.read_readings,
    "result-deliver": sealed.read_kept,
    "result-sealed": sealed.read_found,
    "result-history": past.read_history,
    "result-moment": past.read_moment,
}


@cache
def rule(name: str) -> Any:
    return pycddl.Schema(f"start = {name}\n{CDDL}")


def of(rows: str) -> Any:
    return pytest.mark.parametrize("row", VECTORS[rows], ids=lambda row: row["name"])


def value_of(read: Any) -> Any:
    """Return what was read as the array that it came from."""
    if isinstance(read, tuple):
        return [value_of(each) for each in read]
    return read.to_value() if hasattr(read, "to_value") else read


@pytest.mark.parametrize("row", VECTORS["requests"] + VECTORS["answers"], ids=lambda r: r["name"])
def test_a_vector_is_the_plain_encoding_of_its_value_and_fits_the_grammar(
    row: dict[str, Any],
) -> None:
    data = bytes.fromhex(row["cbor"])
    assert cbor2.dumps(plain(row["value"]), canonical=True) == data
    rule(row["rule"]).validate_cbor(data)


@of("requests")
def test_a_request_is_read_and_written_again(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["cbor"])
    request_id, request = protocol.decode_request(data)
    assert [request_id, protocol.method_of(request)] == row["value"][:2]
    assert protocol.encode_request(request_id, request) == data
    with pytest.raises(DecodeError):
        protocol.decode_request(data + b"\x00")


def test_an_empty_item_is_refused_by_the_grammar_and_by_the_node() -> None:
    data = cbor2.dumps([2, "submit", [False, [[0, b""]]]], canonical=True)
    with pytest.raises(pycddl.ValidationError):
        rule("request-submit").validate_cbor(data)
    with pytest.raises(DecodeError):
        protocol.decode_request(data)


@of("answers")
def test_an_answer_is_read_and_written_again(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["cbor"])
    answer = answers.decode_answer(data)
    assert [answer.request_id, int(answer.status)] == row["value"][:2]
    result: Any = answer.result
    if row["rule"] in READERS:
        result = value_of(READERS[row["rule"]](answer.result))
    assert result == plain(row["value"][2])
    assert answers.encode_answer(answer.request_id, answer.status, result) == data


def test_every_method_and_every_kind_of_answer_has_a_vector() -> None:
    assert {row["value"][1] for row in VECTORS["requests"]} == set(protocol.METHODS)
    assert set(READERS) | {"result-unsubscribe"} == {row["rule"] for row in VECTORS["answers"]}


def test_a_key_is_proved_by_the_signature_that_the_protocol_says() -> None:
    session = plain(VECTORS["session"])
    chain, node, nonce, key = (session[n] for n in ("chain", "node_key", "nonce", "key"))
    assert session["message"] == b"comity session\x00" + chain + node + nonce + key
    assert protocol.session_message(chain, node, nonce, key) == session["message"]
    public, secret = nacl.bindings.crypto_sign_seed_keypair(session["seed"])
    assert public == key
    signed = nacl.bindings.crypto_sign(session["message"], secret)
    assert signed[:64] == session["signature"]


def test_frames_are_cut_and_joined_as_recorded() -> None:
    for row in plain(VECTORS["frames"]):
        splitter = protocol.FrameSplitter(protocol.REQUEST_BYTES_MAX)
        found = [payload for byte in row["stream"] for payload in splitter.feed(bytes([byte]))]
        assert found == row["payloads"]
        assert protocol.frames(found) == row["stream"]
    with pytest.raises(RemoteProtocolError):
        protocol.FrameSplitter(protocol.REQUEST_BYTES_MAX).feed(bytes(4))


def test_kinds_and_statuses_have_the_numbers_of_the_grammar() -> None:
    assert [int(kind) for kind in Item] == [0, 1]
    listed = [line.split() for line in CDDL.splitlines() if line[2:4].isdigit()]
    assert {(int(words[1]), words[2]) for words in listed} == {
        (int(status), status.name) for status in Status if status >= 16
    }
