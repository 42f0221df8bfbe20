"""Evidence bundles: a decision with everything it was judged on, for somebody who trusts nobody.

What a node sends is verified like any reader would, signed with the client's key and given a
purpose, an audience and an end before it leaves.

Not here: the format and what it proves (``consensus.evidence``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from comity.keys import Key
from comity.network import Network
from comity.session import Statements
from consensus import answers, signing
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.evidence import bundle as files
from consensus.evidence.bundle import Sealed
from consensus.evidence.verify import verify
from consensus.protocol import GetBundle


class BundleActs:
    """What a client does about bundles; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        key: Key | None
        _network: Network

    async def bundle(
        self,
        txid: bytes,
        *,
        heights: Sequence[int] = (),
        reason: bool = False,
        purpose: str = "",
        audience: str = "",
        expires_ms: int | None = None,
    ) -> bytes:
        """Return the file of a transaction's newest decision and all it was judged on, verified.

        Args:
            heights: of statements that the reader knows and wants to find in it.
            reason: whether to show the author's reason.
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

        request = GetBundle(txid, tuple(heights), reason)
        made = files.decode(await self._network.ask(request, read))
        content = replace(made, purpose=purpose, audience=audience, expires_ms=expires_ms).content()
        if self.key is None:
            return Sealed(content).encode()
        message = signing.message(signing.TAG_BUNDLE, self.chain, content)
        return Sealed(content, (self.key.public, self.key.sign(message))).encode()
