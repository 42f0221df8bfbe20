"""Frames in and out of streams, hostile and slow ones included."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.network.errors import (
    ConnectionLost,
    FrameEmpty,
    FrameError,
    FrameTooLarge,
    FrameTruncated,
    SlowSender,
)
from node.network.framing import SEND_BYTES_MAX, FrameReader, FrameWriter, pack, watch


class Chunks(trio.abc.ReceiveStream):
    """A stream that yields these chunks, one a receive, then ends."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.chunks = list(chunks)
        self.receives = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.receives += 1
        await trio.lowlevel.checkpoint()
        return self.chunks.pop(0) if self.chunks else b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


async def drain(reader: FrameReader) -> list[bytes]:
    result: list[bytes] = []
    while frames := await reader.read():
        result += frames
    return result


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=40), max_size=12),
    cuts=st.lists(st.integers(0, 600), max_size=30),
)
def test_any_division_of_the_stream_gives_the_same_frames(
    payloads: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(frame(payload) for payload in payloads)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places) if a < b]
    assert trio.run(drain, FrameReader(Chunks(chunks), 40, 1.0)) == payloads


@given(
    data=st.binary(max_size=200),
    size=st.integers(1, 50),
)
def test_garbage_is_frames_or_a_documented_error(data: bytes, size: int) -> None:
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    try:
        frames = trio.run(drain, FrameReader(Chunks(chunks), 64, 1.0))
    except FrameError:
        return
    assert b"".join(map(frame, frames)) == data


@given(payload=st.binary(min_size=1, max_size=300))
def test_a_packed_frame_is_its_length_and_payload(payload: bytes) -> None:
    assert pack(payload) == frame(payload)


async def test_all_frames_of_one_receive_come_together() -> None:
    stream = Chunks([frame(b"one") + frame(b"two") + frame(b"three")])
    assert await FrameReader(stream, 10, 1.0).read() == [b"one", b"two", b"three"]
    assert stream.receives == 1


async def test_a_clean_end_is_an_empty_list_every_time() -> None:
    reader = FrameReader(Chunks([frame(b"x")]), 10, 1.0)
    assert await reader.read() == [b"x"]
    assert await reader.read() == []
    assert await reader.read() == []


async def test_frames_that_were_put_back_come_again_first() -> None:
    reader = FrameReader(Chunks([frame(b"a") + frame(b"b"), frame(b"c")]), 10, 1.0)
    _, second = await reader.read()
    reader.unread([second])
    assert await reader.read() == [b"b"]
    assert await reader.read() == [b"c"]


async def test_the_longest_frame_is_accepted_and_one_byte_more_is_not() -> None:
    assert await FrameReader(Chunks([frame(b"x" * 10)]), 10, 1.0).read() == [b"x" * 10]
    with pytest.raises(FrameTooLarge, match="11 bytes, at most 10"):
        await FrameReader(Chunks([frame(b"x" * 11)]), 10, 1.0).read()


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x0b"])
async def test_a_length_beyond_the_limit_is_refused_before_its_body(length: bytes) -> None:
    stream = Chunks([length])  # the body never comes
    with pytest.raises(FrameTooLarge):
        await FrameReader(stream, 10, 1.0).read()
    assert stream.receives == 1


async def test_an_empty_frame_is_refused() -> None:
    with pytest.raises(FrameEmpty):
        await FrameReader(Chunks([bytes(4)]), 10, 1.0).read()


@pytest.mark.parametrize("end", range(1, 8))
async def test_an_end_inside_a_frame_is_not_a_clean_end(end: int) -> None:
    with pytest.raises(FrameTruncated):
        await FrameReader(Chunks([frame(b"abcd")[:end]]), 10, 1.0).read()


async def test_a_broken_transport_is_a_lost_connection() -> None:
    class Broken(Chunks):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError from OSError("cable pulled")

    reader = FrameReader(Broken([]), 10, 1.0)
    with pytest.raises(ConnectionLost, match="cable pulled"):
        await reader.read()


