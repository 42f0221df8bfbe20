"""``python -m node CONFIG``: the node without the command line, as supervisors may start it."""

from __future__ import annotations

import sys
from pathlib import Path

from consensus.errors import ComityError
from node.main import run

if __name__ == "__main__":  # workers that are started anew read this module too
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.stderr.write("usage: python -m node CONFIG\n")
        sys.exit(2)
    try:
        run(Path(sys.argv[1]))
    except ComityError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        sys.exit(1)
