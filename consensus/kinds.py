"""Numbers of the client protocol: what an answer says of its request, kinds of events and items.

Codes are stable. Not here: the messages (``consensus.protocol``).
"""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """What an answer says about its request. Codes are stable."""

    OK = 0
    EVENT = 1  # not an end: one of several messages under this id
    MALFORMED = 16  # not the declared form; an unreadable frame also closes the connection
    UNSUPPORTED = 17  # a method or version this node does not know
    DENIED = 18  # this key may not do that
    NOT_FOUND = 19  # nothing of that name; never used where a proof of absence is possible
    BUSY = 20  # try again after ``retry_after_ms``; nothing was accepted
    BAD_SIGNATURE = 21
    WRONG_CHAIN = 22
    UNAVAILABLE = 23  # this node cannot now (catching up, stopping, disk); ask another
    NOT_ADMITTED = 24  # a transaction that could only be refused; not a certified outcome
    LAPSED = 25  # accepted, but its ``not_after`` passed before any block held it
    PRUNED = 26  # older than what this node keeps; another one may keep more


class Event(enum.IntEnum):
    """First item of the result of an answer with status EVENT."""

    GREETING = 0
    STATEMENT = 1
    RECEIPTS = 2
    HEIGHT = 3
    CHANGES = 4


class Item(enum.IntEnum):
    """What one item of a submission is."""

    ENVELOPE = 0
    GROUP = 1


class Stream(enum.IntEnum):
    """What a subscription follows."""

    STATEMENTS = 0
    DECISIONS = 1
    CHANGES = 2
