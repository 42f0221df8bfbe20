"""A bundle from what a node keeps: the block, the rows before it, and what proves it.

The maker opens what the judgement read and nothing else: no seed, no salt of a hidden leaf, no
value that the rules did not look at. Inputs and what the author relied on are opened; the reason is
opened only if asked for.

Not here: who may have it (``node.api``), and where the rows come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from consensus.answers import EpochStep
from consensus.codec import Value
from consensus.errors import ComityError, LocalProtocolError
from consensus.evidence.bundle import Bundle, Draft, GroupPart, Later, PrivateLeaf, PrivatePart
from consensus.evidence.replay import Trace, trace
from consensus.evidence.witness import RecordLeaves
from consensus.ledger.attached import cut_attached
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext
from consensus.ledger.group import Group
from consensus.ledger.ledger import Ledger
from consensus.ledger.model import Rulebook, RuleSet
from consensus.ledger.private import leaf_names, private_salts, seed_hash, slot
from consensus.ledger.proposals import decode_draft
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import CHARTER, RULES, Source
from consensus.state import salted
from consensus.state.merkle import GROUP, RESULTS
from consensus.state.record import decode_single

REASON = "reason"
"""The leaf of a transaction's private part that is opened on request."""


class CannotOpenError(ComityError):
    """Somebody wants to see in a bundle what no bundle of this decision shows."""

    code = "CANNOT_OPEN"
    advice = "name fields of records that the decision was judged on, as kind.field"


Place = tuple[str, tuple[Value, ...]]
"""Space and components of a leaf of the state."""


@dataclass(frozen=True, slots=True)
class Proved:
    """What proves a bundle's heights, and what is so at the newest of them.

    Args:
        head: of the genesis file, with the hash of its contents.
        epochs: the committees of later epochs.
        certificate: the newest.
        statement: returns a height's statement with its path under the certificate; None for the
            certificate's own height.
        height: of the state that ``proof`` is about.
        proof: of presence or absence of the leaves at ``Prepared.places``.
        rows: theirs, as the store has them; None: absent.
    """

    head: tuple[bytes, bytes]
    epochs: tuple[EpochStep, ...]
    certificate: bytes
    statement: Callable[[int], tuple[bytes, tuple[bytes, ...]] | None]
    height: int
    proof: bytes
    rows: Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision in its block.

    Args:
        decision: as recorded.
        roots: of all decisions of the block.
        transactions: of the block, in the payload's order.
        transaction: the one that the decision is about, with signatures and private part.
        group: the group, or part of one, that it was signed in.
    """

    decision: Decision
    roots: Sequence[bytes]
    transactions: Sequence[Transaction]
    transaction: Transaction
    group: Group | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bundle but for what is newest: ``places`` is what that must be proved of.

    The first is the transaction's correction; the others are rule sets that the judgement did not
    read, and that those it read are written in terms of.
    """

    chain: bytes
    decided: Decided
    traced: Trace
    opened: tuple[str, ...]
    rules: tuple[tuple[str, int, bytes, bool], ...]
    places: tuple[Place, ...]

    def bundle(
        self,
        proved: Proved,
        *,
        heights: Collection[int] = (),
        purpose: str = "",
        audience: str = "",
        expires_ms: int | None = None,
    ) -> Bundle:
        """Return the bundle.

        Args:
            heights: further heights whose statements are to be shown.
        """
        decided, traced = self.decided, self.traced
        header, transaction = decided.decision.header, decided.transaction
        wanted = {header.height, proved.height, *traced.sizes, *heights}
        statements = [proved.statement(height) for height in sorted(wanted)]
        correction, *sets = proved.rows
        return Bundle(
            *proved.head,
            proved.epochs,
            proved.certificate,
            tuple(each for each in statements if each is not None),
            decided.decision.encode(),
            len(decided.roots),
            tuple(RESULTS.path(decided.roots, header.index)),
            transaction.body,
            transaction.signatures,
            None if decided.group is None else _group_part(decided.group, transaction.txid),
            _private(self.chain, transaction, REASON in self.opened),
            traced.leaves,
            traced.attested,
            traced.fresh,
            self.rules,
            Later(
                proved.proof,
                None if correction is None else decode_single(correction),
                tuple(decode_single(cut_attached(row or b"")[0])[:2] for row in sets),
            ),
            tuple(
                Draft(draft.body, _private(self.chain, draft, False))
                for draft in itertools.starmap(decode_draft, traced.drafts.items())
                if draft.txid != transaction.txid
            ),
            purpose,
            audience,
            expires_ms,
        )


