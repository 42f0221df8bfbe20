"""Sealed values on the chain: commitments, acknowledgements, and every wrong one."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import pycddl
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from consensus import codec
from consensus.audit import heights
from consensus.codec import Value
from consensus.errors import DecodeError, SignatureError, VerificationError
from consensus.genesis import Limits
from consensus.ledger import batch, private, sealing
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.group import Group
from consensus.ledger.sealing import Opening
from consensus.ledger.transaction import PROPOSE, Ack, Transaction
from consensus.signing import verify
from node.verifier_worker import BAD_SIGNATURE, MALFORMED, Judge
from tests.consensus.ledger.world import CHARTER, TEXTS, World, _seed, make_genesis, public_key

FILES = """\
domain = "files"
number = 1
legal_basis = "Files Act"

[kinds.file]
fields.iban     = { type = "text", sealed_for = ["treasury"], optional = true }
fields.findings = { type = "text", sealed_for = ["registry", "audit"], optional = true }
fields.since    = { type = "month" }

[actions.open]
actor  = { role = "payments.clerk" }
inputs = { name = "text", since = "month", iban = "sealed:treasury?", findings = "sealed:audit,registry?" }
create = [ { kind = "file", id = ["{input.name}"], set = { since = "input.since", iban = "input.iban", findings = "input.findings" } } ]

[actions.note]
actor  = { role = "payments.clerk" }
inputs = { name = "text", iban = "sealed:treasury" }
load   = [ ["file", "file/{input.name}"] ]
set    = [ { record = "file", fields = { iban = "input.iban" } } ]

[actions.copy]
actor  = { role = "payments.clerk" }
inputs = { name = "text", to = "text" }
load   = [ ["file", "file/{input.name}"], ["other", "file/{input.to}"] ]
require = [ { code = "NONE", that = "has(file.iban)", say = "there is none" } ]
set    = [ { record = "other", fields = { iban = "file.iban" } } ]

[actions.plain]
actor  = { role = "payments.clerk" }
inputs = { name = "text" }
"""
TEXTS_OF_FILES = (CHARTER, FILES, *TEXTS[1:])
GENESIS = make_genesis(TEXTS_OF_FILES)
SALT = b"s" * 32
SINCE = 24_312
SEALED = {2: ("treasury",), 3: ("audit", "registry")}
"""Position of each sealed input of ``files.open`` -> its audience."""


def world() -> World:
    return World(GENESIS)


def node_key(agency: str) -> tuple[bytes, bytes]:
    """Return public key and secret of an agency's node."""
    public, secret = nacl.bindings.crypto_sign_seed_keypair(_seed(f"node {agency}".encode()))
    return bytes(public), bytes(secret)


def signed_by(agency: str, message: bytes) -> bytes:
    return bytes(nacl.bindings.crypto_sign(message, node_key(agency)[1])[:64])


def number(at: World, author: str = "clerk") -> int:
    return at.sequences.get(author, 0) + 1


def opening(
    at: World, value: Value, call: int = 0, input_: int = 2, author: str = "clerk"
) -> Opening:
    slot = private.slot(at.ledger.chain, public_key(author), number(at, author))
    return Opening(SALT, slot, call, input_, value)


def ack(at: World, found: Opening, agency: str, **changes: object) -> Ack:
    """Return what the node of an agency says of a value; ``changes`` replace parts of it."""
    message = sealing.delivery_message(
        at.ledger.chain, found.slot, found.commitment, found.call, found.input
    )
    parts: dict[str, object] = {
        "call": found.call,
        "input": found.input,
        "agency": agency,
        "node_key": node_key(agency)[0],
        "signature": signed_by(agency, message),
    }
    return Ack(**{**parts, **changes})  # type: ignore[arg-type]


def acks_of(at: World, *openings: Opening) -> list[Ack]:
    return [ack(at, each, agency) for each in openings for agency in SEALED[each.input]]


def open_file(at: World, name: str, *openings: Opening, acks: list[Ack]) -> Transaction:
    values: dict[int, Value] = {each.input: each.commitment for each in openings}
    call = ("files.open", name, SINCE, values.get(2), values.get(3))
    return at.draft("clerk", call, expects=[("file", [name], 0)], acks=acks)


def decide(at: World, *openings: Opening, acks: list[Ack]) -> Decision:
    return at.one(open_file(at, "a", *openings, acks=acks))


# --- the commitment -----------------------------------------------------------------------------


