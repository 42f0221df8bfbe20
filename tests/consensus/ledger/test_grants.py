"""Power passed on from an office: what a chain of grants carries, and what it never does."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import cbor2
import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.genesis import Principal, RoleGiven
from consensus.ledger import delegation
from consensus.ledger.codes import Code
from consensus.ledger.decision import SHAPES, Decision, decode
from consensus.ledger.dry import DryRun
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.layout import GRANT_DEPTH_MAX, Grant
from consensus.ledger.ledger import of_genesis
from consensus.ledger.transaction import Transaction
from consensus.state.record import decode_single, encode_single
from consensus.state.state import MemoryBackend, Row
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.world import (
    CHARTER,
    DEFAULT,
    START_MS,
    TEXTS,
    World,
    ent,
    make_genesis,
    person,
    public_key,
    token,
)

GRANTS = """
[actions.give_grant]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }

[actions.pass_grant]
kernel = true
actor = { self = "who.principal" }

[actions.revoke_grant]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }
"""
OPEN_ANY = """
[actions.open_any]
actor   = { role = "payments.officer" }
inputs  = { person = "ref:person" }
load    = [ ["ent?", "entitlement/{input.person}"] ]
require = [ { code = "X", that = "!has(ent.status) || ent.monthly > 0", say = "no" } ]
open    = [ { account = "account/payee/{input.person}" } ]
"""
DESK = token("desk")
"""The office: it has no key."""
OFFICER = "payments.officer"
DISBURSE = "payments.disburse"
FREEZE = "payments.freeze"
REGION = (("region", "north"),)
LONG_AGO = 0


def office_genesis() -> object:
    principals = (
        *DEFAULT.principals,
        Principal(DESK, "treasury", 1, None),
        Principal(token("post"), "registry", 1, None),
    )
    roles = (
        *DEFAULT.roles,
        RoleGiven(DESK, OFFICER, REGION),
        RoleGiven(token("deputy"), "charter.admin"),
    )
    texts = (CHARTER + GRANTS, *TEXTS[1:3], TEXTS[3] + OPEN_ANY)
    return make_genesis(texts, principals=principals, roles=roles)


GENESIS = office_genesis()


@dataclass
class Town(World):
    """A network in which the Treasury's desk may pay, and Ann is entitled."""

    genesis: object = field(default_factory=lambda: GENESIS)  # type: ignore[assignment]

    def entitle(self) -> Town:
        register = ("identity.register", token("ann"), "Ann", "north")
        done = self.do("registrar", *register, expects=[("person", person("ann"), 0)])
        assert done.code == Code.APPLIED, done.detail
        entitled = [("person", person("ann"), 1), (*ent("ann"), 0)]
        done = self.do("social", "benefits.grant", person("ann"), 400, expects=entitled)
        assert done.code == Code.APPLIED, done.detail
        done = self.do("officer", "payments.open_payee", person("ann"))
        assert done.code == Code.APPLIED, done.detail
        return self

    def give(
        self,
        *,
        to: Value = None,
        post: tuple[Value, Value] = (None, None),
        actions: tuple[str, ...] = (DISBURSE, FREEZE),
        when: str | None = None,
        start_ms: int = LONG_AGO,
        until_ms: int | None = None,
        depth: int = GRANT_DEPTH_MAX,
        agency: str = "treasury",
        office: bytes = DESK,
        role: str = OFFICER,
        author: str = "admin",
    ) -> Decision:
        inputs = (to, *post, list(actions), when, start_ms, until_ms, depth)
        return self.do(author, "charter.give_grant", agency, office, role, *inputs)

    def hand_on(
        self,
        author: str,
        grant: bytes,
        *,
        to: Value = None,
        post: tuple[Value, Value] = (None, None),
        actions: tuple[str, ...] = (DISBURSE,),
        when: str | None = None,
        start_ms: int = LONG_AGO,
        until_ms: int | None = None,
        depth: int = 1,
    ) -> Decision:
        inputs = (to, *post, list(actions), when, start_ms, until_ms, depth)
        return self.do(author, "charter.pass_grant", grant, *inputs)

    def revoke(self, grant: bytes, agency: str = "treasury", author: str = "admin") -> Decision:
        return self.do(author, "charter.revoke_grant", agency, grant)

    def pay(self, author: str, *under: bytes, period: int = 24_312) -> Decision:
        call = ("payments.disburse", person("ann"), period)
        return self.do(author, *call, under=list(under), expects=[(*ent("ann"), 1)])

    def grant(self, id_: bytes) -> Grant:
        row = self.state.get(self.ledger.paths("grant", [id_]))
        assert row is not None
        value: Grant = read_single("grant", [id_], row.value).value
        return value

    def write(self, grant: Grant) -> None:
        """Put a grant into the state that the kernel would not make."""
        kh = self.ledger.paths("grant", [grant.id])
        row = encode_single(1, bytes(16), codec.encode(list(grant)))
        self.state.write([(kh, Row(bytes([7]) * 32, self.height, row))])


