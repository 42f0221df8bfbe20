"""An honest ledger passes; each kind of damage is reported where it first shows, and as what."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from comity.auditing.running import MemorySpace, Wanted, audit
from consensus import codec
from consensus.audit import heights as checking
from consensus.audit import replay as replay_module
from consensus.audit.differences import word
from consensus.audit.divergence import CHECKS, DivergenceError, NotAuditableError, Problem
from consensus.audit.heights import Checked
from consensus.audit.replay import Origin, Replay, RowComparison
from consensus.audit.replay import rows_of as rows_in
from consensus.audit.stream import Recorded
from consensus.errors import DecodeError, SignatureError, UnknownExecutorError
from consensus.hotstuff import wire
from consensus.hotstuff.types import genesis_cert, start_cert
from consensus.ledger import decision as decisions
from consensus.ledger import group as groups
from consensus.ledger.accounts import Change
from consensus.ledger.batch import Batch, Item, digest
from consensus.ledger.transaction import ORDINARY, PROPOSE, PROTECTIVE, Expect
from tests.comity import test_proposals as proposals
from tests.comity.twin import ADMINISTRATOR, OFFICIAL
from tests.consensus.audit.ledger import (
    HEIGHT,
    Notes,
    audited,
    divergence,
    flipped,
    frames,
    honest,
    lied,
    rows_of,
    stated,
    statement_of,
    with_height,
)
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CHAIN,
    CLARA,
    draft,
    group_of,
    signatures,
)


def certificate(height: int, signers: Any, *, quorum: int = 3) -> bytes:
    """The certificate on an honest height by these validators, whatever their number."""
    return honest().certify(statement_of(honest().recorded[height]), signers).encoded


# --- what holds ---------------------------------------------------------------------------------


def test_an_honest_ledger_passes_and_is_counted() -> None:
    report = audited(honest())
    counts = report.counts
    assert (report.first, report.last, report.certified) == (0, HEIGHT, HEIGHT)
    assert (counts.heights, counts.transactions, counts.signatures) == (6, 13, 13)
    assert counts.decisions == {"APPLIED": 12, "INSUFFICIENT": 1}
    assert counts.powers == {"own role": 12}
    assert counts.certificates == 5
    # q = 3: on 5 parents that are not genesis, one round given up, 5 heights
    assert counts.votes == 3 * (5 + 1 + 5)
    assert report.totals == {"USD": 1_000_000}
    assert report.moved == 2 * 7
    assert report.statement == honest().statement


def test_holds_go_first_and_proposals_are_decided_twice() -> None:
    """Two lanes in a block, a second decision in the place after the approval, and who approved."""
    chain = Notes(proposals.genesis().encode())
    chain.block([chain.write(1), chain.write(2)])
    seen = [Expect("note", [1], 1)]
    agreed = chain.act("agree", [1], "agreed", expects=seen, mode=PROPOSE)
    chain.block([agreed, chain.pay(1)])
    txid = agreed.transactions[0].txid
    hold = chain.act(
        "place_hold",
        [["record", ["note", 2]]],
        ["all"],
        None,
        "Act",
        key=ADMINISTRATOR,
        domain="charter",
    )
    ordinary = [
        chain.amend(2, 1),
        chain.act("approve", txid, key=proposals.REVIEWER, domain="charter"),
        chain.act("approve", txid, key=proposals.SECOND, domain="charter"),
        chain.pay(2),
    ]
    chain.block(lanes=[(PROTECTIVE, [hold]), (ORDINARY, ordinary)])
    report = audited(chain)
    assert report.counts.decisions == {"APPLIED": 8, "PROPOSED": 1, "HELD": 1}
    assert report.counts.approvals == 2
    rows = rows_of(chain.recorded[3])
    assert [row[0] for row in rows].index(txid) == 4
    heights = lied(chain, 3, 4, "code", [1, None, None])
    found = divergence(chain, heights)
    assert (found.height, found.problem.index, found.problem.txid) == (3, 4, txid)


def test_what_is_not_recorded_is_not_missed_as_long_as_a_certificate_covers_it() -> None:
    heights = [
        replace(each, statement=None, decisions=None, changes=None) if each.height else each
        for each in honest().recorded
    ]
    assert audited(honest(), heights).certified == HEIGHT


def test_heights_above_the_newest_certificate_are_executed_and_named() -> None:
    heights = with_height(HEIGHT, certificate=None)
    report = audited(honest(), heights)
    assert (report.certified, report.last) == (4, HEIGHT)


def test_a_range_ends_at_the_next_height_with_a_certificate() -> None:
    report = audited(honest(), last=2)
    assert (report.last, report.certified) == (2, 2)
    report = audited(honest(), last=5)
    assert (report.last, report.certified) == (6, 6)


def test_heights_below_the_first_are_executed_and_not_counted() -> None:
    report = audited(honest(), first=5)
    assert report.counts.heights == 2
    assert report.counts.signatures == 4
    assert report.statement == honest().statement


def test_a_kept_audit_goes_on_where_it_stopped() -> None:
    space = Resumable()
    chain = honest()
    audited(chain, chain.recorded[:4], space=space)
    report = audited(chain, chain.recorded[3:], space=space)
    assert (report.first, report.last, report.counts.heights) == (4, HEIGHT, 3)
    assert report.totals == {"USD": 1_000_000}


def test_a_statement_that_the_reader_knows_is_compared() -> None:
    known = statement_of(honest().recorded[3]).hash
    assert audited(honest(), trusted={3: known}).last == HEIGHT
    found = divergence(honest(), honest().recorded, trusted={3: flipped(known)})
    assert (found.height, found.problem.check) == (3, "trust")
    with pytest.raises(DecodeError, match="which you trust"):
        audited(honest(), trusted={HEIGHT + 1: known})


# --- damage -------------------------------------------------------------------------------------


def test_a_changed_decision_is_named_with_its_transaction() -> None:
    rows = rows_of(honest().recorded[3])
    rows[1][3] = flipped(rows[1][3])
    found = divergence(honest(), with_height(3, decisions=codec.encode(rows)))
    assert (found.height, found.problem.check, found.problem.index) == (3, "decision", 1)
    assert found.problem.txid == rows[1][0]


def test_a_decision_that_is_recorded_of_another_author_is_named() -> None:
    rows = rows_of(honest().recorded[3])
    rows[1][1] = flipped(rows[1][1])
    found = divergence(honest(), with_height(3, decisions=codec.encode(rows)))
    assert (found.problem.check, found.problem.index) == ("decision", 1)
    [difference] = found.problem.differences
    assert (difference.place, difference.recorded) == ("author", rows[1][1].hex())
    assert difference.found == OFFICIAL.public.hex()


def test_a_decision_that_is_recorded_under_another_hash_is_named() -> None:
    rows = rows_of(honest().recorded[3])
    kept = rows[1][2]
    rows[1][2] = flipped(kept)
    found = divergence(honest(), with_height(3, decisions=codec.encode(rows)))
    assert (found.problem.check, found.problem.index) == ("decision", 1)
    [difference] = found.problem.differences
    assert (difference.place, difference.found) == ("root", kept.hex())


def test_a_decision_with_other_salts_is_contradicted_salt_by_salt() -> None:
    rows = rows_of(honest().recorded[3])
    kept = decisions.decode(rows[1][3])
    salts = [flipped(kept.salts[0]), *kept.salts[1:]]
    false = decisions.Decision(kept.header_cbor, kept.kh, kept.leaves, salts)
    rows[1][2:] = [false.root, false.encode()]
    found = divergence(honest(), with_height(3, decisions=codec.encode(rows)))
    [difference] = found.problem.differences
    assert difference.place == f"salt of {next(iter(kept.leaves))}"
    assert (difference.recorded, difference.found) == (salts[0].hex(), kept.salts[0].hex())


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "null"), (True, "true"), (False, "false"), (7, "7"), ("a", "'a'"), (b"\x01", "h'01'")],
)
def test_plain_values_are_written_as_diagnostic_notation(value: codec.Value, said: str) -> None:
    assert word(value) == said
    assert word([value, [value]]) == f"[{said}, [{said}]]"


def test_a_lying_quorum_is_contradicted_leaf_by_leaf() -> None:
    heights = lied(honest(), 3, 1, "code", [0, None, None])
    found = divergence(honest(), heights)
    assert (found.height, found.problem.check, found.problem.index) == (3, "decision", 1)
    [difference] = found.problem.differences
    assert difference.place == "leaf code"
    assert difference.recorded == "[0, null, null]"
    assert "'floor'" in difference.found
    assert "height 3, transaction 1" in found.message


@pytest.mark.parametrize("field", ["state_root", "results_root", "changes_root", "history_root"])
def test_a_certified_root_that_execution_does_not_give_is_named(field: str) -> None:
    heights = stated(honest(), 2, **{field: bytes(32)})
    found = divergence(honest(), heights)
    assert (found.height, found.problem.check) == (2, "statement")
    [difference] = found.problem.differences
    assert difference.place == field.replace("_", " ")
    assert difference.recorded == f"h'{bytes(32).hex()}'"
    own = getattr(statement_of(honest().recorded[2]), field)
    assert difference.found == f"h'{own.hex()}'"


def test_another_executor_is_named() -> None:
    found = divergence(honest(), stated(honest(), 2, executor=2))
    assert (found.height, found.problem.check) == (2, "statement")
    assert found.problem.differences[0].place == "executor"


def test_swapped_decisions_are_named_at_the_first() -> None:
    rows = rows_of(honest().recorded[2])
    rows[0], rows[1] = rows[1], rows[0]
    found = divergence(honest(), with_height(2, decisions=codec.encode(rows)))
    assert (found.height, found.problem.check, found.problem.index) == (2, "decision", 0)
    assert "another transaction" in found.problem.message


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_decisions_too_many_or_too_few_are_named(change: str) -> None:
    rows = rows_of(honest().recorded[2])
    rows = [*rows, rows[0]] if change == "more" else rows[:-1]
    found = divergence(honest(), with_height(2, decisions=codec.encode(rows)))
    assert (found.height, found.problem.check) == (2, "decision")
    assert found.problem.index == (3 if change == "more" else 2)
    assert f"{len(rows)} decisions are recorded" in found.problem.message


def test_swapped_transactions_are_another_batch() -> None:
    [(public, private)] = honest().recorded[1].batches
    header, items = codec.parse(public or b"")
    parts = codec.parse(private or b"")
    items[0], items[1] = items[1], items[0]
    parts[0], parts[1] = parts[1], parts[0]
    batches = [(codec.encode([header, items]), codec.encode(parts))]
    found = divergence(honest(), with_height(1, batches=batches))
    assert (found.height, found.problem.check) == (1, "batch")
    assert "its digest differs" in found.problem.message


def test_changed_private_parts_are_named_with_their_transaction() -> None:
    [(public, private)] = honest().recorded[1].batches
    parts = codec.parse(private or b"")
    parts[2][1] = flipped(parts[2][1])
    found = divergence(honest(), with_height(1, batches=[(public, codec.encode(parts))]))
    assert (found.height, found.problem.check, found.problem.index) == (1, "batch", 2)
    assert "private parts" in found.problem.message
    assert found.problem.txid == rows_of(honest().recorded[1])[2][0]


@pytest.mark.parametrize("part", [b"no array", [b"alone"], [b"no array", b"s"], [[b"x", 1], b"s"]])
def test_a_private_part_that_is_none_is_named_with_its_transaction(part: Any) -> None:
    [(public, private)] = honest().recorded[1].batches
    parts = codec.parse(private or b"")
    parts[1] = part
    found = divergence(honest(), with_height(1, batches=[(public, codec.encode(parts))]))
    assert (found.height, found.problem.check, found.problem.index) == (1, "batch", 1)


def test_a_private_part_with_no_seed_is_named_with_its_transaction() -> None:
    [(public, private)] = honest().recorded[1].batches
    parts = codec.parse(private or b"")
    parts[1][1] = "no seed"
    found = divergence(honest(), with_height(1, batches=[(public, codec.encode(parts))]))
    assert (found.problem.check, found.problem.index) == ("batch", 1)


def test_private_parts_that_are_wrong_as_a_whole_are_named_with_their_batch() -> None:
    [(public, private)] = honest().recorded[1].batches
    assert private is not None
    parts = codec.parse(private)
    assert private[:1] == b"\x83"
    for false, said in (
        (codec.encode(parts[:2]), "not one private part for each"),
        (b"\x98\x03" + private[1:], "canonical"),  # the head that three items do not need
        (b"\xff", ""),
    ):
        found = divergence(honest(), with_height(1, batches=[(public, false)]))
        assert (found.height, found.problem.check) == (1, "batch")
        assert (found.problem.index, found.problem.txid) == (None, None)
        assert said in found.problem.message


class Junk(Notes):
    """A chain that orders what is no batch, or says of a batch what is not so."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes = changes

    def _batch(self, lane: int, items: Sequence[Item]) -> Batch:
        return msgspec.structs.replace(super()._batch(lane, items), **self.changes)


