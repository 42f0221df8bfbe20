"""A process of a node is set up for steady work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import gc, os
from node import scheduling
scheduling.settle()
print(gc.get_threshold()[0], os.sched_getscheduler(0))
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has SCHED_BATCH")
def test_turns_are_long_and_collections_few() -> None:
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True
    )
    assert out.stdout.split() == ["50000", str(os.SCHED_BATCH)]