def made(decision: Decision) -> bytes:
    """Return the id of the grant that was made."""
    assert decision.code == Code.APPLIED, (decision.code, decision.detail)
    writes = decision.value("writes:charter")
    assert type(writes) is list
    [[place, before, after, _, _]] = writes
    assert (place[0], before, after) == ("grant", 0, 1)
    id_: bytes = place[1][0]
    return id_


def refused(decision: Decision) -> Value:
    assert decision.code == Code.NOT_AUTHORIZED, (decision.code, decision.detail)
    return decision.detail


def answer(decision: Decision) -> tuple[Code, Value]:
    return decision.code, decision.detail


SOCIAL, AUDITOR, DEPUTY, CLERK = (token(n) for n in ("social", "auditor", "deputy", "clerk"))


@cache
def _model() -> tuple[Town, list[tuple[bytes, Row]]]:
    town = Town().entitle()
    rows = ((kh, town.state.get(kh)) for kh, _, _ in town.state.entries())
    return town, [(kh, row) for kh, row in rows if row is not None]


def entitled() -> Town:
    """Return a town of its own in which Ann is entitled, sooner."""
    model, rows = _model()
    town = Town()
    town.state = MemoryBackend(rows)
    town.height, town.now_ms = model.height, model.now_ms
    town.sequences = dict(model.sequences)
    return town


# --- what a grant carries ---------------------------------------------------------------------


def test_official_of_another_agency_acts_with_the_power_of_the_office() -> None:
    town = Town().entitle()
    assert refused(town.pay("social")) == [["role", OFFICER, "missing"]]
    grant = made(town.give(to=SOCIAL))
    assert refused(town.pay("social")) == [["role", OFFICER, "missing"]]  # it is not named
    decision = town.pay("social", grant)
    assert decision.code == Code.APPLIED, decision.detail
    assert town.balance("payee", person("ann")) == 400
    authority = decision.value("authority")
    power = [OFFICER, [["region", "north"]], DESK, grant]
    assert authority == [[SOCIAL, "services", public_key("social")], [power], []]
    assert decode(decision.encode()).root == decision.root
    reads = cbor2.loads(decision.leaves["reads"])[0]
    read = {reads[at : at + 32] for at in range(0, len(reads), 64)}
    for space, id_ in (
        ("grant", [grant]),
        ("principal", [DESK]),
        ("role", [DESK, OFFICER]),
        ("agency", ["treasury"]),
        ("agency", ["services"]),
    ):
        assert town.ledger.paths(space, id_) in read, (space, id_)


def test_grant_is_kept_as_it_was_given() -> None:
    town = Town()
    until_ms = START_MS + 10_000_000
    grant = made(
        town.give(post=("audit", OFFICER), when="now > 0", start_ms=5, until_ms=until_ms, depth=2)
    )
    expected = Grant(
        grant, [DESK, OFFICER], "treasury", token("admin"), ["audit", OFFICER],
        [DISBURSE, FREEZE], "now > 0", 5, until_ms, None, 2, 0,
    )  # fmt: skip
    assert town.grant(grant) == expected


def test_grant_survives_who_signed_for_it_but_not_its_office() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    admin = ("treasury", token("admin"))
    assert town.do("admin", "charter.revoke_role", *admin, "charter.admin").code == Code.APPLIED
    assert town.pay("social", grant).code == Code.APPLIED
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    lose = ("charter.revoke_role", "treasury", DESK, OFFICER)
    assert town.do("admin", *lose).code == Code.APPLIED
    assert refused(town.pay("social", grant)) == [["office", OFFICER, "revoked"]]


@pytest.mark.parametrize(
    ("act", "link"),
    [
        (("charter.suspend_principal", "treasury", DESK), ["office", OFFICER, "suspended"]),
        (("charter.suspend_agency", "treasury"), ["grant", None, "suspended"]),
    ],
)
def test_suspended_office_and_agency_pass_nothing_on(
    act: tuple[Value, ...], link: list[Value]
) -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    assert town.do("admin", *act).code == Code.APPLIED
    [found] = refused(town.pay("social", grant))
    assert found == [link[0], link[1] or grant, link[2]]


def test_grant_to_a_role_serves_whoever_has_it_at_that_agency() -> None:
    town = Town().entitle()
    grant = made(town.give(post=("services", "benefits.officer")))
    assert town.pay("social", grant).code == Code.APPLIED
    assert refused(town.pay("deputy", grant, period=24_313)) == [["grant", grant, "holder"]]
    other = made(town.give(post=("services", "benefits.chief")))
    link = [["role", "benefits.chief", "missing"]]
    assert refused(town.pay("social", other, period=24_313)) == link


def test_grant_serves_its_holder_alone() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    assert refused(town.pay("deputy", grant)) == [["grant", grant, "holder"]]


