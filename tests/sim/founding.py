"""The network that is simulated: its committee, its two domains of rules, its accounts and people.

Made once for each size, because nothing in it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from consensus.committee import Committee
from consensus.genesis import Agency, Genesis, Limits, OpeningBalance, Principal, RoleGiven
from consensus.hotstuff.types import Block, genesis_block
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.view import Write
from tests.sim.clock import START_MS
from tests.sim.epochs import agency_of, row
from tests.sim.keys import chief, key_name, pair

CHARTER = """\
domain = "charter"
number = 1
legal_basis = "Charter"

[actions.change_committee]
kernel = true
actor = { role = "charter.chief" }
approvals = { role = "charter.chief", distinct = "agency" }

[actions.object_committee]
kernel = true
actor = { role = "charter.chief" }
"""

RULES = """\
domain = "payments"
number = 1
legal_basis = "Public Finance Act"

[accounts.purse]
currency = "USD"

[kinds.file]
fields.note = { type = "text", open = true }
status = { start = "open", steps = { open = [] } }

[actions.transfer]
actor  = { role = "payments.clerk" }
inputs = { from = "text", to = "text", amount = "money:USD" }
move   = [ { from = "account/purse/{input.from}", to = "account/purse/{input.to}", amount = "input.amount" } ]

[actions.freeze]
phase  = "protective"
actor  = { role = "payments.clerk" }
inputs = { name = "text" }
place_hold = [ { target = "account/purse/{input.name}", scopes = ["pay"], reason = "a dispute" } ]

[actions.open_file]
actor  = { role = "payments.clerk" }
inputs = { name = "text", note = "text" }
create = [ { kind = "file", id = ["{input.name}"], set = { note = "input.note" } } ]

[actions.write_file]
actor  = { role = "payments.clerk" }
inputs = { file = "ref:file", note = "text" }
load   = [ ["file", "file/{input.file}"] ]
set    = [ { record = "file", fields = { note = "input.note" } } ]
"""  # noqa: E501  rule sets read best with one construct a line

PURSES = tuple(f"purse {index}" for index in range(12))
OPENING = 1000
CLERKS = tuple(f"clerk {index}" for index in range(6))


@dataclass(frozen=True)
class Founded:
    """What everybody in a network of one size has in common."""

    genesis: Genesis
    committee: Committee
    ledger: Ledger
    first: Block
    state: tuple[Write, ...]

    @property
    def chain(self) -> bytes:
        """Hash of the genesis file."""
        return self.ledger.chain


def names_of(machines: int, keys: int = 1) -> list[str]:
    """Return everybody who signs in a network of so many machines with so many keys each."""
    validators = [key_name(index, key) for index in range(machines) for key in range(keys)]
    return [*validators, *CLERKS, *(chief(index) for index in range(machines))]


def genesis_of(size: int, notice_ms: int) -> Genesis:
    """Return the genesis of a network of ``size`` validators.

    Args:
        notice_ms: before a change of the committee. A file has a second at least; committees here
            change in less, so that a run of seconds has several.
    """
    agencies = [agency_of(index) for index in range(size)]
    chiefs = {chief(index): agency for index, agency in enumerate(agencies)}
    people = {**dict.fromkeys(CLERKS, agencies[0]), **chiefs}
    ids = {name: pair(f"id of {name}")[0] for name in people}
    roles = {**dict.fromkeys(CLERKS, "payments.clerk"), **dict.fromkeys(chiefs, "charter.chief")}
    return Genesis(
        network="simulated",
        time_ms=START_MS - 1000,
        executor=1,
        tree_depth=4,
        limits=Limits(notice_ms=notice_ms),
        committee=Committee(1, tuple(row((machine, 0)) for machine in range(size))),
        agencies=tuple(Agency(name, name.title()) for name in agencies),
        principals=tuple(Principal(ids[name], agency, 1) for name, agency in people.items()),
        keys=tuple((pair(name)[0], ids[name]) for name in people),
        roles=tuple(RoleGiven(ids[name], role) for name, role in roles.items()),
        rules=tuple(encode_definition(load_toml(text)) for text in (CHARTER, RULES)),
        accounts=tuple(OpeningBalance("purse", (name,), OPENING) for name in PURSES),
    )


@cache
def found(size: int, notice_ms: int) -> Founded:
    """Return the network of ``size`` validators."""
    genesis = genesis_of(size, notice_ms)
    ledger = of_genesis(genesis)
    first = genesis_block(ledger.chain, genesis.committee.hash, genesis.time_ms)
    return Founded(genesis, genesis.committee, ledger, first, tuple(genesis_state(genesis)))
