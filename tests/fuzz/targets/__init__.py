"""Every target, by name. One file a group of readers; each entry takes bytes and may only return or
raise the error that the reader documents.
"""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    client,
    consensus,
    evidence,
    files,
    operators,
    peers,
    rules,
    state,
    storage,
)

GROUPS = (consensus, state, files, operators, client, peers, evidence, rules, storage)
TARGETS: dict[str, Target] = {each.name: each for group in GROUPS for each in group.TARGETS}
