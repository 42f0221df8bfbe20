"""What a copy in Parquet files holds, as a check reads it: with pyarrow's reader of datasets.

Each file is compared with the digest that the manifest has of it before anything is read.

Not here: what it is compared with (``checking``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from comity.feeding.checking import Row
from comity.feeding.errors import CopyDamagedError, FeedSetupError
from comity.feeding.parquet import arrow_schema, read_manifest
from consensus.hashing import context

_digest = context("feed file")


class ParquetCopy:
    """A copy in a folder, as its manifest said when it was opened."""

    ends = False

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise FeedSetupError(
                f"{folder} holds no copy", hint="name the folder that `comity feed parquet` writes"
            )
        self._manifest = manifest
        self.chain = bytes.fromhex(manifest.chain)
        self.first, self.last = manifest.first, manifest.height
        self._datasets: dict[str, Any] = {}
        for name, columns in manifest.columns.items():
            paths = []
            for each in manifest.files:
                if each.table == name:
                    paths.append(folder / each.path)
                    self._compare(paths[-1], each.digest)
            self._datasets[name] = (
                ds.dataset(
                    [str(path) for path in paths], schema=arrow_schema(columns), format="parquet"
                )
                if paths
                else None
            )

    def _compare(self, path: Path, digest: str) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CopyDamagedError(f"{path} is gone") from error
        if _digest(data).hex() != digest:
            raise CopyDamagedError(f"{path} is not what the manifest lists")

    def rows(self, table: str, first: int, last: int) -> Sequence[Row]:
        """Return the rows of heights, in any order."""
        found = self._datasets.get(table)
        if found is None:
            return []
        columns = self._manifest.columns[table]
        key = "_height" if any(name == "_height" for name, _ in columns) else "height"
        wanted = (pc.field(key) >= first) & (pc.field(key) <= last)
        read = found.to_table(filter=wanted)
        turned = []
        for at, (_, kind) in enumerate(columns):
            column = read.column(at)
            base, _, array = kind.partition("[")
            if base in ("date", "time"):
                plain = pa.int32() if base == "date" else pa.int64()
                column = column.cast(pa.list_(plain) if array else plain)
            values: list[Any] = column.to_pylist()
            if base == "json":
                values = [None if each is None else json.loads(each) for each in values]
            turned.append(values)
        names = [name for name, _ in columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*turned, strict=True)]

    def versioned(self) -> Sequence[str]:
        """Return the names of the tables of versions."""
        return sorted(
            name
            for name, columns in self._manifest.columns.items()
            if any(each == "_height" for each, _ in columns)
        )

    def close(self) -> None:
        """Let go of it."""
        self._datasets.clear()
