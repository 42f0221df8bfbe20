"""What a stopped node has on disk, and what a start would do: read without changing a byte.

``segments`` the log, beyond damage too · ``promises`` safety record and signer's marks · ``stored``
store and sealed values, in a process of its own · ``forecast`` what a start would do · ``main`` all
of it together.

Not here: whether the store is right (``node.backup.verifying``), and mending anything.
"""
