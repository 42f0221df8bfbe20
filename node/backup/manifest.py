"""What a backup says of itself: of which node and height it is, and what every file must be.

    backup    = manifest.cbor, genesis.cbor, state/data.mdb, what else ``files`` names
    manifest  = {magic, version, software, store, network, chain, agency, taken_ms, epoch, height,
                 first, time_ms, block_id, state_root, key_count, certificate, private_from,
                 horizon, sealed_keys, files}                                canonical CBOR map
    file      = [name, size, digest]

Digests are plain BLAKE3, so ``b3sum`` checks them too. The manifest is written last: a backup
without one is none. The digest of the manifest is the backup's own.

Nothing in a manifest is believed but what the files lead to: the certificate is checked against the
genesis file that the reader names, the state is hashed again.

Not here: files (``sinks``, ``sources``), and who checks (``restoring``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from blake3 import blake3

from consensus import codec
from consensus.errors import DecodeError
from node.backup.errors import DamagedBackupError
from node.errors import NewerFormatError

MAGIC: Final = "comity backup"
VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.cbor"
GENESIS_NAME: Final = "genesis.cbor"
STORE_NAME: Final = "state/data.mdb"
READS_NAME: Final = "reads.log"
SEALED_NAME: Final = "sealed/values/data.mdb"
NAMES: Final = (GENESIS_NAME, STORE_NAME, READS_NAME, SEALED_NAME)
"""Every file that a backup may hold beside its manifest, in their order."""
REQUIRED: Final = (GENESIS_NAME, STORE_NAME)
MANIFEST_BYTES_MAX: Final = 64 * 1024
CERTIFICATE_BYTES_MAX: Final = 16 * 1024

_FILE: Final = codec.array(codec.text(64, low=1), codec.count, codec.bytes32)
_SHAPE: Final = codec.mapping(
    {
        "magic": codec.text(32),
        "version": codec.integer(1),
        "software": codec.text(64, low=1),
        "store": codec.integer(1),
        "network": codec.text(256, low=1),
        "chain": codec.bytes32,
        "agency": codec.text(256, low=1),
        "taken_ms": codec.count,
        "epoch": codec.integer(1),
        "height": codec.integer(1),
        "first": codec.count,
        "time_ms": codec.count,
        "block_id": codec.bytes32,
        "state_root": codec.bytes32,
        "key_count": codec.count,
        "certificate": codec.octets(low=1, high=CERTIFICATE_BYTES_MAX),
        "private_from": codec.count,
        "horizon": codec.count,
        "sealed_keys": codec.optional(codec.bytes32),
        "files": codec.list_of(_FILE, len(NAMES), low=len(REQUIRED)),
    }
)


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its name in the backup, size in bytes, and BLAKE3 digest."""

    name: str
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself.

    Args:
        software: version that made it.
        store: format of the store.
        agency: whose node it was.
        taken_ms: that machine's clock.
        epoch, height, time_ms, block_id, state_root: of the newest block in it.
        first: first height whose block is in it.
        key_count: entries of the state.
        certificate: commit certificate on that height.
        private_from: first height whose private parts are kept; ``horizon``: whose past rows are.
        sealed_keys: digest of the file with the sealed values' keys, which is kept apart; None: no
            sealed values are in the backup.
        files: in their order.
    """

    software: str
    store: int
    network: str
    chain: bytes
    agency: str
    taken_ms: int
    epoch: int
    height: int
    first: int
    time_ms: int
    block_id: bytes
    state_root: bytes
    key_count: int
    certificate: bytes
    private_from: int
    horizon: int
    sealed_keys: bytes | None
    files: tuple[Part, ...]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        value["files"] = [[each.name, each.size, each.digest] for each in self.files]
        return codec.encode({"magic": MAGIC, "version": VERSION, **value})

    @property
    def digest(self) -> bytes:
        """The backup's own digest: BLAKE3 of the manifest's bytes."""
        return blake3(self.encode()).digest()

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(each.size for each in self.files)

    @property
    def has_sealed(self) -> bool:
        """Whether sealed values are in it."""
        return any(each.name == SEALED_NAME for each in self.files)


def decode(data: bytes) -> Manifest:
    """Return the manifest in untrusted bytes, well-formed and no more.

    Raises:
        DamagedBackupError: it is none.
        NewerFormatError: a newer release made it.
    """
    try:
        newer(data)
        value = codec.decode(data, _SHAPE, bytes_max=MANIFEST_BYTES_MAX, what="manifest")
    except DecodeError as error:
        raise DamagedBackupError(f"{MANIFEST_NAME} is not that of a backup: {error}") from error
    if value.pop("magic") != MAGIC or value.pop("version") != VERSION:
        raise DamagedBackupError(f"{MANIFEST_NAME} is not that of a backup")
    files = tuple([Part(*row) for row in value.pop("files")])
    names = [each.name for each in files]
    known = [name for name in NAMES if name in names]
    if names != known or not all(name in names for name in REQUIRED):
        raise DamagedBackupError(f"{MANIFEST_NAME} names other files than those of a backup")
    found = Manifest(files=files, **value)
    if found.has_sealed != (found.sealed_keys is not None):
        raise DamagedBackupError(f"{MANIFEST_NAME} contradicts itself about sealed values")
    return found


def newer(data: bytes) -> None:
    """Refuse a manifest that only a newer release reads, whatever else is in it.

    Raises:
        NewerFormatError: it is one.
        DecodeError: not canonical CBOR.
    """
    if len(data) > MANIFEST_BYTES_MAX:
        raise DecodeError(f"more than {MANIFEST_BYTES_MAX} bytes")
    value = codec.parse(data, "manifest")
    if type(value) is not dict or value.get("magic") != MAGIC:
        return
    version = value.get("version")
    if type(version) is int and version > VERSION:
        raise NewerFormatError(f"the backup has format {version}, this software knows {VERSION}")
