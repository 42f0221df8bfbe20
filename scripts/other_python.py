"""Makes ``.venv-other`` with another supported Python, and what ``consensus/`` needs to run in it.

The executor must come to the same bytes under every supported version; the tests run it under two
where two are installed. Prints the interpreter's path, or why there is none and exits with 3.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
VERSIONS: Final = ((3, 14), (3, 13), (3, 12), (3, 11))
"""Supported versions, newest first."""
NEEDED: Final = ("blake3", "cbor2", "cffi", "msgspec", "pycparser", "pynacl")
"""What ``consensus/`` imports, with what that needs."""
NONE_FOUND: Final = 3


def main() -> None:
    """Make the environment unless it is there, and print its interpreter."""
    folder = ROOT / ".venv-other"
    python = folder / "bin/python"
    if not (folder / ".installed").exists():
        found = next(_others(), None)
        if found is None:
            print("no other supported Python is installed here", file=sys.stderr)
            sys.exit(NONE_FOUND)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([found, "-m", "venv", str(folder)], check=True)
        wanted = folder / "requirements.lock"
        wanted.write_text(_needed((ROOT / "requirements.lock").read_text(encoding="utf-8")))
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(wanted)], check=True)
        (folder / ".installed").touch()
    print(python)


def _others() -> Iterator[str]:
    """Yield interpreters of other supported versions that can make an environment."""
    for major, minor in VERSIONS:
        if sys.version_info[:2] == (major, minor):
            continue
        name = f"python{major}.{minor}"
        known = sorted((_pyenv() / "versions").glob(f"{major}.{minor}.*/bin/{name}"))
        for candidate in (f"/usr/bin/{name}", shutil.which(name), *map(str, reversed(known))):
            if candidate is not None and _works(candidate):
                yield candidate


def _pyenv() -> Path:
    return Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))


def _works(python: str) -> bool:
    check = [python, "-c", "import ensurepip, venv"]
    try:
        return subprocess.run(check, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _needed(lock: str) -> str:
    """Return the part of the lock that ``consensus/`` needs, with its hashes."""
    blocks = re.split(r"\n(?=[a-z0-9])", lock)
    kept = [block for block in blocks if re.split(r"[=\[ ]", block)[0].lower() in NEEDED]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    main()
