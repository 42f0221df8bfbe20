"""All that ``comity node inspect`` shows of a stopped node.

While it reads it holds the locks that a running node holds, shared with other readers: a node that
runs is refused, and none starts meanwhile. Nothing is written, not even a lock file that is absent.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from consensus import codec, genesis, keyfile
from consensus import committee as committees
from consensus.committee import Committee
from consensus.errors import DecodeError, KeyFileError
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert, SafetyRecord
from consensus.ledger.versions import EXECUTORS
from consensus.release import VERSION
from node import config as configs
from node.backup import restored
from node.config import Config
from node.errors import InUseError
from node.holders import holder_words
from node.identity import Own
from node.inspecting import forecast, promises, segments, stored
from node.inspecting.promises import CertificateReport, MarkReport, RecordReport
from node.inspecting.segments import LogReport
from node.snapshots.begin import NEW_FOLDER, OLD_FOLDER
from node.storage import marks, segment, tables
from node.storage.kinds import AtHeight, Kind
from node.storage.log import LOCK_NAME as LOG_LOCK
from node.storage.readonly import NoDataError
from node.storage.recovery import LOG_FOLDER, STORE_FOLDER
from node.storage.store import LOCK_NAME as STORE_LOCK
from node.storage.tables import BLANK

BLOCKS_MAX: Final = 65_536
"""Blocks of a log above the store that are looked at; a node stops long before."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Whose place in the committee a validator key has. ``validator`` None: no place."""

    key: bytes
    held: str
    agency: str | None
    validator: int | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """What is on disk, and what a start would do. See ``docs/backup.md``.

    ``store`` and ``sealed`` are plain values; ``committees`` those of all epochs that are known,
    none where the genesis file was not named.
    """

    folder: Path
    network: str | None
    chain: bytes
    software: Mapping[str, Any]
    start: forecast.Forecast
    store: Mapping[str, Any]
    log: LogReport
    record: RecordReport | None
    certificates: list[CertificateReport]
    marks: list[MarkReport]
    seats: list[Seat]
    committees: tuple[Committee, ...]
    sealed: Mapping[str, Any] | None
    notes: list[str] = field(default_factory=list)

    def value(self) -> dict[str, Any]:
        """Return it as plain values, bytes as they are."""
        newest = self.committees[-1] if self.committees else None
        shown = {name: each for name, each in self.store.items() if name != "ended"}
        return {
            "folder": str(self.folder),
            "network": self.network,
            "chain": self.chain or None,
            "software": dict(self.software),
            "start": asdict(self.start),
            "store": _unhexed(shown),
            "log": asdict(self.log),
            "record": None if self.record is None else asdict(self.record),
            "certificates": [asdict(each) for each in self.certificates],
            "marks": [asdict(each) for each in self.marks],
            "keys": [asdict(each) for each in self.seats],
            "committee": None
            if newest is None
            else {
                "epoch": newest.epoch,
                "quorum": newest.quorum,
                "validators": [
                    {"agency": each.agency, "key": each.key} for each in newest.validators
                ],
            },
            "sealed": self.sealed,
        }


def inspect(folder: Path, config: Config | None, genesis_data: bytes | None) -> Report:
    """Return what a stopped node's data holds.

    Args:
        folder: of the data.
        config: of the node, None where only the folder is known.
        genesis_data: the genesis file, None where it is not known.

    Raises:
        NoDataError: there is no folder.
        InUseError: a node runs on it.

    Cost: one pass over log and state, about 1 s for a GiB of log or a million leaves.
    """
    if not folder.is_dir():
        raise NoDataError(f"there is no data folder {folder}")
    with _still(folder):
        return _inspect(folder, config, genesis_data)


