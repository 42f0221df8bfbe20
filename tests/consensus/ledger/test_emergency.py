"""Break-glass: emergency forms, the power that ends by itself, and the review that gives it back."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

import cbor2
import pytest
from pycddl import Schema

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import Principal, RoleGiven
from consensus.ledger import emergency
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.dry import DryRun
from consensus.ledger.emergency import REVIEWS_MAX, review_id
from consensus.ledger.executor import BlockContext
from consensus.ledger.layout import JUSTIFIED, OPEN, UNJUSTIFIED, Review, Role
from consensus.ledger.ledger import of_genesis
from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.test_dry import Watched
from tests.consensus.ledger.test_rules_vectors import ROOT
from tests.consensus.ledger.world import (
    DEFAULT,
    TEXTS,
    World,
    make_genesis,
    public_key,
    token,
)

DAY_MS = 86_400_000
RULES = """
[kinds.permit]
fields.region = { type = "text", open = true }
status = { start = "active", steps = { active = ["suspended"], suspended = ["active"] }, stops = ["suspended"] }

[actions.issue]
actor  = { role = "payments.clerk" }
inputs = { name = "text", region = "text" }
create = [ { kind = "permit", id = ["{input.name}"], set = { region = "input.region" } } ]

[actions.suspend]
phase  = "protective"
actor  = { role = "payments.officer" }
inputs = { permit = "ref:permit" }
load   = [ ["permit", "permit/{input.permit}"] ]
set    = [ { record = "permit", status = "suspended" } ]
approvals = { role = "payments.manager" }
emergency = { approvals = "none", where = "who.scope.region == permit.region", review = { role = "payments.manager", within_days = 3 } }

