"""Asynchronous tests here run in virtual time."""

from pathlib import Path

import pytest

from tests.comity import virtual_time


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    virtual_time.apply(Path(__file__).parent, items)
