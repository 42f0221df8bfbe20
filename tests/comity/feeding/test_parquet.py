"""A copy in Parquet files: what the manifest lists counts, wherever it is cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from comity.feeding import parquet
from comity.feeding.check_parquet import ParquetCopy
from comity.feeding.checking import Report, check
from comity.feeding.errors import CopyDamagedError, FeedSetupError
from comity.feeding.following import Bounds, Follower
from comity.feeding.parquet import MANIFEST, Parquet, read_manifest
from tests.comity.feeding.office import TOKEN, act, copied, office, worked
from tests.comity.twin import Twin, harness
from tests.node.api.care import AUDITOR, WORKER, Acts, absent, founded
from tests.node.api.test_read_past import MOVES
from tests.node.api.test_recorded_methods import seen

ds = pytest.importorskip("pyarrow.dataset")


async def proved(client: Any, folder: Path) -> Report:
    return await check(client, ParquetCopy(folder), 0, None)


def table(folder: Path, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table as any reader of folders finds them."""
    found = ds.dataset(folder / "data" / name, format="parquet", partitioning="hive")
    rows: list[dict[str, Any]] = found.to_table(columns=columns).to_pylist()
    return rows


async def test_a_copy_has_every_version_once_and_goes_on(tmp_path: Path) -> None:
    async with office() as (h, client):
        await worked(client)
        assert (await copied(client, Parquet(tmp_path))).height == h.twin.height
        assert (await copied(client, Parquet(tmp_path))).heights == 0
        await act(client, "amend", note=[1], text="later")
        assert (await copied(client, Parquet(tmp_path))).heights == 1
        found = await proved(client, tmp_path)
        assert found.divergence is None
        assert (found.heights, found.unchecked) == (h.twin.height + 1, 0)
    notes = sorted(table(tmp_path, "kind_note"), key=lambda row: (row["_height"], row["_id"]))
    assert [(row["_id"], row["_version"], row["text"]) for row in notes] == [
        ("1", 1, "n1"),
        ("2", 1, "n2"),
        ("1", 2, "slip"),
        ("1", 3, "n1"),
        ("2", 2, "n2"),
        ("1", 4, "later"),
    ]
    assert {row["chain_date"] for row in notes} == {"2026-09-21"}
    columns = ["_id", "int", "bytes", "ints", "xmin_"]  # Python has no dates of the year 0
    every = sorted(table(tmp_path, "kind_every", columns), key=lambda row: row["int"])
    assert every[0]["_id"] == f"0x{TOKEN.hex()}/{-(2**63)}"
    assert (every[0]["bytes"], every[0]["ints"], every[0]["xmin_"]) == (b"\x00\xff", [1, -2], 7)
    assert sorted(os.listdir(tmp_path)) == [
        "data",
        "lock",
        MANIFEST,
        "places.sqlite",
    ]


async def test_many_small_files_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "FILES_MAX", 3)
    monkeypatch.setattr("comity.feeding.following.HEIGHTS_TOGETHER_MAX", 1)
    async with office() as (h, client):
        await worked(client)
        await copied(client, Parquet(tmp_path))
        assert h.twin.height > 8
        assert len(files(tmp_path, "heights")) <= 3
        assert len(table(tmp_path, "heights")) == h.twin.height + 1
        assert (await proved(client, tmp_path)).divergence is None


def files(folder: Path, name: str) -> list[Path]:
    """The files of a table."""
    return [*folder.glob(f"data/{name}/*/*")]


class Cut(BaseException):
    """What a kill is to the code it hits."""


async def test_what_comes_after_a_write_has_failed_does_not_hide_why(tmp_path: Path) -> None:
    async with office() as (_, client):
        await worked(client)
        follower = Follower(client, Parquet(tmp_path), Bounds(0, -1, 2.0), lambda words: None)
        sender, receiver = trio.open_memory_channel[Any](0)
        receiver.close()  # as the task that writes does when it fails
        with trio.fail_after(10):
            await follower._receive(sender)


