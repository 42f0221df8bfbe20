"""Evidence bundles: a decision with everything it was judged on, for somebody who trusts nobody.

What a node sends is verified like any reader would, signed with the client's key and given a
purpose, an audience and an end before it leaves.

Not here: the format and what it proves (``consensus.evidence``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comity import decisions, receipts
from comity.errors import RequestError
from comity.keys import Key
from comity.network import Network
from comity.session import Statements, statement_of
from comity.verify import Trust, record_entry
from consensus import answers, genesis, reads, signing
from consensus.answers import DecisionAnswer, StatementEvidence
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.evidence import bundle as files
from consensus.evidence.bundle import Sealed
from consensus.evidence.verify import verify
from consensus.genesis import Genesis
from consensus.hotstuff import wire
from consensus.hotstuff.types import Statement
from consensus.protocol import Get, GetBundle, GetDecision, StateKey
from consensus.reads import RecordRow


class BundleActs:
    """What a client does about bundles; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        genesis: Genesis
        key: Key | None
        trust: Trust
        _network: Network

    async def bundle(
        self,
        txid: bytes,
        *,
        heights: Sequence[int] = (),
        opened: Sequence[str] = (),
        purpose: str = "",
        audience: str = "",
        expires_ms: int | None = None,
    ) -> bytes:
        """Return the file of a transaction's newest decision and all it was judged on, verified.

        Args:
            heights: of statements that the reader knows and wants to find in it.
            opened: what to show that the judgement did not need: ``reason``, or ``kind.leaf`` of
                the records that it read.
            purpose: what the file is for.
            audience: whom it is for.
            expires_ms: chain time after which it is not to be used.

        Raises:
            RequestError: NOT_FOUND: the node has no decision, or not all it was judged on; DENIED:
                this key may not read all of that.
            DecodeError, FailedError: what the node sent proves nothing.
        """

        def read(result: Value, statements: Statements) -> bytes:
            content = answers.read_bundle(result)
            found = verify(Sealed(content).encode(), self.chain)
            if found.header.txid != txid:
                raise ProofError("the bundle is about another transaction")
            return content

        request = GetBundle(txid, tuple(heights), tuple(opened))
        made = files.decode(await self._network.ask(request, read))
        content = replace(made, purpose=purpose, audience=audience, expires_ms=expires_ms).content()
        if self.key is None:
            return Sealed(content).encode()
        message = signing.message(signing.TAG_BUNDLE, self.chain, content)
        return Sealed(content, (self.key.public, self.key.sign(message))).encode()

    async def receipt(self, txid: bytes) -> bytes:
        """Return the file of a receipt: the decision on a transaction, for whoever holds it.

        It shows what this key may see, with those records that the decision wrote and that are
        unchanged. The client has verified it.

        Raises:
            RequestError: NOT_FOUND: the node has no decision on it, or none for this key.
        """

        def read(
            result: Value, statements: Statements
        ) -> tuple[DecisionAnswer, StatementEvidence, Statement]:
            found = answers.read_decision(result)
            statement = statement_of(statements, found.height)
            self.trust.decision(found, statement, txid)
            return found, statements.evidence[found.height], statement

        found, evidence, statement = await self._network.ask(GetDecision(txid), read)
        decision = decisions.read(found.decision)
        records = await self._unchanged(receipts.written(decision), statement)
        head = genesis.split(self.genesis.encode())
        results = found.total, found.path
        epoch = wire.decode_commit_cert(evidence.certificate).statement.epoch
        steps = self.trust.steps_to(epoch)
        data = receipts.make(head, steps, evidence, results, found.decision, records)
        receipts.verify(data, self.chain)
        return data

    async def _unchanged(
        self, places: Mapping[bytes, tuple[StateKey, bytes]], statement: Statement
    ) -> list[RecordRow]:
        """Return those records that are still as they were written, as far as this key may."""
        rows: list[RecordRow] = []
        for key, vh in [*places.values()][: receipts.RECORDS_MAX]:

            def read(result: Value, _: Statements) -> reads.Rows:
                return reads.read_rows(result)

            try:
                answer = await self._network.ask(Get(0, (key,)), read)
            except RequestError:
                continue  # not for this key
            (row,) = answer.rows
            kh = self.trust.paths(key.namespace, list(key.components))
            if not isinstance(row, RecordRow):
                continue
            try:
                record_entry(
                    key, kh, row, vh, statement.height, statement.height, statement.time_ms
                )
            except ProofError:
                continue  # it is another by now
            rows.append(row)
        return rows
