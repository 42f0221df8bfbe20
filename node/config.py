"""One TOML file per node, read strictly: unknown keys are refused with a suggestion.

What all nodes must agree on is in the genesis file, not here. Relative paths are relative to the
configuration file. ``COMITY_<SECTION>_<KEY>`` in the environment overrides a value.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from consensus.errors import ComityError


class ConfigError(ComityError):
    """The configuration cannot be used. The message names file and key."""

    code = "BAD_CONFIG"
    advice = "mend the file and run `comity node check` again"


class NodeSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[node]``: who this node is and where its files are."""

    agency: str
    genesis: str
    data: str = "data"
    validator_key: str = "keys/validator.key"
    node_key: str = "keys/node.key"


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


class TuningSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[tuning]``: for benchmarks and unusual links; the defaults serve."""

    verifier_processes: int = 1
    flush_blocks: int = 8
    timeout_base_ms: int = 1000
    timeout_max_ms: int = 4000
    heartbeat_ms: int = 3000


class LogSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[log]``: ``format`` is auto (JSON when not a terminal), json or text."""

    level: str = "info"
    format: str = "auto"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. ``peers`` overrides the ``host:port`` of other agencies' nodes by name."""

    node: NodeSection
    listen: ListenSection = ListenSection()
    limits: LimitsSection = LimitsSection()
    tuning: TuningSection = TuningSection()
    log: LogSection = LogSection()
    peers: dict[str, str] = {}
    folder: str = "."
    """Set by ``load``: the folder of the file."""

    def path(self, relative: str) -> Path:
        """Return ``relative`` as seen from the configuration file."""
        return Path(self.folder, relative)


_SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "node": NodeSection,
    "listen": ListenSection,
    "limits": LimitsSection,
    "tuning": TuningSection,
    "log": LogSection,
}
_LEVELS: Final = ("debug", "info", "warning", "error")
_FORMATS: Final = ("auto", "json", "text")


def load(path: Path, environment: Mapping[str, str]) -> Config:
    """Return the configuration in ``path`` with overrides from ``environment``.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a wrong type or a value out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {path}: {reason}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    _refuse_unknown(tree, path, text)
    _override(tree, environment)
    tree["folder"] = str(path.resolve().parent)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}") from error
    _check_ranges(config, path)
    return config


def split_address(address: str, what: str) -> tuple[str, int]:
    """Return ``(host, port)`` of ``host:port``.

    Raises:
        ConfigError: no port, or one outside 0..65535.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{what} = {address!r} is not host:port")
    return host.strip("[]"), int(port)


def _refuse_unknown(tree: dict[str, Any], path: Path, text: str) -> None:
    for section, rows in tree.items():
        known = (*_SECTIONS, "peers")
        if section not in known:
            raise ConfigError(_unknown(path, text, section, known))
        if section == "peers":
            continue
        if not isinstance(rows, dict):
            raise ConfigError(f"{path}: {section} is a section: write [{section}]")
        fields = _SECTIONS[section].__struct_fields__
        for key in rows:
            if key not in fields:
                raise ConfigError(_unknown(path, text, key, fields, f"[{section}] "))


def _unknown(path: Path, text: str, key: str, known: tuple[str, ...], where: str = "") -> str:
    lines = (
        n for n, row in enumerate(text.splitlines(), 1) if row.strip().strip("[").startswith(key)
    )
    line = next(lines, 0)
    close = difflib.get_close_matches(key, known, 1)
    advice = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
    return f"{path}:{line}: unknown {where}key {key!r}{advice}"


def _override(tree: dict[str, Any], environment: Mapping[str, str]) -> None:
    for section, kind in _SECTIONS.items():
        for field in msgspec.structs.fields(kind):
            text = environment.get(f"COMITY_{section}_{field.name}".upper())
            if text is None:
                continue
            if field.type is int:
                try:
                    value: object = int(text)
                except ValueError as error:
                    name = f"COMITY_{section}_{field.name}".upper()
                    raise ConfigError(f"{name} = {text!r} is not a whole number") from error
            else:
                value = text
            tree.setdefault(section, {})[field.name] = value


def _check_ranges(config: Config, path: Path) -> None:
    for section in (config.limits, config.tuning):
        for field in section.__struct_fields__:
            if getattr(section, field) < 1:
                raise ConfigError(f"{path}: {field} must be at least 1")
    if config.tuning.verifier_processes > 64:
        raise ConfigError(f"{path}: verifier_processes is at most 64")
    if config.tuning.timeout_max_ms < config.tuning.timeout_base_ms:
        raise ConfigError(f"{path}: timeout_max_ms is below timeout_base_ms")
    if config.log.level not in _LEVELS:
        raise ConfigError(f"{path}: log level is one of {', '.join(_LEVELS)}")
    if config.log.format not in _FORMATS:
        raise ConfigError(f"{path}: log format is one of {', '.join(_FORMATS)}")
    for name, address in (("peers", config.listen.peers), ("clients", config.listen.clients)):
        if address:
            split_address(address, f"{path}: listen.{name}")
    split_address(config.listen.telemetry, f"{path}: listen.telemetry")
    for name, address in config.peers.items():
        split_address(address, f"{path}: peers.{name}")
