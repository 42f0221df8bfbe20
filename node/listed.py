"""What the node's own index lists: records, and the kernel's objects by their kinds.

A row of a kernel object does not name its place; its value begins with the components, and the key
path says whether that guess is right. Accounts and slots, which most blocks write, are told apart
by one byte.

Not here: when entries are written (``flushing``), and pages of them (``backend``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.layout import Paths, encode_id, encode_text
from consensus.ledger.proposals import Proposal
from consensus.state.record import (
    SINGLE_VALUE_AT,
    decode_row,
    decode_single,
    is_record_row,
    is_single_row,
    place_of_row,
)
from consensus.state.state import Row
from node.storage.tables import KEY_BYTES_MAX

KERNEL_KINDS: Final = {
    "agency": (1, len(layout.Agency._fields)),
    "grant": (1, len(layout.Grant._fields)),
    "hold": (1, len(layout.Hold._fields)),
    "key": (1, len(layout.Key._fields)),
    "principal": (1, len(layout.Principal._fields)),
    "proposal": (1, len(Proposal._fields)),
    "role": (2, len(layout.Role._fields)),
}
"""Kernel objects that are listed: how many components they have, and how many items."""
_BY_HEAD: Final = {
    0x80 + items: [(kind, count) for kind, (count, each) in KERNEL_KINDS.items() if each == items]
    for _, items in KERNEL_KINDS.values()
}
"""First byte of a leaf's value -> kinds that it may be."""


def index_key(kind: str, id_: Sequence[Value]) -> bytes:
    """Return the key of a record in the node's own index: its kind, then its id, as CBOR."""
    return encode_text(kind) + encode_id(id_)


def index_entries(
    rows: Iterable[tuple[bytes, Row]], is_stored: Callable[[bytes], bool], paths: Paths
) -> list[tuple[bytes, bytes | None]]:
    """Return what new records and kernel objects among written rows add to the node's own index.

    Args:
        rows: as they are at the flushed height; a new one may have been written again since.
        is_stored: whether the store has a row of that key already.
        paths: of the network.
    """
    entries: list[tuple[bytes, bytes | None]] = []
    for kh, row in rows:
        value = row.value
        if is_record_row(value):
            version, key = place_of_row(value)
        elif is_single_row(value) and value[SINGLE_VALUE_AT] in _BY_HEAD:
            found = _kernel_place(kh, value, paths)
            if found is None:
                continue
            key = index_key(*found)
            version = int.from_bytes(value[:8], "big")
        else:
            continue
        new = version == 1 or not is_stored(kh)
        if new and len(key) <= KEY_BYTES_MAX:
            entries.append((key, kh))
    return entries


def id_of(kind: str, row: bytes) -> tuple[Value, ...]:
    """Return the id of what the index lists under a kind, from its row."""
    if kind in KERNEL_KINDS:
        count, _ = KERNEL_KINDS[kind]
        return tuple(codec.parse(decode_single(row)[2], kind)[:count])
    return tuple(decode_row(row).id)


def _kernel_place(kh: bytes, row: bytes, paths: Paths) -> tuple[str, list[Value]] | None:
    value = codec.parse(row[SINGLE_VALUE_AT:], "leaf")
    for kind, count in _BY_HEAD[row[SINGLE_VALUE_AT]]:
        components = value[:count]
        plain = all(type(each) in (bytes, str) for each in components)
        if plain and paths(kind, components) == kh:
            return kind, components
    return None
