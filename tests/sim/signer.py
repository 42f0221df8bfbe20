"""The signer of a simulated node: refuses on its own to sign twice, as ``node.signer`` does.

Written anew in the few lines that the rules need: a body above the last of its kind, or the same
again; a commit vote below it only by the two-chain; never a second body for a round.
"""

from __future__ import annotations

from consensus import signing
from consensus.hotstuff.events import Sign
from consensus.hotstuff.types import SIGN_TAGS, SignKind
from tests.sim.disk import Mark
from tests.sim.errors import Violation, require
from tests.sim.keys import Keys


class Signer:
    """Signs for one validator, from the mark that its disk holds.

    Args:
        mark: durable; ``log_groups`` is checked against ``groups``, those of the log found.
    """

    def __init__(self, keys: Keys, public: bytes, chain: bytes, mark: Mark, groups: int) -> None:
        require(groups >= mark.log_groups, "log before mark", "the mark is ahead of the log")
        self._keys = keys
        self._public = public
        self._chain = chain
        self._last = dict(mark.last)
        self._settled = mark.settled
        self._commit_votes = dict(mark.commit_votes)

    def sign(self, request: Sign) -> bytes:
        """Return the signature, or raise Violation: nothing may ask for a second one."""
        self._judge(request)
        signed = signing.message(SIGN_TAGS[request.kind], self._chain, request.body)
        return self._keys.sign(self._public, signed)

    def settle(self, round_: int) -> None:
        """Forget commit votes up to the round of a durable commit certificate."""
        if round_ > self._settled:
            self._settled = round_
            self._commit_votes = {r: b for r, b in self._commit_votes.items() if r > round_}

    def snapshot(self, log_groups: int) -> Mark:
        """Return the mark to be written."""
        return Mark(dict(self._last), self._settled, dict(self._commit_votes), log_groups)

    def _judge(self, request: Sign) -> None:
        slot = (request.round, request.body)
        last = self._last.get(request.kind, (0, b""))
        if slot == last:
            return
        above = request.round > last[0]
        if request.kind is SignKind.COMMIT_VOTE:
            known = self._commit_votes.get(request.round)
            if known == request.body:
                return
            if known is not None or request.round <= self._settled:
                raise Violation("signer agrees", f"a second commit vote of {request.round}")
            if not above and not request.two_chain:
                raise Violation("signer agrees", f"a commit vote of {request.round} below its mark")
            self._commit_votes[request.round] = request.body
        elif not above:
            raise Violation(
                "signer agrees", f"{request.kind.name} of {request.round} after {last[0]}"
            )
        if above:
            self._last[request.kind] = slot
