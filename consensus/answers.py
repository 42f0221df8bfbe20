"""What comes back over the client protocol: answers, events and the evidence in them.

A result is an array. Evidence that is hashed (certificates, statements, decisions, proofs) lies in
it as byte strings, in the form it is hashed in, so nobody encodes it again to check it.
What is read of the state (rows, pages of ids, rule sets) is in ``consensus.reads``.

Everything read here is untrusted: shapes are checked, nothing is believed. ``comity.verify`` checks
what it proves. Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec, protocol
from consensus.codec import Value
from consensus.committee import COMMITTEE
from consensus.errors import DecodeError
from consensus.ledger import types
from consensus.protocol import Event, Status
from consensus.release import release

EVIDENCE_BYTES_MAX: Final = 64 * 1024
"""Longest certificate, statement or proof inside an answer."""
DECISION_BYTES_MAX: Final = 1024 * 1024
PATH_MAX: Final = 16_384
"""Most hashes of one path; a path for many receipts has up to three a receipt and level."""
GROUP_MAX: Final = 1024
"""Most transactions of one signed group."""
RECEIPTS_MAX: Final = 512
"""Most receipts of one event."""
EPOCHS_MAX: Final = 16
"""Most committees of one answer; the client asks on from the last."""
TEXT_BYTES_MAX: Final = 2048
_TEXT_CHARACTERS_MAX: Final = TEXT_BYTES_MAX // 4

_ANSWER_ID: Final = codec.integer(0, protocol.REQUEST_ID_MAX)
_STATUS: Final = codec.integer(0, 255)
_EVIDENCE: Final = codec.octets(low=1, high=EVIDENCE_BYTES_MAX)
_DECISION: Final = codec.octets(low=1, high=DECISION_BYTES_MAX)
_HISTORY_PATH: Final = codec.list_of(codec.bytes32, 64)
_PATH: Final = codec.list_of(codec.bytes32, PATH_MAX)
_TEXT: Final = codec.text(TEXT_BYTES_MAX)
_NAME: Final = codec.text(64, low=1)


@dataclass(frozen=True, slots=True)
class Answer:
    """One message of a server. ``result`` is plain; its shape depends on request and status."""

    request_id: int
    status: int
    result: Value


def encode_answer(request_id: int, status: Status, result: Value) -> bytes:
    """Return the payload of an answer. Cost: about 2 µs and 0.2 µs an item."""
    return codec.encode([request_id, int(status), result])


def decode_answer(payload: bytes) -> Answer:
    """Return the answer in a payload; its result is canonical but not yet of any shape.

    Raises:
        DecodeError: not an answer.
    """
    if len(payload) > protocol.ANSWER_BYTES_MAX:
        raise DecodeError(f"{len(payload)} bytes, too many for an answer", path="answer")
    value = codec.parse(payload, "answer")
    if type(value) is not list or len(value) != 3:
        raise DecodeError("expected an array of 3 items", path="answer")
    request_id, status, result = value
    size = 1 + _ANSWER_ID(request_id, "request id") + _STATUS(status, "status")
    size += (_STATUS_MAP if type(result) is dict else codec.plain)(result, "answer")
    if size != len(payload):
        raise DecodeError("not the canonical encoding", path="answer")
    return Answer(request_id, status, result)


# --- errors -----------------------------------------------------------------------------------

_PROBLEM: Final = codec.array(
    codec.text(64, low=1),
    _TEXT,
    _TEXT,
    codec.integer(0, 3_600_000),
    codec.optional(codec.count),
    codec.optional(codec.count),
)


NO_VOTE: Final = "NO_VOTE"
"""Code of a problem, UNAVAILABLE: this node follows without a vote and takes no transactions."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The result of an answer whose status is an error.

    Args:
        code: stable name: the status, or the ledger's code for NOT_ADMITTED.
        message: what happened.
        hint: what to do.
        retry_after_ms: for BUSY and UNAVAILABLE; 0 otherwise.
        item: which item of a submission; None for the whole request.
        position: which transaction of that item; None for all of them.
    """

    code: str
    message: str
    hint: str = ""
    retry_after_ms: int = 0
    item: int | None = None
    position: int | None = None

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [
            self.code,
            self.message[:_TEXT_CHARACTERS_MAX],
            self.hint[:_TEXT_CHARACTERS_MAX],
            self.retry_after_ms,
            self.item,
            self.position,
        ]


def read_problem(result: Value) -> Problem:
    """Return the problem of an error answer. Raises DecodeError."""
    _PROBLEM(result, "problem")
    return Problem(*result)


# --- connection -------------------------------------------------------------------------------

_GREETING_ITEMS: Final = (
    codec.integer(Event.GREETING, Event.GREETING),
    codec.integer(protocol.VERSION, protocol.VERSION),
    codec.bytes32,
    codec.bytes32,
    codec.octets(protocol.NONCE_BYTES),
    codec.count,
)
_GREETING: Final = codec.array(*_GREETING_ITEMS)
_GREETING_WITH_RELEASE: Final = codec.array(*_GREETING_ITEMS, release)
_WELCOME: Final = codec.array(
    codec.integer(0, 2), codec.optional(codec.bytes32), codec.optional(_NAME)
)


@dataclass(frozen=True, slots=True)
class Greeting:
    """First words of a server: its version, its chain and key, a fresh nonce.

    ``release`` is of its software; empty where minor 0 of the protocol is spoken.
    """

    version: int
    chain: bytes
    node_key: bytes
    nonce: bytes
    height: int
    release: str = ""

    def to_value(self) -> Value:
        """Return the canonical array."""
        items = [
            int(Event.GREETING),
            self.version,
            self.chain,
            self.node_key,
            self.nonce,
            self.height,
        ]
        return [*items, self.release] if self.release else items


def greeted_version(result: Value) -> int:
    """Return the version that a greeting names, whatever else it holds. Raises DecodeError."""
    if type(result) is not list or result[:1] != [Event.GREETING] or len(result) < 2:
        raise DecodeError("expected a greeting", path="greeting")
    version = result[1]
    if type(version) is not int or version < 1:
        raise DecodeError("expected a version", path="greeting")
    return version


def read_greeting(result: Value) -> Greeting:
    """Return the greeting of an event. Raises DecodeError."""
    named = type(result) is list and len(result) > len(_GREETING_ITEMS)
    (_GREETING_WITH_RELEASE if named else _GREETING)(result, "greeting")
    return Greeting(*result[1:])


ANONYMOUS: Final = 0
MEMBER: Final = 1
CITIZEN: Final = 2


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to ``hello``: what the connection may do, and as whom.

    ``access`` is ANONYMOUS, MEMBER (an official or system of a member agency) or CITIZEN.
    """

    access: int
    principal: bytes | None = None
    agency: str | None = None

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.access, self.principal, self.agency]


