"""Where an audit's parts come from: a file, or the output of a process that reads a data folder.

Not here: what a stream looks like (``consensus.audit.stream``).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from comity import keys
from consensus.audit.stream import Frame, Kind, Splitter, read_failed
from consensus.errors import ComityError, DecodeError

READ_BYTES: Final = 1024 * 1024
"""What is read at a time."""
ENDING_SECONDS: Final = 10.0


class SourceError(ComityError):
    """What holds the heights could not be read to its end."""

    code = "SOURCE"
    advice = "copy the data again, or audit another node's"


def from_file(path: Path) -> Iterator[Frame]:
    """Yield the parts of an audit file.

    Raises:
        DecodeError: it is malformed; says at which offset.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        yield from _frames(file, Splitter())


def from_process(command: Sequence[str]) -> Iterator[Frame]:
    """Yield the parts of the stream that a process writes to its standard output.

    Raises:
        SourceError: it says why it cannot go on, or it dies.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=keys.for_children(os.environ),
    ) as process:
        splitter = Splitter()
        try:
            if process.stdout is not None:
                yield from _frames(process.stdout, splitter, ends=False)
            process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(ENDING_SECONDS)
        if not splitter.ended:
            raise SourceError(
                "the data cannot be read: the process that read it ended with status"
                f" {process.returncode}",
                hint="the store is probably damaged; copy it again, or audit another node's",
            )


def _frames(stream: IO[bytes], splitter: Splitter, *, ends: bool = True) -> Iterator[Frame]:
    while data := stream.read(READ_BYTES):
        for frame in splitter.feed(data):
            if frame.kind is Kind.FAILED:
                raise failure(frame)
            yield frame
    if ends:
        splitter.finish()


def failure(frame: Frame) -> ComityError:
    """Return the error that the last part of a stream tells of."""
    failed = read_failed(frame)
    error: ComityError
    if failed.code == DecodeError.code:
        error = DecodeError(failed.message, hint=failed.hint)
    else:
        error = SourceError(failed.message, hint=failed.hint)
    return error
