"""Audits that begin with a state which a quorum signed and no executor ever wrote.

Where a chain is executed from genesis, a row that cannot be read is an error of this program. Here
it is what the quorum lied about, and whoever audits is told so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from comity.auditing.running import Wanted, audit
from consensus import codec
from consensus.audit.divergence import DivergenceError, NotAuditableError
from consensus.audit.replay import Origin, Tip
from consensus.errors import MISREAD, LocalProtocolError
from consensus.ledger.layout import EXECUTOR_HEAD, Paths
from consensus.state.record import decode_row, decode_single, encode_single, is_record_row
from consensus.state.state import MemoryBackend, Row
from tests.comity.twin import OFFICIAL
from tests.consensus.audit.ledger import HEIGHT, Notes, frames, honest
from tests.consensus.audit.test_replay import Resumable

BEGUN = 3
"""The height whose state the audits begin with; pays, writes and amendments follow."""
PATHS = Paths(honest().chain)


@cache
def begun() -> Notes:
    """The honest chain up to there, in its store; to be read only."""
    part = Notes()
    part.block([part.pay(10), part.pay(20), part.write(1)])
    part.block([part.amend(1, 1), part.amend(1, 2), part.pay(1)])
    part.block([part.pay(5), part.pay(10**9), part.pay(6)])
    part.flush()
    assert part.statement.encoded == honest().recorded[BEGUN].statement
    return part


def rows() -> dict[bytes, Row]:
    backend = begun().backend
    return {kh: row for kh, _, _ in backend.entries() if (row := backend.get(kh)) is not None}


def audited_on(
    kh: bytes,
    row: bytes,
    *,
    executed: bool = False,
    upto: int = HEIGHT,
    totals: dict[str, int] | None = None,
) -> int:
    """Audit the rest of the chain on a certified state with that row; return the height reached.

    The tree binds the hash of a row, not what a store returns for it: with the honest one in its
    place this is a state whose hash a liar computed of this row.
    """
    chain, space = begun(), Resumable()
    honest_row = rows()[kh]
    told = Row(honest_row.vh, honest_row.changed_height, row)
    space.backend = MemoryBackend({**rows(), kh: told}.items())
    space.nodes = chain.nodes
    tip = chain.tip
    begin = Tip(tip.height, tip.round, tip.id, tip.time_ms, chain.statement)
    space.kept = Origin(begin, space.backend, space.nodes, totals, None, executed)
    heights = [each for each in honest().recorded if BEGUN <= each.height <= upto]
    data = honest().stream(heights, first=BEGUN)
    return audit(frames(data), Wanted(chain.chain), space=space).last


def verdict(kh: bytes, row: bytes) -> str:
    try:
        return "holds" if audited_on(kh, row) == HEIGHT else "ends early"
    except DivergenceError as error:
        return error.problem.check if BEGUN <= error.height <= HEIGHT else "another height"


def with_value(kh: bytes, value: codec.Value) -> bytes:
    version, salt, _ = decode_single(rows()[kh].value)
    return encode_single(version, salt, codec.encode(value))


def lies(kh: bytes) -> Iterator[bytes]:
    """Other rows than this one, each with something of another type in one place."""
    row, wrong = rows()[kh].value, (None, -1, "x", [], b"")
    if is_record_row(row):
        values = decode_row(row).values
        begin = len(row) - sum(map(len, values))
        for value in values:
            text = codec.encode("x" * (len(value) - 1))
            yield row[:begin] + text + row[begin + len(text) :]
            begin += len(value)
    elif row[0] == 0:  # else what is attached fits, or the snapshot is refused
        value = codec.parse(decode_single(row)[2])
        yield with_value(kh, wrong[kh[0] % len(wrong)])
        for at in range(len(value) if isinstance(value, list) else 0):
            other = wrong[(kh[0] + at) % len(wrong)]
            yield with_value(kh, [*value[:at], other, *value[at + 1 :]])


def test_an_audit_goes_on_from_the_honest_state() -> None:
    kh = PATHS("rules", ["notes"])
    assert audited_on(kh, rows()[kh].value) == HEIGHT


def test_no_row_that_a_quorum_made_up_is_an_error_of_this_program() -> None:
    found = Counter(verdict(kh, row) for kh in rows() for row in lies(kh))
    assert set(found) == {"holds", "state", "decision", "money", "statement"}, found
    assert found["state"] > 30


def test_rules_that_a_certified_state_names_and_lacks_are_its_fault() -> None:
    kh = PATHS("rules", ["notes"])
    row = with_value(kh, ["notes", [[9, 1790000000000]], 0, [], 9])
    with pytest.raises(DivergenceError, match=r"height 3: .* rules is missing") as caught:
        audited_on(kh, row)
    assert caught.value.problem.check == "state"
    with pytest.raises(LocalProtocolError, match="rules is missing"):
        audited_on(kh, row, executed=True)


def test_what_fails_while_a_height_is_executed_is_said_of_that_height() -> None:
    kh = PATHS("key", [OFFICIAL.public])
    row = with_value(kh, "nobody")
    with pytest.raises(DivergenceError, match="no rules lead to the certified state") as caught:
        audited_on(kh, row)
    assert (caught.value.height, caught.value.problem.check) == (5, "state")
    with pytest.raises(MISREAD):
        audited_on(kh, row, executed=True)


def test_a_kept_audit_with_nothing_new_sums_up_what_cannot_be_read() -> None:
    kh = PATHS("rules", ["notes"])
    with pytest.raises(DivergenceError, match="no rules lead to the certified state") as caught:
        audited_on(kh, with_value(kh, "x"), upto=BEGUN, totals={"USD": 1_000_000})
    assert (caught.value.height, caught.value.problem.check) == (BEGUN, "state")


def test_an_executor_that_this_release_lacks_is_nobody_s_fault() -> None:
    row = with_value(PATHS.executor, [EXECUTOR_HEAD, [[9, 1790000000000]], 0, [], 9])
    with pytest.raises(NotAuditableError, match="executor 9 is in force"):
        audited_on(PATHS.executor, row)
