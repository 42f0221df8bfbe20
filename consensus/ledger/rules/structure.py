"""The structure of a rule set: which keys a table has, of what form, in which order.

This is the one list of what a rule set may say; both forms are read by it, and the order of the
attributes is the order of the canonical arrays. ``later`` names keys of the language that this
version refuses. Source: docs/formats/rules.md.

Not here: what the keys mean (``compile``).
"""

from __future__ import annotations

from typing import Any, Final

from consensus.ledger.expr import SOURCE_CHARACTERS_MAX
from consensus.ledger.model import HOLD_SCOPES, HOLD_TARGETS_MAX
from consensus.ledger.rules.definition import (
    ACTIONS_MAX,
    DEFINITIONS_MAX,
    DOMAINS_MAX,
    EFFECTS_MAX,
    FAMILIES_MAX,
    FIELDS_MAX,
    INDEXES_MAX,
    INPUTS_MAX,
    KINDS_MAX,
    LETS_MAX,
    LOADS_MAX,
    NUMBER_MAX,
    PARAM_VALUES_MAX,
    PARAMS_MAX,
    PATHS_MAX,
    READ_RULES_MAX,
    REQUIREMENTS_MAX,
    SEPARATE_MAX,
    SEPARATE_ROLES_MAX,
    STATUSES_MAX,
    UNIQUE_MAX,
    AccountDef,
    ActionDef,
    ActorDef,
    CreateDef,
    DatedDef,
    Definition,
    FieldDef,
    IgnoreDef,
    IndexDef,
    KindDef,
    MoveDef,
    OpenDef,
    ParamDef,
    PlaceHoldDef,
    PostDef,
    ReadDef,
    ReleaseHoldDef,
    RequireDef,
    ReserveDef,
    ReversibleDef,
    SetDef,
    StatusDef,
    VoidDef,
    WaterfallDef,
)
from consensus.ledger.rules.emergency import EMERGENCY
from consensus.ledger.rules.policies import PolicyNode
from consensus.ledger.rules.schema import (
    Attr,
    Flag,
    Integer,
    Many,
    Place,
    Plain,
    Row,
    Struct,
    Table,
    Template,
    Text,
    Variants,
)
from consensus.ledger.terms import WITHIN_DAYS_MAX
from consensus.ledger.types import ID_COMPONENTS_MAX, LIST_ITEMS_MAX

_name = Text(64)
_path = Text(200)
_prose = Text(1000)
_expression = Text(4 * SOURCE_CHARACTERS_MAX)
_paths = Many(_path, PATHS_MAX)
_template = Text(512)
_plain = Plain(LIST_ITEMS_MAX)
_LET_FORM: Final = 'a name and an expression, such as ["due", "ent.monthly * input.months"]'
_LOAD_FORM: Final = 'a load such as ["ent", "entitlement/{input.entitlement}"]'


def _field_type(table: dict[str, Any], place: Place) -> dict[str, Any]:
    """Join ``type = "ref", kind = "person"`` and ``type = "money", currency = "USD"``."""
    table = dict(table)
    for base, key in (("ref", "kind"), ("money", "currency")):
        if key not in table:
            continue
        argument = table.pop(key)
        if table.get("type") != base or not isinstance(argument, str):
            place.of(key).fault(f'{key} goes with type = "{base}"', f'write type = "{base}:…"')
        else:
            table["type"] = f"{base}:{argument}"
    return table


def _hold_targets(table: dict[str, Any], place: Place) -> dict[str, Any]:
    """Take ``target = "…"`` for ``targets = ["…"]``."""
    if "target" not in table:
        return table
    table = dict(table)
    one = table.pop("target")
    if "targets" in table:
        place.of("targets").fault("a hold has either target or targets", "name all in targets")
    return {**table, "targets": [one]}


