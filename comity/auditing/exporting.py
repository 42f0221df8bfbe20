"""Heights of a source as one audit file.

Not here: the file's form (``consensus.audit.stream``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from comity.auditing.running import Progress
from consensus.audit.stream import Frame, Kind, Writer, height_in, read_header

FILE_MODE: Final = 0o600
"""It holds the private parts of transactions."""
NEW_SUFFIX: Final = ".new"


def export(frames: Iterator[Frame], path: Path, progress: Progress) -> tuple[int, int]:
    """Write a whole stream to ``path``; return how many heights, and bytes, it has.

    The file gets its name when it is whole and on disk.

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
            heights = _copy(frames, file.write, progress)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return heights, size


def _copy(frames: Iterator[Frame], write: Callable[[bytes], object], progress: Progress) -> int:
    """Write the parts again, rows of the state left out; return how many heights there were."""
    writer = Writer()
    heights, last = 0, None
    for frame in frames:
        match frame.kind:
            case Kind.HEADER:
                header = read_header(frame)
                last = header.last
                write(writer.begin(header))
            case Kind.HEIGHT:
                heights += 1
                write(writer.height(frame.payload))
                progress(height_in(frame.payload) or 0, last, 0)
    write(writer.end())
    return heights
