"""Certificates of node keys, read strictly and without any library: pure, so the ledger can judge.

    certificate = [tbs, algorithm, signature]                          X.509 v3, DER, RFC 5280 §4.1
    tbs         = [version 3, serial, algorithm, issuer, [from, until], subject, [algorithm, key],
                   extensions]

Taken are certificates of an Ed25519 key (RFC 8410) that this key has signed itself, about itself:
issuer and subject are one name. Lengths are definite and shortest, nothing follows, and names
are made of short texts. So what is taken here a TLS library loads too, on every machine alike:
one that could not be loaded would keep nodes from beginning an epoch.

Not here: making certificates (``node.network.tls``), and whose key a certificate should hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.errors import DecodeError, SignatureError
from consensus.ledger.calendar import DAY_MS, days_from_epoch
from consensus.signing import check_key, verify

CERTIFICATE_BYTES_MAX: Final = 4096

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_INTEGER: Final = 0x02
_BITS: Final = 0x03
_OCTETS: Final = 0x04
_BOOLEAN: Final = 0x01
_OID: Final = 0x06
_TEXTS: Final = {0x0C: "utf-8", 0x13: "ascii"}
"""UTF8String and PrintableString."""
_UTC_TIME: Final = 0x17
_GENERAL_TIME: Final = 0x18
_VERSION: Final = bytes.fromhex("a003020102")
_EXTENSIONS: Final = 0xA3
_ED25519: Final = bytes.fromhex("300506032b6570")
_KEY_BITS: Final = bytes.fromhex("032100")
_SIGNATURE_BITS: Final = bytes.fromhex("034100")
_SERIAL_BYTES_MAX: Final = 20
_NAME_BYTES_MAX: Final = 64
_PRINTABLE: Final = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?"
)
_WHERE: Final = "certificate"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says: its key, and ``from_ms <= t <= until_ms``, in which it is good."""

    key: bytes
    from_ms: int
    until_ms: int


def decode(data: bytes) -> Certificate:
    """Return what a certificate says, once its own key is known to have signed it.

    Raises:
        DecodeError: not of this form, or a weak key.
        SignatureError: its key has not signed it.

    Cost: about 0.15 ms.
    """
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise _bad(f"{len(data)} bytes, at most {CERTIFICATE_BYTES_MAX}")
    whole = _Reader(_Reader(data).only(_SEQUENCE))
    tbs = whole.raw(_SEQUENCE)
    whole.exactly(_ED25519)
    signature = whole.exactly(_SIGNATURE_BITS, 64)
    whole.end()
    part = _Reader(_Reader(tbs).only(_SEQUENCE))
    part.exactly(_VERSION)
    serial = part.take(_INTEGER)
    if not 1 <= len(serial) <= _SERIAL_BYTES_MAX or serial[0] >= 0x80 or not any(serial):
        raise _bad(f"a serial number is positive, of {_SERIAL_BYTES_MAX} bytes at most")
    if len(serial) > 1 and serial[0] == 0 and serial[1] < 0x80:
        raise _bad("a number is not written as short as can be")
    part.exactly(_ED25519)
    issuer = part.raw(_SEQUENCE)
    _check_name(issuer)
    validity = _Reader(part.take(_SEQUENCE))
    from_ms, until_ms = validity.time_ms(), validity.time_ms()
    validity.end()
    if part.raw(_SEQUENCE) != issuer:
        raise _bad("issuer and subject differ: it is not self-signed")
    holder = _Reader(part.take(_SEQUENCE))
    holder.exactly(_ED25519)
    key = holder.exactly(_KEY_BITS, 32)
    holder.end()
    if not part.at_end:
        _check_extensions(part.take(_EXTENSIONS))
    part.end()
    try:
        check_key(key)
    except SignatureError as error:
        raise _bad(error.message) from error
    verify(key, tbs, signature)
    return Certificate(key, from_ms, until_ms)


def _check_name(name: bytes) -> None:
    """Check that a name is made of texts, one to a part."""
    parts = _Reader(_Reader(name).only(_SEQUENCE))
    if parts.at_end:
        raise _bad("a name is empty")
    while not parts.at_end:
        pair = _Reader(_Reader(parts.take(_SET)).only(_SEQUENCE))
        _check_oid(pair.take(_OID))
        tag = pair.peek()
        if tag not in _TEXTS:
            raise _bad("a name is not made of texts")
        _check_text(pair.take(tag), _TEXTS[tag])
        pair.end()


