"""Whoever lies, and what must hold all the same.

twins/      the real ordering core, one key run at two sites, recipients split round by round
attackers/  one file each: a validator of the simulator that lies in one way
mutants/    protocols and executors with one rule broken each; every one must be found

How to run each, and what was run: docs/byzantine.md. What is judged here is judged from outside,
with arithmetic of its own: no oracle asks the code under test.
"""