@contextmanager
def _still(folder: Path) -> Iterator[None]:
    """Keep nodes from starting, as long as this is open. Raises InUseError if one runs."""
    places = [folder / STORE_FOLDER / STORE_LOCK, folder / LOG_FOLDER / LOG_LOCK]
    places += [
        path.with_name(path.name + marks.LOCK_SUFFIX) for path in folder.glob(promises.MARKS)
    ]
    with ExitStack() as stack:
        for place in places:
            try:
                handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # a copy without it
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InUseError(
                    f"a node{holder_words(place)} runs on {folder}",
                    hint="stop it first, ask it with `comity node status`, or inspect a backup of "
                    "it",
                ) from error
            except OSError:
                continue  # a file system without locks, where no node runs
        yield


class _Contents:
    """What of the log counts above a store, as entries come."""

    def __init__(self, height: int) -> None:
        self._height = height
        self.blocks: dict[bytes, Block] = {}
        self.newest: CommitCert | None = None
        self.record: tuple[int, bytes] | None = None
        self.behind: tuple[int, bytes] | None = None

    def take(self, offset: int, kind: int, payload: bytes, behind: bool) -> None:
        """Take an entry."""
        try:
            self._take(offset, kind, payload, behind)
        except DecodeError:
            return  # of another format; counted all the same

    def _take(self, offset: int, kind: int, payload: bytes, behind: bool) -> None:
        if kind == Kind.SAFETY:
            if behind:
                self.behind = offset, payload
            else:
                self.record = offset, payload
        elif kind == Kind.BLOCK:
            entry = AtHeight.unpack(payload)
            if entry.height > self._height and len(self.blocks) < BLOCKS_MAX:
                self.blocks[entry.block_id] = wire.decode_block(entry.data)
        elif kind == Kind.COMMIT_CERT:
            self.certified(wire.decode_commit_cert(AtHeight.unpack(payload).data))

    def certified(self, found: CommitCert | None) -> None:
        """Take a certificate."""
        if found is None or found.statement.height <= self._height:
            return
        if self.newest is None or found.statement.height > self.newest.statement.height:
            self.newest = found


def _inspect(folder: Path, config: Config | None, genesis_data: bytes | None) -> Report:
    told = stored.ask(folder)
    store: dict[str, Any] = told["store"]
    height = store.get("height")
    contents = _Contents(BLANK if height is None else height)
    log = segments.read(folder / LOG_FOLDER, contents.take)
    found = contents.behind or contents.record  # the newest, whether a start sees it or not
    record = None if found is None else promises.record_in(found[1])
    trusted = None if contents.record is None else promises.record_in(contents.record[1])
    contents.certified(None if trusted is None else trusted.commit_cert)
    chain = genesis.chain_id(genesis_data) if genesis_data is not None else b""
    founded = None if genesis_data is None else genesis.decode(genesis_data)
    known = () if founded is None else (founded.committee, *_elected(store))
    node = None if config is None or founded is None else _node(config)
    read_marks = promises.read_marks(folder)
    shown = _reported(record, found, contents)
    logged = forecast.Logged(trusted, contents.blocks, contents.newest)
    start = forecast.forecast(
        store, log, logged, read_marks, known, node, chain, _notes(folder), _refusal(folder)
    )
    return Report(
        folder=folder,
        network=None if founded is None else founded.network,
        chain=chain or log.chain or bytes.fromhex(store.get("chain", "")),
        software={
            "version": VERSION,
            "executor": max(EXECUTORS),
            "log_format": segment.FORMAT_VERSION,
            "store_format": tables.FORMAT_VERSION,
            "mark_format": marks.FORMAT_VERSION,
        },
        start=start,
        store=store,
        log=log,
        record=shown,
        certificates=_certificates(store, record, contents),
        marks=read_marks,
        seats=_seats(config, read_marks, known),
        committees=known,
        sealed=told["sealed"],
    )


def _reported(
    record: SafetyRecord | None, found: tuple[int, bytes] | None, contents: _Contents
) -> RecordReport | None:
    if record is None or found is None:
        return None
    return promises.record(record, found[0], contents.behind is not None)


