"""What a target of the fuzzer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consensus.errors import DecodeError

_VECTORS = Path(__file__).resolve().parent.parent / "vectors"


@dataclass(frozen=True)
class Target:
    """One reader of bytes.

    Args:
        name: as ``scripts/fuzz`` and the corpus' folders have it.
        run: the entry: returns, or raises one of ``errors``; checks what it can of what it took.
        seeds: honest inputs.
        errors: that the reader documents.
        bytes_max: longest input that is tried.
        words: tokens of a textual form, for the mutator; empty where the form is CBOR or binary.
        accepts: whether one of the seeds is accepted as it stands.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...] = (DecodeError,)
    bytes_max: int = 16_384
    words: Sequence[str] = ()
    accepts: bool = True

    def feed(self, data: bytes) -> bool:
        """Run the entry; return whether the bytes were accepted. Anything undocumented escapes."""
        try:
            self.run(data)
        except self.errors:
            return False
        return True


def vectors(name: str) -> Any:
    """The vectors of ``tests/vectors`` called ``name``."""
    return json.loads((_VECTORS / f"{name}.json").read_text(encoding="utf-8"))


def of(rows: Any, key: str = "cbor") -> list[bytes]:
    """The bytes under ``key`` of rows of vectors."""
    return [bytes.fromhex(row[key]) for row in rows]
