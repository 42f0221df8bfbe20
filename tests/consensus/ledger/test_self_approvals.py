"""Approvals by the person concerned: ``self`` on a leaf, instead of a role."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pycddl import Schema

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import Genesis, Principal
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.model import Leaf
from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.rules.difference import difference
from consensus.ledger.rules.policies import in_words
from tests.consensus.ledger.desk import DESK_CHARTER, Desk
from tests.consensus.ledger.world import (
    BENEFITS,
    DEFAULT,
    IDENTITY,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

GRAMMAR = Schema(
    (Path(__file__).parents[3] / "docs/protocol/rules.cddl").read_text(encoding="utf-8")
)
PAY = """\
domain = "payments"
number = 1
legal_basis = "Licences Act"
uses = { identity = ["person.name"] }

[kinds.licence]
fields.holder = { type = "ref", kind = "person", optional = true }
status = { start = "valid", steps = { valid = ["old"], old = [] } }

[actions.issue]
actor  = { role = "payments.clerk" }
inputs = { name = "text", holder = "ref:person?" }
create = [ { kind = "licence", id = ["{input.name}"], set = { holder = "input.holder" } } ]

[actions.transfer]
actor     = { role = "payments.clerk" }
inputs    = { licence = "ref:licence", to = "ref:person" }
load      = [ ["lic", "licence/{input.licence}"] ]
set       = [ { record = "lic", fields = { holder = "input.to" } } ]
approvals = { all = [ { self = "lic.holder" }, { role = "payments.officer" } ] }

[actions.take]
actor     = { self = "input.to" }
inputs    = { licence = "ref:licence", to = "ref:person" }
load      = [ ["lic", "licence/{input.licence}"] ]
set       = [ { record = "lic", fields = { holder = "input.to" } } ]
approvals = { self = "lic.holder", author = true }

[actions.offer]
actor     = { role = "payments.clerk" }
inputs    = { licence = "ref:licence", to = "ref:person" }
load      = [ ["lic", "licence/{input.licence}"] ]
set       = [ { record = "lic", fields = { holder = "input.to" } } ]
approvals = { self = "input.to" }
objections = { self = "lic.holder" }

[actions.both]
actor     = { role = "payments.clerk" }
inputs    = { licence = "ref:licence", to = "ref:person" }
load      = [ ["lic", "licence/{input.licence}"] ]
set       = [ { record = "lic", fields = { holder = "input.to" } } ]
approvals = { all = [ { self = "lic.holder" }, { self = "input.to" } ], distinct = "person" }

[actions.end]
actor     = { role = "payments.officer" }
inputs    = { licence = "ref:licence" }
load      = [ ["lic", "licence/{input.licence}"] ]
set       = [ { record = "lic", status = "old" } ]
approvals = { self = "lic.by.created" }
"""
LIC = ("licence", ["l"])
ANN, BOB = person("ann"), person("bob")


@cache
def genesis() -> Genesis:
    """Ann and Bob are citizens; ann_clerk is Ann too, an officer of payments."""
    people = (
        Principal(token("bob's"), "registry", 2, token("bob"), (token("bob"),)),
        Principal(token("ann_clerk"), "audit", 0, token("ann")),
    )
    return make_genesis(
        (DESK_CHARTER, IDENTITY, BENEFITS, PAY),
        principals=(*DEFAULT.principals, *people),
        keys=(*DEFAULT.keys, *((public_key(n), token(n)) for n in ("bob's", "ann_clerk"))),
        accounts=(),
    )


class Licences(Desk):
    """A network with a licence of Ann's."""

    def __init__(self, holder: Value = ANN) -> None:
        super(Desk, self).__init__(genesis())
        for name in ("ann", "bob"):
            register(self, name)
        made = self.do("clerk", "payments.issue", "l", holder, expects=[(*LIC, 0)])
        assert made.code == Code.APPLIED

    def asked(self, action: str, author: str, *cosigners: str, to: Value = BOB) -> tuple[Code, Any]:
        """Return what an act on the licence comes to."""
        inputs = (["l"],) if action == "end" else (["l"], to)
        made = self.do(
            author, f"payments.{action}", *inputs, expects=[(*LIC, 1)], cosigners=cosigners
        )
        return made.code, made.detail


