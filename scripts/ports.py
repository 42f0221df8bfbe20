"""Ports on loopback for networks of real nodes, which several programs may found at once.

They lie below those that the system gives to outgoing connections, so that a killed node finds its
own free when it comes back. A process claims them in blocks, by listening on the first of each for
as long as it lives, and gives none out a second time while there are others: so no node listens
where another, of whatever program, is about to.
"""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

PORTS: Final = range(10_000, 20_000)
"""Where ports are looked for: below those of ``comity devnet``, which looks at the same time."""
BLOCK: Final = 200
"""Ports claimed at a time, the one that claims them among these."""


@dataclass(slots=True)
class _Claimed:
    """What this process has claimed; a forked child begins anew."""

    doors: list[socket.socket] = field(default_factory=list)
    fresh: list[int] = field(default_factory=list)
    given: list[int] = field(default_factory=list)

    def more(self) -> bool:
        """Claim another block; False if none is left."""
        for first in random.SystemRandom().sample(PORTS[::BLOCK], len(PORTS[::BLOCK])):
            try:
                door = socket.create_server(("127.0.0.1", first), backlog=1)
            except OSError:
                continue  # another's
            self.doors.append(door)
            self.fresh += filter(_is_free, range(first + 1, first + BLOCK))
            return True
        return False

    def let_go(self) -> None:
        """Claim nothing any more."""
        for door in self.doors:
            door.close()
        self.doors, self.fresh, self.given = [], [], []


_claimed: Final = _Claimed()
os.register_at_fork(after_in_child=_claimed.let_go)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, all different, for this process to use.

    Raises:
        RuntimeError: so many are not free.
    """
    while len(_claimed.fresh) < count and _claimed.more():
        pass
    every = _claimed.fresh + _claimed.given
    found = list(islice(filter(_is_free, every), count))
    if len(found) < count:
        raise RuntimeError(f"{count} free ports were not found in {PORTS}")
    _claimed.fresh = [each for each in _claimed.fresh if each not in found]
    _claimed.given = [each for each in _claimed.given if each not in found] + found
    return found


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
