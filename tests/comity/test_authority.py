"""What somebody may do and read, as the client judges it on proved leaves."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from comity.authority import roles_known
from comity.cli import people
from comity.cli.values import plain
from comity.errors import DraftError, RequestError
from consensus import codec, reads
from consensus.genesis import RoleGiven
from consensus.ledger import layout
from consensus.ledger.layout import ACTIVE, REVOKED
from consensus.protocol import Status
from consensus.state.merkle import RESULTS
from consensus.state.record import encode_single
from consensus.state.salted import single_leaf
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, OFFICIAL, Twin, harness
from tests.node.api.care import (
    AUDITOR,
    CHIEF,
    CLERK,
    IDS,
    RULES,
    WORKER,
    Acts,
    absent,
    founded,
)

CITIZEN_ID = bytes([103]) * 32
OFFICE = b"O" * 32


def text_of(shown: Any) -> str:
    """Return what a terminal shows."""
    console = Console(file=io.StringIO(), width=300)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


class Listing(Twin):
    """A twin whose own index has keys and grants."""

    listed: dict[str, list[bytes]]

    def list_records(self, kind: str, after: Any, limit: int) -> reads.Page | None:
        if kind not in self.listed:
            return super().list_records(kind, after, limit)
        return reads.Page(self.height, tuple((each,) for each in self.listed[kind]), None)


def written(twin: Twin, space: str, components: list[Any], leaf: Any) -> None:
    """Write a kernel leaf as if an act had, in a block of its own."""
    kh = twin.ledger.paths(space, components)
    value = codec.encode([*leaf])
    salt = bytes(16)
    row = encode_single(1, salt, value)
    twin.now_ms += 1000
    twin._apply([(kh, single_leaf(kh, 1, salt, value), row)], RESULTS.root([]), [], twin.now_ms)


def granted(twin: Twin, ids: list[bytes], holder: list[Any], **changes: Any) -> None:
    """A chain of grants from an office of north with the role care.chief, the last one's holder."""
    office = layout.Principal(OFFICE, "north", 1, None, None, ACTIVE)
    role = layout.Role(OFFICE, "care.chief", [["region", "east"]], 0, None, None, ACTIVE)
    written(twin, "principal", [OFFICE], office)
    written(twin, "role", [OFFICE, "care.chief"], role._replace(**changes.pop("role", {})))
    source: list[Any] = [OFFICE, "care.chief"]
    for at, id_ in enumerate(ids):
        last = at == len(ids) - 1
        grant = layout.Grant(
            id_, source, "north", IDS[CHIEF], holder if last else [IDS[CHIEF]], ["care.pay"], "",
            0, None, None, 3 - at, ACTIVE,
        )  # fmt: skip
        if last:
            grant = grant._replace(**changes)
        written(twin, "grant", [id_], grant)
        source = [id_]


async def test_roles_are_named_with_scope_actions_and_what_takes_power_away() -> None:
    base = founded()
    ended = RoleGiven(IDS[WORKER], "care.chief", (), 0, base.time_ms)
    twin = Twin(replace(base, roles=(*base.roles, ended)))
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[WORKER])
        assert (found.kind, found.agency, found.fault) == ("official", "north", "")
        roles = {each.role: each for each in found.roles}
        assert set(roles) == {"care.worker", "care.chief"}
        assert roles["care.worker"].scope == {"region": "north"}
        assert roles["care.worker"].actions == ("care.enter", "care.open", "care.visit")
        assert (roles["care.worker"].fault, roles["care.chief"].fault) == (
            "",
            "role care.chief: expired",
        )
        assert found.actions == ("care.enter", "care.open", "care.visit")
        assert found.gaps
        assert found.heights[0] <= found.heights[1]


async def test_authority_of_nobody_named_is_that_of_the_own_key() -> None:
    async with harness(Twin(founded())) as net:
        async with net.client(WORKER) as client:
            assert (await client.authority()).principal == IDS[WORKER]
        async with net.client(key=None) as client:
            with pytest.raises(DraftError, match="whose authority is not said"):
                await client.authority()


