"""Runs kept in a file, each with its options, its faults and a sentence on what it found.

A seed alone means another run as soon as the simulator draws something more. So a kept run has
everything that was drawn beforehand, written out; an option that is not named has its neutral
default. Only the single coins within the run (which message is lost) still come from the seed, so
that a kept run goes on to be the same kind of trouble, if not the same to the bit.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.sim.campaign import Case
from tests.sim.faults import Fault
from tests.sim.options import Options

KEPT: Final = Path(__file__).with_name("seeds.toml")


@dataclass(frozen=True)
class Kept:
    """One kept run. ``found``: a sentence on what it has shown."""

    name: str
    found: str
    case: Case

    def to_toml(self) -> str:
        """Return it as it is kept."""
        lines = ["[[run]]", f"name = {_text(self.name)}", f"found = {_text(self.found)}"]
        lines += ["[run.options]"]
        lines += [f"{name} = {_value(v)}" for name, v in self.case.options.to_table().items()]
        lines += ["[run.script]", "faults = ["]
        lines += [f"    {_value(fault.to_value())}," for fault in self.case.script]
        return "\n".join([*lines, "]", ""])


def read(path: Path = KEPT) -> dict[str, Kept]:
    """Return the runs kept in a file, by name.

    Raises:
        KeyError, TypeError, ValueError: it is not such a file.
    """
    found: dict[str, Kept] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8"))["run"]:
        script = tuple(Fault.from_value(value) for value in entry["script"]["faults"])
        case = Case(Options.from_table(entry["options"]), script)
        if entry["name"] in found:
            raise ValueError(f"two runs are named {entry['name']}")
        found[entry["name"]] = Kept(entry["name"], entry["found"], case)
    return found


def _text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return _text(value)
        case list():
            items: Iterable[object] = value
            return "[" + ", ".join(map(_value, items)) + "]"
        case _:
            return str(value)
