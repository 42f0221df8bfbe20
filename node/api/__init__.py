"""The client protocol's server: what an agency's own programs talk to.

    backend.py     what the server asks of the node that runs it, and what it is told
    access.py      who may read and submit what
    limits.py      what one address, one key and one connection may cost
    reading.py     requests that read: from the backend's data to results
    connection.py  one client: reading, answering, following
    server.py      listening, admission, and the doors the runtime knocks on

Not here: messages and frames (``consensus.protocol``, ``node.network.framing``), the pool and
everything behind it (the runtime implements ``backend.ApiBackend``).
"""