def test_what_is_no_batch_is_named_although_a_quorum_ordered_it() -> None:
    public = codec.encode([[1, 0, 1, 0], []])
    chain = Junk(public=public, digest=digest(public))
    chain.block([chain.pay(1)])
    found = divergence(chain, chain.recorded)
    assert (found.height, found.problem.check) == (1, "batch")
    assert "breaks the rules of a batch: batch: no items" in found.problem.message


@pytest.mark.parametrize("change", [{"number": 2}, {"origin": 1}, {"lane": 1}])
def test_what_a_block_says_of_a_batch_is_so(change: dict[str, int]) -> None:
    chain = Junk(**change)
    chain.block([chain.pay(1)])
    found = divergence(chain, chain.recorded)
    assert (found.height, found.problem.check) == (1, "batch")
    assert "what is not so" in found.problem.message


def test_a_first_block_of_another_founding_is_named() -> None:
    first = wire.block_from(codec.parse(honest().recorded[0].block))
    other = replace(first, time_ms=first.time_ms + 1).encoded
    found = divergence(honest(), with_height(0, block=other, statement=None))
    assert (found.height, found.problem.check) == (0, "chain")
    assert "not that of the genesis file" in found.problem.message


def test_a_missing_batch_is_named() -> None:
    found = divergence(honest(), with_height(1, batches=[(None, None)]))
    assert (found.height, found.problem.check) == (1, "batch")
    assert "is missing" in found.problem.message
    found = divergence(honest(), with_height(1, batches=[]))
    assert "the block names 1 batches, 0 are kept" in found.problem.message


