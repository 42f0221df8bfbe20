"""Readers of ``consensus`` that ``tests/consensus/test_hostile_bytes.py`` names: messages, blocks,
certificates, the safety record, transactions, groups, batches with their private parts, decisions,
rule sets as encoded, proofs, the genesis file, key files, requests and answers. Whatever is
accepted encodes to the very bytes that were accepted.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.consensus.test_hostile_bytes import DECODERS, Decoder
from tests.fuzz.target import Target


def entry(decoder: Decoder) -> Callable[[bytes], object]:
    def run(data: bytes) -> None:
        again = decoder.decode(data)
        assert again is None or again == data, "accepted, but not the canonical bytes"

    return run


TARGETS = [
    Target(each.name.replace(" ", "-"), entry(each), each.samples, each.errors) for each in DECODERS
]
