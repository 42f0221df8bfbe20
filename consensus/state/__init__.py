"""The authenticated state: salted lists, the 4-ary paged tree, proofs, history.

Not here: where rows are stored (``node.storage``) and what they mean and where they stand
(``consensus.ledger``).
"""