def test_grant_counts_from_its_start_to_just_before_its_end() -> None:
    town = Town().entitle()
    start_ms, until_ms = town.now_ms + 20_000, town.now_ms + 30_000
    grant = made(town.give(to=SOCIAL, start_ms=start_ms, until_ms=until_ms))
    for period, (time_ms, why) in enumerate(
        [(start_ms - 1, "not yet"), (start_ms, ""), (until_ms - 1, ""), (until_ms, "expired")]
    ):
        town.now_ms = time_ms - 1000
        decision = town.pay("social", grant, period=24_312 + period)
        if why:
            assert refused(decision) == [["grant", grant, why]]
        else:
            assert decision.code == Code.APPLIED, decision.detail


def test_office_whose_role_ends_passes_nothing_on_from_then() -> None:
    town = Town().entitle()
    end_ms = town.now_ms + 20_000
    again = ("charter.give_role", "treasury", DESK, OFFICER, ["region", "north"], 0, end_ms)
    assert town.do("admin", *again, expects=[("role", [DESK, OFFICER], 1)]).code == Code.APPLIED
    grant = made(town.give(to=SOCIAL))
    town.now_ms = end_ms - 1001
    assert town.pay("social", grant).code == Code.APPLIED
    assert refused(town.pay("social", grant, period=24_313)) == [["office", OFFICER, "expired"]]
    assert answer(town.give(to=SOCIAL)) == (
        Code.NOT_AUTHORIZED,
        [["office", OFFICER, "expired"]],
    )


def test_other_actions_than_those_named_are_judged_by_the_own_role() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL, actions=(FREEZE,)))
    detail = refused(town.pay("social", grant))
    assert detail == [["role", OFFICER, "missing"], ["grant", grant, "action"]]
    clerk = made(town.give(to=CLERK))
    assert town.do("clerk", "payments.transfer", "a", "b", 1, under=[clerk]).code == Code.APPLIED


def test_unknown_grant_is_never_passed_over() -> None:
    town = Town().entitle()
    nothing = bytes(32)
    assert refused(town.pay("social", nothing)) == [["grant", nothing, "missing"]]
    assert refused(town.pay("officer", nothing)) == [["grant", nothing, "missing"]]
    grant = made(town.give(to=SOCIAL))
    assert refused(town.pay("social", grant, nothing)) == [["grant", nothing, "missing"]]


def test_first_grant_that_carries_counts() -> None:
    town = Town().entitle()
    first, second = made(town.give(to=SOCIAL)), made(town.give(to=SOCIAL))
    assert town.revoke(first).code == Code.APPLIED
    decision = town.pay("social", first, second)
    assert decision.code == Code.APPLIED
    assert decision.value("authority")[1][0][3:] == [second]  # type: ignore[index]
    assert town.revoke(second).code == Code.APPLIED
    links = [["grant", first, "revoked"], ["grant", second, "revoked"]]
    assert refused(town.pay("social", first, second, period=24_313)) == links


def test_office_reaches_no_further_than_its_scope() -> None:
    town = Town()
    register = ("identity.register", token("sue"), "Sue", "south")
    assert town.do("registrar", *register, expects=[("person", person("sue"), 0)]).code == 0
    made_ = town.do(
        "social",
        "benefits.grant",
        person("sue"),
        1,
        expects=[("person", person("sue"), 1), (*ent("sue"), 0)],
    )
    assert refused(made_) == [["where"]]  # the social officer is of the north
    # `who` under a grant is the office: its agency, role and scope, and the one who acts
    grant = made(town.give(to=SOCIAL, actions=(FREEZE,), when="who.scope.region == 'north'"))
    freeze = ("payments.freeze", person("sue"), None)
    assert town.do("social", *freeze, under=[grant]).code == Code.APPLIED
    other = made(town.give(to=SOCIAL, actions=(FREEZE,), when="who.agency == 'services'"))
    assert refused(town.do("social", *freeze, under=[other])) == [["grant", other, "when"]]


# --- when -------------------------------------------------------------------------------------


def test_when_sees_inputs_records_time_and_who() -> None:
    town = Town().entitle()
    conditions = {
        "ent.monthly <= 400 && person.status == 'alive'": True,
        "ent.monthly < 400": False,
        "input.period >= month('2026-01')": True,
        "input.period < month('2026-01')": False,
        f"now >= time('2026-01-01') && who.agency == 'treasury' && who.role == '{OFFICER}'": True,
        "now < time('2026-01-01')": False,
        "who.scope.region == 'north'": True,
        "who.scope.town == 'x'": False,  # it has no value
        "ent.monthly / (ent.monthly - ent.monthly) == 1": False,
    }
    for number, (when, carries) in enumerate(conditions.items()):
        grant = made(town.give(to=SOCIAL, actions=(DISBURSE,), when=when))
        decision = town.pay("social", grant, period=24_320 + number)
        if carries:
            assert decision.code == Code.APPLIED, (when, decision.detail)
        else:
            assert refused(decision) == [["grant", grant, "when"]], when


