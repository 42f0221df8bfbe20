"""A disclosure of a record with more than sixteen leaves."""

from __future__ import annotations

from dataclasses import replace

from consensus.ledger.rules import encode_definition, load_toml
from tests.comity import test_disclosing as network
from tests.comity import twin as stage
from tests.consensus.evidence.opened import Town

FIELDS = [f"f{number:02}" for number in range(20)]
KIND = (
    "[kinds.wide]\n"
    + "\n".join(f'fields.{name} = {{ type = "int" }}' for name in FIELDS)
    + """

[actions.widen]
actor = { role = "notes.writer" }
inputs = { number = "int" }
create = [ { kind = "wide", id = ["{input.number}"], set = { """
    + ", ".join(f'{name} = "{number}"' for number, name in enumerate(FIELDS))
    + """ } } ]

[actions.enter]"""
)


def wide_file() -> tuple[bytes, bytes]:
    """Return the file that opens two of twenty fields, and its chain."""
    rules = network.RULES.replace("[actions.enter]", KIND, 1)
    texts = (stage.CHARTER + network.DISCLOSE, rules)
    genesis = replace(
        network.GENESIS, rules=tuple(encode_definition(load_toml(each)) for each in texts)
    )
    town = Town(genesis)
    town.act("notes.widen", 1, expects=[("wide", [1], 0)])
    return town.file(town.disclose("wide", ("f03", "f17"))), town.chain
