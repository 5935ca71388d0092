"""PostgreSQL schemas as numbered Alembic migrations, one folder a service; its process applies them when it starts."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, create_engine, text

HERE = Path(__file__).parent
_LOCK_KEY = 0x747261636B6572  # "tracker"; advisory locks are a database's own


def migrate(url: URL, service: str) -> None:
    """Bring a service's database (`url` with the psycopg driver) to the newest schema of `infra/migrations/<service>`.

    Instances that start together take turns; it is all or nothing. Waits for locks at most 3 s each.
    Raises sqlalchemy.exc.OperationalError when the database can't be reached.
    """
    engine = create_engine(url, connect_args={"connect_timeout": 3, "options": "-c lock_timeout=3000"})
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            config = alembic_config(service)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()


def alembic_config(service: str) -> Config:
    """Alembic's configuration for one service's migrations."""
    config = Config()
    for name, value in {
        "script_location": str(HERE),
        "version_locations": str(HERE / service),
        "path_separator": "newline",
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config