@pytest.mark.parametrize(
    "when",
    [
        "",
        "true &&",
        "1",
        "input.nothing == 1",
        "person.name == 'Ann'",  # of another domain, and the action does not read it
        "params.most > 1",
        "ent.by == ''",
        "nobody.name == ''",
        "person == person",
        "true || " * 130 + "true",  # too long
        "(" * 40 + "true" + ")" * 40,  # too deep
        "\x00",
        "é.x",
    ],
)
def test_condition_without_a_meaning_is_refused(when: str) -> None:
    code, detail = answer(Town().give(to=SOCIAL, actions=(DISBURSE,), when=when))
    assert (code, detail[0]) == (Code.BAD_INPUT, "when")


def test_condition_must_mean_something_with_every_action() -> None:
    code, detail = answer(Town().give(to=SOCIAL, when="ent.monthly < 400"))
    assert code == Code.BAD_INPUT
    assert detail[1].startswith("payments.freeze: ")


def test_compiled_conditions_are_few_and_evaluated_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delegation, "CONDITIONS_MAX", 2)
    town = Town().entitle()
    end_ms = town.now_ms + 60_000
    grant = made(town.give(to=SOCIAL, actions=(DISBURSE,), when=f"now < {end_ms}"))
    for number in range(4):
        other = made(town.give(to=SOCIAL, actions=(DISBURSE,), when=f"now > {number}"))
        assert town.pay("social", other, period=24_320 + number).code == Code.APPLIED
        assert town.pay("social", grant, period=24_330 + number).code == Code.APPLIED
    town.now_ms = end_ms - 1000
    assert refused(town.pay("social", grant)) == [["grant", grant, "when"]]


# --- passing on -------------------------------------------------------------------------------


def chain(town: Town) -> tuple[bytes, bytes, bytes]:
    """Return three grants, each made from the one before: social, auditor, deputy."""
    first = made(town.give(to=SOCIAL))
    second = made(town.hand_on("social", first, to=AUDITOR, depth=2))
    third = made(town.hand_on("auditor", second, to=DEPUTY))
    return first, second, third


def test_power_goes_down_a_chain_of_three_and_no_further() -> None:
    town = Town().entitle()
    grants = chain(town)
    decision = town.pay("deputy", grants[2])
    assert decision.code == Code.APPLIED, decision.detail
    assert decision.value("authority")[1] == [  # type: ignore[index]
        [OFFICER, [["region", "north"]], DESK, *grants]
    ]
    assert town.grant(grants[2]).agency == "audit"
    further = town.hand_on("deputy", grants[2], to=CLERK)
    assert answer(further) == (
        Code.REQUIREMENT,
        ["TOO_DEEP", "the grant may not be passed on"],
    )


@pytest.mark.parametrize("broken", range(3))
def test_revoking_a_link_ends_all_below_at_once(broken: int) -> None:
    town = Town().entitle()
    grants = chain(town)
    pay = ("payments.disburse", person("ann"), 24_312)
    block = [
        town.draft(author, pay, under=[grant], expects=[(*ent("ann"), 1)])
        for author, grant in zip(("social", "auditor", "deputy"), grants, strict=True)
    ]
    revoke = ("charter.revoke_grant", "treasury", grants[broken])
    decisions = town.run(*block, town.draft("admin", revoke)).decisions
    assert [d.code for d in decisions[:1]] == [Code.APPLIED]  # protective acts go first
    for level, decision in enumerate(decisions[1:]):
        if level >= broken:
            assert refused(decision) == [["grant", grants[broken], "revoked"]]
        else:
            assert decision.code != Code.NOT_AUTHORIZED
    again = town.revoke(grants[broken])
    assert answer(again)[1] == ["UNCHANGED", "it is so already"]


def test_conditions_of_all_links_must_hold() -> None:
    town = Town().entitle()
    first = made(town.give(to=SOCIAL, actions=(DISBURSE,), when="ent.monthly < 400"))
    second = made(town.hand_on("social", first, to=AUDITOR, when="ent.monthly > 0"))
    assert refused(town.pay("auditor", second, period=1)) == [["grant", first, "when"]]
    first = made(town.give(to=SOCIAL, actions=(DISBURSE,), when="ent.monthly > 0"))
    second = made(town.hand_on("social", first, to=DEPUTY, when="ent.monthly < 400"))
    assert refused(town.pay("deputy", second)) == [["grant", second, "when"]]


def test_suspended_agency_in_between_passes_nothing_on() -> None:
    town = Town().entitle()
    _, second, third = chain(town)
    assert town.do("admin", "charter.suspend_agency", "services").code == Code.APPLIED
    assert refused(town.pay("deputy", third)) == [["grant", second, "suspended"]]