def read_welcome(result: Value) -> Welcome:
    """Return the answer to ``hello``. Raises DecodeError."""
    _WELCOME(result, "welcome")
    return Welcome(*result)


# --- evidence of a height ---------------------------------------------------------------------

_STATEMENT: Final = codec.array(
    codec.integer(Event.STATEMENT, Event.STATEMENT),
    _EVIDENCE,
    codec.optional(_EVIDENCE),
    _HISTORY_PATH,
)


@dataclass(frozen=True, slots=True)
class StatementEvidence:
    """What makes a height's statement certain.

    Args:
        certificate: encoded CommitCert, for this height or a later one.
        statement: encoded Statement; None when the certificate is for this very height.
        path: siblings from the statement's hash to the certificate's history_root.
    """

    certificate: bytes
    statement: bytes | None = None
    path: tuple[bytes, ...] = ()

    def to_value(self) -> Value:
        """Return the canonical array of the event."""
        return [int(Event.STATEMENT), self.certificate, self.statement, [*self.path]]


def read_statement(result: Value) -> StatementEvidence:
    """Return the evidence in a STATEMENT event. Raises DecodeError."""
    _STATEMENT(result, "statement evidence")
    return StatementEvidence(result[1], result[2], tuple(result[3]))


_PAST: Final = codec.array(_EVIDENCE, _EVIDENCE, _HISTORY_PATH)


