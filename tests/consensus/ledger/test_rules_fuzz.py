"""Rule sets and transactions of any content: a refusal or a decision, never a stop.

Real rule sets are mutated, as people write them and as they lie on the chain. What still compiles
is put in force, and all its actions are called, rightly and wrongly, on a state that these calls
fill. Each block is executed twice, and again from nothing but the leaves that it read.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.codec import Value
from consensus.errors import DecodeError, RulesError
from consensus.genesis import Genesis, OpeningBalance, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.ledger import of_genesis
from consensus.ledger.model import Action, Create, EvaluationError, OpenAccount, Rulebook
from consensus.ledger.rules import (
    Definition,
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.rules.compile import compile_all
from consensus.ledger.transaction import EXECUTE, PROPOSE, Draft, Transaction
from consensus.ledger.types import InputError
from consensus.state.record import decode_row, is_record_row
from tests.consensus.ledger.governed import NOTICE_MS, Governed
from tests.consensus.ledger.reader import read_account
from tests.consensus.ledger.rule_mutations import EDGES, ODD, mutated, networks, nodes
from tests.consensus.ledger.test_executor_state import Recorded, Witness
from tests.consensus.ledger.world import DEFAULT, NORTH, World, make_genesis, public_key, token

NETWORKS = networks()
SECONDS_MAX = 8
"""Of processor time for reading and compiling one set of texts; hundredths are usual."""
SEEDS = st.integers(0, 2**32)
DOERS = ("admin", "auditor", "registrar", "ann's")
"""People of three agencies and a citizen, who are given every role that the rules name."""
OPENING = 1_000_000
IDS: tuple[Value, ...] = ("main", "a", "b", "rent", 1, 24_312, True)
BASES: dict[str, tuple[Value, ...]] = {
    "text": ("a", "b", "main", "north", "all", "", "rent", "purse", "services", "audit"),
    "int": (0, 1, 2, 7, -1, 2**63 - 1, -(2**63)),
    "money": (0, 1, 40, 400, -1, 2**62, 2**63 - 1, -(2**63)),
    "month": (24_312, 24_313, 0, 119_999),
    "date": (20_455, 0, -719_528, 2_932_896),
    "bool": (True, False),
    "bytes": (b"", b"x", public_key("spare"), bytes(4096)),
    "definition": (b"", b"\x80", bytes(50)),
    "evidence": (b"", b"\x80", bytes(50)),
}


# --- reading and compiling ----------------------------------------------------------------------


def compiled(texts: Sequence[str]) -> tuple[list[Definition], Rulebook] | None:
    """Return what texts say, or None where they are refused; anything else is a failure."""
    started = time.process_time()
    try:
        definitions = [load_toml(text, f"{at}.toml") for at, text in enumerate(texts)]
    except RulesError:
        return None
    finally:
        assert time.process_time() - started < SECONDS_MAX
    _, reports = compile_all(definitions)
    try:
        book = compile_rulebook(definitions)
    except RulesError:
        assert any(report.problems for report in reports)
        return None
    finally:
        assert time.process_time() - started < SECONDS_MAX
    assert not any(report.problems for report in reports)
    return definitions, book


def check_texts(seed: int) -> tuple[tuple[str, ...], Rulebook] | None:
    """Mutate a network's texts; return them if they compile, after checking their other form."""
    random = Random(seed)
    texts = mutated(random, NETWORKS[random.choice(list(NETWORKS))])
    found = compiled(texts)
    if found is None:
        return None
    definitions, book = found
    again = [decode_definition(encode_definition(each)) for each in definitions]
    assert again == definitions
    other = compile_rulebook(again)
    assert {n: s.encoded for n, s in other.rule_sets.items()} == {
        n: s.encoded for n, s in book.rule_sets.items()
    }
    assert other == book or [
        (n, a.action_id) for s in other.rule_sets.values() for n, a in s.actions.items()
    ] == [(n, a.action_id) for s in book.rule_sets.values() for n, a in s.actions.items()]
    return tuple(texts), book


# --- executing ----------------------------------------------------------------------------------


