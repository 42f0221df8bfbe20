"""What other people's programs use: a client of the network that believes no single node.

    client.py    Client: ask                          acting.py     its part that drafts and submits
    blocking.py  the same for plain scripts
    verify.py    every check of an answer, pure       decisions.py  reading decisions
    drafting.py  from inputs to a transaction         results.py    what comes out
    listing.py   lists of records, in pages           session.py    one connection
    network.py   retries                              pool.py       connections
    sequence.py  numbers   keys.py  key files         errors.py     what can go wrong
    feeds.py     following the network                circulars.py  signatures of several people
    words.py     values as people read them           proposals.py  what waits for approvals
    sealing.py   values for some agencies alone
    disclosing.py  opening fields to somebody
    cli/         the ``comity`` command

Depends on ``consensus``, never on ``node``; only ``comity node`` and its kin load it when called.
A name is loaded when it is first asked for: who checks evidence does not load a client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comity.acting import Signed
    from comity.blocking import BlockingClient
    from comity.circulars import Circular
    from comity.client import Client, RulesInForce
    from comity.drafting import Call, Sealed
    from comity.errors import (
        AbsentError,
        ClientError,
        ClosedError,
        DraftError,
        ForkError,
        KeyUnusableError,
        MovedError,
        NotReachableError,
        RequestError,
        StaleAnswerError,
        UndecidedError,
    )
    from comity.keys import Key
    from comity.proposals import Moved, Proposed, ProposedPage, Redraft
    from comity.results import Cursor, Decision, Entry, Height, Hold, Holds, Listing, Refusal
    from comity.sealing import Unsealed

__all__ = [
    "AbsentError",
    "BlockingClient",
    "Call",
    "Circular",
    "Client",
    "ClientError",
    "ClosedError",
    "Cursor",
    "Decision",
    "DraftError",
    "Entry",
    "ForkError",
    "Height",
    "Hold",
    "Holds",
    "Key",
    "KeyUnusableError",
    "Listing",
    "Moved",
    "MovedError",
    "NotReachableError",
    "Proposed",
    "ProposedPage",
    "Redraft",
    "Refusal",
    "RequestError",
    "RulesInForce",
    "Sealed",
    "Signed",
    "StaleAnswerError",
    "UndecidedError",
    "Unsealed",
]

_HOMES: Final = {
    "acting": "Signed",
    "blocking": "BlockingClient",
    "circulars": "Circular",
    "client": "Client RulesInForce",
    "drafting": "Call Sealed",
    "errors": "AbsentError ClientError ClosedError DraftError ForkError KeyUnusableError "
    "MovedError NotReachableError RequestError StaleAnswerError UndecidedError",
    "keys": "Key",
    "proposals": "Moved Proposed ProposedPage Redraft",
    "results": "Cursor Decision Entry Height Hold Holds Listing Refusal",
    "sealing": "Unsealed",
}
_HOME: Final = {name: home for home, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:  # names that are not there stay errors of types

    def __getattr__(name):
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
