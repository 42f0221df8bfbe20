"""Disclosures over real processes: sealed values, early versions, nodes that were down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comity import Client
from comity.disclosing import Opened, Wanted
from comity.drafting import Sealed
from comity.errors import RequestError
from consensus import genesis
from consensus.evidence.disclosure import verify
from scripts.localnet import ROOT, LocalNetwork, found
from tests.network.test_sealed import PEOPLE, SINCE, act, as_, opened
from tests.network.town import TUNING, kill, start

pytestmark = pytest.mark.process

IBAN = "DE02 1203 0000 0000 2020 51"
FINDINGS = ("the roof leaks", "the roof leaks over the archive", "it was mended")
HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A running network for files with sealed fields."""
    rules = [ROOT / "configs/rules/charter.toml", Path(__file__).with_name("sealed.toml")]
    folder = tmp_path_factory.mktemp("disclosed") / "network"
    with found(folder, rules, PEOPLE, tuning=TUNING) as network:
        network.start_all()
        yield network


async def disclose(client: Client, *fields: str, to: list[Any], version: int = 0) -> Opened:
    """Open fields of the file; return what came of it."""
    made = await client.disclose(
        Wanted("file", [1], fields, version),
        to=to,
        purpose="why",
        legal="law",
        until_ms=await client.now_ms() + HOUR_MS,
    )
    assert made.opened is not None, made.decision.detail
    return made.opened


def shown(town: LocalNetwork, opened_: Opened) -> dict[str, Any]:
    """What a file shows to somebody who has nothing but the genesis hash."""
    (item,) = verify(opened_.file, genesis.chain_id(town.genesis)).items
    return {each.name: each.revealed.get(-1, each.value) for each in item.fields}


async def test_sealed_value_is_opened_by_its_audience_and_only_its_commitment_by_others(
    town: LocalNetwork,
) -> None:
    await opened(town, 1, iban=IBAN, findings=FINDINGS[0])
    to = ["party", "District Court"]
    async with as_(town, "treasury", "reader") as reader:
        whole = await disclose(reader, "iban", "since", to=to)
    assert shown(town, whole) == {"iban": IBAN, "since": SINCE}
    assert FINDINGS[0].encode() not in whole.file
    async with as_(town, "integrity", "auditor") as auditor:
        part = await disclose(auditor, "findings", "iban", to=to)
    assert shown(town, part)["findings"] == FINDINGS[0]
    assert len(shown(town, part)["iban"]) == 32
    assert IBAN.encode() not in part.file


async def test_audience_gets_the_commitment_from_any_node_and_never_the_value(
    town: LocalNetwork,
) -> None:
    async with as_(town, "treasury", "reader") as reader:
        made = await disclose(reader, "iban", to=["agency", "registry"])
    id_ = made.disclosed.items[0].disclosure.id
    for agency in town.agencies:
        async with as_(town, "registry", "outsider", agency) as outsider:
            found_ = await outsider.disclosed(id_)
            assert len(shown(town, found_)["iban"]) == 32
            assert IBAN.encode() not in found_.file
        async with as_(town, "social", "clerk", agency) as clerk:
            with pytest.raises(RequestError, match="may not read"):
                await clerk.disclosed(id_)


async def test_version_of_long_ago_is_opened_also_after_all_nodes_died(
    town: LocalNetwork,
) -> None:
    async with as_(town, "social", "clerk") as clerk:
        for text in FINDINGS[1:]:
            done = await act(clerk, "note", file=[1], findings=Sealed(text))
            assert done.applied, done.detail
    kill(town, *town.agencies)
    await start(town, *town.agencies)
    async with as_(town, "treasury", "reader") as reader:
        first = await disclose(reader, "findings", "since", to=["party", "Court"], version=1)
        now = await disclose(reader, "findings", "since", to=["party", "Court"])
    (item,) = verify(first.file, genesis.chain_id(town.genesis)).items
    assert (item.disclosure.version, item.current) == (1, False)
    assert len(shown(town, first)["findings"]) == 32  # its value is not the record's any more
    assert shown(town, now)["findings"] == FINDINGS[-1]
    assert shown(town, first)["findings"] != shown(town, now)["findings"]
    assert shown(town, first)["since"] == SINCE
