"""The client protocol: frames, requests and status codes. ``answers`` has what comes back.

    frame    = length (4 bytes, big-endian) ‖ payload
    request  = [request_id, method, params]            client to server, request_id >= 1, not in use
    answer   = [request_id, status, result]            server to client, in any order

The server speaks first: an event on id 0 (``answers.Greeting``) with a fresh nonce. The first
request is ``hello``; it may prove one key for the connection. Many requests may be in flight.

- Id 0 belongs to the connection: evidence that several answers rest on, and the last word of a
  server that closes it.
- Evidence travels once: the statement of a height is sent as an event before the first answer that
  rests on it, and not again on this connection while it is among the last STATEMENTS_KEPT sent.
  Both sides count alike.
- A waiting submission is answered once per transaction: by a receipt inside an event that serves
  many requests, or by an error that names its item and position.
- An id ends with its last answer; that of a subscription when it is cancelled.

Specified in ``docs/protocol/client.cddl``. Not here: sockets, TLS, access control, verification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never, get_args

from consensus import codec
from consensus.codec import Shape, Value
from consensus.errors import DecodeError
from consensus.frames import ANSWER_BYTES_MAX as ANSWER_BYTES_MAX
from consensus.frames import FrameSplitter as FrameSplitter
from consensus.frames import frames as frames
from consensus.kinds import Event as Event
from consensus.kinds import Item as Item
from consensus.kinds import Status as Status
from consensus.kinds import Stream as Stream
from consensus.place import COMPONENTS, NAME, STATE_KEY, key_from
from consensus.place import StateKey as StateKey
from consensus.recall import HISTORY, MOMENT, history_from
from consensus.recall import VERSIONS_MAX as VERSIONS_MAX
from consensus.recall import GetHistory as GetHistory
from consensus.recall import GetMoment as GetMoment
from consensus.sealed import DELIVERY, SEALED_MAX, Deliver, read_delivery
from consensus.session import MINOR as MINOR
from consensus.session import PROTOCOL as PROTOCOL
from consensus.session import VERSION as VERSION
from consensus.session import Hello as Hello
from consensus.session import hello_params, read_hello
from consensus.session import session_message as session_message

REQUEST_BYTES_MAX: Final = 1024 * 1024
REQUEST_ID_MAX: Final = 2**31 - 1
ITEMS_MAX: Final = 1024
"""Most envelopes and groups in one ``submit``."""
KEYS_MAX: Final = 64
"""Most rows asked for in one ``get``."""
DRAFT_BYTES_MAX: Final = 128 * 1024
"""Longest draft that is tried out."""
PURPOSE_BYTES_MAX: Final = 256
BUNDLE_HEIGHTS_MAX: Final = 8
"""Most further statements of one bundle."""
BUNDLE_OPENED_MAX: Final = 64
"""Most leaves that one bundle opens beyond what was judged."""
READS_MAX: Final = 100
"""Most entries of a log of reads in one answer."""
PAGE_MAX: Final = 1000
"""Most entries in one page of ``list``."""
INDEX_PAGE_MAX: Final = 256
"""Most positions in one page of ``index``."""
POSITION_MAX: Final = 2**53
"""Highest position asked for in ``index``."""
PROPOSALS_MAX: Final = 64
"""Most entries in one page of ``proposals``."""
CURSOR_BYTES_MAX: Final = 256
DISCLOSURES_MAX: Final = 64
"""Most disclosures asked for in one ``disclosed``."""
HEIGHTS_MAX: Final = 64
"""Most heights in one ``decisions``, ``statements`` or ``blocks``."""
STATEMENTS_KEPT: Final = 128
"""Statements, the last sent, that both sides of a connection remember."""
NONCE_BYTES: Final = 32


# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Put transactions in the pool. Items are (kind, canonical bytes) of envelopes and groups.

    ``wait``: answer each transaction with its certified decision; otherwise answer once, with the
    txids.
    """

    wait: bool
    items: tuple[tuple[Item, bytes], ...]


@dataclass(frozen=True, slots=True)
class GetDecision:
    """The certified decision of a transaction."""

    txid: bytes


@dataclass(frozen=True, slots=True)
class GetReversal:
    """The evidence with which an applied transaction may be taken back."""

    txid: bytes


@dataclass(frozen=True, slots=True)
class GetBundle:
    """The newest decision of a transaction with everything that it was judged on.

    Args:
        heights: of further statements to be shown.
        opened: what to show that the judgement did not need: ``reason``, or ``kind.leaf`` of the
            records that it read.
    """

    txid: bytes
    heights: tuple[int, ...] = ()
    opened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Get:
    """Rows with a proof against the state of a certified height, at least ``height_min``."""

    height_min: int
    keys: tuple[StateKey, ...]


