"""What one transaction may look at of proposals, and proposals that time completes."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from consensus.codec import Value
from consensus.genesis import Genesis
from consensus.ledger import share
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.transaction import PROPOSE, Transaction
from node.asking import EXAMINED_MAX, Asking
from tests.consensus.ledger.desk import DESK_CHARTER, Desk
from tests.consensus.ledger.test_proposals import refusal
from tests.consensus.ledger.world import BENEFITS, IDENTITY, make_genesis, public_key

PAY = """\
domain = "payments"
number = 1
legal_basis = "Files Act"

[kinds.file]
fields.shelf = { type = "text", open = true }
fields.text  = { type = "bytes", optional = true, open = true }
status = { start = "open", steps = { open = ["sent"], sent = [] } }
index = ["shelf"]

[actions.make]
actor  = { role = "payments.clerk" }
inputs = { name = "text", shelf = "text" }
create = [ { kind = "file", id = ["{input.name}"], set = { shelf = "input.shelf" } } ]

[actions.note]
actor  = { role = "payments.clerk" }
inputs = { file = "ref:file", text = "bytes" }
load   = [ ["file", "file/{input.file}"] ]
set    = [ { record = "file", fields = { text = "input.text" } } ]
approvals = { role = "payments.officer" }

[actions.count]
actor  = { role = "payments.clerk" }
inputs = { shelf = "text" }
load   = [ LISTS ]
approvals = { role = "payments.officer" }

[actions.look]
actor  = { role = "payments.clerk" }
inputs = { shelf = "text" }
load   = [ ["all", "index file.shelf {input.shelf} max 64"] ]

[actions.wait]
actor  = { role = "payments.clerk" }
inputs = { until = "time" }
approvals = { all = [ { role = "payments.officer" }, { role = "identity.officer", when = "now < input.until" } ] }

