"""The committee changes by a quorum of its agencies, after the notice, and by nothing else.

Four agencies, quorum 3, two object, a notice of ten seconds; each block comes a second after the
last. The charter here asks for one approval, which is less than the floor.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.committee import Committee
from consensus.genesis import Agency
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.kernel.committee import encode_changes
from consensus.ledger.seats import BEGUN, COMING, DROPPED, OBJECTED
from consensus.ledger.transaction import Ack
from consensus.state.record import decode_single, encode_single
from consensus.state.state import Row
from tests.consensus.ledger.governed import NOTICE_MS
from tests.consensus.ledger.members import (
    Members,
    genesis,
    member_file,
    public,
    seed,
    validator,
)
from tests.consensus.ledger.world import public_key, token

FOUR = ["treasury", "registry", "services", "audit"]


def agencies(world: Members) -> list[str]:
    return [each.agency for each in world.committee.validators]


def refusal(decision: Decision) -> Value:
    """Return code and the first word of a refusal's detail."""
    detail: Any = decision.detail
    return decision.code, detail[0] if isinstance(detail, list) else detail


# --- changes that take effect -------------------------------------------------------------------


def test_a_new_agency_is_admitted_with_its_administrator_and_votes_in_the_next_epoch() -> None:
    world = Members()
    world.agreed(world.joining("health", "chief_h"))
    assert world.seats.coming == [1, world.now_ms + NOTICE_MS]
    assert agencies(world) == FOUR
    early = world.do("chief_h", "charter.object_committee", 1)
    assert early.detail == [["committee", "health"]]  # it can act, and has no seat yet
    agreed_ms = world.now_ms - 1000
    world.now_ms = agreed_ms + NOTICE_MS - 2000
    assert world.run().next_committee is None
    result = world.run()
    assert world.now_ms == agreed_ms + NOTICE_MS
    assert result.next_committee is not None
    assert result.next_committee.epoch == 2
    assert agencies(world) == [*FOUR, "health"]
    assert result.next_committee.validators[4] == validator("health")
    assert result.next_committee.validators[:4] == world.genesis.committee.validators
    assert world.change(1).state == BEGUN
    assert world.change(1).epoch == 2
    assert world.run().next_committee is None
    late = world.do("chief_h", "charter.object_committee", 1)
    assert refusal(late) == (Code.REQUIREMENT, "NOT_OPEN")  # it has the power, and a seat


def test_who_leaves_is_left_out_and_the_others_keep_their_order() -> None:
    world = Members()
    world.agreed(world.joining("health", "chief_h"), ["leave", "registry"])
    world.pass_notice()
    assert agencies(world) == ["treasury", "services", "audit", "health"]
    assert world.seats.agencies == ["treasury", "services", "audit", "health"]


def test_new_keys_stand_where_the_old_ones_stood() -> None:
    world = Members()
    world.agreed(world.replacing("registry"))
    world.pass_notice()
    assert agencies(world) == FOUR
    assert world.committee.validators[1] == validator("registry")
    assert world.seats.pairs[1] == ("registry", public("node registry 1"))


def test_an_address_changes_and_the_keys_stay() -> None:
    world = Members()
    world.agreed(world.replacing("registry"))
    world.pass_notice()
    world.agreed(world.replacing("registry", peer_host="new.example"), number=2)
    world.pass_notice()
    row = world.committee.validators[1]
    assert row.peer_host == "new.example"
    assert row.key == public("validator registry 1")
    assert world.committee.epoch == 3


def test_several_changes_take_effect_at_once() -> None:
    world = Members()
    world.agreed(
        world.joining("health", "chief_h"),
        world.replacing("audit"),
        world.joining("police", "chief_p"),
        ["leave", "treasury"],
    )
    world.pass_notice()
    assert agencies(world) == ["registry", "services", "audit", "health", "police"]
    assert world.committee.validators[2] == validator("audit")


def test_the_block_that_ends_the_epoch_executes_its_transactions() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    world.now_ms += NOTICE_MS
    result = world.run(world.draft("clerk", ("payments.transfer", "main", "a", 5)))
    assert result.decisions[0].code == Code.APPLIED
    assert result.next_committee is not None


