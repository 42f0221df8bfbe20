"""One TOML file per node, read strictly: unknown keys are refused with a suggestion.

What all nodes must agree on is in the genesis file, not here. Relative paths are relative to the
configuration file. ``COMITY_<SECTION>_<KEY>`` in the environment overrides a value.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from consensus.committee import parse_address
from consensus.errors import ComityError, KeyFileError
from consensus.ledger.rules.lines import TomlPath, locate, misfit, nearest
from consensus.ledger.rules.toml import read_text
from node.errors import DataAccessError, KeyAccessError


class ConfigError(ComityError):
    """The configuration cannot be used. The message names file, line and key."""

    code = "BAD_CONFIG"
    advice = "mend the file; `comity node check`, or `comity signer check`, tries it"


class NodeSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[node]``: who this node is and where its files are.

    ``passphrase_file`` opens key files that are sealed under a passphrase (``node.keyring``).
    Without ``votes`` it follows: for an agency whose key must not sign any more. The files of the
    next keys need not exist: they are used from the epoch on whose committee names them.
    """

    agency: str
    genesis: str
    data: str = "data"
    validator_key: str = "keys/validator.key"
    node_key: str = "keys/node.key"
    validator_key_next: str = "keys/validator-next.key"
    node_key_next: str = "keys/node-next.key"
    sealed_key: str = "keys/sealed.key"
    passphrase_file: str = ""
    votes: bool = True
    role: str = "validator"
    """``joining``: follows until a committee names its key, and then votes. ``observer``: follows,
    and has no validator key."""
    recheck_signatures: bool = False
    """Whether a node without a vote checks every client's signature of what it executes."""
    warn_days: int = 30
    """How many days ahead the log tells of a certificate that ends; 0: never."""


class SignerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[signer]``: the socket of the process that holds the validator key, in place of
    ``validator_key``, and the key's public half in hex. ``…_next``: of the next key, while keys are
    exchanged. Empty: this node signs itself."""

    socket: str = ""
    key: str = ""
    socket_next: str = ""
    key_next: str = ""


class ListenSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[listen]``: ``host:port`` of each door. Empty: the address that genesis names."""

    peers: str = ""
    clients: str = ""
    telemetry: str = "127.0.0.1:0"


class LimitsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[limits]``: what one sender may cost this node."""

    connections_per_address_max: int = 256
    requests_in_flight_max: int = 4096
    author_transactions_max: int = 8192
    author_bytes_max: int = 16 * 2**20
    pool_bytes_max: int = 128 * 2**20


class ObserversSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[observers]``: nodes without a vote that this node lets in, by their certificates.

    ``listen`` is ``host:port`` of their door; empty: there is none. Every ``*.crt`` file in
    ``folder`` is the certificate of one that is admitted, from the moment it lies there.
    """

    listen: str = ""
    folder: str = "observers"
    connections_max: int = 8
    bytes_per_second_max: int = 8 * 2**20


class TuningSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[tuning]``: for benchmarks and unusual links; the defaults serve."""

    verifier_processes: int = 1
    flush_blocks: int = 8
    timeout_base_ms: int = 1000
    timeout_max_ms: int = 4000
    heartbeat_ms: int = 3000
    snapshot_heights: int = 2000
    """More heights behind its peers, a node takes a snapshot in place of executing them."""


class RetentionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[retention]``: for how long what is not needed for proofs is kept; 0: for good."""

    private_days: int = 0


class HistorySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[history]``: what of the past this node keeps. ``keep_days`` 0: all of it."""

    keep_days: int = 0


class LogSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: ``format`` is auto (JSON when not a terminal), json or text."""

    level: str = "info"
    format: str = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    ``peers`` overrides the ``host:port`` of other agencies' nodes by name. ``follow`` names their
    doors for observers, for a node without a vote.
    """

    node: NodeSection
    signer: SignerSection = SignerSection()
    listen: ListenSection = ListenSection()
    limits: LimitsSection = LimitsSection()
    tuning: TuningSection = TuningSection()
    retention: RetentionSection = RetentionSection()
    history: HistorySection = HistorySection()
    log: LogSection = LogSection()
    observers: ObserversSection = ObserversSection()
    peers: dict[str, str] = {}
    follow: dict[str, str] = {}
    folder: str = "."
    """Set by ``load``: the folder of the file."""
    lines: dict[str, str] = {}
    """Set by ``load``: where each ``section.key`` is set, as ``node.toml:7``."""

    def at(self, section: str, key: str) -> str:
        """Return where a setting is, to begin an error with; nothing where no file was read."""
        found = self.lines.get(f"{section}.{key}")
        return f"{found}: " if found else ""

    @contextmanager
    def blaming(self, section: str, key: str) -> Iterator[None]:
        """Have an error about a file or folder begin with where the setting is that names it."""
        try:
            yield
        except (DataAccessError, KeyAccessError, KeyFileError) as error:
            said = f"{self.at(section, key)}{error.message}"
            raise type(error)(said, hint=error.hint) from error

    def path(self, relative: str) -> Path:
        """Return ``relative`` as seen from the configuration file."""
        return Path(self.folder, relative)


Whole = TypeVar("Whole", bound=msgspec.Struct)
KEEP_DAYS_MAX: Final = 36_525
_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "node": NodeSection,
    "signer": SignerSection,
    "listen": ListenSection,
    "limits": LimitsSection,
    "tuning": TuningSection,
    "retention": RetentionSection,
    "history": HistorySection,
    "log": LogSection,
    "observers": ObserversSection,
}
_ADDRESSES: Final = ("peers", "follow")
"""Sections of ``agency = "host:port"``."""
_ROLES: Final = ("validator", "joining", "observer")
OBSERVERS_MAX: Final = 64
TEXT_BYTES_MAX: Final = 2**20
"""Longest configuration file."""
VERIFIER_PROCESSES_MAX: Final = 64
PAUSE_MS_MAX: Final = 3_600_000
COUNT_MAX: Final = 10**9
BYTES_MAX: Final = 2**40
_TRUTH: Final = {"true": True, "false": False}
_LEVELS: Final = ("debug", "info", "warning", "error")
_FORMATS: Final = ("auto", "json", "text")


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration in ``path`` with overrides from ``environment``.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a wrong type or a value out of range.
    """
    tree, places = _parsed(path)
    config = _convert(tree, places, environment, Config, _SECTIONS, _ADDRESSES)
    _check_ranges(config, places)
    lines = {
        f"{s}.{key}": places.of(s, key) for s in _SECTIONS for key in _SECTIONS[s].__struct_fields__
    }
    return msgspec.structs.replace(config, lines=lines)


def read(
    path: Path,
    environment: Mapping[str, str],
    kind: type[Whole],
    sections: Mapping[str, type[msgspec.Struct]],
) -> Whole:
    """Return a configuration of another kind, read in the same way: ``kind`` with its ``sections``.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key or a wrong type.
    """
    tree, places = _parsed(path)
    return _convert(tree, places, environment, kind, sections)


