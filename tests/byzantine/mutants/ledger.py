"""Checks of the executor, one broken each: found by a few acts on a small ledger.

What must come of the acts is written down beside them, from what the rules say; nothing of it is
asked of the executor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from consensus.ledger import calls, executor, holds
from consensus.ledger.accounts import Change
from consensus.ledger.authority import Authority, Standing
from consensus.ledger.codes import Code
from consensus.ledger.expects import Expectations
from consensus.ledger.sequence import Window
from tests.byzantine.mutants.ordering import all_of, swapped
from tests.consensus.ledger.world import World, person, populated, public_key, token

TRANSFER = ("payments.transfer", "a", "b", 100)
"""Purses a and b begin with 1000 and 500, and may fall to -50."""


@dataclass(frozen=True)
class Mutant:
    """One check broken.

    Args:
        acts: does something on a ledger of its own and returns what came of it.
        expected: what must come of it.
        patched: what holds around the acts.
    """

    name: str
    acts: Callable[[], object]
    expected: object
    patched: Callable[[], AbstractContextManager[None]]


# --- acts ---------------------------------------------------------------------------------------


def _rename_unnamed() -> object:
    return populated().do("registrar", "identity.rename", person("ann"), "Anna").code


def _rename_old() -> object:
    world = populated()
    named = [("person", person("ann"), 1)]
    first = world.do("registrar", "identity.rename", person("ann"), "Anna", expects=named).code
    return first, world.do("registrar", "identity.rename", person("ann"), "Ann", expects=named).code


def _pay_from_frozen() -> object:
    world = World()
    frozen = world.do("officer", "payments.freeze_purse", "a").code
    return frozen, world.do("clerk", *TRANSFER).code


def _pay_and_freeze_in_one_block() -> object:
    world = World()
    pay = world.draft("clerk", TRANSFER)
    freeze = world.draft("officer", ("payments.freeze_purse", "a"))
    codes = {each.header.txid: each.code for each in world.run(pay, freeze).decisions}
    return codes[freeze.txid], codes[pay.txid], world.balance("purse", "a")


def _send_twice() -> object:
    world = World()
    transaction = world.draft("clerk", TRANSFER)
    return world.one(transaction).code, world.one(transaction).code, world.balance("purse", "a")


def _send_an_older_one_twice() -> object:
    world = World()
    older, newer = world.draft("clerk", TRANSFER), world.draft("clerk", TRANSFER)
    codes = [world.one(each).code for each in (newer, older, older)]
    return codes, world.balance("purse", "a")


def _all_money() -> object:
    world = World()
    world.do("clerk", *TRANSFER)
    return world.balance("purse", "a") + world.balance("purse", "b")


def _one_too_many() -> object:
    world = World()
    code = world.do("clerk", "payments.transfer", "a", "b", 1051).code
    return code, world.balance("purse", "a")


def _act_with_a_revoked_key() -> object:
    world = World()
    key = public_key("clerk")
    revoked = world.do("admin", "charter.revoke_key", "treasury", token("clerk"), key, False).code
    return revoked, world.do("clerk", *TRANSFER).code


def _act_while_suspended() -> object:
    world = World()
    suspended = world.do("admin", "charter.suspend_principal", "treasury", token("clerk")).code
    return suspended, world.do("clerk", *TRANSFER).code


def _act_without_the_role() -> object:
    return World().do("officer", *TRANSFER).code


# --- what is broken -----------------------------------------------------------------------------


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _behind_is_present() -> AbstractContextManager[None]:
    """A version one behind passes for the present one."""
    real = Expectations.check_record

    def check(self: Expectations, record: Any, fields: Any) -> None:
        for key, (kind, id_, version) in list(self.entries.items()):
            self.entries[key] = (
                kind,
                id_,
                version + 1 if 0 < version < record.version else version,
            )
        real(self, record, fields)

    return swapped(Expectations, "check_record", check)


def _newest_number_again() -> AbstractContextManager[None]:
    """The newest number passes again: off by one."""
    check = Window.check
    return swapped(Window, "check", lambda self, n: None if n == self.highest else check(self, n))


def _numbers_below_pass() -> AbstractContextManager[None]:
    """Only the newest number counts as used."""
    check = Window.check
    return swapped(Window, "check", lambda self, n: None if n < self.highest else check(self, n))


def _credits_one_more() -> AbstractContextManager[None]:
    credit = Change.credit
    return swapped(Change, "credit", lambda self, amount: credit(self, amount + 1))


def _one_below_the_floor() -> AbstractContextManager[None]:
    debit = Change.debit
    return swapped(Change, "debit", lambda self, amount, floor: debit(self, amount, floor - 1))


def _forgives(code: Code) -> Callable[[], AbstractContextManager[None]]:
    """A standing without one kind of fault."""
    init = Standing.__init__

    def begin(self: Standing, view: Any, key: bytes, now_ms: int) -> None:
        init(self, view, key, now_ms)
        if self.fault is not None and self.fault.code == code:
            self.fault = None

    def standing(_self: Authority, view: Any, key: bytes, now_ms: int) -> Standing:
        return Standing(view, key, now_ms)

    return lambda: all_of(
        swapped(Standing, "__init__", begin), swapped(Authority, "standing", standing)
    )


LEDGER = (
    Mutant(
        "a written record need not be named",
        _rename_unnamed,
        Code.STALE,
        lambda: swapped(Expectations, "check_record", _nothing),
    ),
    Mutant(
        "a version one behind is not stale",
        _rename_old,
        (Code.APPLIED, Code.STALE),
        _behind_is_present,
    ),
    Mutant(
        "holds are not looked at",
        _pay_from_frozen,
        (Code.APPLIED, Code.HELD),
        lambda: swapped(holds, "blocking", lambda *_: []),
    ),
    Mutant(
        "holds come after payments",
        _pay_and_freeze_in_one_block,
        (Code.APPLIED, Code.HELD, 1000),
        lambda: swapped(executor, "_is_ordinary", lambda transaction: bool(transaction.lane)),
    ),
    Mutant(
        "a number may be used again",
        _send_twice,
        (Code.APPLIED, Code.SEQUENCE_SPENT, 900),
        lambda: swapped(Window, "check", _nothing),
    ),
    Mutant(
        "the newest number may be used again",
        _send_twice,
        (Code.APPLIED, Code.SEQUENCE_SPENT, 900),
        _newest_number_again,
    ),
    Mutant(
        "an older number may be used again",
        _send_an_older_one_twice,
        ([Code.APPLIED, Code.APPLIED, Code.SEQUENCE_SPENT], 800),
        _numbers_below_pass,
    ),
    Mutant("a credit is one more than the debit", _all_money, 1500, _credits_one_more),
    Mutant(
        "the floor is one lower", _one_too_many, (Code.INSUFFICIENT, 1000), _one_below_the_floor
    ),
    Mutant(
        "a revoked key may act",
        _act_with_a_revoked_key,
        (Code.APPLIED, Code.KEY_INACTIVE),
        _forgives(Code.KEY_INACTIVE),
    ),
    Mutant(
        "a suspended official may act",
        _act_while_suspended,
        (Code.APPLIED, Code.SUSPENDED),
        _forgives(Code.SUSPENDED),
    ),
    Mutant(
        "a role is not asked for",
        _act_without_the_role,
        Code.NOT_AUTHORIZED,
        lambda: swapped(calls, "authorize", _nothing),
    ),
)