WIDER: list[tuple[str, dict[str, object], Value]] = [
    ("depth", {"depth": 3}, ["TOO_DEEP", "a depth of at most 2 is left"]),
    (
        "actions",
        {"actions": ("payments.freeze_purse",)},
        ["WIDER", "the source does not name all of these actions"],
    ),
    ("start", {"start_ms": 4}, ["WIDER", "the interval is not within that of the source"]),
    ("end", {"until_ms": None}, ["WIDER", "the interval is not within that of the source"]),
    (
        "later end",
        {"until_ms": START_MS + 60_001},
        ["WIDER", "the interval is not within that of the source"],
    ),
    ("office", {"to": DESK}, ["CYCLE", "the power has come from there"]),
    ("oneself", {"to": SOCIAL}, ["CYCLE", "the power has come from there"]),
]


@pytest.mark.parametrize(("changes", "detail"), [each[1:] for each in WIDER])
def test_nothing_wider_than_its_source_is_passed_on(
    changes: dict[str, object], detail: Value
) -> None:
    town = Town()
    first = made(town.give(to=SOCIAL, start_ms=5, until_ms=START_MS + 60_000))
    inputs: dict[str, object] = {
        "to": AUDITOR,
        "start_ms": 5,
        "until_ms": START_MS + 60_000,
        "depth": 2,
    }
    assert town.hand_on("social", first, **inputs).code == Code.APPLIED  # type: ignore[arg-type]
    wider = town.hand_on("social", first, **{**inputs, **changes})  # type: ignore[arg-type]
    assert answer(wider) == (Code.REQUIREMENT, detail)


def test_power_does_not_come_back_to_a_holder_above() -> None:
    town = Town()
    first = made(town.give(post=("services", "benefits.officer")))
    second = made(town.hand_on("social", first, to=AUDITOR, depth=2))
    cycle = ["CYCLE", "the power has come from there"]
    for holder in ({"post": ("services", "benefits.officer")}, {"to": AUDITOR}, {"to": DESK}):
        back = town.hand_on("auditor", second, **holder)
        assert answer(back) == (Code.REQUIREMENT, cycle)
    assert answer(town.give(to=DESK)) == (Code.REQUIREMENT, cycle)


def test_only_the_holder_of_a_live_grant_passes_it_on() -> None:
    town = Town()
    first, second, _ = chain(town)
    other = town.hand_on("clerk", second, to=SOCIAL)
    assert refused(other) == [["grant", second, "holder"]]
    assert town.revoke(first).code == Code.APPLIED
    assert refused(town.hand_on("auditor", second, to=CLERK)) == [["grant", first, "revoked"]]
    late = made(town.give(to=SOCIAL, until_ms=town.now_ms + 2500))
    town.now_ms += 2000
    expired = town.hand_on("social", late, to=CLERK, until_ms=town.now_ms + 2000)
    assert refused(expired) == [["grant", late, "expired"]]
    nothing = town.hand_on("social", bytes(32), to=CLERK)
    assert answer(nothing) == (Code.NOT_FOUND, ["grant", ["grant", [bytes(32)]]])


def test_agencies_above_revoke_and_others_do_not() -> None:
    town = Town()
    _, second, third = chain(town)
    assert town.grant(second).agency == "services"
    assert refused(town.revoke(third, "registry")) == [["where"]]
    assert refused(town.revoke(third, "registry", "deputy")) == [["agency", "registry"]]
    assert town.revoke(third).code == Code.APPLIED
    unknown = town.revoke(bytes(32))
    assert answer(unknown) == (Code.NOT_FOUND, ["grant", ["grant", [bytes(32)]]])


# --- giving -----------------------------------------------------------------------------------

