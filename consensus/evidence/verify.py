"""What an evidence bundle proves, from the hash of the genesis file alone.

Checked in this order, each completely before the next; the first that fails is the answer:

    file         canonical, of this version
    network      the genesis head leads to the hash that the reader knows
    holder       the holder's signature over the content
    certificate  each committee elected under the one before; a quorum of the last signs
    history      every other statement lies in the history that the certificate vouches for
    decision     its root lies at its index among the results of its height
    transaction  the body has the decision's txid; every signature; the private part's root
    rules        each rule set is the one that its leaf in the witness names
    witness      exactly the leaves that the decision read, each with the hash it names
    judgement    the executor, run again on the witness, comes to the certified decision
    writes       every leaf that it wrote hashes to what the decision names
    since        whether the transaction was taken back, at the newest height shown

Nothing is taken from anywhere but the bundle: no node, no file, no clock. What executing asks for
and the bundle does not show is an error, never an absence.

Not here: words for people (``comity.cli``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from consensus import codec, genesis, signing
from consensus.answers import StatementEvidence
from consensus.codec import Value
from consensus.errors import (
    DecodeError,
    ProofError,
    RulesError,
)
from consensus.evidence import bundle as files
from consensus.evidence import witness as leaves
from consensus.evidence.bundle import Bundle, Sealed
from consensus.evidence.judgement import Case, judge
from consensus.evidence.replay import (
    WitnessRow,
)
from consensus.evidence.signed import check_signatures, opened
from consensus.evidence.stages import FailedError, stage
from consensus.evidence.trust import Chain
from consensus.evidence.witness import RecordLeaves
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.hotstuff.types import Statement
from consensus.ledger import decision as decisions
from consensus.ledger.attached import join_attached
from consensus.ledger.decision import Decision, Header
from consensus.ledger.governing import named_definition
from consensus.ledger.layout import Paths, RulesHead
from consensus.ledger.model import Rulebook
from consensus.ledger.proposals import DRAFT, SPACE
from consensus.ledger.rules import compile_rulebook, parts_root
from consensus.ledger.rules.readers import written_out
from consensus.ledger.transaction import Transaction, decode_body, decode_signed
from consensus.ledger.view import CHARTER, RULES
from consensus.state import proof, salted
from consensus.state.merkle import RESULTS
from consensus.state.salted import Opening


@dataclass(frozen=True, slots=True)
class Verified:
    """What a bundle has proved.

    Args:
        bundle: all of it.
        network: its name.
        decision: of the transaction.
        header: of the decision.
        transaction: as it was signed, with those leaves of its private part that are shown;
            hidden ones are empty.
        statement: of the decision's height.
        newest: the latest certified statement in the bundle, of which ``taken_back`` speaks.
        judged: whether the rules were run again; otherwise the quorum alone attests the outcome.
        taken_back: txid of the act that took the transaction back, if there is one.
        holder: the key that gave the bundle out, if it is signed.
        rules: the rule sets in force, by domain.
        names: of the leaves of each kind of record, by definition.
        heads: what the witness shows of which rule sets were in force from when, by domain.
    """

    bundle: Bundle
    network: str
    decision: Decision
    header: Header
    transaction: Transaction
    statement: Statement
    newest: Statement
    judged: bool
    taken_back: bytes | None
    holder: bytes | None
    rules: Mapping[str, int]
    names: Mapping[str, Sequence[Sequence[str]]]
    heads: Mapping[str, RulesHead]

    @property
    def reason(self) -> str:
        """The author's reason; empty where there is none or it is hidden."""
        at = len(self.transaction.calls) + 1
        shown = self.transaction.openings[at:]
        return self.transaction.reason if shown and shown[0] else ""


def verify(
    data: bytes,
    chain: bytes,
    *,
    known: tuple[int, bytes] | None = None,
) -> Verified:
    """Return what the bundle in untrusted bytes proves.

    Args:
        chain: hash of the genesis file, which the reader knows by another way.
        known: height and hash of a statement that the reader knows: the bundle's certificate must
            vouch for it too.

    Raises:
        DecodeError: it is no bundle, or malformed; ``path`` says where.
        FailedError: a check fails; ``stage`` says which.

    Cost: linear in the file's bytes, but for the rules, which run once.
    """
    sealed = files.unseal(data)
    bundle = files.decode(sealed.content)
    return _Reading(bundle, chain).whole(sealed, known)


