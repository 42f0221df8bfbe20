"""Protocols and executors with one rule broken each, to know that the harness can fail.

ordering    rules of docs/consensus.md, broken in the real replica; found by Twins
scripts     scenarios made for the rules that chance seldom meets, and a leader that lies in them
simulated   what only a disk, an executor or an outbox can show; found by the simulator
ledger      checks of the executor; found by a few acts whose outcome is written down

Each says what must find it; a mutant that survives its budget fails the suite.
"""
