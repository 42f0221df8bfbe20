"""A transaction: what its author and cosigners signed, and the private part beside it.

    envelope = [body, [signature, ...], private]         body: a byte string
    body     = [1, author_key, sequence, not_after_ms, mode, [cosigner_key, ...],
                [[domain, action, action_id, protective], ...], private_root]
    private  = [[opening, ...], seed]                    opening: encoded value of one salted leaf
    leaves   in0, in1, ...   [[value, ...], params hash]       one a call
             context         [[[[kind, id], version], ...], [grant id, ...]]
             reason          text                              left out when there is nothing to say
             acks            [[call, input, agency, node key, signature], ...]

``txid = H_tx(chain ‖ body)``, over the bytes as received; every signature is over the txid. The
openings are hashed as received and decoded afterwards: nothing is encoded again to be hashed.

Order of the checks, each complete before the next: lengths, shape and canonical form of the body,
number and lengths of signatures, the openings' root, and only then what the openings say. A wrong
root is a bad *copy* (``CopyError``): somebody on the way changed it. What is wrong under the right
root was signed so by the author (``DecodeError``).

Not here: the leaves of the private part (``private``), signatures (``node.verifier`` checks them in
bulk), and everything that depends on state.
Source: docs/protocol/transaction.cddl.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import astuple

from consensus import codec
from consensus.codec import Value
from consensus.errors import CopyError, DecodeError
from consensus.hashing import DIGEST_BYTES, H_TX
from consensus.ledger.private import (
    CALLS_MAX,
    NAME_BYTES_MAX,
    PRIVATE_BYTES_MAX,
    SEED_BYTES,
    check_openings,
    private_root,
    slot,
)
from consensus.signing import KEY_BYTES, SIGNATURE_BYTES, TAG_TRANSACTION, message

VERSION: Final = 1

EXECUTE: Final = 0
"""Mode: judge and carry out at once."""
PROPOSE: Final = 1
"""Mode: store, and carry out when the approvals are complete."""

ORDINARY: Final = 0
PROTECTIVE: Final = 1
"""Lanes: protective transactions travel and execute before ordinary ones."""

COSIGNERS_MAX: Final = 32
BODY_BYTES_MAX: Final = 16 * 1024
ENVELOPE_BYTES_MAX: Final = BODY_BYTES_MAX + PRIVATE_BYTES_MAX + 8192

_ENVELOPE: Final = codec.array(
    codec.octets(low=1, high=BODY_BYTES_MAX),
    codec.list_of(codec.octets(high=SIGNATURE_BYTES), COSIGNERS_MAX + 1, low=1),
    codec.array(
        codec.list_of(codec.octets(low=1, high=PRIVATE_BYTES_MAX), CALLS_MAX + 3, low=2),
        codec.octets(SEED_BYTES),
    ),
)
_KEY_SIZE: Final = 2 + KEY_BYTES
"""Bytes of an encoded key or digest."""
_NAME: Final = codec.text(NAME_BYTES_MAX, low=1)


class Call(msgspec.Struct, frozen=True, gc=False):
    """One use of an action, as its author knew it."""

    domain: str
    action: str
    action_id: bytes
    protective: bool


class Expect(msgspec.Struct, frozen=True):
    """The author read this record (or kernel object) at ``version``; 0 means it was absent."""

    kind: str
    id: list[Value]
    version: int


class Context(msgspec.Struct, frozen=True):
    """What the author relied on: record versions, and the grants (32-byte ids) it acts under."""

    expects: tuple[Expect, ...]
    under: tuple[bytes, ...]


class Ack(msgspec.Struct, frozen=True, gc=False):
    """An audience agency's node signed that it holds the value of a sealed input.

    ``input`` is its position among the inputs of call ``call``; see ``sealing``.
    """

    call: int
    input: int
    agency: str
    node_key: bytes
    signature: bytes


class Transaction(msgspec.Struct, frozen=True):
    """A decoded transaction. ``openings`` and ``seed`` are empty where the private part is absent.

    A msgspec structure, not a dataclass: it is made for every transaction at every node, and costs
    0.3 µs to make against 3.
    """

    txid: bytes
    body: bytes
    """As received, byte for byte."""
    author: bytes
    sequence: int
    not_after_ms: int
    mode: int
    """EXECUTE or PROPOSE."""
    cosigners: tuple[bytes, ...]
    """Ascending, distinct, without the author."""
    calls: tuple[Call, ...]
    private_root: bytes
    signatures: tuple[bytes, ...] = ()
    """The author's, then the cosigners' in their order; empty where the key signed a group."""
    openings: tuple[bytes, ...] = ()
    seed: bytes = b""

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """This one alone: what ``Group.transactions`` is for a group."""
        return (self,)

    @property
    def signers(self) -> tuple[bytes, ...]:
        """Keys that must have signed, in order."""
        return (self.author, *self.cosigners)

    @property
    def lane(self) -> int:
        """ORDINARY or PROTECTIVE; all calls share it."""
        return PROTECTIVE if self.calls[0].protective else ORDINARY

    @property
    def size_bytes(self) -> int:
        """Bytes of body, signatures and private part, without framing."""
        return len(self.body) + sum(map(len, self.signatures)) + sum(map(len, self.openings))

    def signed(self, signatures: Sequence[bytes]) -> Transaction:
        """Return the same transaction with these signatures, one a signer."""
        return self._replaced(tuple(signatures), self.openings, self.seed)

    def opened(self, openings: Sequence[bytes], seed: bytes) -> Transaction:
        """Return the same transaction with this private part, which the caller has checked."""
        return self._replaced(self.signatures, tuple(openings), seed)

    def _replaced(
        self, signatures: tuple[bytes, ...], openings: tuple[bytes, ...], seed: bytes
    ) -> Transaction:
        # Written out: msgspec.structs.replace costs five times as much.
        return Transaction(
            self.txid,
            self.body,
            self.author,
            self.sequence,
            self.not_after_ms,
            self.mode,
            self.cosigners,
            self.calls,
            self.private_root,
            signatures,
            openings,
            seed,
        )

    def inputs(self, index: int) -> tuple[list[Value], bytes]:
        """Return the input values of call ``index`` in declared order and the parameters' hash.

        Cost: about 2 µs, each time.
        """
        values, params = codec.parse(self.openings[index], "inputs")
        return values, params

    @property
    def context(self) -> Context:
        """What the author relied on. Cost: about 3 µs, each time."""
        expects, under = codec.parse(self.openings[len(self.calls)], "context")
        return Context(
            tuple([Expect(kind, id_, version) for (kind, id_), version in expects]), tuple(under)
        )

    @property
    def reason(self) -> str:
        """Why, in the author's words; may be empty."""
        at = len(self.calls) + 1
        return str(codec.parse(self.openings[at], "reason")) if at < len(self.openings) else ""

    @property
    def acks(self) -> tuple[Ack, ...]:
        """Acknowledgements of sealed values, ascending by call, input and agency."""
        at = len(self.calls) + 2
        if at >= len(self.openings):
            return ()
        return tuple([Ack(*row) for row in codec.parse(self.openings[at], "acks")])


