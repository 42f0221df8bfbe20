"""Where sealed values lie: durable, encrypted, lapsing, erased for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consensus.errors import ComityError
from consensus.ledger.sealing import Opening
from node.errors import ForeignDataError, KeyAccessError, SealedKeyError
from node.keyring import Keyring
from node.sealed.slots import SLOT_BYTES
from node.sealed.vault import (
    KEPT,
    WAITING,
    Change,
    Delivered,
    Destroyed,
    Erase,
    Held,
    Kept,
    Proposed,
    Vault,
    load_key,
)

CHAIN = b"C" * 32
KEY = b"k" * 32
AUTHOR = b"A" * 32
TXID = b"T" * 32
SEEN = [6, 7].__contains__
"""Says of heights whether this node has the block that follows."""
HEAD = b"comity sealed key 1\n"
KEYRING = Keyring(None, {})
VALUE = "DE02 1203 0000 0000 2020 51"
PLACE = ("file", "a", "iban")
OTHER = ("file", "b", "iban")


def opening(number: int = 0, value: str = VALUE) -> Opening:
    return Opening(bytes([number]) * 32, b"p" * 32, 0, number, value)


def delivered(found: Opening, until_ms: int = 1000) -> Delivered:
    return Delivered(found, until_ms, AUTHOR, 7)


def kept(found: Opening, *homes: tuple[tuple[str, ...], int]) -> Kept:
    return Kept(found.commitment, ("treasury", "audit"), homes or ((PLACE, 1),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sealed"


@pytest.fixture
def vault(folder: Path) -> Iterator[Vault]:
    made = Vault(folder, KEY, CHAIN)
    yield made
    made.close()


def again(vault: Vault, folder: Path, key: bytes = KEY, chain: bytes = CHAIN) -> Vault:
    vault.close()
    return Vault(folder, key, chain)


def whole(folder: Path) -> bytes:
    """Everything on disk."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_delivered_value_is_there_after_a_restart(vault: Vault, folder: Path) -> None:
    one, two = opening(1), opening(2, "other")
    await vault.deliver([delivered(one), delivered(two, 2000)])
    found = again(vault, folder)
    assert found.get(one.commitment) == Held(one, WAITING, (), ())
    assert found.get(two.commitment) == Held(two, WAITING, (), ())
    assert {c: (w.until_ms, w.on_chain, w.author) for c, w in found.waiting.items()} == {
        one.commitment: (1000, False, AUTHOR),
        two.commitment: (2000, False, AUTHOR),
    }
    assert found.get(b"?" * 32) is None
    found.close()


async def test_neither_value_nor_salt_nor_its_key_is_on_disk_in_the_clear(
    vault: Vault, folder: Path
) -> None:
    found = opening(7)
    await vault.deliver([delivered(found)])
    data = whole(folder)
    assert found.commitment in data
    assert VALUE.encode() not in data
    assert found.salt not in data
    assert KEY not in data


async def test_value_lapses_when_its_transaction_can_come_no_more(vault: Vault) -> None:
    one, two = opening(1), opening(2)
    await vault.deliver([delivered(one, 1000), delivered(two, 2000)])
    await vault.settle([], 1000, SEEN)
    assert isinstance(vault.get(one.commitment), Held)
    await vault.settle([], 1001, SEEN)
    assert vault.get(one.commitment) is None
    assert list(vault.waiting) == [two.commitment]


async def test_value_of_a_proposal_waits_as_long_as_that_may(vault: Vault) -> None:
    found = opening()
    await vault.deliver([delivered(found, 5000)])
    await vault.settle([Proposed(found.commitment)], 100, SEEN)
    assert vault.waiting[found.commitment].on_chain
    await vault.settle([kept(found)], 4999, SEEN)
    assert vault.waiting == {}
    await vault.settle([], 10**9, SEEN)
    held = vault.get(found.commitment)
    assert held == Held(found, KEPT, ("treasury", "audit"), ((PLACE, 1),))


async def test_what_was_settled_may_be_settled_again(vault: Vault, folder: Path) -> None:
    found = opening()
    await vault.deliver([delivered(found)])
    for _ in range(2):
        await vault.settle([Proposed(found.commitment), kept(found)], 10, SEEN)
    await vault.deliver([delivered(found, 9)])
    await vault.settle([kept(found)], 99, SEEN)
    reopened = again(vault, folder)
    assert reopened.get(found.commitment) == Held(found, KEPT, ("treasury", "audit"), ((PLACE, 1),))
    assert reopened.waiting == {}
    reopened.close()


async def test_value_is_kept_where_the_blocks_that_may_have_it_were_not_seen(
    vault: Vault, folder: Path
) -> None:
    """A node went on from a snapshot: the transaction may have been applied below it."""
    one, two = opening(1), opening(2)
    await vault.deliver([Delivered(one, 1000, AUTHOR, 7), Delivered(two, 1000, AUTHOR, 5)])
    await vault.settle([], 1001, SEEN)
    assert vault.get(one.commitment) is None
    assert vault.get(two.commitment) == Held(two, KEPT, (), ())
    assert vault.waiting == {}


async def test_value_delivered_twice_waits_for_the_later_end(vault: Vault) -> None:
    found = opening()
    await vault.deliver([delivered(found, 2000), delivered(found, 1000)])
    assert vault.waiting[found.commitment].until_ms == 2000


