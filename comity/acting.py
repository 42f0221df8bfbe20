"""What a client does: drafts, signs, submits, alone or with others, and waits for decisions.

Not here: reading (``client``), rule sets (``rulesets``), what a draft is made of (``drafting``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comity import circulars, drafting
from comity.circulars import Circular
from comity.drafting import Call, Needs
from comity.errors import DraftError, KeyUnusableError, RequestError
from comity.keys import Key
from comity.network import Network
from comity.results import Decision, Entry, Outcome, Refusal
from comity.sequence import Sequencer
from comity.session import Parcel
from consensus import answers, codec
from consensus.codec import Value
from consensus.ledger import group
from consensus.ledger.kernel.plan import duration_ms
from consensus.ledger.proposing import PROPOSAL_HOURS, PROPOSAL_HOURS_DEFAULT
from consensus.ledger.transaction import EXECUTE, PROPOSE, Ack, Unsigned, assemble, decode_envelope
from consensus.protocol import Item, StateKey

if TYPE_CHECKING:
    from comity.client import RulesInForce
    from consensus.ledger.model import Rulebook

NOT_AFTER_MS: Final = 600_000
"""Default life of a transaction, from the newest certified time."""
GROUP_BYTES_MAX: Final = 960 * 1024
GROUP_PART_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction ready to be submitted, again and again if need be."""

    txid: bytes
    envelope: bytes
    sequence: int
    author: bytes


