"""The parts of a rule set as leaves of a Merkle tree, and the identity of an action.

    part       [class, name, value]       class 0 head, 1 parameter, 2 kind, 3 account, 4 action
    leaf       H("rule part content", cbor part)
    root       count-bound tree "rule part" over the leaves: the head first, then the other
               classes in the order above, each in ascending order of names

    head value  [format, domain, number, legal_basis, uses, exports], and separate if there is any
    action_id   H("rule action id", cbor [domain, name, action, dependencies])

An action depends on the whole definition of every own kind that it loads, makes, changes or holds
(but for who reads it);
of foreign kinds on the types of the fields it reads, and on the steps where it reads a status; on
the name, owner and currency of account families; on name, type and selector of parameters, not on
their values. Everything else it names only. So a change to one action changes only its own id.
Source: docs/formats/rules.md.

Not here: what the parts mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.hashing import context
from consensus.ledger.model import AccountFamily, Kind, Param
from consensus.ledger.rules.definition import Definition, KindDef
from consensus.ledger.rules.forms import FORMAT
from consensus.ledger.rules.structure import ACCOUNT, ACTION, KIND, PARAM
from consensus.state.merkle import CountTree

RULE_PARTS: Final = CountTree("rule part")
H_PART: Final = context("rule part content")
H_ACTION: Final = context("rule action id")

HEAD: Final = 0
PARAMETER: Final = 1
KIND_PART: Final = 2
ACCOUNT_PART: Final = 3
ACTION_PART: Final = 4


@dataclass(frozen=True, slots=True)
class Part:
    """One part: ``encoded`` is ``cbor [class, name, value]``, ``leaf`` its hash."""

    part_class: int
    name: str
    encoded: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class ForeignFields:
    """What an action reads of one foreign kind; ``fields`` may contain ``status``."""

    kind: Kind
    fields: tuple[str, ...]


def parts(definition: Definition) -> tuple[Part, ...]:
    """Return the parts of a rule set in the order of their leaves."""
    head: list[Value] = [
        FORMAT,
        definition.domain,
        definition.number,
        definition.legal_basis,
        [[domain, list(entries)] for domain, entries in definition.uses],
        list(definition.exports),
    ]
    if definition.separate:
        head.append([list(group) for group in definition.separate])
    rows: list[tuple[int, str, Value]] = [(HEAD, "", head)]
    rows += [(PARAMETER, name, PARAM.pack(each)) for name, each in definition.params]
    rows += [(KIND_PART, name, KIND.pack(each)) for name, each in definition.kinds]
    rows += [(ACCOUNT_PART, name, ACCOUNT.pack(each)) for name, each in definition.accounts]
    rows += [(ACTION_PART, name, ACTION.pack(each)) for name, each in definition.actions]
    encoded = [(number, name, codec.encode([number, name, value])) for number, name, value in rows]
    return tuple(Part(number, name, data, H_PART(data)) for number, name, data in encoded)


def parts_root(definition: Definition) -> bytes:
    """Return the root of the tree of parts."""
    return RULE_PARTS.root([part.leaf for part in parts(definition)])


def part_path(definition: Definition, part_class: int, name: str) -> tuple[int, int, list[bytes]]:
    """Return index, count and path of one part, for ``RULE_PARTS.verify_path``.

    Raises:
        KeyError: the rule set has no such part.
    """
    found = parts(definition)
    for index, part in enumerate(found):
        if (part.part_class, part.name) == (part_class, name):
            return index, len(found), RULE_PARTS.path([each.leaf for each in found], index)
    raise KeyError(name)


def action_id(
    definition: Definition,
    name: str,
    *,
    kinds: Sequence[str],
    foreign: Sequence[ForeignFields],
    families: Sequence[AccountFamily],
    params: Sequence[Param],
    form: str = "",
) -> bytes:
    """Return the 32-byte identity of an action with what it depends on.

    Args:
        definition: the rule set of the action.
        name: the action.
        kinds: own kinds that it loads, makes, changes or holds.
        foreign: what it reads of kinds of other domains.
        families: account families that it names.
        params: parameters that it reads.
        form: what the name of its emergency form adds.
    """
    own = dict(definition.kinds)
    dependencies: Value = [
        [[kind, KIND.pack(_as_acted_on(own[kind]))] for kind in sorted(kinds)],
        [
            _foreign_value(each)
            for each in sorted(foreign, key=lambda each: (each.kind.domain, each.kind.name))
        ],
        sorted([each.name, each.domain, each.currency] for each in families),
        sorted([each.name, each.type.text, each.selector] for each in params),
    ]
    action = ACTION.pack(dict(definition.actions)[name])
    return H_ACTION(codec.encode([definition.domain, name + form, action, dependencies]))


def _as_acted_on(kind: KindDef) -> KindDef:
    """Return a kind without who reads it, which is nothing to an action."""
    return replace(kind, read=None, record_class="", log_reads=False)


def _foreign_value(foreign: ForeignFields) -> Value:
    kind = foreign.kind
    fields = [
        [name, kind.fields[name].stored.text, kind.fields[name].optional]
        for name in sorted(foreign.fields)
        if name != "status"
    ]
    steps = [[name, list(targets)] for name, targets in kind.steps.items()]
    return [kind.domain, kind.name, fields, steps if "status" in foreign.fields else None]