async def test_every_role_that_rules_ask_for_is_looked_for() -> None:
    twin = Twin(founded())
    book = twin.ledger.rules(twin.state, twin.now_ms).book
    assert roles_known(book) == ["care.chief", "care.worker", "charter.administrator"]


OTHER_POWERS = RULES.replace(
    """
[actions.watch]
""",
    """
[actions.close]
actor      = { role = "care.worker" }
inputs     = { number = "int" }
create     = [ { kind = "visit", id = ["{input.number}"], set = { day = "0" } } ]
approvals  = { role = "care.chief" }
objections = { role = "care.council" }
emergency  = { approvals = "none", review = { role = "care.auditor", within_days = 2 } }
reversible = { by = "care.court", within_days = 9 }

[actions.watch]
""",
)


async def test_roles_that_only_object_review_or_take_back_are_looked_for_and_say_so() -> None:
    names = ("care.council", "care.auditor", "care.court")
    base = founded(OTHER_POWERS)
    more = tuple(RoleGiven(IDS[CLERK], name) for name in names)
    async with (
        harness(Twin(replace(base, roles=(*base.roles, *more)))) as net,
        net.client(AUDITOR) as client,
    ):
        also = {each.role: each.also for each in (await client.authority(IDS[CLERK])).roles}
        assert also == {
            "care.auditor": ("reviews care.close!emergency",),
            "care.council": ("objects to care.close", "objects to care.close!emergency"),
            "care.court": ("takes back care.close", "takes back care.close!emergency"),
        }


async def test_power_that_ends_unless_an_emergency_is_reviewed_says_when() -> None:
    twin = Twin(founded())
    due_ms = twin.now_ms + 1_000_000
    role = layout.Role(IDS[WORKER], "care.worker", [], 0, None, due_ms, ACTIVE)
    written(twin, "role", [IDS[WORKER], "care.worker"], role)
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[WORKER])
        assert [(each.due_ms, each.fault) for each in found.roles] == [(due_ms, "")]
        assert "unless reviewed" in text_of(people.authority_table(found))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"status": REVOKED}, "grant : revoked"),
        ({"until_ms": 5}, "grant : expired"),
        ({"role": {"status": REVOKED}}, "office care.chief: revoked"),
    ],
)
async def test_chain_is_shown_from_the_office_with_the_link_that_carries_nothing(
    changes: dict[str, Any], fault: str
) -> None:
    twin = Listing(founded())
    ids = [b"1" * 32, b"2" * 32]
    granted(twin, ids, [IDS[CLERK]], **changes)
    twin.listed = {"grant": [*ids, b"9" * 32], "key": [CLERK.public, WORKER.public]}
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[CLERK])
        (grant,) = found.grants
        assert grant.id == ids[1]
        assert [link.what for link in grant.chain] == ["office", "grant", "grant"]
        assert [link.id for link in grant.chain] == [OFFICE, *ids]
        assert grant.fault == fault
        assert (grant.role, dict(grant.scope)) == ("care.chief", {"region": "east"})
        assert found.actions == (("care.pay",) if not fault else ())
        assert [key.key for key in found.keys] == [CLERK.public]


async def test_grant_to_a_role_of_an_agency_is_theirs_who_have_it() -> None:
    twin = Listing(founded())
    granted(twin, [b"1" * 32], ["north", "care.worker"])
    twin.listed = {"grant": [b"1" * 32], "key": []}
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[WORKER])
        assert [each.fault for each in found.grants] == [""]
        other = await client.authority(IDS[CHIEF])
        assert [each.fault for each in other.grants] == ["role care.worker: missing"]
        assert (await client.authority(IDS[CLERK])).grants == ()


async def test_what_a_node_does_not_list_is_a_gap_and_can_be_named() -> None:
    twin = Twin(founded())
    granted(twin, [b"1" * 32], [IDS[CLERK]])
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[CLERK])
        assert found.grants == ()
        assert any("grants" in gap for gap in found.gaps)
        named = await client.authority(IDS[CLERK], grants=[b"1" * 32], keys=[CLERK.public])
        assert [each.actions for each in named.grants] == [("care.pay",)]
        assert [each.key for each in named.keys] == [CLERK.public]