@dataclass(frozen=True, slots=True)
class GetHolds:
    """Every hold on a target, complete through its count leaf."""

    height_min: int
    target: StateKey


@dataclass(frozen=True, slots=True)
class GetIndex:
    """Which records an index of the ledger lists under a value: its size, and positions of it.

    ``limit`` positions from ``first`` on, as far as there are any; complete through the size.
    """

    height_min: int
    index: str
    value: Value
    first: int
    limit: int


@dataclass(frozen=True, slots=True)
class ListRecords:
    """A page of ids of one kind after ``after``, from this node's own index: not proved."""

    kind: str
    after: tuple[Value, ...] | None
    limit: int


@dataclass(frozen=True, slots=True)
class GetDecisions:
    """All decisions of ``count`` certified heights from ``first`` (negative: the newest)."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class GetRules:
    """Rule sets: those in force of ``domain`` or of all (None), or that of one ``number``."""

    height_min: int
    domain: str | None
    number: int = 0


@dataclass(frozen=True, slots=True)
class GetStatus:
    """What the node says of itself: not proved."""


@dataclass(frozen=True, slots=True)
class GetCommittee:
    """The committees after ``epoch``, each with the certificate that elected it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class GetStatements:
    """Statements of ``count`` certified heights from ``first`` (negative: the newest)."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow certified heights from ``from_height`` on. The request's id names it."""

    stream: Stream
    from_height: int


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End the subscription that began with ``subscription_id``."""

    subscription_id: int


@dataclass(frozen=True, slots=True)
class GetEffect:
    """The second decision of a proposal: what came of it when its approvals were complete."""

    txid: bytes


@dataclass(frozen=True, slots=True)
class GetProposal:
    """A proposal with its proof at a height of at least ``height_min``, and its draft."""

    height_min: int
    txid: bytes


@dataclass(frozen=True, slots=True)
class GetProposals:
    """A page of proposals, from this node's own index: not proved.

    Those that wait for the holder of this connection's key, or with ``agency`` those of its people
    that are in ``state`` (as the ledger numbers them). ``after`` is the ``next`` of a page.
    """

    agency: str | None
    state: int
    after: bytes | None
    limit: int


@dataclass(frozen=True, slots=True)
class Simulate:
    """What would refuse a draft now. ``envelope`` is canonical; its signatures do not count."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Purpose:
    """What the reads of this connection are for, from now on: recorded where rules want it."""

    text: str


@dataclass(frozen=True, slots=True)
class GetSealed:
    """The values behind commitments that a record has, or had."""

    target: StateKey
    commitments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetReads:
    """Whom this node has shown ``target`` to, where the rules want that recorded: not proved."""

    target: StateKey
    skip: int
    limit: int


@dataclass(frozen=True, slots=True)
class GetDisclosed:
    """What disclosures open, with its proof at a height of at least ``height_min``."""

    height_min: int
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GetPast:
    """The statement of a height, and its path to the history root of a later certificate."""

    height: int


@dataclass(frozen=True, slots=True)
class GetBlocks:
    """Certified heights from ``first`` on with all that executing them again takes: not proved."""

    first: int
    count: int


Request = (
    Hello
    | Submit
    | GetDecision
    | Get
    | GetHolds
    | GetIndex
    | ListRecords
    | GetDecisions
    | GetRules
    | GetStatus
    | GetCommittee
    | GetStatements
    | Subscribe
    | Unsubscribe
    | GetEffect
    | GetProposal
    | GetProposals
    | Simulate
    | Purpose
    | GetReads
    | GetReversal
    | GetDisclosed
    | Deliver
    | GetSealed
    | GetBundle
    | GetPast
    | GetBlocks
    | GetHistory
    | GetMoment
)

_ITEM: Final = codec.array(
    codec.integer(Item.ENVELOPE, Item.GROUP), codec.octets(low=1, high=REQUEST_BYTES_MAX)
)

