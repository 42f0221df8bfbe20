"""Forged disclosure files: a valid one with one thing changed, and the reason it must fail for.

``FORGERIES`` change the decoded file; what comes out is encoded canonically again, so that each
fails for what it is, not for its form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from consensus import codec
from consensus.evidence.disclosure_file import Revealed
from consensus.ledger.model import WHOLE
from consensus.state import salted
from consensus.state.record import decode_row
from tests.consensus.evidence.opened import Town

Edit = Callable[[Any], Any]
GENESIS, CERTIFICATE, STATEMENTS, PROOF, ITEMS, SEALED = 2, 3, 4, 5, 6, 7
SALT, LEAF, DEFINITION, COUNT, SHOWN, SALTS, HASHES, CHANGE = range(8)


@dataclass(frozen=True)
class Forgery:
    """What is changed of which file, and what the reader says."""

    name: str
    base: str
    edit: Edit
    error: str
    says: str


def files() -> dict[str, bytes]:
    """Return the valid files: what each shows is in its name."""
    return made()[0]


@cache
def made() -> tuple[dict[str, bytes], Town]:
    """Return the valid files, and the town whose state they show."""
    town = Town()
    present = town.disclose(fields=("amount", "text"))
    alone = town.disclose("secret", ("code",), to=["agency", "east"])
    found = {"present": town.file(present), "secret": town.file(alone)}
    town.amend("another story", 1)
    found["moved on"] = town.file(present)
    town.amend("a third one", 2)
    earlier = town.disclose(fields=("text",), version=2)
    found["earlier"] = town.file(earlier)
    found["both"] = town.file(present, alone)
    several = town.disclose(fields=("by", "owner", "status", "text"))
    found["more"] = town.file(several)
    found["three"] = town.file(several, earlier, alone)
    pin, seal = town.enclose()
    envelope = town.disclose("envelope", ("inside", "seal"))
    revealed = [Revealed(0, 0, 0, pin), Revealed(0, 1, WHOLE, seal)]
    found["sealed"] = replace(town.body(envelope), sealed=revealed).encode(*town.head)
    found["one of eight"] = town.file(town.fill())
    return found, town


def item(index: int, at: int, value: Any) -> Edit:
    """Set a part of an item."""

    def edit(file: Any) -> Any:
        part = file[ITEMS][index]
        part[at] = value(part[at]) if callable(value) else value
        return file

    return edit


def part(at: int, value: Any) -> Edit:
    """Set a part of the file."""

    def edit(file: Any) -> Any:
        file[at] = value(file[at]) if callable(value) else value
        return file

    return edit


def flip(data: bytes, at: int = 0) -> bytes:
    """Return bytes of which one differs."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def put(at: int, value: Any) -> Edit:
    """Return an edit of a list."""

    def edit(items: list[Any]) -> list[Any]:
        new = value(items[at]) if callable(value) else value
        return [*items[:at], new, *items[at + 1 :]]

    return edit


def _change(at: int, value: Any) -> Edit:
    return item(0, CHANGE, put(at, value))


def _leaf(at: int, value: Any) -> Edit:
    return item(0, LEAF, put(at, value))


def _shown(at: int, value: Any) -> Edit:
    return item(0, SHOWN, put(at, value))


def _swap_hashes(hashes: bytes) -> bytes:
    return hashes[32:64] + hashes[:32] + hashes[64:]


def _count(count: int) -> Edit:
    return item(0, COUNT, count)


def _opened_at(index: int) -> Edit:
    return _shown(0, index)


def _flat(file: Any) -> Any:
    """Show all other leaves, of which the groups' hashes are made, as in a list of few."""
    row = made()[1].row("record", "form", 1)[1]
    hashes = salted.split(decode_row(row).hashes, 32)
    file[ITEMS][0][HASHES] = b"".join(each for at, each in enumerate(hashes) if at != IN_FORM)
    return file


IN_FORM = 4
"""Where the opened field stands among the leaves ``a b basis by c d e f g h status ~holds``."""


def _proof(at: int, value: Any) -> Edit:
    def edit(data: bytes) -> bytes:
        return codec.encode(put(at, value)(codec.parse(data)))

    return part(PROOF, edit)


def _statement(at: int, value: Any) -> Edit:
    def edit(rows: list[Any]) -> list[Any]:
        statement = codec.encode(put(at, value)(codec.parse(rows[0][0])))
        return [[statement, rows[0][1]], *rows[1:]]

    return part(STATEMENTS, edit)


def _certificate(edit: Edit) -> Edit:
    return part(CERTIFICATE, lambda data: codec.encode(edit(codec.parse(data))))


def _signers(edit: Edit) -> Edit:
    return _certificate(lambda value: [value[0], edit(value[1])])