def test_a_later_time_may_be_named_but_none_before_the_notice_is_over() -> None:
    world = Members()
    least_ms = world.now_ms + 1000 + NOTICE_MS
    early = world.agree(world.replacing("audit"), from_ms=least_ms - 1)
    assert refusal(early) == (Code.REQUIREMENT, "NOTICE")
    far = world.agree(world.replacing("audit"), from_ms=world.now_ms + 3 * 366 * 86_400_000)
    assert refusal(far) == (Code.REQUIREMENT, "TOO_FAR")
    from_ms = world.now_ms + 100_000
    world.agreed(world.replacing("audit"), from_ms=from_ms)
    world.pass_notice()
    assert world.epoch == 1
    world.now_ms = from_ms - 1000
    world.run()
    assert world.epoch == 2


# --- who decides --------------------------------------------------------------------------------


def test_it_takes_a_quorum_of_agencies_whatever_the_charter_asks_for() -> None:
    world = Members()
    decision = world.agree(world.replacing("audit"), cosigners=("chief_r",))
    assert decision.code == Code.NEEDS_APPROVAL
    assert decision.detail == [["agencies", 1]]


def test_a_proposal_waits_for_its_quorum_and_the_notice_begins_when_it_is_complete() -> None:
    world = Members()
    proposal = world.proposed(world.replacing("audit"))
    world.now_ms += 5 * NOTICE_MS
    assert len(world.run(world.draft("chief_r", ("charter.approve", proposal.txid))).decisions) == 1
    done = world.run(world.draft("chief_s", ("charter.approve", proposal.txid)))
    assert done.decisions[1].code == Code.APPLIED
    assert world.seats.coming == [1, world.now_ms + NOTICE_MS]


def test_f_plus_one_agencies_end_a_change_before_its_time() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    assert world.do("chief_a", "charter.object_committee", 1).code == Code.APPLIED
    again = world.do("chief_a", "charter.object_committee", 1)
    assert refusal(again) == (Code.REQUIREMENT, "UNCHANGED")
    assert world.change(1).state == COMING
    assert world.do("chief_r", "charter.object_committee", 1).code == Code.APPLIED
    assert world.change(1).state == OBJECTED
    assert [each[0] for each in world.change(1).steps] == ["agreed", "objected", "objected"]
    late = world.do("chief_s", "charter.object_committee", 1)
    assert refusal(late) == (Code.REQUIREMENT, "NOT_OPEN")
    world.pass_notice()
    assert world.epoch == 1
    world.agreed(world.replacing("audit"), number=2)  # its keys were never in force
    world.pass_notice()
    assert world.epoch == 2


def test_nobody_objects_to_what_is_in_force_or_never_was() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    world.pass_notice()
    assert refusal(world.do("chief_a", "charter.object_committee", 1)) == (
        Code.REQUIREMENT,
        "NOT_OPEN",
    )
    assert world.do("chief_a", "charter.object_committee", 2).code == Code.NOT_FOUND


def test_objecting_in_the_block_in_which_the_time_has_come_is_too_late() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    world.now_ms += NOTICE_MS
    result = world.run(
        world.draft("chief_a", ("charter.object_committee", 1)),
        world.draft("chief_r", ("charter.object_committee", 1)),
    )
    assert [each.code for each in result.decisions] == [Code.REQUIREMENT] * 2
    assert result.next_committee is not None


def test_who_has_left_has_no_say_and_who_was_admitted_has() -> None:
    world = Members()
    world.agreed(world.joining("health", "chief_h"), ["leave", "audit"])
    world.pass_notice()
    gone = world.agree(
        world.replacing("registry"), number=2, author="chief_t", cosigners=("chief_r", "chief_a")
    )
    assert gone.detail == [["agencies", 1]]
    world.agreed(
        world.replacing("registry"), number=2, author="chief_t", cosigners=("chief_r", "chief_h")
    )
    lacks = world.do("chief_a", "charter.object_committee", 2)
    assert lacks.detail == [["committee", "audit"]]
    for who in ("chief_h", "chief_t"):
        assert world.do(who, "charter.object_committee", 2).code == Code.APPLIED
    assert world.change(2).state == OBJECTED


def test_the_quorum_grows_with_the_committee() -> None:
    world = Members()
    new = ("health", "police", "roads")
    world.agreed(*[world.joining(name, f"chief_{name}") for name in new])
    world.pass_notice()
    assert len(agencies(world)) == 7
    short = world.agree(
        world.replacing("audit"), number=2, cosigners=("chief_r", "chief_s", "chief_health")
    )
    assert short.detail == [["agencies", 1]]
    others = ("chief_r", "chief_s", "chief_health", "chief_police")
    world.agreed(world.replacing("audit"), number=2, cosigners=others)
    for who in ("chief_a", "chief_r"):
        assert world.do(who, "charter.object_committee", 2).code == Code.APPLIED
    assert world.change(2).state == COMING
    world.do("chief_roads", "charter.object_committee", 2)
    assert world.change(2).state == OBJECTED


