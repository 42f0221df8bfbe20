"""What ``comity node run | check`` calls: one process, one node, until SIGTERM or SIGINT."""

from __future__ import annotations

import errno
import faulthandler
import gc
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus.errors import ComityError
from node import config as configs
from node import ending, hardening, openfiles
from node.config import Config, ConfigError, split_address
from node.epochs import looked_up
from node.errors import SnapshotError, StorageFailedError
from node.handing import Handed
from node.holders import holder_words
from node.identity import (
    Identity,
    check_role,
    chosen_node,
    load_identity,
    load_keys,
    place_words,
)
from node.keyring import Keyring, asking
from node.runtime import Node, clients_address, new_verifier, wall_ms
from node.sealed.vault import load_key
from node.snapshots.phase import join
from node.storage.readonly import is_in_use
from node.storage.recovery import STORE_FOLDER
from node.storage.store import LOCK_NAME
from node.telemetry import logs
from node.telemetry.notify import Notifier
from node.verifier_worker import GC_ALLOCATIONS

SWITCH_SECONDS: Final = 0.0005
"""A thread that has synced the disk waits at most this long for the interpreter; default 5 ms."""
DISK_FREE_BYTES_MIN: Final = 256 * 2**20
_ADDRESS_HINTS: Final = {
    errno.EADDRINUSE: "stop what uses the address, or name another",
    errno.EACCES: "name a port from 1024 on",
}
CLOCK_HINT: Final = "set the clock (NTP)"
JOIN_PAUSE_SECONDS: Final = 30.0
JOIN_PAUSE_SECONDS_MAX: Final = 900.0
"""After a snapshot a node goes on by blocks for so long before it takes another; longer where none
could be taken."""
STDERR: Final = 2
"""The process's own: Python's may be another while somebody listens to what a command says."""


def run(path: Path) -> None:
    """Run the node of a configuration file until it is told to stop.

    Raises:
        ComityError: it cannot start; the message says what to mend.
    """
    faulthandler.enable(STDERR)
    hardening.protect(os.environ)
    config = configs.load(path, os.environ)
    openfiles.prepare()
    keyring = Keyring.of(config, os.environ, ask=asking())
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(GC_ALLOCATIONS)
    gc.freeze()  # what was imported stays, so no later search looks at it again
    log = logs.configure(config.log.level, config.log.format, config.node.agency)
    open_to = _open_to(config)
    if open_to is not None:
        log.warning("others can look at the data", reason=open_to)
    try:
        trio.run(_run, config, log, keyring)
    except (OSError, BaseExceptionGroup) as error:
        failure = _first(error)
        if isinstance(error, BaseExceptionGroup) and error.split((ComityError, OSError))[1]:
            raise  # something of our own is wrong as well, and is not to be hidden
        if isinstance(failure, ComityError):
            raise failure from error
        if not isinstance(failure, OSError):
            raise
        raise ConfigError(
            f"the node cannot run: {_words(failure)}",
            hint="check that its addresses are free, its folders writable and its disk not full",
        ) from error


def _open_to(config: Config) -> str | None:
    """Return what to warn of about the data folder, None where nothing is."""
    with config.blaming("node", "data"):
        return hardening.check_folder(config.path(config.node.data))


def _words(failure: OSError) -> str:
    said = failure.strerror or str(failure)
    return f"{failure.filename}: {said}" if failure.filename else said


def _first(error: BaseException) -> BaseException:
    """Return the first exception inside nested groups that says something of its own."""
    found = error
    if isinstance(found, BaseExceptionGroup):
        found = found.subgroup((ComityError, OSError)) or found
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


async def _run(config: Config, log: FilteringBoundLogger, keyring: Keyring) -> None:
    """Run a node; where it is far behind, let it take a snapshot and run it again."""
    stopping = trio.Event()
    notifier = Notifier(os.environ)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_signals, stopping.set, log)
        nursery.start_soon(_stop_when, stopping, notifier.stopping)
        nursery.start_soon(notifier.beat)
        identity = load_identity(config, load_keys(config, keyring))
        if wall_ms() < identity.genesis.time_ms:
            log.warning("this machine's clock is before the genesis time", hint=CLOCK_HINT)
        verifier = new_verifier(config, identity)
        nursery.start_soon(verifier.run)  # outlives the epochs
        join_at = 0.0
        failures = 0
        handed: Handed | None = None
        while not stopping.is_set():
            with notifier.patiently():
                node = Node(
                    config,
                    log,
                    verifier=verifier,
                    may_join_at=join_at,
                    keyring=keyring,
                    handed=handed,
                    hands_over=True,
                )
            _check_addresses(config, node.identity)  # to name the one in use; binding does not
            async with trio.open_nursery() as running:
                running.start_soon(_stop_when, stopping, node.stop)
                async with trio.open_nursery() as serving:
                    await serving.start(node.run)
                    notifier.started(node.summary)
                running.cancel_scope.cancel()
            handed = node.handed
            if stopping.is_set() or not (node.far_behind or node.engine.epoch_over):
                break
            if node.engine.epoch_over:
                log.info("next epoch", epoch=node.identity.committee.epoch + 1)
                continue
            notifier.status = lambda: "joining by snapshot"
            joined = await _joined(config, node, log, stopping, failures)
            failures = 0 if joined else failures + 1
            pause = min(JOIN_PAUSE_SECONDS_MAX, JOIN_PAUSE_SECONDS * 2**failures)
            join_at = time.monotonic() + pause
        if handed is not None:  # told to stop as an epoch ended
            handed.store.close()
        nursery.cancel_scope.cancel()