def transaction_id(chain: bytes, body: bytes) -> bytes:
    """Return the txid of a body's bytes as received. Cost: 0.8 µs."""
    return H_TX(chain + body)


def signed_message(chain: bytes, txid: bytes) -> bytes:
    """Return the bytes that author and cosigners sign."""
    return message(TAG_TRANSACTION, chain, txid)


# --- decoding ---------------------------------------------------------------------------------


def decode_envelope(chain: bytes, data: bytes) -> Transaction:
    """Return the transaction in untrusted envelope bytes; every signature is present, unverified.

    Raises:
        DecodeError: malformed in any part, or a signature is missing.
        CopyError: the private part does not match the body.
    """
    return from_envelope(chain, codec.parse(data, "envelope"), len(data))


def from_envelope(chain: bytes, value: Value, size_bytes: int) -> Transaction:
    """Return the transaction of ``size_bytes`` untrusted bytes that were parsed; else as above."""
    if size_bytes > ENVELOPE_BYTES_MAX:
        raise DecodeError(
            f"{size_bytes} bytes, at most {ENVELOPE_BYTES_MAX} allowed", path="envelope"
        )
    if _ENVELOPE(value, "envelope") != size_bytes:
        raise DecodeError("not the canonical encoding", path="envelope")
    body, signatures, (openings, seed) = value
    transaction = decode_signed(chain, body, signatures)
    if not all(signatures):
        raise DecodeError("a signature is missing", path="envelope")
    return with_private(chain, transaction, openings, seed)