_PARAMS: Final[dict[str, Shape]] = {
    "hello": hello_params,
    "submit": codec.array(codec.boolean, codec.list_of(_ITEM, ITEMS_MAX, low=1)),
    "decision": codec.array(codec.bytes32),
    "get": codec.array(codec.count, codec.list_of(STATE_KEY, KEYS_MAX, low=1)),
    "holds": codec.array(codec.count, STATE_KEY),
    "index": codec.array(
        codec.count,
        codec.text(130, low=3),
        codec.plain,
        codec.integer(0, POSITION_MAX),
        codec.integer(1, INDEX_PAGE_MAX),
    ),
    "list": codec.array(NAME, codec.optional(COMPONENTS), codec.integer(1, PAGE_MAX)),
    "decisions": codec.array(codec.integer(-HEIGHTS_MAX), codec.integer(1, HEIGHTS_MAX)),
    "rules": codec.array(codec.count, codec.optional(NAME), codec.count),
    "status": codec.array(),
    "committee": codec.array(codec.count),
    "statements": codec.array(codec.integer(-HEIGHTS_MAX), codec.integer(1, HEIGHTS_MAX)),
    "subscribe": codec.array(codec.integer(Stream.STATEMENTS, Stream.CHANGES), codec.count),
    "unsubscribe": codec.array(codec.integer(1, REQUEST_ID_MAX)),
    "effect": codec.array(codec.bytes32),
    "proposal": codec.array(codec.count, codec.bytes32),
    "proposals": codec.array(
        codec.optional(codec.array(NAME, codec.integer(0, 15))),
        codec.optional(codec.octets(low=1, high=CURSOR_BYTES_MAX)),
        codec.integer(1, PROPOSALS_MAX),
    ),
    "simulate": codec.array(codec.octets(low=1, high=DRAFT_BYTES_MAX)),
    "purpose": codec.array(codec.text(PURPOSE_BYTES_MAX)),
    "reads": codec.array(STATE_KEY, codec.count, codec.integer(1, READS_MAX)),
    "reversal": codec.array(codec.bytes32),
    "disclosed": codec.array(codec.count, codec.list_of(codec.bytes32, DISCLOSURES_MAX, low=1)),
    "deliver": DELIVERY,
    "sealed": codec.array(STATE_KEY, codec.list_of(codec.bytes32, SEALED_MAX, low=1)),
    "bundle": codec.array(
        codec.bytes32,
        codec.list_of(codec.count, BUNDLE_HEIGHTS_MAX),
        codec.list_of(codec.text(130, low=1), BUNDLE_OPENED_MAX),
    ),
    "past": codec.array(codec.count),
    "blocks": codec.array(codec.count, codec.integer(1, HEIGHTS_MAX)),
    "history": HISTORY,
    "moment": MOMENT,
}
METHODS: Final = tuple(_PARAMS)
_METHOD_OF: Final[dict[type, str]] = dict(zip(get_args(Request), METHODS, strict=True))

_REQUEST_ID: Final = codec.integer(1, REQUEST_ID_MAX)
_METHOD: Final = codec.text(32, low=1)


class UnknownMethod(DecodeError):
    """A well-formed request for something this software does not know."""

    code = "UNSUPPORTED"
    advice = "ask the node's version with `comity node status`; its operator may have to upgrade"

    def __init__(self, request_id: int, method: str) -> None:
        super().__init__(f"unknown method {method!r}", path="request")
        self.request_id = request_id


class BadParams(DecodeError):
    """A request whose id could be read, but whose params are not those of its method."""

    def __init__(self, request_id: int, problem: DecodeError) -> None:
        super().__init__(problem.message)
        self.request_id = request_id


def method_of(request: Request) -> str:
    """Return the name of a request's method."""
    return _METHOD_OF[type(request)]


def encode_request(request_id: int, request: Request) -> bytes:
    """Return the payload of a request."""
    return codec.encode([request_id, method_of(request), _to_params(request)])


def decode_request(payload: bytes) -> tuple[int, Request]:
    """Return the id and the request in a payload.

    Raises:
        UnknownMethod: it is for a method of another version.
        BadParams: the params are malformed; the id can be answered.
        DecodeError: not a request at all.

    Cost: about 5 µs for a submission.
    """
    if len(payload) > REQUEST_BYTES_MAX:
        raise DecodeError(f"{len(payload)} bytes, at most {REQUEST_BYTES_MAX}", path="request")
    value = codec.parse(payload, "request")
    if type(value) is not list or len(value) != 3:
        raise DecodeError("expected an array of 3 items", path="request")
    request_id, method, params = value
    rest = len(payload) - 1 - _REQUEST_ID(request_id, "request id") - _METHOD(method, "method")
    shape = _PARAMS.get(method)
    if shape is None:
        _check_canonical(codec.plain(params, "params"), rest)
        raise UnknownMethod(request_id, method)
    try:
        _check_canonical(shape(params, method), rest)
        return request_id, _from_params(method, params)
    except DecodeError as error:
        raise BadParams(request_id, error) from error


