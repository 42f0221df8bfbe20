"""What execution leaves behind: the same everywhere, complete, and readable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from consensus import codec
from consensus.errors import DecodeError, LocalProtocolError
from consensus.genesis import OpeningBalance, RoleGiven, decode
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.layout import Paths, encode_id, encode_int, encode_value
from consensus.ledger.ledger import of_genesis
from consensus.state.state import MemoryBackend, Row, State
from tests.consensus.ledger.programme import digest, mixed_blocks
from tests.consensus.ledger.reader import (
    Recorded,
    Witness,
    read_holds,
    read_single,
    read_window,
    value_hash,
)
from tests.consensus.ledger.world import (
    BENEFITS,
    CHARTER,
    DEFAULT,
    IDENTITY,
    PAYMENTS,
    World,
    make_genesis,
    person,
    populated,
    public_key,
    register,
    token,
)

ROOT = Path(__file__).parents[3]


# --- the same everywhere ----------------------------------------------------------------------


def test_results_do_not_depend_on_the_order_of_hashes() -> None:
    digests = set()
    for seed in ("0", "4242"):
        found = subprocess.run(
            [sys.executable, "-m", "tests.consensus.ledger.programme"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(found.stdout.strip())
    assert digests == {digest()}


def test_results_are_the_same_under_another_supported_python() -> None:
    made = subprocess.run(
        [sys.executable, "scripts/other_python.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if made.returncode:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    found = subprocess.run(
        [made.stdout.strip(), "-m", "tests.consensus.ledger.programme"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == digest()


def test_programme_reaches_what_it_is_meant_to() -> None:
    world = populated()
    codes = [[d.code for d in world.run(*block).decisions] for block in mixed_blocks(world)]
    assert codes == [
        [Code.APPLIED, Code.APPLIED, Code.APPLIED, Code.APPLIED, Code.APPLIED],
        [Code.APPLIED, Code.HELD, Code.APPLIED, Code.BASIS_MOVED, Code.APPLIED],
        [Code.APPLIED, Code.SUSPENDED, Code.UNKNOWN_KEY],
    ]


def test_leaves_that_were_read_suffice_to_execute_again() -> None:
    world = populated()
    transaction = world.disburse("ann")
    context = BlockContext(1, world.height + 1, world.now_ms + 1)
    recorded = Recorded(world.state)
    first = BlockRun(world.ledger, recorded, context, [transaction]).finish()
    again = BlockRun(world.ledger, Witness(recorded.asked), context, [transaction]).finish()
    assert again == first or again.results_root == first.results_root
    assert again.writes == first.writes


def test_reads_of_the_decision_name_every_leaf_but_pool_window_and_moved_accounts() -> None:
    world = populated()
    recorded = Recorded(world.state)
    context = BlockContext(1, world.height + 1, world.now_ms + 1)
    result = BlockRun(world.ledger, recorded, context, [world.disburse("ann")]).finish()
    full, moved = result.decisions[0].value("reads")
    named = {full[at : at + 32] for at in range(0, len(full), 64)}
    named |= {moved[at : at + 32] for at in range(0, len(moved), 32)}
    paths = world.ledger.paths
    attested = {
        paths.pool,
        paths.rules,
        paths.executor,
        paths.committee,
        paths("sequence", [public_key("officer")]),
    }
    other_rules = {paths("rules", ["charter"]), paths("rules", ["charter", 1])}
    asked = set(recorded.asked)
    assert asked - named == attested | other_rules
    assert named <= asked


# --- state ------------------------------------------------------------------------------------


def test_writes_apply_to_the_state_tree() -> None:
    genesis = make_genesis()
    ledger = of_genesis(genesis)
    state = State(MemoryBackend(), genesis.tree_depth, -1)
    roots = [state.apply(genesis_state(genesis)).state_root]
    world = World()
    for height in (1, 2):
        block = [world.draft("clerk", ("payments.transfer", "a", "b", height))]
        context = BlockContext(1, height, world.now_ms + height)
        run = BlockRun(ledger, state, context, block)
        roots.append(state.apply(run.finish().writes).state_root)
    assert len(set(roots)) == 3


def test_every_row_leads_to_its_value_hash() -> None:
    world = populated()
    for block in mixed_blocks(world):
        world.run(*block)
    for kh, vh, _ in world.state.entries():
        row = world.state.get(kh)
        assert row is not None
        assert value_hash(kh, row.value) == vh


def test_window_and_kernel_leaves_are_read_back() -> None:
    world = World()
    world.one(world.draft("clerk", ("payments.transfer", "a", "b", 1), sequence=3))
    row = world.state.get(world.ledger.paths("sequence", [public_key("clerk")]))
    assert row is not None
    window = read_window(row.value)
    assert (window.highest, window.used) == (3, 0b1001)
    row = world.state.get(world.ledger.paths("rules", ["payments"]))
    assert row is not None
    head = read_single("rules", ["payments"], row.value).value
    assert head.number_at(DEFAULT.time_ms) == 1
    assert head.number_at(DEFAULT.time_ms - 1) == 0


def test_hold_that_the_index_names_and_the_state_lacks_is_our_own_fault() -> None:
    world = World()
    world.do("officer", "payments.freeze_purse", "a")
    paths = world.ledger.paths
    [hold] = read_holds(world.state, paths, "account", ["purse", "a"])
    rows = {kh: world.state.get(kh) for kh, _, _ in world.state.entries()}
    del rows[paths("hold", [hold.id])]
    source = MemoryBackend([(kh, row) for kh, row in rows.items() if row is not None])
    transfer = world.draft("clerk", ("payments.transfer", "a", "b", 1))
    run = BlockRun(world.ledger, source, BlockContext(1, 9, world.now_ms + 1), [transfer])
    with pytest.raises(LocalProtocolError):
        run.step(1)


# --- genesis ----------------------------------------------------------------------------------


def test_genesis_says_what_the_file_says() -> None:
    world = World(decode(DEFAULT.encode()))
    assert world.ledger.chain == of_genesis(DEFAULT).chain
    assert world.balance("purse", "main") == 1_000_000
    for space, components in (
        ("agency", ["audit"]),
        ("principal", [token("clerk")]),
        ("key", [public_key("clerk")]),
        ("role", [token("clerk"), "payments.clerk"]),
        ("rules", ["payments"]),
    ):
        row = world.state.get(world.ledger.paths(space, components))
        assert row is not None
        assert read_single(space, components, row.value).version == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"texts": (IDENTITY,)}, "charter"),
        ({"texts": (CHARTER, BENEFITS)}, "person"),
        ({"accounts": (OpeningBalance("none", ("a",), 1),)}, "family"),
        ({"accounts": (OpeningBalance("purse", (None,), 1),)}, "component"),
        ({"accounts": (OpeningBalance("purse", ("a",), 1),) * 2}, "twice"),
        ({"roles": (RoleGiven(token("clerk"), "r"),) * 2}, "twice"),
    ],
)
def test_genesis_whose_parts_do_not_fit_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        genesis_state(make_genesis(**changes))  # type: ignore[arg-type]


# --- encodings --------------------------------------------------------------------------------

PLAIN = [
    None,
    True,
    False,
    *[sign * 2**power + delta for power in (0, 4, 5, 8, 10, 16, 32, 63) for sign in (1, -1)
      for delta in (-1, 0, 1)],
    "",
    "short",
    "é" * 20,
    "x" * 5000,
    b"",
    bytes(23),
    bytes(24),
    bytes(32),
    bytes(255),
    bytes(256),
    [],
    [bytes(32)],
    ["a", 1, None, [b"x", ["y", -5]]],
    list(range(30)),
    list(range(300)),
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_quick_encodings_are_the_canonical_ones(value: object) -> None:
    if type(value) is int and not -(2**63) <= value < 2**63:
        return
    assert encode_value(value) == codec.encode(value)
    assert encode_id([value]) == codec.encode([value])
    if type(value) is int:
        assert encode_int(value) == codec.encode(value)


def test_paths_of_names_and_of_encoded_components_are_those_of_the_places() -> None:
    paths = Paths(token("chain"))
    components = ["payments", "payment", [token("x")], 24_312]
    assert paths.of("unique", codec.encode(components)) == paths("unique", components)
    assert paths.named("person", [b"x"]) == paths("record", ["person", b"x"])
    assert paths.named("role", [b"x", "r"]) == paths("role", [b"x", "r"])


# --- definitions ------------------------------------------------------------------------------

LATER = IDENTITY.replace("number = 1", "number = 2").replace(
    "status = { start",
    """fields.zip     = { type = "text", open = true, optional = true, since = 2 }
