"""Requests and answers whose parts are each in order and do not fit together, or are too long."""

from __future__ import annotations

from typing import Any

import pytest

from consensus import answers, changed, codec, protocol, sealed
from consensus.errors import DecodeError, RemoteProtocolError
from consensus.kinds import Event
from consensus.ledger.sealing import VALUE_BYTES_MAX
from consensus.sealed import ABSENT, CLOSED, ERASED, OPEN, Found
from consensus.state.changes import CHANGE_BYTES


def bad_params(method: str, *params: Any) -> str:
    with pytest.raises(protocol.BadParams) as caught:
        protocol.decode_request(codec.encode([7, method, [*params]]))
    assert caught.value.request_id == 7
    return caught.value.message


def test_a_request_or_an_answer_that_is_too_long_is_refused_unread() -> None:
    longest = b"\xff" * protocol.REQUEST_BYTES_MAX
    for data, said in ((longest, "request: "), (longest + b"\xff", "bytes, at most")):
        with pytest.raises(DecodeError, match=said):
            protocol.decode_request(data)
    longest = b"\xff" * protocol.ANSWER_BYTES_MAX
    for data, said in ((longest, "answer: "), (longest + b"\xff", "too many for an answer")):
        with pytest.raises(DecodeError, match=said):
            answers.decode_answer(data)


def test_a_number_of_rules_is_asked_for_with_its_domain() -> None:
    request = protocol.decode_request(codec.encode([7, "rules", [0, "notes", 2]]))
    assert request == (7, protocol.GetRules(0, "notes", 2))
    assert "a number is one of a domain" in bad_params("rules", 0, None, 2)


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (None, "expected a greeting"),
        ([], "expected a greeting"),
        ([Event.GREETING], "expected a greeting"),
        ([Event.GREETING + 1, 1], "expected a greeting"),
        ([Event.GREETING, 0], "expected a version"),
        ([Event.GREETING, True], "expected a version"),
        ([Event.GREETING, "1"], "expected a version"),
    ],
)
def test_a_greeting_says_a_version_whatever_else_it_says(greeting: Any, said: str) -> None:
    assert answers.greeted_version([Event.GREETING, 9, "of a later one"]) == 9
    with pytest.raises(DecodeError, match=said):
        answers.greeted_version(greeting)


def part(decisions: Any, changes: Any) -> changed.Part:
    return changed.read_part([int(Event.CHANGES), 5, decisions, changes, [], False])


def test_decisions_and_changes_of_a_height_come_together_in_whole_records() -> None:
    record = bytes(CHANGE_BYTES)
    assert part([b"d"], record * 2) == changed.Part(5, (b"d",), record * 2, (), False)
    assert part(None, None).changes is None
    for decisions, changes in (([b"d"], None), (None, record)):
        with pytest.raises(DecodeError, match="come together"):
            part(decisions, changes)
    with pytest.raises(DecodeError, match="no whole number"):
        part([b"d"], record[:-1])


def opening(value: Any) -> list[Any]:
    return [OPEN, [bytes(32), bytes(32), 0, 1, value]]


def test_sealed_values_are_found_open_closed_erased_or_not_at_all() -> None:
    txid = b"t" * 32
    found = sealed.read_found([opening("a"), [CLOSED], [ERASED, txid], [ABSENT]])
    assert found[0].opening is not None
    assert found[0].opening.value == "a"
    assert found[1:] == (Found(CLOSED, None), Found(ERASED, None, txid), Found(ABSENT, None))


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "nothing is not sealed"), ("x" * VALUE_BYTES_MAX, "at most")],
    ids=["nothing", "long"],
)
def test_what_nobody_could_have_sealed_is_not_found(value: Any, said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=said):
        sealed.read_found([opening(value)])
    with pytest.raises(RemoteProtocolError):
        sealed.read_found([[OPEN, "no opening"]])