def _check_canonical(size: int, size_found: int) -> None:
    if size != size_found:
        raise DecodeError("not the canonical encoding", path="request")


def _to_params(request: Request) -> Value:
    match request:
        case Submit(wait, items):
            return [wait, [[int(kind), data] for kind, data in items]]
        case Hello():
            return request.to_value()
        case GetDecision(txid) | GetEffect(txid) | GetReversal(txid):
            return [txid]
        case GetBundle(txid, heights, opened):
            return [txid, [*heights], [*opened]]
        case GetProposal(height_min, txid):
            return [height_min, txid]
        case GetProposals(agency, state, after, limit):
            return [None if agency is None else [agency, state], after, limit]
        case Get(height_min, keys):
            return [height_min, [key.to_value() for key in keys]]
        case GetHolds(height_min, target):
            return [height_min, target.to_value()]
        case GetIndex(height_min, index, value, first, limit):
            return [height_min, index, value, first, limit]
        case ListRecords(kind, after, limit):
            return [kind, None if after is None else [*after], limit]
        case GetDecisions(first, count) | GetStatements(first, count) | GetBlocks(first, count):
            return [first, count]
        case GetRules(height_min, domain, number):
            return [height_min, domain, number]
        case GetStatus():
            return []
        case GetCommittee(number) | GetPast(number):
            return [number]
        case Subscribe(stream, from_height):
            return [int(stream), from_height]
        case Unsubscribe(subscription_id):
            return [subscription_id]
        case Simulate(envelope):
            return [envelope]
        case Purpose(text):
            return [text]
        case GetReads(target, skip, limit):
            return [target.to_value(), skip, limit]
        case GetDisclosed(height_min, ids):
            return [height_min, [*ids]]
        case GetSealed(target, commitments):
            return [target.to_value(), [*commitments]]
        case Deliver():
            return request.to_value()
        case GetHistory():
            return request.to_value()
        case GetMoment(time_ms):
            return [time_ms]
        case _:
            assert_never(request)


def _from_params(method: str, params: Value) -> Request:
    match method:
        case "submit":
            return Submit(params[0], tuple((Item(kind), data) for kind, data in params[1]))
        case "hello":
            return read_hello(params)
        case "decision":
            return GetDecision(params[0])
        case "get":
            keys = tuple(key_from(key) for key in params[1])
            if len(set(map(repr, keys))) != len(keys):
                raise DecodeError("a key is asked for twice", path=method)
            return Get(params[0], keys)
        case "holds":
            return GetHolds(params[0], key_from(params[1]))
        case "index":
            return GetIndex(*params)
        case "list":
            return ListRecords(
                params[0], None if params[1] is None else tuple(params[1]), params[2]
            )
        case "decisions":
            return GetDecisions(params[0], params[1])
        case "rules":
            if params[2] and params[1] is None:
                raise DecodeError("a number is one of a domain", path=method)
            return GetRules(params[0], params[1], params[2])
        case "status":
            return GetStatus()
        case "committee":
            return GetCommittee(params[0])
        case "statements":
            return GetStatements(params[0], params[1])
        case "past":
            return GetPast(params[0])
        case "blocks":
            return GetBlocks(params[0], params[1])
        case "effect":
            return GetEffect(params[0])
        case "reversal":
            return GetReversal(params[0])
        case "bundle":
            return GetBundle(params[0], tuple(params[1]), tuple(params[2]))
        case "proposal":
            return GetProposal(params[0], params[1])
        case "proposals":
            agency, state = params[0] or (None, 0)
            return GetProposals(agency, state, params[1], params[2])
        case "subscribe":
            return Subscribe(Stream(params[0]), params[1])
        case "simulate":
            return Simulate(params[0])
        case "purpose":
            return Purpose(params[0])
        case "disclosed":
            if len(dict.fromkeys(params[1])) != len(params[1]):
                raise DecodeError("a disclosure is asked for twice", path=method)
            return GetDisclosed(params[0], tuple(params[1]))
        case "deliver":
            return read_delivery(params)
        case "sealed":
            return GetSealed(key_from(params[0]), tuple(params[1]))
        case "reads":
            return GetReads(key_from(params[0]), params[1], params[2])
        case "history":
            return history_from(params)
        case "moment":
            return GetMoment(params[0])
        case _:
            return Unsubscribe(params[0])