class _Reading:
    """The verification of one bundle."""

    def __init__(self, bundle: Bundle, chain: bytes) -> None:
        self.bundle = bundle
        self.chain = chain
        self.paths = Paths(chain)

    def whole(self, sealed: Sealed, known: tuple[int, bytes] | None) -> Verified:
        bundle = self.bundle
        with stage("network"):
            head = self._genesis()
        with stage("holder"):
            holder = self._holder(sealed)
        with stage("certificate"):
            trust = Chain(self.chain, head.committee)
            trust.follow(bundle.epochs)
            newest = trust.certificate(bundle.certificate).statement
        with stage("history"):
            statements = self._statements(trust, newest)
            self._known(statements, newest, known)
        decision = decisions.decode(bundle.decision)
        header = decision.header
        with stage("decision"):
            statement = self._decided(decision, header, statements)
        with stage("transaction"):
            transaction = decode_signed(self.chain, bundle.body, bundle.signatures)
            if transaction.txid != header.txid:
                raise ProofError("the decision is about another transaction")
            check_signatures(self.chain, transaction, bundle.group)
            transaction = opened(self.chain, transaction, bundle.private)
        with stage("rules"):
            book = self._book(transaction)
        with stage("witness"):
            reads, moved = self._reads(decision)
            shown = self._witness(book, reads, moved, transaction)
            heads = self._heads(header.time_ms)
        with stage("judgement"):
            judged = judge(
                Case(
                    bundle,
                    self.paths,
                    head,
                    book,
                    reads,
                    shown,
                    transaction,
                    decision,
                    statements,
                ),
                self.chain,
            )
        with stage("since"):
            taken_back, at = self._since(header, statements)
        sets = {domain: number for domain, number, _, active in bundle.rules if active}
        return Verified(
            bundle,
            head.network,
            decision,
            header,
            transaction,
            statement,
            at,
            judged,
            taken_back,
            holder,
            sets,
            {name: [tuple(each) for each in kind.layouts] for name, kind in book.kinds.items()},
            heads,
        )

    # --- network, holder, certificate, history --------------------------------------------------

    def _genesis(self) -> genesis.Head:
        bundle = self.bundle
        found = genesis.chain_of(bundle.head, bundle.contents_hash)
        if found != self.chain:
            raise ProofError(f"it is of the network {found.hex()}, not {self.chain.hex()}")
        return genesis.decode_head(bundle.head)

    def _holder(self, sealed: Sealed) -> bytes | None:
        if sealed.holder is None:
            return None
        key, signature = sealed.holder
        signed = signing.message(signing.TAG_BUNDLE, self.chain, sealed.content)
        signing.verify(key, signed, signature)
        return key

    def _statements(self, trust: Chain, newest: Statement) -> dict[int, Statement]:
        found = {newest.height: newest}
        last = -1
        for index, (statement, path) in enumerate(self.bundle.statements):
            evidence = StatementEvidence(self.bundle.certificate, statement, path)
            each = trust.statement(evidence)
            if each.height <= last or each.height in found:
                raise DecodeError("heights ascend", path=f"bundle.statements[{index}]")
            last = each.height
            found[each.height] = each
        return found

    @staticmethod
    def _known(
        statements: Mapping[int, Statement], newest: Statement, known: tuple[int, bytes] | None
    ) -> None:
        if known is None:
            return
        height, hash_ = known
        if height > newest.height:
            raise FailedError(
                "history",
                f"it is as of height {newest.height}, older than height {height} that you know",
                hint="ask for the bundle anew",
            )
        found = statements.get(height)
        if found is None:
            raise FailedError(
                "history",
                f"it does not show the statement of height {height}",
                hint=f"ask for it with --trust {height}",
            )
        if found.hash != hash_:
            raise ProofError(f"another statement of height {height} than the one that you know")

    def _decided(
        self, decision: Decision, header: Header, statements: Mapping[int, Statement]
    ) -> Statement:
        statement = statements.get(header.height)
        if statement is None:
            raise ProofError(f"the statement of height {header.height} is not shown")
        RESULTS.verify_path(
            statement.results_root,
            self.bundle.total,
            header.index,
            decision.root,
            self.bundle.path,
        )
        if (header.time_ms, header.executor) != (statement.time_ms, statement.executor):
            raise ProofError("decision and statement differ in time or executor")
        return statement

    # --- rules ----------------------------------------------------------------------------------

    def _book(self, transaction: Transaction) -> Rulebook:
        rows = [(domain, number, text) for domain, number, text, active in self._rules() if active]
        calls = [*transaction.calls]
        for draft in self.bundle.drafts:
            calls += decode_body(self.chain, draft.body).calls
        names: frozenset[tuple[str, str]] | None = None
        if all(call.domain != CHARTER for call in transaction.calls):
            names = frozenset((call.domain, call.action.partition("!")[0]) for call in calls)
        try:
            book = _compiled(tuple(text for _, _, text in rows), names)
        except (RulesError, DecodeError) as error:
            raise ProofError(f"the rule sets do not go together: {error.message}") from error
        for domain, number, _ in rows:
            found = book.rule_sets.get(domain)
            if found is None or found.number != number:
                raise ProofError(f"rule set {domain}#{number} is another one")
        return book

    def _rules(self) -> Sequence[tuple[str, int, bytes, bool]]:
        """Return the rule sets shown; of each domain, one is in force."""
        rows = self.bundle.rules
        active = [domain for domain, _, _, active in rows if active]
        places = [(domain, number) for domain, number, _, _ in rows]
        if places != sorted(set(places)) or len(active) != len(set(active)):
            raise DecodeError("domains and numbers ascend", path="bundle.rules")
        return rows

    def _heads(self, time_ms: int) -> dict[str, RulesHead]:
        """Return what is shown of which rule sets are in force, and compare it."""
        numbers = {domain: number for domain, number, _, active in self.bundle.rules if active}
        heads: dict[str, RulesHead] = {}
        for leaf in self.bundle.witness:
            if leaf.space == "rules" and len(leaf.components) == 1:
                head = RulesHead(*codec.parse(getattr(leaf, "value", b""), "rules"))
                heads[head.domain] = head
                if head.domain in numbers and head.number_at(time_ms) != numbers[head.domain]:
                    raise ProofError(f"another rule set of {head.domain} was in force")
        return heads

    # --- witness --------------------------------------------------------------------------------

    @staticmethod
    def _reads(decision: Decision) -> tuple[dict[bytes, bytes], list[bytes]]:
        value: Any = decision.value("reads")
        if value is None:
            return {}, []
        full, only = value
        if len(full) % (2 * DIGEST_BYTES) or len(only) % DIGEST_BYTES:
            raise ProofError("the reads of the decision are malformed")
        pairs = salted.split(full, 2 * DIGEST_BYTES)
        reads = {pair[:DIGEST_BYTES]: pair[DIGEST_BYTES:] for pair in pairs}
        return reads, salted.split(only, DIGEST_BYTES)

    def _witness(
        self,
        book: Rulebook,
        reads: Mapping[bytes, bytes],
        moved: Sequence[bytes],
        transaction: Transaction,
    ) -> dict[bytes, WitnessRow]:
        """Return the rows of the witness, which are exactly those that the decision read."""
        texts = {(domain, number): text for domain, number, text, _ in self.bundle.rules}
        drafts = self._drafts(transaction)
        rows: dict[bytes, WitnessRow] = {}
        last = b""
        for index, leaf in enumerate(self.bundle.witness):
            kh = self.paths(leaf.space, leaf.components)
            if kh <= last:
                raise DecodeError("leaves ascend by key path", path=f"bundle.witness[{index}]")
            last = kh
            if isinstance(leaf, RecordLeaves):
                kind = book.kinds.get(str(leaf.components[0]))
                if kind is None:
                    raise ProofError(f"no rule set shown has the kind {leaf.components[0]}")
                stored = leaf.stored(kh, kind)
                rows[kh] = WitnessRow(leaves.vh_of(stored), b"", stored)
            else:
                row = leaf.row()
                attachment = _attachment(leaf, texts, drafts)
                if attachment is not None:
                    row = join_attached(row, attachment)
                rows[kh] = WitnessRow(leaf.vh(kh), row)
            if rows[kh].vh != reads.get(kh):
                where = f"{leaf.space} {leaf.components}"
                raise ProofError(f"{where} is not as the decision found it")
        missing = [kh for kh, vh in reads.items() if vh != ZERO and kh not in rows]
        if missing:
            raise ProofError(f"{len(missing)} leaves that the decision read are not shown")
        attested = [self.paths("account", id_) for id_ in self.bundle.attested]
        if attested != list(moved):
            raise ProofError("other accounts are said to have been moved than the decision names")
        return rows

    def _drafts(self, transaction: Transaction) -> dict[bytes, bytes]:
        """Return the drafts of proposals that are shown, as their rows have them, by txid."""
        found = {transaction.txid: _draft_row(transaction)}
        for each in self.bundle.drafts:
            draft = opened(self.chain, decode_body(self.chain, each.body), each.private)
            found[draft.txid] = _draft_row(draft)
        return found

    # --- since ----------------------------------------------------------------------------------

    def _since(
        self, header: Header, statements: Mapping[int, Statement]
    ) -> tuple[bytes | None, Statement]:
        later = self.bundle.later
        found = proof.decode(later.proof)
        statement = statements.get(found.height)
        if statement is None:
            raise ProofError(f"the statement of height {found.height} is not shown")
        if found.height < header.height:
            said = f"it shows what came later as of height {found.height}, before the decision"
            raise ProofError(said)
        kh = self.paths("corrections", [header.txid])
        unread = self._unread()
        rows = proof.check(found, statement.state_root, [kh, *unread], height=found.height)
        self._adopted(unread, rows)
        shown = rows[kh]
        if shown is None or shown[0] == ZERO:
            if later.leaf is not None:
                raise ProofError("a correction is shown that the state does not have")
            return None, statement
        if later.leaf is None:
            raise ProofError("the state has a correction that is not shown")
        version, salt, value = later.leaf
        if salted.opening_hash(kh, Opening("", version, salt, value)) != shown[0]:
            raise ProofError("the correction is not the one that the state has")
        by = codec.decode(value, _CORRECTION, bytes_max=len(value), what="bundle.later")[0]
        return bytes(by), statement

    def _unread(self) -> dict[bytes, bytes]:
        """Return the rule sets that the witness lacks, by the key paths of their leaves."""
        read = [tuple(each.components) for each in self.bundle.witness if each.space == RULES]
        return {
            self.paths(RULES, [domain, number]): text
            for domain, number, text, _ in self.bundle.rules
            if (domain, number) not in read
        }

    def _adopted(self, unread: Mapping[bytes, bytes], rows: Mapping[bytes, proof.Found]) -> None:
        """Check that the state has the rule sets that the witness lacks."""
        openings = self.bundle.later.rules
        if len(openings) != len(unread):
            raise ProofError("another number of rule sets is proved than shown")
        for (kh, text), (version, salt) in zip(unread.items(), openings, strict=True):
            found, opening = rows[kh], Opening("", version, salt, codec.encode(_root_of(text)))
            if found is None or salted.opening_hash(kh, opening) != found[0]:
                raise ProofError("a rule set is not one that the network has")


