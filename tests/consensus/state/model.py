"""The state's structures written a second time, from docs/formats/state.md, slowly and plainly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cbor2
from blake3 import blake3

ZERO = bytes(32)


def digest(purpose: str, data: bytes, length: int = 32) -> bytes:
    context = f"comity 2026-11-21 {purpose} v1"
    return blake3(data, derive_key_context=context).digest(length)


def eight(number: int) -> bytes:
    return number.to_bytes(8, "big", signed=True)


def key_path(chain: bytes, namespace: str, components: list[object]) -> bytes:
    key = digest("key path", chain)
    return blake3(cbor2.dumps([namespace, components]), key=key).digest()


# --- count-bound tree ---------------------------------------------------------------------------


def count_node(purpose: str, leaves: Sequence[bytes], height: int) -> bytes:
    if height == 1:
        return digest(f"{purpose} leaf", b"".join(leaves))
    step = 4 ** (height - 1)
    children = [leaves[at * step : (at + 1) * step] for at in range(4)]
    return digest(
        f"{purpose} node",
        b"".join(count_node(purpose, part, height - 1) if part else ZERO for part in children),
    )


def count_height(count: int) -> int:
    height = 1
    while 4**height < count:
        height += 1
    return height


def count_root(purpose: str, leaves: Sequence[bytes]) -> bytes:
    top = count_node(purpose, leaves, count_height(len(leaves))) if leaves else ZERO
    return digest(f"{purpose} root", eight(len(leaves)) + top)


def count_path(purpose: str, leaves: Sequence[bytes], first: int, length: int) -> list[bytes]:
    """The siblings of an aligned part, found from the top down and then turned round."""
    levels: list[list[bytes]] = []
    start, height = 0, count_height(len(leaves))
    part = list(leaves)
    while height > 0 and not (start == first and len(part) == length):
        step = 4 ** (height - 1)
        here = (first - start) // step
        level = []
        for child in range(4):
            below = part[child * step : (child + 1) * step]
            if child != here and below:
                level.append(below[0] if height == 1 else count_node(purpose, below, height - 1))
        levels.append(level)
        part = part[here * step : (here + 1) * step]
        start += here * step
        height -= 1
    return [sibling for level in reversed(levels) for sibling in level]


# --- salted lists -------------------------------------------------------------------------------


def salts(pool: bytes, kh: bytes, count: int) -> list[bytes]:
    data = digest("salts", pool + kh, 16 * count)
    return [data[16 * at : 16 * at + 16] for at in range(count)]


def leaf(kh: bytes, name: str, version: int, salt: bytes, value: object) -> bytes:
    head = cbor2.dumps([kh, name, version])
    return digest("field", head + digest("value", salt + cbor2.dumps(value)))


def salted_root(
    kind: str, header: bytes, leaves: Sequence[bytes], decoy_salts: Sequence[bytes]
) -> bytes:
    if len(leaves) <= 8:
        return digest(kind, header + b"".join(leaves))
    full = [*leaves, *(digest("decoy", salt) for salt in decoy_salts)]
    assert len(full) in (64, 256) or (len(leaves) <= 16 and not decoy_salts)
    return digest(f"{kind} tree", header + count_root("salted", full))


def record_root(
    kh: bytes,
    header: list[object],
    leaves: Mapping[str, tuple[int, bytes, object]],
    decoy_salts: Sequence[bytes] = (),
) -> bytes:
    hashes = [leaf(kh, name, *leaves[name]) for name in sorted(leaves)]
    return salted_root("record root", cbor2.dumps(header), hashes, decoy_salts)


# --- state tree ---------------------------------------------------------------------------------

Entries = dict[bytes, tuple[bytes, int]]


def state_node(depth: int, bits: int, entries: Entries) -> bytes:
    """The node over ``entries``, which share their first ``bits`` bits."""
    if not entries:
        return ZERO
    if bits >= depth and len(entries) <= 16:
        return digest(
            "state page",
            b"".join(kh + entries[kh][0] + eight(entries[kh][1]) for kh in sorted(entries)),
        )
    parts: list[Entries] = [{}, {}, {}, {}]
    for kh, value in entries.items():
        parts[int.from_bytes(kh, "big") >> (254 - bits) & 3][kh] = value
    children = b"".join(state_node(depth, bits + 2, part) for part in parts)
    if bits < depth:
        return digest("state upper", children)
    return digest("state branch", eight(len(entries)) + children)


def state_root(depth: int, entries: Entries) -> bytes:
    top = state_node(depth, 0, entries)
    return digest("state root", bytes([depth]) + eight(len(entries)) + top)


def changes_root(changes: Sequence[tuple[bytes, bytes, int]]) -> bytes:
    return count_root(
        "changes",
        [digest("change", kh + vh + eight(previous)) for kh, vh, previous in sorted(changes)],
    )


# --- history ------------------------------------------------------------------------------------


def history_top(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1."""
    if len(leaves) == 1:
        return digest("history leaf", leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return digest("history node", history_top(leaves[:split]) + history_top(leaves[split:]))


def history_root(leaves: Sequence[bytes]) -> bytes:
    return digest("history root", eight(len(leaves)) + (history_top(leaves) if leaves else ZERO))


def history_path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*history_path(index, leaves[:split]), history_top(leaves[split:])]
    return [*history_path(index - split, leaves[split:]), history_top(leaves[:split])]