async def _joined(
    config: Config, node: Node, log: FilteringBoundLogger, stopping: trio.Event, attempt: int
) -> bool:
    """Take a snapshot; return whether there is a new store.

    A disk without room for a second store does not keep the node from going on by blocks.
    """
    try:
        return await join(config, node, log, stopping, attempt)
    except (SnapshotError, StorageFailedError) as error:
        log.warning("no snapshot taken", reason=error.message)
        return False


async def _stop_when(stopping: trio.Event, stop: Callable[[], None]) -> None:
    await stopping.wait()
    stop()


async def _watch_signals(stop: Callable[[], None], log: FilteringBoundLogger) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for number in received:
            log.info("signal", name=signal.Signals(number).name)
            stop()


def check(path: Path) -> list[str]:
    """Check files, keys, ports, clock and disk; return what was found to be in order.

    Of a running node, which is left in peace, this is what it would find when it starts again.

    Raises:
        ComityError: the first thing that is not.
    """
    config = configs.load(path, os.environ)
    keyring = Keyring.of(config, os.environ, ask=asking())
    keys = load_keys(config, keyring)
    first = load_identity(config, keys)
    data = config.path(config.node.data)
    identity = first.at(looked_up(data, first.chain))
    check_role(config, identity)
    store = data / STORE_FOLDER
    runs = is_in_use(store)
    found = []
    if runs:
        who = holder_words(store / LOCK_NAME)
        found.append(f"running: a node{who} uses {data}; what follows is for its next start")
    found += [
        f"{path}: every key known and in range",
        f"genesis: network {identity.genesis.network!r}, chain 0x{identity.chain.hex()}",
    ]
    if identity.row is None:
        found.append(f"no vote: {place_words(identity)}; this node follows")
    elif identity.ended:
        found.append(f"keys: those of {identity.agency} in epoch {identity.committee.epoch}")
    else:
        found.append(f"keys: those of {identity.agency} in the genesis file")
    found += [check_signer(config, each) for each in _sockets(config)]
    if (sealed_key := config.path(config.node.sealed_key)).exists():
        with config.blaming("node", "sealed_key"):
            load_key(sealed_key, keyring)
    if keyring.opened:
        found.append(f"passphrase: opens {', '.join(each.name for each in keyring.opened)}")
    found.append(ending.words(identity, chosen_node(keys.nodes, identity), wall_ms()))
    found += _check_addresses(config, identity, runs=runs)
    found.append(_check_disk(config))
    found.append(f"files: {openfiles.prepare()} may be open at once")
    if wall_ms() < identity.genesis.time_ms:
        raise ConfigError("this machine's clock is before the genesis time", hint=CLOCK_HINT)
    found.append("clock: after the genesis time")
    return found


def _sockets(config: Config) -> list[str]:
    """Return the settings under ``[signer]`` that name a socket."""
    return [name for name in ("socket", "socket_next") if getattr(config.signer, name)]


def check_signer(config: Config, setting: str) -> str:
    """Look whether a signer listens; return what was found.

    Args:
        setting: under ``[signer]``: that of the present key or of the next one.

    Raises:
        ConfigError: nobody answers there.
    """
    path = config.path(getattr(config.signer, setting))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            raise ConfigError(
                f"{config.at('signer', setting)}[signer] {setting}: nobody answers at {path}: "
                f"{error.strerror or error}",
                hint="start the signer, or run `comity signer check` on its configuration",
            ) from error
    which = "" if setting == "socket" else " of the next key"
    return f"signer{which}: answers at {path}"


def _check_addresses(config: Config, identity: Identity, *, runs: bool = False) -> list[str]:
    """Return which addresses are free; of a node that runs, also those in use: it has them.

    Raises:
        ConfigError: the node could not listen at one.
    """
    own = identity.row
    doors = {
        "listen.clients": clients_address(config, identity),
        "listen.telemetry": split_address(config.listen.telemetry, "listen.telemetry"),
    }
    if own is not None:
        given = config.listen.peers
        peers = split_address(given, "listen.peers") if given else (own.peer_host, own.peer_port)
        doors = {"listen.peers": peers, **doors}
        if config.observers.listen:
            door = split_address(config.observers.listen, "observers.listen")
            doors["observers.listen"] = door
    found = []
    for name, (host, port) in doors.items():
        try:
            with socket.create_server((host, port)):
                found.append(f"{name}: {host}:{port} is free")
        except OSError as error:
            if runs and error.errno == errno.EADDRINUSE:
                found.append(
                    f"{name}: {host}:{port} is in use, by the running node or somebody else"
                )
                continue
            section, _, key = name.partition(".")
            hint = _ADDRESS_HINTS.get(error.errno or 0, "name an address that this machine has")
            said = f"{name}: cannot listen on {host}:{port}: {error.strerror}"
            raise ConfigError(
                f"{config.at(section, key)}{said}", hint=f"{hint} under [{section}]"
            ) from error
    return found


def _check_disk(config: Config) -> str:
    folder = config.path(config.node.data)
    existing = next(place for place in (folder, *folder.resolve().parents) if place.exists())
    open_to = _open_to(config)
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        raise ConfigError(
            f"{config.at('node', 'data')}the data folder {folder} cannot be written",
            hint="have it belong to the node's user, or name another under [node] data",
        )
    if free < DISK_FREE_BYTES_MIN:
        raise ConfigError(
            f"{folder}: only {free // 2**20} MiB are free",
            hint=f"free at least {DISK_FREE_BYTES_MIN // 2**20} MiB, or name another disk under "
            "[node] data",
        )
    who = "for this user alone" if open_to is None else open_to
    return f"data: {folder}, {free // 2**30} GiB free, {who}"
