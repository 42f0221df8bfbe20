"""The corpus of the fuzzer, replayed: each input is accepted or refused as documented."""

from __future__ import annotations

import pytest

from tests.fuzz import corpus_files
from tests.fuzz.target import Target
from tests.fuzz.targets import GROUPS, TARGETS

named = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda each: each.name)


@named
def test_an_honest_input_is_accepted(target: Target) -> None:
    accepted = sum(target.feed(seed) for seed in target.seeds)
    assert accepted if target.accepts else target.seeds


@named
def test_every_input_of_the_corpus_is_accepted_or_refused_as_documented(target: Target) -> None:
    for data in corpus_files.inputs(target.name):
        target.feed(data)


@named
def test_the_corpus_has_something_that_is_refused(target: Target) -> None:
    found = corpus_files.inputs(target.name)
    assert found
    assert not all(target.feed(data) for data in found)


def test_the_corpus_is_small_and_of_targets_that_exist() -> None:
    folders = {path.name for path in corpus_files.CORPUS.iterdir()}
    assert folders <= set(TARGETS)
    assert len(TARGETS) == sum(len(group.TARGETS) for group in GROUPS)
    size = sum(path.stat().st_size for path in corpus_files.CORPUS.rglob("*") if path.is_file())
    assert size <= corpus_files.CORPUS_BYTES_MAX
