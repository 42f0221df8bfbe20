"""Where a leaf stands in the state tree: the keyed hash of its namespace and components.

``kh = keyed_hash(K, cbor[namespace, [component, ...]])``, ``K = derive_key("key path", chain)``.
The key differs per network, so nobody can grind collisions or crowded prefixes that hold on
another one. It is public: ids must not be guessable secrets.

Not here: which namespaces exist (``consensus.ledger``). Callers that look one key up many times
keep their own bounded cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from consensus import codec
from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, derive_key, keyed

KeyPath = Callable[[str, Sequence[codec.Value]], bytes]


def path_hasher(chain: bytes) -> KeyPath:
    """Return ``(namespace, components) -> kh``, the 32-byte key path of one network.

    Args:
        chain: 32-byte hash of the genesis file.

    Cost: about 3 µs a key.
    """
    invariant(len(chain) == DIGEST_BYTES, "a chain has 32 bytes")
    digest = keyed(derive_key("key path", chain))
    encode = codec.encode

    def key_path(namespace: str, components: Sequence[codec.Value]) -> bytes:
        return digest(encode([namespace, list(components)]))

    return key_path
