"""The kernel's actions: what the charter's rule set may allow, with inputs in their order.

The charter (domain ``charter``) says who may do each of these and under which conditions; what
they do is fixed here and in this package. An action that is not listed does not exist: a charter
that names it is refused when it is checked, a transaction that calls it gets ``UNKNOWN_ACTION``.

Input types are those of rule sets, and ``ref`` alone (the component array of any id),
``list:text``, ``definition`` (a rule set in its canonical form), ``evidence`` (what an earlier
transaction did) and ``changes`` (of the committee). A type that ends in ``?`` may be null. Where an
act concerns somebody of an agency, the agency is an input and the kernel checks that it is the
right one, so a charter can say ``where = "who.agency == input.agency"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHARTER: Final = "charter"
"""The domain whose actions these are."""


@dataclass(frozen=True, slots=True)
class KernelAction:
    """``inputs`` in their order as (name, type); ``protective`` acts run in the first phase."""

    inputs: tuple[tuple[str, str], ...]
    protective: bool = False


_ROTATION: Final = (
    ("agency", "text"),
    ("principal", "digest"),
    ("key", "bytes"),
    ("new", "bytes"),
    ("until", "time?"),  # when the replaced key ends by itself; null: at once
)

_PASSED_ON: Final = (
    ("to_principal", "digest?"),  # to somebody, or else
    ("to_agency", "text?"),  # to whoever has
    ("to_role", "text?"),  # this role there
    ("actions", "list:text"),  # domain.action; ascending
    ("when", "text?"),  # a condition, judged with each of the actions
    ("from", "time"),
    ("until", "time?"),
    ("depth", "int"),  # grants that a chain may have from this one on
)

KERNEL_ACTIONS: Final[dict[str, KernelAction]] = {
    "add_agency": KernelAction((("agency", "text"), ("title", "text"))),
    # Under the floor: a quorum of agencies. See ``kernel.entering``.
    "admit_agency": KernelAction(
        (
            ("agency", "text"),
            ("title", "text"),
            ("principal", "digest"),  # its first administrator
            ("subject", "digest?"),  # the registrar's token of the person; null for a system
            ("key", "bytes"),
            ("scope", "list:text"),  # of the administrator's role: name, value, …; names ascending
        )
    ),
    "suspend_agency": KernelAction((("agency", "text"),), protective=True),
    "reinstate_agency": KernelAction((("agency", "text"),)),
    # A leaving agency names its successor, which takes its place by accepting; null withdraws.
    "name_successor": KernelAction((("agency", "text"), ("successor", "text?"))),
    "accept_succession": KernelAction((("agency", "text"), ("predecessor", "text"))),
    "add_principal": KernelAction(
        (
            ("agency", "text"),
            ("principal", "digest"),
            ("kind", "text"),  # official, system or citizen
            ("subject", "digest?"),  # the registrar's token of the person; an official has one
            ("person", "ref?"),  # a citizen's own record of kind person; null for others
        )
    ),
    "suspend_principal": KernelAction(
        (("agency", "text"), ("principal", "digest")), protective=True
    ),
    "reinstate_principal": KernelAction((("agency", "text"), ("principal", "digest"))),
    "add_key": KernelAction((("agency", "text"), ("principal", "digest"), ("key", "bytes"))),
    "rotate_key": KernelAction(_ROTATION),  # with the key that is replaced, as oneself
    "replace_key": KernelAction(_ROTATION),  # by whoever the charter says, an administrator
    "revoke_key": KernelAction(
        (("agency", "text"), ("principal", "digest"), ("key", "bytes"), ("compromised", "bool")),
        protective=True,
    ),
    "give_role": KernelAction(
        (
            ("agency", "text"),
            ("principal", "digest"),
            ("role", "text"),
            ("scope", "list:text"),  # name, value, name, value, …; names ascending
            ("from", "time"),
            ("until", "time?"),
        )
    ),
    "revoke_role": KernelAction(
        (("agency", "text"), ("principal", "digest"), ("role", "text")), protective=True
    ),
    "give_grant": KernelAction(
        (
            ("agency", "text"),  # whose office
            ("office", "digest"),  # a principal of kind system that has the role
            ("role", "text"),
            *_PASSED_ON,
        )
    ),
    "pass_grant": KernelAction((("grant", "digest"), *_PASSED_ON)),
    "revoke_grant": KernelAction((("agency", "text"), ("grant", "digest")), protective=True),
    "propose_rules": KernelAction((("domain", "text"), ("number", "int"), ("rules", "definition"))),
    "activate_rules": KernelAction((("domain", "text"), ("number", "int"), ("from", "time"))),
    "activate_executor": KernelAction((("number", "int"), ("from", "time"))),
    # Under the floor likewise, after the genesis notice: see ``kernel.committee``.
    "change_committee": KernelAction(
        (("number", "int"), ("changes", "changes"), ("from", "time?"))  # null: after the notice
    ),
    "object_committee": KernelAction((("number", "int"),), protective=True),
    "object_rules": KernelAction((("domain", "text"), ("number", "int")), protective=True),
    "withdraw_rules": KernelAction((("domain", "text"), ("number", "int"))),
    # An act on a proposal names it by its txid. Objecting and withdrawing only stop.
    "approve": KernelAction((("proposal", "digest"),)),
    "approve_protective": KernelAction((("proposal", "digest"),), protective=True),
    "object": KernelAction((("proposal", "digest"), ("reason", "text")), protective=True),
    "withdraw": KernelAction((("proposal", "digest"),), protective=True),
    # Of the use of an emergency form, by whoever has the role that it names.
    "review": KernelAction((("review", "digest"), ("justified", "bool"))),
    "open_account": KernelAction((("family", "text"), ("id", "ref"))),
    # Under the floor: a quorum of agencies, and the genesis notice.
    "issue_money": KernelAction((("family", "text"), ("id", "ref"), ("amount", "int"))),
    "retire_money": KernelAction((("family", "text"), ("id", "ref"), ("amount", "int"))),
    "place_hold": KernelAction(
        (
            ("targets", "list:ref"),  # each [record | account | action | domain | agency, [id]]
            ("scopes", "list:text"),  # of all, pay, edit; ascending
            ("until", "time?"),
            ("legal", "text"),  # what it rests on
        ),
        protective=True,
    ),
    "confirm_hold": KernelAction((("hold", "digest"), ("until", "time?"))),
    # By whoever placed it; or by whoever the charter says of the agency that did, a superior.
    "withdraw_hold": KernelAction((("hold", "digest"),)),
    "release_hold": KernelAction((("agency", "text"), ("hold", "digest"))),
    # By whoever has the role that the action names in ``reversible``, on the terms it gives.
    "reverse": KernelAction((("transaction", "digest"), ("evidence", "evidence"))),
    # Of a record that one may read oneself; what leaves a node for the audience rests on it.
    "disclose": KernelAction(
        (
            ("kind", "text"),
            ("id", "ref"),
            ("version", "int"),  # that is shown; 0: the present one
            ("fields", "list:text"),  # or groups of fields; ascending
            ("audience", "ref"),  # [principal, id], [agency, name] or [party, name]
            ("purpose", "text"),
            ("legal", "text"),  # what it rests on
            ("until", "time"),
        )
    ),
    # The values that sealed fields of a record have had; by an agency for which they are sealed.
    "erase": KernelAction(
        (
            ("agency", "text"),
            ("kind", "text"),
            ("id", "ref"),
            ("fields", "list:text"),  # ascending
            ("legal", "text"),  # what it rests on
        )
    ),
}

RELEASING: Final = ("confirm_hold", "withdraw_hold", "release_hold")
"""Kernel actions that no hold stops."""