BAD: list[tuple[dict[str, object], Code, Value]] = [
    ({"agency": "nowhere"}, Code.NOT_FOUND, ["agency", ["agency", ["nowhere"]]]),
    ({"office": bytes(32)}, Code.NOT_FOUND, ["office", ["principal", [bytes(32)]]]),
    ({"office": token("post")}, Code.NOT_FOUND, ["office", ["principal", [token("post")]]]),
    (
        {"office": token("officer")},
        Code.BAD_INPUT,
        ["office", "an office is a principal of kind system"],
    ),
    (
        {"office": CLERK, "role": "payments.clerk", "actions": ("payments.transfer",)},
        Code.APPLIED,
        None,
    ),
    (
        {"role": "payments.clerk", "actions": ("payments.transfer",)},
        Code.NOT_AUTHORIZED,
        [["office", "payments.clerk", "missing"]],
    ),
    ({"actions": ()}, Code.BAD_INPUT, ["actions", "one or more, ascending, each once"]),
    (
        {"actions": (FREEZE, DISBURSE)},
        Code.BAD_INPUT,
        ["actions", "one or more, ascending, each once"],
    ),
    (
        {"actions": (FREEZE, FREEZE)},
        Code.BAD_INPUT,
        ["actions", "one or more, ascending, each once"],
    ),
    (
        {"actions": ("payments.nothing",)},
        Code.BAD_INPUT,
        ["actions", "no action payments.nothing is in force"],
    ),
    ({"actions": ("",)}, Code.BAD_INPUT, ["actions", "no action  is in force"]),
    (
        {"actions": ("payments.transfer",)},
        Code.BAD_INPUT,
        ["actions", "payments.transfer is not an action of the role payments.officer"],
    ),
    (
        {"actions": ("charter.add_agency",), "role": "charter.admin"},
        Code.BAD_INPUT,
        ["actions", "charter.add_agency is the charter's; give a role instead"],
    ),
    (
        {"actions": ("identity.move_house",), "role": ""},
        Code.BAD_INPUT,
        ["actions", "identity.move_house is done as oneself, which nobody passes on"],
    ),
    ({"to": None}, Code.BAD_INPUT, ["to_principal", "a principal, or else an agency and a role"]),
    (
        {"post": ("audit", OFFICER)},
        Code.BAD_INPUT,
        ["to_principal", "a principal, or else an agency and a role"],
    ),
    (
        {"to": None, "post": ("audit", None)},
        Code.BAD_INPUT,
        ["to_principal", "a principal, or else an agency and a role"],
    ),
    ({"to": bytes(32)}, Code.NOT_FOUND, ["to_principal", ["principal", [bytes(32)]]]),
    (
        {"to": None, "post": ("nowhere", OFFICER)},
        Code.NOT_FOUND,
        ["to_agency", ["agency", ["nowhere"]]],
    ),
    ({"to": None, "post": ("audit", "")}, Code.BAD_INPUT, ["to_role", "1 to 64 bytes"]),
    ({"depth": 0}, Code.BAD_INPUT, ["depth", "1 to 3"]),
    ({"depth": 4}, Code.BAD_INPUT, ["depth", "1 to 3"]),
    (
        {"until_ms": START_MS},
        Code.BAD_INPUT,
        ["until", "after from, and not in the past"],
    ),
    (
        {"start_ms": START_MS + 90_000, "until_ms": START_MS + 90_000},
        Code.BAD_INPUT,
        ["until", "after from, and not in the past"],
    ),
    ({"author": "deputy"}, Code.NOT_AUTHORIZED, [["where"]]),
]


@pytest.mark.parametrize(("changes", "code", "detail"), BAD)
def test_giving_says_what_is_wrong(changes: dict[str, object], code: Code, detail: Value) -> None:
    given = Town().give(**{"to": SOCIAL, **changes})  # type: ignore[arg-type]
    assert answer(given) == (code, detail)


# --- hostile state and order ------------------------------------------------------------------


def test_chain_that_leads_back_or_too_deep_carries_nothing() -> None:
    """The kernel makes no such grants; a reader of a state still comes to an end."""
    town = Town().entitle()
    template = town.grant(made(town.give(to=SOCIAL)))
    one, two = token("one"), token("two")
    town.write(template._replace(id=one, source=[one]))
    assert refused(town.pay("social", one)) == [["grant", one, "cyclic"]]
    town.write(template._replace(id=two, source=[token("gone")]))
    assert refused(town.pay("social", two)) == [["grant", token("gone"), "missing"]]
    ids = [token(f"link {number}") for number in range(5)]
    for id_, above in zip(ids, [template.id, *ids], strict=False):
        town.write(template._replace(id=id_, source=[above]))
    assert refused(town.pay("social", ids[4])) == [["grant", ids[1], "too deep"]]


def test_grant_of_an_office_that_does_not_fit_carries_nothing() -> None:
    """The kernel makes none; what is behind one may be another by the time it is used."""
    town = Town().entitle()
    template = town.grant(made(town.give(to=SOCIAL)))
    none, clerk, vain = token("none"), token("clerk's"), token("vain")
    town.write(template._replace(id=none, source=[DESK, "payments.none"]))
    assert refused(town.pay("social", none)) == [["office", "payments.none", "missing"]]
    town.write(template._replace(id=clerk, source=[CLERK, "payments.clerk"]))
    assert refused(town.pay("social", clerk)) == [["office", "payments.clerk", "action"]]
    town.write(template._replace(id=vain, when="input.nothing == 1"))
    for _ in range(2):
        assert refused(town.pay("social", vain)) == [["grant", vain, "when"]]


def test_duties_kept_apart_count_for_the_power_of_an_office_while_they_last() -> None:
    head = 'domain = "payments"\nnumber = 1\n'
    apart = f'{head}separate = [["{OFFICER}", "audit.reader"]]\n'
    texts = (CHARTER + GRANTS, *TEXTS[1:3], TEXTS[3].replace(head, apart))
    town = Town(replace(GENESIS, rules=make_genesis(texts).rules)).entitle()  # type: ignore[type-var]
    end_ms = town.now_ms + 60_000
    reads = ("charter.give_role", "treasury", CLERK, "audit.reader", [], 0, end_ms)
    expects = [("role", [CLERK, "audit.reader"], 0)]
    assert town.do("admin", *reads, expects=expects).code == Code.APPLIED
    grant = made(town.give(to=CLERK))
    for _ in range(2):
        assert refused(town.pay("clerk", grant)) == [["apart", OFFICER, "audit.reader"]]
    town.now_ms = end_ms - 1000
    assert town.pay("clerk", grant).code == Code.APPLIED