def decode_signed(chain: bytes, body: bytes, signatures: Sequence[bytes]) -> Transaction:
    """Return the transaction of an untrusted body with its signatures, without private part.

    An empty signature is a slot left to a group; the caller knows whether there is one.

    Raises:
        DecodeError: the body is malformed, or signatures are too few, too many or of wrong length.
    """
    value = _parse_body(body)
    wanted = 1 + len(value[5])
    if len(signatures) != wanted:
        raise DecodeError(f"{len(signatures)} signatures, expected {wanted}", path="envelope")
    for signature in signatures:
        if len(signature) not in (0, SIGNATURE_BYTES):
            raise DecodeError(f"a signature of {len(signature)} bytes", path="envelope")
    return _from_body(value, body, transaction_id(chain, body), tuple(signatures), (), b"")


def decode_body(chain: bytes, body: bytes) -> Transaction:
    """Return the transaction of an untrusted body, with neither signatures nor private part.

    Raises:
        DecodeError: too long, of another shape, not canonical, cosigners not distinct and
            ascending or with the author among them, or calls of both lanes.

    Cost: about 5 µs.
    """
    return _from_body(_parse_body(body), body, transaction_id(chain, body), (), (), b"")


def _parse_body(body: bytes) -> Value:
    if len(body) > BODY_BYTES_MAX:
        raise DecodeError(f"{len(body)} bytes, at most {BODY_BYTES_MAX} allowed", path="body")
    value = codec.parse(body, "body")
    if _check_body(value) != len(body):
        raise DecodeError("not the canonical encoding", path="body")
    return value


def decode_trusted(
    body: bytes,
    signatures: Sequence[bytes],
    openings: Sequence[bytes],
    seed: bytes,
    txid: bytes,
) -> Transaction:
    """Return the transaction of parts that this node has checked before: nothing is verified.

    Cost: about 3 µs.
    """
    return _from_body(
        codec.parse(body, "body"), body, txid, tuple(signatures), tuple(openings), seed
    )


def with_private(
    chain: bytes, transaction: Transaction, openings: Sequence[bytes], seed: bytes
) -> Transaction:
    """Return ``transaction`` with an untrusted private part.

    Raises:
        CopyError: it is not the private part that the body commits to; the sender is to blame.
        DecodeError: it is, and its contents are malformed; the author is to blame.

    Cost: about 4 µs and 2 µs an opening for the root, 5 µs an opening for its contents.
    """
    calls = len(transaction.calls)
    if not calls < len(openings) <= calls + 3:
        raise CopyError(f"{len(openings)} openings for {calls} calls")
    if sum(map(len, openings)) > PRIVATE_BYTES_MAX or len(seed) != SEED_BYTES:
        raise CopyError("the openings or the seed have a length that no private part has")
    kh = slot(chain, transaction.author, transaction.sequence)
    if private_root(kh, calls, openings, seed) != transaction.private_root:
        raise CopyError("the private part does not match the body, or is of another network")
    check_openings(calls, openings)
    return transaction.opened(openings, seed)