fields.photo   = { type = "digest", optional = true, since = 2 }
status = { start""",
    1,
)


def test_record_of_an_older_definition_reads_null_and_is_laid_anew_when_written() -> None:
    world = World()
    register(world, "ann")
    newer = World(make_genesis((CHARTER, LATER, BENEFITS, PAYMENTS)))
    old_path = world.ledger.paths("record", ["person", token("ann")])
    row = world.state.get(old_path)
    assert row is not None
    kh = newer.ledger.paths("record", ["person", token("ann")])
    newer.state.write([(kh, row)])
    before = newer.record("person", person("ann"))
    assert (before.definition, before.fields["zip"], before.fields["photo"]) == (1, None, None)
    assert before.versions["photo"] == 0
    rename = ("identity.rename", person("ann"), "Anna")
    decision = newer.do("registrar", *rename, expects=[("person", person("ann"), 1)])
    assert decision.code == Code.APPLIED, decision.detail
    after = newer.record("person", person("ann"))
    assert (after.definition, after.version) == (2, 2)
    assert (after.fields["name"], after.fields["town"], after.fields["zip"]) == ("Anna", "", None)
    assert after.fields["region"] == "north"
    assert (after.versions["zip"], after.versions["photo"], after.versions["region"]) == (2, 2, 1)
    [entry] = decision.value("writes:identity")
    assert [(leaf, old == bytes(32)) for leaf, old in entry[4]] == [
        ("name", False), ("photo", True), ("zip", True),
    ]  # fmt: skip


def test_rule_set_of_the_future_is_not_in_force() -> None:
    world = World()
    rules = world.ledger.rules(world.state, DEFAULT.time_ms - 1)
    assert rules.in_force == {}
    assert world.ledger.rules(world.state, DEFAULT.time_ms).in_force.keys() == {
        "benefits",
        "charter",
        "identity",
        "payments",
    }


def test_compiled_rule_books_are_kept_within_a_bound() -> None:
    world = World()
    first = world.ledger.rules(world.state, world.now_ms).book
    assert world.ledger.rules(world.state, world.now_ms).book is first
    for number in range(2, 12):
        charter = CHARTER.replace("number = 1", f"number = {number}")
        other = make_genesis((charter, IDENTITY), accounts=())
        source = MemoryBackend([(kh, Row(vh, 0, row)) for kh, vh, row in genesis_state(other)])
        ledger = of_genesis(other)
        ledger._books = world.ledger._books
        ledger.rules(source, other.time_ms)
    assert len(world.ledger._books) <= 8
