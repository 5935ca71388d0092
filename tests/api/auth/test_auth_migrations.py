"""infra/migrations/auth on a real database."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL
from sqlalchemy.exc import OperationalError

from api.auth.repository import metadata
from infra.migrations import migrate


@pytest.fixture
def empty_url(auth_url: URL, postgres: Any) -> URL:
    return auth_url.set(database=postgres.create_database("migrated"))


def test_they_make_what_the_repository_expects_and_run_twice(empty_url: URL) -> None:
    migrate(empty_url, "auth")
    migrate(empty_url, "auth")
    engine = sa.create_engine(empty_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_instances_that_start_together_take_turns(empty_url: URL) -> None:
    with ThreadPoolExecutor(6) as threads:
        for result in [threads.submit(migrate, empty_url, "auth") for _ in range(6)]:
            result.result()


def test_no_database_is_an_operational_error(empty_url: URL) -> None:
    with pytest.raises(OperationalError):
        migrate(empty_url.set(database="nowhere"), "auth")