class Odd(World):
    """A network under rule sets that nobody has thought about."""

    def __init__(self, genesis: Genesis, book: Rulebook, texts: Sequence[str], seed: int) -> None:
        super().__init__(genesis)
        self.random = Random(seed)
        self.book = book
        words = {each for text in texts for each in re.findall(r"'([^']{1,40})'", text)}
        self.words = sorted(words)
        self.ids: dict[str, list[list[Value]]] = {}
        self.digests = [token("ann"), token("admin"), bytes(32)]
        self.accounts: dict[bytes, None] = {}
        for each in genesis.accounts:
            self.accounts[self.ledger.paths("account", [each.family, *each.id])] = None
        self.other = of_genesis(genesis)

    def money(self) -> int:
        rows = [self.state.get(kh) for kh in self.accounts]
        return sum(read_account(row.value).balance for row in rows if row is not None)

    def typed(self, base: str, argument: str) -> Value:
        random = self.random
        match base:
            case "ref":
                known = self.ids.get(argument, [])
                if known and random.random() < 0.8:
                    return random.choice(known)
                return [token(random.choice(("ann", "bob")))]
            case "list":
                item, _, rest = argument.partition(":")
                return [self.typed(item, rest) for _ in range(random.choice((0, 1, 2, 64)))]
            case "time":
                return self.now_ms + random.choice((-5, 1500, 10_000))
            case "text" if self.words and random.random() < 0.5:
                return random.choice(self.words)
            case _ if base in BASES:
                return random.choice(BASES[base])
        return random.choice(self.digests)

    def odd(self, depth: int = 0) -> Value:
        random = self.random
        pool: list[Value] = [None, True, False, "", "x" * 4097, "\0é", b"", bytes(4097), [], [[]]]
        pool += [each for each in EDGES if -(2**63) <= each < 2**63]
        if depth < 3 and random.random() < 0.3:
            some = [self.odd(3) for _ in range(2)]
            return random.choices(some, k=random.choice((1, 2, 9, 70)))
        return random.choice(pool)

    def drafted(self, action: Action, *, right: bool) -> Draft:
        random = self.random
        values: list[Value] = []
        for each in action.inputs:
            if each.optional and random.random() < 0.3:
                values.append(None)
            elif right or random.random() < 0.7:
                values.append(self.typed(each.type.base, each.type.argument))
            else:
                values.append(self.odd())
        if not right and random.random() < 0.2:
            values = values[:-1] if random.random() < 0.5 else [*values, self.odd()]
        now_ms = self.now_ms + 1000
        digest = action.schedule.at(now_ms).digest
        if action.periods is not None and random.random() < 0.8:
            try:
                inputs = action.bind(values)
                start = action.periods.start_ms({"input": inputs})
                digest = action.periods.with_those_of(action.schedule.at(now_ms), start).digest
            except (InputError, EvaluationError, KeyError):  # refused, or of a record's month
                digest = bytes(32)
        return Draft(
            action.domain, action.name, action.action_id, values, digest, action.protective
        )

    def attempt(self, actions: Sequence[Action], *, right: bool) -> Decision | None:
        """Execute calls; add the versions that a refusal tells and try again."""
        random = self.random
        drafts = [self.drafted(action, right=right) for action in actions]
        author = random.choice(DOERS) if random.random() < 0.95 else "nobody"
        cosigners = [each for each in DOERS if each != author and random.random() < 0.4]
        mode = PROPOSE if random.random() < 0.1 else EXECUTE
        expects: list[tuple[str, list[Value], int]] = []
        for _ in range(6):
            try:
                transaction = self.draft(
                    author, *drafts, expects=expects, cosigners=cosigners, mode=mode
                )
            except DecodeError:  # larger than a client may send
                return None
            decision = self.judged([transaction])[0]
            if decision.code != Code.STALE or random.random() < 0.02:
                break
            (kind, id_), version, _ = decision.detail
            expects = [each for each in expects if each[:2] != (kind, id_)]
            expects.append((kind, id_, version))
        return decision

    def judged(self, transactions: list[Transaction]) -> Sequence[Decision]:
        """Execute a block three times, apply it, and count the money; return its decisions."""
        before = self.money()
        context = BlockContext(1, self.height + 1, self.now_ms + 1000, history=self.history.root)
        recorded = Recorded(self.state)
        first = BlockRun(self.other, recorded, context, transactions).finish()
        again = BlockRun(self.ledger, Witness(recorded.asked), context, transactions).finish()
        result = self.run(*transactions)
        for each in (first, again):
            assert each.results_root == result.results_root
            assert each.writes == result.writes
        issued = False
        for decision in result.decisions:
            Code(decision.code)
            deltas: dict[int, int] = {}
            for name in decision.names:
                if name.startswith("moves:"):
                    for position, id_, delta, *_ in decision.value(name) or []:
                        self.accounts[self.ledger.paths("account", list(id_))] = None
                        deltas[position] = deltas.get(position, 0) + delta
            assert not any(deltas.values())
            if decision.code == Code.APPLIED:
                self.digests.append(decision.header.txid)
        for transaction in transactions:
            issued |= any(call.action in ("issue", "retire") for call in transaction.calls)
        assert issued or self.money() == before
        for write in result.writes:
            if is_record_row(write.row):
                row = decode_row(write.row)
                known = self.ids.setdefault(str(row.kind), [])
                if row.id not in known:
                    known.append(row.id)
        return result.decisions