def test_commitment_is_the_hash_of_salt_place_and_value() -> None:
    found = Opening(SALT, b"p" * 32, 1, 2, "DE02 1203")
    hasher = blake3(derive_key_context="comity 2026-11-21 sealed value v1")
    hasher.update(SALT + cbor2.dumps([b"p" * 32, 1, 2, "DE02 1203"]))
    assert found.commitment == hasher.digest()
    found.check(hasher.digest())


@pytest.mark.parametrize(
    "other",
    [
        Opening(b"t" * 32, b"p" * 32, 1, 2, "a"),
        Opening(SALT, b"q" * 32, 1, 2, "a"),
        Opening(SALT, b"p" * 32, 0, 2, "a"),
        Opening(SALT, b"p" * 32, 1, 3, "a"),
        Opening(SALT, b"p" * 32, 1, 2, "b"),
    ],
)
def test_every_part_is_committed_to(other: Opening) -> None:
    with pytest.raises(VerificationError):
        other.check(Opening(SALT, b"p" * 32, 1, 2, "a").commitment)


def test_delivery_message_binds_chain_place_and_commitment() -> None:
    made = sealing.delivery_message(b"C" * 32, b"P" * 32, b"c" * 32, 1, 2)
    assert made == b"comity delivery\0" + b"C" * 32 + b"P" * 32 + b"c" * 32 + b"\1\2"


@pytest.mark.parametrize("value", ["x" * 16_381, [1, "a", b"b", [True]], 0, False, ""])
def test_value_that_may_be_sealed(value: Value) -> None:
    made = Opening(SALT, b"p" * 32, 0, 0, value)
    decoded = codec.decode(
        codec.encode(made.to_value()),
        sealing.OPENING,
        bytes_max=sealing.OPENING_BYTES_MAX,
        what="o",
    )
    assert sealing.read_opening(decoded) == made


@pytest.mark.parametrize("value", ["x" * 16_384, None, [b"y" * 4096] * 4])
def test_value_that_is_too_long_or_nothing_is_refused(value: Value) -> None:
    with pytest.raises(DecodeError):
        sealing.read_opening([SALT, b"p" * 32, 0, 0, value])


@given(st.binary(max_size=200))
def test_openings_are_decoded_strictly(data: bytes) -> None:
    try:
        value = codec.decode(data, sealing.OPENING, bytes_max=100, what="opening")
    except DecodeError:
        return
    assert codec.encode(sealing.read_opening(value).to_value()) == data


# --- acknowledged -------------------------------------------------------------------------------


def test_delivered_values_leave_their_commitments_in_the_record() -> None:
    at = world()
    iban, findings = opening(at, "DE02"), opening(at, "none", input_=3)
    decision = decide(at, iban, findings, acks=acks_of(at, iban, findings))
    assert decision.code == Code.APPLIED, decision.detail
    record = at.record("file", ["a"])
    assert record.fields["iban"] == iban.commitment
    assert record.fields["findings"] == findings.commitment


def test_absent_sealed_input_needs_no_delivery() -> None:
    at = world()
    assert decide(at, acks=[]).code == Code.APPLIED


def test_commitment_is_copied_by_rules_without_delivery() -> None:
    at = world()
    iban = opening(at, "DE02")
    assert decide(at, iban, acks=acks_of(at, iban)).code == Code.APPLIED
    assert at.one(open_file(at, "b", acks=[])).code == Code.APPLIED
    copied = at.do("clerk", "files.copy", "a", "b", expects=[("file", ["b"], 1)])
    assert copied.code == Code.APPLIED, copied.detail
    assert at.record("file", ["b"]).fields["iban"] == iban.commitment


def test_several_calls_each_need_their_own() -> None:
    at = world()
    one, two = opening(at, "A", 0, 2), opening(at, "B", 1, 2)
    calls = [
        ("files.open", name, SINCE, each.commitment, None)
        for name, each in (("a", one), ("b", two))
    ]
    expects = [("file", [name], 0) for name in "ab"]
    decision = at.one(at.draft("clerk", *calls, expects=expects, acks=acks_of(at, two, one)))
    assert decision.code == Code.APPLIED, decision.detail
    again, other = opening(at, "A", 0, 2), opening(at, "B", 1, 2)
    calls = [
        ("files.open", name, SINCE, each.commitment, None)
        for name, each in (("c", again), ("d", other))
    ]
    expects = [("file", [name], 0) for name in "cd"]
    decision = at.one(at.draft("clerk", *calls, expects=expects, acks=acks_of(at, again)))
    assert (decision.code, decision.call) == (Code.NOT_DELIVERED, 1)
    assert decision.detail == [[1, "iban", "treasury"]]


