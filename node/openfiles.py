"""How many files a node may have open, and how many of them its clients' connections may be.

The system bounds the open files of a process (``RLIMIT_NOFILE``), and every connection is one.
Where strangers could take them all, a new segment of the log could not be opened, and the node
would stop signing. So enough of them are set aside for the node itself.

Not here: how many connections one address or key may have (``api.limits``).
"""

from __future__ import annotations

import resource
from typing import Final

from node.api.limits import ApiLimits
from node.config import ConfigError

WANTED: Final = 16_384
"""As the systemd unit has it."""
OWN: Final = 768
"""What a node opens beside its clients' connections, at most: 64 workers with three pipes each, 63
links and 64 observers, 128 connections at each of their two doors, 64 at the door of telemetry, and
files of its own."""
CLIENTS_MIN: Final = 64


def prepare() -> int:
    """Let this process open as many files as it may and a node can use; return how many.

    Raises:
        ConfigError: they are too few for a node.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _number(soft) < WANTED:
        soft = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if _number(soft) < OWN + CLIENTS_MIN:
        raise ConfigError(
            f"this process may open {soft} files, a node needs {OWN + CLIENTS_MIN}",
            hint="raise the limit: `ulimit -n`, or LimitNOFILE= in a systemd unit",
        )
    return _number(soft)


def connections_max() -> int:
    """Return how many clients may be connected, so that the node's own files can be opened."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(CLIENTS_MIN, min(ApiLimits().connections_max, _number(soft) - OWN))


def _number(limit: int) -> int:
    return 2**31 if limit == resource.RLIM_INFINITY else limit
