"""What every agency must compute bit for bit the same.

Pure and synchronous: no clock, disk, socket, randomness, environment, logging or floating point.
Time, bytes and storage reads come in as arguments, so an auditor's laptop runs the same code.

    hotstuff/   ordering: a sans-I/O replica, ``step(event) -> effects``
    ledger/     the deterministic executor and the rule sets it obeys
    state/      the authenticated state: tree, salted lists, proofs, history

Not here: anything with an effect (``node``) and what other programs import (``comity``).
"""
