"""Snapshots at a node: made from its store, served to peers, and a store begun from one.

``source`` reads pieces from one LMDB transaction; ``export`` writes them to a file. ``filling``
builds a store from checked chunks, ``begin`` puts it in place of what a node had, ``checking``
checks chunks in worker processes. ``wire`` says what nodes tell each other, ``serving`` answers,
``joining`` asks. Not here: the format and its checks (``consensus.snapshot``).
"""