# --- what is refused ----------------------------------------------------------------------------


def test_one_change_is_to_come_at_a_time_and_numbers_follow_one_another() -> None:
    world = Members()
    assert refusal(world.agree(world.replacing("audit"), number=2)) == (Code.REQUIREMENT, "NUMBER")
    world.agreed(world.replacing("audit"))
    second = world.agree(world.replacing("registry"), number=2)
    assert refusal(second) == (Code.REQUIREMENT, "SCHEDULED")
    world.pass_notice()
    assert refusal(world.agree(world.replacing("registry"))) == (Code.REQUIREMENT, "NUMBER")


def test_fewer_than_four_validators_are_refused() -> None:
    world = Members()
    assert refusal(world.agree(["leave", "audit"])) == (Code.REQUIREMENT, "TOO_FEW")


def test_more_than_64_validators_are_refused() -> None:
    founded = genesis()
    names = [f"agency{at}" for at in range(58)]
    more = tuple(validator(name, certificate=b"certificate") for name in names)
    world = Members(
        replace(
            founded,
            committee=Committee(1, (*founded.committee.validators, *more)),
            agencies=(*founded.agencies, *(Agency(name, name) for name in names)),
        )
    )
    joining = [world.joining(name, f"chief_{name}") for name in ("health", "police", "roads")]
    assert refusal(world.agree(*joining)) == (Code.REQUIREMENT, "TOO_MANY")
    assert world.agree(*joining[:2]).code == Code.NEEDS_APPROVAL


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (lambda w: w.joining("audit", "chief_x"), "MEMBER"),
        (lambda w: ["leave", "health"], "NOT_MEMBER"),
        (lambda w: w.replacing("health"), "NOT_MEMBER"),
    ],
)
def test_who_is_a_member_is_not_admitted_and_who_is_none_neither_leaves_nor_changes(
    changes: Any, code: str
) -> None:
    world = Members()
    assert refusal(world.agree(changes(world))) == (Code.REQUIREMENT, code)


def test_a_validator_that_stays_as_it_is_is_no_change() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    world.pass_notice()
    again = world.agree(world.replacing("audit"), number=2)
    assert refusal(again) == (Code.REQUIREMENT, "UNCHANGED")


def used(world: Members, row: Any, signers: tuple[str, str]) -> Value:
    data = member_file(world.ledger.chain, row, signers=signers)
    return refusal(world.agree(["replace", row.agency, data], number=world.seats.latest + 1))


def test_a_key_that_was_retired_never_comes_back_for_anybody() -> None:
    world = Members()
    for number in (1, 2):
        world.agreed(world.replacing("audit", number), number=number)
        world.pass_notice()
    back = world.agree(world.replacing("audit", 1), number=3)
    assert refusal(back) == (Code.REQUIREMENT, "KEY_USED")
    row = replace(validator("registry"), key=public("validator audit 1"))
    assert used(world, row, ("validator audit 1", "node registry 1")) == (
        Code.REQUIREMENT,
        "KEY_USED",
    )


def test_keys_of_others_are_refused_and_a_key_for_two_things() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    world.pass_notice()
    row = replace(validator("registry"), key=public("node audit 1"))
    assert used(world, row, ("node audit 1", "node registry 1")) == (Code.REQUIREMENT, "KEY_USED")
    row = replace(validator("registry"), key=public("node registry 1"))
    data = member_file(world.ledger.chain, row, signers=("node registry 1", "node registry 1"))
    both = world.agree(["replace", "registry", data], number=2)
    assert refusal(both) == (Code.REQUIREMENT, "KEY_USED")


def test_the_keys_of_people_and_of_the_genesis_file_are_used() -> None:
    world = Members()
    founded = replace(validator("audit"), key=public_key("validator registry"))
    decision = world.agree(["replace", "audit", member_file(world.ledger.chain, founded)])
    assert refusal(decision) == (Code.REQUIREMENT, "KEY_USED")
    person = replace(validator("audit"), key=public_key("clerk"))
    decision = world.agree(["replace", "audit", member_file(world.ledger.chain, person)])
    assert refusal(decision) == (Code.REQUIREMENT, "KEY_USED")


