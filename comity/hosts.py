"""Names and addresses of machines, as people write them.

They go into the genesis file, the transcript of a founding and the committee, where everybody reads
them: what is none is refused before a key is made.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from comity.errors import DraftError

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?\.?")
"""A name or an IPv4 address; underscores are in names that containers have."""


def check_host(host: str) -> None:
    """Refuse what is neither a name nor an address of a machine.

    Raises:
        DraftError: it is none.
    """
    if _NAME.fullmatch(host):
        return
    try:
        ipaddress.IPv6Address(host)
    except ValueError as error:
        raise DraftError(
            f"{host[:80]!r} is no host", hint="write a name as node.tax.example, or an address"
        ) from error
