"""A certified chain of notes, payments and refusals, honest or not, for tests of who audits one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from comity.auditing.running import MemorySpace, Report, Wanted, audit
from comity.keys import Key
from consensus import codec
from consensus.audit.divergence import DivergenceError
from consensus.audit.stream import Frame, Recorded, Splitter
from consensus.hotstuff.types import Statement
from consensus.ledger import batch as batches
from consensus.ledger import decision as decisions
from consensus.ledger.batch import Item
from consensus.ledger.transaction import EXECUTE, Draft, Expect, assemble, build
from consensus.state.merkle import RESULTS
from scripts.chainmaker import Chain
from tests.comity.twin import OFFICIAL, VALIDATORS, make_genesis

GENESIS = make_genesis().encode()


class Notes(Chain):
    """A chain on which an official writes notes and moves money."""

    def __init__(self, genesis: bytes = GENESIS) -> None:
        super().__init__(genesis, VALIDATORS)
        self._sequences: Counter[bytes] = Counter()

    def act(
        self,
        name: str,
        *inputs: Any,
        key: Key = OFFICIAL,
        domain: str = "notes",
        expects: Sequence[Expect] = (),
        forge: bool = False,
        mode: int = EXECUTE,
    ) -> Item:
        self._sequences[key.public] += 1
        action = self.ledger.rules(self.state, self.now_ms).book.action(domain, name)
        assert action is not None
        call = Draft(
            domain,
            name,
            action.action_id,
            inputs,
            action.schedule.at(self.now_ms).digest,
            action.protective,
        )
        sequence = self._sequences[key.public]
        unsigned = build(
            self.chain,
            key.public,
            sequence,
            self.now_ms + 1_000_000,
            [call],
            seed=sequence.to_bytes(32, "big"),
            expects=expects,
            mode=mode,
        )
        signature = key.sign(unsigned.message if not forge else unsigned.message + b"!")
        return batches.decode_item(self.chain, assemble(unsigned, [signature]))

    def pay(self, amount: int, source: str = "a", target: str = "b") -> Item:
        return self.act("pay", source, target, amount)

    def write(self, number: int, text: str = "first") -> Item:
        expects = [Expect("note", [number], 0)]
        return self.act("write", number, text, 5, None, expects=expects)

    def amend(self, number: int, version: int) -> Item:
        expects = [Expect("note", [number], version)]
        return self.act("amend", [number], f"v{version + 1}", expects=expects)


def made() -> Notes:
    """A new chain: height 3 has a refusal, 4 a round given up, 5 no certificate of its own."""
    chain = Notes()
    chain.block([chain.pay(10), chain.pay(20), chain.write(1)])
    chain.block([chain.amend(1, 1), chain.amend(1, 2), chain.pay(1)])
    chain.block([chain.pay(5), chain.pay(10**9), chain.pay(6)])
    chain.block([], failed=1)
    chain.block([chain.pay(7, "b", "a"), chain.write(2)], certified=False)
    chain.block([chain.amend(2, 1), chain.pay(8)])
    return chain


HEIGHT = 6


@cache
def honest() -> Notes:
    """The chain that ``made`` makes, to be read only."""
    return made()


def frames(data: bytes) -> Iterator[Frame]:
    splitter = Splitter()
    yield from splitter.feed(data)
    splitter.finish()


def audited(
    chain: Chain,
    recorded: Sequence[Recorded] | None = None,
    *,
    space: MemorySpace | None = None,
    **wanted: Any,
) -> Report:
    data = chain.stream(recorded)
    return audit(frames(data), Wanted(chain.chain, **wanted), space=space)


def divergence(chain: Chain, recorded: Sequence[Recorded], **wanted: Any) -> DivergenceError:
    """What an audit of these heights stops at."""
    try:
        audited(chain, recorded, **wanted)
    except DivergenceError as error:
        return error
    raise AssertionError("nothing was found")


def with_height(height: int, **changes: Any) -> list[Recorded]:
    """The honest heights, with something else recorded of one of them."""
    heights = list(honest().recorded)
    heights[height] = replace(heights[height], **changes)
    return heights


def flipped(data: bytes, at: int = -1) -> bytes:
    place = at % len(data)
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def statement_of(recorded: Recorded) -> Statement:
    return Statement(*codec.parse(recorded.statement or b""))


def rows_of(recorded: Recorded) -> list[list[Any]]:
    found: list[list[Any]] = codec.parse(recorded.decisions or b"")
    return found


def lied(chain: Notes, height: int, index: int, leaf: str, value: Any) -> list[Recorded]:
    """The heights as a quorum that lies together records them: one leaf of one decision differs."""
    kept = chain.recorded[height]
    rows = rows_of(kept)
    decision = decisions.decode(rows[index][3])
    leaves = {**decision.leaves, leaf: codec.encode(value)}
    false = decisions.Decision(decision.header_cbor, decision.kh, leaves, decision.salts)
    rows[index][2:] = [false.root, false.encode()]
    root = RESULTS.root([row[2] for row in rows])
    return stated(chain, height, results_root=root, decisions=codec.encode(rows))


def stated(
    chain: Notes, height: int, decisions: bytes | None = None, **fields: Any
) -> list[Recorded]:
    """The heights up to one that a lying quorum states differently."""
    kept = chain.recorded[height]
    statement = replace(statement_of(kept), **fields)
    false = replace(
        kept,
        statement=statement.encode(),
        certificate=chain.certify(statement).encoded,
        decisions=decisions or kept.decisions,
    )
    return [*chain.recorded[:height], false]
