"""Faults for networks of real processes, and the judging of what happened.

    relay      TCP relays between the nodes: partitions, one-way cuts, slow links
    launch     a node's process with another clock, or one that lies on its links
    disk       a small file system under a node's data, to be filled up
    history    what clients asked and were told, as lines of JSON
    chain      the certified log, read again from an audit file by a reader of its own
    checker    a history held against the log: nothing lost, doubled, reordered or unread
    soak       mixed load and random faults for a long time (``scripts/soak``)

``chain`` and ``checker`` import nothing of the product: they judge it.
"""