def test_the_person_whose_record_it_is_approves() -> None:
    assert Licences().asked("transfer", "clerk", "ann's", "officer") == (Code.APPLIED, None)


def test_the_decision_says_who_approved_as_oneself() -> None:
    world = Licences()
    draft = world.draft(
        "clerk",
        ("payments.transfer", ["l"], BOB),
        expects=[(*LIC, 1)],
        cosigners=["ann's", "officer"],
    )
    decision = world.one(draft)
    keys = sorted(public_key(each) for each in ("ann's", "officer"))
    filled = decision.value("authority")[3]  # type: ignore[index]
    ann, officer = (keys.index(public_key(each)) + 1 for each in ("ann's", "officer"))
    assert filled == [
        [0, 0, ann, [None, []]],
        [0, 1, officer, ["payments.officer", [["region", "north"]]]],
    ]


def test_nobody_else_approves_in_the_person_s_place() -> None:
    world = Licences()
    lacking = ["self", "lic.holder", [[token("bob's"), ["self"]]]]
    assert world.asked("transfer", "clerk", "bob's", "officer") == (Code.NEEDS_APPROVAL, [lacking])
    alone = [["self", "lic.holder", []], ["role", "payments.officer", 1, "", []]]
    assert world.asked("transfer", "clerk") == (Code.NEEDS_APPROVAL, alone)


def test_a_record_of_nobody_is_approved_by_nobody() -> None:
    code, detail = Licences(holder=None).asked("transfer", "clerk", "ann's", "officer")
    assert (code, detail[0][:2]) == (Code.NEEDS_APPROVAL, ["self", "lic.holder"])


def test_the_author_counts_only_where_the_leaf_says_so() -> None:
    assert Licences().asked("take", "ann's", to=ANN) == (Code.APPLIED, None)
    assert Licences().asked("take", "bob's", to=BOB)[0] == Code.NEEDS_APPROVAL
    assert Licences().asked("take", "bob's", "ann's", to=BOB) == (Code.APPLIED, None)


def test_one_person_fills_one_place() -> None:
    both = Licences().asked("both", "clerk", "ann's", to=ANN)
    assert both == (Code.NEEDS_APPROVAL, [["self", "input.to", []]])
    again = Licences().asked("both", "clerk", "ann's", "ann_clerk", to=ANN)
    assert again[0] == Code.NEEDS_APPROVAL  # another key of hers is she
    assert Licences().asked("both", "clerk", "ann's", "bob's") == (Code.APPLIED, None)


def test_whoever_made_a_record_may_be_asked() -> None:
    assert Licences().asked("end", "officer", "clerk") == (Code.APPLIED, None)
    assert Licences().asked("end", "officer", "ann's")[0] == Code.NEEDS_APPROVAL


# --- stored ---------------------------------------------------------------------------------------


def lacking(world: Licences, who: str, txid: bytes) -> list[Value]:
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    run = BlockRun(world.ledger, world.state, context, ())
    return run.proposing.lacking(world.proposal(txid), public_key(who))


def test_a_stored_proposal_is_approved_by_the_person() -> None:
    world = Licences()
    proposed = world.stored("clerk", ("payments.transfer", ["l"], BOB), expects=[(*LIC, 1)])
    stranger = world.one(world.act("bob's", "approve", proposed))
    assert (stranger.code, stranger.detail) == (
        Code.NOT_AUTHORIZED,
        [["self"], ["role", "payments.officer", "missing"]],
    )
    assert lacking(world, "ann's", proposed.txid) == []
    assert lacking(world, "bob's", proposed.txid) == stranger.detail
    assert [each.code for each in world.approve("ann's", proposed).decisions] == [Code.APPLIED]
    assert len(world.approve("officer", proposed).decisions) == 2
    assert world.word(proposed) == "executed"
    assert world.record("licence", ["l"]).fields["holder"] == BOB


