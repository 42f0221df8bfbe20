"""Decisions of which some leaves stay closed: what somebody is shown who may not see all of it.

    shown      [header, [row, ...]]
    row        [name, salt, value]      open
               leaf hash                closed: 32 bytes, neither name nor value

A closed leaf keeps its place, so the root is that of the whole decision: what is left out cannot be
forged, and a height stays complete. Decoys are rows as in the full form; that there are some says
how many leaves a decision has, and nothing else.

Not here: which leaves somebody may see (``node.api.access``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.decision import Decision, slot
from consensus.state import salted
from consensus.state.salted import DECISION, Opening

DECOY: Final = "~"
Keep = Callable[[str, bytes], bool]
"""Says of a leaf, by name and encoded value, whether it stays open."""


def close(data: bytes, keep: Keep) -> bytes:
    """Return an encoded decision of our own with the leaves closed that ``keep`` refuses.

    Returns ``data`` itself where nothing is closed. Cost: 10 µs, and 3 µs a leaf that is closed.
    """
    header_cbor, rows = codec.parse(data, "decision")
    kh = b""
    out: list[Value] = []
    closed = False
    for row in rows:
        if type(row) is bytes or row[0] == DECOY or keep(row[0], row[2]):
            out.append(row)
            continue
        if not closed:
            txid, height, index = codec.parse(header_cbor, "header")[:3]
            kh, closed = slot(txid, height, index), True
        out.append(salted.leaf_hash(kh, row[0], 0, row[1], row[2]))
    return codec.encode([header_cbor, out]) if closed else data


class Shown(Decision):
    """A decision with closed leaves, as it was shown. ``leaves`` has the open ones."""

    __slots__ = ("_hashes", "_places")

    def __init__(
        self,
        header_cbor: bytes,
        kh: bytes,
        leaves: Mapping[str, bytes],
        salts: Sequence[bytes],
        places: Sequence[int],
        closed: Mapping[int, bytes],
    ) -> None:
        """Make one.

        Args:
            salts: of the open leaves in their order, then those of decoys.
            places: where the open leaves stand among all leaves, ascending.
            closed: hashes of the others by their place.
        """
        super().__init__(header_cbor, kh, leaves, salts)
        self._places = tuple(places)
        opened = salted.leaf_hashes(kh, 0, leaves, salts)
        by_place = {**closed, **dict(zip(places, opened, strict=True))}
        self._hashes = [by_place[place] for place in range(len(by_place))]
        self._root = salted.joined_root(
            DECISION, header_cbor, b"".join(self._hashes), b"".join(self._decoys())
        )

    @property
    def closed(self) -> int:
        """How many leaves are closed."""
        return len(self._hashes) - len(self.leaves)

    def encode(self) -> bytes:
        """Return the bytes it was shown as."""
        rows: list[Value] = [*self._hashes]
        for place, (name, value), salt in zip(
            self._places, self.leaves.items(), self.salts, strict=False
        ):
            rows[place] = [name, salt, value]
        null = codec.encode(None)
        rows += [[DECOY, salt, null] for salt in self.salts[len(self.leaves) :]]
        return codec.encode([self.header_cbor, rows])

    def openings(self, names: Sequence[str]) -> tuple[dict[int, Opening], list[bytes]]:
        """Return openings of the named leaves by index, and the hashes that stand for the rest."""
        shown = {
            place: Opening(name, 0, salt, value)
            for place, (name, value), salt in zip(
                self._places, self.leaves.items(), self.salts, strict=False
            )
            if name in names
        }
        return shown, salted.hashes_for(self._hashes, self._decoys(), list(shown))


def hash_or_none(row: Value) -> bytes | None:
    """Return the hash of a closed leaf; None if a row is not one."""
    return row if type(row) is bytes and len(row) == DIGEST_BYTES else None