[actions.mine]
actor  = { role = "payments.clerk" }
inputs = { until = "time" }
approvals = { all = [ { role = "payments.clerk", author = true }, { role = "identity.officer", when = "now < input.until" } ] }
""".replace(
    "LISTS", ", ".join(f'["l{n}", "index file.shelf {{input.shelf}} max 64"]' for n in range(15))
)
WATCH_MS = 30_000
TWICE = ["TWICE", "this person has approved it already"]


@cache
def genesis() -> Genesis:
    return make_genesis((DESK_CHARTER, IDENTITY, BENEFITS, PAY), accounts=())


class Files(Desk):
    """A network whose files are sent by proposals."""

    def __init__(self) -> None:
        super(Desk, self).__init__(genesis())
        for name in ("f", "g"):
            made = self.do("clerk", "payments.make", name, "s", expects=[("file", [name], 0)])
            assert made.code == Code.APPLIED

    def noted(self, calls: int, size: int = 0) -> Transaction:
        """Return a stored proposal of so many calls, each with so many bytes."""
        call = ("payments.note", ["f"], bytes(size))
        return self.stored("clerk", *[call] * calls, expects=[("file", ["f"], 1)])

    def counted(self, calls: int) -> Transaction:
        """Return a stored proposal that may list 960 records a call."""
        return self.stored("clerk", *[("payments.count", "s")] * calls)

    def approving(self, *proposed: Transaction, more: Any = ()) -> list[Decision]:
        """Approve them in one transaction."""
        acts = [("charter.approve", each.txid) for each in proposed]
        return list(self.run(self.draft("officer", *more, *acts)).decisions)


@pytest.fixture
def files() -> Files:
    return Files()


def codes(decisions: list[Decision]) -> list[Code]:
    return [each.code for each in decisions]


# --- one bound for all acts of a transaction ------------------------------------------------------


def test_acts_of_one_transaction_look_at_no_more_calls_than_a_transaction_has(files: Files) -> None:
    big, small = files.noted(63), [files.noted(1) for _ in range(2)]
    both = files.approving(big, *small)
    assert (both[0].code, both[0].call, both[0].detail) == (Code.LIMIT, 2, "proposals")
    assert {files.word(each) for each in (big, *small)} == {"open"}
    assert codes(files.approving(big, small[0])) == [Code.APPLIED, Code.APPLIED, Code.STALE]
    assert codes(files.approving(small[1])) == [Code.APPLIED, Code.STALE]


def test_sixty_four_proposals_of_one_call_are_approved_at_once(files: Files) -> None:
    some = [files.noted(1) for _ in range(64)]
    decisions = files.approving(*some)
    assert codes(decisions) == [Code.APPLIED, Code.APPLIED, *[Code.STALE] * 63]


def test_one_proposal_is_approved_however_much_it_holds(files: Files) -> None:
    whole = files.stored(
        "clerk", *[("payments.note", ["f"], bytes(4000))] * 64, expects=[("file", ["f"], 1)]
    )
    assert codes(files.approving(whole)) == [Code.APPLIED, Code.APPLIED]


def test_acts_of_one_transaction_look_at_no_more_bytes_than_a_transaction_has(files: Files) -> None:
    long = [files.noted(16, 4090) for _ in range(5)]
    refused = files.approving(*long)
    assert (refused[0].code, refused[0].detail) == (Code.LIMIT, "proposals")
    assert codes(files.approving(*long[:3])) == [Code.APPLIED, Code.APPLIED, *[Code.STALE] * 2]


def test_what_proposals_may_list_counts_as_what_the_transaction_lists(files: Files) -> None:
    three = [files.counted(1) for _ in range(3)]
    refused = files.approving(*three)
    assert (refused[0].code, refused[0].call, refused[0].detail) == (Code.LIMIT, 2, "proposals")
    assert codes(files.approving(*three[:2])) == [Code.APPLIED] * 3
    look = ("payments.look", "s")
    before = files.draft("clerk", look, ("charter.approve", three[2].txid))
    assert files.one(before).code == Code.NOT_AUTHORIZED  # the author; what it lists is little
    alone = files.counted(3)
    assert codes(files.approving(alone)) == [Code.APPLIED, Code.APPLIED]
    crowded = files.approving(files.counted(3), files.noted(1), files.counted(1))
    assert (crowded[0].code, crowded[0].call) == (Code.LIMIT, 2)
    assert codes(files.approving(files.counted(3), files.noted(1))) == [Code.APPLIED] * 3


def test_lists_after_acts_on_proposals_have_the_room_that_is_left(files: Files) -> None:
    officer_looks = make_genesis(
        (DESK_CHARTER, IDENTITY, BENEFITS, PAY.replace(
            '[actions.look]\nactor  = { role = "payments.clerk" }',
            '[actions.look]\nactor  = { role = "payments.officer" }')),
        accounts=(),
    )  # fmt: skip
    super(Desk, files).__init__(officer_looks)
    files.do("clerk", "payments.make", "f", "s", expects=[("file", ["f"], 0)])
    heavy = files.counted(3)
    look = ("payments.look", "s")
    after = files.one(files.draft("officer", ("charter.approve", heavy.txid), look))
    assert (after.code, after.detail) == (Code.LIMIT, "lists")
    before = files.one(files.draft("officer", look, ("charter.approve", heavy.txid)))
    assert (before.code, before.detail) == (Code.LIMIT, "proposals")
    empty = ("payments.look", "nothing")
    assert (
        files.one(files.draft("officer", ("charter.approve", heavy.txid), empty)).code
        == Code.APPLIED
    )


def test_objections_share_the_bound(files: Files) -> None:
    some = [files.noted(40), files.noted(40)]
    acts = [("charter.object", each.txid, "no") for each in some]
    refused = files.one(files.draft("officer", *acts))
    assert (refused.code, refused.detail) == (Code.LIMIT, "proposals")
    assert files.one(files.draft("officer", acts[0])).code == Code.APPLIED


def test_the_bound_is_of_each_transaction(files: Files) -> None:
    some = [files.noted(64) for _ in range(2)]
    drafts = [files.act("officer", "approve", each) for each in some]
    found = [each.code for each in files.run(*drafts).decisions]
    assert found == [Code.APPLIED, Code.APPLIED, Code.APPLIED, Code.STALE]


class Places:
    """A register in place of a node's: every proposal of one action."""

    def __init__(self, txids: list[bytes]) -> None:
        self.txids = sorted(txids)

    def cursor_of(self, action: str) -> bytes:
        return action.encode()

    def open_for(self, action: str, now_ms: int, after: bytes) -> Any:
        for txid in self.txids if action == "payments.note" else ():
            if b"payments.note" + txid > after:
                yield b"payments.note" + txid, txid


def pages(files: Files, txids: list[bytes]) -> list[int]:
    """Return how many proposals each page of what waits for the officer has."""
    asking = Asking(
        files.ledger, lambda: files.state, Places(txids),  # type: ignore[arg-type]
        lambda: files.height, lambda: files.now_ms,
    )  # fmt: skip
    found: list[int] = []
    seen: list[bytes] = []
    after = None
    while not found or after is not None:
        page = asking.pending(public_key("officer"), after, 100)
        found.append(len(page.txids))
        seen += page.txids
        after = page.next
    assert seen == sorted(txids)
    return found


