"""Deliveries over the client port, openings for those who may, sharing among the audience."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from comity.keys import Key
from consensus import answers, keyfile, protocol, sealed
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.keyfile import KeyKind
from consensus.ledger import private, sealing
from consensus.ledger.sealing import Opening
from consensus.ledger.transaction import Ack, Expect
from consensus.protocol import GetSealed, Request, StateKey, Status
from consensus.reads import Page
from consensus.sealed import ABSENT, CLOSED, ERASED, OPEN, Deliver, Item
from consensus.signing import verify
from node import keyfiles
from node.network.wire import Class
from node.sealed import keeper as keepers
from node.sealed import wire
from node.sealed.heir import AGAIN_SECONDS, LOOK_SECONDS, MISSING_SECONDS, Heir, Taken
from node.sealed.keeper import Keeper
from node.sealed.vault import Erase, Kept, Vault
from node.sealed.wire import Given, Wanted
from tests.comity.twin import AGENCIES, CITIZEN, NODES, OFFICIAL, Twin
from tests.node.api.care import AUDITOR, CHIEF, CLERK, RULES, WORKER, Acts, founded
from tests.node.api.wire import Wire, port

SEALED_RULES = (
    RULES.replace(
        "[kinds.case]\n",
        "[kinds.case]\n"
        'fields.iban = { type = "text", sealed_for = ["south", "north"], optional = true }\n'
        'fields.own = { type = "text", sealed_for = ["west"], optional = true }\n',
    )
    + """
