"""The two forms of a definition: TOML for people, canonical CBOR for the chain.

Reading TOML gathers every fault of structure with its line. CBOR comes from strangers: it is
decoded strictly, within bounds, and accepted only in its canonical form.

Not here: the structure (``structure``), and what a definition means (``compile``).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from typing import Final

from consensus import codec
from consensus.errors import DecodeError, RulesError
from consensus.ledger.rules.definition import Definition
from consensus.ledger.rules.lines import locate
from consensus.ledger.rules.schema import Place, Report, Skip
from consensus.ledger.rules.structure import DEFINITION
from consensus.ledger.rules.toml import read_text

FORMAT: Final = 1
"""Version of the canonical form."""
DEFINITION_BYTES_MAX: Final = 2**20
TOML_CHARACTERS_MAX: Final = 2**20


def read_toml(text: str, where: str) -> tuple[Definition | None, Report]:
    """Return the definition, or None, with every fault of structure that was found."""
    report = Report(where, {})
    if len(text) > TOML_CHARACTERS_MAX:
        report.add((), f"{len(text)} characters, at most {TOML_CHARACTERS_MAX}")
        return None, report
    try:
        table = read_text(text)
        report.lines = locate(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _toml_fault(str(error))
        report.problems.append(RulesError(message, where=where, line=line))
        return None, report
    try:
        read = DEFINITION.read(table, Place(report))
    except Skip:
        return None, report
    if report.problems:
        return None, report
    return replace(read, where=where, lines=report.lines), report


def load_toml(text: str, where: str = "") -> Definition:
    """Return the definition that a TOML text says.

    Args:
        text: the rule set, as an author writes it.
        where: names the text in errors, e.g. its file name.

    Raises:
        RulesError: the first fault, with its line. Meaning is checked by ``compile_rulebook``.
    """
    definition, report = read_toml(text, where)
    if definition is None:
        raise report.problems[0].again()
    return definition


def _toml_fault(message: str) -> tuple[str, int]:
    found = re.search(r" \(at line (\d+), [^)]+\)$", message)
    if found:
        return f"not TOML: {message[: found.start()]}", int(found.group(1))
    return f"not TOML: {message}", 0


# --- canonical CBOR ---------------------------------------------------------------------------


_SHAPE: Final = codec.array(codec.integer(), DEFINITION.shape())


def encode_definition(definition: Definition) -> bytes:
    """Return the canonical form, ``[format, [domain, number, …]]``."""
    return codec.encode([FORMAT, DEFINITION.pack(definition)])


def decode_definition(data: bytes) -> Definition:
    """Return the definition that untrusted bytes encode.

    Raises:
        DecodeError: not the canonical form of a definition, too large, or of a newer format.
    """
    value = codec.decode(data, _SHAPE, bytes_max=DEFINITION_BYTES_MAX, what="rules")
    if value[0] != FORMAT:
        raise DecodeError(
            f"format {value[0]}; this software reads format {FORMAT}",
            path="rules",
            hint="install the release that made this rule set",
        )
    definition: Definition = DEFINITION.unpack(value[1])
    return definition