def test_a_page_of_what_waits_counts_calls_not_proposals(files: Files) -> None:
    assert EXAMINED_MAX == 64
    assert pages(files, [files.noted(1).txid for _ in range(70)]) == [64, 6]
    assert pages(files, [files.noted(30).txid for _ in range(5)]) == [2, 2, 1]
    assert pages(files, [files.noted(64).txid for _ in range(3)]) == [1, 1, 1]


def test_what_calls_may_list_weighs_as_calls(files: Files) -> None:
    book = files.ledger.rules(files.state, files.now_ms).book
    assert share.weight(book, [["payments", "note", b""]] * 3) == 3
    assert share.weight(book, [["payments", "count", b""]]) == 1 + 15 * 64 // 32
    assert share.weight(book, [["payments", "gone", b""], ["nowhere", "x", b""]]) == 2


# --- what time completes --------------------------------------------------------------------------


def late(files: Files) -> None:
    """Let the time pass after which the registrar is not asked."""
    files.now_ms += WATCH_MS


def lacking(files: Files, who: str, proposed: Transaction) -> list[Value]:
    """Return what somebody lacks to approve, as a node says it."""
    context = BlockContext(1, files.height + 1, files.now_ms + 1000)
    run = BlockRun(files.ledger, files.state, context, ())
    return run.proposing.lacking(files.proposal(proposed.txid), public_key(who))


def waiting(files: Files, action: str = "wait", **more: Any) -> Transaction:
    """Return a stored proposal that asks for the registrar too for half a minute."""
    return files.stored("clerk", (f"payments.{action}", files.now_ms + WATCH_MS), **more)


def test_an_approval_is_renewed_once_nothing_is_missing_and_brings_about_the_effect(
    files: Files,
) -> None:
    proposed = waiting(files)
    files.approve("officer", proposed)
    assert refusal(files, "officer", "approve", proposed) == (Code.REQUIREMENT, TWICE)
    assert lacking(files, "officer", proposed) == [["twice"]]
    late(files)
    assert lacking(files, "officer", proposed) == []
    renewed = files.act("officer", "approve", proposed)
    result = files.run(renewed)
    assert [each.code for each in result.decisions] == [Code.APPLIED, Code.APPLIED]
    assert result.decisions[1].value("links") == [["approval", renewed.txid]]
    found = files.proposal(proposed.txid)
    assert found.word(files.now_ms) == "executed"
    assert [(row[1], row[4]) for row in found.approvals] == [
        (found.approvals[0][1], renewed.txid)
    ]  # one approval, the new one
    assert found.end is not None
    assert found.end[2] == renewed.txid


def test_the_author_brings_about_what_time_completed_and_gives_no_vote(files: Files) -> None:
    for action, approves in (("wait", True), ("mine", False)):
        proposed = waiting(files, action)
        if approves:
            files.approve("officer", proposed)
        code, detail = refusal(files, "clerk", "approve", proposed)
        assert code == Code.NOT_AUTHORIZED
        assert ["author"] in detail
        assert ["author"] in lacking(files, "clerk", proposed)
        before = files.proposal(proposed.txid).approvals
        late(files)
        assert lacking(files, "clerk", proposed) == []
        result = files.approve("clerk", proposed)
        assert [each.code for each in result.decisions] == [Code.APPLIED, Code.APPLIED]
        assert files.proposal(proposed.txid).approvals == before


def test_a_renewal_is_no_second_vote(files: Files) -> None:
    """The officer's approval counts once, before and after it is renewed in vain."""
    proposed = waiting(files)
    both = ("charter.approve", proposed.txid)
    twice = files.one(files.draft("officer", both, both))
    assert (twice.code, twice.detail) == (Code.REQUIREMENT, TWICE)
    assert files.proposal(proposed.txid).approvals == []
    late(files)
    again = files.draft("officer", both, both)
    files.now_ms -= 1000
    assert files.one(again).code == Code.REQUIREMENT  # in one transaction it is not renewed


def test_a_stranger_cannot_renew(files: Files) -> None:
    proposed = waiting(files)
    files.approve("officer", proposed)
    late(files)
    assert refusal(files, "social", "approve", proposed)[0] == Code.NOT_AUTHORIZED
    assert files.word(proposed) == "open"


def test_a_proposal_that_needs_nobody_now_takes_effect_at_once(files: Files) -> None:
    until_ms = files.now_ms + 1_000_000
    for action in ("mine", "wait"):
        proposed = files.draft(
            "clerk", (f"payments.{action}", files.now_ms), mode=PROPOSE, not_after_ms=until_ms
        )
        found = [each.code for each in files.run(proposed).decisions]
        effect = [Code.APPLIED] if action == "mine" else []
        assert found == [Code.PROPOSED, *effect]
