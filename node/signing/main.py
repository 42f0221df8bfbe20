"""What ``comity signer`` calls: run, check, and begin a key's mark."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio
from structlog.typing import FilteringBoundLogger

from consensus import genesis, signing
from consensus.errors import ComityError, DecodeError
from consensus.genesis import Genesis
from node import hardening
from node.config import ConfigError
from node.errors import DataAccessError, PromisesLostError, StorageFailedError
from node.holders import holder_words, is_held
from node.keylock import KeyPlace
from node.keyring import Keyring, asking
from node.signer import KeyStore, Signer
from node.signing.config import SignerConfig, load
from node.signing.service import Service
from node.signing.stores import FileStore
from node.signing.token import TokenStore
from node.storage.marks import LOCK_SUFFIX, NEW_SUFFIX, SlotFile, peek
from node.telemetry import logs
from node.telemetry.notify import Notifier

TRIES: Final = 5
"""Signatures that a check makes."""
SOCKET_BYTES_MAX: Final = 107
"""Of a path, for a Unix socket (unix(7))."""
MARK_HINT: Final = "`comity signer init` begins the mark of a key, once in its life"


class OpenStore(KeyStore, Protocol):
    """A key store that is open."""

    def bind(self, mark: Path) -> None:
        """Remember that this is the key's mark, from now on."""
        ...

    def check(self, mark: Path) -> None:
        """Refuse another mark than the one it remembers, if it does. Raises ForeignDataError."""
        ...

    def close(self) -> None:
        """Let go of the key."""
        ...


@dataclass(frozen=True, slots=True)
class Begun:
    """What ``init`` has made."""

    mark: Path
    public: bytes
    took_over: bool
    """Whether the mark goes on from a node's own."""


def run(path: Path) -> None:
    """Run the signer of a configuration file until SIGTERM or SIGINT.

    Raises:
        ComityError: it cannot start, or its disk has failed; the message says what to mend.
    """
    hardening.protect(os.environ)
    config = load(path, os.environ)
    log = logs.configure(config.log.level, config.log.format, "signer")
    chain, _ = _network(config)
    _check_mark_folder(config)
    key = open_key(config, os.environ)
    try:
        mark = open_mark(config, key, chain, waits=True)
        try:
            place = KeyPlace(key.public)
            if place.taken_by:
                log.warning("the key's place on this machine is taken", by=place.taken_by)
            try:
                service = Service(key, mark, chain, config.client_uid, log)
                _run(service, config, key, log)
            finally:
                place.close()
        finally:
            mark.close()
    finally:
        key.close()


def _run(service: Service, config: SignerConfig, key: KeyStore, log: FilteringBoundLogger) -> None:
    notifier = Notifier(os.environ)

    def started() -> None:
        log.info("started", socket=config.signer.socket, key=key.public.hex())
        notifier.started(service.summary)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.beat)
            nursery.start_soon(service.run, config.path(config.signer.socket), started)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
                async for number in received:
                    log.info("signal", name=signal.Signals(number).name)
                    notifier.stopping()
                    nursery.cancel_scope.cancel()

    try:
        trio.run(main)
    except BaseExceptionGroup as error:
        raise _first(error) from error


def _first(error: BaseException) -> BaseException:
    """Return what a group of errors came from: the first of them that says something itself."""
    while isinstance(error, BaseExceptionGroup):
        known = error.subgroup(ComityError)
        error = (known or error).exceptions[0]
    return error


def check(path: Path) -> list[str]:
    """Check configuration, key, mark and socket; return what was found to be in order.

    Of a running signer, which is left in peace, this is what it would find when it starts again.

    Raises:
        ComityError: the first thing that is not.
    """
    config = load(path, os.environ)
    chain, found = _network(config)
    place = config.path(config.signer.mark)
    lock = place.with_name(place.name + LOCK_SUFFIX)
    runs = is_held(lock)
    said = []
    if runs:
        who = holder_words(lock)
        said.append(f"running: a signer{who} uses {place}; what follows is for its next start")
    said += [
        f"{path}: every key known and in range",
        f"genesis: network {found.network!r}, chain 0x{chain.hex()}",
    ]
    _check_mark_folder(config)
    key = open_key(config, os.environ, locks=not runs)
    try:
        agency = next(
            (each.agency for each in found.committee.validators if each.key == key.public), None
        )
        whose = f"of {agency} in the genesis file" if agency else "of no founding validator"
        said.append(f"key: 0x{key.public.hex()}, {whose}")
        said.append(f"key: signs in {_milliseconds(key, chain):.2f} ms")
        if runs:
            _look_at_mark(config, key, chain)
        else:
            open_mark(config, key, chain).close()
        said.append(f"mark: {place}, of this key and network")
    finally:
        key.close()
    socket = config.path(config.signer.socket)
    folder = socket.parent
    if len(os.fsencode(socket)) > SOCKET_BYTES_MAX:
        raise ConfigError(
            f"[signer] socket = {config.signer.socket!r} leads to {len(os.fsencode(socket))} "
            f"bytes, at most {SOCKET_BYTES_MAX} are possible",
            hint="name a shorter path, as under /run",
        )
    if socket.exists() and not socket.is_socket():
        raise ConfigError(
            f"{socket} is there and is no socket", hint="name another place in [signer] socket"
        )
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            f"the folder {folder} of the socket cannot be written",
            hint="under systemd RuntimeDirectory= makes it",
        )
    said.append(f"socket: {config.signer.socket}, for user {config.signer.client_user}")
    return said


