"""What clients asked and were told, one line of JSON each, as it happened.

    {"n": 7, "at": NS, "client": "clerk0", "do": "submit", "txid": HEX, "call": ["pay", 3, 8, 50]}
    {"n": 7, "at": NS, "told": "decided", "height": 40, "index": 2, "code": "APPLIED", "root": HEX}
    {"n": 8, "at": NS, "client": "clerk0", "do": "read", "of": ["wallet", 3]}
    {"n": 8, "at": NS, "told": "read", "height": 41, "value": 999950}
    {"n": 9, "at": NS, "told": "unknown"}

``at`` is one monotonic clock for all clients. A line is there before its request leaves, and after
its answer is verified: who reads the file knows a superset of what really overlapped. Calls are
``pay source target amount``, ``write note expected-version``, ``amend note expected-version``; a
note's value is its version, 0 where it is absent.

Not here: which calls (``load``), and whether it all fits (``checker``).
"""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any


class Recorder:
    """Writes a history; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8", buffering=1)
        self._numbers = itertools.count(1)
        self.path = path
        self.decided = 0
        self.read = 0
        self.newest_height = 0

    def asked(self, client: str, what: dict[str, Any]) -> int:
        """Note that something is about to be asked; return its number."""
        number = next(self._numbers)
        self._write({"n": number, "at": time.monotonic_ns(), "client": client, **what})
        return number

    def told(self, number: int, what: str, **more: Any) -> None:
        """Note the answer to a number."""
        self._write({"n": number, "at": time.monotonic_ns(), "told": what, **more})
        self.decided += what == "decided"
        self.read += what == "read"
        self.newest_height = max(self.newest_height, more.get("height", 0))

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