async def reason_of_cut(reader: FrameReader) -> str:
    """Read until the sender is found to be too slow; return what is said of it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.read)
        with pytest.raises(SlowSender) as caught:
            await watch(reader)
        nursery.cancel_scope.cancel()
    return caught.value.message


async def test_a_frame_that_dribbles_in_is_cut_at_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = FrameReader(ours, 100, 5.0, idle_seconds_max=60.0)

    async def dribble() -> None:
        await trio.sleep(30.0)
        for byte in frame(b"x" * 100):
            await theirs.send_all(bytes([byte]))
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dribble)
        assert await reason_of_cut(reader) == "a frame took longer than 5 s"
        assert trio.current_time() == pytest.approx(35.0)
        nursery.cancel_scope.cancel()


async def test_the_clock_of_a_frame_starts_with_its_first_byte_in_an_earlier_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = FrameReader(ours, 100, 5.0, idle_seconds_max=60.0)
    await theirs.send_all(frame(b"whole") + b"\0")
    assert await reader.read() == [b"whole"]
    assert await reason_of_cut(reader) == "a frame took longer than 5 s"
    assert trio.current_time() == pytest.approx(5.0)


async def test_silence_between_frames_ends_at_the_idle_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = FrameReader(ours, 100, 5.0, idle_seconds_max=60.0)
    await theirs.send_all(frame(b"whole"))
    assert await reader.read() == [b"whole"]
    assert await reason_of_cut(reader) == "nothing came for 60 s"
    assert trio.current_time() == pytest.approx(60.0)


async def test_a_busy_reader_does_not_blame_the_sender(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = FrameReader(ours, 100, 5.0, idle_seconds_max=60.0)
    await theirs.send_all(frame(b"whole") + b"\0\0\0")
    assert await reader.read() == [b"whole"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, reader)
        await trio.sleep(1000.0)
        await theirs.send_all(b"\1y")
        assert await reader.read() == [b"y"]
        nursery.cancel_scope.cancel()


class Recorder(trio.abc.SendStream):
    """Keeps each send; the first one waits until it is released."""

    def __init__(self) -> None:
        self.sends: list[bytes] = []
        self.release = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sends.append(bytes(data))
        await self.release.wait()

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_what_is_longer_than_a_send_is_split_and_arrives_whole() -> None:
    stream = Recorder()
    stream.release.set()
    data = bytes(range(256)) * 4096  # 1 MiB
    writer = FrameWriter(stream, 1.0)
    await writer.send(data)
    assert max(map(len, stream.sends)) == SEND_BYTES_MAX
    assert b"".join(stream.sends) == data
    assert writer.bytes_sent == len(data)


async def test_a_side_that_takes_nothing_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    writer = FrameWriter(Recorder(), 3.0)

    async def begin_late() -> None:
        await trio.sleep(100.0)
        await writer.send(frame(b"x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin_late)
        with pytest.raises(ConnectionLost, match="took no 5 bytes in 3 s"):
            await watch(writer)
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(103.0)
    with pytest.raises(ConnectionLost, match="earlier"):
        await writer.send(frame(b"y"))


async def test_a_transport_that_fails_while_sending_is_a_lost_connection() -> None:
    class Broken(Recorder):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError from OSError("cable pulled")

    writer = FrameWriter(Broken(), 3.0)
    with pytest.raises(ConnectionLost, match="cable pulled"):
        await writer.send(frame(b"x"))
    with pytest.raises(ConnectionLost, match="earlier"):
        await writer.send(frame(b"y"))


async def test_after_a_cancelled_send_nothing_more_is_sent() -> None:
    stream = Recorder()
    writer = FrameWriter(stream, 3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send, frame(b"x"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    stream.release.set()
    with pytest.raises(ConnectionLost):
        await writer.send(frame(b"y"))
    assert stream.sends == [frame(b"x")]