[actions.seal]
actor  = { role = "care.worker" }
inputs = { case = "ref:case", iban = "sealed:north,south?", own = "sealed:west?" }
load   = [ ["case", "case/{input.case}"] ]
set    = [ { record = "case", fields = { iban = "input.iban", own = "input.own" } } ]
"""
)
SOUTH = AGENCIES.index("south")
OTHERS = [AGENCIES.index(name) for name in ("east", "west")]
CASE = StateKey("record", ("case", 1))
PLACE = ("case", 1, "iban")
TXID = b"T" * 32
VALUE = "DE02 1203"
CDDL = (Path(__file__).parents[3] / "docs/protocol/client.cddl").read_text(encoding="utf-8")


@cache
def rule(name: str) -> Any:
    return pycddl.Schema(f"start = {name}\n{CDDL}")


class Links:
    """Records what is sent; ``connected`` are peers by index."""

    def __init__(self) -> None:
        self.connected = frozenset({1, 2, 3})
        self.sent: list[tuple[int, Any]] = []
        self.bell = trio.Event()

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        assert cls is Class.SYNC
        self.sent.append((peer, wire.decode(payload)))
        self.bell.set()
        return True


@dataclass
class Office:
    """A node of agency north with its keeper, and the port that clients reach it by."""

    twin: Twin
    keeper: Keeper
    links: Links
    connect: Any
    acts: Acts

    def delivery(self, *values: Value, sequence: int = 1, first: int = 0) -> Deliver:
        items = [
            Item(first + at, "care", "seal", 1, bytes([first + at]) * 32, value)
            for at, value in enumerate(values)
        ]
        return Deliver(sequence, self.twin.now_ms + 60_000, tuple(items))

    def opening(self, item: Item, author: Key = WORKER, sequence: int = 1) -> Opening:
        slot = private.slot(self.twin.chain, author.public, sequence)
        return Opening(item.salt, slot, item.call, item.input, item.value)

    async def ask(self, request: Request, key: Key | None = WORKER) -> answers.Answer:
        wire_: Wire = await self.connect(key)
        rule(f"request-{protocol.method_of(request)}").validate_cbor(
            protocol.encode_request(7, request)
        )
        await wire_.send((7, request))
        found = await wire_.answer()
        assert found is not None
        if found.status == Status.OK:
            data = cbor2.dumps([found.request_id, found.status, found.result], canonical=True)
            rule(f"result-{protocol.method_of(request)}").validate_cbor(data)
        return found

    async def sealed_case(self, value: Value = VALUE) -> Opening:
        """Seal the account of case 1, with every acknowledgement; return the opening."""
        request = self.delivery(value, sequence=2)
        found = await self.ask(request)
        assert found.status == Status.OK, found.result
        opening = self.opening(request.items[0], sequence=2)
        message = sealing.delivery_message(self.twin.chain, opening.slot, opening.commitment, 0, 1)
        rows = (("north", 0), ("south", SOUTH))
        acks = [Ack(0, 1, name, NODES[at].public, NODES[at].sign(message)) for name, at in rows]
        done = self.acts.do(
            WORKER,
            "seal",
            [1],
            opening.commitment,
            None,
            expects=[Expect("case", [1], 1)],
            acks=acks,
        )
        assert done.sequence == 2
        place = self.twin.find(done.txid)
        assert place is not None
        decision = self.twin.results[place.height][place.index]
        assert decision.code == 0, decision.detail
        kept = Kept(opening.commitment, ("north", "south"), ((PLACE, 2),))
        await self.keeper.settle([kept], self.twin.now_ms)
        return opening


@asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    twin = Twin(founded(SEALED_RULES))
    acts = Acts(twin)
    links = Links()
    node_key = keyfiles.NodeKey(keyfile.from_seed(KeyKind.NODE, bytes([11]) * 32))
    vault = Vault(folder, b"k" * 32, twin.chain)
    keeper = Keeper(
        twin.chain,
        node_key,
        "north",
        twin.genesis.committee,
        twin.genesis.limits,
        vault,
        links,
        twin.ledger.paths,
        twin.state.get,
        lambda: twin.ledger.rules(twin.state, twin.now_ms).book,
        lambda: twin.now_ms,
        lambda key: who.agency if (who := twin.identity(key)) is not None else "",
        lambda: twin.height,
        lambda height: True,
    )
    twin.keeper = keeper
    acts.do(WORKER, "open", 1, [b"p" * 32], "north", expects=[Expect("case", [1], 0)])
    async with port(twin) as (_, _, connect):
        yield Office(twin, keeper, links, connect, acts)
    keeper.close()


# --- delivered ------------------------------------------------------------------------------------


async def test_value_is_kept_and_acknowledged_by_the_node_key(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        request = here.delivery(VALUE, [1, b"x"])
        found = await here.ask(request)
        kept = sealed.read_kept(found.result)
        for item, each in zip(request.items, kept, strict=True):
            opening = here.opening(item)
            assert each.commitment == opening.commitment
            message = sealing.delivery_message(
                here.twin.chain, opening.slot, opening.commitment, item.call, item.input
            )
            verify(NODES[0].public, message, each.signature)
            assert opening.commitment in here.keeper.vault.waiting


async def test_citizen_may_deliver_and_an_anonymous_client_may_not(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        assert (await here.ask(here.delivery(VALUE), CITIZEN)).status == Status.OK
        assert (await here.ask(here.delivery(VALUE), None)).status == Status.DENIED
        assert [each.author for each in here.keeper.vault.waiting.values()] == [CITIZEN.public]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action": "none"}, Status.DENIED),
        ({"domain": "none"}, Status.DENIED),
        ({"input": 0}, Status.DENIED),
        ({"input": 2}, Status.DENIED),  # sealed, for others alone
        ({"input": 3}, Status.DENIED),
        ({"value": None}, Status.NOT_ADMITTED),
        ({"value": "x" * 16_384}, Status.NOT_ADMITTED),
    ],
)
async def test_what_is_not_for_this_agency_or_no_value_is_not_kept(
    tmp_path: Path, changes: dict[str, Any], status: Status
) -> None:
    async with office(tmp_path) as here:
        request = here.delivery(VALUE, VALUE)
        bad = replace(request.items[1], **changes)
        found = await here.ask(replace(request, items=(request.items[0], bad)))
        assert found.status == status, found.result
        assert here.keeper.vault.waiting == {}


@pytest.mark.parametrize("offset_ms", [0, -1, 366 * 86_400_000])
async def test_delivery_of_no_possible_transaction_is_refused(
    tmp_path: Path, offset_ms: int
) -> None:
    async with office(tmp_path) as here:
        late = replace(here.delivery(VALUE), not_after_ms=here.twin.now_ms + offset_ms)
        assert (await here.ask(late)).status == Status.NOT_ADMITTED


async def test_input_that_is_sealed_twice_is_malformed(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        request = here.delivery(VALUE)
        twice = replace(request, items=request.items * 2)
        assert (await here.ask(twice)).status == Status.MALFORMED


async def test_flood_of_one_author_is_stopped_and_leaves_others_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "AUTHOR_VALUES_MAX", 3)
    monkeypatch.setattr(keepers, "AGENCY_VALUES_MAX", 5)
    monkeypatch.setattr(keepers, "VALUES_MAX", 7)
    async with office(tmp_path) as here:
        assert (await here.ask(here.delivery("a", "b", "c"))).status == Status.OK
        assert (await here.ask(here.delivery("a", "b", "c"))).status == Status.OK  # the same
        more = await here.ask(here.delivery("d", first=3))
        problem = answers.read_problem(more.result)
        assert (more.status, problem.retry_after_ms > 0) == (Status.BUSY, True)
        assert (await here.ask(here.delivery("a", "b"), CHIEF)).status == Status.OK
        third = await here.ask(here.delivery("a"), OFFICIAL)  # of the same agency
        assert third.status == Status.BUSY
        assert (await here.ask(here.delivery("a", "b"), AUDITOR)).status == Status.OK
        assert (await here.ask(here.delivery("a"), CLERK)).status == Status.BUSY
        await here.keeper.settle([], here.twin.now_ms + 60_001)
        assert here.keeper.vault.waiting == {}
        assert (await here.ask(here.delivery("a"), CLERK)).status == Status.OK


async def test_bytes_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "AUTHOR_BYTES_MAX", 40_000)
    async with office(tmp_path) as here:
        assert (await here.ask(here.delivery("x" * 16_000, "x" * 16_000))).status == Status.OK
        assert (await here.ask(here.delivery("x" * 16_000, first=2))).status == Status.BUSY


async def test_bytes_that_wait_are_bounded_of_all_authors_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "BYTES_MAX", 40_000)
    async with office(tmp_path) as here:
        assert (await here.ask(here.delivery("x" * 16_000, "x" * 16_000))).status == Status.OK
        assert (await here.ask(here.delivery("x" * 16_000), AUDITOR)).status == Status.BUSY


# --- opened ---------------------------------------------------------------------------------------


async def states(here: Office, key: Key, *commitments: bytes) -> list[int]:
    found = await here.ask(GetSealed(CASE, commitments), key)
    assert found.status == Status.OK, found.result
    return [each.state for each in sealed.read_found(found.result)]


async def test_audience_that_reads_the_record_gets_the_value_and_is_recorded(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as here:
        opening = await here.sealed_case()
        for key, agency in ((WORKER, "north"), (AUDITOR, "south")):
            found = await here.ask(GetSealed(CASE, (opening.commitment,)), key)
            (value,) = sealed.read_found(found.result)
            assert (value.state, value.opening) == (OPEN, opening)
            place, reading = here.twin.reads[-1]
            assert (place, reading.agency, reading.method) == (CASE, agency, "sealed")


async def test_commitment_of_elsewhere_is_closed(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        await here.sealed_case()
        other = here.delivery("other", sequence=9)
        assert (await here.ask(other)).status == Status.OK
        elsewhere = here.opening(other.items[0], sequence=9).commitment
        before = len(here.twin.reads)
        assert await states(here, WORKER, elsewhere, bytes(32)) == [CLOSED, CLOSED]
        assert len(here.twin.reads) == before


async def test_who_may_not_read_the_record_is_denied_and_absent_ones_are_not_found(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as here:
        opening = await here.sealed_case()
        wanted = GetSealed(CASE, (opening.commitment,))
        for key in (CHIEF, CLERK, CITIZEN, None):  # another scope, no part, a citizen, nobody
            assert (await here.ask(wanted, key)).status == Status.DENIED
        elsewhere = replace(wanted, target=StateKey("account", ("fund", "main")))
        assert (await here.ask(elsewhere, WORKER)).status == Status.DENIED
        absent = replace(wanted, target=StateKey("record", ("visit", 5)))
        found = await here.ask(absent, OFFICIAL)
        assert found.status in (Status.NOT_FOUND, Status.DENIED)


async def test_what_cannot_be_recorded_is_not_shown(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        opening = await here.sealed_case()
        here.twin.unrecordable = True
        found = await here.ask(GetSealed(CASE, (opening.commitment,)))
        assert found.status == Status.UNAVAILABLE


async def test_erased_value_says_so_with_its_act(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        opening = await here.sealed_case()
        await here.keeper.settle([Erase(PLACE, 2, opening.commitment, TXID)], 0)
        found = await here.ask(GetSealed(CASE, (opening.commitment,)))
        assert found.result == [[ERASED, TXID]]
        assert here.links.sent == []


async def test_node_without_a_keeper_says_so(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        here.twin.keeper = None
        assert (await here.ask(here.delivery(VALUE))).status == Status.UNAVAILABLE
        assert (await here.ask(GetSealed(CASE, (bytes(32),)))).status == Status.UNAVAILABLE


# --- among nodes ----------------------------------------------------------------------------------


async def lost(here: Office) -> Opening:
    """Seal a value, and lose it here."""
    opening = await here.sealed_case()
    vault = here.keeper.vault
    with vault._environment.begin(write=True) as txn:
        txn.drop(vault._values, delete=False)
    return opening


async def test_missing_value_is_fetched_from_the_audience_alone_and_kept(tmp_path: Path) -> None:
    async with office(tmp_path) as here, trio.open_nursery() as nursery:
        opening = await lost(here)

        async def peer() -> None:
            await here.links.bell.wait()
            forged = replace(opening, value="another")
            here.keeper.receive(SOUTH, wire.encode(Given((forged,))))
            here.keeper.receive(SOUTH, wire.encode(Given((opening,))))

        nursery.start_soon(peer)
        assert await states(here, WORKER, opening.commitment) == [OPEN]
        assert here.links.sent == [
            (SOUTH, Wanted((opening.commitment,)))
        ]  # south; not east, not west
        here.links.connected = frozenset()
        assert await states(here, AUDITOR, opening.commitment) == [OPEN]


async def test_value_of_an_agency_that_left_is_fetched_from_its_node_while_it_has_a_seat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with office(tmp_path) as here, trio.open_nursery() as nursery:
        opening = await lost(here)
        standing = {"east": "south"}  # south took the place of east
        monkeypatch.setattr(here.keeper, "standing_for", lambda name: standing.get(name, name))

        async def peer() -> None:
            await here.links.bell.wait()
            east = AGENCIES.index("east")
            here.keeper.receive(east, wire.encode(Given((opening,))))

        nursery.start_soon(peer)
        assert await states(here, WORKER, opening.commitment) == [OPEN]
        asked = [AGENCIES[peer] for peer, _ in here.links.sent]
        assert asked == [name for name in AGENCIES if name in ("east", "south")]


async def test_successor_fetches_what_was_sealed_for_whom_it_took_the_place_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """North took the place of south, whose node still has a seat."""
    async with office(tmp_path) as here, trio.open_nursery() as nursery:
        opening = await lost(here)
        keeper, twin = here.keeper, here.twin

        def listed(kind: str, after: tuple[Value, ...] | None, limit: int) -> Page:
            ids = {None: ((1,),), (1,): ((2,), (3,))}[after] if kind == "case" else ()
            return Page(twin.height, ids, (1,) if after is None else None)

        heir = Heir(keeper, keeper._book, listed, lambda *_, **__: None)
        assert keeper.seated_predecessors() == []
        single = keeper._single

        def taken(space: str, components: list[Value]) -> list[Value] | None:
            found = single(space, components)
            if space == "agency" and found is not None and components in (["north"], ["south"]):
                mine, theirs = [None, ["south"]], ["north", None]
                return [*found[:4], *(mine if components == ["north"] else theirs)]
            return found

        monkeypatch.setattr(keeper, "_single", taken)
        assert keeper.seated_predecessors() == ["south"]

        async def peer() -> None:
            await here.links.bell.wait()
            keeper.receive(SOUTH, wire.encode(Given((opening,))))

        nursery.start_soon(peer)
        assert await heir.take_over(["south"]) == Taken(twin.height, 1, 0)
        assert here.links.sent == [(SOUTH, Wanted((opening.commitment,)))]
        assert await heir.take_over(["south"]) == Taken(twin.height, 0, 0)
        assert await heir.take_over(["east"]) == Taken(twin.height, 0, 0)
        here.links.connected = frozenset()
        assert keeper.seated_predecessors() == []
        assert await states(here, WORKER, opening.commitment) == [OPEN]


async def test_successor_looks_again_until_the_newest_records_are_listed_and_nothing_is_missing(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node lists what is flushed: a record of a moment ago comes with the next look."""
    async with office(tmp_path) as here, trio.open_nursery() as nursery:
        heights = iter([3, 3, 9, 9, 9])
        missing = iter([0, 2, 1, 0, 0])
        looks: list[float] = []
        monkeypatch.setattr(Keeper, "height", 7)
        monkeypatch.setattr(here.keeper, "seated_predecessors", lambda: ["south"])
        heir = Heir(here.keeper, here.keeper._book, lambda *_: None, lambda *_, **__: None)

        async def taken(names: list[str]) -> Taken:
            looks.append(trio.current_time())
            if len(looks) == 5:
                nursery.cancel_scope.cancel()
            return Taken(next(heights), 0, next(missing))

        monkeypatch.setattr(heir, "take_over", taken)
        nursery.start_soon(heir.run)
    pauses = [after - before for before, after in pairwise(looks)]
    look, again, hour = LOOK_SECONDS, MISSING_SECONDS, AGAIN_SECONDS
    assert pauses == pytest.approx([look, look, again, hour])


