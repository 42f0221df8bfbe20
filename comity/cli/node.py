"""``comity node``: run and look after one agency's node. Loads ``node`` when it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from comity.cli.options import OUTPUT, REACH, Output, Reach, examples

CONFIG: Final = Path("node.toml")

app = App(name="node", help="Run and look after one agency's node.")

Config = Annotated[Path, Parameter(help="The node's configuration, or its folder.")]


@app.command(help_epilogue=examples("comity node run network/treasury"))
def run(config: Config = CONFIG, /, *, output: Output = OUTPUT) -> None:
    """Run a node until SIGTERM or Ctrl-C."""
    from node import main

    main.run(file_of(config))


@app.command(help_epilogue=examples("comity node check network/treasury"))
def check(config: Config = CONFIG, /, *, output: Output = OUTPUT) -> None:
    """Check files, keys, ports, clock and disk before a start."""
    from comity.cli.show import emit, table
    from node import main

    found = main.check(file_of(config))
    shown = table("in order")
    for each in found:
        shown.add_row(each)
    emit(output, found, shown)


@app.command(help_epilogue=examples("comity node status --server treasury"))
def status(*, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show what a running node says of itself."""
    from comity.cli import reads

    reads.status(reach=reach, output=output)


def file_of(config: Path) -> Path:
    """Return the configuration that is named by itself or by its folder."""
    return config / CONFIG.name if config.is_dir() else config
