"""Running an audit: where heights come from, who checks them, and what it came to.

``sources`` gives the parts of an audit stream, from a file or another process; ``checkers`` are the
worker processes that check heights by themselves; ``running`` takes heights in order and executes
them. The judging is ``consensus.audit``'s.

Not here: the command (``comity.cli.audit``), and what reads a node's data folder (``node``).
"""
