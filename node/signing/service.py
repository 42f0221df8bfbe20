"""The signer's socket: one node at a time, of one user, gets signatures that its mark allows.

    connect ─> user (SO_PEERCRED) ─> hello ─> welcome ─> request ... answer ...

Requests that have arrived together are judged in order, written to the mark with one sync, and only
then answered: whatever leaves here is remembered first. A node is served for one log: another one,
or one that has lost what was signed for it, gets nothing. What is malformed ends the connection.

All work is done in the event loop: there is one node, and nothing else to do while a disk syncs.

Not here: what may be signed (``node.signer``), and messages (``wire``).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus.errors import ComityError, RemoteProtocolError
from consensus.frames import FrameSplitter, frames
from node.config import ConfigError
from node.errors import (
    ForeignDataError,
    InUseError,
    KeyStoreError,
    SigningRefusedError,
    StorageFailedError,
)
from node.signer import KeyStore, Signer
from node.signing import wire
from node.storage.marks import SlotFile

HELLO_SECONDS_MAX: Final = 5.0
RETRY_SECONDS: Final = 1.0
"""How often it is tried whether the disk under the mark has room again."""
FULL_HINT: Final = "make room on the disk of the signer's mark; it goes on by itself"
FULL: Final = "the disk under the signer's mark is full: nothing is signed"
CONNECTIONS_MAX: Final = 8
"""Connections at once, of whoever; all but one are told no."""
READ_BYTES: Final = 2 * wire.FRAME_BYTES_MAX
_CREDENTIALS: Final = struct.Struct("3i")


class Service:
    """Serves one key.

    Args:
        key: that signs.
        mark: of that key, open.
        chain: the network.
        client_uid: the user whose processes may ask.
        log: of the process.
    """

    def __init__(
        self,
        key: KeyStore,
        mark: SlotFile,
        chain: bytes,
        client_uid: int,
        log: FilteringBoundLogger,
    ) -> None:
        self._key = key
        self._mark = mark
        self._chain = chain
        self._client_uid = client_uid
        self._log = log
        self._connections = 0
        self._busy = False
        self.signatures = 0
        """Given since the start."""

    def summary(self) -> str:
        """Return the state in one line."""
        if self._mark.failed is not None:
            return FULL
        with_whom = "a node is connected" if self._busy else "no node is connected"
        return f"{with_whom}; {self.signatures} signatures"

    async def run(self, path: Path, started: Callable[[], None]) -> None:
        """Serve on a Unix socket at ``path`` until cancelled.

        Raises:
            ConfigError: there can be no socket at that place.
            StorageFailedError: the mark cannot be written; nothing is signed any more.
        """
        listening = _bind(path)
        try:
            started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._make_room)
                while True:
                    accepted, _address = await listening.accept()
                    if self._connections >= CONNECTIONS_MAX:
                        accepted.close()
                        continue
                    self._connections += 1
                    nursery.start_soon(self._take, accepted)
        finally:
            listening.close()
            _remove(path)

    async def _make_room(self) -> None:
        """Have the mark written again once its disk has room, and the key sign again with it.

        Raises:
            StorageFailedError: the disk fails otherwise.
        """
        told = False
        while True:
            if self._mark.full:
                if not told:
                    self._log.error("nothing is signed", reason=str(self._mark.failed))
                told = True
                try:
                    self._mark.retry()
                    told = False
                    self._log.info("the mark is written again: signing goes on")
                except StorageFailedError:
                    if not self._mark.full:
                        raise
            await trio.sleep(RETRY_SECONDS)

    async def _take(self, accepted: trio.socket.SocketType) -> None:
        stream = trio.SocketStream(accepted)
        try:
            pid, uid = _peer(accepted)
            if uid != self._client_uid:
                self._log.warning("refused", reason="another user", uid=uid, pid=pid)
                return
            await self._converse(stream, pid)
        except StorageFailedError as error:  # what was asked is in no answer; it is asked again
            if not self._mark.full:
                raise
            self._log.error("not signed", code=error.code, reason=error.message)
        except KeyStoreError as error:  # the node asks again, word for word, once it is back
            self._log.error("the key cannot be reached", code=error.code, reason=error.message)
        except (RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._log.warning("connection ended", reason=str(error))
        finally:
            self._connections -= 1
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await stream.aclose()

    async def _converse(self, stream: trio.SocketStream, pid: int) -> None:
        splitter = FrameSplitter(wire.FRAME_BYTES_MAX)
        with trio.move_on_after(HELLO_SECONDS_MAX):
            payloads: list[bytes] = []
            while not payloads:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    return
                payloads = splitter.feed(data)
        if not payloads:
            raise RemoteProtocolError("no hello came in time")
        try:
            signer, hello = self._welcome(payloads.pop(0))
        except StorageFailedError:
            if not self._mark.full:
                raise
            await _send(stream, wire.Refusal(StorageFailedError.code, FULL, FULL_HINT))
            return
        except ComityError as error:
            self._log.warning("refused", reason=error.message, code=error.code, pid=pid)
            await _send(stream, wire.Refusal(error.code, error.message, error.hint))
            return
        self._busy = True
        try:
            self._log.info("node connected", pid=pid, log=hello.log_identity.hex())
            await _send(stream, wire.Welcome(signer.recovered_bodies()))
            while True:
                if payloads:
                    await stream.send_all(self._answers(signer, payloads))
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    break
                payloads = splitter.feed(data)
        finally:
            self._busy = False
        self._log.info("node gone", pid=pid)

    def _welcome(self, payload: bytes) -> tuple[Signer, wire.Hello]:
        """Return the signer for a node, after its hello.

        Raises:
            ComityError: it gets none; why.
        """
        hello = wire.decode_hello(payload)
        if hello.chain != self._chain:
            raise ForeignDataError(
                "the node is of another network than the signer",
                hint="both need the same genesis file",
            )
        if hello.key != self._key.public:
            raise ForeignDataError(
                f"the node votes with key 0x{hello.key.hex()}, the signer has "
                f"0x{self._key.public.hex()}",
                hint="give the signer the key that the committee names for this agency",
            )
        if self._mark.failed is not None:
            raise StorageFailedError(self._mark.failed.message)
        if self._busy:
            raise InUseError(
                "the signer serves another node already",
                hint="one validator key serves one node; stop the other",
            )
        signer = Signer.over(
            self._key,
            self._mark,
            chain=self._chain,
            log_identity=hello.log_identity,
            log_end=hello.log_end,
        )
        signer.adopt(hello.bodies)
        return signer, hello

    def _answers(self, signer: Signer, payloads: list[bytes]) -> bytes:
        """Return the answers to requests, as frames; everything signed is on disk.

        Raises:
            DecodeError: one is malformed; what was signed before it is on disk and not answered.
            StorageFailedError: the mark cannot be written.
        """
        if len(payloads) > wire.REQUESTS_MAX:
            raise RemoteProtocolError(f"more than {wire.REQUESTS_MAX} requests at once")
        answers: list[wire.Signature | wire.NotSigned] = []
        synced = 0
        for payload in payloads:
            request = wire.decode_request(payload)
            synced = max(synced, request.log_synced)
            answers.append(self._sign(signer, request))
        if any(isinstance(each, wire.Signature) for each in answers):
            signer.write_mark(synced)
        self.signatures += len(answers)
        return frames([wire.encode(each) for each in answers])

    def _sign(self, signer: Signer, request: wire.Request) -> wire.Signature | wire.NotSigned:
        try:
            body = wire.subject_body(request, self._chain)
            signer.settle(*request.settled)
            signature = signer.sign(
                request.kind, request.epoch, request.round, body, two_chain=request.two_chain
            )
        except SigningRefusedError as error:
            self._log.error("not signed", code=error.code, reason=error.message)
            return wire.NotSigned(request.number, error.code, error.message)
        return wire.Signature(request.number, signature)


async def _send(stream: trio.SocketStream, message: wire.Welcome | wire.Refusal) -> None:
    await stream.send_all(frames([wire.encode(message)]))


def _peer(accepted: trio.socket.SocketType) -> tuple[int, int]:
    """Return process and user at the other end, as the kernel knows them (unix(7))."""
    data = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _gid = _CREDENTIALS.unpack(data)
    return pid, uid


def _bind(path: Path) -> trio.socket.SocketType:
    """Return a socket that listens at ``path``; a socket that nobody listens on any more goes.

    Its modes let everybody connect: who is served is decided by the peer's user, and who can reach
    it by the folder it lies in.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listening.bind(str(path))
        os.chmod(path, 0o666)  # noqa: S103 (the peer's user is checked)
        listening.listen(CONNECTIONS_MAX)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {path}: {error.strerror or error}",
            hint="[signer] socket is a path in a folder that the signer's user may write to, "
            "at most 107 bytes long",
        ) from error
    except BaseException:
        listening.close()
        raise
    return trio.socket.from_stdlib_socket(listening)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises InUseError if somebody does."""
    if path.is_socket():
        if _answered(path):
            raise InUseError(f"another process listens on {path}", hint="stop the other signer")
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


def _answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
