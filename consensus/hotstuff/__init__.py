"""Ordering: Jolteon with votes to all and a commit vote that signs the executed result.

``types`` what is agreed on and said; ``wire`` its bytes; ``events`` what the replica is told and
asks for; ``certificates`` verification; ``safety`` the only place that may allow a signature;
``votes`` tallies; ``blocktree`` the undelivered blocks; ``execution`` from ordered to final;
``pacemaker``, ``payload`` and ``rounds`` proposing, voting, giving up; ``fetching`` and ``answers``
for those behind; ``outbox`` the order of effects; ``replica`` the state machine that joins them.

Not here: sockets, disks, clocks, execution. ``node.runtime`` obeys the effects in their order.
"""
