"""The deterministic executor: permissioned transactions under rule sets that are data.

    what travels      transaction, private; group, batch
    the rules         rules/ (text and bytes to a rule book), expr/ (conditions), model, types,
                      schedule, calendar
    a block           executor: transactions in their order; bench: what a block knows; judged,
                      decision: what is said of them
    a call            calls: its checks; environment, expects; effects, amounts: what it does
    power             authority, delegation, persons, resting: who acts; policies: who consents;
                      emergency; floor, governing, versions: what no rule set can lower
    later and back    proposals, proposing: what waits; terms, evidence: what is taken back
    the kernel's acts kernel/
    the state         layout, view: what is read and written; records, accounts, indexes, holds,
                      sequence, attached; ledger, genesis_state
    who sees it       readers, showing, quiet: what is shown to whom; dry: asking before acting

Nothing here knows what a benefit is.
"""
