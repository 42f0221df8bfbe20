"""The links between nodes, and the framing that the client protocol shares with them.

    tls.py       certificates of node keys; mutual TLS 1.3 that trusts exactly the committee
    framing.py   length-prefixed frames in and out, with limits and deadlines
    wire.py      what a payload on a link is: its kinds, `hello`, refusals
    outbound.py  the bounded queues of one link, by class
    link.py      one authenticated connection: introduction, then traffic
    listener.py  incoming connections before they are known, bounded
    peers.py     one link a pair: who dials, backoff, events to the runtime
    guests.py    nodes without a vote that are let in, and the observers' door
    pace.py      how fast observers' links may send together
    stats.py     plain counters that telemetry reads
    errors.py    what can go wrong, in the project's one tree

The protocol is specified in ``docs/protocol/peer-link.md``.
Not here: what consensus messages, batches and sync requests mean (their bytes are opaque).
"""
