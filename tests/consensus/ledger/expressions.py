"""A scope for tests: paths with their types, and nothing behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consensus.ledger.expr import Fault, Name
from consensus.ledger.model import Path


@dataclass(frozen=True)
class Names:
    """Knows exactly the paths of ``paths``."""

    paths: Mapping[Path, Name]

    @property
    def roots(self) -> tuple[str, ...]:
        return tuple(path[0] for path in self.paths)

    def resolve(self, parts: Path, position: int) -> Name:
        if parts not in self.paths:
            raise Fault(f"unknown {'.'.join(parts)}", position)
        return self.paths[parts]
