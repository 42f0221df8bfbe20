"""A network for tests of approval policies: people of three agencies, and an action for a policy.

ada, ada's    one person: a clerk of the treasury, a supervisor of audit
sam, sam's    one person: a supervisor of the treasury, a supervisor of audit
sue           a supervisor of the treasury, in the south
max           a supervisor of audit; cora its compliance officer; both: dora
bot           a supervisor of the registry, no person
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from functools import cache
from typing import Any

from blake3 import blake3

from consensus.codec import Value
from consensus.genesis import Genesis, Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.transaction import Transaction
from tests.consensus.ledger.world import CHARTER, World, make_genesis, public_key, token

PEOPLE: dict[str, tuple[str, int, str, str, tuple[str, ...]]] = {
    # name: agency, kind, subject, region, roles
    "admin": ("treasury", 0, "admin", "north", ("charter.admin",)),
    "ada": ("treasury", 0, "ada", "north", ("desk.clerk",)),
    "ada's": ("audit", 0, "ada", "north", ("desk.supervisor",)),
    "sam": ("treasury", 0, "sam", "north", ("desk.supervisor",)),
    "sam's": ("audit", 0, "sam", "north", ("desk.supervisor",)),
    "sue": ("treasury", 0, "sue", "south", ("desk.supervisor",)),
    "max": ("audit", 0, "max", "north", ("desk.supervisor",)),
    "cora": ("audit", 0, "cora", "north", ("audit.compliance",)),
    "dora": ("audit", 0, "dora", "north", ("audit.compliance", "desk.supervisor")),
    "bot": ("registry", 1, "", "north", ("desk.supervisor",)),
}

DESK = """\
domain = "desk"
number = 1
legal_basis = "Desk Act"

[params]
large = {{ by = "now", type = "int", values = [ {{ from = "2026-01", value = 100 }}, {{ from = "2026-01-03", value = 50 }} ] }}
rate  = {{ by = "period", type = "int", values = [ {{ from = "2026-01", value = 1 }}, {{ from = "2026-03", value = 9 }} ] }}
later = {{ by = "now", type = "int", values = [ {{ from = "2027-01", value = 100 }} ] }}

[kinds.file]
fields.amount = {{ type = "int" }}
fields.region = {{ type = "text", open = true }}
fields.owner  = {{ type = "digest", optional = true }}
fields.agency = {{ type = "text", open = true, optional = true }}
status = {{ start = "open", steps = {{ open = ["sent"], sent = ["closed"], closed = [] }}, stops = ["closed"] }}

[actions.open_file]
actor  = {{ role = "desk.clerk" }}
inputs = {{ name = "text", amount = "int", region = "text", owner = "digest?", agency = "text?" }}
create = [ {{ kind = "file", id = ["{{input.name}}"], set = {{ amount = "input.amount", region = "input.region", owner = "input.owner", agency = "input.agency" }} }} ]

[actions.open_by_supervisor]
actor  = {{ role = "desk.supervisor" }}
inputs = {{ name = "text" }}
create = [ {{ kind = "file", id = ["{{input.name}}"], set = {{ amount = "1", region = "'north'" }} }} ]

[actions.send]
actor     = {{ role = "{actor}" }}
inputs    = {{ file = "ref:file", ok = "bool" }}
load      = [ ["file", "file/{{input.file}}"], ["other?", "file/other"] ]
let       = [ ["twice", "file.amount * 2"] ]
require   = [ {{ code = "OK", that = "input.ok", say = "not ok" }} ]
set       = [ {{ record = "file", status = "sent" }} ]
approvals = {policy}

[actions.set_month]
actor     = {{ role = "desk.clerk" }}
inputs    = {{ file = "ref:file", month = "month" }}
load      = [ ["file", "file/{{input.file}}"] ]
period    = "input.month"
set       = [ {{ record = "file", fields = {{ amount = "params.rate" }} }} ]
approvals = {{ role = "desk.supervisor", when = "params.rate > 5" }}