def test_dropped_private_parts_are_no_divergence_and_no_proof() -> None:
    [(public, _)] = honest().recorded[2].batches
    with pytest.raises(NotAuditableError, match=r"height 2 .* private parts"):
        audited(honest(), with_height(2, batches=[(public, None)]))


def test_a_forged_signature_is_named_with_its_transaction() -> None:
    chain = Notes()
    chain.block([chain.pay(1)])
    chain.block([chain.pay(2), chain.act("pay", "a", "b", 3, forge=True)])
    found = divergence(chain, chain.recorded)
    assert (found.height, found.problem.check, found.problem.index) == (2, "signature", 1)
    assert "its author" in found.problem.message


def test_a_signature_in_a_group_is_named_with_the_transaction_that_it_is_on() -> None:
    """Anna signed the group, Boris his transaction in it, which is the second; Clara cosigned."""
    unsigned = [draft(ANNA), draft(BORIS, cosigners=[CLARA])]
    single = signatures(unsigned[1], BORIS, [CLARA])
    group = group_of(unsigned, [ANNA], singles=[[], single])
    said = {
        ANNA.key: (0, "did not sign the group that begins here"),
        BORIS.key: (1, "its author"),
        CLARA.key: (1, "a cosigner"),
    }
    messages = groups.messages(CHAIN, group)
    assert len(messages) == 3
    for key, message, _ in messages:
        problem = checking._unsigned(group, key, message, 7, SignatureError("no"))
        place, word_ = said[key]
        txid = group.transactions[place].txid
        assert (problem.check, problem.index, problem.txid) == ("signature", 7 + place, txid)
        assert word_ in problem.message
        assert key.hex()[:16] in problem.message