# --- not delivered ------------------------------------------------------------------------------


def test_missing_acknowledgements_are_all_named() -> None:
    at = world()
    iban, findings = opening(at, "DE02"), opening(at, "none", input_=3)
    decision = decide(at, iban, findings, acks=[ack(at, findings, "audit")])
    assert decision.code == Code.NOT_DELIVERED
    assert decision.detail == [[0, "iban", "treasury"], [0, "findings", "registry"]]
    assert decision.call == 0


def test_acknowledgement_by_another_key_than_the_agencys_does_not_count() -> None:
    at = world()
    iban = opening(at, "DE02")
    message = sealing.delivery_message(at.ledger.chain, iban.slot, iban.commitment, 0, 2)
    for other in ("audit", "services"):
        wrong = ack(
            at, iban, "treasury", node_key=node_key(other)[0], signature=signed_by(other, message)
        )
        Judge(at.ledger.chain, Limits()).check_item(
            envelope(open_file(at, "a", iban, acks=[wrong]))
        )
        at.sequences["clerk"] -= 1
        assert decide(at, iban, acks=[wrong]).detail == [[0, "iban", "treasury"]]
        iban = opening(at, "DE02")
        message = sealing.delivery_message(at.ledger.chain, iban.slot, iban.commitment, 0, 2)


def test_acknowledgement_by_an_agency_outside_the_audience_is_refused() -> None:
    at = world()
    iban = opening(at, "DE02")
    decision = decide(at, iban, acks=[*acks_of(at, iban), ack(at, iban, "services")])
    assert (decision.code, decision.detail) == (
        Code.BAD_INPUT, ["acks", "input 2 is not sealed for services"],
    )  # fmt: skip


def test_acknowledgement_of_an_action_without_sealed_inputs_is_refused() -> None:
    at = world()
    wrong = Ack(0, 0, "treasury", node_key("treasury")[0], bytes(64))
    decision = at.one(at.draft("clerk", ("files.plain", "x"), acks=[wrong]))
    assert (decision.code, decision.detail[0]) == (Code.BAD_INPUT, "acks")


def test_agency_without_a_node_can_acknowledge_nothing() -> None:
    texts = (
        CHARTER,
        FILES.replace("sealed:treasury", "sealed:nobody").replace('["treasury"]', '["nobody"]'),
    )
    at = World(make_genesis((*texts, *TEXTS[1:])))
    iban = opening(at, "DE02")
    assert decide(at, iban, acks=[ack(at, iban, "nobody")]).detail == [[0, "iban", "nobody"]]


def test_proposal_without_delivery_is_not_stored() -> None:
    at = world()
    iban = opening(at, "DE02")
    call = ("files.open", "a", SINCE, iban.commitment, None)
    expects = [("file", ["a"], 0)]
    refused = at.one(at.draft("clerk", call, expects=expects, mode=PROPOSE))
    assert (refused.code, refused.detail) == (Code.NOT_DELIVERED, [[0, "iban", "treasury"]])
    iban = opening(at, "DE02")
    call = ("files.open", "a", SINCE, iban.commitment, None)
    stored = at.one(at.draft("clerk", call, expects=expects, acks=acks_of(at, iban), mode=PROPOSE))
    assert stored.code == Code.PROPOSED
    assert at.record("file", ["a"]).fields["iban"] == iban.commitment


# --- replayed and forged ------------------------------------------------------------------------


def envelope(found: Transaction, author: str = "clerk") -> bytes:
    _, secret = nacl.bindings.crypto_sign_seed_keypair(_seed(author.encode()))
    message = b"comity transaction\0" + World(GENESIS).ledger.chain + found.txid
    signature = bytes(nacl.bindings.crypto_sign(message, secret)[:64])
    return codec.encode([found.body, [signature], [list(found.openings), found.seed]])


def verdict(at: World, found: Transaction, author: str = "clerk") -> tuple[int, str]:
    judged = Judge(at.ledger.chain, Limits()).judge_item(envelope(found, author))
    return judged.code, judged.message


