"""Rule sets of a small network for tests, and ways to change one line of them."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from consensus.ledger.model import Rulebook
from consensus.ledger.rules import Definition, compile_rulebook, load_toml

IDENTITY = """\
domain = "identity"
number = 3
legal_basis = "Civil Registration Act"
exports = ["person.status", "person.region", "licence"]

[kinds.person]
fields.street  = { type = "text", open = true, group = "address" }
fields.town    = { type = "text", open = true, group = "address" }
fields.region  = { type = "text", open = true }
fields.income  = { type = "money", currency = "USD" }
fields.died    = { type = "date", optional = true }
fields.photo   = { type = "digest", optional = true, since = 2 }
status = { start = "alive", steps = { alive = ["dead"], dead = [] } }
hold_by = ["payments"]

[kinds.licence]
fields.owner = { type = "ref", kind = "person" }

[actions.register]
actor  = { role = "identity.registrar" }
inputs = { token = "token:identity", street = "text", town = "text", region = "text" }
create = [ { kind = "person", id = "{input.token}", set = { street = "input.street", town = "input.town", region = "input.region", income = "0" } } ]

[actions.move_house]
actor  = { self = "person.id" }
inputs = { person = "ref:person", street = "text", town = "text" }
load   = [ ["person", "person/{input.person}"] ]
set    = [ { record = "person", fields = { street = "input.street", town = "input.town" } } ]
"""

BENEFITS = """\
domain = "benefits"
number = 12
legal_basis = "Child Benefit Act"
uses = { identity = ["person.status", "person.region"] }
exports = ["entitlement.*"]

[params]
large = { by = "now", type = "int", values = [ { from = "2026-01", value = 100 }, { from = "2027-01-15", value = 200 } ] }
rates = { by = "now", type = "list:money:USD", values = [ { from = "2026-01", value = [5, 6] } ] }

[kinds.entitlement]
fields.person  = { type = "ref", kind = "person" }
fields.monthly = { type = "money", currency = "USD" }
fields.note    = { type = "text", sealed_for = ["treasury", "audit"], optional = true }
status = { start = "granted", steps = { granted = ["active", "ended"], active = ["suspended", "ended"], suspended = ["active"] }, stops = ["suspended", "ended"] }

[kinds.revision]
fields.entitlement = { type = "ref", kind = "entitlement" }

[actions.grant]
summary = "Grant a benefit"
legal   = "section 4"
actor   = { role = "benefits.officer", where = "who.scope.region == person.region" }
inputs  = { person = "ref:person", monthly = "money:USD", note = "sealed:audit,treasury?" }
load    = [ ["person", "person/{input.person}"] ]
depends = ["person.status"]
require = [ { code = "DEAD", that = "person.status == 'alive'", say = "the person is dead" },
            { code = "LARGE", that = "input.monthly <= params.large", say = "too large" } ]
unique  = [["benefit", "{input.person}", "child"]]
create  = [ { kind = "entitlement", id = "{tx}", set = { person = "input.person", monthly = "input.monthly", note = "input.note" }, basis = ["person.status"] } ]

[actions.approve]
actor   = { role = "benefits.manager", not = ["ent.by.created", "ent.person"], not_agency = ["ent.by.created"] }
inputs  = { entitlement = "ref:entitlement" }
load    = [ ["ent", "entitlement/{input.entitlement}"] ]
fresh   = ["ent"]
depends = ["ent.status", "ent.monthly"]
set     = [ { record = "ent", status = "active", fields = { monthly = "ent.monthly + item(params.rates, 0)" }, basis = [] } ]
create  = [ { kind = "revision", id = ["{input.entitlement}", "first"], set = { entitlement = "input.entitlement" } } ]

[actions.suspend]
phase  = "protective"
actor  = { role = "benefits.officer" }
inputs = { entitlement = "ref:entitlement" }
load   = [ ["ent", "entitlement/{input.entitlement}"] ]
set    = [ { record = "ent", status = "suspended" } ]
"""

PAYMENTS = """\
domain = "payments"
number = 7
legal_basis = "Public Finance Act"
uses = { benefits = ["entitlement.status", "entitlement.monthly", "entitlement.person"], identity = ["licence"] }

[accounts.program]
currency = "USD"
floor = -500
debit_by = ["benefits"]
hold_by = ["benefits"]

[accounts.payee]
currency = "USD"

[accounts.euros]
currency = "EUR"

[actions.open_payee]
actor  = { role = "payments.officer" }
inputs = { person = "ref:person" }
open   = [ { account = "account/payee/{input.person}" } ]

[actions.disburse]
actor  = { role = "payments.officer" }
inputs = { entitlement = "ref:entitlement", period = "month" }
load   = [ ["ent", "entitlement/{input.entitlement}"], ["prog", "account/program"] ]
fresh  = ["ent"]
require = [ { code = "NOT_ACTIVE", that = "ent.status == 'active'", say = "the entitlement is not active" },
            { code = "FUNDS", that = "prog.balance > ent.monthly", say = "the programme is spent" } ]
unique = [["payment", "{input.entitlement}", "{input.period}"]]
move   = [ { from = "account/program", to = "account/payee/{ent.person}", amount = "ent.monthly" } ]
ignores_holds = [ { scope = "edit", reason = "paying edits nothing" } ]

[actions.freeze]
phase  = "protective"
actor  = { role = "payments.auditor" }
inputs = { person = "ref:person", until = "time?" }
place_hold = [ { target = "person/{input.person}", scopes = ["pay", "all"], until = "input.until", reason = "under review" },
               { target = "account/payee/{input.person}", scopes = ["pay"], reason = "under review" } ]

[actions.thaw]
actor  = { role = "payments.auditor" }
inputs = { person = "ref:person", hold = "digest" }
release_hold = [ { target = "person/{input.person}", hold = "input.hold" } ]
"""

CHARTER = """\
domain = "charter"
number = 1
legal_basis = "Agreement of the agencies"

[actions.add_key]
kernel = true
actor = { role = "charter.administrator", where = "who.agency == input.agency" }

[actions.revoke_key]
kernel = true
actor = { role = "charter.administrator" }
require = [ { code = "OWN", that = "who.agency == input.agency", say = "another agency's key" } ]
"""

TEXTS = {
    "identity": IDENTITY, "benefits": BENEFITS, "payments": PAYMENTS, "charter": CHARTER,
}  # fmt: skip


def definitions(**changed: str) -> list[Definition]:
    """All rule sets, with some texts replaced; files are called ``<domain>.toml``."""
    texts = TEXTS | changed
    return [load_toml(text, f"{domain}.toml") for domain, text in texts.items()]


def rulebook(**changed: str) -> Rulebook:
    return compile_rulebook(definitions(**changed))


def edited(domain: str, old: str, new: str) -> str:
    """The text of a domain with one occurrence of ``old`` replaced."""
    text = TEXTS[domain]
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    """The 1-based line on which ``part`` begins."""
    return text[: text.index(part)].count("\n") + 1
