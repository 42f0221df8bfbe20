"""Copies of one node's data that can be gone on from, and what its files hold.

``manifest`` what a backup says of itself · ``sinks`` where one is written, and ``sources`` where
it is read from: a folder or a tar file · ``making`` of a running or a stopped node · ``restoring``
into an empty folder · ``restored`` why a restored node does not vote · ``verifying`` a store from
end to end, ``heights`` and ``rows`` its parts.

Not here: snapshots (``node.snapshots``): the state alone, for whoever begins; and looking at what a
stopped node has on disk (``node.inspecting``).
"""