def test_signatures_of_acknowledgements_are_among_those_of_the_transaction() -> None:
    at = world()
    iban = opening(at, "DE02")
    made = open_file(at, "a", iban, acks=acks_of(at, iban))
    found = batch.messages(at.ledger.chain, [batch.decode_item(at.ledger.chain, envelope(made))])
    assert len(found) == 2
    for key, message, signature in found:
        verify(key, message, signature)
    judge = Judge(at.ledger.chain, Limits())
    judge.check_item(envelope(made))
    judge.check_item(envelope(made))
    assert judge.signatures == 2  # each once a node


def test_every_acknowledgement_of_a_call_is_among_its_signatures() -> None:
    at = world()
    found = opening(at, ["a", 1], input_=3)
    made = open_file(at, "a", found, acks=acks_of(at, found))
    signed = batch.messages(at.ledger.chain, [batch.decode_item(at.ledger.chain, envelope(made))])
    keys = [key for key, _, _ in signed]
    assert keys == [public_key("clerk"), *(node_key(agency)[0] for agency in SEALED[3])]
    for key, message, signature in signed:
        verify(key, message, signature)


def test_every_transaction_of_a_block_is_judged_by_the_same_nodes() -> None:
    at = world()
    acts = []
    for name in ("a", "b"):
        iban = opening(at, "DE02")
        acts.append(open_file(at, name, iban, acks=acks_of(at, iban)))
    bare = opening(at, "DE02")
    acts.append(open_file(at, "c", bare, acks=[]))
    codes = [each.code for each in at.run(*acts).decisions]
    assert codes == [Code.APPLIED, Code.APPLIED, Code.NOT_DELIVERED]


def test_where_deliveries_are_not_judged_none_is_missed() -> None:
    at = world()
    iban = opening(at, "DE02")
    act = open_file(at, "a", iban, acks=[])
    context = BlockContext(1, 1, at.now_ms + 1000)
    ledger = at.ledger.apart()
    for nodes, code in ((ledger.nodes, Code.NOT_DELIVERED), (None, Code.APPLIED)):
        ledger.nodes = nodes
        [decision] = BlockRun(ledger, at.state, context, [act]).finish().decisions
        assert decision.code == code


@pytest.mark.parametrize("what", ["chain", "author", "sequence", "call", "input", "value", "tag"])
def test_acknowledgement_of_something_else_does_not_verify(what: str) -> None:
    at = world()
    iban = opening(at, "DE02")
    chain, slot, commitment, call, input_ = at.ledger.chain, iban.slot, iban.commitment, 0, 2
    match what:
        case "chain":
            chain = b"C" * 32
        case "author":
            slot = private.slot(chain, public_key("officer"), number(at))
        case "sequence":
            slot = private.slot(chain, public_key("clerk"), number(at) + 1)
        case "call":
            call = 1
        case "input":
            input_ = 3
        case "value":
            commitment = Opening(SALT, slot, 0, 2, "DE03").commitment
    message = sealing.delivery_message(chain, slot, commitment, call, input_)
    if what == "tag":
        message = b"comity session\0" + message.partition(b"\0")[2]
    wrong = ack(at, iban, "treasury", signature=signed_by("treasury", message))
    code, _ = verdict(at, open_file(at, "a", iban, acks=[wrong]))
    assert code == BAD_SIGNATURE


def test_commitment_of_somebody_elses_transaction_cannot_be_used_again() -> None:
    at = world()
    iban = opening(at, "DE02")
    acks = acks_of(at, iban)
    assert decide(at, iban, acks=acks).code == Code.APPLIED
    code, message = verdict(at, open_file(at, "b", iban, acks=acks))
    assert (code, message) == (BAD_SIGNATURE, "the signature does not verify")


def test_acknowledgement_of_no_commitment_is_malformed() -> None:
    at = world()
    for input_ in (0, 3, 63):
        wrong = Ack(0, input_, "treasury", node_key("treasury")[0], bytes(64))
        code, message = verdict(at, open_file(at, "a", acks=[wrong]))
        assert (code, "no commitment" in message) == (MALFORMED, True)


def test_batch_of_a_wrong_acknowledgement_is_rejected() -> None:
    at = world()
    iban = opening(at, "DE02")
    wrong = ack(at, iban, "treasury", signature=bytes(64))
    item = batch.decode_item(at.ledger.chain, envelope(open_file(at, "a", iban, acks=[wrong])))
    made = batch.build(0, 1, 0, [item])
    with pytest.raises(SignatureError):
        Judge(at.ledger.chain, Limits()).check_batch(made.public, made.private)