def founding(texts: Sequence[str], book: Rulebook) -> Genesis:
    """Return the genesis of a network where some people have every role."""
    strings = [
        parent[key]
        for table in map(tomllib.loads, texts)
        for parent, key in nodes(table)
        if key in ("role", "by") and isinstance(parent[key], str)
    ]
    roles = [r for r in dict.fromkeys(strings) if re.fullmatch(r"[a-z][a-z0-9_.]{0,60}", r)]
    accounts = [
        OpeningBalance(family, id_, OPENING)
        for family in book.families
        for id_ in ((), ("main",), ("a",), ("b",), (token("ann"),))
    ]
    people = [each.id for each in DEFAULT.principals]
    given = [
        RoleGiven(id_, role, NORTH)
        for id_ in map(token, DOERS)
        if id_ in people
        for role in roles[:24]
    ]
    return make_genesis(tuple(texts), accounts=tuple(accounts), roles=tuple(given))


def check_execution(seed: int, rounds: int = 3) -> list[Decision]:
    """Mutate, compile, and call everything; return the decisions."""
    found = check_texts(seed)
    for again in range(1, 6):
        if found is None:
            found = check_texts(seed + (again << 40))
    if found is None:
        return []
    texts, book = found
    if "charter" not in book.rule_sets:
        return []
    try:
        world = Odd(founding(texts, book), book, texts, seed)
    except DecodeError:
        return []
    random = world.random
    actions = [each for rules in book.rule_sets.values() for each in rules.actions.values()]
    ordinary = [each for each in actions if not each.kernel]
    ordinary.sort(key=lambda each: not any(type(e) in (Create, OpenAccount) for e in each.effects))
    decisions: list[Decision | None] = []
    for at in range(rounds):
        decisions += [world.attempt([action], right=at % 2 == 0) for action in ordinary]
        for action in random.sample(actions, min(len(actions), 12)):
            lane = [each for each in actions if each.protective == action.protective]
            more = random.choices(lane, k=random.choice((0, 1, 3)))
            decisions.append(world.attempt([action, *more], right=random.random() < 0.7))
    return [each for each in decisions if each is not None]


# --- the chain's form -----------------------------------------------------------------------------


def check_bytes(seed: int) -> bytes:
    """Mutate a definition's canonical form; a definition that comes out of it is the same again."""
    random = Random(seed)
    texts = NETWORKS[random.choice(list(NETWORKS))]
    data = encode_definition(load_toml(random.choice(texts)))
    changed = tampered(random, data)
    try:
        definition = decode_definition(changed)
    except DecodeError:
        return changed
    assert encode_definition(definition) == changed
    with suppress(RulesError):
        compile_rulebook([definition])
    return changed


