"""``comity network observe``: make the folder of a node that follows without a vote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity import keys
from comity.ceremony import spoken
from comity.cli.ceremony import TELEMETRY, address_of, lay_down
from comity.cli.network import app
from comity.cli.options import OUTPUT, Output, UsageError, examples
from comity.cli.show import emit, pairs
from comity.errors import DraftError
from comity.observing import Observer, new_observer
from comity.servers import CERTIFICATE_SUFFIX
from consensus import genesis
from consensus.errors import DecodeError

FOLLOW_MAX: Final = 64


@app.command(
    help_epilogue=examples(
        "comity network observe genesis.cbor --name court --clients 10.9.0.2:7401 \\",
        "    --follow treasury=10.1.0.4:7409 --follow registry=10.2.0.4:7409 -o court",
        "comity node run court                               once the members have court.crt",
        "comity get person/ada --server court/court.crt=10.9.0.2:7401",
    )
)
def observe(
    file: Path,
    /,
    *,
    name: Annotated[str, Parameter(help="Of whoever runs it; its certificate carries it.")],
    clients: Annotated[str, Parameter(help="host:port at which clients find it.")],
    follow: Annotated[
        tuple[str, ...],
        Parameter(help="agency=host:port of a member's door for observers; may be repeated."),
    ],
    folder: Annotated[
        Path, Parameter(name=["--output", "-o"], help="New or empty folder; becomes the node's.")
    ],
    recheck: Annotated[
        bool, Parameter(help="Check every client's signature again, not only the certificates.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, Parameter(help="Seal the node's key with the passphrase in it.")
    ] = None,
    output: Output = OUTPUT,
) -> None:
    """Make the folder of an observer: its key, its certificate, its configuration.

    Args:
        file: the network's genesis file, whose hash was compared.
    """
    from node.network.tls import make_certificate

    data = _genesis(file)
    host, port = address_of(clients, "--clients")
    passphrase = None if passphrase_file is None else keys.read_passphrase(passphrase_file)
    made = new_observer(
        data,
        name,
        _doors(follow),
        clients=f"{host}:{port}",
        telemetry=TELEMETRY,
        recheck=recheck,
        make_certificate=make_certificate,
    )
    lay_observer(made, folder, passphrase)
    certificate, chain = folder / f"{name}{CERTIFICATE_SUFFIX}", genesis.chain_id(data)
    value = {
        "name": name,
        "certificate": str(certificate),
        "chain": chain,
        "server": f"{certificate}={host}:{port}",
    }
    shown = [
        ("observer", name),
        ("network's chain", spoken(chain)),
        ("send to the members", str(certificate)),
        ("clients name it as", f"--server {certificate}={host}:{port}"),
        ("keep to yourself", str(folder / "keys")),
    ]
    next_step = f"next: members lay {certificate.name} into their folder of observers"
    step = Text(f"{next_step}; then comity node run {folder}")
    emit(output, value, Group(pairs(shown), Text(), step))


def lay_observer(made: Observer, folder: Path, passphrase: str | None = None) -> None:
    """Write the folder of an observer.

    Raises:
        DraftError: the folder is not empty, or cannot be made.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DraftError(f"{folder} is not empty", hint="name a new folder with --output")
    try:
        (folder / "keys").mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise DraftError(f"cannot make {folder}: {error.strerror}", hint="name another") from error
    keys.create(folder / "keys" / "node.key", made.key, passphrase)
    lay_down(folder, dict(made.files))


def _genesis(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        genesis.decode(data)
    except OSError as error:
        raise DraftError(f"cannot read {path}: {error.strerror}", hint="name the file") from error
    except DecodeError as error:
        raise UsageError(
            f"{path} is no genesis file: {error.message}",
            hint="ask a member for genesis.cbor and compare its hash",
        ) from error
    return data


def _doors(words: tuple[str, ...]) -> dict[str, str]:
    """Return the doors that were named, by agency."""
    if len(words) > FOLLOW_MAX:
        raise UsageError(f"{len(words)} doors", hint=f"name at most {FOLLOW_MAX}")
    found: dict[str, str] = {}
    for word in words:
        agency, _, address = word.partition("=")
        if not agency or not address or agency in found:
            raise UsageError(
                f"--follow {word!r} names no door of its own", hint="write agency=host:port"
            )
        host, port = address_of(address, "--follow")
        found[agency] = f"{host}:{port}"
    return found