def test_draft_under_a_grant_is_tried_out_with_its_power() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    call = ("payments.disburse", person("ann"), 24_312)
    for under, findings in (
        ([grant], []),
        ([], [[["role", OFFICER, "missing"]]]),
    ):
        draft = town.draft("social", call, under=under, expects=[(*ent("ann"), 1)])
        context = BlockContext(1, town.height + 1, town.now_ms + 1000)
        run = DryRun(of_genesis(town.genesis), town.state, context, draft)  # type: ignore[arg-type]
        assert [each.detail for each in run.findings] == findings
        assert (run.outcome.code == Code.APPLIED) == (not findings)


def test_grants_are_as_they_are_at_their_place_in_a_block() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))

    def pay(period: int) -> Transaction:
        call = ("payments.disburse", person("ann"), period)
        return town.draft("social", call, under=[grant], expects=[(*ent("ann"), 1)])

    lose = ("charter.give_role", "treasury", DESK, OFFICER, [], 0, town.now_ms + 500)
    role = [("role", [DESK, OFFICER], 1)]
    block = [pay(1), pay(24_313), town.draft("admin", lose, expects=role), pay(24_314)]
    context = BlockContext(1, town.height + 1, town.now_ms + 1000)
    bare = BlockRun(of_genesis(GENESIS), town.state, context, block).finish()  # type: ignore[arg-type]
    result = town.run(*block, slice_=1)
    assert result.results_root == bare.results_root
    codes = [decision.code for decision in result.decisions]
    assert codes == [Code.REQUIREMENT, Code.APPLIED, Code.APPLIED, Code.NOT_AUTHORIZED]
    assert refused(result.decisions[3]) == [["office", OFFICER, "expired"]]


def test_hold_on_the_office_binds_whoever_uses_its_power() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL))
    hold = ("charter.place_hold", [["agency", ["treasury"]]], ["pay"], None, "Act")
    assert town.do("admin", *hold).code == Code.APPLIED
    assert town.pay("social", grant).code == Code.HELD


def test_agency_that_may_not_act_may_not_through_another() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL, actions=("payments.return_payment",)))
    paid = town.pay("officer")
    assert paid.code == Code.APPLIED
    [place] = [w[0] for w in paid.value("writes:payments") if w[0][0] == "record"]  # type: ignore[union-attr]
    payment = place[1][1:]
    back = ("payments.return_payment", payment)
    decision = town.do("social", *back, under=[grant], expects=[("payment", payment, 1)])
    assert refused(decision) == [["not_agency", "payment.by.created"]]
    own = town.do("auditor", *back, expects=[("payment", payment, 1)])
    assert own.code == Code.APPLIED, own.detail


# --- formats ----------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/decision.json").read_text())["grants"]
CDDL = (ROOT / "docs/protocol/ledger.cddl").read_text()


def validate(rule: str, data: bytes) -> None:
    pycddl.Schema(f"start = {rule}\n{CDDL}").validate_cbor(data)


def test_vectors_of_ids() -> None:
    for row in VECTORS["ids"]:
        assert delegation.grant_id(bytes.fromhex(row["txid"]), row["call"]).hex() == row["grant"]


def test_vectors_of_leaves() -> None:
    first, second = (bytes.fromhex(each) for each in VECTORS["leaves"])
    for data in (first, second):
        validate("grant-leaf", data)
        assert codec.encode(list(Grant(*codec.parse(data)))) == data
    one, two = Grant(*codec.parse(first)), Grant(*codec.parse(second))
    assert (one.source[1], one.holder[1], one.when, one.depth) == (
        OFFICER,
        "benefits.officer",
        "now > 0",
        3,
    )
    assert (two.source, two.holder, two.fault(6)) == ([one.id], [two.issuer], "revoked")
    assert [one.fault(at) for at in (-1, 0, one.until_ms)] == ["not yet", "", "expired"]  # type: ignore[arg-type]


def test_vector_of_the_authority_leaf_and_made_ones_match_the_cddl() -> None:
    data = bytes.fromhex(VECTORS["authority"])
    validate("authority-leaf", data)
    assert codec.decode(data, SHAPES["authority"], bytes_max=4096)
    for chain_length in (1, 5):
        wrong = codec.parse(data)
        wrong[1][0][2:] = [bytes(32)] * chain_length
        with pytest.raises(DecodeError):
            codec.decode(codec.encode(wrong), SHAPES["authority"], bytes_max=4096)
    town = Town().entitle()
    grants = chain(town)
    for decision in (town.pay("deputy", grants[2]), town.pay("social", bytes(32))):
        validate("authority-leaf", decision.leaves["authority"])
        assert decode(decision.encode()).root == decision.root
    row = town.state.get(town.ledger.paths("grant", [grants[1]]))
    assert row is not None
    validate("grant-leaf", decode_single(row.value)[2])