async def test_value_that_nobody_has_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "FETCH_SECONDS_MAX", 0.01)
    async with office(tmp_path) as here:
        opening = await lost(here)
        assert await states(here, WORKER, opening.commitment) == [ABSENT]
        here.links.connected = frozenset(OTHERS)
        assert await states(here, WORKER, opening.commitment) == [ABSENT]


async def test_values_are_given_to_the_audience_alone_and_once_they_are_in_a_record(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as here:
        request = here.delivery(VALUE, sequence=8)
        assert (await here.ask(request)).status == Status.OK
        waiting = here.opening(request.items[0], sequence=8).commitment
        opening = await here.sealed_case()
        asked = wire.encode(Wanted((opening.commitment, waiting, bytes(32))))
        for peer in OTHERS:
            here.keeper.receive(peer, asked)
        assert here.links.sent == []
        here.keeper.receive(SOUTH, asked)
        assert here.links.sent == [(SOUTH, Given((opening,)))]


async def test_value_that_nobody_asked_for_is_not_kept(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        opening = Opening(b"s" * 32, b"p" * 32, 0, 1, VALUE)
        here.keeper.receive(1, wire.encode(Given((opening,))))
        assert here.keeper.vault.get(opening.commitment) is None
        assert here.keeper.vault.page(b"") == []


async def test_node_that_skipped_the_blocks_erases_what_the_state_says(tmp_path: Path) -> None:
    async with office(tmp_path) as here:
        opening = await here.sealed_case()
        keeper = here.keeper
        keeper._erased = lambda place, version: (  # type: ignore[method-assign]
            TXID if (place, version) == (PLACE, 2) else None
        )
        await keeper.reconcile()
        assert keeper.vault.page(b"") == []
        assert (await here.ask(GetSealed(CASE, (opening.commitment,)))).result == [[ERASED, TXID]]


# --- frames ---------------------------------------------------------------------------------------

OPENING = Opening(b"s" * 32, b"p" * 32, 0, 1, [1, "a"])


@pytest.mark.parametrize(
    "message", [Wanted((b"c" * 32,)), Wanted((b"c" * 32, b"d" * 32)), Given((OPENING, OPENING))]
)
def test_frame_is_read_as_it_was_written(message: Wanted | Given) -> None:
    data = wire.encode(message)
    assert wire.is_known(data)
    assert wire.decode(data) == message


@pytest.mark.parametrize(
    "value",
    [
        [80, []],
        [80, [b"c" * 31]],
        [80, [b"c" * 32] * 2],
        [80, [bytes([n]) * 32 for n in range(17)]],
        [81, []],
        [81, [[b"s" * 32, b"p" * 32, 0, 1]]],
        [81, [[b"s" * 31, b"p" * 32, 0, 1, "v"]]],
        [81, [[b"s" * 32, b"p" * 32, 64, 1, "v"]]],
        [81, [[b"s" * 32, b"p" * 32, 0, 1, None]]],
        [81, [[b"s" * 32, b"p" * 32, 0, 1, "x" * 16_384]]],
        [82, []],
        [80, [b"c" * 32], 1],
        [],
    ],
)
def test_bad_frame_is_refused(value: Value) -> None:
    with pytest.raises(DecodeError):
        wire.decode(cbor2.dumps(value))


@given(st.binary(max_size=64), st.sampled_from([b"", b"\x82\x18\x50", b"\x82\x18\x51"]))
def test_any_bytes_are_a_canonical_frame_or_refused(tail: bytes, head: bytes) -> None:
    try:
        message = wire.decode(head + tail)
    except DecodeError:
        return
    assert wire.encode(message) == head + tail