_FIELD: Final = Struct(
    FieldDef,
    (
        Attr("type", _name),
        Attr("optional", Flag(), False),
        Attr("open", Flag(), False),
        Attr("sealed_for", Many(_name, 16), ()),
        Attr("group", _name, ""),
        Attr("since", Integer(1, DEFINITIONS_MAX), 1),
    ),
    prepare=_field_type,
)
_INDEX: Final = Struct(
    IndexDef,
    (Attr("field", _name),),
    more=(Attr("condition", _expression, "", key="while"),),
    short="field",
)
_READ: Final = Struct(
    ReadDef,
    (
        Attr("role", _path, ""),
        Attr("agency", _name, ""),
        Attr("own", _path, "", key="self"),
        Attr("anyone", Flag(), False),
        Attr("where", _expression, ""),
    ),
)
_READING: Final = (
    Attr("read", Many(_READ, READ_RULES_MAX), None),
    Attr("record_class", _name, "", key="class"),
    Attr("log_reads", Flag(), False),
)
"""Who reads records and accounts."""
KIND: Final = Struct(
    KindDef,
    (
        Attr("fields", Table(_FIELD, FIELDS_MAX, ordered=True), ()),
        Attr(
            "status",
            Struct(
                StatusDef,
                (
                    Attr("start", _name),
                    Attr("steps", Table(Many(_name, STATUSES_MAX), STATUSES_MAX)),
                    Attr("stops", Many(_name, STATUSES_MAX), ()),
                ),
            ),
            None,
        ),
        Attr("hold_by", Many(_name, DOMAINS_MAX), ()),
    ),
    more=(Attr("index", Many(_INDEX, INDEXES_MAX), ()), *_READING),
)
ACCOUNT: Final = Struct(
    AccountDef,
    (
        Attr("currency", _name),
        Attr("floor", Integer(), 0),
        Attr("debit_by", Many(_name, DOMAINS_MAX), ()),
        Attr("hold_by", Many(_name, DOMAINS_MAX), ()),
    ),
    more=_READING,
)
PARAM: Final = Struct(
    ParamDef,
    (
        Attr("type", _name),
        Attr("by", _name),
        Attr(
            "values",
            Many(
                Struct(
                    DatedDef,
                    (Attr("start", _name, key="from"), Attr("value", _plain)),
                ),
                PARAM_VALUES_MAX,
            ),
        ),
    ),
)
_ACTOR: Final = Struct(
    ActorDef,
    (
        Attr("role", _path, ""),
        Attr("own", _path, "", key="self"),
        Attr("where", _expression, ""),
        Attr("excluded", Many(_path, 8), (), key="not"),
        Attr("excluded_agencies", Many(_path, 8), (), key="not_agency"),
    ),
)
_WHEN: Final = Attr("when", _expression, "")
_SOURCE: Final = Attr("source", _template, key="from")
_RESERVATION: Final = Attr("id", Template(ID_COMPONENTS_MAX))
_assignments = Table(_expression, FIELDS_MAX)
_EFFECTS: Final = Variants(
    "effects",
    (
        (
            "create",
            Struct(
                CreateDef,
                (
                    Attr("kind", _name),
                    Attr("id", Template(ID_COMPONENTS_MAX)),
                    Attr("values", _assignments, (), key="set"),
                    Attr("basis", _paths, ()),
                ),
                more=(_WHEN,),
            ),
        ),
        (
            "set",
            Struct(
                SetDef,
                (
                    Attr("record", _name),
                    Attr("status", _name, ""),
                    Attr("fields", _assignments, ()),
                    Attr("basis", _paths, None),
                ),
                more=(_WHEN,),
            ),
        ),
        (
            "move",
            Struct(
                MoveDef,
                (
                    _SOURCE,
                    Attr("target", _template, key="to"),
                    Attr("amount", _expression),
                ),
                more=(_WHEN,),
            ),
        ),
        ("open", Struct(OpenDef, (Attr("account", _template),), more=(_WHEN,))),
        (
            "place_hold",
            Struct(
                PlaceHoldDef,
                (
                    Attr("targets", Many(_template, HOLD_TARGETS_MAX)),
                    Attr("scopes", Many(_name, len(HOLD_SCOPES))),
                    Attr("until", _expression, ""),
                    Attr("reason", _prose, ""),
                ),
                more=(_WHEN, Attr("legal", _prose, "")),
                prepare=_hold_targets,
            ),
        ),
        (
            "release_hold",
            Struct(
                ReleaseHoldDef,
                (Attr("target", _template), Attr("hold", _expression)),
                more=(_WHEN,),
            ),
        ),
        (
            "reserve",
            Struct(
                ReserveDef,
                (_RESERVATION, _SOURCE, Attr("amount", _expression)),
                more=(Attr("expires", _expression, ""), _WHEN),
            ),
        ),
        (
            "post",
            Struct(
                PostDef,
                (_RESERVATION, _SOURCE, Attr("target", _template, key="to")),
                more=(Attr("amount", _expression, ""), Attr("keep", Flag(), False), _WHEN),
            ),
        ),
        ("void", Struct(VoidDef, (_RESERVATION, _SOURCE), more=(_WHEN,))),
        (
            "waterfall",
            Struct(
                WaterfallDef,
                (
                    _SOURCE,
                    Attr("amount", _expression),
                    Attr("each", _name),
                    Attr("up_to", _expression),
                    Attr("target", _template, key="to"),
                ),
                more=(Attr("rest", _template, ""), _WHEN),
            ),
        ),
    ),
    EFFECTS_MAX,
    single=("waterfall",),
)
_IGNORE: Final = Struct(IgnoreDef, (Attr("scope", _name), Attr("reason", _prose)))
_REVERSIBLE: Final = Struct(
    ReversibleDef,
    (
        Attr("by", _path),
        Attr("within_days", Integer(1, WITHIN_DAYS_MAX)),
        Attr("shortfall", _template, ""),
        Attr("unique", _name, "keep"),
    ),
    more=(Attr("approvals", PolicyNode(), None),),
)
ACTION: Final = Struct(
    ActionDef,
    (
        Attr("kernel", Flag(), False),
        Attr("phase", _name, ""),
        Attr("summary", _prose, ""),
        Attr("legal", _prose, ""),
        Attr("actor", _ACTOR),
        Attr("inputs", Table(_path, INPUTS_MAX, ordered=True), ()),
        Attr(
            "load",
            Many(
                Row((_name, _template), _LOAD_FORM),
                LOADS_MAX,
            ),
            (),
        ),
        Attr("fresh", Many(_name, LOADS_MAX), ()),
        Attr("depends", _paths, ()),
        Attr(
            "require",
            Many(
                Struct(
                    RequireDef,
                    (Attr("code", _name), Attr("that", _expression), Attr("say", _prose)),
                ),
                REQUIREMENTS_MAX,
            ),
            (),
        ),
        Attr("unique", Many(Many(_template, ID_COMPONENTS_MAX + 1), UNIQUE_MAX), ()),
        _EFFECTS,
        Attr(
            "ignores_holds",
            Many(_IGNORE, len(HOLD_SCOPES)),
            (),
        ),
    ),
    more=(
        Attr("approvals", PolicyNode(), None),
        Attr("emergency", EMERGENCY, None),
        Attr("lets", Many(Row((_name, _expression), _LET_FORM), LETS_MAX), (), key="let"),
        Attr("objections", PolicyNode(), None),
        Attr("period", _path, ""),
        Attr("quiet", Flag(), False),
        Attr("reversible", _REVERSIBLE, None),
    ),
)
DEFINITION: Final = Struct(
    Definition,
    (
        Attr("domain", _name),
        Attr("number", Integer(1, NUMBER_MAX)),
        Attr("legal_basis", _prose),
        Attr("uses", Table(_paths, DOMAINS_MAX), ()),
        Attr("exports", _paths, ()),
        Attr("params", Table(PARAM, PARAMS_MAX), ()),
        Attr("kinds", Table(KIND, KINDS_MAX), ()),
        Attr("accounts", Table(ACCOUNT, FAMILIES_MAX), ()),
        Attr("actions", Table(ACTION, ACTIONS_MAX), ()),
    ),
    more=(Attr("separate", Many(Many(_path, SEPARATE_ROLES_MAX), SEPARATE_MAX), ()),),
)
