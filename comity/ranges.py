"""Whole heights: a statement as one of the network's log, and what an audit executes again.

Not here: verification (``consensus.evidence``, ``consensus.audit``), one connection (``session``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comity.session import Statements
from consensus import answers
from consensus.answers import StatementEvidence
from consensus.audit import pages
from consensus.audit.pages import Page
from consensus.audit.stream import height_in
from consensus.codec import Value
from consensus.errors import RemoteProtocolError
from consensus.evidence.tlog import TlogProof
from consensus.protocol import HEIGHTS_MAX, GetBlocks, GetPast

if TYPE_CHECKING:
    from comity.network import Network
    from comity.verify import Trust


class Ranges:
    """How a client reads whole heights; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

    async def past(self, height: int) -> TlogProof:
        """Return the statement of a height, proved below a later certificate.

        Raises:
            RequestError: UNAVAILABLE: no later height is certified yet; NOT_FOUND: it is not kept.
        """

        def read(result: Value, _: Statements) -> TlogProof:
            found = answers.read_past(result)
            evidence = StatementEvidence(found.certificate, found.statement, found.path)
            statement = self.trust.statement(evidence)
            if statement.height != height:
                raise RemoteProtocolError(f"asked for height {height}, got {statement.height}")
            certificate = self.trust.certificate(found.certificate)
            steps = self.trust.steps_to(certificate.statement.epoch)
            return TlogProof(statement, found.path, certificate, steps)

        return await self._network.ask(GetPast(height), read)

    async def blocks(self, first: int, count: int = HEIGHTS_MAX) -> Page:
        """Return certified heights from ``first`` on with all that executing them again takes.

        Nothing is proved before it is executed (``comity.auditing``). Fewer heights than asked for
        may come back. For officials and systems from whom no read rule keeps anything.

        Args:
            first: height.
            count: at most HEIGHTS_MAX.

        Raises:
            RequestError: DENIED: this key may not; NOT_FOUND: the first height is not kept.
        """

        def read(result: Value, _: Statements) -> Page:
            page = pages.read_page(result)
            heights = [height_in(each) for each in page.heights]
            if heights != [*range(first, first + len(heights))] or len(heights) > count:
                raise RemoteProtocolError("the node gave other heights than those asked for")
            return page

        return await self._network.ask(GetBlocks(first, count), read)