def _milliseconds(key: KeyStore, chain: bytes) -> float:
    """Return how long a signature takes, the best of a few."""
    took = []
    for _ in range(TRIES):
        begin = time.perf_counter()
        signature = key.seal(b"comity signer check\0" + chain)
        took.append(time.perf_counter() - begin)
        signing.verify(key.public, b"comity signer check\0" + chain, signature)
    return min(took) * 1000


def init(path: Path, *, took_from: Path | None = None) -> Begun:
    """Begin the mark of a key: empty for a new key, or going on from a node's own.

    Args:
        path: of the signer's configuration.
        took_from: mark of the node that has signed with this key so far and is stopped for good;
            its ``data/signer.mark``.

    Raises:
        ConfigError: there is a mark already.
        ForeignDataError: the other mark is of another key or network.
        ComityError: configuration, key or disk.
    """
    config = load(path, os.environ)
    chain, _ = _network(config)
    mark = config.path(config.signer.mark)
    key = open_key(config, os.environ)
    try:
        if mark.exists():
            raise ConfigError(
                f"there is a mark at {mark} already",
                hint="a key has one mark for life; it is never begun anew",
            )
        content = Signer(key, chain).mark_bytes()
        if took_from is not None:
            content = _taken(took_from, key, chain)
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            file = SlotFile.open(mark, fresh=content)
        except StorageFailedError as error:
            mark.with_name(mark.name + NEW_SUFFIX).unlink(missing_ok=True)
            raise ConfigError(
                f"the mark cannot be begun: {error.message}",
                hint="free space there or have the folder belong to the signer's user; "
                "no mark was begun, so run it again",
            ) from error
        try:
            key.bind(mark)
        finally:
            file.close()
    finally:
        key.close()
    return Begun(mark, key.public, took_from is not None)


def _taken(path: Path, key: KeyStore, chain: bytes) -> bytes:
    if not path.is_file():
        raise ConfigError(
            f"there is no mark at {path}", hint="name signer.mark in the node's data folder"
        )
    file = SlotFile.open(path)
    try:
        Signer.read_mark(file.content, key.public, chain)
        return file.content
    finally:
        file.close()


def init_token(path: Path) -> bytes:
    """Make the validator key in the token that a configuration names; return its public half.

    Neither genesis file nor mark are needed yet: the key comes before both.

    Raises:
        ComityError: no token, a wrong PIN, or a key of that label is there already.
    """
    config = load(path, os.environ)
    if not config.token.module:
        raise ConfigError(f"{path} names no [token]", hint="`comity keys new` makes a key file")
    key = TokenStore.create(config, os.environ)
    key.close()
    return key.public


def open_key(
    config: SignerConfig, environment: MutableMapping[str, str], *, locks: bool = True
) -> OpenStore:
    """Return the key store that the configuration names; this process alone has it.

    Args:
        environment: of the process.
        locks: False to look at a key that a signer may have.

    Raises:
        ComityError: it cannot be opened, or another process has it.
    """
    if config.token.module:
        return TokenStore.open(config, environment)
    named = config.signer.passphrase_file
    keyring = Keyring(config.path(named) if named else None, environment, ask=asking())
    return FileStore(config.path(config.signer.key), keyring, locks=locks)


def open_mark(
    config: SignerConfig, key: OpenStore, chain: bytes, *, waits: bool = False
) -> SlotFile:
    """Return the key's mark, open and locked; with ``waits`` also while its disk is full.

    Raises:
        PromisesLostError: there is none.
        ForeignDataError, DamagedMarkError, InUseError, StorageFailedError: it is not usable.
    """
    path = _mark_of(config)
    file = SlotFile.open(path, waits=waits)
    try:
        Signer.read_mark(file.kept, key.public, chain)
        key.check(path)
    except BaseException:
        file.close()
        raise
    return file


def _look_at_mark(config: SignerConfig, key: OpenStore, chain: bytes) -> None:
    """Check the key's mark beside the signer that writes to it.

    Raises:
        PromisesLostError: there is none.
        ForeignDataError, DamagedMarkError, NewerFormatError, StorageFailedError: it is not usable.
    """
    path = _mark_of(config)
    try:
        Signer.read_mark(peek(path), key.public, chain)
    except OSError as error:
        raise StorageFailedError(f"cannot open {path}: {error.strerror or error}") from error
    key.check(path)


def _mark_of(config: SignerConfig) -> Path:
    path = config.path(config.signer.mark)
    if not path.exists():
        raise PromisesLostError(
            f"there is no mark at {path}: what this key has signed is not known", hint=MARK_HINT
        )
    return path


def _network(config: SignerConfig) -> tuple[bytes, Genesis]:
    path = config.path(config.signer.genesis)
    try:
        data = path.read_bytes()
        return genesis.chain_id(data), genesis.decode(data)
    except OSError as error:
        raise DecodeError(
            f"cannot read the genesis file {path}: {error.strerror}",
            hint="name the file that all agencies compared in [signer] genesis",
        ) from error
    except DecodeError as error:
        raise DecodeError(
            f"{path} cannot be used: {error.message}",
            hint="copy the genesis file again, and compare its hash with the other agencies'",
        ) from error


def _check_mark_folder(config: SignerConfig) -> None:
    """Refuse a folder of the mark that others may write to.

    Raises:
        DataAccessError: whoever may replace the mark may have the key sign twice.
    """
    folder = config.path(config.signer.mark).parent
    hardening.check_folder(folder)
    if folder.exists() and folder.stat().st_mode & 0o022:
        raise DataAccessError(f"others may write to the folder {folder} of the signer's mark")