@pytest.mark.parametrize("height", range(1, HEIGHT + 1))
def test_a_dropped_height_is_missed(height: int) -> None:
    heights = [each for each in honest().recorded if each.height != height]
    if height == HEIGHT:
        assert audited(honest(), heights).certified == 4
        with pytest.raises(DecodeError, match="ends at height 5, before height 6"):
            audited(honest(), heights, last=6)
        return
    found = divergence(honest(), heights)
    assert (found.height, found.problem.check) == (height, "chain")
    assert "is missing" in found.problem.message


def test_a_height_of_another_past_is_not_joined() -> None:
    other = Notes()
    other.block([other.pay(11), other.pay(20), other.write(1)])
    heights = [*honest().recorded[:2], *made_on(other)[2:]]
    found = divergence(honest(), heights)
    assert (found.height, found.problem.check) == (2, "chain")
    assert "as its parent" in found.problem.message


def made_on(chain: Notes) -> list[Recorded]:
    chain.block([chain.amend(1, 1)])
    return chain.recorded


FORGED = {
    "too few": ((0, 1), "2 signatures, 3 needed"),
    "too many": ((0, 1, 2, 3), "4 signatures, 3 needed"),
    "one twice": ((0, 0, 1), "unordered, repeated or foreign"),
    "unordered": ((1, 0, 2), "unordered, repeated or foreign"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_certificate_on_a_height_is_named(name: str) -> None:
    signers, said = FORGED[name]
    found = divergence(honest(), with_height(3, certificate=certificate(3, signers)))
    assert (found.height, found.problem.check) == (3, "certificate")
    assert said in found.problem.message


def test_a_foreign_signer_and_a_signature_in_anothers_name_are_named() -> None:
    genuine = wire.decode_commit_cert(honest().recorded[3].certificate or b"")
    rows = genuine.signatures
    foreign = replace(genuine, signatures=(*rows[:2], (4, rows[2][1])))
    found = divergence(honest(), with_height(3, certificate=foreign.encoded))
    assert "foreign" in found.problem.message
    renamed = replace(genuine, signatures=(*rows[:2], (3, rows[2][1])))
    found = divergence(honest(), with_height(3, certificate=renamed.encoded))
    assert (found.height, found.problem.check) == (3, "certificate")
    assert "signature" in found.problem.message


def test_a_certificate_on_another_height_or_statement_is_named() -> None:
    other = honest().recorded[2].certificate
    found = divergence(honest(), with_height(3, certificate=other))
    assert "about another block" in found.problem.message
    kept = honest().recorded[3]
    false = replace(statement_of(kept), state_root=bytes(32))
    signed = honest().certify(false).encoded
    found = divergence(honest(), with_height(3, certificate=signed))
    assert (found.height, found.problem.check) == (3, "certificate")
    assert "another statement" in found.problem.message


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_certificate_on_a_parent_is_named(name: str) -> None:
    signers, said = FORGED[name]
    chain = Notes()
    chain.block([chain.pay(1)])
    chain.qc = chain.ordered(chain.tip, signers)
    chain.block([chain.pay(1)])
    found = divergence(chain, chain.recorded)
    assert (found.height, found.problem.check) == (2, "certificate")
    assert "on the block before" in found.problem.message
    assert said in found.problem.message


def test_changed_changes_are_named() -> None:
    kept = honest().recorded[2].changes or b""
    found = divergence(honest(), with_height(2, changes=flipped(kept)))
    assert (found.height, found.problem.check) == (2, "changes")
    assert found.problem.differences[0].place == f"key path {kept[-72:-40].hex()}"
    found = divergence(honest(), with_height(2, changes=kept[:-72]))
    assert "changes are recorded" in found.problem.message
    found = divergence(honest(), with_height(2, changes=kept[:-1]))
    assert "bytes" in found.problem.message


def test_money_that_appears_is_noticed_although_everybody_agrees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest_credit = Change.credit

    def generous(self: Change, amount: int) -> None:
        honest_credit(self, amount + (amount == 13))

    monkeypatch.setattr(Change, "credit", generous)
    chain = Notes()
    chain.block([chain.pay(1)])
    chain.block([chain.pay(2), chain.pay(13)])
    found = divergence(chain, chain.recorded)
    assert (found.height, found.problem.check) == (2, "money")
    assert "pot" in found.problem.message


def test_every_check_is_explained() -> None:
    assert all(CHECKS.values())


def test_another_network_is_bad_input() -> None:
    with pytest.raises(DecodeError, match="of the network"):
        audit(frames(honest().stream()), Wanted(bytes(32)))


def test_a_file_that_begins_later_needs_what_leads_to_it() -> None:
    data = honest().stream(honest().recorded[3:], first=3)
    with pytest.raises(DecodeError, match="begins at height 3"):
        audit(frames(data), Wanted(honest().chain))


# --- what one height must be to the one before --------------------------------------------------


def refused(*, elected: bytes | None = None, **changes: Any) -> Problem:
    """What is wrong with a block of height 1, where height 0 may have elected a committee."""
    replay = Replay(honest().founded)
    if elected is not None:
        ending = replace(replay.tip.statement, next_committee_hash=elected)
        replay.tip = replace(replay.tip, statement=ending)
        changes.setdefault("justify", start_cert(ending))
    block = wire.block_from(codec.parse(honest().recorded[1].block))
    block = replace(block, payload=(), **changes)
    recorded = Recorded(1, block.encoded, None, None, [], None, None)
    with pytest.raises(DivergenceError) as caught:
        replay.take(recorded, Checked(1, (), 0, 0))
    assert caught.value.height == 1
    assert caught.value.problem.check == "chain"
    return caught.value.problem


def test_an_epoch_that_nothing_ended_goes_on() -> None:
    assert "had not ended" in refused(epoch=2).message


def test_rounds_ascend_and_each_block_names_the_round_of_its_parent() -> None:
    assert "does not follow round 0" in refused(round=0).message
    parent = genesis_cert(wire.block_from(codec.parse(honest().recorded[0].block)))
    said = refused(round=3, justify=replace(parent, round=1)).message
    assert said == "round 3 on a certificate of round 1 does not follow round 0"


def test_chain_time_ascends() -> None:
    first = wire.block_from(codec.parse(honest().recorded[0].block))
    assert refused(time_ms=first.time_ms).message == "its time is not after the last"


def test_an_epoch_begins_where_the_last_one_ended() -> None:
    begins = "it does not begin epoch 2, to which height 0 led"
    assert refused(elected=b"e" * 32).message == begins
    assert refused(elected=b"e" * 32, epoch=3).message == begins
    other = genesis_cert(wire.block_from(codec.parse(honest().recorded[0].block)))
    assert refused(elected=b"e" * 32, epoch=2, justify=other).message == begins


def test_an_epoch_is_of_the_committee_that_was_elected() -> None:
    found = refused(elected=b"e" * 32, epoch=2)
    assert "another committee" in found.message
    [difference] = found.differences
    own = honest().founded.committee.hash
    assert (difference.recorded, difference.found) == (own.hex(), (b"e" * 32).hex())


def test_a_block_of_an_executor_that_this_release_lacks_is_not_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise UnknownExecutorError(7, (1,))

    monkeypatch.setattr(replay_module, "BlockRun", lacking)
    with pytest.raises(NotAuditableError, match=r"height 1 .* executor 7 is in force") as caught:
        audited(honest())
    assert "install a release" in caught.value.hint


def test_a_row_that_is_missing_at_the_end_of_the_state_kept_is_named() -> None:
    chain = Notes()
    chain.flush()
    rows = list(rows_in(chain.backend))
    comparison = RowComparison(0, iter(rows))
    comparison.take(rows[:-1])
    with pytest.raises(DivergenceError, match=f"{rows[-1].kh.hex()} is missing") as caught:
        comparison.finish()
    assert caught.value.problem.check == "state"
    comparison.finish()  # it was the only one


# --- what is kept and gone on with --------------------------------------------------------------


def kept_audit() -> Resumable:
    space = Resumable()
    audited(honest(), honest().recorded[:4], space=space)
    return space


def test_a_kept_audit_refuses_a_state_that_is_not_the_one_of_its_statement() -> None:
    space = kept_audit()
    tip = space.kept.tip
    false = replace(tip, statement=replace(tip.statement, state_root=bytes(32)))
    space.kept = replace(space.kept, tip=false)
    with pytest.raises(DivergenceError) as caught:
        audited(honest(), honest().recorded[3:], space=space)
    assert (caught.value.height, caught.value.problem.check) == (3, "state")
    [difference] = caught.value.problem.differences
    assert difference.found == bytes(32).hex()


def test_a_kept_audit_checks_the_record_of_the_height_at_which_it_stopped() -> None:
    forged = with_height(3, certificate=certificate(3, (0, 1)))[3:]
    with pytest.raises(DivergenceError) as caught:
        audited(honest(), forged, space=kept_audit())
    assert (caught.value.height, caught.value.problem.check) == (3, "certificate")
    bare = with_height(3, statement=None)[3:]
    assert audited(honest(), bare, space=kept_audit()).last == HEIGHT


def test_a_kept_audit_refuses_another_block_of_the_height_at_which_it_stopped() -> None:
    other = Notes()
    for amount in (1, 2, 3):
        other.block([other.pay(amount)])
    bare = replace(other.recorded[3], statement=None, certificate=None)
    with pytest.raises(DivergenceError) as caught:
        audited(honest(), [bare, *honest().recorded[4:]], space=kept_audit())
    assert (caught.value.height, caught.value.problem.check) == (3, "chain")
    assert "another block is recorded" in caught.value.problem.message


def test_a_kept_audit_refuses_another_past() -> None:
    space = Resumable()
    audited(honest(), honest().recorded[:4], space=space)
    other = Notes()
    for amount in (1, 2, 3, 4, 5):
        other.block([other.pay(amount)])
    with pytest.raises(DivergenceError) as caught:
        audited(other, other.recorded, space=space)
    assert caught.value.height == 3


class Resumable(MemorySpace):
    """A space in memory that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Any = None

    def origin(self) -> Any:
        return self.kept

    def flush(self, replay: Any) -> None:
        super().flush(replay)
        totals = dict(replay.money.totals)
        self.kept = Origin(replay.tip, self.backend, self.nodes, totals, replay.certified)


# --- any byte -----------------------------------------------------------------------------------

PARTS = ("block", "statement", "certificate", "decisions", "changes")


def test_no_changed_byte_of_any_part_passes() -> None:
    """Each part of each height, flipped at random places: never held to be true, never later."""
    draw = random.Random(5)
    tried = 0
    for height in range(1, HEIGHT + 1):
        kept = honest().recorded[height]
        for part in PARTS:
            data = getattr(kept, part)
            for _ in range(3 if data else 0):
                at = draw.randrange(len(data))
                _refused(height, with_height(height, **{part: flipped(data, at)}))
                tried += 1
        for number, (public, private) in enumerate(kept.batches):
            for which, data in enumerate((public, private)):
                for _ in range(3):
                    assert data is not None
                    changed = [public, private]
                    changed[which] = flipped(data, draw.randrange(len(data)))
                    batches = [*kept.batches]
                    batches[number] = tuple(changed)
                    _refused(height, with_height(height, batches=batches))
                    tried += 1
    assert tried > 100


def _refused(height: int, heights: list[Recorded]) -> None:
    with pytest.raises((DivergenceError, DecodeError)) as caught:
        audited(honest(), heights)
    assert f"height {height}" in caught.value.message


def test_digests_of_the_test_are_those_of_batches() -> None:
    block = wire.decode_block(honest().recorded[1].block)
    [(public, _)] = honest().recorded[1].batches
    assert digest(public or b"") == block.payload[0].digest
