"""A record at an earlier version, found among what a store keeps, with the proof of its change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from consensus import codec
from consensus.state.changes import leaf_hashes
from consensus.state.merkle import CHANGES
from consensus.state.record import StoredRecord, decode_row, encode_row
from node.earlier import find
from node.past import Pruned
from node.storage.flush import FlushBatch
from tests.node.test_past import World, key

KH = key(1)


class Records(World):
    """A store with one record among other keys."""

    def write(self, version: int, note: bytes = b"") -> int:
        """Write a version of the record in a block with other keys; return the height."""
        stem = codec.encode("note") + codec.encode(1) + codec.encode([1])
        value = codec.encode([version, note])
        record = StoredRecord(
            stem, version, ("text",), (version,), b"s" * 16, b"h" * 32, (value,), b""
        )
        others = [(key(each), self.random.randbytes(32), b"-") for each in (2, 3)]
        writes = [
            (KH, record.root() if not note else note.ljust(32, b"."), encode_row(record)),
            *others,
        ]
        applied = self.state.apply(sorted(writes))
        height = self.state.height
        self.changes.append(applied.changes)
        self.roots.append(applied.changes_root)
        found = SimpleNamespace(
            block=SimpleNamespace(height=height),
            rows=applied.rows,
            changes=b"".join(applied.changes),
            before=applied.before,
        )
        self.recent = (*self.recent, found)
        return height


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    made = Records(tmp_path / "state")
    yield made
    made.store.close()


def test_every_version_is_found_where_it_was_laid_and_its_change_is_proved(
    records: Records,
) -> None:
    heights = {}
    for version in range(1, 41):
        heights[version] = records.write(version)
        records.block(key(2), key(9))
        if version % 7 == 0:
            records.flush(records.state.height - 3)
    for version, height in heights.items():
        found = find(records.past, KH, version, records.state.height)
        assert found is not None
        assert decode_row(found.row).version == version
        assert found.height == height
        previous = heights.get(version - 1, -1)
        vh = decode_row(found.row).root()
        (leaf,) = leaf_hashes([KH + vh + previous.to_bytes(8, "big", signed=True)])
        CHANGES.verify_path(records.roots[height], found.count, found.index, leaf, found.path)
        assert found.previous == previous


def test_a_version_that_one_height_replaced_again_was_never_in_a_state(records: Records) -> None:
    for version in (1, 2, 5, 6):  # 3 and 4 lasted no longer than a block
        records.write(version)
    assert find(records.past, KH, 3, records.state.height) is None
    assert find(records.past, KH, 4, records.state.height) is None
    assert find(records.past, KH, 7, records.state.height) is None
    found = find(records.past, KH, 5, records.state.height)
    assert found is not None
    assert found.height == 2


def test_nothing_later_than_asked_for_is_shown(records: Records) -> None:
    for version in range(1, 6):
        records.write(version)
    assert find(records.past, KH, 4, 2) is None
    found = find(records.past, KH, 3, 2)
    assert found is not None
    assert found.height == 2


def test_a_hold_that_stepped_no_version_leaves_the_first_height_that_had_it(
    records: Records,
) -> None:
    records.write(1)
    first = records.write(2)
    records.write(2, b"held")
    found = find(records.past, KH, 2, records.state.height)
    assert found is not None
    assert found.height == first


def test_a_record_that_there_never_was_has_no_versions(records: Records) -> None:
    records.write(1)
    assert find(records.past, key(77), 1, records.state.height) is None


def test_what_is_no_longer_kept_says_so_and_what_is_kept_is_found(records: Records) -> None:
    for version in range(1, 31):
        records.write(version)
    records.flush(records.state.height)
    records.store.write(_forget(records, 20))
    newest = records.state.height
    found = find(records.past, KH, 28, newest)
    assert found is not None
    assert decode_row(found.row).version == 28
    with pytest.raises(Pruned):
        find(records.past, KH, 3, newest)


def _forget(records: Records, upto: int) -> FlushBatch:
    return FlushBatch(records.state.height, rows=[], blocks=[], forget=upto)
