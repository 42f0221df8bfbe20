"""What starting takes: a command loads its own modules, the package what is asked of it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import comity
from comity.cli import app


def loaded_by(script: str) -> set[str]:
    """Return the modules that a fresh interpreter has after ``script``."""
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport sys\nprint('\\n', *sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", app._MODULES)
def test_a_module_has_the_commands_that_it_is_loaded_for(module: str) -> None:
    names = [
        each.__name__.rstrip("_") for each, _ in import_module(f"comity.cli.{module}").COMMANDS
    ]
    assert sorted(names) == sorted(app._MODULES[module].split())


def test_making_a_key_loads_no_client_and_a_client_no_audit() -> None:
    key = loaded_by("from comity.cli.app import run\nrun(['keys', 'new', '--help'])")
    assert {"comity.keys", "comity.cli.keys"} <= key
    assert not {"comity.client", "trio", "cryptography.x509", "node"} & key
    get = loaded_by("from comity.cli.app import run\nrun(['get', '--help'])")
    assert "comity.client" in get
    assert not {"comity.auditing", "comity.cli.audit", "comity.feeding", "segno", "node"} & get


@pytest.mark.parametrize("name", comity.__all__)
def test_a_public_name_is_what_its_module_has(name: str) -> None:
    assert getattr(comity, name).__name__ == name
    assert name in dir(comity)


def test_a_name_that_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="module 'comity' has no attribute 'Clientt'"):
        _ = comity.Clientt  # type: ignore[attr-defined]


def test_the_package_loads_nothing_before_it_is_asked() -> None:
    assert not {m for m in loaded_by("import comity") if m.startswith(("comity.", "consensus"))}
