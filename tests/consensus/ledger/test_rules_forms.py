"""The two forms of a definition: TOML with lines, and canonical CBOR from strangers."""

from __future__ import annotations

import contextlib
import tomllib
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.errors import DecodeError, RulesError
from consensus.ledger.rules import (
    DEFINITION_BYTES_MAX,
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.rules.lines import locate
from tests.consensus.ledger.rule_texts import BENEFITS, CHARTER, IDENTITY, TEXTS, definitions

SMALL = """\
number = 1
legal_basis = "Act"
domain = "small"
"""


def test_definition_survives_its_canonical_form() -> None:
    for text in TEXTS.values():
        definition = load_toml(text)
        again = decode_definition(encode_definition(definition))
        assert again == definition
        assert encode_definition(again) == encode_definition(definition)


def test_smallest_rule_set_has_the_documented_bytes() -> None:
    # [1, ["small", 1, "Act", [], [], [], [], [], []]] by hand, RFC 8949
    expected = bytes.fromhex("8201") + b"\x89\x65small\x01\x63Act" + b"\x80" * 6
    assert encode_definition(load_toml(SMALL)) == expected


def test_order_of_named_tables_in_the_file_changes_no_byte() -> None:
    head, *tables = BENEFITS.split("\n[")
    moved = "\n[".join([head, *reversed(tables)])
    assert moved != BENEFITS
    assert encode_definition(load_toml(moved)) == encode_definition(load_toml(BENEFITS))


def test_order_that_means_something_is_kept() -> None:
    text = IDENTITY.replace(
        'inputs = { person = "ref:person", street = "text", town = "text" }',
        'inputs = { town = "text", person = "ref:person", street = "text" }',
    )
    definition = load_toml(text)
    names = [name for name, _ in dict(definition.actions)["move_house"].inputs]
    assert names == ["town", "person", "street"]
    assert decode_definition(encode_definition(definition)) == definition


def test_rules_from_the_chain_compile_to_the_same_actions_as_from_text() -> None:
    from_text = compile_rulebook(definitions())
    chain = [decode_definition(encode_definition(each)) for each in definitions()]
    from_chain = compile_rulebook(chain)
    for domain, rules in from_text.rule_sets.items():
        ids = {name: each.action_id for name, each in from_chain.rule_sets[domain].actions.items()}
        assert ids == {name: each.action_id for name, each in rules.actions.items()}


def test_fault_in_rules_from_the_chain_names_the_path_instead_of_a_line() -> None:
    broken = IDENTITY.replace("person.id", "person.identity")
    chain = decode_definition(encode_definition(load_toml(broken)))
    with pytest.raises(RulesError, match=r"actions\.move_house\.actor\.self") as caught:
        compile_rulebook([chain])
    assert caught.value.line == 0


def packed(text: str = SMALL) -> Any:
    return codec.parse(encode_definition(load_toml(text)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.__setitem__(0, 2), "format 2"),
        (lambda value: value[1].__setitem__(1, 0), "outside 1"),
        (lambda value: value[1].__setitem__(0, None), "expected text"),
        (lambda value: value[1].pop(), "8 items, expected 9"),
        (lambda value: value[1].append([]), "0 items, allowed 1"),
        (lambda value: value[1].extend([[], []]), "11 items, expected 10"),
        (lambda value: value[1].__setitem__(8, [["a"]]), "1 items, expected 2"),
        (lambda value: value[1].__setitem__(3, [["b", []], ["a", []]]), "ascending"),
        (lambda value: value[1].__setitem__(3, [["a", []], ["a", []]]), "twice"),
        (lambda value: value[1].__setitem__(3, [["a" * 65, []]]), "bytes of text"),
        (lambda value: value[1].__setitem__(4, ["x"] * 65), "65 items"),
    ],
)
def test_bytes_of_another_structure_are_refused(change: Any, message: str) -> None:
    value = packed()
    change(value)
    with pytest.raises(DecodeError, match=message):
        decode_definition(codec.encode(value))


def test_unknown_kind_of_effect_is_refused() -> None:
    value = packed(IDENTITY)
    action = dict(value[1][8])["register"]
    effects = action[11]
    assert effects[0][0] == 0
    effects[0][0] = 99
    with pytest.raises(DecodeError, match="unknown kind 99"):
        decode_definition(codec.encode(value))


def test_other_encodings_of_the_same_value_are_refused() -> None:
    data = encode_definition(load_toml(SMALL))
    for other in (
        data + b"\x00",
        b"\x9f" + data[1:] + b"\xff",
        data.replace(b"\x01\x63", b"\x18\x01\x63"),
    ):
        with pytest.raises(DecodeError):
            decode_definition(other)


def test_too_many_bytes_are_refused_before_anything_is_parsed() -> None:
    with pytest.raises(DecodeError, match="at most"):
        decode_definition(b"\x80" * (DEFINITION_BYTES_MAX + 1))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from([CHARTER, IDENTITY]), st.integers(0, 10**6), st.integers(0, 255))
def test_one_changed_byte_is_refused_or_gives_another_definition(
    text: str, position: int, byte: int
) -> None:
    data = bytearray(encode_definition(load_toml(text)))
    position %= len(data)
    changed = data[position] != byte
    data[position] = byte
    try:
        definition = decode_definition(bytes(data))
    except DecodeError:
        return
    assert encode_definition(definition) == bytes(data)
    assert (definition != load_toml(text)) is changed
    with contextlib.suppress(RulesError):
        compile_rulebook([definition])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=64))
def test_garbage_is_refused_with_the_documented_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_definition(data)