def _from_body(
    value: Value,
    body: bytes,
    txid: bytes,
    signatures: tuple[bytes, ...],
    openings: tuple[bytes, ...],
    seed: bytes,
) -> Transaction:
    _, author, sequence, not_after_ms, mode, cosigners, calls, root = value
    return Transaction(
        txid,
        body,
        author,
        sequence,
        not_after_ms,
        mode,
        tuple(cosigners),
        tuple([Call(*call) for call in calls]),
        root,
        signatures,
        openings,
        seed,
    )


def _check_body(value: Value) -> int:
    """Return how many bytes the canonical encoding has, as a ``codec.Shape``.

    Written out, because the generic shapes cost three times as much for every transaction.
    """
    if type(value) is not list or len(value) != 8:
        raise DecodeError("expected an array of 8 items", path="body")
    version, author, sequence, not_after_ms, mode, cosigners, calls, root = value
    if type(version) is not int or version != VERSION:
        raise DecodeError(f"version {VERSION} is the only one", path="body.version")
    if type(author) is not bytes or len(author) != KEY_BYTES:
        raise DecodeError("expected 32 bytes", path="body.author")
    if type(sequence) is not int or not 1 <= sequence <= codec.INT64_MAX:
        raise DecodeError("expected an integer from 1", path="body.sequence")
    if type(not_after_ms) is not int or not 0 <= not_after_ms <= codec.INT64_MAX:
        raise DecodeError("expected an integer from 0", path="body.not_after_ms")
    if type(mode) is not int or mode not in (EXECUTE, PROPOSE):
        raise DecodeError("unknown mode", path="body.mode")
    if type(cosigners) is not list or len(cosigners) > COSIGNERS_MAX:
        raise DecodeError(f"expected up to {COSIGNERS_MAX} keys", path="body.cosigners")
    if cosigners:
        _check_cosigners(author, cosigners)
    if type(calls) is not list or not 1 <= len(calls) <= CALLS_MAX:
        raise DecodeError(f"expected 1 to {CALLS_MAX} calls", path="body.calls")
    size = 3 + 2 * _KEY_SIZE + codec.head_bytes(sequence) + codec.head_bytes(not_after_ms)
    size += codec.HEADS[len(cosigners)] + _KEY_SIZE * len(cosigners) + codec.HEADS[len(calls)]
    for index, call in enumerate(calls):
        size += _check_call(call, index)
        if call[3] is not calls[0][3]:
            raise DecodeError(
                "protective and ordinary calls in one transaction",
                path=f"body.calls[{index}]",
                hint="send the protective calls in a transaction of their own",
            )
    if type(root) is not bytes or len(root) != DIGEST_BYTES:
        raise DecodeError("expected 32 bytes", path="body.private_root")
    return size


def _check_cosigners(author: bytes, cosigners: list[Value]) -> None:
    previous = b""
    for index, key in enumerate(cosigners):
        path = f"body.cosigners[{index}]"
        if type(key) is not bytes or len(key) != KEY_BYTES:
            raise DecodeError("expected 32 bytes", path=path)
        if key <= previous:
            raise DecodeError("cosigners are distinct and ascend", path=path)
        if key == author:
            raise DecodeError("the author does not cosign", path=path)
        previous = key


def _check_call(call: Value, index: int) -> int:
    if type(call) is not list or len(call) != 4:
        raise DecodeError("expected an array of 4 items", path=f"body.calls[{index}]")
    domain, action, action_id, protective = call
    size = 2 + _KEY_SIZE
    for name in (domain, action):
        if type(name) is str and name.isascii() and 0 < len(name) <= NAME_BYTES_MAX:
            length = len(name)
        else:
            _NAME(name, f"body.calls[{index}]")
            length = len(name.encode())
        size += length + codec.HEADS[length]
    if type(action_id) is not bytes or len(action_id) != DIGEST_BYTES:
        raise DecodeError("expected 32 bytes", path=f"body.calls[{index}].action_id")
    if type(protective) is not bool:
        raise DecodeError("expected a bool", path=f"body.calls[{index}].protective")
    return size


