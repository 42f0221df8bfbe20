"""A signer that is gone for a while: the replica asks for nothing, follows, and takes up again.

The key may live in another process (``events.Sign`` is then answered when that answers). When it is
gone, ``SignerAway``: what was asked for and not answered stays promised, nothing else is asked for,
and everything that was signed before leaves. The replica goes on as one without a vote: it orders,
executes and delivers what the others certify. With ``SignerBack`` the unanswered requests that
still count are asked again, word for word, and every executed block that has no certificate gets
its commit vote.

``SignerBack`` also tells what the key signed last, of each kind. A process that died between the
signature and its own log does not know of it; from then on it is promised all the same, and may be
asked for again word for word (``Safety.come_back``).

Not here: the promises themselves (``safety``), and how the signer is reached (the runtime).
"""

from __future__ import annotations

from consensus.hotstuff.events import SignerAway, SignerBack
from consensus.hotstuff.execution import Execution
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.safety import Safety


def take(
    event: SignerAway | SignerBack, safety: Safety, execution: Execution, outbox: Outbox
) -> bool:
    """Take up that the signer went or came; return whether anything may have become possible."""
    if isinstance(event, SignerAway):
        safety.leave()
        return False
    for request in safety.come_back(event.signed):
        outbox.sign(request, None)
    execution.vote_again()
    return True