def test_two_that_come_at_once_do_not_share_a_key_or_an_address() -> None:
    world = Members()
    first = world.joining("health", "chief_h")
    row = replace(validator("police"), key=validator("health").key)
    data = member_file(world.ledger.chain, row, signers=("validator health 1", "node police 1"))
    second: list[Value] = ["admit", "police", data, "Police", []]
    assert refusal(world.agree(first, second)) == (Code.REQUIREMENT, "KEY_USED")
    place = validator("health")
    row = replace(validator("police"), peer_host=place.client_host, peer_port=place.client_port)
    data = member_file(world.ledger.chain, row)
    second = ["admit", "police", data, "Police", []]
    assert refusal(world.agree(first, second)) == (Code.REQUIREMENT, "ADDRESS")


def bad_input(world: Members, change: list[Value], says: str) -> None:
    """See that a change is refused, and is not even stored as a proposal."""
    refused = world.agree(change)
    assert refused.code == Code.BAD_INPUT, (refused.code, refused.detail)
    assert refused.detail is not None
    assert says in str(refused.detail), refused.detail
    draft = world.draft_change(change, cosigners=(), mode=1, not_after_ms=world.now_ms + 60_000)
    assert world.one(draft).code == Code.BAD_INPUT


def test_files_that_are_not_in_order_are_refused_before_anybody_is_asked() -> None:
    world = Members()
    chain, row = world.ledger.chain, validator("audit")

    def changed(**changes: Any) -> list[Value]:
        other = replace(row, **changes)
        return ["replace", other.agency, member_file(chain, other)]

    bad_input(world, ["replace", "registry", member_file(chain, row)], "the file is of audit")
    bad_input(world, ["replace", "audit", member_file(bytes(32), row)], "another network")
    forged = member_file(chain, row, signers=("validator audit 1", "validator audit 1"))
    bad_input(world, ["replace", "audit", forged], "not signed by the keys")
    bad_input(world, ["replace", "audit", b"no file"], "changes")
    bad_input(world, changed(certificate=b"certificate"), "certificate")
    other = validator("registry").certificate
    bad_input(world, changed(certificate=other), "of another key")
    bad_input(world, changed(key=bytes(32)), "not a valid")
    bad_input(world, changed(peer_port=0), "a host and a port")
    bad_input(world, changed(client_host="a b"), "a host and a port")
    bad_input(world, ["expel", "audit"], "one of admit, leave, replace")
    bad_input(world, ["leave", "audit", "now"], "")
    bad_input(world, [], "")


def test_an_agency_is_named_once_and_at_most_16_validators_change() -> None:
    world = Members()
    twice = world.agree(["leave", "audit"], world.replacing("audit"))
    assert "named twice" in str(twice.detail)
    many = world.agree(*[["leave", f"a{at}"] for at in range(17)])
    assert many.code == Code.BAD_INPUT
    assert world.agree().code == Code.BAD_INPUT


def test_a_new_agency_needs_a_title_and_people_and_a_known_one_no_title() -> None:
    world = Members()
    data = world.file(validator("health"), 1, ("chief_h",))
    unknown = world.agree(["admit", "health", data, None, []])
    assert refusal(unknown) == (Code.NOT_FOUND, "changes")
    nobody = world.file(validator("health"), 1)
    bare = world.agree(["admit", "health", nobody, "Health", []])
    assert "needs somebody" in str(bare.detail)
    known = [("agency", ["health"], 0)]
    world.do("admin", "charter.add_agency", "health", "Health", expects=known)
    again = world.agree(["admit", "health", data, "Health", []])
    assert again.code == Code.NOT_UNIQUE
    assert again.detail == [["agency", ["health"]]]
    world.agreed(["admit", "health", data, None, []])
    taken = world.file(validator("police"), 1, ("clerk",))
    clash = world.agree(["admit", "police", taken, "Police", []], number=2)
    assert clash.code in (Code.NOT_UNIQUE, Code.REQUIREMENT)


# --- what changes meanwhile ---------------------------------------------------------------------


def test_a_change_that_is_not_possible_any_more_is_dropped_and_says_why() -> None:
    world = Members()
    world.agreed(world.joining("health", "chief_h"))
    suspended = world.do("admin", "charter.suspend_agency", "health")
    assert suspended.code == Code.APPLIED, suspended.detail
    result = world.pass_notice()
    assert result.next_committee is None
    assert world.epoch == 1
    change = world.change(1)
    assert (change.state, change.why) == (DROPPED, ["SUSPENDED", "health is suspended"])
    assert world.seats.coming is None
    world.agreed(world.replacing("audit"), number=2)
    world.pass_notice()
    assert world.epoch == 2


