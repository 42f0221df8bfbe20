"""A reader of disclosure files written from docs/formats alone: CBOR, BLAKE3 and Ed25519, no more.

Shares no code with the product. It reads files of one committee and raises ``Refused`` with the
number of the check in docs/formats/disclosure.md that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import cbor2
import nacl.bindings
import nacl.exceptions
from blake3 import blake3

ZERO = bytes(32)


class Refused(Exception):
    """Check number ``args[0]`` fails."""


def need(check: int, holds: bool) -> None:
    if not holds:
        raise Refused(check)


def h(purpose: str, *parts: bytes) -> bytes:
    return blake3(b"".join(parts), derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def enc(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def u64(value: int, *, signed: bool = False) -> bytes:
    return value.to_bytes(8, "big", signed=signed)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def read(data: bytes, chain: bytes) -> list[dict[str, Any]]:
    """Return what a file shows: per item the act, the fields by name, and what is sealed."""
    try:
        file = cbor2.loads(data)
        need(1, enc(file) == data)
        magic, version, (head, contents, steps), certificate, statements, proof, items, sealed = (
            file
        )
        need(1, (magic, version) == ("comity disclosure", 1) and bool(items))
        need(2, h("genesis", head, contents) == chain)
        need(3, steps == [])
        need(3, enc(cbor2.loads(certificate)) == certificate)
        own = certified(chain, cbor2.loads(head)["committee"], cbor2.loads(certificate))
        known = {**dict(history(own, statements)), own[3]: own}
        height = cbor2.loads(proof)[1]
        used = {height, own[3], *(item[7][0] for item in items if item[7] is not None)}
        need(4, used == set(known) and len(known) == len(statements) + 1)
        paths = [(path(chain, "disclosure", [i[1][0]]), path(chain, "record", [i[1][1], *i[1][2]]))
                 for i in items]  # fmt: skip
        state = proved(
            known[height][7], cbor2.loads(proof), sorted({p for two in paths for p in two})
        )
        need(5, enc(cbor2.loads(proof)) == proof)
        ids = [item[1][0] for item in items]
        need(5, ids == sorted(set(ids)))
        shown = [
            one(item, *two, state, known, height) for item, two in zip(items, paths, strict=True)
        ]
        open_sealed(shown, sealed)
    except Refused:
        raise
    except Exception as error:
        raise Refused(1) from error
    return shown


def certified(chain: bytes, committee: Any, certificate: Any) -> Any:
    statement, rows = certificate
    validators = committee[1]
    need(2, statement[0] == chain)
    need(3, statement[1] == committee[0] and statement[3] > 0)
    signers = [signer for signer, _ in rows]
    quorum = len(validators) - (len(validators) - 1) // 3
    need(3, signers == sorted(set(signers)) and len(signers) == quorum)
    signed = b"comity commit vote\0" + chain + enc(statement)
    for signer, signature in rows:
        try:
            nacl.bindings.crypto_sign_open(signature + signed, validators[signer][1])
        except (nacl.exceptions.BadSignatureError, IndexError) as error:
            raise Refused(3) from error
    return statement


def history(own: Any, statements: Any) -> Iterator[tuple[int, Any]]:
    """Yield the statements by height; each lies under the history root of ``own`` (RFC 9162)."""
    last_height = -1
    for encoded, siblings in statements:
        statement = cbor2.loads(encoded)
        need(4, enc(statement) == encoded and statement[3] > last_height)
        index, last = statement[3], own[3] - 1
        last_height = index
        need(4, index <= last)
        found = h("history leaf", h("statement", encoded))
        for sibling in siblings:
            need(4, last > 0)
            if index & 1 or index == last:
                found = h("history node", sibling, found)
                while not index & 1 and index:
                    index, last = index >> 1, last >> 1
            else:
                found = h("history node", found, sibling)
            index, last = index >> 1, last >> 1
        need(4, last == 0 and h("history root", u64(own[3]), found) == own[10])
        yield statement[3], statement


def path(chain: bytes, space: str, components: list[Any]) -> bytes:
    return blake3(enc([space, components]), key=h("key path", chain)).digest()


def proved(root: bytes, proof: Any, keys: list[bytes]) -> dict[bytes, tuple[bytes, int]]:
    """Return value hash and changed height of every entry in the pages of a state proof."""
    version, height, depth, count, walk, bitmap, hashes = proof
    need(5, version == 1)
    items = iter(walk)
    pages: dict[tuple[int, int], bytes] = {}
    branches: dict[tuple[int, int], int] = {}

    def prefix(key: bytes, bits: int) -> int:
        return int.from_bytes(key, "big") >> (256 - bits)

    def down(bits: int, at: int, below: list[bytes]) -> None:
        item = next(items)
        if isinstance(item, bytes):
            pages[bits, at] = item
            return
        need(5, item > 16)
        branches[bits, at] = item
        for child in range(at * 4, at * 4 + 4):
            inside = [key for key in below if prefix(key, bits + 2) == child]
            if inside:
                down(bits + 2, child, inside)

    for slot in sorted({prefix(key, depth) for key in keys}):
        down(depth, slot, [key for key in keys if prefix(key, depth) == slot])
    need(5, next(items, None) is None)
    found: dict[bytes, tuple[bytes, int]] = {}
    nodes: dict[tuple[int, int], bytes] = {}
    for (bits, at), page in pages.items():
        entries = cut(page, 72)
        need(5, len(page) % 72 == 0 and len(entries) <= 16)
        need(5, entries == sorted(entries) and len({e[:32] for e in entries}) == len(entries))
        for entry in entries:
            need(5, prefix(entry[:32], bits) == at)
            found[entry[:32]] = entry[32:64], int.from_bytes(entry[64:], "big")
            need(5, found[entry[:32]][1] <= height)
        nodes[bits, at] = h("state page", page) if page else ZERO
    bits_left = "".join(f"{byte:08b}" for byte in bitmap)
    marks, rest = iter(bits_left), iter(cut(hashes, 32))
    used = 0
    for bits in range(max(bits for bits, _ in nodes), 0, -2):
        parents = sorted({at >> 2 for level, at in nodes if level == bits})
        for parent in parents:
            for child in range(parent * 4, parent * 4 + 4):
                if (bits, child) not in nodes:
                    used += 1
                    nodes[bits, child] = next(rest) if next(marks) == "1" else ZERO
                    if bits_left[used - 1] == "1":
                        need(5, nodes[bits, child] != ZERO)
        for parent in parents:
            below = b"".join(nodes[bits, child] for child in range(parent * 4, parent * 4 + 4))
            if (bits - 2, parent) in branches:
                made = h("state branch", u64(branches[bits - 2, parent]), below)
            else:
                made = h("state upper", below) if any(below) else ZERO
            nodes[bits - 2, parent] = made
    need(5, len(bitmap) == (used + 7) // 8 and "1" not in bits_left[used:])
    need(5, next(rest, None) is None and len(hashes) % 32 == 0)
    need(5, h("state root", bytes([depth]), u64(count), nodes[0, 0]) == root)
    return found


def one(
    item: Any,
    act_path: bytes,
    record_path: bytes,
    state: dict[bytes, tuple[bytes, int]],
    known: dict[int, Any],
    height: int,
) -> dict[str, Any]:
    salt, act, definition, count, flat, salts, hashes, change = item
    kind, record, version, leaves = act[1:5]
    need(1, len(flat) == 3 * len(leaves) and len(salts) == 16 * len(leaves))
    need(1, len(act) == 12 and len(salt) == 16 and len(hashes) % 32 == 0 and version > 0)
    need(1, all(bool(each) for each in act[6:8]) and count <= 256)
    leaf = h("field", enc([act_path, "", 1]), h("value", salt, enc(act)))
    need(6, state.get(act_path, (ZERO, 0))[0] == leaf)
    rows = [flat[at : at + 3] for at in range(0, len(flat), 3)]
    indices = [row[0] for row in rows]
    need(1, all(type(n) is int and n >= 0 for row in rows for n in row[:2]))
    need(7, indices == sorted(set(indices)) and max(indices) < count)
    own = {}
    for name, one_salt, (index, at, value) in zip(leaves, cut(salts, 16), rows, strict=True):
        need(7, at <= version)
        own[index] = h("field", enc([record_path, name, at]), h("value", one_salt, enc(value)))
    header = enc([kind, definition, record, version, count])
    root = record_root(header, count, own, cut(hashes, 32))
    present = state.get(record_path, (ZERO, 0))[0]
    if change is None:
        need(7, present == root)
    else:
        at, changes, index, previous, siblings = change
        need(8, at <= height and present not in (ZERO, root))
        leaf = h("change", record_path, root, u64(previous, signed=True))
        need(8, in_tree(leaf, index, changes, siblings) == known[at][9])
    fields = {name: [row[1], row[2]] for name, row in zip(leaves, rows, strict=True)}
    return {"act": act, "fields": fields, "current": change is None, "sealed": []}


def record_root(header: bytes, count: int, own: dict[int, bytes], others: list[bytes]) -> bytes:
    """Return the root of a record of ``count`` leaves, of which it is shown only some."""
    if count <= 8:
        need(7, len(own) + len(others) == count)
        hashes = iter(others)
        return h("record root", header, *(own.get(n) or next(hashes) for n in range(count)))
    size = count if count <= 16 else 64 if count <= 64 else 256
    width, known, left, kind = size, dict(own), list(others), "salted leaf"
    while width > 1:
        above = {}
        for parent in sorted({index // 4 for index in known}):
            row = b""
            for index in range(4 * parent, min(4 * parent + 4, width)):
                need(7, index in known or bool(left))
                row += known[index] if index in known else left.pop(0)
            above[parent] = h(kind, row if kind == "salted leaf" else row.ljust(128, b"\0"))
        width, known, kind = (width + 3) // 4, above, "salted node"
    need(7, not left)
    return h("record root tree", header, h("salted root", u64(size), known[0]))


def in_tree(leaf: bytes, index: int, count: int, siblings: list[bytes]) -> bytes:
    """Return the root of the count tree "changes" that a leaf and its siblings lead to."""
    need(8, 0 <= index < count)
    left, found, level, width = list(siblings), leaf, 0, count
    while width > 1 or level == 0:
        first = index // 4 * 4
        row = [found if at == index else left.pop(0) for at in range(first, min(first + 4, width))]
        if level == 0:
            found = h("changes leaf", *row)
        else:
            found = h("changes node", b"".join(row).ljust(128, b"\0"))
        index, width, level = index // 4, (width + 3) // 4, level + 1
    need(8, not left)
    return h("changes root", u64(count), found)


def open_sealed(shown: list[dict[str, Any]], sealed: Any) -> None:
    places = [row[:3] for row in sealed]
    need(9, all(a < b for a, b in pairwise(places)))
    for item, leaf, place, (salt, slot, call, at, value) in sealed:
        need(1, value is not None and len(salt) == 32 and len(slot) == 32)
        need(9, item < len(shown) and leaf < len(shown[item]["act"][4]))
        name = shown[item]["act"][4][leaf]
        held = shown[item]["fields"][name][1]
        if place >= 0:
            need(9, type(held) is list and place < len(held))
            held = held[place]
        need(9, held == h("sealed value", salt, enc([slot, call, at, value])))
        shown[item]["sealed"].append([name, place, value])
