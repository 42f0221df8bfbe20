"""``python -m tests.network.older CONFIG``: a node of a release without the second executor."""

from __future__ import annotations

import runpy

from consensus.ledger import versions

versions.EXECUTORS = (1,)  # type: ignore[misc]  # before anything has looked at it

if __name__ == "__main__":
    runpy.run_module("node", run_name="__main__")