def test_auditor_names_the_transaction_whose_acknowledgement_does_not_verify() -> None:
    at = world()
    iban = opening(at, "DE02")
    wrong = ack(at, iban, "treasury", signature=bytes(64))
    item = batch.decode_item(at.ledger.chain, envelope(open_file(at, "a", iban, acks=[wrong])))
    assert isinstance(item, Transaction)
    _, (key, message, signature) = batch.messages(at.ledger.chain, [item])
    with pytest.raises(SignatureError) as caught:
        verify(key, message, signature)
    problem = heights._unsigned(item, key, message, 7, caught.value)
    assert (problem.index, problem.txid) == (7, item.txid)
    assert "did not acknowledge a sealed value" in problem.message
    group = Group((), 2, 0, (), (open_file(at, "b", acks=[]), item), bytes(32))
    problem = heights._unsigned(group, key, message, 7, caught.value)
    assert (problem.index, problem.txid) == (8, item.txid)


def test_value_hidden_in_the_state_is_nowhere_in_transaction_or_state() -> None:
    at = world()
    iban = opening(at, "DE02 1203 0000 0000 2020 51")
    made = open_file(at, "a", iban, acks=acks_of(at, iban))
    result = at.run(made)
    everything = b"".join([envelope(made), *[each.row for each in result.writes],
                           *[each.encode() for each in result.decisions]])  # fmt: skip
    assert SALT not in everything
    assert b"DE02 1203" not in everything
    assert iban.commitment in everything


def test_node_of_a_successor_receives_for_the_agency_that_left() -> None:
    names = ("name_successor", "accept_succession")
    charter = CHARTER + "\n".join(
        f'[actions.{name}]\nkernel = true\nactor = {{ role = "charter.admin" }}\n' for name in names
    )
    at = World(make_genesis((charter, FILES, *TEXTS[1:])))
    before = [("agency", ["registry"], 1)]
    assert (
        at.do("admin", "charter.name_successor", "registry", "services", expects=before).code == 0
    )
    both = [("agency", ["services"], 1), ("agency", ["registry"], 2)]
    done = at.do("admin", "charter.accept_succession", "services", "registry", expects=both)
    assert done.code == Code.APPLIED, done.detail
    found = opening(at, "none", input_=3)
    own = [ack(at, found, "audit"), ack(at, found, "registry")]
    assert decide(at, found, acks=own).detail == [[0, "findings", "registry"]]
    found = opening(at, "none", input_=3)
    message = sealing.delivery_message(at.ledger.chain, found.slot, found.commitment, 0, 3)
    instead = ack(at, found, "registry", node_key=node_key("services")[0],
                  signature=signed_by("services", message))  # fmt: skip
    decision = decide(at, found, acks=[ack(at, found, "audit"), instead])
    assert decision.code == Code.APPLIED, decision.detail


# --- vectors ------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests/vectors/transaction.json").read_text())
CDDL = (ROOT / "docs/protocol/transaction.cddl").read_text()


@pytest.mark.parametrize("case", VECTORS["sealed"], ids=lambda case: case["name"])
def test_vector_of_a_sealed_value(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["opening"])
    pycddl.Schema(f"root = sealed-opening\n{CDDL}").validate_cbor(data)
    found = sealing.read_opening(
        codec.decode(data, sealing.OPENING, bytes_max=sealing.OPENING_BYTES_MAX, what="opening")
    )
    assert (found.salt.hex(), found.slot.hex()) == (case["salt"], case["slot"])
    assert (found.call, found.input, found.value) == (case["call"], case["input"], case["value"])
    assert found.commitment.hex() == case["commitment"]
    chain = bytes.fromhex(VECTORS["chain"])
    message = sealing.delivery_message(chain, found.slot, found.commitment, found.call, found.input)
    assert message.hex() == case["message"]
    key, _ = nacl.bindings.crypto_sign_seed_keypair(bytes.fromhex(case["node_seed"]))
    verify(key, message, bytes.fromhex(case["signature"]))


def test_acknowledgements_of_the_vector_verify() -> None:
    chain = bytes.fromhex(VECTORS["chain"])
    (case,) = [each for each in VECTORS["transactions"] if "acks" in each["names"]]
    found = batch.messages(chain, [batch.decode_item(chain, bytes.fromhex(case["envelope"]))])
    assert len(found) == len(case["signatures"]) + 1
    for key, message, signature in found:
        verify(key, message, signature)
