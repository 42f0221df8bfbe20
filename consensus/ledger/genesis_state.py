"""The state at height 0: what the genesis file says, as leaves.

The state root is derived from the file and never stored, so everyone who has the file can check it.
The first salt pool is a hash of the chain: public, until the first block mixes in its seeds.

Not here: reading the file (``consensus.genesis``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from consensus.codec import Value
from consensus.errors import DecodeError, RulesError
from consensus.genesis import Genesis
from consensus.hashing import context
from consensus.hotstuff.events import ExecutionResult
from consensus.ledger.attached import join_attached
from consensus.ledger.layout import (
    ACTIVATED,
    ACTIVE,
    ADOPTION,
    EXECUTOR_HEAD,
    PRINCIPALS_MAX,
    Adoption,
    Agency,
    Key,
    Principal,
    Role,
    RulesHead,
    encode_value,
)
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.model import Rulebook
from consensus.ledger.persons import listed_under
from consensus.ledger.rules import Definition, compile_rulebook, decode_definition, parts_root
from consensus.ledger.types import InputError, check_id
from consensus.ledger.versions import FIRST
from consensus.ledger.view import CHARTER, Write, single_write
from consensus.state.merkle import RESULTS
from consensus.state.salted import NO_SALT
from consensus.state.state import Applied

FIRST_VERSION = 1

_first_pool = context("first salt pool")


def genesis_state(genesis: Genesis) -> list[Write]:
    """Return the leaves of height 0, ascending by key path.

    Raises:
        DecodeError: the rule sets are refused, the charter is missing, or an account belongs to no
            family or is listed twice.
    """
    ledger = of_genesis(genesis)
    pool = _first_pool(ledger.chain)
    definitions, book = _compiled(genesis)
    writes: list[Write] = []

    def leaf(space: str, components: Sequence[Value], value: Any) -> Write:
        kh = ledger.paths(space, components)
        made = single_write(kh, encode_value(value), NO_SALT, pool, FIRST_VERSION)
        writes.append(made)
        return made

    for agency in genesis.agencies:
        leaf("agency", [agency.name], list(Agency(agency.name, agency.title, ACTIVE, 0)))
    persons: dict[bytes, tuple[list[Value], list[bytes]]] = {}
    for each in genesis.principals:
        person = None if each.person is None else _checked(list(each.person), "principals")
        principal = Principal(each.id, each.agency, each.kind, each.subject, person, ACTIVE)
        leaf("principal", [each.id], list(principal))
        for components in listed_under(principal):
            persons.setdefault(encode_value(components), (components, []))[1].append(each.id)
    for components, ids in persons.values():
        if len(ids) > PRINCIPALS_MAX:
            raise DecodeError(
                f"a person has {len(ids)} principals, at most {PRINCIPALS_MAX}",
                path="genesis.principals",
            )
        leaf("subject", components, ids)
    for public, owner in genesis.keys:
        leaf("key", [public], list(Key(public, owner, ACTIVE, genesis.time_ms)))
    for given in genesis.roles:
        scope = [list(pair) for pair in given.scope]
        role = Role(given.principal, given.role, scope, given.from_ms, given.until_ms, None, ACTIVE)
        leaf("role", [given.principal, given.role], list(role))
    for definition, encoded in zip(definitions, genesis.rules, strict=True):
        number = definition.number
        head = RulesHead(definition.domain, [[number, genesis.time_ms]], 0, [], number)
        leaf("rules", [definition.domain], list(head))
        made = leaf("rules", [definition.domain, number], parts_root(definition))
        writes[-1] = Write(made.kh, made.vh, join_attached(made.row, encoded))
        adoption = Adoption(definition.domain, number, ACTIVATED, genesis.time_ms, None, [])
        leaf("rules", [definition.domain, number, ADOPTION], list(adoption))
    leaf("rules", [], sorted(definition.domain for definition in definitions))
    number = genesis.executor
    versions = RulesHead(EXECUTOR_HEAD, [[number, genesis.time_ms]], 0, [], number)
    leaf("rules", [EXECUTOR_HEAD], list(versions))
    adoption = Adoption(EXECUTOR_HEAD, number, ACTIVATED, genesis.time_ms, None, [])
    leaf("rules", [EXECUTOR_HEAD, number, ADOPTION], list(adoption))
    for account in genesis.accounts:
        id_ = _account_id(book, account.family, account.id)
        leaf("account", id_, [id_, account.balance, 0, 0])
    leaf("pool", [], pool)
    writes.sort()
    _refuse_repeats(ledger, writes)
    return writes


def first_result(applied: Applied, history_root: bytes) -> ExecutionResult:
    """Return what the statement of height 0 says, given its leaves in an empty state.

    Args:
        history_root: over no statement.
    """
    return ExecutionResult(
        FIRST, applied.state_root, RESULTS.root([]), applied.changes_root, history_root
    )


def _compiled(genesis: Genesis) -> tuple[list[Definition], Rulebook]:
    definitions = [decode_definition(encoded) for encoded in genesis.rules]
    try:
        book = compile_rulebook(definitions)
    except RulesError as error:
        raise DecodeError(error.message, path="genesis.rules", hint=error.hint) from error
    if CHARTER not in book.rule_sets:
        raise DecodeError("the charter is missing", path="genesis.rules")
    return definitions, book


def _account_id(book: Rulebook, family: str, components: Sequence[Value]) -> list[Value]:
    id_ = [family, *components]
    if family not in book.families:
        raise DecodeError(f"no rule set has an account family {family!r}", path="genesis.accounts")
    return _checked(id_, "accounts")


def _checked(id_: list[Value], where: str) -> list[Value]:
    try:
        check_id(id_)
    except InputError as error:
        raise DecodeError(error.reason, path=f"genesis.{where}") from error
    return id_


def _refuse_repeats(ledger: Ledger, writes: Sequence[Write]) -> None:
    """Refuse an account or a role that is listed twice; the file's reader refuses other repeats."""
    for before, after in pairwise(writes):
        if before.kh == after.kh:
            raise DecodeError("an account or a role is listed twice", path="genesis")