# --- making one (clients) ---------------------------------------------------------------------


class Draft(msgspec.Struct, frozen=True):
    """One call to make: the action, its input values in declared order, the parameters' hash."""

    domain: str
    action: str
    action_id: bytes
    inputs: Sequence[Value]
    params: bytes
    protective: bool = False


class Unsigned(msgspec.Struct, frozen=True):
    """A transaction ready to sign: its signers each sign ``message``."""

    transaction: Transaction
    message: bytes


def build(
    chain: bytes,
    author: bytes,
    sequence: int,
    not_after_ms: int,
    calls: Sequence[Draft],
    *,
    seed: bytes,
    expects: Sequence[Expect] = (),
    under: Sequence[bytes] = (),
    reason: str = "",
    acks: Sequence[Ack] = (),
    cosigners: Sequence[bytes] = (),
    mode: int = EXECUTE,
) -> Unsigned:
    """Return a transaction to be signed.

    Args:
        chain: hash of the genesis file.
        author: public key, 32 bytes.
        sequence: a number of this key that was never used, from 1.
        not_after_ms: chain time after which it is refused.
        calls: 1 to 64, all or none.
        seed: 32 fresh random bytes, kept secret until the transaction is sent.
        expects: the version of every record that is written or relied on.
        under: ids of the grants it acts under.
        cosigners: their keys, in any order.
        acks: of sealed values, in any order.

    Raises:
        DecodeError: an argument that no valid transaction may have; the path names it.
    """
    if len(seed) != SEED_BYTES:
        raise DecodeError(f"a seed has {SEED_BYTES} bytes", path="seed")
    openings = [codec.encode([list(call.inputs), call.params]) for call in calls]
    rows = [[[each.kind, each.id], each.version] for each in expects]
    openings.append(codec.encode([rows, list(under)]))
    if reason or acks:
        openings.append(codec.encode(reason))
    if acks:
        openings.append(codec.encode([list(astuple(each)) for each in _ascending(acks)]))
    if sum(map(len, openings)) > PRIVATE_BYTES_MAX:
        raise DecodeError(f"inputs of more than {PRIVATE_BYTES_MAX} bytes", path="calls")
    body = [VERSION, author, sequence, not_after_ms, mode, sorted(cosigners)]
    body.append([[c.domain, c.action, c.action_id, c.protective] for c in calls])
    _check_body([*body, bytes(DIGEST_BYTES)])
    kh = slot(chain, author, sequence)
    root = private_root(kh, len(calls), openings, seed)
    transaction = decode_body(chain, codec.encode([*body, root]))
    transaction = with_private(chain, transaction, openings, seed)
    return Unsigned(transaction, signed_message(chain, transaction.txid))


def _ascending(acks: Sequence[Ack]) -> list[Ack]:
    return sorted(acks, key=lambda each: (each.call, each.input, each.agency.encode()))


def assemble(unsigned: Unsigned, signatures: Sequence[bytes]) -> bytes:
    """Return the envelope: signatures of ``unsigned.transaction.signers`` in that order.

    An empty signature leaves the slot to a group.

    Raises:
        DecodeError: too few, too many, or of a wrong length.
    """
    transaction = unsigned.transaction
    if len(signatures) != len(transaction.signers):
        wanted = len(transaction.signers)
        raise DecodeError(f"{len(signatures)} signatures, expected {wanted}", path="envelope")
    if any(len(signature) not in (0, SIGNATURE_BYTES) for signature in signatures):
        raise DecodeError("a signature has 64 bytes", path="envelope")
    return codec.encode(to_value(transaction.signed(signatures)))


def to_value(transaction: Transaction) -> Value:
    """Return the array of the envelope."""
    return [
        transaction.body,
        list(transaction.signatures),
        [list(transaction.openings), transaction.seed],
    ]
