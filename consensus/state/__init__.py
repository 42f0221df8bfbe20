"""The authenticated state: key paths, salted lists, the 4-ary paged tree, proofs, history.

Not here: where rows are stored (``node.storage``) and what they mean (``consensus.ledger``).
"""
