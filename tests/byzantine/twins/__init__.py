"""Twins (arXiv 2004.10617): validators whose key runs at two sites, both with honest code.

field      the sites and the links between them: no disk, no delay, rounds in lock-step
scenario   who leads a round and who hears whom in it; symmetry, enumeration, sampling
judge      the promises, by arithmetic of its own
campaign   many scenarios, one after the other; ``scripts/twins``

A twin needs no code of its own: two sites of one key contradict each other as soon as they hear
different things. Whatever a Byzantine validator can do by showing different faces is among it.
"""