def _revealed(at: int, value: Any, row: int = 0) -> Edit:
    return part(SEALED, put(row, put(at, value)))


def _opened(at: int, value: Any) -> Edit:
    return _revealed(3, put(at, value))


def _pinned(file: Any) -> Any:
    file[SEALED] = [[0, 0, -1, [bytes(32), bytes(32), 0, 0, 7]]]
    return file


COMMITS = "does not commit to the sealed value"
STATE = "is not what the state holds"
FORGERIES = [
    # the file as a whole
    Forgery("another magic", "present", part(0, "comity bundle"), "DecodeError", "no disclosure"),
    Forgery("a newer version", "present", part(1, 2), "DecodeError", "2 is outside 1..1"),
    Forgery("an item too many", "present", lambda file: [*file, None], "DecodeError", "9 items"),
    Forgery("an item too few", "present", lambda file: file[:-1], "DecodeError", "7 items"),
    Forgery("nothing opened", "present", part(ITEMS, []), "DecodeError", "0 items"),
    Forgery(
        "more than may be opened",
        "present",
        part(ITEMS, lambda items: items * 65),
        "DecodeError",
        "65 items",
    ),
    Forgery(
        "the same disclosure twice",
        "present",
        part(ITEMS, lambda items: items * 2),
        "ProofError",
        "do not ascend",
    ),
    # the network
    Forgery(
        "another genesis head",
        "present",
        part(GENESIS, put(0, lambda head: head[:-1] + b"\x05")),
        "CertificateError",
        "another network",
    ),
    Forgery(
        "other contents of genesis",
        "present",
        part(GENESIS, put(1, flip)),
        "CertificateError",
        "another network",
    ),
    Forgery(
        "a head that is none",
        "present",
        part(GENESIS, put(0, b"\x80")),
        "CertificateError",
        "another network",
    ),
    Forgery(
        "a committee that nobody elected",
        "present",
        lambda file: part(
            GENESIS,
            put(
                2,
                [
                    [
                        file[CERTIFICATE],
                        [2, codec.parse(file[GENESIS][0])["committee"][1]],
                    ]
                ],
            ),
        )(file),
        "CertificateError",
        "no committee was elected there",
    ),
    # the certificate
    Forgery("one signature less", "present", _signers(lambda r: r[:-1]), "CertificateError", ""),
    Forgery(
        "a signature twice",
        "present",
        _signers(lambda r: [r[0], r[0], r[1]]),
        "CertificateError",
        "",
    ),
    Forgery("signers out of order", "present", _signers(lambda r: r[::-1]), "CertificateError", ""),
    Forgery(
        "a signature of somebody else",
        "present",
        _signers(lambda r: [*r[:2], [3, r[2][1]]]),
        "SignatureError",
        "",
    ),
    Forgery(
        "another state root under the signatures",
        "present",
        _certificate(lambda value: [put(7, flip)(value[0]), value[1]]),
        "SignatureError",
        "",
    ),
    Forgery(
        "another time under the signatures",
        "present",
        _certificate(lambda value: [put(5, lambda t: t + 1)(value[0]), value[1]]),
        "SignatureError",
        "",
    ),
    Forgery(
        "a certificate of another chain",
        "present",
        _certificate(lambda value: [put(0, flip)(value[0]), value[1]]),
        "CertificateError",
        "another network",
    ),
    # statements
    Forgery(
        "another changes root",
        "earlier",
        _statement(9, flip),
        "ProofError",
        "another history root",
    ),
    Forgery(
        "a statement of another height",
        "earlier",
        _statement(3, lambda height: height - 1),
        "ProofError",
        "",
    ),
    Forgery("no statement", "earlier", part(STATEMENTS, []), "ProofError", "nothing rests on"),
    Forgery(
        "a statement twice",
        "earlier",
        part(STATEMENTS, lambda rows: rows * 2),
        "ProofError",
        "do not ascend",
    ),
    Forgery(
        "a path that is too short",
        "earlier",
        part(STATEMENTS, lambda rows: [[rows[0][0], rows[0][1][:-1]]]),
        "ProofError",
        "too short",
    ),
    Forgery(
        "a path that is too long",
        "earlier",
        part(STATEMENTS, lambda rows: [[rows[0][0], [*rows[0][1], bytes(32)]]]),
        "ProofError",
        "",
    ),
    # the state proof
    Forgery("another height", "present", _proof(1, lambda h: h - 1), "ProofError", "no statement"),
    Forgery("another depth", "present", _proof(2, 10), "ProofError", ""),
    Forgery("another count of keys", "present", _proof(3, lambda c: c + 1), "ProofError", ""),
    Forgery("a page less", "present", _proof(4, lambda p: p[:-1]), "ProofError", ""),
    Forgery("a page more", "present", _proof(4, lambda p: [*p, b""]), "ProofError", ""),
    Forgery("another sibling", "present", _proof(6, flip), "ProofError", "another state root"),
    Forgery("a sibling less", "present", _proof(6, lambda h: h[:-32]), "ProofError", ""),
    Forgery("another bitmap", "present", _proof(5, flip), "ProofError", ""),
    # the disclosure
    Forgery("another salt", "present", item(0, SALT, flip), "ProofError", STATE),
    Forgery("a short salt", "present", item(0, SALT, lambda s: s[:-1]), "DecodeError", "15 bytes"),
    Forgery("another id", "present", _leaf(0, flip), "ProofError", ""),
    Forgery("another kind", "present", _leaf(1, "secret"), "ProofError", ""),
    Forgery("another record", "present", _leaf(2, [2]), "ProofError", ""),
    Forgery("another version", "present", _leaf(3, 2), "ProofError", STATE),
    Forgery("another field", "present", _leaf(4, ["amount", "owner"]), "ProofError", STATE),
    Forgery("another audience", "present", _leaf(5, ["party", "Police"]), "ProofError", STATE),
    Forgery("an agency for a party", "present", _leaf(5, ["agency", "east"]), "ProofError", STATE),
    Forgery("another purpose", "present", _leaf(6, "a friend asks"), "ProofError", STATE),
    Forgery("another law", "present", _leaf(7, "none"), "ProofError", STATE),
    Forgery("an earlier beginning", "present", _leaf(8, lambda t: t - 1), "ProofError", STATE),
    Forgery("a later end", "present", _leaf(9, lambda t: t + 1), "ProofError", STATE),
    Forgery("another author", "present", _leaf(10, flip), "ProofError", STATE),
    Forgery("another agency", "present", _leaf(11, "east"), "ProofError", STATE),
    Forgery("no purpose", "present", _leaf(6, ""), "DecodeError", "0 bytes of text"),
    Forgery("version nothing", "present", _leaf(3, 0), "DecodeError", "outside"),
    # the record
    Forgery("another definition", "present", item(0, DEFINITION, 2), "ProofError", STATE),
    Forgery("a leaf more in the header", "present", item(0, COUNT, 8), "ProofError", ""),
    Forgery("257 leaves", "present", item(0, COUNT, 257), "DecodeError", "outside"),
    Forgery("a value changed", "present", _shown(2, 8), "ProofError", STATE),
    Forgery("a value of another type", "present", _shown(2, "7"), "ProofError", STATE),
    Forgery("true for one", "present", _shown(2, True), "ProofError", STATE),
    Forgery("the version of a field", "present", _shown(1, 0), "ProofError", STATE),
    Forgery("a field newer than its record", "present", _shown(1, 2), "ProofError", "newer"),
    Forgery("another place", "present", _shown(0, 1), "ProofError", STATE),
    Forgery("a place that is there twice", "present", _shown(3, 0), "ProofError", "not ascend"),
    Forgery("a place outside", "present", _shown(3, 9), "ProofError", "outside"),
    Forgery("a place below nothing", "present", _shown(0, -1), "DecodeError", "outside"),
    Forgery("a place that is no number", "present", _shown(0, b"0"), "DecodeError", "int"),
    Forgery(
        "a field left out",
        "present",
        item(0, SHOWN, lambda flat: flat[:3]),
        "DecodeError",
        "others are shown",
    ),
    Forgery(
        "a field more than was opened",
        "present",
        item(0, SHOWN, lambda flat: [*flat, 6, 1, None]),
        "DecodeError",
        "others are shown",
    ),
    Forgery("another salt of a field", "present", item(0, SALTS, flip), "ProofError", STATE),
    Forgery(
        "salts swapped",
        "present",
        item(0, SALTS, lambda salts: salts[16:] + salts[:16]),
        "ProofError",
        STATE,
    ),
    Forgery("a salt more", "present", item(0, SALTS, lambda s: s + bytes(16)), "DecodeError", ""),
    Forgery("another hash", "present", item(0, HASHES, flip), "ProofError", STATE),
    Forgery("hashes swapped", "present", item(0, HASHES, _swap_hashes), "ProofError", STATE),
    Forgery("a hash less", "present", item(0, HASHES, lambda h: h[:-32]), "ProofError", "expected"),
    Forgery(
        "a hash more", "present", item(0, HASHES, lambda h: h + bytes(32)), "ProofError", "expected"
    ),
    Forgery(
        "half a hash", "present", item(0, HASHES, lambda h: h[:-16]), "DecodeError", "32 bytes"
    ),
    # the groups of a record of more than eight leaves
    Forgery("a sibling forged", "one of eight", item(0, HASHES, flip), "ProofError", STATE),
    Forgery(
        "a group forged",
        "one of eight",
        item(0, HASHES, lambda h: flip(h, 159)),
        "ProofError",
        STATE,
    ),
    Forgery(
        "a leaf for a group",
        "one of eight",
        item(0, HASHES, lambda h: h[96:128] + h[32:96] + h[:32] + h[128:]),
        "ProofError",
        STATE,
    ),
    Forgery(
        "groups swapped",
        "one of eight",
        item(0, HASHES, lambda h: h[:96] + h[128:] + h[96:128]),
        "ProofError",
        STATE,
    ),
    Forgery(
        "a group less",
        "one of eight",
        item(0, HASHES, lambda h: h[:-32]),
        "ProofError",
        "too short",
    ),
    Forgery(
        "a group more",
        "one of eight",
        item(0, HASHES, lambda h: h + bytes(32)),
        "ProofError",
        "1 entries too many",
    ),
    Forgery(
        "all leaves for their groups", "one of eight", _flat, "ProofError", "6 entries too many"
    ),
    Forgery(
        "the root for the path",
        "one of eight",
        item(0, HASHES, lambda h: h[:32]),
        "ProofError",
        "too short",
    ),
    Forgery("a leaf less", "one of eight", _count(11), "ProofError", STATE),
    Forgery("a leaf more", "one of eight", _count(13), "ProofError", "too short"),
    Forgery("a list of few", "one of eight", _count(8), "ProofError", "6 leaves shown or hashed"),
    Forgery("a tree with decoys", "one of eight", _count(17), "ProofError", "too short"),
    Forgery("more than there can be", "one of eight", _count(257), "DecodeError", "1..256"),
    Forgery("in another place", "one of eight", _opened_at(6), "ProofError", STATE),
    Forgery("in another group", "one of eight", _opened_at(1), "ProofError", STATE),
    Forgery("in no place", "one of eight", _opened_at(12), "ProofError", "outside 0..11"),
    # an earlier version
    Forgery("the earlier as the present", "earlier", item(0, CHANGE, None), "ProofError", ""),
    Forgery("at another height", "earlier", _change(0, lambda h: h + 1), "ProofError", ""),
    Forgery("another number of changes", "earlier", _change(1, lambda c: c + 1), "ProofError", ""),
    Forgery("another place among them", "earlier", _change(2, lambda i: i + 1), "ProofError", ""),
    Forgery("another previous height", "earlier", _change(3, lambda h: h - 1), "ProofError", ""),
    Forgery(
        "another path", "earlier", _change(4, lambda p: [flip(p[0]), *p[1:]]), "ProofError", ""
    ),
    Forgery("a path too short", "earlier", _change(4, lambda p: p[:-1]), "ProofError", ""),
    Forgery(
        "a present one as an earlier one",
        "present",
        item(0, CHANGE, [4, 1, 0, 3, []]),
        "ProofError",
        "",
    ),
    # sealed values
    Forgery("another sealed value", "sealed", _opened(4, "1235"), "ProofError", COMMITS),
    Forgery("another salt of it", "sealed", _opened(0, flip), "ProofError", COMMITS),
    Forgery("another place of origin", "sealed", _opened(1, flip), "ProofError", COMMITS),
    Forgery("another call", "sealed", _opened(2, 1), "ProofError", COMMITS),
    Forgery("another input", "sealed", _opened(3, 2), "ProofError", COMMITS),
    Forgery("a short salt of it", "sealed", _opened(0, lambda s: s[1:]), "DecodeError", "31 bytes"),
    Forgery("nothing sealed", "sealed", _opened(4, None), "DecodeError", "nothing is not sealed"),
    Forgery("of a number", "sealed", _revealed(2, 1), "ProofError", COMMITS),
    Forgery("outside of the leaf", "sealed", _revealed(2, 2), "ProofError", COMMITS),
    Forgery("of the whole of a group", "sealed", _revealed(2, -1), "ProofError", COMMITS),
    Forgery("of another field", "sealed", _revealed(1, 1), "ProofError", "do not ascend"),
    Forgery("of no field", "sealed", _revealed(1, 2, row=1), "ProofError", "is not shown"),
    Forgery("of no item", "sealed", _revealed(0, 1, row=1), "ProofError", "is not shown"),
    Forgery(
        "shown twice",
        "sealed",
        part(SEALED, lambda rows: [rows[0], *rows]),
        "ProofError",
        "do not ascend",
    ),
    Forgery("of a field that is open", "present", _pinned, "ProofError", COMMITS),
    # of two files
    Forgery(
        "items swapped",
        "both",
        part(ITEMS, lambda items: items[::-1]),
        "ProofError",
        "do not ascend",
    ),
]
