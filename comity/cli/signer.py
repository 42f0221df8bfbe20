"""``comity signer``: hold a validator key in a process of its own. Loads ``node`` when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from comity.cli.options import OUTPUT, Output, examples
from comity.cli.show import emit, pairs, table

CONFIG: Final = Path("signer.toml")

app = App(name="signer", help="Hold a validator key in a process and under a user of its own.")

Config = Annotated[Path, Parameter(help="The signer's configuration, or its folder.")]


@app.command(help_epilogue=examples("comity signer run /etc/comity-signer/signer.toml"))
def run(config: Config = CONFIG, /, *, output: Output = OUTPUT) -> None:
    """Sign for one node, over a Unix socket, until SIGTERM or Ctrl-C."""
    from node.signing import main

    main.run(_file(config))


@app.command(help_epilogue=examples("comity signer check /etc/comity-signer/signer.toml"))
def check(config: Config = CONFIG, /, *, output: Output = OUTPUT) -> None:
    """Check configuration, key, mark and socket before a start."""
    from node.signing import main

    found = main.check(_file(config))
    shown = table("in order")
    for each in found:
        shown.add_row(each)
    emit(output, found, shown)


@app.command(
    help_epilogue=examples(
        "comity signer init /etc/comity-signer/signer.toml",
        "comity signer init signer.toml --from-mark /var/lib/comity/signer.mark",
    )
)
def init(
    config: Config = CONFIG,
    /,
    *,
    from_mark: Annotated[
        Path | None,
        Parameter(
            help="signer.mark of the node that has signed with this key so far and is stopped."
        ),
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Begin the mark of a key: what it has signed. Once in the key's life."""
    from node.signing import main

    begun = main.init(_file(config), took_from=from_mark)
    value = {"mark": str(begun.mark), "public": begun.public, "took_over": begun.took_over}
    emit(output, value, pairs(value.items()))


@app.command(
    name="init-token",
    help_epilogue=examples("comity signer init-token /etc/comity-signer/signer.toml"),
)
def init_token(config: Config = CONFIG, /, *, output: Output = OUTPUT) -> None:
    """Make a validator key in a PKCS#11 token, which never gives it away."""
    from node.signing import main

    value = {"public": main.init_token(_file(config))}
    emit(output, value, pairs(value.items()))


def _file(config: Path) -> Path:
    return config / CONFIG.name if config.is_dir() else config
