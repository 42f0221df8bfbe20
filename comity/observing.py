"""The folder of a node that observes: made by whoever runs it, on its own machine.

    new_observer   its node key, its certificate and its configuration

The certificate goes to the members at whose doors it is to be let in, and to clients that are to
use it. Nothing of it is agreed on by the network.

Not here: the members' doors (``node.observers``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from comity import founding, keys
from comity.errors import DraftError
from comity.servers import CERTIFICATE_SUFFIX
from consensus import genesis
from consensus.keyfile import KeyKind, KeyPair

DOORS_FOLDER: Final = "observers"
"""Where a member's node looks for the certificates of observers, in its own folder."""


@dataclass(frozen=True, slots=True)
class Observer:
    """A new observer: public files by name, and its node key."""

    name: str
    certificate: bytes
    files: Mapping[str, bytes]
    key: KeyPair = field(repr=False)


def new_observer(
    genesis_file: bytes,
    name: str,
    follow: Mapping[str, str],
    *,
    clients: str,
    telemetry: str,
    recheck: bool,
    make_certificate: founding.MakeCertificate,
) -> Observer:
    """Make what an observer of a network begins with.

    Args:
        name: of whoever runs it; the common name of its certificate.
        follow: ``host:port`` of members' doors for observers, by agency.
        clients, telemetry: ``host:port`` where it listens.
        recheck: whether it checks every client's signature again.

    Raises:
        DraftError: an unusable name, or no door of a member that the genesis file names.
        DecodeError: the genesis file is malformed.
    """
    if not founding.NAME.fullmatch(name):
        raise DraftError(f"{name!r} is no name of an observer", hint="use a-z, 0-9, - _")
    members = [each.agency for each in genesis.decode(genesis_file).committee.validators]
    strange = [each for each in follow if not founding.NAME.fullmatch(each)]
    if strange:
        raise DraftError(f"{strange[0]!r} is no name of an agency", hint="use a-z, 0-9, - _")
    if not any(agency in members for agency in follow):  # some may have joined since
        raise DraftError(
            f"no door of a member is named: {', '.join(follow) or 'nobody'} is not in this file",
            hint=f"name one or more of {', '.join(members)}",
        )
    key = keys.new_pair(KeyKind.NODE)
    certificate = make_certificate(key.seed, name)
    text = config(name, follow, clients=clients, telemetry=telemetry, recheck=recheck)
    files = {
        founding.CONFIG_NAME: text.encode(),
        f"{name}{CERTIFICATE_SUFFIX}": certificate,
        founding.GENESIS_NAME: genesis_file,
    }
    return Observer(name, certificate, files, key)


def config(
    name: str, follow: Mapping[str, str], *, clients: str, telemetry: str, recheck: bool
) -> str:
    """Return the text of an observer's configuration file, beside genesis file and key."""
    doors = "\n".join(f'{agency} = "{address}"' for agency, address in follow.items())
    again = "true" if recheck else "false"
    return f"""# The observer of {name}.
[node]
role = "observer"                # follows, and has no validator key
agency = "{name}"
genesis = "{founding.GENESIS_NAME}"
data = "data"
node_key = "keys/node.key"
recheck_signatures = {again}       # check every client's signature again

[listen]
clients = "{clients}"
telemetry = "{telemetry}"

[follow]                         # members' doors for observers
{doors}
"""


def door(address: str, connections_max: int) -> str:
    """Return the lines by which a member's configuration opens a door for observers."""
    lines = (
        "[observers]",
        f'listen = "{address}"',
        f'folder = "{DOORS_FOLDER}"',
        f"connections_max = {connections_max}",
    )
    return "\n" + "\n".join(lines) + "\n"