def prepare(
    ledger: Ledger,
    source: Source,
    context: BlockContext,
    decided: Decided,
    opened: Collection[str] = (),
) -> Prepared:
    """Judge a decision again, and return what a bundle of it will show.

    Args:
        ledger: one that serves no blocks, and that nothing was judged with.
        source: the rows before the decision's block.
        context: of the block.
        opened: what is shown although nothing looked at it: REASON, ``kind.leaf`` of records.

    Raises:
        LocalProtocolError: the rows or the block are not those of the decision.
        CannotOpenError: of what is to be opened, something is sealed, or not in what was read.

    Cost: that of executing the block up to the decision, and of 30 hashes a leaf.
    """
    decision = decided.decision
    index = decision.header.index
    traced = trace(ledger, source, context, decided.transactions, index, opened)
    if traced.decision.root != decision.root:
        raise LocalProtocolError("judged again, a decision of this node comes out differently")
    rules_then = ledger.rules(source, context.time_ms)
    _check_opened(rules_then.book, traced, [each for each in opened if each != REASON])
    txid = decision.header.txid
    read = {
        (leaf.components[0], leaf.components[1])
        for leaf in traced.leaves
        if leaf.space == RULES and len(leaf.components) == 2
    }
    domains: Collection[str] = {str(domain) for domain, _ in read}
    if any(call.domain == CHARTER for call in decided.transaction.calls):
        domains = rules_then.in_force  # its acts look at all of them
    in_force = _in_force(ledger, source, context.time_ms, domains)
    texts = {**traced.texts, **in_force}
    rules = tuple((*place, text, place in in_force) for place, text in sorted(texts.items()))
    unread: list[Place] = [(RULES, place) for place in sorted(texts) if place not in read]
    places: tuple[Place, ...] = (("corrections", (txid,)), *unread)
    return Prepared(ledger.chain, decided, traced, tuple(opened), rules, places)


def _check_opened(book: Rulebook, traced: Trace, opened: Collection[str]) -> None:
    """Refuse what no record of the witness has, and what only a disclosure may open."""
    records = [leaf for leaf in traced.leaves if isinstance(leaf, RecordLeaves)]
    there: dict[str, None] = {}
    for record in records:
        layout = book.kinds[str(record.components[0])].layouts[record.definition - 1]
        there.update((f"{record.components[0]}.{name}", None) for name in layout)
    for each in opened:
        name, _, field = each.partition(".")
        kind = book.kinds.get(name)
        declared = None if kind is None else kind.fields.get(field)
        if declared is not None and declared.sealed_for:
            raise CannotOpenError(
                f"{each} is sealed: a bundle shows no sealed value",
                hint="`comity disclose` opens it for a named audience, on record",
            )
        if each in there:
            continue
        if declared is not None and declared.group and f"{name}.{declared.group}" in there:
            raise CannotOpenError(
                f"{each} shares a leaf with other fields",
                hint=f"ask for all of them, {name}.{declared.group}",
            )
        said = f"no record that the decision was judged on has {each}"
        known = ", ".join(there)
        raise CannotOpenError(said, hint=f"they have {known}" if known else "")


def _in_force(
    ledger: Ledger, source: Source, time_ms: int, domains: Collection[str]
) -> dict[tuple[str, int], bytes]:
    """Return the rule sets in force of these domains, and of those that they use or refer to."""
    rules = ledger.rules(source, time_ms)
    wanted, pending = set(domains) & set(rules.in_force), [*domains]
    while pending:
        found = rules.book.rule_sets.get(pending.pop())
        for domain in () if found is None else _around(rules.book, found):
            if domain in rules.in_force and domain not in wanted:
                wanted.add(domain)
                pending.append(domain)
    sets = [rules.book.rule_sets[domain] for domain in sorted(wanted)]
    return {(each.domain, each.number): each.encoded for each in sets}


def _around(book: Rulebook, rules: RuleSet) -> list[str]:
    """Return the domains without which a rule set does not compile."""
    types = [field.stored for kind in rules.kinds.values() for field in kind.fields.values()]
    types += [each.type for action in rules.actions.values() for each in action.inputs]
    items = [each.item if each.base == "list" else each for each in types]
    named = dict.fromkeys(each.argument for each in items if each.base == "ref")
    kinds = [book.kinds[name] for name in named if name in book.kinds]
    return [*(domain for domain, _ in rules.uses), *(kind.domain for kind in kinds)]


def _private(chain: bytes, transaction: Transaction, reason: bool) -> PrivatePart:
    """Return a private part without its seed, each leaf shown but for the reason."""
    openings, seed = transaction.openings, transaction.seed
    kh = slot(chain, transaction.author, transaction.sequence)
    count = len(openings)
    salts = private_salts(kh, seed, count)
    names = leaf_names(len(transaction.calls), count)
    leaves: list[PrivateLeaf] = []
    for name, salt, opening in zip(names, salts, openings, strict=False):
        if name == REASON and not reason:
            leaves.append(salted.leaf_hash(kh, name, 0, salt, opening))
        else:
            leaves.append((salt, opening))
    return PrivatePart(seed_hash(seed), tuple(leaves), tuple(salted.decoys(salts[count:])))


def _group_part(group: Group, txid: bytes) -> GroupPart:
    """Return the place of one transaction under the signatures of its group."""
    within = [each.txid for each in group.transactions].index(txid)
    index = group.first + within
    txids = {group.first + at: each.txid for at, each in enumerate(group.transactions)}
    signers = group.transactions[within].signers
    signatures = tuple(row for row in group.signatures if row[0] in signers)
    path = _single_path(group, txids, index)
    return GroupPart(signatures, group.total, index, path)


def _single_path(group: Group, txids: Mapping[int, bytes], index: int) -> tuple[bytes, ...]:
    """Return the path of one of a group's transactions to the root of the whole group."""
    return tuple(GROUP.narrowed(group.total, txids, group.path, index))