def _parsed(path: Path) -> tuple[dict[str, Any], _Places]:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(TEXT_BYTES_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        hint = "name the configuration file, or the folder that it lies in"
        if isinstance(error, PermissionError):
            hint = "run it as the user whom the file belongs to, or let that user read it"
        raise ConfigError(f"cannot read {path}: {reason}", hint=hint) from error
    if len(text) > TEXT_BYTES_MAX:
        raise ConfigError(f"{path} is longer than {TEXT_BYTES_MAX} characters")
    try:
        tree = read_text(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return tree, _Places(path, text)


def _convert(
    tree: dict[str, Any],
    places: _Places,
    environment: Mapping[str, str],
    kind: type[Whole],
    sections: Mapping[str, type[msgspec.Struct]],
    tables: tuple[str, ...] = (),
) -> Whole:
    _refuse_unknown(tree, places, sections, tables)
    _override(tree, environment, places, sections)
    _refuse_control_characters(tree, places)
    try:
        return msgspec.convert({**tree, "folder": places.folder}, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_wrong_type(str(error), places)) from error


def split_address(address: str, what: str) -> tuple[str, int]:
    """Return ``(host, port)`` of ``host:port``.

    Raises:
        ConfigError: no port, or one outside 0..65535.
    """
    found = parse_address(address, port_min=0)
    if found is None:
        raise ConfigError(f"{what} = {address!r} is not host:port")
    return found


class _Places:
    """Where each value comes from: a line of the file, or a variable of the environment."""

    def __init__(self, path: Path, text: str) -> None:
        self._file = str(path)
        self.folder = str(path.resolve().parent)
        self._found: dict[TomlPath, str] = {
            where: f"{path}:{line}" for where, line in locate(text).items()
        }

    def overridden(self, where: TomlPath, variable: str) -> None:
        """Note that a value comes from a variable."""
        self._found[where] = variable

    def of(self, *where: str | int) -> str:
        """Return the place of a key, of its section if it has none, or the file."""
        return nearest(self._found, where) or self._file


def _refuse_unknown(
    tree: dict[str, Any],
    places: _Places,
    sections: Mapping[str, type[msgspec.Struct]],
    tables: tuple[str, ...],
) -> None:
    for section, rows in tree.items():
        known = (*sections, *tables)
        if section not in known:
            raise ConfigError(f"{places.of(section)}: unknown key {_near(section, known)}")
        if not isinstance(rows, dict):
            raise ConfigError(f"{places.of(section)}: {section} is a section: write [{section}]")
        if section in tables:
            continue
        fields = sections[section].__struct_fields__
        for key in rows:
            if key not in fields:
                place = places.of(section, key)
                raise ConfigError(f"{place}: unknown [{section}] key {_near(key, fields)}")


def _refuse_control_characters(tree: dict[str, Any], places: _Places) -> None:
    """Refuse what no name, path or address has: the system would choke on it, much later."""
    for section, rows in tree.items():
        for key, value in rows.items():
            if isinstance(value, str) and any(ord(each) < 32 or ord(each) == 127 for each in value):
                raise ConfigError(f"{places.of(section, key)}: {key} has a control character in it")


def _near(key: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(key, known, 1)
    advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"{key!r}; {advice}"


def _override(
    tree: dict[str, Any],
    environment: Mapping[str, str],
    places: _Places,
    sections: Mapping[str, type[msgspec.Struct]],
) -> None:
    for section, kind in sections.items():
        for field in msgspec.structs.fields(kind):
            name = f"COMITY_{section}_{field.name}".upper()
            text = environment.get(name)
            if text is None:
                continue
            value: object = text
            if field.type is int:
                try:
                    value = int(text)
                except ValueError as error:
                    raise ConfigError(f"{name} = {text!r} is not a whole number") from error
            elif field.type is bool:
                if text not in _TRUTH:
                    raise ConfigError(f"{name} = {text!r} is neither true nor false")
                value = _TRUTH[text]
            tree.setdefault(section, {})[field.name] = value
            places.overridden((section, field.name), name)


def _wrong_type(message: str, places: _Places) -> str:
    """Return what msgspec says of a value, with its place."""
    what, where = misfit(message)
    return f"{places.of(*where)}: {': '.join([*map(str, where[1:]), what])}"


def _highest(key: str) -> int:
    """Return the highest value of a limit or of what is tuned, by the unit in its name."""
    if key == "verifier_processes":
        return VERIFIER_PROCESSES_MAX
    if key.endswith("_ms"):
        return PAUSE_MS_MAX
    return BYTES_MAX if key.endswith("_bytes_max") else COUNT_MAX


def _check_ranges(config: Config, places: _Places) -> None:
    def require(condition: bool, section: str, key: str, message: str) -> None:
        if not condition:
            raise ConfigError(f"{places.of(section, key)}: {key} {message}")

    for section in ("limits", "tuning"):
        values = getattr(config, section)
        for key in values.__struct_fields__:
            require(getattr(values, key) >= 1, section, key, "must be at least 1")
            most = _highest(key)
            require(getattr(values, key) <= most, section, key, f"is at most {most}")
    tuning, log = config.tuning, config.log
    require(
        tuning.timeout_max_ms >= tuning.timeout_base_ms,
        "tuning",
        "timeout_max_ms",
        f"= {tuning.timeout_max_ms} is below timeout_base_ms = {tuning.timeout_base_ms}",
    )
    days = config.retention.private_days
    require(0 <= days <= 36_500, "retention", "private_days", "is 0 (for good) to 36500")
    days = config.history.keep_days
    require(0 <= days <= KEEP_DAYS_MAX, "history", "keep_days", f"is 0 to {KEEP_DAYS_MAX}")
    require(log.level in _LEVELS, "log", "level", f"is one of {', '.join(_LEVELS)}")
    require(log.format in _FORMATS, "log", "format", f"is one of {', '.join(_FORMATS)}")
    for key in config.listen.__struct_fields__:
        address = getattr(config.listen, key)
        if address or key == "telemetry":
            split_address(address, f"{places.of('listen', key)}: listen.{key}")
    for section in _ADDRESSES:
        for name, address in getattr(config, section).items():
            split_address(address, f"{places.of(section, name)}: {section}.{name}")
    node, observers = config.node, config.observers
    days = node.warn_days
    require(0 <= days <= KEEP_DAYS_MAX, "node", "warn_days", f"is 0 (never) to {KEEP_DAYS_MAX}")
    require(node.role in _ROLES, "node", "role", f"is one of {', '.join(_ROLES)}")
    count, rate = observers.connections_max, observers.bytes_per_second_max
    require(1 <= count <= OBSERVERS_MAX, "observers", "connections_max", f"is 1 to {OBSERVERS_MAX}")
    require(
        2**16 <= rate <= BYTES_MAX, "observers", "bytes_per_second_max", f"is 65536 to {BYTES_MAX}"
    )
    if observers.listen:
        place = places.of("observers", "listen")
        split_address(observers.listen, f"{place}: observers.listen")
