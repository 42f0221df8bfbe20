"""Checking a whole range of a network's past, by executing it again.

``stream`` is the file in which a range travels; ``heights`` checks one height by itself (form,
certificates, batches, signatures), in any order and in any process; ``replay`` takes heights in
order and executes them, and compares what comes out with what is recorded; ``money`` and
``accounting`` check sums and versions without the executor; ``differences`` says in words, leaf by
leaf, what differs.

Not here: files, processes, sockets (``comity.auditing``), evidence on one decision
(``consensus.evidence``).
"""
