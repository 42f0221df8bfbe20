"""Outcome codes: what a decision says, as a small int with a stable name.

The order is the order of the checks: those of the transaction first, then each call completely;
the first failure is the outcome. Every refusal has a detail, a plain value of a fixed shape, listed
here; docs/protocol/ledger.cddl is normative. ``name`` is ``[kind, id]`` of a record or kernel
object, as ``expects`` names it.

    UNKNOWN_KEY        key; no sequence number is spent by this
    SEQUENCE_SPENT     number; no further one is spent
    SEQUENCE_OLD       [number, lowest number still accepted]; none is spent
    SEQUENCE_AHEAD     [number, highest number now accepted]; none is spent
    EXPIRED            [not_after_ms, block time_ms]
    NOT_AFTER_TOO_FAR  [not_after_ms, latest accepted]
    KEY_INACTIVE       [key, "revoked" | "compromised" | "rotated" | "unknown"]
    SUSPENDED          name of the principal or agency
    UNSUPPORTED        what: "proposal" (of an act on proposals)
    RULES_MOVED        [active number, parameters moved: bool]
    UNKNOWN_ACTION     [domain, action]; from executor 2 on [domain, action, number in force or 0]
    BAD_INPUT          [input or "", reason]
    NOT_FOUND          [load or input, name | null when a part of its id is absent], and "voided"
                       where the record's making was taken back;
                       ["reservation", ["reservation", id]]
    NOT_AUTHORIZED     [link, ...]: ["role", role, why], ["where"], ["self"], ["not", path],
                       ["not_agency", path], ["debit", family], ["agency", agency], ["same_person"],
                       ["committee", agency],
                       ["key"], ["apart", role, other role that the person has],
                       ["grant", id, why], ["office", role, why]: see ``delegation``,
                       ["read", name]: of a record to be disclosed, and of what ``expects`` names
                       beyond what calls need;
                       of acts on proposals also ["not the author"], ["author"], ["not asked"],
                       and links of approvers as under NEEDS_APPROVAL
    STALE              [name, version now, [field, ...]]; no fields: as a whole, or not named
    BASIS_MOVED        [name, field]: the source; or "limit"
    HELD               [hold id, ...]
    REQUIREMENT        [code, sentence]
    NEEDS_APPROVAL     [missing, ...], all of them:
                       ["role", role, how many more, "" | "person" | "agency": how they differ,
                                [[principal, link], ...]: why those there do not fill it],
                       ["self", path of whom it takes, [[principal, link], ...]],
                       ["of", how many more, [missing, ...]], ["when", condition without a value],
                       ["agencies", how many more]: with a validator, for a charter or money,
                       ["notice", time_ms]: until then a proposal about money waits,
                       ["limit"]: the search was given up, see ``policies``;
                       a link: as under NOT_AUTHORIZED, or ["author"], ["twice"],
                       ["distinct", "person" | "agency"], ["key", "compromised"],
                       ["suspended", "principal" | "agency"]
    INSUFFICIENT       [account id, "floor" | "overflow"]
    NOT_UNIQUE         [label, ...]: ["unique", label], ["account", id], ["reservation", id],
                       [kernel kind, id]
    NOT_DELIVERED      [[call, input, agency], ...]: whose node has not said that it has the value
    LIMIT              what is full: "holds"; "approvals"; "expiries", "moves", see ``amounts``;
                       "lists"; "proposals", see ``share``; "rules", "domains"; "policies", of
                       terms; "subjects", see ``disclosures``; "principals", of a person; "reviews",
                       see ``emergency``; ["index", index, size, most the action takes]

Not here: when each applies (``executor``, ``calls``).
"""

from __future__ import annotations

from enum import IntEnum

from consensus.codec import Value


class Code(IntEnum):
    """The outcome of a transaction. Numbers and names are stable; gaps are for what comes."""

    APPLIED = 0
    PROPOSED = 1
    UNKNOWN_KEY = 2
    SEQUENCE_SPENT = 3
    SEQUENCE_OLD = 4
    SEQUENCE_AHEAD = 5
    EXPIRED = 6
    NOT_AFTER_TOO_FAR = 7
    KEY_INACTIVE = 8
    SUSPENDED = 9
    UNSUPPORTED = 10
    RULES_MOVED = 11
    UNKNOWN_ACTION = 12
    BAD_INPUT = 13
    NOT_FOUND = 14
    NOT_AUTHORIZED = 15
    STALE = 16
    BASIS_MOVED = 17
    HELD = 18
    REQUIREMENT = 19
    NEEDS_APPROVAL = 20
    INSUFFICIENT = 21
    NOT_UNIQUE = 22
    NOT_DELIVERED = 23
    LIMIT = 24
    # These never enter a block; a node answers them at its door.
    MALFORMED = 32
    WRONG_CHAIN = 33
    BAD_SIGNATURE = 34


class Refused(Exception):
    """A check failed. Never leaves the executor: it becomes a decision."""

    def __init__(self, code: Code, detail: Value) -> None:
        super().__init__(code.name)
        self.code = code
        self.detail = detail

    def again(self) -> Refused:
        """Return the same refusal, to be raised or kept by those who keep one.

        An exception that was raised holds the frames it passed through, and all that they knew.
        """
        return Refused(self.code, self.detail)
