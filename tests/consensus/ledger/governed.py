"""A network that changes its rules: an administrator in each of the four agencies.

Quorum 3, two agencies object, and a notice of ten seconds; each block comes a second later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from consensus.codec import Value
from consensus.genesis import Genesis, Limits, Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import ADOPTION, Adoption, RulesHead
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.transaction import Transaction
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.world import (
    BENEFITS,
    CHARTER,
    DEFAULT,
    IDENTITY,
    PAYMENTS,
    World,
    make_genesis,
    public_key,
    token,
)

NOTICE_MS = 10_000
CHIEFS = {"chief_t": "treasury", "chief_r": "registry", "chief_s": "services", "chief_a": "audit"}

ACTS = "\n".join(
    f"""[actions.{name}]
kernel = true
actor = {{ role = "charter.chief" }}
"""
    for name in ("propose_rules", "activate_rules", "object_rules", "withdraw_rules")
)
GOVERNED = CHARTER + ACTS

TEXTS = (GOVERNED, IDENTITY, BENEFITS, PAYMENTS)


def founding(texts: Sequence[str] = TEXTS, **changes: Any) -> Genesis:
    """Return the genesis of the network."""
    principals = [
        Principal(token(name), agency, 0, token(f"subject {name}"))
        for name, agency in CHIEFS.items()
    ]
    roles = [RoleGiven(token(name), "charter.chief") for name in CHIEFS]
    roles.append(RoleGiven(token("admin"), "charter.chief"))
    given = {
        "limits": Limits(notice_ms=NOTICE_MS),
        "principals": (*DEFAULT.principals, *principals),
        "keys": (*DEFAULT.keys, *((public_key(name), token(name)) for name in CHIEFS)),
        "roles": (*DEFAULT.roles, *roles),
        **changes,
    }
    return make_genesis(texts, **given)


@cache
def default() -> Genesis:
    """Return the genesis that tests share."""
    return founding()


def numbered(text: str, number: int, *changes: tuple[str, str]) -> str:
    """Return a rule set under another number, with texts replaced."""
    text = text.replace("number = 1\n", f"number = {number}\n", 1)
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@dataclass
class Governed(World):
    """The network, and what its chiefs do about rule sets."""

    genesis: Genesis = field(default_factory=default)

    def head(self, domain: str) -> RulesHead:
        """Return the head of a domain."""
        found: RulesHead = self._leaf([domain])
        return found

    def adoption(self, domain: str, number: int) -> Adoption:
        """Return what became of a rule set."""
        found: Adoption = self._leaf([domain, number, ADOPTION])
        return found

    def _leaf(self, components: list[Value]) -> Any:
        row = self.state.get(self.ledger.paths("rules", components))
        assert row is not None, components
        return read_single("rules", components, row.value).value

    def version(self, *components: Value) -> int:
        """Return the version of a leaf of the rules, 0 if it is absent."""
        row = self.state.get(self.ledger.paths("rules", list(components)))
        return 0 if row is None else read_single("rules", list(components), row.value).version

    def numbers(self) -> dict[str, int]:
        """Return the numbers in force."""
        rules = self.ledger.rules(self.state, self.now_ms)
        return {name: each.number for name, each in rules.in_force.items()}

    def expects(
        self, domain: str, number: int, *, head: bool
    ) -> list[tuple[str, list[Value], int]]:
        """Return the leaves that acts name, at their versions now."""
        id_: list[Value] = [domain, number, ADOPTION]
        found = [("rules", id_, self.version(*id_))]
        return [("rules", [domain], self.version(domain)), *found] if head else found

    def proposal(self, text: str, author: str = "chief_t", **more: Any) -> Transaction:
        """Return the transaction that proposes a rule set."""
        definition = load_toml(text)
        domain, number = definition.domain, definition.number
        call = ("charter.propose_rules", domain, number, encode_definition(definition))
        expects = [("rules", [domain], self.version(domain))]
        return self.draft(author, call, **{"expects": expects, **more})

    def propose(self, text: str, author: str = "chief_t") -> Decision:
        """Propose a rule set in a block of its own."""
        return self.one(self.proposal(text, author))

    def activate(
        self,
        domain: str,
        number: int,
        from_ms: int | None = None,
        author: str = "chief_t",
        cosigners: Sequence[str] = (),
    ) -> Decision:
        """Activate a rule set, as soon as may be unless a time is given."""
        if from_ms is None:
            from_ms = self.now_ms + 1000 + NOTICE_MS
        call = ("charter.activate_rules", domain, number, from_ms)
        expects = self.expects(domain, number, head=True)
        return self.one(self.draft(author, call, expects=expects, cosigners=cosigners))

    def object(self, domain: str, number: int, author: str) -> Decision:
        """Object to a rule set."""
        return self.do(author, "charter.object_rules", domain, number)

    def withdraw(self, domain: str, number: int, author: str = "chief_t") -> Decision:
        """Take a rule set back."""
        expects = self.expects(domain, number, head=False)
        return self.do(author, "charter.withdraw_rules", domain, number, expects=expects)

    def adopt(self, text: str, **more: Any) -> int:
        """Propose and activate a rule set; return from when it is in force."""
        definition = load_toml(text)
        proposed = self.propose(text)
        assert proposed.code == Code.APPLIED, (proposed.code, proposed.detail)
        from_ms = self.now_ms + 1000 + NOTICE_MS
        done = self.activate(definition.domain, definition.number, from_ms, **more)
        assert done.code == Code.APPLIED, (done.code, done.detail)
        return from_ms

    def wait_until(self, time_ms: int) -> None:
        """Let chain time pass, so that the next block is at ``time_ms``."""
        self.now_ms = time_ms - 1000