async def test_suspended_principal_may_do_nothing() -> None:
    twin = Twin(founded())
    who = layout.Principal(IDS[WORKER], "north", 0, None, None, layout.SUSPENDED)
    written(twin, "principal", [IDS[WORKER]], who)
    async with harness(twin) as net, net.client(AUDITOR) as client:
        found = await client.authority(IDS[WORKER])
        assert found.fault == "the principal is suspended"
        assert found.actions == ()
        assert found.roles[0].fault == ""


async def test_nobody_is_said_to_be_nobody() -> None:
    async with harness(Twin(founded())) as net, net.client(AUDITOR) as client:
        with pytest.raises(RequestError) as caught:
            await client.authority(b"?" * 32)
        assert caught.value.status == Status.NOT_FOUND


async def test_citizen_learns_of_the_own_power_and_of_nobody_elses() -> None:
    async with harness(Twin(founded())) as net, net.client(CITIZEN) as client:
        found = await client.authority(CITIZEN_ID)
        assert (found.kind, found.agency) == ("citizen", "east")
        with pytest.raises(RequestError) as caught:
            await client.authority(IDS[WORKER])
        assert caught.value.status == Status.DENIED


# --- access -----------------------------------------------------------------------------------


async def with_cases() -> Twin:
    twin = Twin(founded())
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    acts.do(WORKER, "visit", 5, 40, expects=absent("visit", [5]))
    return twin


async def test_access_names_each_rule_and_what_it_says() -> None:
    async with harness(await with_cases()) as net, net.client(AUDITOR) as client:
        told = {
            key: await client.access(id_, "record", "case", 1)
            for key, id_ in {**IDS, CITIZEN: CITIZEN_ID}.items()
        }
        allowed = {key: each.allowed for key, each in told.items()}
        assert allowed == {WORKER: True, CHIEF: False, AUDITOR: True, CLERK: False, CITIZEN: True}
        for key, each in told.items():
            assert any(rule.lets_in for rule in each.rules) is allowed[key]
        assert told[WORKER].rules[0].why == "has care.worker for region north"
        assert told[CITIZEN].rules[2].why == "person is this person"
        nobody = await client.access(IDS[CLERK], "record", "case", 77)
        assert (nobody.allowed, nobody.why) == (False, "it is absent, which is not shown")


async def test_access_says_what_depends_on_a_record_that_the_caller_may_not_read() -> None:
    async with harness(await with_cases()) as net, net.client(CLERK) as client:
        found = await client.access(IDS[WORKER], "record", "case", 1)
        assert found.allowed is None
        assert (await client.access(IDS[AUDITOR], "record", "case", 1)).allowed is True
        assert (await client.access(IDS[CLERK], "record", "visit", 5)).allowed is False


async def test_access_without_rules_is_the_default() -> None:
    async with harness() as net, net.client(OFFICIAL) as client:
        official = await client.access(bytes([101]) * 32, "account", "pot", "a")
        assert (official.allowed, official.rules) == (True, ())
        citizen = await client.access(CITIZEN_ID, "account", "pot", "a")
        assert citizen.allowed is False


async def test_values_for_programs_are_plain() -> None:
    twin = Listing(founded())
    granted(twin, [b"1" * 32], [IDS[CLERK]])
    twin.listed = {"grant": [b"1" * 32], "key": [CLERK.public]}
    async with harness(twin) as net, net.client(AUDITOR) as client:
        power = plain(people.authority_value(await client.authority(IDS[CLERK])))
        assert json.loads(json.dumps(power))["grants"][0]["chain"][0]["what"] == "office"
        may = plain(people.access_value(await client.access(IDS[CLERK], "record", "case", 1)))
        assert json.loads(json.dumps(may))["allowed"] is False