[actions.stop]
phase     = "protective"
actor     = {{ role = "desk.clerk" }}
inputs    = {{ file = "ref:file" }}
load      = [ ["file", "file/{{input.file}}"] ]
set       = [ {{ record = "file", status = "closed" }} ]
approvals = {{ role = "desk.supervisor" }}
"""


@cache
def genesis_with(
    policy: str, actor: str = "desk.clerk", charter: str = CHARTER, more: str = ""
) -> Genesis:
    """Return the genesis of the network where ``desk.send`` has a policy."""
    desk = DESK.format(policy=policy, actor=actor)
    return make_genesis(
        (charter, desk.replace("\n[params]\n", f"{more}\n[params]\n")),
        principals=tuple(
            Principal(token(name), agency, kind, token(subject) if subject else None)
            for name, (agency, kind, subject, _, _) in PEOPLE.items()
        ),
        keys=tuple((public_key(name), token(name)) for name in PEOPLE),
        roles=tuple(
            RoleGiven(token(name), role, (("region", region),))
            for name, (_, _, _, region, roles) in PEOPLE.items()
            for role in roles
        ),
        accounts=(),
    )


class Desk(World):
    """The network with a file ``f``, of an amount of 10 in the north, which is to be sent."""

    def __init__(
        self,
        policy: str,
        *,
        actor: str = "desk.clerk",
        amount: int = 10,
        owner: Value = None,
        agency: Value = None,
        charter: str = CHARTER,
        more: str = "",
    ) -> None:
        super().__init__(genesis_with(policy, actor, charter, more))
        inputs = ("f", amount, "north", owner, agency)
        made = self.do("ada", "desk.open_file", *inputs, expects=[("file", ["f"], 0)])
        assert made.code == Code.APPLIED, made.detail

    def sending(
        self, *cosigners: str, author: str = "ada", ok: bool = True, **more: Any
    ) -> Transaction:
        """Return the sending of the file, signed by an author and others."""
        call = ("desk.send", ["f"], ok)
        return self.draft(author, call, expects=[("file", ["f"], 1)], cosigners=cosigners, **more)

    def send(self, *cosigners: str, author: str = "ada", ok: bool = True) -> Decision:
        """Send the file and return what came of it."""
        return self.one(self.sending(*cosigners, author=author, ok=ok))


def missing(decision: Decision) -> list[Value]:
    """Return the detail of a refusal for lack of approvals, without the reasons."""
    assert decision.code == Code.NEEDS_APPROVAL, (decision.code, decision.detail)

    def plain(part: Value) -> Value:
        match part:
            case ["role", role, more, distinct, _]:
                return [role, more, distinct] if distinct else [role, more]
            case ["of", more, parts]:
                return [more, *map(plain, parts)]
        return part

    return [plain(part) for part in decision.detail]


def reasons(decision: Decision) -> dict[str, Value]:
    """Return why each approver does not fill the first leaf that is missing, by name."""
    assert decision.code == Code.NEEDS_APPROVAL, (decision.code, decision.detail)
    names = {token(name): name for name in PEOPLE}
    return {names[who]: why for who, why in decision.detail[0][4]}


def digest() -> str:
    """Return a digest of what comes of policies that leave much to be searched."""
    total = blake3()
    both = '{ role = "desk.supervisor", count = 2, distinct = "person" }'
    either = f'{{ of = 2, distinct = "agency", among = [ {both}, {{ role = "audit.compliance" }}, {{ role = "desk.supervisor" }} ] }}'
    for policy in (both, either):
        desk = Desk(policy)
        for cosigners in ((), ("cora",), ("sam", "sam's", "dora"), ("sue", "max", "dora", "bot")):
            result = desk.run(desk.sending(*cosigners))
            total.update(result.results_root)
            for write in result.writes:
                total.update(write.kh + write.vh + write.row)
    return total.hexdigest()


if __name__ == "__main__":
    print(digest())