def _check_text(data: bytes, encoding: str) -> None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _bad("a name is not text") from error
    if not 1 <= len(data) <= _NAME_BYTES_MAX:
        raise _bad(f"a part of a name has 1 to {_NAME_BYTES_MAX} bytes")
    if encoding == "ascii" and not _PRINTABLE.issuperset(text):
        raise _bad("a name is not text")
    if any(ord(each) < 0x20 for each in text):
        raise _bad("a name has control characters")


def _check_oid(data: bytes) -> None:
    starts = [0, *[at + 1 for at, each in enumerate(data[:-1]) if each < 0x80]]
    if not data or data[-1] >= 0x80 or any(data[at] == 0x80 for at in starts):
        raise _bad("an object identifier is malformed")


def _check_extensions(data: bytes) -> None:
    rows = _Reader(_Reader(data).only(_SEQUENCE))
    if rows.at_end:
        raise _bad("extensions are empty")
    seen: list[bytes] = []
    while not rows.at_end:
        row = _Reader(rows.take(_SEQUENCE))
        name = row.take(_OID)
        _check_oid(name)
        if name in seen:
            raise _bad("an extension is given twice")
        seen.append(name)
        if row.peek() == _BOOLEAN and row.take(_BOOLEAN) != b"\xff":
            raise _bad("a default is written out")
        row.take(_OCTETS)
        row.end()


class _Reader:
    """Reads DER values one after the other: definite lengths, each as short as can be."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self._at == len(self._data)

    def end(self) -> None:
        """Refuse what is left."""
        if not self.at_end:
            raise _bad("something follows that does not belong there")

    def peek(self) -> int:
        """Return the tag of the next value, 0 at the end."""
        return 0 if self.at_end else self._data[self._at]

    def raw(self, tag: int) -> bytes:
        """Return the next value, with its head."""
        begin = self._at
        self.take(tag)
        return self._data[begin : self._at]

    def take(self, tag: int) -> bytes:
        """Return the contents of the next value."""
        data, at = self._data, self._at
        if self.peek() != tag or at + 2 > len(data):
            raise _bad(f"expected a value with the tag {tag:#04x} at byte {at}")
        size, at = data[at + 1], at + 2
        if size >= 0x80:
            count = size - 0x80
            long = data[at : at + count]
            size, at = int.from_bytes(long, "big"), at + count
            if count not in (1, 2) or len(long) != count or long[0] == 0 or size < 0x80:
                raise _bad("a length is not written as short as can be")
        if at + size > len(data):
            raise _bad("it is cut short")
        self._at = at + size
        return data[at : at + size]

    def only(self, tag: int) -> bytes:
        """Return the contents of the next value, which is the last."""
        found = self.take(tag)
        self.end()
        return found

    def exactly(self, wanted: bytes, more: int = 0) -> bytes:
        """Take bytes that must stand there; return the ``more`` bytes behind them."""
        begin = self._at + len(wanted)
        if self._data[self._at : begin] != wanted or begin + more > len(self._data):
            raise _bad("it is not of an Ed25519 key and version 3")
        self._at = begin + more
        return self._data[begin : self._at]

    def time_ms(self) -> int:
        """Return a time in milliseconds since 1970, from 1950 to 9999."""
        tag = self.peek()
        if tag not in (_UTC_TIME, _GENERAL_TIME):
            raise _bad("a time is missing")
        text = self.take(tag)
        year_digits = 2 if tag == _UTC_TIME else 4
        digits = text[:-1]
        if text[-1:] != b"Z" or len(digits) != year_digits + 10 or not _are_digits(digits):
            raise _bad("a time is not written in UTC, to the second")
        year = int(digits[:year_digits])
        if tag == _UTC_TIME:
            year += 1900 if year >= 50 else 2000
        elif year < 2050:
            raise _bad("a time before 2050 is written as UTCTime")
        rest = digits[year_digits:]
        month, day, hour, minute, second = (int(rest[at : at + 2]) for at in range(0, 10, 2))
        if not (1 <= month <= 12 and 1 <= day <= _days_in(year, month)):
            raise _bad("there is no such day")
        if hour > 23 or minute > 59 or second > 59:
            raise _bad("there is no such time")
        seconds = (hour * 60 + minute) * 60 + second
        return days_from_epoch(year, month, day) * DAY_MS + seconds * 1000


def _are_digits(data: bytes) -> bool:
    return all(0x30 <= each <= 0x39 for each in data)


def _days_in(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _bad(why: str) -> DecodeError:
    return DecodeError(why, path=_WHERE, hint="make it with `comity network propose-member`")