def test_objections_may_be_the_person_s() -> None:
    world = Licences()
    proposed = world.stored("clerk", ("payments.offer", ["l"], BOB), expects=[(*LIC, 1)])
    refused = world.one(world.act("bob's", "object", proposed, "no"))
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["self"]])
    assert world.one(world.act("ann's", "object", proposed, "mine")).code == Code.APPLIED
    assert world.word(proposed) == "objected"


def test_of_what_an_earlier_call_will_make_the_inputs_say_who_approves() -> None:
    world = Licences()
    calls = (("payments.issue", "n", ANN), ("payments.offer", ["n"], BOB))
    proposed = world.stored("clerk", *calls, expects=[("licence", ["n"], 0)])
    refused = world.one(world.act("ann's", "approve", proposed))
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["not asked"], ["self"]])
    done = world.approve("bob's", proposed).decisions
    assert [each.code for each in done] == [Code.APPLIED, Code.APPLIED]
    hidden = (("payments.issue", "m", ANN), ("payments.transfer", ["m"], BOB))
    unsaid = world.stored("clerk", *hidden, expects=[("licence", ["m"], 0)])
    code = world.one(world.act("ann's", "approve", unsaid)).code
    assert code == Code.NOT_AUTHORIZED  # whose it will be, the record alone says


def test_what_a_citizen_could_approve_is_asked_of_every_action_with_self() -> None:
    world = Licences()
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    asked = BlockRun(world.ledger, world.state, context, ()).proposing.asked_of(public_key("ann's"))
    assert asked == [f"payments.{name}" for name in ("both", "end", "offer", "take", "transfer")]


# --- written --------------------------------------------------------------------------------------


def compiled(policy: str) -> Any:
    """Return the policy of the transfer."""
    text = PAY.replace(
        'approvals = { all = [ { self = "lic.holder" }, { role = "payments.officer" } ] }',
        f"approvals = {policy}",
    )
    found = compile_rulebook([load_toml(each) for each in (IDENTITY, text)])
    action = found.action("payments", "transfer")
    assert action is not None
    return action.approvals


def test_the_canonical_form_is_of_the_grammar_and_keeps_what_was_said() -> None:
    definition = load_toml(PAY)
    data = encode_definition(definition)
    GRAMMAR.validate_cbor(data)
    assert decode_definition(data) == definition


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('{ self = "lic.holder", role = "payments.officer" }', "role and self do not go together"),
        ('{ self = "lic.holder", all = [] }', "self and all do not go together"),
        ('{ self = "lic.holder", count = 2 }', "self names one person"),
        ('{ self = "lic.status" }', "expected ref or token or digest"),
        ('{ self = "lic.owner" }', "licence has no field"),
        ('{ self = "lic" }', ""),
        ('{ self = "" }', "either a role or a name"),
        ('{ role = "" }', "either a role or a name"),
        ('{ self = 3 }', "expected text"),
        ('{ count = 2 }', "a policy says who approves"),
    ],
)  # fmt: skip
def test_faults_of_a_leaf_with_self(policy: str, said: str) -> None:
    with pytest.raises(RulesError) as caught:
        compiled(policy)
    assert said in str(caught.value)


def test_a_chain_s_leaf_with_both_is_refused() -> None:
    packed = encode_definition(load_toml(PAY))
    role, own = b"\x70payments.officer", b"\x60"
    one = b"\x82" + own + b"\x81\x82\x64self\x6alic.holder"
    assert packed.count(one) == 3
    both = packed.replace(one, one.replace(own, role, 1))
    definition = decode_definition(both)
    with pytest.raises(RulesError, match="either a role or a name"):
        compile_rulebook([load_toml(IDENTITY), definition])


def test_it_is_said_in_words() -> None:
    leaf = compiled('{ self = "lic.holder", when = "has(lic.holder)" }')
    assert isinstance(leaf, Leaf)
    assert (leaf.role, leaf.count) == ("", 1)
    assert in_words(leaf) == "lic.holder in person, when has(lic.holder)"
    text = PAY.replace("number = 1", "number = 2")
    other = text.replace('{ self = "input.to" }\nobj', '{ self = "lic.holder" }\nobj')
    assert other != text
    said = difference(load_toml(PAY), load_toml(other), [load_toml(IDENTITY)])
    assert "lic.holder in person" in repr(said)
