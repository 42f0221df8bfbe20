"""Ordering: Jolteon with votes to all and a commit vote that signs the executed result.

``types`` the messages, events and effects; ``certificates`` their verification; ``safety`` the only
place that may allow a signature; ``votes`` tallies; ``pacemaker`` rounds and timers; ``blocktree``
the uncertified blocks; ``replica`` the state machine that joins them.

Not here: sockets, disks, clocks, execution. ``node.runtime`` obeys the effects in their order.
"""
