"""Hashes, keys and ids on the command line: printed with ``0x``, read with and without it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comity import keys
from consensus import keyfile
from tests.comity.shell import Said, Shell, shell
from tests.comity.test_proposals_cli import desk, propose

__all__ = ["desk", "shell"]

BARE = re.compile(r"(?<![0-9a-fx])[0-9a-f]{32,}(?![0-9a-f])")
WITH = re.compile(r"0x[0-9a-f]{64}(?![0-9a-f])")


def bare(said: Said) -> list[str]:
    """What of an answer looks like a hash and has no ``0x``."""
    return BARE.findall(said.out + said.err)


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["people", "json"])
def test_what_is_printed_has_its_0x(shell: Shell, form: tuple[str, ...]) -> None:
    txid = shell.note(1).json["txid"]
    absent = "c" * 64
    shown = [
        ("network", "members"),
        ("committee",),
        ("statements",),
        ("statement", "1"),
        ("status",),
        ("get", "note/1", f"key/{_public()}"),
        ("history", "note/1", "--acts"),
        ("decision", txid),
        ("decisions",),
        ("authority",),
        ("reads", "note/1"),
        ("reverse", txid, "--dry"),
        ("bundle", txid, "-o", f"bundle{len(form)}"),
        ("receipt", txid, "-o", f"receipt{len(form)}"),
        ("verify", f"receipt{len(form)}", "--genesis", "genesis.cbor"),
        ("verify", f"bundle{len(form)}", "--genesis", "genesis.cbor"),
        ("keys", "show", "official.key"),
        ("keys", "check", "official.key", "--network", "--genesis", "."),
        ("proposal", absent),
        ("authority", absent),
        ("disclosed", absent, "-o", "new"),
        ("get", "note/1", "--key", "stranger.key"),
    ]
    with_0x = 0
    for words in shown:
        said = shell(*words, *form)
        assert bare(said) == [], (words, said)
        with_0x += len(WITH.findall(said.out))
    assert with_0x > len(shown)


def test_what_waits_is_printed_with_its_0x(desk: Shell) -> None:
    txid = propose(desk)
    for words in (("proposal", txid), ("proposals", "north"), ("pending", "--key", "one.key")):
        for form in ((), ("--json",)):
            said = desk(*words, *form)
            assert said.status == 0, said
            assert bare(said) == [], (words, said)


def test_what_is_read_may_have_its_0x_or_not(shell: Shell) -> None:
    txid = shell.note(1).json["txid"]
    made = shell("receipt", txid, "-o", "receipt", "--json").json
    assert shell("bundle", txid, "-o", "bundle").status == 0
    chain = shell("bundle", txid, "-o", "other", "--json").json["genesis"]
    stated = shell("statement", "0", "--json").json["hash"]
    principal = shell("authority", "--json").json["principal"]
    assert all(WITH.fullmatch(each) for each in (txid, made["digest"], chain, stated, principal))
    for form in (str, lambda each: each.removeprefix("0x"), lambda each: each[2:].upper()):
        for words in (
            ("decision", form(txid)),
            ("reverse", form(txid), "--dry"),
            ("authority", form(principal), "--public-key", form(_public())),
            ("access", form(principal), "note/1"),
            ("verify", "receipt", "--genesis", form(chain), "--digest", form(made["digest"])),
            ("verify", "bundle", "--genesis", form(chain)),
        ):
            said = shell(*words)
            assert said.status == (1 if words[0] == "reverse" else 0), (words, said)
    assert shell("verify", "receipt", "--genesis", chain, "--digest", "12").status == 2


def _public() -> str:
    return f"0x{keyfile.describe(keys.read_file(Path('official.key'))).public.hex()}"