# --- any input --------------------------------------------------------------------------------

SMALL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=8).map(lambda text: unicodedata.normalize("NFC", text)),
    st.binary(max_size=33),
    st.sampled_from([SOCIAL, DESK, "treasury", OFFICER, DISBURSE, "now > 0", 0, 1, 3]),
    st.lists(st.sampled_from([DISBURSE, FREEZE, "charter.give_grant", "", ".", 1]), max_size=3),
)
PIECES = st.lists(
    st.sampled_from(
        [*"()!&|?:+-*/%<>=[],.'1", "&&", "||", "==", "true", "now", "who", ".scope", ".region",
         "input", ".period", "ent", ".monthly", ".status", ".startsWith", "has", "size", "person",
         " in ", "all", "muldiv", "null", "é", "~lets", "\n"]
    ),
    max_size=24,
).map("".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(SMALL, max_size=13), st.sampled_from(["give_grant", "pass_grant", "revoke_grant"]))
def test_any_inputs_get_an_outcome(inputs: list[Value], action: str) -> None:
    decision = Town().do("admin", f"charter.{action}", *inputs)
    assert decision.code in (Code.BAD_INPUT, Code.NOT_FOUND, Code.NOT_AUTHORIZED, Code.REQUIREMENT)


VALID: list[Value] = ["treasury", DESK, OFFICER, SOCIAL, None, None, [FREEZE], None, 0, None, 2]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10), SMALL, st.integers(0, 10), SMALL, st.booleans())
def test_any_change_to_valid_inputs_gets_an_outcome(
    at: int, value: Value, other: int, second: Value, passing: bool
) -> None:
    town, inputs = Town(), list(VALID)
    inputs[at] = value
    inputs[other] = second
    if passing:
        grant = made(town.give(to=SOCIAL, actions=(FREEZE,)))
        decision = town.do("social", "charter.pass_grant", grant, *inputs[3:])
    else:
        decision = town.do("admin", "charter.give_grant", *inputs)
    assert decision.code in (
        Code.APPLIED, Code.BAD_INPUT, Code.NOT_FOUND, Code.NOT_AUTHORIZED, Code.REQUIREMENT,
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(PIECES)
def test_any_condition_is_refused_or_decides(when: str) -> None:
    town = entitled()
    decision = town.give(to=SOCIAL, actions=(DISBURSE,), when=when)
    if decision.code == Code.APPLIED:
        used = town.pay("social", made(decision))
        assert used.code in (Code.APPLIED, Code.NOT_AUTHORIZED), when
    else:
        assert decision.code == Code.BAD_INPUT, when


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.binary(min_size=32, max_size=32), st.just(b"")), max_size=16))
def test_any_ids_of_grants_get_an_outcome(ids: list[bytes]) -> None:
    town = entitled()
    grant = made(town.give(to=SOCIAL))
    decision = town.pay("social", *[id_ or grant for id_ in ids])
    expected = Code.APPLIED if ids and not any(ids) else Code.NOT_AUTHORIZED
    assert decision.code == expected


def test_when_on_what_is_absent_does_not_carry() -> None:
    town = Town()
    for when in ("ent.monthly > 0", "ent.status.startsWith('a')", "ent.status == 'active'"):
        grant = made(town.give(to=SOCIAL, actions=("payments.open_any",), when=when))
        done = town.do("social", "payments.open_any", person("nobody"), under=[grant])
        assert refused(done) == [["grant", grant, "when"]]
    grant = made(town.give(to=SOCIAL, actions=("payments.open_any",), when="!has(ent.status)"))
    done = town.do("social", "payments.open_any", person("nobody"), under=[grant])
    assert done.code == Code.APPLIED, done.detail


def test_when_on_what_has_no_value_does_not_carry() -> None:
    town = Town().entitle()
    grant = made(town.give(to=SOCIAL, actions=(DISBURSE,), when="ent.status.startsWith('act')"))
    assert town.pay("social", grant).code == Code.APPLIED
    rules = town.ledger.rules(town.state, town.now_ms)
    action = rules.book.action("payments", "disburse")
    assert action is not None
    nothing = {"ent": dict.fromkeys(("status", "monthly"))}
    for when in ("ent.status.startsWith('act')", "ent.monthly < 1", "ent.status != 'x'"):
        assert not delegation.Conditions().holds(when, action, nothing)


def test_why_a_condition_is_refused_does_not_depend_on_tables_of_characters() -> None:
    """Which characters beyond ASCII are printable differs from one Python to the next."""
    code, (name, reason) = answer(Town().give(to=SOCIAL, when="input.\U0001fae9 == 1"))
    assert (code, name) == (Code.BAD_INPUT, "when")
    assert reason.isascii()
    assert reason.endswith("...")