# --- TOML -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ('domain = "a"\nnumber = \n', "not TOML", 2),
        ("a = [1,\n", "not TOML", 1),
        (SMALL + "[actions]\na = 3\n", "expected a table, found a number", 5),
        (SMALL + "uses = 3\n", "expected a table, found a number", 4),
        (SMALL + "exports = { a = 1 }\n", "expected an array, found a table", 4),
        (SMALL + 'exports = "a"\n', "expected an array, found text", 4),
        (SMALL.replace('"Act"', '"Ame\u0301lie"'), "not in Unicode NFC", 2),
        (SMALL.replace("number = 1\n", ""), "number is missing", 0),
        (SMALL + "[kinds.a]\nfields.b = { kind = 3 }\n", "goes with", 5),
        (SMALL + "[kinds.a]\nfields.b = { optional = true }\n", "type is missing", 5),
        (SMALL + "[a" + ".a" * 100_000 + "]\n", "a key of more than 32 parts", 4),
        (SMALL + '"a" . ' * 33 + "a = 1\n", "a key of more than 32 parts", 4),
        (SMALL + "deep = " + "[" * 5000 + "]" * 5000, "nested too deeply", 4),
        (SMALL + "deep = " + "[" * 64 + "]" * 64, "nested too deeply", 4),
        (SMALL + "long = " + "9" * 5000, "a number of too many digits", 4),
    ],
)
def test_bad_text_is_refused_with_its_line(text: str, message: str, line: int) -> None:
    with pytest.raises(RulesError, match=message) as caught:
        load_toml(text, "x.toml")
    assert caught.value.line == line
    assert caught.value.message.startswith("x.toml")


def test_overlong_text_is_refused() -> None:
    with pytest.raises(RulesError, match="characters, at most"):
        load_toml(SMALL + "#" * 2**20)


TRICKY = '''\
# [not.a.table]
a = 1
b.c = "x = 1 # no comment ] }" # comment
[t]  # table
k = """
line [x]
q = 1
""" # after
'single' = \'\'\'
y = 2\'\'\'
list = [ # opens
  1,
  { x = 1, y.z = [ "a",
    "b" ] },
  "q\\"]", 2024-01-01,
]
last = true
[[many]]
n = 1
[[many]]
n = 2
[many.sub]
m = 3
["quoted.key"]
v = 1
'''


def test_lines_are_found_through_every_form_of_toml() -> None:
    lines = locate(TRICKY)
    tomllib.loads(TRICKY)
    expected = {
        ("a",): 2, ("b",): 3, ("b", "c"): 3, ("t",): 4, ("t", "k"): 5, ("t", "single"): 9,
        ("t", "list"): 11, ("t", "list", 0): 12, ("t", "list", 1): 13, ("t", "list", 1, "x"): 13,
        ("t", "list", 1, "y", "z"): 13, ("t", "list", 1, "y", "z", 1): 14, ("t", "list", 2): 15,
        ("t", "list", 3): 15, ("t", "last"): 17, ("many", 0): 18, ("many", 0, "n"): 19,
        ("many", 1): 20, ("many", 1, "n"): 21, ("many", 1, "sub", "m"): 23,
        ("quoted.key", "v"): 25,
    }  # fmt: skip
    assert {path: lines[path] for path in expected} == expected


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path of a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in items:
        found.append((*path, key))
        if isinstance(item, dict | list):
            found += paths(item, (*path, key))
    return found


@pytest.mark.parametrize("text", [TRICKY, *TEXTS.values()])
def test_every_path_of_a_document_has_a_line(text: str) -> None:
    assert set(paths(tomllib.loads(text))) == set(locate(text))


# --- the ends of arrays -----------------------------------------------------------------------

ENDED = (
    SMALL
    + """
[actions.plain]
actor = { role = "small.clerk" }

[actions.named]
actor = { role = "small.clerk" }
let = [ ["one", "1"] ]
"""
)


def test_what_may_be_left_out_comes_as_one_table_at_the_end() -> None:
    actions = dict(cbor2.loads(encode_definition(load_toml(ENDED)))[1][8])
    assert len(actions["plain"]) == 13
    assert actions["named"] == [*actions["plain"], [["let", [["one", "1"]]]]]


MORE = {
    "empty": [],
    "absent": [["let", []]],
    "absent text": [["period", ""]],
    "unknown key": [["lets", [["one", "1"]]]],
    "no key": [[]],
    "another type": [["let", "one"]],
    "descending": [["period", "input.month"], ["let", [["one", "1"]]]],
    "twice": [["let", [["one", "1"]]], ["let", [["one", "1"]]]],
    "no pairs": ["let"],
    "no table": "let",
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE.keys())
def test_a_table_at_the_end_that_is_not_canonical_is_refused(more: object) -> None:
    value = cbor2.loads(encode_definition(load_toml(ENDED)))
    assert value[1][8][1][0] == "plain"
    value[1][8][1][1].append(more)
    with pytest.raises(DecodeError):
        decode_definition(cbor2.dumps(value, canonical=True))


def test_bytes_with_too_many_or_few_entries_are_refused() -> None:
    value = cbor2.loads(encode_definition(load_toml(ENDED)))
    value[1][8][1][1] += [[["let", [["a", "1"]]]], "b"]
    with pytest.raises(DecodeError):
        decode_definition(cbor2.dumps(value, canonical=True))
    value[1][8][1][1] = value[1][8][1][1][:12]
    with pytest.raises(DecodeError):
        decode_definition(cbor2.dumps(value, canonical=True))
