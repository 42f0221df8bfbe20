"""The committed corpus: a folder for each target, a file for each input, named by its hash."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.target import Target

CORPUS = Path(__file__).resolve().parent / "corpus"
ROOT = Path(__file__).resolve().parents[2]
PRODUCT = tuple(str(ROOT / package) for package in ("consensus", "node", "comity"))
INPUT_BYTES_MAX = 4096
TARGET_BYTES_MAX = 6000
CONSIDERED_MAX = 50
"""Inputs that are traced to choose from; tracing is slow."""
CORPUS_BYTES_MAX = 300 * 1024

Step = tuple[str, int, int]
"""File, line before, line: one step of the product's code."""


def inputs(name: str) -> list[bytes]:
    """The committed inputs of a target, in the order of their names."""
    folder = CORPUS / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


def steps(target: Target, data: bytes) -> set[Step]:
    """Which steps of the product's code an input takes."""
    taken: set[Step] = set()
    before: dict[FrameType, int] = {}

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            taken.add((frame.f_code.co_filename, before.get(frame, 0), frame.f_lineno))
            before[frame] = frame.f_lineno
        return local

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename.startswith(PRODUCT) else None

    sys.settrace(enter)
    try:
        target.feed(data)
    finally:
        sys.settrace(None)
    return taken


def keep(target: Target, found: Iterable[bytes]) -> list[bytes]:
    """Choose and write a target's corpus: of ``found`` and what is there, shortest first, whatever
    takes a step that neither the seeds nor those chosen before take. Returns them.
    """
    taken: set[Step] = set()
    for seed in target.seeds:
        taken |= steps(target, seed)
    chosen: list[bytes] = []
    size = 0
    known = inputs(target.name)
    ordered = sorted({*found} - {*known}, key=lambda each: (len(each), each))
    for data in sorted([*known, *ordered[:CONSIDERED_MAX]], key=lambda each: (len(each), each)):
        if len(data) > INPUT_BYTES_MAX or size + len(data) > TARGET_BYTES_MAX:
            break
        new = steps(target, data) - taken
        if new:
            taken |= new
            size += len(data)
            chosen.append(data)
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for data in chosen:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return chosen