_CORRECTION: Final = codec.array(codec.bytes32)


@lru_cache(maxsize=8)
def _compiled(texts: tuple[bytes, ...], names: frozenset[tuple[str, str]] | None) -> Rulebook:
    """Return the rule book of rule sets, with no more of their actions than those named.

    All of them for None: acts of the charter look at actions that they do not call.
    """
    whole = [named_definition(text) for text in texts]
    if names is None:
        return compile_rulebook(whole)
    definitions = []
    for found in written_out(whole):
        actions = tuple(each for each in found.actions if (found.domain, each[0]) in names)
        definitions.append(replace(found, actions=actions))
    return compile_rulebook(definitions)


def _attachment(
    leaf: leaves.SingleLeaf,
    texts: Mapping[tuple[Value, Value], bytes],
    drafts: Mapping[bytes, bytes],
) -> bytes | None:
    """Return what lies beside a leaf that is a root, checked against it; None if nothing is."""
    if leaf.space == "rules" and len(leaf.components) == 2:
        text = texts.get((leaf.components[0], leaf.components[1]))
        if text is None:
            return None
        if codec.encode(_root_of(text)) != leaf.value:
            raise ProofError(f"rule set {leaf.components[0]}#{leaf.components[1]} is another one")
        return text
    if leaf.space == SPACE and len(leaf.components) == 2 and leaf.components[1] == DRAFT:
        txid = leaf.components[0]
        if codec.encode(txid) != leaf.value:
            raise ProofError("a draft is of another proposal")
        return drafts.get(txid)
    return None


@lru_cache(maxsize=64)
def _root_of(text: bytes) -> bytes:
    return parts_root(named_definition(text))


def _draft_row(transaction: Transaction) -> bytes:
    return codec.encode([transaction.body, list(transaction.openings), b""])
