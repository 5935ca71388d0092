"""Applies the numbered migrations beside this file: `python -m infra.clickhouse.migrate`.

A migration is `NNNN_name.sql`: statements that may run again, parted by `;` at the end of a line, with
`{database}` and `{table}` (CLICKHOUSE_TABLE) in place of names. What was applied is in `<database>.schema_migrations`.
ClickHouse has neither transactions over DDL nor locks: two runners at once both run the statements, which is why these
may run again, and the record is written once thanks to its deduplication token.
"""

import logging
import re
from dataclasses import dataclass
from importlib.resources import files

from clickhouse_connect.driver.client import Client

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE = re.compile(r"(\d{4})_\w+\.sql")
_LEDGER = """
CREATE TABLE IF NOT EXISTS {database}.schema_migrations
(
    version UInt32,
    name String,
    target String,
    applied_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = MergeTree
ORDER BY (target, version)
SETTINGS non_replicated_deduplication_window = 1000
"""


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    def statements(self, database: str, table: str) -> list[str]:
        """The SQL with the names put in."""
        named = self.text.replace("{database}", database).replace("{table}", table)
        return [statement.strip() for statement in re.split(r";[ \t]*(?:\n|\Z)", named) if statement.strip()]


def migrations() -> list[Migration]:
    """All of them, by number."""
    found = []
    for entry in files(__package__).joinpath("migrations").iterdir():
        if match := _FILE.fullmatch(entry.name):
            found.append(Migration(int(match[1]), entry.name.removesuffix(".sql"), entry.read_text(encoding="utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def migrate(client: Client, database: str, table: str) -> list[str]:
    """Create the database and apply what is missing; gives the names of what was applied now.

    Raises ValueError for names that are no plain identifiers, and clickhouse-connect's errors.
    """
    for name in (database, table):
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a plain ClickHouse name: {name!r}")
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}")
    client.command(_LEDGER.format(database=database))
    missing = [migration for migration in migrations() if migration.version not in _applied(client, database, table)]
    for migration in missing:
        for statement in migration.statements(database, table):
            client.command(statement)
        _record(client, database, table, migration)
        log.info("applied migration %s to %s", migration.name, database)
    return [migration.name for migration in missing]


def _applied(client: Client, database: str, table: str) -> set[int]:
    rows = client.query(
        f"SELECT version FROM {database}.schema_migrations WHERE target = {{target:String}}",  # noqa: S608 - a checked name
        parameters={"target": table},
    ).result_rows
    return {int(version) for (version,) in rows}


def _record(client: Client, database: str, table: str, migration: Migration) -> None:
    client.insert(
        f"{database}.schema_migrations",
        [[migration.version, migration.name, table]],
        column_names=["version", "name", "target"],
        settings={"insert_deduplication_token": f"{table}:{migration.name}", "async_insert": 0},
    )


def main() -> None:
    """Migrate the database that the environment names."""
    # Here, so that importing this module needs no settings.
    import clickhouse_connect  # noqa: PLC0415

    from infra.logs import setup_logging  # noqa: PLC0415
    from infra.settings import Settings  # noqa: PLC0415

    settings = Settings()
    setup_logging(settings.log_level)
    host, port = settings.clickhouse_http
    password = settings.clickhouse_password.get_secret_value()
    tls = settings.tls("clickhouse")
    client = clickhouse_connect.get_client(
        host=host,
        port=port,
        username=settings.clickhouse_user,
        password=password,
        autogenerate_session_id=False,
        **(tls.clickhouse_options() if tls else {}),
    )
    applied = migrate(client, settings.clickhouse_database, settings.clickhouse_table)
    log.info("%s is up to date (%d applied now)", settings.clickhouse_database, len(applied))


if __name__ == "__main__":
    main()
