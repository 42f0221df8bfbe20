"""Keeps a node's secrets in its own memory, and looks who else may reach its files.

- No core file: it would hold the keys (``RLIMIT_CORE`` 0, inherited by the workers).
- Not dumpable: no other process of the same user may attach a debugger, read the memory, or read
  the environment the process was started with (``prctl(2)``, ``PR_SET_DUMPABLE``; Linux).
- Passphrases and key files that the environment names for the command line are none of a node's:
  they are dropped, so that no process of its own inherits them.

Not here: key files (``keyfiles``).
"""

from __future__ import annotations

import ctypes
import os
import resource
import stat
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from node.errors import DataAccessError

PR_SET_DUMPABLE: Final = 4
"""Of ``linux/prctl.h``."""
SECRET_VARIABLES: Final = ("COMITY_KEY_PASSPHRASE", "COMITY_KEY_PASSPHRASE_FILE", "COMITY_KEY_FILE")
"""What a person's own commands take from the environment."""


def protect(environment: MutableMapping[str, str]) -> None:
    """Have this process leave no core file and show its memory to nobody; before keys are read.

    Args:
        environment: of the process; what names a person's key goes.
    """
    for name in SECRET_VARIABLES:
        environment.pop(name, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def check_folder(folder: Path) -> str | None:
    """Look who may reach a node's data; return what to warn of, None if that is nobody.

    Raises:
        DataAccessError: others may put files of theirs in its place, or it is another user's.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        return None  # it will be made, for this user alone
    except OSError as error:
        raise DataAccessError(f"cannot look at {folder}: {error.strerror}") from error
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISDIR(status.st_mode):
        raise DataAccessError(f"{folder} is not a folder", hint="name another under [node] data")
    if status.st_uid not in (os.geteuid(), 0):
        raise DataAccessError(
            f"the data folder {folder} is of user {status.st_uid}, not this one",
            hint="run it as the node's user (`sudo -u comity …`); if that is this one, chown it",
        )
    if mode & stat.S_IWOTH:
        raise DataAccessError(f"anybody may write to the data folder {folder} (mode {mode:04o})")
    if mode & 0o077:
        return f"the data folder {folder} has mode {mode:04o}; others can look at what is in it"
    return None
