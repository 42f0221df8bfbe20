"""What one node keeps on disk.

``disk`` the few system calls, injectable · ``log`` the append log, one fdatasync a group ·
``writer`` the same for trio, merging concurrent requests · ``kinds`` what the log's entries are ·
``store`` certified data in LMDB · ``flush`` what one flush writes · ``marks`` the two-slot file
under the signer · ``recovery`` opens all of it after a stop or crash.

Not here: what any record means, when to flush, and keys (``node.signer``, ``node.keyfiles``).
"""
