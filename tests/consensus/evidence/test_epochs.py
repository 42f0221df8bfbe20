"""From the genesis file to the newest committee: nothing joins but what each signed for."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cbor2
import nacl.exceptions
import nacl.signing
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from comity import receipts
from consensus import codec, genesis, signing
from consensus.answers import EpochStep, StatementEvidence
from consensus.committee import Committee
from consensus.errors import CertificateError, ComityError, DecodeError, VerificationError
from consensus.evidence import making, tlog
from consensus.evidence.bundle import EPOCHS_MAX
from consensus.evidence.stages import FailedError
from consensus.evidence.tlog import TlogProof
from consensus.evidence.trust import Chain
from consensus.evidence.verify import verify
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.transaction import Transaction
from consensus.signing import TAG_COMMIT_VOTE
from consensus.state.merkle import RESULTS
from tests.consensus.evidence.town import Town, sign
from tests.consensus.ledger import members, world
from tests.consensus.ledger.members import CHIEFS, Members
from tests.elections import certificate_of, elected

VECTORS = json.loads(Path(__file__).parents[2].joinpath("vectors/epochs.json").read_text())
CHAIN = elected().chain
FIRST = elected().founded.committee
STEPS = tuple(elected().steps)
ENDS = [wire.decode_commit_cert(each.certificate).statement.height for each in STEPS]
TIP = elected().tip.height


def trust(*steps: EpochStep) -> Chain:
    chain = Chain(CHAIN, FIRST)
    chain.follow(steps)
    return chain


def test_whoever_knows_the_genesis_file_follows_to_the_newest_committee() -> None:
    newest = certificate_of(elected(), TIP)
    with pytest.raises(CertificateError, match="epoch 4 is not known"):
        trust().certificate(newest.encoded)
    found = trust(*STEPS)
    assert found.certificate(newest.encoded).statement.epoch == 4
    assert [each.agency for each in found.committee.validators] == [
        "treasury", "services", "audit", "health",
    ]  # fmt: skip
    for epoch in range(1, 6):
        assert found.steps_to(epoch) == STEPS[: epoch - 1]
    below = [each for each in elected().recorded[1:] if each.certificate is not None]
    assert [found.certificate(each.certificate or b"").statement.height for each in below] == [
        each.height for each in below
    ]


def test_what_is_known_already_is_compared_and_nothing_else_comes_twice() -> None:
    chain = trust(STEPS[0])
    chain.follow(STEPS, again=True)
    assert chain.steps_to(4) == STEPS
    with pytest.raises(CertificateError, match="do not join"):
        trust(STEPS[0]).follow(STEPS)
    rows = [list(each) for each in STEPS[0].committee[1]]
    rows[0][5] += 1
    other = EpochStep(STEPS[0].certificate, [2, rows])
    with pytest.raises(CertificateError, match="another committee of epoch 2"):
        chain.follow([other], again=True)


def test_what_ended_an_epoch_may_be_signed_by_another_quorum() -> None:
    statement = certificate_of(elected(), ENDS[0]).statement
    signed = signing.message(TAG_COMMIT_VOTE, CHAIN, statement.encode())
    signers = [elected()._signers[key] for key in FIRST.keys]
    rows = tuple((index, signers[index].sign(signed)) for index in (1, 2, 3))
    data = CommitCert(statement, rows).encoded
    assert data != STEPS[0].certificate
    assert trust(STEPS[0]).certificate(data).statement == statement


def test_a_step_is_signed_in_the_epoch_that_it_ends() -> None:
    late = EpochStep(STEPS[0].certificate, STEPS[1].committee)
    with pytest.raises(CertificateError, match="what ended epoch 2 is signed in epoch 1"):
        trust(STEPS[0], late)


class Foreign(Town):
    """A network that puts a statement of another one into its history."""

    def stated(self, statement: Statement) -> Statement:
        return replace(statement, chain=b"F" * 32) if statement.height == 1 else statement


def test_a_statement_of_another_network_is_refused_wherever_it_stands() -> None:
    town = Foreign()
    town.run()
    town.run()
    chain = Chain(town.ledger.chain, town.genesis.committee)
    for height, said in ((0, ""), (1, "of another network")):
        path = tuple(town.history.path(height, 2))
        evidence = StatementEvidence(town.certificate(2), town.statements[height].encode(), path)
        if said:
            with pytest.raises(CertificateError, match=said):
                chain.statement(evidence)
        else:
            assert chain.statement(evidence).height == height


# --- a plain reader, which knows the page -----------------------------------------------------


class Refused(Exception):
    pass


def blake(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def plain(chain: bytes, first: Any, steps: list[bytes], certificate: bytes) -> tuple[int, int]:
    """Epoch and height of a certificate, by the text of docs/formats/bundle.md."""
    committees, ends = {1: first}, dict[int, Any]()

    def check(data: bytes) -> Any:
        statement, rows = cbor2.loads(data)
        encoded = cbor2.dumps(statement, canonical=True)
        epoch, height = statement[1], statement[3]
        if cbor2.dumps([statement, rows], canonical=True) != data or statement[0] != chain:
            raise Refused
        if epoch not in committees:
            raise Refused
        if epoch - 1 in ends and height <= ends[epoch - 1][3]:
            raise Refused
        if epoch in ends and height >= ends[epoch][3] and statement != ends[epoch]:
            raise Refused
        validators = committees[epoch][1]
        quorum = len(validators) - (len(validators) - 1) // 3
        signers = [index for index, _ in rows]
        if signers != sorted(set(signers)) or len(signers) != quorum:
            raise Refused
        for index, signature in rows:
            if index >= len(validators):
                raise Refused
            key = nacl.signing.VerifyKey(validators[index][1])
            key.verify(b"comity commit vote\0" + chain + encoded, signature)
        return statement

    for number, step in enumerate(steps):
        data, committee = cbor2.loads(step)
        if committee[0] != number + 2:
            raise Refused
        statement = check(data)
        if statement[1] != number + 1:
            raise Refused
        if statement[11] != blake("committee", cbor2.dumps(committee, canonical=True)):
            raise Refused
        committees[number + 2], ends[number + 1] = committee, statement
    statement = check(certificate)
    return statement[1], statement[3]


def product(chain: bytes, first: Any, steps: list[bytes], certificate: bytes) -> tuple[int, int]:
    found = Chain(chain, Committee(1, FIRST.validators))
    assert cbor2.loads(codec.encode(FIRST.to_value())) == first
    found.follow([EpochStep(*codec.parse(each)) for each in steps])
    statement = found.certificate(certificate).statement
    return statement.epoch, statement.height


def parts(row: dict[str, Any]) -> tuple[bytes, Any, list[bytes], bytes]:
    frames = VECTORS["frames"]
    steps = [bytes.fromhex(frames.get(each, each)) for each in row["steps"]]
    certificate = bytes.fromhex(frames.get(row["certificate"], row["certificate"]))
    chain = bytes.fromhex(VECTORS["chain"])
    return chain, cbor2.loads(bytes.fromhex(VECTORS["committee"])), steps, certificate


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_vector_is_followed_by_both_readers(row: dict[str, Any]) -> None:
    assert plain(*parts(row)) == product(*parts(row)) == (row["epoch"], row["height"])


@pytest.mark.parametrize("row", VECTORS["invalid"], ids=lambda row: row["name"])
def test_an_invalid_vector_is_refused_by_both_readers(row: dict[str, Any]) -> None:
    with pytest.raises((Refused, nacl.exceptions.BadSignatureError, ValueError, cbor2.CBORError)):
        plain(*parts(row))
    with pytest.raises(ComityError, match=row["reason"]) as found:
        product(*parts(row))
    assert found.value.code == row["code"]


# --- splices ------------------------------------------------------------------------------------

ALL_STEPS = [cbor2.loads(bytes.fromhex(data)) for data in VECTORS["frames"].values()]
POOL = [EpochStep(*each) for each in ALL_STEPS if isinstance(each[0], bytes)]
CERTIFICATES = [
    cbor2.dumps(each, canonical=True) for each in ALL_STEPS if not isinstance(each[0], bytes)
]


@given(
    st.lists(st.sampled_from(POOL), max_size=5),
    st.sampled_from(CERTIFICATES),
    st.integers(0, 3),
)
def test_nothing_spliced_of_valid_and_forged_parts_leads_anywhere_else(
    steps: list[EpochStep], certificate: bytes, right: int
) -> None:
    spliced = [*STEPS[:right], *steps]
    honest = {
        each.certificate: each.statement for each in map(_recorded, range(1, TIP + 1)) if each
    }
    try:
        found = Chain(CHAIN, FIRST)
        found.follow(spliced)
        statement = found.certificate(certificate).statement
    except (VerificationError, DecodeError):
        return
    assert tuple(spliced) == STEPS[: len(spliced)]
    assert statement == honest[certificate]


@dataclass(frozen=True)
class _Kept:
    certificate: bytes
    statement: Statement


def _recorded(height: int) -> _Kept | None:
    data = elected().recorded[height].certificate
    return None if data is None else _Kept(data, wire.decode_commit_cert(data).statement)


# --- texts of transparency logs -----------------------------------------------------------------


def text(height: int, size: int) -> bytes:
    chain = elected()
    certificate = certificate_of(chain, size)
    path = tuple(chain.history.path(height, size))
    steps = STEPS[: certificate.statement.epoch - 1]
    stated = codec.parse(chain.recorded[height].statement or b"")
    return tlog.encode(
        TlogProof(wire.statement_from(stated), path, certificate, steps), FIRST
    ).encode()


@pytest.mark.parametrize("size", [2, ENDS[0], ENDS[0] + 1, ENDS[1] + 1, TIP])
def test_a_text_shows_the_committees_up_to_the_one_that_signed(size: int) -> None:
    for height in {0, size - 1, min(ENDS[0], size - 1)}:
        data = text(height, size)
        found = tlog.verify(data, CHAIN, FIRST)
        assert found.statement.height == height
        assert len(found.steps) == found.certificate.statement.epoch - 1
        assert data.count(b"\ncommittee ") == len(found.steps)


def test_a_text_without_its_committees_with_too_many_or_others_is_refused() -> None:
    lines = text(1, TIP).decode().split("\n")
    at = [index for index, line in enumerate(lines) if line.startswith("committee ")]
    missing = [*lines[: at[0]], *lines[at[0] + 1 :]]
    swapped = list(lines)
    swapped[at[0]], swapped[at[1]] = lines[at[1]], lines[at[0]]
    twice = [*lines[: at[0]], lines[at[0]], *lines[at[0] :]]
    short = text(1, 2).decode().split("\n")
    where = short.index("tree comity-history-v1") + 1
    more = [*short[:where], lines[at[0]], *short[where:]]
    for forged, why in (
        (missing, "do not join"), (swapped, "do not join"), (twice, "do not join"),
        (more, "that did not sign it"),
        ([*lines[: at[0]], "committee !", *lines[at[0] + 1 :]], "not base64"),
        ([*lines[: at[0]], "committee AAAA", *lines[at[0] + 1 :]], "tlog: line"),
        ([*lines[: at[0]], *[lines[at[0]]] * (EPOCHS_MAX + 1)], f"up to {EPOCHS_MAX} committees"),
    ):  # fmt: skip
        with pytest.raises(ComityError, match=why):
            tlog.verify("\n".join(forged).encode(), CHAIN, FIRST)


def test_signatures_of_a_text_have_their_length_and_number() -> None:
    lines = text(1, 2).decode().rstrip("\n").split("\n")
    head, _, signed = lines[-1].rpartition(" ")
    assert len(base64.b64decode(signed)) == 68
    short = base64.b64encode(bytes(67)).decode()
    many = [f"{head.rstrip('0123456789')}{index} {signed}" for index in range(65)]
    for forged in ([*lines[:-1], f"{head} {short}"], [*lines[:-3], *many]):
        with pytest.raises(DecodeError, match="up to 64 signatures of 4 and 64 bytes"):
            tlog.verify("\n".join([*forged, ""]).encode(), CHAIN, FIRST)


# --- bundles ------------------------------------------------------------------------------------


@dataclass
class ElectingTown(Town, Members):  # type: ignore[misc]
    """A town whose chiefs change its committee."""

    genesis: Any = field(default_factory=members.genesis)

    def __post_init__(self) -> None:
        self.steps: list[EpochStep] = []
        self._next: Committee | None = None
        super().__post_init__()
        self.signers |= {world.public_key(name): name for name in CHIEFS}

    def run(self, *transactions: Transaction, slice_: int = 1000) -> BlockResult:
        self.payloads.append(transactions)
        self.height += 1
        self.now_ms += 1000
        place = BlockContext(self.epoch, self.height, self.now_ms, history=self.history.root)
        result = BlockRun(self.ledger, self.state, place, transactions).finish()
        self._apply(result.writes, self.height)
        self._next = result.next_committee
        self._state(result.results_root)
        self.blocks.append(result)
        if self._next is not None:
            ending = self.certificate(self.height)
            self.steps.append(EpochStep(ending, self._next.to_value()))
            self.epoch, self._next = self._next.epoch, None
            self.elected.append(result.next_committee)  # type: ignore[arg-type]
        return result

    def stated(self, statement: Statement) -> Statement:
        hash_ = None if self._next is None else self._next.hash
        return replace(statement, epoch=self.epoch, next_committee_hash=hash_)

    def certificate(self, height: int, signers: Any = None) -> bytes:
        statement = self.statements[height]
        validators = [self.genesis.committee, *self.elected][statement.epoch - 1].validators
        message = signing.message(TAG_COMMIT_VOTE, statement.chain, statement.encode())
        quorum = len(validators) - (len(validators) - 1) // 3
        rows = []
        for index, each in enumerate(validators[:quorum]):
            name = f"validator {each.agency}"
            new = each.key == members.public(f"{name} 1")
            signature = members.sign(f"{name} 1", message) if new else sign(name, message)
            rows.append((index, signature))
        return wire.encode_commit_cert(CommitCert(statement, tuple(rows)))

    def proved(self, prepared: making.Prepared, certified: int | None = None) -> making.Proved:
        found = super().proved(prepared, certified)
        epoch = wire.decode_commit_cert(found.certificate).statement.epoch
        return replace(found, epochs=tuple(self.steps[: epoch - 1]))


def test_a_bundle_verifies_after_a_change_and_an_old_one_says_up_to_where() -> None:
    town = ElectingTown()
    made = town.do("clerk", "payments.transfer", "a", "b", 5)
    town.run()
    old, at = town.file(made), town.height
    town.agreed(Members().joining("health", "chief_h"), cosigners=CHIEFS[1:])
    town.pass_notice()
    assert town.epoch == 2
    town.run()
    refreshed = town.file(made)
    chain = town.ledger.chain
    before, after = verify(old, chain), verify(refreshed, chain)
    assert (before.newest.height, before.newest.epoch) == (at, 1)
    assert (after.newest.height, after.newest.epoch) == (town.height, 2)
    assert before.judged
    assert after.judged
    later = town.do("clerk", "payments.transfer", "a", "b", 6)
    town.run()
    assert verify(town.file(later), chain).newest.epoch == 2
    bare = replace(town.bundle(later), epochs=())
    with pytest.raises(FailedError, match="epoch 2 is not known"):
        verify(codec.encode([bare.content(), None]), chain)
    receipt = _receipt(town, later.header.height, later)
    assert receipts.verify(receipt, chain).newest.epoch == 2
    with pytest.raises(FailedError, match="epoch 2 is not known"):
        receipts.verify(_receipt(town, later.header.height, later, steps=()), chain)


def _receipt(town: ElectingTown, height: int, made: Any, steps: Any = None) -> bytes:
    roots = [each.root for each in town.blocks[height - 1].decisions]
    index = made.header.index
    evidence = StatementEvidence(town.certificate(height), None, ())
    return receipts.make(
        genesis.split(town.genesis.encode()),
        town.steps if steps is None else steps,
        evidence,
        (len(roots), list(RESULTS.path(roots, index))),
        made.encode(),
        [],
    )
