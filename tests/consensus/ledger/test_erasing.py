"""The act that has sealed values destroyed: what it records, and who may."""

from __future__ import annotations

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import Erasure
from consensus.state.record import decode_single
from tests.consensus.ledger.test_sealing import FILES, ack, acks_of, decide, opening
from tests.consensus.ledger.world import CHARTER, TEXTS, World, make_genesis, token

ERASE = """
[actions.erase]
kernel = true
actor = { role = "charter.admin", where = "who.agency == input.agency" }
"""
GENESIS = make_genesis((CHARTER + ERASE, FILES, *TEXTS[1:]))
LEGAL = "request 7 of 2026-01-02"


def filed(*, findings: bool = False) -> World:
    """Return a world with a file ``a`` whose sealed fields have a value."""
    at = World(GENESIS)
    openings = [opening(at, "DE02")]
    if findings:
        openings.append(opening(at, "none", input_=3))
    assert decide(at, *openings, acks=acks_of(at, *openings)).code == Code.APPLIED
    return at


def erase(
    at: World, fields: list[Value], agency: str = "treasury", version: int = 1, **more: object
) -> Decision:
    inputs: dict[str, Value] = {"kind": "file", "id": ["a"], "legal": LEGAL, **more}
    return at.do(
        "admin",
        "charter.erase",
        agency,
        inputs["kind"],
        inputs["id"],
        fields,
        inputs["legal"],
        expects=[(inputs["kind"], inputs["id"], version)],
    )


def leaf(at: World, field: str) -> Erasure | None:
    row = at.state.get(at.ledger.paths("erasure", ["file", "a", field]))
    return None if row is None else Erasure(*codec.parse(decode_single(row.value)[2], "leaf"))


def test_erasure_is_recorded_and_leaves_the_record_as_it_is() -> None:
    at = filed()
    before = at.record("file", ["a"])
    done = erase(at, ["iban"])
    assert done.code == Code.APPLIED, done.detail
    found = leaf(at, "iban")
    assert found is not None
    assert found.commitment == before.fields["iban"]
    assert (found.version, found.txid, found.legal) == (1, done.header.txid, LEGAL)
    assert (found.agency, found.principal) == ("treasury", token("admin"))
    after = at.record("file", ["a"])
    assert (after.version, after.fields) == (before.version, before.fields)
    [entry] = done.value("writes:charter") or []
    assert entry[:3] == [["erasure", ["file", "a", "iban"]], 0, 1]


def test_block_tells_its_nodes_what_was_erased() -> None:
    at = filed()
    call = ("charter.erase", "treasury", "file", ["a"], ["iban"], LEGAL)
    result = at.run(at.draft("admin", call, expects=[("file", ["a"], 1)]))
    assert result.sealing.erased == [("file", "a", "iban")]
    assert result.sealing.delivered == []


def test_what_is_set_afterwards_can_be_erased_again_and_nothing_twice() -> None:
    at = filed()
    assert erase(at, ["iban"]).code == Code.APPLIED
    again = erase(at, ["iban"])
    assert (again.code, again.detail[0]) == (Code.REQUIREMENT, "ERASED")
    new = opening(at, "DE03", input_=1)
    noted = at.do(
        "clerk",
        "files.note",
        "a",
        new.commitment,
        expects=[("file", ["a"], 1)],
        acks=[ack(at, new, "treasury")],
    )
    assert noted.code == Code.APPLIED, noted.detail
    assert erase(at, ["iban"], version=2).code == Code.APPLIED
    found = leaf(at, "iban")
    assert found is not None
    assert (found.version, found.commitment) == (2, new.commitment)


def test_only_an_agency_of_the_audience_erases() -> None:
    at = filed(findings=True)
    for fields in (["findings"], ["findings", "iban"]):
        refused = erase(at, fields)
        assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["agency", "treasury"]])
    assert erase(at, ["iban"]).code == Code.APPLIED


def test_hold_on_the_record_keeps_its_values() -> None:
    at = filed()
    place = ("charter.place_hold", [["record", ["file", "a"]]], ["all"], None, "a court's order")
    assert at.one(at.draft("admin", place)).code == Code.APPLIED
    assert erase(at, ["iban"]).code == Code.HELD


@pytest.mark.parametrize(
    ("fields", "more", "code", "detail"),
    [
        ([], {}, Code.BAD_INPUT, ["fields", "1 to 64 names, ascending"]),
        (["iban", "findings"], {}, Code.BAD_INPUT, ["fields", "1 to 64 names, ascending"]),
        (["iban", "iban"], {}, Code.BAD_INPUT, ["fields", "1 to 64 names, ascending"]),
        (["name"], {}, Code.BAD_INPUT, ["fields", "there is no field name"]),
        (
            ["since"],
            {},
            Code.BAD_INPUT,
            ["fields", "since is not sealed: its values are part of the state"],
        ),
        (["iban"], {"legal": ""}, Code.BAD_INPUT, ["legal", "1 to 1000 bytes"]),
        (["iban"], {"legal": "x" * 1001}, Code.BAD_INPUT, ["legal", "1 to 1000 bytes"]),
        (["iban"], {"kind": "pile"}, Code.BAD_INPUT, ["kind", "no domain has such a kind"]),
        (["iban"], {"id": ["b"]}, Code.NOT_FOUND, ["id", ["file", ["b"]]]),
        (["iban"], {"version": 2}, Code.STALE, [["file", ["a"]], 1, []]),
        (["iban"], {"agency": "nobody"}, Code.NOT_FOUND, ["agency", ["agency", ["nobody"]]]),
        (["iban"], {"agency": "audit"}, Code.NOT_AUTHORIZED, [["where"]]),
    ],
)
def test_bad_erasure_is_refused(
    fields: list[Value], more: dict[str, object], code: Code, detail: Value
) -> None:
    refused = erase(filed(), fields, **more)  # type: ignore[arg-type]  # by name
    assert (refused.code, refused.detail) == (code, detail)


def test_who_has_no_power_is_not_told_what_is_absent() -> None:
    at = filed()
    for id_ in ("a", "b"):
        call = ("charter.erase", "treasury", "file", [id_], ["iban"], LEGAL)
        refused = at.one(at.draft("clerk", call))
        assert (refused.code, refused.detail) == (
            Code.NOT_AUTHORIZED,
            [["role", "charter.admin", "missing"]],
        )
    absent = erase(at, ["findings"], id=["b"])  # not of the audience either
    assert (absent.code, absent.detail) == (Code.NOT_AUTHORIZED, [["agency", "treasury"]])