def tampered(random: Random, data: bytes) -> bytes:
    """Return canonical CBOR with values changed, or with bytes changed, cut, repeated or added."""
    if random.random() < 0.6:
        tree = cbor2.loads(data)
        for _ in range(random.choice((1, 1, 2, 4))):
            places = list(nodes(tree))
            parent, key = random.choice(places)
            other, other_key = random.choice(places)
            value = parent[key]
            near = [p[k] for p, k in places if type(p[k]) is type(value)]
            inner = list(value) if isinstance(value, list) else [value]
            changes: tuple[Any, ...] = (
                random.choice(near), random.choice(near), other[other_key], random.choice(EDGES),
                random.choice(ODD), [value], inner * 2, inner[1:], None, b"x", str(value)[:50],
            )  # fmt: skip
            parent[key] = cbor2.loads(cbor2.dumps(random.choice(changes)))
        return cbor2.dumps(tree)
    changed = bytearray(data)
    at = random.randrange(len(changed))
    match random.randrange(5):
        case 0:
            changed[at] = random.randrange(256)
        case 1:
            del changed[at : at + random.choice((1, 2, 50))]
        case 2:
            changed[at:at] = changed[at : at + random.choice((1, 2, 50))]
        case 3:
            changed += random.randbytes(random.choice((1, 9)))
        case _:
            changed[at:at] = random.choice(
                (b"\x9f", b"\x1b" + b"\xff" * 8, b"\x81" * 5000, b"\xf6")
            )
    return bytes(changed)


def check_proposal(seed: int) -> list[Decision]:
    """Propose and activate rule sets of such bytes; return the decisions."""
    random = Random(seed)
    world = Governed()
    decisions = []
    for domain in ("benefits", "charter", "identity", "payments", "taxes"):
        text = next((t for t in NETWORKS["governed"] if f'domain = "{domain}"' in t), "")
        text = (text or 'domain = "taxes"\nnumber = 1\nlegal_basis = "Act"\n[actions]\n').replace(
            "number = 1\n", f"number = {1 if domain == 'taxes' else 2}\n", 1
        )
        data = encode_definition(load_toml(text))
        try:
            data = encode_definition(load_toml(mutated(random, [text])[0]))
        except RulesError:
            data = tampered(random, data)
        number = 1 if domain == "taxes" else 2
        try:
            read = decode_definition(data)
            named, number = (
                (read.domain, read.number) if random.random() < 0.5 else (domain, number)
            )
        except DecodeError:
            named = domain
        expects = [("rules", [named], world.version(named))]
        call = ("charter.propose_rules", named, number, data)
        try:
            proposal = world.draft("chief_t", call, expects=expects)
        except DecodeError:  # larger than a client may send
            continue
        decisions.append(world.one(proposal))
        from_ms = world.now_ms + 1000 + NOTICE_MS
        cosigners = ("chief_r", "chief_s", "chief_a")
        decisions.append(world.activate(named, number, from_ms, cosigners=cosigners))
    world.wait_until(world.now_ms + 1000 + NOTICE_MS)
    for later in (("payments.transfer", "a", "b", 1), ("payments.open_purse", "z")):
        try:
            drafted = world.draft("clerk", later)
        except AssertionError:  # the action is gone
            continue
        decisions.append(world.one(drafted))
    return decisions


# --- in the suite ---------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS)
def test_a_mutated_rule_set_is_a_rule_book_or_a_refusal(seed: int) -> None:
    check_texts(seed)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(SEEDS)
def test_under_rules_nobody_thought_about_every_call_has_one_outcome(seed: int) -> None:
    check_execution(seed, rounds=2)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(SEEDS)
def test_mutated_bytes_of_a_rule_set_are_a_definition_or_a_decode_error(seed: int) -> None:
    check_bytes(seed)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(SEEDS)
def test_proposing_mutated_bytes_is_applied_or_refused(seed: int) -> None:
    check_proposal(seed)


def test_the_mutations_reach_outcomes_of_every_sort() -> None:
    """Of what the other tests try, not all is refused at the door."""
    executed = [decision for seed in range(6) for decision in check_execution(seed, rounds=2)]
    codes = {decision.code for decision in executed}
    assert {Code.APPLIED, Code.REQUIREMENT, Code.BAD_INPUT, Code.NOT_FOUND} <= codes
    proposed = {decision.code for seed in range(6) for decision in check_proposal(seed)}
    assert {Code.APPLIED, Code.REQUIREMENT, Code.BAD_INPUT} <= proposed
