"""The ``comity`` command: modules by subject, one shape of options, results and errors.

    app.py      assembles the commands; exit status and error messages
    options.py  options that many commands share       values.py   words to values and back
    show.py     tables for people, JSON for programs
    network.py  node.py  keys.py  acts.py  reads.py  rules.py  devnet.py    the commands

Exit status: 0 done, 1 refused, invalid or absent, 2 usage or bad input, 3 no node reachable.
"""

from comity.cli.app import main

__all__ = ["main"]