def _certificates(
    store: Mapping[str, Any], record: SafetyRecord | None, contents: _Contents
) -> list[CertificateReport]:
    """Return the last certificates: of the store, of the log above it, and of the record."""
    found = []
    if "certificate" in store:
        row = store["certificate"]
        found.append(CertificateReport(**{**row, "block": bytes.fromhex(row["block"])}))
    if contents.newest is not None:
        found.append(promises.certificate(contents.newest))
    if record is not None:
        found.append(promises.certificate(record.high_qc))
        if not isinstance(record.entry_cert, type(record.high_qc)):
            found.append(promises.certificate(record.entry_cert))
    return found


def _elected(store: Mapping[str, Any]) -> list[Committee]:
    """Return the committees after those epochs that ended, as the store has them."""
    return [
        committees.from_value(codec.parse(bytes.fromhex(each), "epoch")[1])
        for each in store.get("ended", ())
    ]


def _node(config: Config) -> forecast.Node:
    section = config.node
    held: list[bytes] = []
    unknown = ""
    if section.role != "observer" and config.signer.socket:
        held = [
            bytes.fromhex(each.removeprefix("0x"))
            for each in (config.signer.key, config.signer.key_next)
            if each
        ]
    elif section.role != "observer":
        held, unknown = _public(config, section.validator_key, section.validator_key_next)
    nodes, unknown_node = _public(config, section.node_key, section.node_key_next)
    own = Own(section.agency, tuple(held), tuple(nodes))
    remote = config.signer.socket
    return forecast.Node(own, section.votes, section.role, remote, unknown or unknown_node)


def _public(config: Config, file: str, next_file: str) -> tuple[list[bytes], str]:
    """Return the public halves in key files, and words about the first that cannot be read."""
    found: list[bytes] = []
    unknown = ""
    for name in (file, next_file):
        path = config.path(name)
        try:
            found.append(keyfile.describe(path.read_bytes()[: keyfile.FILE_BYTES_MAX + 1]).public)
        except FileNotFoundError:
            unknown = unknown or (f"there is no key file {path}" if name == file else "")
        except (OSError, KeyFileError) as error:
            unknown = unknown or f"{path}: {getattr(error, 'strerror', None) or error}"
    return found, unknown


def _seats(
    config: Config | None, found: list[MarkReport], known: tuple[Committee, ...]
) -> list[Seat]:
    """Return every validator key that the configuration or a mark names, with its place."""
    keys: dict[bytes, str] = {}
    if config is not None:
        where = f"signer at {config.signer.socket}" if config.signer.socket else "key file"
        keys = dict.fromkeys(_node(config).own.keys, where)
    for mark in found:
        if mark.key:
            keys.setdefault(mark.key, f"mark {mark.file} alone")
    return [_seat(key, where, known) for key, where in keys.items()]


def _seat(key: bytes, held: str, known: tuple[Committee, ...]) -> Seat:
    """Return the newest place that a key has had."""
    for committee in reversed(known):
        for index, row in enumerate(committee.validators):
            if row.key == key:
                return Seat(key, held, row.agency, index, committee.epoch)
    return Seat(key, held, None, None, None)


def _notes(folder: Path) -> list[str]:
    found = []
    state = folder / STORE_FOLDER
    new, old = folder / NEW_FOLDER, folder / OLD_FOLDER
    if not state.exists() and new.exists() and old.exists():
        found.append("a snapshot was about to take the store's place: a start finishes that")
    elif state.exists() and (new.exists() or old.exists()):
        found.append("what an interrupted snapshot left is removed")
    return found


def _refusal(folder: Path) -> tuple[str, str] | None:
    if (folder / restored.STAGING_FOLDER).exists():
        return "BACKUP", f"a backup is being restored into {folder}, or that was interrupted"
    return None


def _unhexed(value: Any) -> Any:
    """Return plain values with what is hex in them as bytes."""
    if isinstance(value, dict):
        return {name: _unhexed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_unhexed(each) for each in value]
    if isinstance(value, str) and len(value) == 64:
        try:
            return bytes.fromhex(value)
        except ValueError:
            return value
    return value


def of_configuration(path: Path, environment: Mapping[str, str]) -> tuple[Config, Path]:
    """Return a node's configuration and its data folder. Raises ConfigError."""
    config = configs.load(path, environment)
    return config, config.path(config.node.data)
