"""The parts of an audit stream from running nodes, page by page.

A thread runs the client; the audit takes what it has fetched, a bounded number of heights ahead.
The nodes are asked for what they keep and believed in nothing: the audit judges it.

Not here: which client (``comity.cli``), and the judging (``consensus.audit``).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final

import trio

from comity.client import Client
from consensus import codec
from consensus.answers import EpochStep
from consensus.audit.pages import Page
from consensus.audit.stream import Frame, Kind, Steps, height_in
from consensus.protocol import HEIGHTS_MAX

PAGES_AHEAD_MAX: Final = 3
WAIT_SECONDS: Final = 0.1
"""How late a fetching thread notices that nobody wants more."""

Fetched = tuple[Page, tuple[EpochStep, ...]]
"""A page, and the steps of the committees known when it came."""
Work = Callable[[Client], Awaitable[None]]
RunClient = Callable[[Work], None]
"""Runs work with a client of its own, to its end."""


class _Stopped(Exception):
    """Nobody wants more."""


def from_node(run: RunClient, genesis: bytes, first: int, last: int | None) -> Iterator[Frame]:
    """Yield the parts of a stream of heights from ``first`` on.

    Args:
        run: makes the client, in a thread of its own.
        genesis: the network's file.
        last: for the header; who has enough takes no more parts.

    Raises:
        ComityError: no node gives them, or this key may not have them.
    """
    pages: queue.Queue[Fetched | BaseException | None] = queue.Queue(PAGES_AHEAD_MAX)
    stop = threading.Event()

    def put(item: Fetched | BaseException | None) -> None:
        while not stop.is_set():
            try:
                pages.put(item, timeout=WAIT_SECONDS)
            except queue.Full:
                continue
            return
        raise _Stopped

    async def fetch(client: Client) -> None:
        height, newest = first, first
        while height <= newest:
            page = await client.blocks(height, HEIGHTS_MAX)
            if height == first:
                newest = page.certified
            if not page.heights:
                break
            steps = client.trust.steps_to(client.trust.committee.epoch)
            await trio.to_thread.run_sync(put, (page, steps))
            height += len(page.heights)

    def work() -> None:
        try:
            run(fetch)
            put(None)
        except _Stopped:
            pass
        except BaseException as error:  # handed to whoever waits
            with suppress(_Stopped):
                put(error)

    thread = threading.Thread(target=work, name="comity-audit-fetch", daemon=True)
    thread.start()
    try:
        yield from _frames(pages, genesis, first, last)
    finally:
        stop.set()
        thread.join()


def _frames(
    pages: queue.Queue[Fetched | BaseException | None], genesis: bytes, first: int, last: int | None
) -> Iterator[Frame]:
    count = offset = 0
    header = False
    steps = Steps(())
    while True:
        item = pages.get()
        if isinstance(item, BaseException):
            raise item
        if not header:
            header = True
            upto = None if item is None else item[0].certified if last is None else last
            value = [genesis, first, None if upto is None else max(first, upto)]
            yield Frame(0, Kind.HEADER, codec.encode(value))
        if item is None:
            yield Frame(offset, Kind.END, codec.encode([count, 0]))
            return
        page, steps.known = item
        for payload in page.heights:
            for step in steps.before(height_in(payload) or 0):
                yield Frame(offset, Kind.EPOCH, step)
            yield Frame(offset, Kind.HEIGHT, payload)
            offset += len(payload)
            count += 1
