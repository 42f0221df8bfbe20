"""Evidence for third parties: files that prove what happened to somebody who trusts nobody.

    trust       committees from genesis on, their certificates, every statement below
    bundle      the file: a decision with everything that it was judged on
    witness     the leaves that a decision was judged on, shown as far as it read them
    replay      one decision judged again: on a node's rows to find its witness, or on a witness
    making      a bundle from what a node keeps
    verify      what a bundle proves, from the genesis hash alone
    disclosure_file  fields that were opened to somebody, with the act that opened them
    disclosure  what such a file proves

Everything here is pure: no node, no socket, no file. Nothing outside ``consensus`` is imported.
"""