@dataclass(frozen=True, slots=True)
class Past:
    """What shows a height below a later certificate.

    Args:
        certificate: encoded CommitCert of a later height.
        statement: encoded Statement of the height.
        path: siblings from the statement's hash to the certificate's history_root.
    """

    certificate: bytes
    statement: bytes
    path: tuple[bytes, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.certificate, self.statement, [*self.path]]


def read_past(result: Value) -> Past:
    """Return the evidence in a ``past`` answer. Raises DecodeError."""
    _PAST(result, "past")
    return Past(result[0], result[1], tuple(result[2]))


# --- decisions --------------------------------------------------------------------------------

_RECEIPT: Final = codec.array(_ANSWER_ID, codec.count, codec.count, codec.count, _DECISION)
_TICKETS: Final = codec.list_of(
    codec.one_of(
        (
            codec.array(codec.integer(0, 0), codec.list_of(codec.bytes32, GROUP_MAX, low=1)),
            codec.array(codec.integer(1, 255), _PROBLEM),
        )
    ),
    protocol.ITEMS_MAX,
    low=1,
)
_RECEIPTS: Final = codec.array(
    codec.integer(Event.RECEIPTS, Event.RECEIPTS),
    codec.count,
    codec.integer(1),
    _PATH,
    codec.list_of(_RECEIPT, RECEIPTS_MAX, low=1),
)
_DECISION_ANSWER: Final = codec.array(codec.count, codec.integer(1), _PATH, codec.count, _DECISION)
_DECISION_LIST: Final = codec.list_of(
    codec.array(codec.count, codec.list_of(_DECISION, 65_536)), protocol.HEIGHTS_MAX
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """Answer to one item of a submission that does not wait: its txids, or why it has none."""

    txids: tuple[bytes, ...]
    status: int = Status.OK
    problem: Problem | None = None

    def to_value(self) -> Value:
        """Return the canonical array."""
        if self.problem is not None:
            return [int(self.status), self.problem.to_value()]
        return [int(Status.OK), [*self.txids]]


def read_tickets(result: Value) -> tuple[Ticket, ...]:
    """Return the answer to a submission that does not wait. Raises DecodeError."""
    _TICKETS(result, "tickets")
    return tuple(
        Ticket((), status, Problem(*rest)) if status else Ticket(tuple(rest))
        for status, rest in result
    )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The decision of the transaction at ``position`` of ``item`` of a waiting submission."""

    request_id: int
    item: int
    position: int
    index: int
    decision: bytes


@dataclass(frozen=True, slots=True)
class Receipts:
    """Decisions of one height, with one path that leads all of them to its results_root.

    Args:
        height: whose statement holds the root; its evidence came before.
        total: decisions at that height.
        path: as ``merkle.CountTree.multi_path``.
        receipts: any order; several may name one index.
    """

    height: int
    total: int
    path: tuple[bytes, ...]
    receipts: tuple[Receipt, ...]

    def to_value(self) -> Value:
        """Return the canonical array of the event."""
        rows = [[r.request_id, r.item, r.position, r.index, r.decision] for r in self.receipts]
        return [int(Event.RECEIPTS), self.height, self.total, [*self.path], rows]


def read_receipts(result: Value) -> Receipts:
    """Return the receipts of an event. Raises DecodeError."""
    _RECEIPTS(result, "receipts")
    rows = tuple(Receipt(*row) for row in result[4])
    return Receipts(result[1], result[2], tuple(result[3]), rows)


@dataclass(frozen=True, slots=True)
class DecisionAnswer:
    """Answer to ``decision``: one decision with its path to the height's results_root."""

    height: int
    total: int
    path: tuple[bytes, ...]
    index: int
    decision: bytes

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.height, self.total, [*self.path], self.index, self.decision]


