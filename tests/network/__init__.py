"""Four real processes on loopback: what is promised of them when they are killed, stopped, fed
damaged files and wrong configurations, and talked to by hostile peers and clients.

``town`` founds the network and speaks to it, ``work`` keeps it busy and knows what must come of it,
``wire`` is the hostile side of a socket. Tests wait for conditions with a deadline, never for luck.
"""