class Acts:
    """What a client does with its key; a part of ``Client``."""

    if TYPE_CHECKING:
        chain: bytes
        key: Key | None
        _network: Network
        _sequencer: Sequencer
        _rules: RulesInForce | None

        async def get(self, namespace: str, *components: Value) -> Entry: ...
        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...
        async def rules(self, *, refresh: bool = False) -> RulesInForce: ...
        async def now_ms(self) -> int: ...
        async def _seal(
            self, book: Rulebook, calls: Sequence[Call], author: bytes, sequence: int, until_ms: int
        ) -> tuple[tuple[Call, ...], Sequence[Ack]]: ...

    # --- drafting -----------------------------------------------------------------------------

    async def read_for(self, call: Call) -> tuple[Entry, ...]:
        """Read what an action loads and writes, so that the caller can look before it acts.

        Returns the entries that ``expects`` must name: pass them to ``draft`` as ``reads`` after
        looking at them. Reading again is the caller's decision.
        """
        book = (await self.rules()).book
        action = drafting.find_action(book, call.domain, call.action)
        needs = Needs(book, action, call.inputs, await self.now_ms())
        while keys := needs.next_keys():
            for entry in await self.get_many(keys):
                needs.give(entry)
        return tuple(needs.expected)

    async def draft(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
        cosigners: Sequence[bytes] = (),
        later: bool = False,
        propose: bool = False,
        deliver: bool = True,
    ) -> Unsigned:
        """Return a transaction of this client's key, with a number of its own, not yet signed.

        Args:
            calls: 1 to 64, all or none.
            reads: what the caller read and relies on; their versions are what it expects.
            under: ids of the grants it acts under.
            reason: why, in words.
            not_after_ms: chain time; None: ten minutes from now, of a proposal as long as the
                charter allows.
            cosigners: public keys of those who approve, who must all sign too.
            later: it goes round for signatures first, and this key goes on acting meanwhile.
            propose: to be stored until it has its approvals, instead of judged at once.
            deliver: False for a draft to look at: sealed values stay here, and it is good for
                nothing else.

        Raises:
            DraftError: it cannot be written.
            KeyUnusableError: the client has no key.
            RequestError, NotReachableError: a node of the audience of a sealed value did not take
                it.
        """
        key = self._own_key()
        book = (await self.rules()).book
        now_ms = await self.now_ms()
        if not_after_ms is None:
            not_after_ms = now_ms + NOT_AFTER_MS
            if propose:
                hours_ms = duration_ms(book, now_ms, PROPOSAL_HOURS, PROPOSAL_HOURS_DEFAULT)
                not_after_ms = now_ms + hours_ms
        sequence = await (self._sequencer.set_aside if later else self._sequencer.take)()
        try:
            acks: Sequence[Ack] = ()
            if deliver:
                calls, acks = await self._seal(book, calls, key.public, sequence, not_after_ms)
            return drafting.build(
                self.chain,
                book,
                calls,
                author=key.public,
                sequence=sequence,
                now_ms=now_ms,
                not_after_ms=not_after_ms,
                seed=secrets.token_bytes(32),
                reads=reads,
                under=under,
                reason=reason,
                cosigners=cosigners,
                mode=PROPOSE if propose else EXECUTE,
                acks=acks,
            )
        except BaseException:
            self._sequencer.release(sequence)
            raise

    def sign(self, unsigned: Unsigned, signatures: Sequence[bytes] = ()) -> Signed:
        """Return a draft signed by this client's key, and by ``signatures`` of its cosigners."""
        own = self._own_key().sign(unsigned.message)
        envelope = assemble(unsigned, [own, *signatures])
        draft = unsigned.transaction
        return Signed(draft.txid, envelope, draft.sequence, draft.author)

    def circulate(self, unsigned: Unsigned) -> Circular:
        """Return a draft signed by this client's key, to go round for other signatures."""
        return circulars.circulate(self.chain, unsigned).sign(self._own_key())

    def read_circular(self, data: bytes) -> Circular:
        """Return the circular in bytes of somebody else; ``sign`` it, or submit its ``envelope``.

        Raises:
            DecodeError: it is none, or of another network.
            SignatureError: a signature that is there is wrong.
        """
        return circulars.read(self.chain, data)

    # --- submitting ---------------------------------------------------------------------------

    async def transact(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
        cosigners: Sequence[Key] = (),
    ) -> Decision:
        """Draft, sign and submit; return the certified decision, applied or refused.

        Args:
            cosigners: keys at hand that sign too; for those elsewhere see ``circulate``.

        Raises:
            DraftError, KeyUnusableError: as ``draft``.
            RequestError, UndecidedError: as ``submit``.
        """
        unsigned = await self.draft(
            *calls,
            reads=reads,
            under=under,
            reason=reason,
            not_after_ms=not_after_ms,
            cosigners=[each.public for each in cosigners],
        )
        signatures = {each.public: each.sign(unsigned.message) for each in cosigners}
        wanted = unsigned.transaction.cosigners
        return await self.submit(self.sign(unsigned, [signatures[key] for key in wanted]))

    async def submit(self, signed: Signed | bytes) -> Decision:
        """Submit a transaction and return its certified decision.

        Raises:
            RequestError: a node refused to take it; nothing certifies that.
            UndecidedError: no decision in time; it may still come. Submit the same bytes again.
        """
        if isinstance(signed, bytes):
            found = decode_envelope(self.chain, signed)
            signed = Signed(found.txid, signed, found.sequence, found.author)
        parcel = Parcel(Item.ENVELOPE, signed.envelope, (signed.txid,))
        try:
            ((outcome,),) = await self.deliver([parcel])
        finally:
            self._forget(signed.author, signed.sequence)
        return self._noted(_decided(outcome))

    async def submit_group(self, drafts: Sequence[Unsigned]) -> list[Decision]:
        """Sign drafts of this client's key with one signature, submit them; return each decision.

        Every transaction is judged alone.

        Raises:
            DraftError: none or more than 1,024, or one of another author or with cosigners.
            RequestError, UndecidedError: as ``submit``.
        """
        key = self._own_key()
        if not 1 <= len(drafts) <= group.TRANSACTIONS_MAX:
            raise DraftError(f"a group has 1 to {group.TRANSACTIONS_MAX} transactions")
        if any(each.transaction.signers != (key.public,) for each in drafts):
            raise DraftError("a group of this client holds only transactions of its own key")
        message = group.group_message(self.chain, len(drafts), group.group_root(drafts))
        whole = group.build(drafts, [(key.public, key.sign(message))])
        try:
            outcomes = await self.deliver(_parcels(whole))
        finally:
            for each in drafts:
                self._forget(key.public, each.transaction.sequence)
        return [self._noted(_decided(outcome)) for row in outcomes for outcome in row]

    async def deliver(
        self,
        parcels: Sequence[Parcel],
        told: Callable[[int, int, Outcome], None] | None = None,
    ) -> list[list[Outcome]]:
        """Submit many items at once; return each transaction's outcome, in their order.

        This is the way for programs that submit much: one task and one request carry any number
        of transactions, and ``told`` hears of each outcome (parcel, position, outcome) as it comes.

        Raises:
            UndecidedError: some were not decided in time; ``told`` has heard of the others.
            ForkError: the network contradicts itself.
        """
        return await self._network.deliver(parcels, told)

    # --- own key ------------------------------------------------------------------------------

    async def _highest(self) -> int:
        entry = await self.get("sequence", self._own_key().public)
        return int(entry.value[0]) if entry.present else 0

    def _forget(self, author: bytes, sequence: int) -> None:
        if self.key is not None and author == self.key.public:
            self._sequencer.release(sequence)

    def _noted(self, decision: Decision) -> Decision:
        if decision.code == "SEQUENCE_SPENT":
            self._sequencer.ask_again()
        if decision.code in ("RULES_MOVED", "UNKNOWN_ACTION"):
            self._rules = None
        return decision

    def _own_key(self) -> Key:
        if self.key is None:
            raise KeyUnusableError("this needs a key, and the client has none")
        return self.key


def _parcels(whole: group.Group) -> list[Parcel]:
    data = codec.encode(whole.to_value())
    parts = [whole] if len(data) <= GROUP_BYTES_MAX else group.split(whole, GROUP_PART_MAX)
    return [
        Parcel(
            Item.GROUP,
            codec.encode(part.to_value()),
            tuple(each.txid for each in part.transactions),
        )
        for part in parts
    ]


def _decided(outcome: Outcome) -> Decision:
    if isinstance(outcome, Refusal):
        problem = answers.Problem(outcome.code, outcome.message, outcome.hint)
        raise RequestError(outcome.status, problem)
    return outcome