async def test_erasing_destroys_every_version_of_a_field_and_no_other(vault: Vault) -> None:
    old, now, other, later = (opening(n) for n in range(4))
    await vault.deliver([delivered(each) for each in (old, now, other, later)])
    changes: list[Change] = [
        kept(old, (PLACE, 1)),
        kept(now, (PLACE, 4)),
        kept(other, (OTHER, 2)),
        kept(later, (PLACE, 5)),
    ]
    await vault.settle(changes, 0, SEEN)
    await vault.settle([Erase(PLACE, 4, now.commitment, TXID)], 0, SEEN)
    assert vault.get(old.commitment) == vault.get(now.commitment) == Destroyed(TXID)
    assert isinstance(vault.get(other.commitment), Held)
    assert isinstance(vault.get(later.commitment), Held)


async def test_copied_value_is_destroyed_wherever_it_is_erased(vault: Vault) -> None:
    found = opening()
    await vault.deliver([delivered(found)])
    await vault.settle([kept(found, (PLACE, 1)), Erase(OTHER, 3, found.commitment, TXID)], 0, SEEN)
    assert vault.get(found.commitment) == Destroyed(TXID)


async def test_what_was_erased_stays_so_whatever_comes_again(vault: Vault, folder: Path) -> None:
    found = opening()
    await vault.deliver([delivered(found)])
    erase = Erase(PLACE, 1, found.commitment, TXID)
    await vault.settle([kept(found), erase], 0, SEEN)
    await vault.settle([kept(found), erase], 0, SEEN)
    await vault.deliver([delivered(found)])
    await vault.adopt(found, kept(found))
    reopened = again(vault, folder)
    assert reopened.get(found.commitment) == Destroyed(TXID)
    reopened.close()


async def test_erased_value_cannot_be_read_from_a_copy_of_the_database(
    vault: Vault, folder: Path, tmp_path: Path
) -> None:
    """What a backup of the values has is lost with the key, which is overwritten in its place."""
    found = opening()
    await vault.deliver([delivered(found)])
    await vault.settle([kept(found)], 0, SEEN)
    vault.close()
    backup = {path.name: path.read_bytes() for path in (folder / "values").iterdir()}
    opened = Vault(folder, KEY, CHAIN)
    await opened.settle([Erase(PLACE, 1, None, TXID)], 0, SEEN)
    opened.close()
    assert (folder / "keys").read_bytes() == bytes(SLOT_BYTES)
    for name, content in backup.items():
        (folder / "values" / name).write_bytes(content)
    restored = Vault(folder, KEY, CHAIN)
    assert restored.get(found.commitment) is None
    restored.close()


async def test_slots_of_destroyed_values_are_used_again(vault: Vault, folder: Path) -> None:
    for number in range(5):
        found = opening(number)
        await vault.deliver([delivered(found)])
        await vault.settle([kept(found), Erase(PLACE, 1, None, TXID)], 0, SEEN)
    assert (folder / "keys").stat().st_size == SLOT_BYTES


async def test_value_whose_key_is_gone_is_taken_once_more(vault: Vault, folder: Path) -> None:
    """A crash came after its key was wiped and before its row went."""
    found = opening()
    await vault.deliver([delivered(found)])
    with (folder / "keys").open("r+b") as file:
        file.write(bytes(SLOT_BYTES))
    assert vault.get(found.commitment) is None
    await vault.deliver([delivered(found)])
    assert vault.get(found.commitment) == Held(found, WAITING, (), ())


async def test_map_grows_when_it_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.sealed.vault.MAP_BYTES", 256 * 1024)
    vault = Vault(folder, KEY, CHAIN)
    openings = [opening(number, "x" * 16_000) for number in range(60)]
    for each in openings:
        await vault.deliver([delivered(each)])
    assert all(isinstance(vault.get(each.commitment), Held) for each in openings)
    vault.close()


def test_values_go_page_by_page(vault: Vault) -> None:
    assert vault.page(b"") == []


async def test_pages_have_every_kept_value_once(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.sealed.vault.PAGE_MAX", 2)
    openings = [opening(number) for number in range(5)]
    await vault.deliver([delivered(each) for each in openings])
    seen: list[bytes] = []
    after = b""
    while page := vault.page(after):
        assert len(page) <= 2
        seen += [commitment for commitment, _ in page]
        after = seen[-1]
    assert seen == sorted(each.commitment for each in openings)


# --- keys -----------------------------------------------------------------------------------------


def test_sealed_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "sealed.key"
    key = load_key(path, KEYRING)
    assert (len(key), load_key(path, KEYRING)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(KeyAccessError):
        load_key(path, KEYRING)


@pytest.mark.parametrize(
    "data", [b"", HEAD, HEAD + b"xyz\n", HEAD + b"ab" * 31 + b"\n", b"ab" * 32]
)
def test_file_that_is_no_sealed_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "sealed.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(SealedKeyError):
        load_key(path, KEYRING)


def test_values_under_another_key_or_of_another_network_are_refused(
    vault: Vault, folder: Path
) -> None:
    vault.close()
    with pytest.raises(SealedKeyError):
        Vault(folder, b"K" * 32, CHAIN)
    with pytest.raises(ForeignDataError):
        Vault(folder, KEY, b"D" * 32)
    again(vault, folder).close()


async def test_damaged_value_is_an_error_and_not_another_value(vault: Vault, folder: Path) -> None:
    found = opening()
    await vault.deliver([delivered(found)])
    vault.close()
    path = folder / "values" / "data.mdb"
    data = path.read_bytes()
    held = Vault(folder, KEY, CHAIN)
    with held._environment.begin() as txn:
        row = txn.get(found.commitment, db=held._values) or b""
    held.close()
    at = data.index(row) + len(row) - 20
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    damaged = Vault(folder, KEY, CHAIN)
    with pytest.raises(ComityError):
        damaged.get(found.commitment)
    damaged.close()
