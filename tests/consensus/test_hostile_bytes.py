"""Every decoder of ``consensus`` on bytes from an enemy: its documented error, in bounded memory.

The samples are honest encodings, most of them of the vectors. They are cut, extended, changed byte
by byte and item by item, nested and given huge lengths. Whatever is accepted encodes to the very
bytes that were accepted.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import pytest

from consensus import answers, changed, codec, genesis, keyfile, protocol, reads
from consensus.codec import Value
from consensus.errors import ComityError, CopyError, DecodeError, KeyFileError, ProofError
from consensus.hotstuff import wire
from consensus.ledger import batch, decision, transaction
from consensus.ledger.group import Group
from consensus.ledger.rules import decode_definition, encode_definition, load_toml
from consensus.state import proof
from tests.consensus.ledger.test_executor_hostile import LAB
from tests.consensus.ledger.world import DEFAULT, TEXTS

_VECTORS = Path(__file__).parent.parent / "vectors"
LIMITS = genesis.Limits()
MEMORY_PER_BYTE = 100
"""An empty array costs one byte on the wire and 56 in memory, its place in another array 8."""
MEMORY_BASE = 256 * 1024


def vectors(name: str) -> Any:
    return json.loads((_VECTORS / f"{name}.json").read_text())


CONSENSUS, TRANSACTION, STATE = vectors("consensus"), vectors("transaction"), vectors("state")
CHAIN = bytes.fromhex(TRANSACTION["chain"])


@dataclass(frozen=True)
class Decoder:
    """``decode`` gives the canonical bytes of what it accepted, or None where it keeps none."""

    name: str
    decode: Callable[[bytes], bytes | None]
    samples: Sequence[bytes]
    errors: tuple[type[ComityError], ...] = (DecodeError,)


def of(rows: Any, key: str = "cbor") -> list[bytes]:
    return [bytes.fromhex(row[key]) for row in rows]


def item_bytes(data: bytes) -> bytes:
    item = batch.decode_item(CHAIN, data)
    if isinstance(item, Group):
        return codec.encode(item.to_value())
    return codec.encode(transaction.to_value(item))


def checked_proof(data: bytes) -> bytes:
    found = proof.decode(data)
    row = STATE["proofs"][0]
    proof.check(found, bytes.fromhex(row["state_root"]), [bytes.fromhex(k) for k in row["keys"]])
    return found.encode()


def header(data: bytes) -> None:
    batch.read_header(data)


def request(data: bytes) -> bytes | None:
    """A request; of a hello in another version nothing is kept but that."""
    number, found = protocol.decode_request(data)
    if isinstance(found, protocol.Hello) and found.version != protocol.VERSION:
        assert found == protocol.Hello(found.version, b"")
        return None
    return protocol.encode_request(number, found)


def answer(data: bytes) -> None:
    """Every reader of answers, on whatever an answer holds."""
    result = answers.decode_answer(data).result
    for read in READERS:
        try:
            read(result)
        except DecodeError:
            continue


READERS: tuple[Callable[[Value], object], ...] = (
    answers.read_problem,
    answers.read_greeting,
    answers.read_welcome,
    answers.read_statement,
    answers.read_tickets,
    answers.read_receipts,
    answers.read_decision,
    answers.read_decisions,
    answers.read_heights,
    answers.read_height_event,
    changed.read_part,
    answers.read_status,
    answers.read_committees,
    reads.read_rows,
    reads.read_page,
    reads.read_rules,
)


BATCHES = TRANSACTION["batches"]
PAIRS = [codec.encode([bytes.fromhex(b["public"]), bytes.fromhex(b["private"])]) for b in BATCHES]
_pair = codec.array(codec.octets(), codec.octets())


def whole_batch(data: bytes) -> bytes:
    public, private = codec.decode(data, _pair, bytes_max=2**20)
    found = batch.decode(CHAIN, public, private, LIMITS)
    return codec.encode([found.public, batch.encode_private(found.transactions)])


def public_batch(data: bytes) -> bytes:
    found = batch.decode_public(CHAIN, data, LIMITS)
    return batch.encode_public(found.origin, found.number, found.lane, found.items)


DECODERS = [
    Decoder("message", lambda d: wire.encode_message(wire.decode_message(d)),
            of(CONSENSUS["message"])),
    Decoder("block", lambda d: wire.encode_block(wire.decode_block(d)), of(CONSENSUS["block"])),
    Decoder("commit cert", lambda d: wire.encode_commit_cert(wire.decode_commit_cert(d)),
            of(CONSENSUS["commit-cert"])),
    Decoder("record", lambda d: wire.encode_record(wire.decode_record(d)),
            of(CONSENSUS["safety-record"])),
    Decoder("body", lambda d: transaction.decode_body(CHAIN, d).body,
            of(TRANSACTION["transactions"], "body")),
    Decoder("item", item_bytes,
            of(TRANSACTION["transactions"], "envelope") + of(TRANSACTION["groups"]),
            (DecodeError, CopyError)),
    Decoder("public batch", public_batch, of(BATCHES, "public")),
    Decoder("batch", whole_batch, PAIRS, (DecodeError, CopyError)),
    Decoder("batch header", header, of(BATCHES, "public")),
    Decoder("decision", lambda d: decision.decode(d).encode(),
            of(vectors("decision")["decisions"], "encoded")),
    Decoder("rules", lambda d: encode_definition(decode_definition(d)),
            of(vectors("rules"), "encoded")),
    Decoder("proof", checked_proof, of(STATE["proofs"], "proof"), (DecodeError, ProofError)),
    Decoder("genesis", lambda d: genesis.decode(d).encode(), [DEFAULT.encode()]),
    Decoder("key file", lambda d: keyfile.pack(keyfile.read(d)),
            [keyfile.pack(keyfile.from_seed(keyfile.KeyKind.CLIENT, bytes(32)))],
            (KeyFileError,)),
    Decoder("request", request, [
        protocol.encode_request(7, protocol.GetHolds(0, protocol.StateKey("key", (b"x",)))),
        protocol.encode_request(8, protocol.GetStatus()),
        protocol.encode_request(1, protocol.Hello(protocol.VERSION, CHAIN)),
        protocol.encode_request(1, protocol.Hello(
            protocol.VERSION, CHAIN, bytes(32), bytes(64), release="0.1.0")),
        codec.encode([1, "hello", [protocol.VERSION + 1, ["whatever", b"comes"]]]),
    ]),
    Decoder("answer", answer, [
        answers.encode_answer(1, protocol.Status.OK, [1, [], b"x"]),
        answers.encode_answer(2, protocol.Status.OK, [[1, b"x" * 32], ["text", [1, 2]]]),
    ]),
]  # fmt: skip


def feed(decoder: Decoder, data: bytes) -> None:
    """Decode hostile bytes: a documented error, or the value of exactly these bytes."""
    try:
        again = decoder.decode(data)
    except decoder.errors:
        return
    assert again is None or again == data


# --- hostile variants ---------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 1.5, float("nan"),
    b"", b"x", bytes(32), bytes(64), "", "x", "e\u0301", "t" * 5000, [], [[]], {}, {"a": 1}, {1: 2},
    cbor2.CBORTag(2, b"\x01"), cbor2.CBORTag(4, [9, 9]), cbor2.CBORSimpleValue(99), cbor2.undefined,
)  # fmt: skip


def spoil(random: Random, value: Any) -> Any:
    """Return the value with one place inside it changed to something that does not belong."""
    if isinstance(value, bytes) and random.random() < 0.6:
        try:
            inner = codec.parse(value)
        except DecodeError:
            inner = None
        if isinstance(inner, list):
            return cbor2.dumps(spoil(random, inner), canonical=True)
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        changed = {**value, key: spoil(random, value[key])}
        if random.random() < 0.1:
            del changed[key]
        return changed
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        match random.randrange(10):
            case 0:
                return [*value[:at], *value[at + 1 :]]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case 2:
                return [*value, random.choice(ODD)]
            case 3:
                return [*value[at:], *value[:at]]
        return [*value[:at], spoil(random, value[at]), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and random.random() < 0.4:
        return value + random.choice((-1, 1, 2**32))
    if isinstance(value, bytes | str) and random.random() < 0.3:
        return value[:-1] if random.random() < 0.5 else value + value[:1]
    return random.choice(ODD)


def bytewise(random: Random, data: bytes) -> bytes:
    """Return the bytes with one of them changed, removed or added."""
    at = random.randrange(len(data))
    match random.randrange(4):
        case 0:
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + 1 :]
        case 2:
            head = random.choice((0x00, 0x18, 0x5F, 0x9F, 0xC2, 0xFB, 0xFF))
            return data[:at] + bytes([head]) + data[at:]
    other = random.randrange(len(data))
    return data[:at] + data[other : other + 8] + data[at:]


named = pytest.mark.parametrize("decoder", DECODERS, ids=lambda each: each.name)


@named
def test_samples_are_accepted(decoder: Decoder) -> None:
    accepted = 0
    for sample in decoder.samples:
        try:
            again = decoder.decode(sample)
        except (ProofError, DecodeError):
            continue  # a proof of another vector's root
        assert again is None or again == sample
        accepted += 1
    assert accepted


@named
def test_cut_and_extended_bytes_are_refused(decoder: Decoder) -> None:
    random = Random(decoder.name)
    for sample in decoder.samples:
        places = range(len(sample))
        for cut in random.sample(places, min(len(places), 40)):
            feed(decoder, sample[:cut])
        for tail in (b"\0", b"\xf6", b"\xff", sample[:1], sample):
            feed(decoder, sample + tail)


@named
def test_changed_bytes_are_refused_or_canonical(decoder: Decoder) -> None:
    random = Random(decoder.name)
    for _ in range(250):
        sample = random.choice(decoder.samples)
        changed = bytewise(random, sample)
        feed(decoder, bytewise(random, changed) if random.random() < 0.3 else changed)


@named
def test_changed_values_are_refused_or_canonical(decoder: Decoder) -> None:
    random = Random(decoder.name)
    for _ in range(250):
        sample = random.choice(decoder.samples)
        try:
            value = codec.parse(sample)
        except DecodeError:
            value = [sample]
        feed(decoder, cbor2.dumps(spoil(random, value), canonical=random.random() < 0.9))


@named
def test_garbage_is_refused(decoder: Decoder) -> None:
    random = Random(decoder.name)
    for length in (*range(20), 100, 1000):
        for _ in range(5):
            feed(decoder, random.randbytes(length))


def huge(data: bytes, at: int, major: int, length: int) -> bytes:
    return data[:at] + bytes([major << 5 | 27]) + length.to_bytes(8, "big") + data[at + 1 :]


@named
def test_huge_lengths_and_deep_nesting_take_no_memory(decoder: Decoder) -> None:
    random = Random(decoder.name)
    sample = max(decoder.samples, key=len)
    hostile = [b"\x81" * 100_000, b"\xc2" * 100_000, b"\x9f" * 100_000, b"\xa1\x00" * 50_000]
    hostile += [sample[:1] + b"\x81" * 50_000, b"\x80" * 1000, b"\x9a\x00\xff\xff\xff" * 1000]
    for major in (2, 3, 4, 5):
        for length in (2**16, 2**31, 2**32, 2**62, 2**64 - 1):
            hostile.append(huge(sample, random.randrange(min(len(sample), 60)), major, length))
    for data in hostile:
        tracemalloc.start()
        try:
            feed(decoder, data)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak_bytes < MEMORY_BASE + MEMORY_PER_BYTE * len(data)


def test_a_long_list_of_nothing_costs_a_fixed_factor() -> None:
    data = b"\x99\xc3\x50" + b"\x80" * 50_000
    tracemalloc.start()
    with pytest.raises(DecodeError):
        batch.decode_public(CHAIN, data, LIMITS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MEMORY_BASE + MEMORY_PER_BYTE * len(data)


def test_a_rule_set_of_the_laboratory_and_of_the_world_is_read() -> None:
    for text in (*TEXTS, LAB):
        data = encode_definition(load_toml(text))
        assert encode_definition(decode_definition(data)) == data
