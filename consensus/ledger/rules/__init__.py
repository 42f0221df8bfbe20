"""Rule sets as data: TOML for people, canonical CBOR on the chain, a rule book for the executor.

    lines.py        where each key of a TOML text stands
    schema.py       nodes that read TOML and canonical CBOR by one description
    definition.py   a rule set, structure checked          structure.py   that description
    forms.py        the two forms of a definition
    values.py       names, types, dates, parameters        kinds.py       what domains declare
    scope.py        what an action may name; borders       effects.py     what it does
    actions.py      one action                             compile.py     all domains together
    parts.py        Merkle tree of parts, action_id        succession.py  old number -> new number
    report.py       problems, notes and summaries for people

Not here: executing anything, and who may activate a rule set.
"""

from __future__ import annotations

from consensus.ledger.rules.compile import compile_rulebook
from consensus.ledger.rules.definition import Definition
from consensus.ledger.rules.forms import (
    DEFINITION_BYTES_MAX,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.rules.parts import (
    ACCOUNT_PART,
    ACTION_PART,
    HEAD,
    KIND_PART,
    PARAMETER,
    RULE_PARTS,
    Part,
    part_path,
    parts,
    parts_root,
)
from consensus.ledger.rules.report import (
    Note,
    Problem,
    Summary,
    check_text,
    describe,
)
from consensus.ledger.rules.succession import check_successor, moved_actions

__all__ = [
    "ACCOUNT_PART",
    "ACTION_PART",
    "DEFINITION_BYTES_MAX",
    "HEAD",
    "KIND_PART",
    "PARAMETER",
    "RULE_PARTS",
    "Definition",
    "Note",
    "Part",
    "Problem",
    "Summary",
    "check_successor",
    "check_text",
    "compile_rulebook",
    "decode_definition",
    "describe",
    "encode_definition",
    "load_toml",
    "moved_actions",
    "part_path",
    "parts",
    "parts_root",
]