async def test_wherever_it_is_cut_off_the_copy_goes_on_and_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = 0
    plain = os.rename, os.fsync, Path.unlink, Path.rename

    def cutting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Cut
            return call(*arguments, **options)

        return counted

    monkeypatch.setattr(parquet, "FILES_MAX", 2)
    monkeypatch.setattr("comity.feeding.following.HEIGHTS_TOGETHER_MAX", 3)
    async with office() as (h, client):
        await worked(client)
        cuts = 0
        for moment in (1, 5, 12, 18, 20, 22, 24, 30, 41, 60):
            folder = tmp_path / str(moment)
            await copied(client, Parquet(folder), last=2)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", cutting(plain[1]))
                patch.setattr(Path, "unlink", cutting(plain[2]))
                patch.setattr(Path, "rename", cutting(plain[3]))
                left = moment
                try:
                    await copied(client, Parquet(folder))
                except* Cut:
                    cuts += 1
            await copied(client, Parquet(folder))
            assert (await proved(client, folder)).divergence is None
            assert len(table(folder, "decisions")) == 11
            assert len(table(folder, "heights")) == h.twin.height + 1
        assert cuts >= 8


async def test_what_may_not_be_read_does_not_arrive_and_what_is_lost_is_said(
    tmp_path: Path,
) -> None:
    twin = Twin(founded(MOVES))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [b"p" * 32], "north", expects=absent("case", [1]))
    async with harness(twin) as h:
        for key, name in ((WORKER, "worker"), (AUDITOR, "auditor")):
            async with h.client(key) as client:
                await copied(client, Parquet(tmp_path / name))
        acts.do(WORKER, "move", [1], "south", expects=seen(1))
        for key, name, last in ((WORKER, "worker", None), (AUDITOR, "auditor", "south")):
            async with h.client(key) as client:
                await copied(client, Parquet(tmp_path / name))
                rows = sorted(table(tmp_path / name, "kind_case"), key=lambda row: row["_height"])
                assert [row["region"] for row in rows] == ["north", last]
                assert (rows[1]["_state"] == "not readable") is (last is None)
                assert (await proved(client, tmp_path / name)).divergence is None


async def test_a_copy_that_was_changed_is_refused(tmp_path: Path) -> None:
    async with office() as (_, client):
        await worked(client)
        await copied(client, Parquet(tmp_path))
        manifest = read_manifest(tmp_path)
        assert manifest is not None
        file = tmp_path / manifest.files[0].path
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CopyDamagedError, match="not what the manifest lists"):
            ParquetCopy(tmp_path)
        file.unlink()
        for call in (lambda: ParquetCopy(tmp_path), lambda: Parquet(tmp_path).open(client.chain)):
            with pytest.raises(CopyDamagedError, match="gone"):
                call()
        file.write_bytes(data)
        stranger = file.with_name("mine.parquet")
        stranger.write_bytes(data)
        again = Parquet(tmp_path)
        again.open(client.chain)
        assert not stranger.exists()
        with pytest.raises(FeedSetupError, match="another feed"):
            Parquet(tmp_path).open(client.chain)
        again.close()
        with pytest.raises(CopyDamagedError, match="another network"):
            Parquet(tmp_path).open(bytes(32))
        text = (tmp_path / MANIFEST).read_text(encoding="utf-8")
        value = json.loads(text)
        for broken in ("{", "[]", json.dumps({**value, "files": [1]})):
            (tmp_path / MANIFEST).write_text(broken, encoding="utf-8")
            with pytest.raises(CopyDamagedError, match="cannot be read"):
                Parquet(tmp_path).open(client.chain)
        (tmp_path / MANIFEST).write_text(json.dumps({**value, "format": 2}), encoding="utf-8")
        with pytest.raises(FeedSetupError, match="format 2"):
            Parquet(tmp_path).open(client.chain)


def test_a_folder_of_somebody_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(FeedSetupError, match="somebody else"):
        Parquet(tmp_path).open(bytes(32))
    with pytest.raises(FeedSetupError, match="holds no copy"):
        ParquetCopy(tmp_path)
    with pytest.raises(FeedSetupError, match="cannot be written"):
        Parquet(tmp_path / "mine" / "deeper").open(bytes(32))
