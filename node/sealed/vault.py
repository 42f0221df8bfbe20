"""Where sealed values lie: each encrypted under a key of its own, in a database of their own.

    sealed/values     LMDB: what is below
    sealed/keys       a key for each value, see ``slots``
    keys/sealed.key   the node's sealed key, which encrypts those; made at the first start: text,
                      or under a passphrase a key file of kind ``vault`` (``consensus.keyfile``)

    values   commitment    [state, slot, [agency, ...], nonce, box, [[[kind, *id, field], version],
                            ...]]; box = secretbox (opening) under the value's key
                           [ERASED, txid]: destroyed, by which act
    homes    H(place) 32 ‖ version 8 ‖ commitment    empty: the record fields it has been in
    waiting  commitment    [until_ms, on chain, size, author, height]: not in a record yet

A value WAITS until its transaction is applied, in a proposal as long as that lasts; it lapses when
``until_ms`` has passed on the chain. KEPT ones stay until they are erased. What a write leaves is
on disk when it returns; erasing overwrites the key first, so no crash brings a value back.

Not here: who may deliver or read (``keeper``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb
import nacl.bindings
import nacl.exceptions
import trio

from consensus import codec, keyfile
from consensus.codec import Value
from consensus.errors import KeyFileError, PassphraseError
from consensus.hashing import context
from consensus.keyfile import KeyKind
from consensus.ledger.sealing import Opening
from node import keyfiles
from node.errors import ForeignDataError, SealedKeyError, StorageFailedError
from node.keyring import Keyring
from node.sealed.slots import KEY_BYTES, NONCE_BYTES, Slots
from node.storage.disk import FOLDER_MODE, SYSTEM_DISK, Disk

T = TypeVar("T")
Place = tuple[Value, ...]
"""A record's field: its kind, the components of its id, and the field's name."""
Homes = tuple[tuple[Place, int], ...]
"""Fields that a value was in, with their versions."""

WAITING: Final = 0
KEPT: Final = 1
ERASED: Final = 2
MAP_BYTES: Final = 2**30
"""First size of the map, which doubles: address space, not disk or memory."""
PAGE_MAX: Final = 256
"""Values gone through in one turn."""

_MARK: Final = b"mark"
_MARK_TEXT: Final = b"comity sealed values"
_H_HOME: Final = context("sealed home")


@dataclass(frozen=True, slots=True)
class Held:
    """A value that is here. ``homes`` are the fields it has been in, with their versions."""

    opening: Opening
    state: int
    audience: tuple[str, ...]
    homes: Homes


@dataclass(frozen=True, slots=True)
class Destroyed:
    """A value that was erased, by the act ``txid``."""

    txid: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """A value that is not in a record yet; ``on_chain``: in a proposal."""

    until_ms: int
    on_chain: bool
    size_bytes: int
    author: bytes
    height: int
    """Certified when it was delivered: no block up to it has the commitment."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A value to be kept from now on, until chain time ``until_ms`` at least."""

    opening: Opening
    until_ms: int
    author: bytes
    height: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """A stored proposal has the commitment."""

    commitment: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """An applied transaction brought the commitment, into the fields ``homes``."""

    commitment: bytes
    audience: tuple[str, ...]
    homes: Homes


@dataclass(frozen=True, slots=True)
class Erase:
    """The act ``txid`` erased a field's values up to a version."""

    place: Place
    version: int
    commitment: bytes | None
    txid: bytes


Change = Proposed | Kept | Erase


def load_key(path: Path, keyring: Keyring) -> bytes:
    """Return the node's sealed key in a file, which is made if there is none.

    Raises:
        KeyAccessError: unreadable, or others may read it.
        PassphraseError: it is under a passphrase, which is missing or wrong.
        SealedKeyError: it is no sealed key.
    """
    if not path.exists():
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        line = SYSTEM_DISK.random(KEY_BYTES).hex().encode() + b"\n"
        keyfiles.create(path, keyfile.VAULT_HEAD + line)
    try:
        return keyring.load(path, KeyKind.VAULT).seed
    except PassphraseError:
        raise
    except KeyFileError as error:
        raise SealedKeyError(f"{path} is no sealed key") from error


