"""What the demonstration tells. Every sentence that claims something is checked first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class WrongError(Exception):
    """A claim is false: what was expected, and what was seen."""

    def __init__(self, claim: str, expected: str, seen: str) -> None:
        super().__init__(claim)
        self.claim = claim
        self.expected = expected
        self.seen = seen


@dataclass(slots=True)
class Scene:
    """A scene in the summary: what it shows, claims checked, figures, how long it took."""

    shows: str
    begun: float
    claims: int = 0
    figures: list[str] = field(default_factory=list)
    seconds: float = 0.0


def tell_wrong(console: Console, error: WrongError) -> None:
    """Print a false claim, and what is noted of it, such as a node that had ended."""
    console.print(f"  [red]✗ {escape(error.claim)}[/]", highlight=False)
    console.print(f"    expected {escape(error.expected)}", highlight=False)
    console.print(f"    seen     {escape(error.seen)}", highlight=False)
    for note in getattr(error, "__notes__", ()):
        console.print(f"    {escape(note)}", highlight=False, soft_wrap=True)


class Story:
    """Prints scenes and claims; the first false claim ends it.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.scenes: list[Scene] = []
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._begun

    @property
    def claims(self) -> int:
        """How many claims were checked."""
        return sum(scene.claims for scene in self.scenes)

    def scene(self, title: str, shows: str) -> None:
        """Begin a scene; ``shows`` is what the summary says that it has shown."""
        self._end()
        self.scenes.append(Scene(shows, self.seconds))
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}[/]  [dim]{self.seconds:.0f} s[/]", align="left")

    def _end(self) -> None:
        if self.scenes and not self.scenes[-1].seconds:
            self.scenes[-1].seconds = self.seconds - self.scenes[-1].begun

    def tell(self, text: str) -> None:
        """Say what happens; claims nothing."""
        self._line("", f"[dim]{escape(text)}[/]")

    def figure(self, text: str) -> None:
        """Note a figure of the scene for the summary."""
        self.scenes[-1].figures.append(text)

    def claim(self, text: str, *, seen: object, expected: object = True) -> None:
        """Claim something that is so exactly if ``seen == expected``.

        Raises:
            WrongError: it is not so.
        """
        if seen != expected:
            raise WrongError(text, repr(expected), repr(seen))
        self._checked(text)

    def within(self, text: str, *, seen: float, low: float, high: float | None = None) -> None:
        """Claim something that is so exactly if ``low <= seen <= high``.

        Raises:
            WrongError: it is not so.
        """
        if seen < low or (high is not None and seen > high):
            expected = f"at least {low:g}" + ("" if high is None else f", at most {high:g}")
            raise WrongError(text, expected, f"{seen:g}")
        self._checked(text)

    def _checked(self, text: str) -> None:
        self.scenes[-1].claims += 1
        self._line("[green]✓[/]", escape(text))

    def _line(self, mark: str, text: str) -> None:
        """Print a line whose continuations are indented as it is."""
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=3, justify="right")
        grid.add_column(overflow="fold")
        grid.add_row(mark, text)
        self.console.print(grid, highlight=False)

    def summary(self) -> None:
        """Print what was claimed and checked, scene by scene."""
        self._end()
        table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
        table.add_column("shown", "all of it", ratio=5)
        table.add_column("claims", f"{self.claims}", justify="right")
        table.add_column("seconds", f"{self.seconds:.1f}", justify="right")
        table.add_column("figures", ratio=4)
        for scene in self.scenes:
            figures = "\n".join(escape(each) for each in scene.figures)
            table.add_row(escape(scene.shows), str(scene.claims), f"{scene.seconds:.1f}", figures)
        self.console.print()
        self.console.print(table, highlight=False)

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """Show that something goes on; claims can be printed meanwhile."""
        with self.console.status(f"[dim]{escape(text)}[/]"):
            yield

    @contextmanager
    def progress(self, **totals: int) -> Iterator[dict[str, Callable[[int], None]]]:
        """Show a bar for each of ``totals``; what is yielded for its name advances it."""
        bars = Progress(
            TextColumn("  {task.description:<22}"),
            BarColumn(32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        with bars:
            tasks = {
                name: bars.add_task(_words(name), total=total) for name, total in totals.items()
            }

            def advance(name: str) -> Callable[[int], None]:
                return lambda count: bars.advance(tasks[name], count)

            yield {name: advance(name) for name in tasks}


def money(cents: int) -> str:
    """Return an amount for people."""
    return f"{cents / 100:,.2f} USD"


def _words(name: str) -> str:
    return name.replace("_", " ")