def test_a_key_that_somebody_took_meanwhile_drops_the_change() -> None:
    world = Members()
    world.agreed(world.replacing("audit"))
    taken = world.do(
        "admin",
        "charter.add_key",
        "treasury",
        token("clerk"),
        public("validator audit 1"),
        expects=[("key", [public("validator audit 1")], 0)],
    )
    assert taken.code == Code.APPLIED, taken.detail
    world.pass_notice()
    why = world.change(1).why
    assert why is not None
    assert why[0] == "KEY_USED"


def short_lived(days: int) -> bytes:
    """Return a certificate of the audit's next node key that ends after some days."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    key = Ed25519PrivateKey.from_private_bytes(seed("node audit 1"))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "audit")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(5).not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=days)).sign(key, None)
    )  # fmt: skip
    return made.public_bytes(Encoding.DER)


def test_a_certificate_must_be_good_when_the_change_takes_effect() -> None:
    world = Members()  # its first blocks are of the second of January
    change = ["replace", "audit", member_file(
        world.ledger.chain, validator("audit", certificate=short_lived(10))
    )]  # fmt: skip
    late = world.agree(change, from_ms=world.now_ms + 20 * 86_400_000)
    assert refusal(late) == (Code.REQUIREMENT, "CERTIFICATE")
    world.agreed(change, from_ms=world.now_ms + 5 * 86_400_000)
    world.now_ms += 30 * 86_400_000  # nobody made a block for a month
    world.run()
    assert world.change(1).state == DROPPED
    assert world.epoch == 1


@pytest.mark.parametrize("spoil", [lambda data: b"none", lambda data: data[:-1] + b"\xff"])
def test_a_change_whose_certificate_cannot_be_read_is_dropped(
    spoil: Callable[[bytes], bytes],
) -> None:
    """It was read when it was agreed on; a state that says another is no reason to stand still."""
    world = Members()
    world.agreed(world.replacing("audit"))
    kh = world.ledger.paths("committee", [1])
    row = world.state.get(kh)
    assert row is not None
    version, salt, data = decode_single(row.value)
    value: Any = codec.parse(data)
    [(_, _, changed)] = value[5]
    at = changed.index(validator("audit", 1).certificate)
    changed[at] = spoil(changed[at])
    spoiled = encode_single(version, salt, codec.encode(value))
    world.state.write([(kh, Row(row.vh, row.changed_height, spoiled))])
    assert world.pass_notice().next_committee is None
    assert (world.change(1).state, world.seats.coming) == (DROPPED, None)
    assert world.change(1).why == ["CERTIFICATE", "the certificate of audit is malformed"]


# --- what follows the committee -----------------------------------------------------------------


def test_sealed_values_are_acknowledged_by_the_node_in_force() -> None:
    world = Members()

    def noted(node: bytes) -> Decision:
        ack = Ack(0, 0, "treasury", node, bytes(64))  # its signature is checked before a block
        call = ("payments.sealed_note", bytes(range(32)))
        return world.one(world.draft("clerk", call, acks=[ack]))

    old, new = public_key("node treasury"), public("node treasury 1")
    assert noted(old).code == Code.APPLIED
    world.agreed(world.replacing("treasury"))
    world.pass_notice()
    assert noted(old).code == Code.NOT_DELIVERED
    assert noted(new).code == Code.APPLIED


def test_decisions_of_the_first_epoch_do_not_rest_on_the_committee() -> None:
    """What was certified before stays as it was: nothing reads the new leaf."""
    world = Members()
    path = world.ledger.paths("committee", [])
    act = world.do("chief_t", "charter.object_rules", "identity", 7)
    assert path not in act.leaves["reads"]
    world.agreed(world.replacing("audit"))
    world.pass_notice()
    act = world.do("chief_t", "charter.activate_rules", "identity", 1, world.now_ms)
    assert path in act.leaves["reads"]


def test_malformed_encodings_of_changes_are_refused() -> None:
    world = Members()
    for data in (b"", b"\x80", b"\xff", encode_changes([]), b"\x81\x81\x01", b"\x81\x81\x80"):
        call = ("charter.change_committee", 1, data, None)
        decision = world.one(world.draft("chief_t", call, cosigners=("chief_r", "chief_s")))
        assert decision.code == Code.BAD_INPUT, data
