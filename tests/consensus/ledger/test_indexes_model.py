"""Indexes against a plain dict: whatever acts in whatever order, every list is right."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import Value
from consensus.ledger import indexes
from consensus.ledger.codes import Code
from consensus.ledger.model import Listing
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import View
from tests.consensus.ledger.shelves import index_of, leaf
from tests.consensus.ledger.test_indexes import make
from tests.consensus.ledger.world import World

IDS = ("u", "v", "w", "x", "y", "z")
CARERS = ("ann", "bob", "eve", None)
RANKS = (0, 1, 2, None)

Act = tuple[str, str, str | None, int | None]
ACTS = st.tuples(
    st.sampled_from(("enrol", "enrol", "change", "rename", "end", "resume")),
    st.sampled_from(IDS),
    st.sampled_from(CARERS),
    st.sampled_from(RANKS),
)
BLOCKS = st.lists(st.lists(st.lists(ACTS, min_size=1, max_size=3), max_size=4), max_size=6)


@dataclass
class Child:
    """What the model knows of a record."""

    carer: str | None
    rank: int | None
    status: str = "enrolled"
    version: int = 0


@dataclass
class Model:
    """All records, and the lists that follow from them."""

    children: dict[str, Child] = field(default_factory=dict)

    def carry_out(self, acts: list[Act]) -> None:
        """Do what an applied transaction did."""
        for name, id_, carer, rank in acts:
            match name:
                case "enrol":
                    self.children[id_] = Child(carer, rank)
                case "change":
                    self.children[id_].carer, self.children[id_].rank = carer, rank
                case "end":
                    self.children[id_].status = "ended"
                case "resume":
                    self.children[id_].status = "enrolled"
        for id_ in {id_ for _, id_, _, _ in acts}:
            self.children[id_].version += 1

    def lists(self) -> dict[tuple[str, Value], set[str]]:
        """Return the ids that belong under each value."""
        found: dict[tuple[str, Value], set[str]] = {}
        for carer in CARERS[:-1]:
            found["child.carer", carer] = {
                id_
                for id_, each in self.children.items()
                if each.carer == carer and each.status == "enrolled"
            }
        for rank in RANKS[:-1]:  # of rank 0 the condition has no value
            found["child.rank", rank] = {
                id_ for id_, each in self.children.items() if rank and each.rank == rank
            }
        for status in ("enrolled", "ended"):
            found["child.status", status] = {
                id_ for id_, each in self.children.items() if each.status == status
            }
        return found


def draft(world: World, model: Model, acts: list[Act]) -> Transaction:
    """Return a transaction of these acts at the versions that the model knows."""
    calls: list[tuple[Value, ...]] = []
    for name, id_, carer, rank in acts:
        match name:
            case "enrol":
                calls.append(("family.enrol", id_, carer, rank))
            case "change":
                calls.append(("family.change", [id_], carer, rank))
            case "rename":
                calls.append(("family.rename", [id_], f"{id_} {carer}"))
            case _:
                calls.append((f"family.{name}", [id_]))
    children = model.children
    expects: list[tuple[str, list[Value], int]] = [
        ("child", [id_], children[id_].version if id_ in children else 0)
        for id_ in dict.fromkeys(id_ for _, id_, _, _ in acts)
    ]
    return world.draft("clerk", *calls, expects=expects)


@settings(max_examples=40, deadline=None)
@given(BLOCKS)
def test_every_list_is_that_of_a_plain_dict_after_every_block(
    blocks: list[list[list[Act]]],
) -> None:
    world, model = make(), Model()
    applied = 0
    for block in blocks:
        named: dict[bytes, list[Act]] = {}
        drafts = []
        for acts in block:
            lanes = {act[0] == "end" for act in acts}
            kept = acts if len(lanes) == 1 else [act for act in acts if act[0] != "end"]
            made = draft(world, model, kept)
            named[made.txid] = kept
            drafts.append(made)
        result = world.run(*drafts)
        for made, decision in zip(result.transactions, result.decisions, strict=True):
            if decision.code == Code.APPLIED:
                model.carry_out(named[made.txid])
                applied += 1
        for (name, value), ids in model.lists().items():
            found = index_of(world, name, value)
            assert {id_ for (id_,) in found} == ids
            assert len(found) == len(ids)
            for absent in set(IDS) - ids:
                assert leaf(world, name, value, [absent]) in (None, [None])


@settings(max_examples=20, deadline=None)
@given(st.permutations(IDS), st.sets(st.sampled_from(IDS)), st.permutations(IDS))
def test_a_list_is_handed_out_alike_whatever_acts_led_to_it(
    first: list[str], leave: set[str], second: list[str]
) -> None:
    ranks = dict(zip(IDS, (3, 1, None, 1, 2, 3), strict=True))
    lists = []
    for order in (first, second):
        world, model = make(), Model()
        for id_ in order:
            act: Act = ("enrol", id_, "ann", ranks[id_])
            assert world.one(draft(world, model, [act])).code == Code.APPLIED
            model.carry_out([act])
        for id_ in order:
            if id_ in leave:
                act = ("change", id_, "bob", ranks[id_])
                assert world.one(draft(world, model, [act])).code == Code.APPLIED
        lists.append(load(world, "rank"))
        assert load(world, "") == [id_ for id_ in IDS if id_ not in leave]
    wanted = [id_ for id_ in ("v", "x", "y", "u", "z", "w") if id_ not in leave]
    assert lists == [wanted, wanted]


def load(world: World, by: str) -> list[str]:
    """Return the ids of Ann's children as an action would get them."""
    book = world.ledger.rules(world.state, world.now_ms).book
    kind = book.kinds["child"]
    view = View(world.state, world.ledger.paths)
    view.book = book
    listing = Listing(kind.indexes[0], len(IDS), by)
    return [record["id"][0] for record in indexes.load(view, kind, listing, "ann")]
