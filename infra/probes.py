"""Is it really up? One question, asked over each part's own protocol; the address is a URL whose scheme says which.

kafka://h:p,h:p      a metadata answer with a broker in it
redis://h:p          PONG
postgresql://h:p     what pg_isready asks
grpc://h:p           grpc.health.v1: SERVING
http://h:p/path      status 200
tcp://h:p            a connection
"" (no URL)          nothing to ask: it runs

`python -m infra.probes URL` exits 0 when it is up, else 1 with the reason: the health check of our containers.
"""

import http.client
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from infra.tls import Tls, grpc_channel_credentials, kafka_security

TIMEOUT_S = 2.0


def probe(url: str) -> str | None:
    """None when the part behind `url` does its work, else the reason; takes two seconds at most, or a bit more."""
    if not url:
        return None
    parts = urlsplit(url)
    try:
        return _unreachable(parts.netloc) or _PROBES[parts.scheme](parts)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        return f"{parts.netloc}: {getattr(error, 'strerror', None) or error}"


def _unreachable(netloc: str) -> str | None:
    """None when something listens at one of the addresses (`h:p,h:p`), else why not."""
    reasons = []
    for one in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{one}")
        try:
            socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
        except OSError as error:
            reasons.append(f"{one}: {error.strerror or error}")
        else:
            return None
    return "; ".join(reasons)


def _kafka(url: SplitResult) -> str | None:
    from confluent_kafka import KafkaException  # noqa: PLC0415 - each client library only where it is asked for
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415

    try:
        admin = AdminClient({**kafka_security(), "bootstrap.servers": url.netloc, "log_level": 0})
        metadata = admin.list_topics(timeout=TIMEOUT_S)
    except KafkaException as error:
        return str(error.args[0].str())
    return None if metadata.brokers else "no broker has joined the cluster"


def _redis(url: SplitResult) -> str | None:
    with socket.create_connection((url.hostname or "", url.port or 6379), timeout=TIMEOUT_S) as connection:
        connection.sendall(b"PING\r\n")
        answer = connection.recv(100)
    # A server that wants a password is up as well.
    if answer.startswith((b"+PONG", b"-NOAUTH")):
        return None
    return answer.decode(errors="replace").strip() or "closed the connection"


def _postgresql(url: SplitResult) -> str | None:
    from psycopg import pq  # noqa: PLC0415

    conninfo = f"host={url.hostname} port={url.port} connect_timeout=2"
    if url.username:
        conninfo += f" user={url.username} dbname={url.path.strip('/')}"
    answer = pq.PGconn.ping(conninfo.encode())
    return None if answer == pq.Ping.OK else f"pg_isready says {pq.Ping(answer).name}"


def _grpc(url: SplitResult) -> str | None:
    import grpc  # noqa: PLC0415
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    # The services' own variables: a health check has the environment of what it checks.
    tls = Tls(*(Path(file) if (file := os.environ.get(f"GRPC_TLS_{what}")) else None for what in ("CA", "CERT", "KEY")))
    channel = (
        grpc.secure_channel(url.netloc, grpc_channel_credentials(tls)) if tls.ca else grpc.insecure_channel(url.netloc)
    )
    with channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return None if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


def _http(url: SplitResult) -> str | None:
    try:
        status, body = http_get(url.geturl())
    except (OSError, http.client.HTTPException) as error:
        return f"{url.netloc}: {error}"
    if status == http.client.OK:
        return None
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}"


def http_get(url: str) -> tuple[int, bytes]:
    """(status, body) of a plain GET. Raises OSError or HTTPException."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path or "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


_PROBES: dict[str, Callable[[SplitResult], str | None]] = {
    "kafka": _kafka,
    "redis": _redis,
    "postgresql": _postgresql,
    "grpc": _grpc,
    "http": _http,
    "tcp": lambda url: None,
}


def main() -> None:
    """Entry point."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m infra.probes URL")
    sys.exit(probe(sys.argv[1]))


if __name__ == "__main__":
    main()