[actions.reopen]
actor  = { role = "payments.officer" }
inputs = { permit = "ref:permit" }
load   = [ ["permit", "permit/{input.permit}"] ]
set    = [ { record = "permit", status = "active" } ]
approvals = { role = "payments.manager", count = 2 }
emergency = { approvals = { role = "payments.manager" }, review = { role = "audit.reader", within_days = 1 } }
"""


def text(rules: str = RULES) -> str:
    return TEXTS[3] + rules


def make() -> World:
    """The officer acts; ``boss`` and ``chief`` are managers, ``twin`` is the officer again."""
    charter = TEXTS[0]
    for name in ("review", "give_grant"):
        charter += f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
    people = [
        Principal(token(name), "treasury", 0, token(f"subject {name}"))
        for name in ("boss", "chief")
    ]
    people.append(Principal(token("twin"), "treasury", 0, token("subject officer")))
    roles = [RoleGiven(token(name), "payments.manager") for name in ("boss", "chief", "twin")]
    names = ("boss", "chief", "twin")
    return World(
        make_genesis(
            (charter, *TEXTS[1:3], text()),
            principals=(*DEFAULT.principals, *people),
            roles=(*DEFAULT.roles, *roles, RoleGiven(token("auditor"), "audit.reader")),
            keys=(*DEFAULT.keys, *((public_key(name), token(name)) for name in names)),
        )
    )


def issued(*names: str, region: str = "north") -> World:
    world = make()
    for name in names:
        inputs = ("payments.issue", name, region)
        assert world.do("clerk", *inputs, expects=[("permit", [name], 0)]).code == Code.APPLIED
    return world


def leaf(world: World, space: str, *components: Value) -> object:
    row = world.state.get(world.ledger.paths(space, list(components)))
    assert row is not None, (space, components)
    return read_single(space, components, row.value).value


def role_of(world: World, name: str = "officer", role: str = "payments.officer") -> Role:
    found = leaf(world, "role", token(name), role)
    assert isinstance(found, Role)
    return found


def stop(world: World, name: str, author: str = "officer") -> Decision:
    return world.do(author, "payments.suspend!emergency", [name])


def used(world: World, name: str) -> bytes:
    """Suspend by the emergency form and return the review that is due."""
    transaction = world.draft("officer", ("payments.suspend!emergency", [name]))
    decision = world.one(transaction)
    assert decision.code == Code.APPLIED, (decision.code, decision.detail)
    return review_id(transaction.txid, 0)


def answer(
    world: World, review: bytes, justified: bool, author: str = "boss", version: int = 1
) -> Decision:
    return world.do(
        author, "charter.review", review, justified, expects=[("review", [review], version)]
    )


def test_the_ordinary_form_asks_for_approval_and_the_emergency_form_does_not() -> None:
    world = issued("a")
    assert world.do("officer", "payments.suspend", ["a"]).code == Code.NEEDS_APPROVAL
    assert stop(world, "a").code == Code.APPLIED
    assert world.record("permit", ["a"]).fields["status"] == "suspended"


def test_a_draft_of_an_emergency_form_is_tried_out_with_the_review_that_it_brings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = issued("a")
    draft = world.draft("officer", ("payments.suspend!emergency", ["a"]))
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    dry = of_genesis(world.genesis)
    run = DryRun(dry, world.state, context, draft)
    assert (run.outcome.code, run.findings) == (Code.APPLIED, [])
    monkeypatch.setattr(emergency, "REVIEWS_MAX", 0)
    full = Watched(dry, world.state, context, draft)
    assert full.outcome.code == Code.LIMIT
    assert [(each.code, each.call) for each in full.walked] == [(Code.LIMIT, 0)]
    assert world.one(draft).code == Code.LIMIT


def test_the_use_is_recorded_and_its_power_ends_when_the_review_is_due() -> None:
    world = issued("a")
    transaction = world.draft("officer", ("payments.suspend!emergency", ["a"]))
    assert world.one(transaction).code == Code.APPLIED
    due = world.now_ms + 3 * DAY_MS
    id_ = review_id(transaction.txid, 0)
    assert leaf(world, "review", id_) == Review(
        id_, transaction.txid, 0, ["payments", "suspend!emergency"], token("officer"), "treasury",
        [token("officer"), "payments.officer"], world.now_ms, due, "payments.manager", OPEN, None, None,
    )  # fmt: skip
    assert role_of(world).suspends_at_ms == due
    assert leaf(world, "index", "review.role", "payments.manager") == (1,)
    assert leaf(world, "index", "review.role", "payments.manager", 0) == ([id_],)


def test_unreviewed_power_ends_by_itself_at_its_moment() -> None:
    world = issued("a")
    used(world, "a")
    opened = ("payments.open_purse", "x")
    inputs = ("payments.freeze_purse", "a")
    world.now_ms = (role_of(world).suspends_at_ms or 0) - 1001
    assert world.do("officer", *inputs).code == Code.APPLIED
    refused = world.do("officer", *inputs)
    assert refused.code == Code.NOT_AUTHORIZED
    assert refused.detail == [["role", "payments.officer", "suspended"]]
    assert world.do("clerk", *opened).code == Code.APPLIED


def test_a_justified_use_gives_the_power_back_even_late() -> None:
    world = issued("a")
    id_ = used(world, "a")
    world.now_ms += 4 * DAY_MS
    assert answer(world, id_, True).code == Code.APPLIED
    assert role_of(world).suspends_at_ms is None
    assert world.do("officer", "payments.freeze_purse", "a").code == Code.APPLIED
    closed = leaf(world, "review", id_)
    assert isinstance(closed, Review)
    assert (closed.state, closed.reviewer, closed.reviewed_ms) == (
        JUSTIFIED,
        token("boss"),
        world.now_ms - 1000,
    )
    assert leaf(world, "index", "review.role", "payments.manager") == (0,)


def test_an_unjustified_use_revokes_the_role_at_once() -> None:
    world = issued("a")
    id_ = used(world, "a")
    assert answer(world, id_, False).code == Code.APPLIED
    refused = world.do("officer", "payments.freeze_purse", "a")
    assert refused.detail == [["role", "payments.officer", "revoked"]]
    closed = leaf(world, "review", id_)
    assert isinstance(closed, Review)
    assert closed.state == UNJUSTIFIED


def test_the_oldest_open_review_counts() -> None:
    world = issued("a", "b")
    first = used(world, "a")
    first_due = role_of(world).suspends_at_ms
    world.now_ms += DAY_MS
    second = used(world, "b")
    assert role_of(world).suspends_at_ms == first_due
    assert answer(world, first, True).code == Code.APPLIED
    later = role_of(world).suspends_at_ms
    assert later is not None
    assert first_due is not None
    assert later - first_due == DAY_MS + 1000
    assert answer(world, second, True).code == Code.APPLIED
    assert role_of(world).suspends_at_ms is None


def test_a_role_given_anew_does_not_shed_an_open_review() -> None:
    world = issued("a")
    id_ = used(world, "a")
    due = role_of(world).suspends_at_ms
    officer = [token("officer"), "payments.officer"]
    give = ("charter.give_role", "treasury", *officer, [], 0, None)
    assert world.do("admin", *give, expects=[("role", officer, 2)]).code == Code.APPLIED
    assert role_of(world).suspends_at_ms == due
    assert answer(world, id_, True).code == Code.APPLIED
    assert role_of(world).suspends_at_ms is None


@pytest.mark.parametrize(
    ("author", "link"),
    [
        ("officer", ["same_person"]),
        ("twin", ["same_person"]),
        ("clerk", ["role", "payments.manager", "missing"]),
    ],
)
def test_who_may_not_review(author: str, link: Value) -> None:
    world = issued("a")
    refused = answer(world, used(world, "a"), True, author)
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [link])


def test_a_review_is_given_once() -> None:
    world = issued("a")
    id_ = used(world, "a")
    assert answer(world, id_, True).code == Code.APPLIED
    again = answer(world, id_, False, "chief", 2)
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "REVIEWED")
    unknown = answer(world, bytes(32), True)
    assert unknown.code == Code.NOT_FOUND
    stale = world.do("chief", "charter.review", id_, True)
    assert stale.code == Code.STALE


def test_the_form_is_narrower_where_it_says_so() -> None:
    world = issued("s", region="south")
    refused = stop(world, "s")
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["where"]])
    assert world.do("officer", "payments.suspend", ["s"], cosigners=["boss"]).code == Code.APPLIED


def test_the_form_may_ask_for_fewer_approvals_instead_of_none() -> None:
    world = issued("a")
    assert stop(world, "a").code == Code.APPLIED
    reopen = ("payments.reopen!emergency", ["a"])
    expects = [("permit", ["a"], 2)]
    assert world.do("officer", *reopen, expects=expects).code == Code.NEEDS_APPROVAL
    assert world.do("officer", *reopen, expects=expects, cosigners=["boss"]).code == Code.APPLIED


def test_uses_that_await_their_review_are_bounded() -> None:
    names = [f"p{number}" for number in range(REVIEWS_MAX + 1)]
    world = issued(*names)
    for name in names[:-1]:
        assert stop(world, name).code == Code.APPLIED
    refused = stop(world, names[-1])
    assert (refused.code, refused.detail) == (Code.LIMIT, "reviews")
    assert world.record("permit", [names[-1]]).fields["status"] == "active"


def test_a_refused_use_leaves_no_review() -> None:
    world = issued("a")
    assert stop(world, "a").code == Code.APPLIED
    before = leaf(world, "index", "review.role", "payments.manager")
    assert stop(world, "a").code == Code.REQUIREMENT  # no step from suspended to suspended
    assert leaf(world, "index", "review.role", "payments.manager") == before


def test_under_a_grant_it_is_the_grant_that_ends() -> None:
    world = issued("a")
    office = token("clerk")  # a system: the office
    give = (
        "charter.give_role",
        "treasury",
        office,
        "payments.officer",
        ["region", "north"],
        0,
        None,
    )
    assert (
        world.do("admin", *give, expects=[("role", [office, "payments.officer"], 0)]).code
        == Code.APPLIED
    )
    passed: tuple[Value, ...] = (
        "treasury", office, "payments.officer", token("registrar"), None, None,
        ["payments.suspend!emergency"], None, 0, None, 1,
    )  # fmt: skip
    made = world.draft("admin", ("charter.give_grant", *passed))
    assert world.one(made).code == Code.APPLIED
    from consensus.ledger.delegation import grant_id

    grant = grant_id(made.txid, 0)
    act = ("payments.suspend!emergency", ["a"])
    done = world.do("registrar", *act, under=[grant])
    assert done.code == Code.APPLIED, (done.code, done.detail)
    given = leaf(world, "grant", grant)
    assert given.suspends_at_ms == world.now_ms + 3 * DAY_MS  # type: ignore[attr-defined]
    assert role_of(world, "clerk").suspends_at_ms is None


def test_the_forms_are_two_actions_with_identities_of_their_own() -> None:
    rules = compile_rulebook([load_toml(each) for each in (*TEXTS[:3], text())]).rule_sets[
        "payments"
    ]
    assert rules.actions["suspend"].action_id != rules.actions["suspend!emergency"].action_id
    assert rules.actions["suspend"].review is None


def test_the_form_survives_the_canonical_form() -> None:
    definition = load_toml(text())
    data = encode_definition(definition)
    Schema((ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8")).validate_cbor(data)
    assert decode_definition(data) == definition
    actions = dict(cbor2.loads(data)[1][8])
    more = dict(actions["suspend"][13])
    assert more["emergency"] == [
        ["payments.manager", 3],
        [["where", "who.scope.region == permit.region"]],
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('approvals = "none", where', "where", "says who must approve"),
        ('approvals = "none"', 'approvals = "nobody"', "not a policy"),
        ("within_days = 3", "within_days = 0", "outside 1 to 366"),
        (', review = { role = "payments.manager", within_days = 3 }', "", "review is missing"),
        (
            'review = { role = "payments.manager", within_days = 3 }',
            'review = { role = "boss", within_days = 3 }',
            "is not a role",
        ),
        (
            'approvals = { role = "payments.manager" }\nemergency = { approvals = "none"',
            'emergency = { approvals = "none"',
            "asks for none",
        ),
        ("who.scope.region == permit.region", "permit.nothing", "no field nothing"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_with_its_line(old: str, new: str, said: str) -> None:
    broken = RULES.replace(old, new, 1)
    assert broken != RULES
    with pytest.raises(RulesError, match=said) as refused:
        compile_rulebook([load_toml(each) for each in (*TEXTS[:3], text(broken))])
    assert refused.value.line > len(TEXTS[3].splitlines())


def test_what_one_does_as_oneself_has_no_emergency_form() -> None:
    own = RULES.replace(
        'actor  = { role = "payments.officer" }\ninputs = { permit',
        'actor  = { self = "who.principal" }\ninputs = { permit',
        1,
    )
    with pytest.raises(RulesError, match="must be one that ends"):
        compile_rulebook([load_toml(each) for each in (*TEXTS[:3], text(own))])


def test_kernel_actions_have_no_emergency_form() -> None:
    charter = (
        TEXTS[0] + '\n[actions.revoke_grant]\nkernel = true\nactor = { role = "charter.admin" }\n'
    )
    charter += 'approvals = { role = "charter.admin" }\nemergency = { approvals = "none", review = { role = "charter.admin", within_days = 1 } }\n'
    with pytest.raises(RulesError, match="kernel decides emergency"):
        compile_rulebook([load_toml(each) for each in (charter, *TEXTS[1:])])