class Vault:
    """The sealed values of one node.

    Args:
        folder: its own; made if absent.
        sealed_key: of ``load_key``.
        chain: of the network.

    Raises:
        SealedKeyError, ForeignDataError: the values are under another key, or of another network.
        StorageFailedError: the disk, or the database.
    """

    def __init__(
        self, folder: Path, sealed_key: bytes, chain: bytes, disk: Disk = SYSTEM_DISK
    ) -> None:
        self._disk = disk
        self._turn = trio.Lock()
        self._open = True
        try:
            disk.make_folder(folder / "values")
            self._slots = Slots(folder / "keys", sealed_key, disk)
            self._environment = lmdb.open(
                str(folder / "values"), map_size=MAP_BYTES, max_dbs=4, mode=FOLDER_MODE
            )
            self._values = self._environment.open_db(b"values")
            self._homes = self._environment.open_db(b"homes")
            self._waiting = self._environment.open_db(b"waiting")
            self._meta = self._environment.open_db(b"meta")
        except (OSError, lmdb.Error) as error:
            raise StorageFailedError(
                f"cannot open the sealed values in {folder}: {error}"
            ) from error
        try:
            self._check_mark(sealed_key, chain)
            disk.sync_folder(folder / "values")  # LMDB syncs its files, not their names
        except OSError as error:
            self.close()
            raise StorageFailedError(f"cannot sync {folder}: {error}") from error
        except BaseException:
            self.close()
            raise
        self.waiting: dict[bytes, Waiting] = dict(self._all_waiting())
        """Values that are not in a record yet, by commitment."""

    def _check_mark(self, sealed_key: bytes, chain: bytes) -> None:
        with self._environment.begin() as txn:
            mark = txn.get(_MARK, db=self._meta)
        if mark is None:
            nonce = self._disk.random(NONCE_BYTES)
            box = nacl.bindings.crypto_secretbox(_MARK_TEXT + chain, nonce, sealed_key)
            with self._environment.begin(write=True) as txn:
                txn.put(_MARK, nonce + box, db=self._meta)
            return
        try:
            found = nacl.bindings.crypto_secretbox_open(
                mark[NONCE_BYTES:], mark[:NONCE_BYTES], sealed_key
            )
        except nacl.exceptions.CryptoError as error:
            raise SealedKeyError("the sealed values here are under another sealed key") from error
        if found != _MARK_TEXT + chain:
            raise ForeignDataError("the sealed values belong to another network")

    def _all_waiting(self) -> Iterator[tuple[bytes, Waiting]]:
        with self._environment.begin() as txn, txn.cursor(self._waiting) as cursor:
            for commitment, value in cursor:
                yield commitment, Waiting(*codec.parse(value, "waiting"))

    # --- reading ------------------------------------------------------------------------------

    def get(self, commitment: bytes) -> Held | Destroyed | None:
        """Return a value that is or was here; None if it never was, or lapsed. Cost: 20 µs."""
        with self._environment.begin() as txn:
            return self._read(txn.get(commitment, db=self._values), commitment)

    def page(self, after: bytes) -> list[tuple[bytes, Homes]]:
        """Return up to PAGE_MAX values after a commitment, ascending, with the fields they were in.

        Empty at the end. Nothing is decrypted.
        """
        out: list[tuple[bytes, Homes]] = []
        with self._environment.begin() as txn, txn.cursor(self._values) as cursor:
            found = cursor.set_range(after) if after else cursor.first()
            while found and len(out) < PAGE_MAX:
                commitment = cursor.key()
                row = codec.parse(cursor.value(), "sealed row")
                if commitment != after and row[0] != ERASED:
                    out.append((commitment, _homes(row[5])))
                found = cursor.next()
        return out

    def _read(self, row: bytes | None, commitment: bytes) -> Held | Destroyed | None:
        if row is None:
            return None
        value = codec.parse(row, "sealed row")
        if value[0] == ERASED:
            return Destroyed(value[1])
        state, slot, audience, nonce, box, homes = value
        key = self._slots.key(slot, commitment)
        if key is None:
            return None  # a crash came between the wiping of its key and its row
        opening = Opening(*codec.parse(_unboxed(box, nonce, key), "opening"))
        return Held(opening, state, tuple(audience), _homes(homes))

    # --- writing ------------------------------------------------------------------------------

    async def deliver(self, values: Sequence[Delivered]) -> None:
        """Return once values are on disk. Those that are here already may wait longer.

        Raises:
            StorageFailedError: they are not, and must not be acknowledged.
        """
        await self._write(lambda txn: self._deliver(txn, values))

    async def adopt(self, opening: Opening, kept: Kept) -> None:
        """Return once a value that another node of the audience gave is on disk."""
        await self._write(lambda txn: self._adopt(txn, opening, kept))

    async def settle(
        self, changes: Sequence[Change], time_ms: int, seen: Callable[[int], bool]
    ) -> None:
        """Take over what certified blocks did, the last of them at chain time ``time_ms``.

        The same may be said again. What waits no longer than that time lapses. But where this node
        has not seen all blocks since it was delivered, as after a snapshot, it may be in a record:
        then it is kept.

        Args:
            seen: whether this node has the block after a height, and so all since.
        """
        over = [(c, each) for c, each in self.waiting.items() if each.until_ms < time_ms]
        unsure: list[Change] = [Kept(c, (), ()) for c, each in over if not seen(each.height)]
        if changes or over:
            changes = [*changes, *unsure]
            await self._write(lambda txn: self._settle(txn, changes, time_ms))

    async def _write(self, work: Callable[[Any], None]) -> None:
        with trio.CancelScope(shield=True):
            async with self._turn:
                while not await trio.to_thread.run_sync(self._commit, work):
                    self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def _commit(self, work: Callable[[Any], None]) -> bool:
        try:
            with self._environment.begin(write=True) as txn:
                work(txn)
                self._slots.sync()
            self.waiting = dict(self._all_waiting())
        except lmdb.MapFullError:
            return False
        except (OSError, lmdb.Error) as error:
            raise StorageFailedError(f"the sealed values: {error}") from error
        return True

    def _deliver(self, txn: Any, values: Sequence[Delivered]) -> None:
        for each in values:
            commitment = each.opening.commitment
            row = txn.get(commitment, db=self._values)
            found = self._read(row, commitment)
            if isinstance(found, Destroyed) or (found is not None and found.state == KEPT):
                continue
            size = len(row) if row and found else self._put(txn, each.opening, WAITING, (), ())
            before = txn.get(commitment, db=self._waiting)
            known = None if before is None else Waiting(*codec.parse(before, "waiting"))
            until_ms = max(each.until_ms, 0 if known is None else known.until_ms)
            on_chain = known is not None and known.on_chain
            height = each.height if known is None else min(each.height, known.height)
            waiting = Waiting(until_ms, on_chain, size, each.author, height)
            self._put_waiting(txn, commitment, waiting)

    def _adopt(self, txn: Any, opening: Opening, kept: Kept) -> None:
        if txn.get(kept.commitment, db=self._values) is None:
            self._put(txn, opening, KEPT, kept.audience, kept.homes)

    def _put(
        self,
        txn: Any,
        opening: Opening,
        state: int,
        audience: Sequence[str],
        homes: Sequence[tuple[Place, int]],
    ) -> int:
        commitment = opening.commitment
        key, nonce = self._disk.random(KEY_BYTES), self._disk.random(NONCE_BYTES)
        box = nacl.bindings.crypto_secretbox(codec.encode(opening.to_value()), nonce, key)
        slot = self._slots.put(commitment, key)
        self._put_row(txn, commitment, [state, slot, list(audience), nonce, box, []], homes)
        return len(box)

    def _put_row(
        self, txn: Any, commitment: bytes, row: list[Value], homes: Sequence[tuple[Place, int]]
    ) -> None:
        known: list[Value] = row[5]
        for place, version in homes:
            if [list(place), version] not in known:
                known.append([list(place), version])
            txn.put(_home(place, version) + commitment, b"", db=self._homes)
        txn.put(commitment, codec.encode(row), db=self._values)

    def _put_waiting(self, txn: Any, commitment: bytes, waiting: Waiting) -> None:
        row: list[Value] = [waiting.until_ms, waiting.on_chain, waiting.size_bytes]
        row += [waiting.author, waiting.height]
        txn.put(commitment, codec.encode(row), db=self._waiting)

    def _settle(self, txn: Any, changes: Sequence[Change], time_ms: int) -> None:
        for change in changes:
            match change:
                case Proposed(commitment):
                    row = txn.get(commitment, db=self._waiting)
                    if row is not None:
                        waiting = Waiting(*codec.parse(row, "waiting"))
                        self._put_waiting(txn, commitment, replace(waiting, on_chain=True))
                case Kept(commitment, audience, homes):
                    found = txn.get(commitment, db=self._values)
                    row = None if found is None else codec.parse(found, "sealed row")
                    if row is not None and row[0] != ERASED:
                        row[0], row[2] = KEPT, list(audience)
                        self._put_row(txn, commitment, row, homes)
                        txn.delete(commitment, db=self._waiting)
                case Erase():
                    self._erase(txn, change)
        with txn.cursor(self._waiting) as cursor:
            lapsed = [c for c, row in cursor if codec.parse(row, "waiting")[0] < time_ms]
        for commitment in lapsed:
            self._remove(txn, commitment)
            txn.delete(commitment, db=self._values)

    def _erase(self, txn: Any, erase: Erase) -> None:
        gone: dict[bytes, None] = {}
        if erase.commitment is not None:
            gone[erase.commitment] = None
        low, high = _home(erase.place, 0), _home(erase.place, erase.version)
        with txn.cursor(self._homes) as cursor:
            found = cursor.set_range(low)
            while found and cursor.key()[: len(high)] <= high:
                gone[cursor.key()[len(high) :]] = None
                found = cursor.next()
        for commitment in gone:
            row = txn.get(commitment, db=self._values)
            if row is None or codec.parse(row, "sealed row")[0] != ERASED:
                self._remove(txn, commitment)
                txn.put(commitment, codec.encode([ERASED, erase.txid]), db=self._values)

    def _remove(self, txn: Any, commitment: bytes) -> None:
        """Wipe the key of a value, and all that is said of it."""
        row = txn.get(commitment, db=self._values)
        txn.delete(commitment, db=self._waiting)
        if row is None:
            return
        _, slot, _, _, _, homes = codec.parse(row, "sealed row")
        self._slots.wipe(slot, commitment)
        for place, version in homes:
            txn.delete(_home(place, version) + commitment, db=self._homes)

    def close(self) -> None:
        """Release the files, once. No write may be under way."""
        if self._open:
            self._open = False
            self._environment.close()
            self._slots.close()


def _homes(rows: Sequence[Value]) -> Homes:
    return tuple((tuple(place), version) for place, version in rows)


def _home(place: Sequence[Value], version: int) -> bytes:
    return _H_HOME(codec.encode(list(place))) + version.to_bytes(8, "big")


def _unboxed(box: bytes, nonce: bytes, key: bytes) -> bytes:
    try:
        return bytes(nacl.bindings.crypto_secretbox_open(box, nonce, key))
    except nacl.exceptions.CryptoError as error:
        raise StorageFailedError("a sealed value cannot be decrypted: it was changed") from error
