"""Heights of a source as one audit file.

Not here: the file's form (``consensus.audit.stream``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from comity.auditing.running import Progress
from consensus.audit.stream import Frame, Header, Kind, Writer, read_header, read_height

FILE_MODE: Final = 0o600
"""It holds the private parts of transactions."""
NEW_SUFFIX: Final = ".new"


def export(
    frames: Iterator[Frame], path: Path, first: int, last: int | None, progress: Progress
) -> tuple[int, int]:
    """Write the heights of a stream to ``path``; return how many there are, and how many bytes.

    The file gets its name when it is whole and on disk.

    Args:
        first: heights below are left out.
        last: exceeded up to the next height that has a certificate; None: all.

    Raises:
        DecodeError, SourceError: the source cannot be read to its end.
        OSError: the file cannot be written, or is there already.
    """
    if path.exists():
        raise FileExistsError(17, "it is there already", str(path))
    draft = path.with_name(path.name + NEW_SUFFIX)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(handle, "wb") as file:
            heights = _copy(frames, file.write, first, last, progress)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return heights, size


def _copy(
    frames: Iterator[Frame],
    write: Callable[[bytes], object],
    first: int,
    last: int | None,
    progress: Progress,
) -> int:
    """Write the parts again, rows of the state left out; return how many heights there were."""
    writer = Writer()
    heights, upto = 0, last
    for frame in frames:
        if frame.kind is Kind.HEADER:
            header = read_header(frame)
            upto = header.last if last is None else last
            begin = max(header.first, first)
            known = None if upto is None else max(begin, upto)
            write(writer.begin(Header(header.genesis, begin, known)))
        elif frame.kind is Kind.EPOCH:
            write(writer.epoch(frame.payload))
        elif frame.kind is Kind.HEIGHT:
            recorded = read_height(frame.payload, f"offset {frame.offset}")
            if recorded.height < first:
                continue
            heights += 1
            write(writer.height(frame.payload))
            progress(recorded.height, upto, 0)
            if last is not None and recorded.height >= last and recorded.certificate is not None:
                break
    write(writer.end())
    return heights
