"""A real PostgreSQL for the tests of feeds, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.databases import Cluster, execute, programs, rows


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running server of its own."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    own = Cluster(found)
    yield own
    own.stop()


@pytest.fixture
def dsn(cluster: Cluster) -> str:
    """A database without any schema of ours."""
    found = cluster.dsn()
    schemas = (
        "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' "
        "AND nspname <> 'information_schema'"
    )
    for (name,) in rows(found, schemas):
        execute(found, f"DROP SCHEMA {name} CASCADE")
    return found
