"""The embedded PostgreSQL clusters: separate, owned by one role each, and safe against kill -9."""

import os
import signal
import stat
from pathlib import Path

import psycopg
import pytest

from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready
from infra.local.postgres import SUPERUSER, Database, postgres


def database(data: Path, name: str, owner: str) -> Database:
    return Database(data / name, free_port(), name, owner)


def connect(database: Database, user: str | None = None, password: str | None = None, dbname: str | None = None):
    return psycopg.connect(
        host=LOOPBACK,
        port=database.port,
        user=user or database.owner,
        password=database.owner_password() if password is None else password,
        dbname=dbname or database.name,
        connect_timeout=5,
    )


@pytest.fixture
def own(store_data: Path, request: pytest.FixtureRequest) -> Database:
    return database(store_data / request.node.name, "auth_db", "auth_service")


def test_each_service_has_its_own_cluster_and_role(own: Database) -> None:
    other = database(own.data.parent, "profile_db", "profile_service")
    parts = [postgres("postgres-auth", own), postgres("postgres-profile", other)]
    processes = []
    try:
        for part in parts:
            part.prepare()
            processes.append(spawn(part, own.data / "log"))
        for part, process in zip(parts, processes, strict=True):
            wait_ready(part, process)
        with connect(own) as connection:
            connection.execute("CREATE TABLE mine (id int)")
            assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (
                False,
            )
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(other, own.owner, own.owner_password())
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(own, password="postgres")
        with connect(own, SUPERUSER, "postgres") as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == (LOOPBACK,)
    finally:
        for part, process in zip(parts, processes, strict=False):
            stop(part, process)
            assert process.returncode == 0


def test_the_password_is_random_kept_and_private(own: Database) -> None:
    password = own.owner_password()
    assert len(password) > 30
    assert own.owner_password() == password
    (file,) = own.data.glob("*.password")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_kill_9_loses_nothing_and_a_reused_pid_does_not_matter(own: Database) -> None:
    part = postgres("postgres-auth", own)
    part.prepare()
    process = spawn(part, own.data / "log")
    wait_ready(part, process)
    with connect(own) as connection:
        connection.execute("CREATE TABLE kept (id int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    process.send_signal(signal.SIGKILL)
    process.wait()
    pid_file = own.cluster / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    part.prepare()
    process = spawn(part, own.data / "log")
    try:
        wait_ready(part, process)
        with connect(own) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]
    finally:
        stop(part, process)


def test_a_killed_creation_is_begun_anew(own: Database) -> None:
    draft = own.data / "cluster.draft"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18")
    part = postgres("postgres-auth", own)
    part.prepare()
    assert (own.cluster / "global").is_dir()
    assert not draft.exists()
