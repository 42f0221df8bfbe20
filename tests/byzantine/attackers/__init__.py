"""Validators of the simulator that lie in one way, one file each.

attacker    what they have in common; stage: the simulation around them, and what the honest owe
table       all of them, and what must be seen when one is there

Inside each runs an honest node; what leaves it is changed, left out, or joined by forgeries. Up to
f of them lie at once, and go on lying after the network has healed.
"""
