"""The signer: a process of its own, with a user of its own, that holds a validator key.

Inside: its protocol (``wire``), its configuration (``config``), where the key lies (``stores``, and
``token`` for PKCS#11), its socket (``service``) and what the commands call (``main``).

Not here: the rules by which nothing is signed twice, which a node's own signer shares
(``node.signer``), and the node's side of the socket (``node.remote_signer``).
"""