def read_decision(result: Value) -> DecisionAnswer:
    """Return the answer to ``decision``. Raises DecodeError."""
    _DECISION_ANSWER(result, "decision")
    return DecisionAnswer(result[0], result[1], tuple(result[2]), result[3], result[4])


@dataclass(frozen=True, slots=True)
class HeightDecisions:
    """All decisions of one height in order; complete, because their roots make results_root."""

    height: int
    decisions: tuple[bytes, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.height, [*self.decisions]]


def read_decisions(result: Value) -> tuple[HeightDecisions, ...]:
    """Return the answer to ``decisions``, ascending by height. Raises DecodeError."""
    _DECISION_LIST(result, "decisions")
    return tuple(HeightDecisions(height, tuple(rows)) for height, rows in result)


_REVERSAL: Final = codec.octets(low=1, high=types.EVIDENCE_BYTES_MAX)


def read_reversal(result: Value) -> bytes:
    """Return the answer to ``reversal``: encoded evidence. Raises DecodeError."""
    _REVERSAL(result, "reversal")
    evidence: bytes = result
    return evidence


_BUNDLE: Final = codec.octets(low=1, high=protocol.ANSWER_BYTES_MAX)


def read_bundle(result: Value) -> bytes:
    """Return the answer to ``bundle``: the content of an evidence bundle. Raises DecodeError."""
    _BUNDLE(result, "bundle")
    content: bytes = result
    return content


_HEIGHTS: Final = codec.list_of(codec.count, protocol.HEIGHTS_MAX)


def read_heights(result: Value) -> tuple[int, ...]:
    """Return the heights of a ``statements`` answer; evidence came before. Raises DecodeError."""
    _HEIGHTS(result, "statements")
    return tuple(result)


_HEIGHT: Final = codec.array(
    codec.integer(Event.HEIGHT, Event.HEIGHT),
    codec.count,
    codec.optional(codec.list_of(_DECISION, 65_536)),
)


@dataclass(frozen=True, slots=True)
class HeightEvent:
    """One height of a subscription; ``decisions`` is None in a stream of statements."""

    height: int
    decisions: tuple[bytes, ...] | None

    def to_value(self) -> Value:
        """Return the canonical array of the event."""
        rows = None if self.decisions is None else [*self.decisions]
        return [int(Event.HEIGHT), self.height, rows]


def read_height_event(result: Value) -> HeightEvent:
    """Return one height of a subscription. Raises DecodeError."""
    _HEIGHT(result, "height event")
    return HeightEvent(result[1], None if result[2] is None else tuple(result[2]))


# --- status, committees -----------------------------------------------------------------------

_STATUS_MAP: Final = codec.map_of(codec.one_of((codec.plain, codec.map_of(codec.plain, 256))), 256)
_COMMITTEES: Final = codec.list_of(codec.array(_EVIDENCE, COMMITTEE), EPOCHS_MAX)


def read_status(result: Value) -> dict[str, Value]:
    """Return the answer to ``status``, a map that may grow. Raises DecodeError."""
    _STATUS_MAP(result, "status")
    status: dict[str, Value] = result
    return status


@dataclass(frozen=True, slots=True)
class EpochStep:
    """The next epoch's committee, and the encoded certificate of the block that ended the last."""

    certificate: bytes
    committee: Value

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.certificate, self.committee]


def read_committees(result: Value) -> tuple[EpochStep, ...]:
    """Return the answer to ``committee``, ascending by epoch. Raises DecodeError."""
    _COMMITTEES(result, "committees")
    return tuple(EpochStep(*row) for row in result)
