"""Progress bars of long work, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from comity.cli.options import Output
from comity.cli.show import err

_SHOWN_SECONDS: Final = 0.1

Told = Callable[[int, int], None]
"""``(done, of)``."""
Steps = Callable[[str, int, int], None]
"""``(what, done, of)``."""


@contextmanager
def bar(what: str, output: Output, *, as_bytes: bool = False) -> Iterator[Told]:
    """Show how far long work is, on a terminal."""
    with _progress(output, DownloadColumn() if as_bytes else MofNCompleteColumn()) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)


@contextmanager
def steps(output: Output) -> Iterator[Steps]:
    """Show how far each step of long work is, one bar below the other."""
    with _progress(output, MofNCompleteColumn()) as shown:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(what, total=None)
            shown.update(tasks[what], completed=done, total=of)

        yield told


def _progress(output: Output, amount: ProgressColumn) -> Progress:
    console = err()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=output.json or not console.is_terminal,
        refresh_per_second=1 / _SHOWN_SECONDS,
    )
