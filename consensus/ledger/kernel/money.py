"""Money made and unmade: the only acts that change the sum of a currency.

    issue_money    adds an amount to an account
    retire_money   takes one from an account, within its floor and beside what is reserved

Both lie under the floor: a quorum of agencies with a validator must want it, and it must have been
known for the genesis notice. So it is a stored proposal, and an approval that is given after the
notice completes it, a new one or one that is renewed; a transaction that was not stored has had
none. What takes a quorum, f + 1 agencies stop by not approving it; whoever may approve ends it by
objecting.

Not here: amounts that move (``amounts``), and what the charter asks beyond the floor.
"""

from __future__ import annotations

from consensus.codec import Value
from consensus.ledger import proposals
from consensus.ledger.accounts import Account
from consensus.ledger.codes import Code, Refused
from consensus.ledger.kernel.plan import Acting, Plan, bad
from consensus.ledger.kernel.quorum import check_quorum, floor_now
from consensus.ledger.model import AccountFamily, Action
from consensus.ledger.types import InputError, check_id


def issue_money(acting: Acting) -> Plan:
    """Add an amount to an account."""
    account, _, amount = _named(acting)

    def write() -> None:
        acting.view.move(account).credit(amount)

    return Plan(write, moved=(account, amount))


def retire_money(acting: Acting) -> Plan:
    """Take an amount from an account."""
    account, family, amount = _named(acting)

    def write() -> None:
        acting.view.move(account).debit(amount, family.floor)

    return Plan(write, moved=(account, -amount))


def _named(acting: Acting) -> tuple[Account, AccountFamily, int]:
    """Return the account and the amount that the inputs name."""
    view, amount = acting.view, acting.inputs["amount"]
    family = view.book.families.get(acting.inputs["family"])
    if family is None:
        raise Refused(Code.NOT_FOUND, ["family", None])
    view.rules_of(family.domain)
    if amount <= 0:
        raise bad("amount", "more than nothing")
    id_: list[Value] = [family.name, *acting.inputs["id"]]
    try:
        check_id(id_)
    except InputError as error:
        raise bad("id", error.reason) from error
    account = view.account(id_)
    if account is None:
        view.absent_account(id_)
        raise Refused(Code.NOT_FOUND, ["id", ["account", id_]])
    return account, family, amount


def check_floor(acting: Acting, action: Action) -> None:
    """Refuse unless a quorum of agencies wants it, and the notice is over.

    Raises:
        Refused: NEEDS_APPROVAL, with the agencies that are missing or the end of the notice.
    """
    check_quorum(acting, action)
    proposal = proposals.find(acting.view, acting.txid)
    since_ms = acting.now_ms if proposal is None else proposal.proposed_ms
    until_ms = since_ms + floor_now(acting).notice_ms
    if acting.now_ms < until_ms:
        raise Refused(Code.NEEDS_APPROVAL, [["notice", until_ms]])
