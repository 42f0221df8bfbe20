"""A network whose rules say who reads, and transactions on it that need no client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comity.keys import Key
from consensus import genesis
from consensus.codec import Value
from consensus.genesis import OpeningBalance, Principal, RoleGiven
from consensus.ledger.transaction import (
    EXECUTE,
    Ack,
    Draft,
    Expect,
    Transaction,
    assemble,
    build,
    decode_envelope,
)
from tests import rulebooks
from tests.comity.twin import CHARTER, CITIZEN_TOKEN, Twin, key_of, make_genesis

RULES = """
domain = "care"
number = 1
legal_basis = "Care Act"

[kinds.person]
fields.name = { type = "text", open = true }

[kinds.case]
fields.person = { type = "ref", kind = "person" }
fields.region = { type = "text", open = true }
class = "restricted"
read = [ { role = "care.*", where = "who.scope.region == record.region" }, { agency = "south" },
         { self = "person" } ]

[kinds.visit]
fields.day = { type = "int" }
read = [ { role = "care.chief" } ]

[accounts.fund]
currency = "USD"
read = [ { role = "care.chief" }, { self = "id" } ]

[actions.open]
actor  = { role = "care.worker" }
inputs = { number = "int", person = "ref:person", region = "text" }
create = [ { kind = "case", id = ["{input.number}"], set = { person = "input.person", \
region = "input.region" } } ]

[actions.visit]
actor  = { role = "care.worker" }
inputs = { number = "int", day = "int" }
create = [ { kind = "visit", id = ["{input.number}"], set = { day = "input.day" } } ]

[actions.enter]
actor  = { role = "care.worker" }
inputs = { token = "token:notes", name = "text" }
create = [ { kind = "person", id = ["{input.token}"], set = { name = "input.name" } } ]

[actions.pay]
actor  = { role = "care.chief" }
inputs = { target = "text", amount = "money:USD" }
move   = [ { from = "account/fund/main", to = "account/fund/{input.target}", \
amount = "input.amount" } ]

[actions.set_aside]
actor   = { role = "care.chief" }
inputs  = { number = "int", amount = "money:USD" }
reserve = [ { id = ["{input.number}"], from = "account/fund/main", amount = "input.amount" } ]

[actions.watch]
phase  = "protective"
actor  = { role = "care.chief" }
inputs = { number = "int" }
place_hold = [ { target = "case/{input.number}", scopes = ["pay"], reason = "fraud inquiry" } ]
"""
WORKER, CHIEF, AUDITOR, CLERK = (key_of(60 + i) for i in range(4))
"""A care worker for the north, the chief of both regions, an auditor of agency south, nobody."""
IDS = {WORKER: b"w" * 32, CHIEF: b"c" * 32, AUDITOR: b"a" * 32, CLERK: b"k" * 32}
_AGENCIES = {WORKER: "north", CHIEF: "north", AUDITOR: "south", CLERK: "west"}
NORTH, SOUTH = ("region", "north"), ("region", "south")


def founded(text: str = RULES, charter: str = CHARTER) -> genesis.Genesis:
    """A network whose rules say who reads."""
    base = make_genesis()
    people = tuple(
        Principal(id_, _AGENCIES[key], genesis.OFFICIAL, id_[::-1]) for key, id_ in IDS.items()
    )
    return replace(
        base,
        principals=(*base.principals, *people),
        keys=(*base.keys, *((key.public, id_) for key, id_ in IDS.items())),
        roles=(
            *base.roles,
            RoleGiven(IDS[WORKER], "care.worker", (NORTH,)),
            RoleGiven(IDS[CHIEF], "care.chief", (SOUTH,)),
        ),
        rules=tuple(rulebooks.encoded(each) for each in (charter, text)),
        accounts=(
            OpeningBalance("fund", ("main",), 1_000),
            OpeningBalance("fund", ("x",), 0),
            OpeningBalance("fund", ([CITIZEN_TOKEN],), 7),
        ),
    )


class Acts:
    """Transactions of one twin, made without a client."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.sequences: dict[bytes, int] = {}

    def made(
        self,
        key: Key,
        name: str,
        inputs: list[Value],
        expects: Sequence[Expect] = (),
        *,
        protective: bool = False,
        domain: str = "care",
        mode: int = EXECUTE,
        acks: Sequence[Ack] = (),
    ) -> bytes:
        twin = self.twin
        action = twin.ledger.rules(twin.state, twin.now_ms).book.action(domain, name)
        assert action is not None
        number = self.sequences[key.public] = self.sequences.get(key.public, 0) + 1
        params = action.schedule.at(twin.now_ms).digest
        draft = Draft(domain, name, action.action_id, inputs, params, protective)
        unsigned = build(
            twin.chain, key.public, number, twin.now_ms + 60_000, [draft], seed=bytes(32),
            expects=expects, mode=mode, acks=acks,
        )  # fmt: skip
        return assemble(unsigned, [key.sign(unsigned.message)])

    def do(
        self,
        key: Key,
        name: str,
        *inputs: Value,
        expects: Sequence[Expect] = (),
        protective: bool = False,
        domain: str = "care",
        mode: int = EXECUTE,
        acks: Sequence[Ack] = (),
    ) -> Transaction:
        """Execute a transaction, or store it as a proposal, in a block of its own; return it."""
        envelope = self.made(
            key, name, list(inputs), expects, protective=protective, domain=domain, mode=mode,
            acks=acks,
        )  # fmt: skip
        transaction = decode_envelope(self.twin.chain, envelope)
        self.twin.pool[transaction.txid] = transaction
        self.twin.make_block(transaction)
        decision = self.twin.results[self.twin.height][0]
        expected = "APPLIED" if mode == EXECUTE else "PROPOSED"
        assert decision.code.name == expected, (decision.code, decision.detail)
        return transaction


def absent(kind: str, id_: list[Value]) -> list[Expect]:
    return [Expect(kind, id_, 0)]
