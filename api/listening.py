"""Listening sockets; a loopback host is served on ::1 too, where it exists."""

import logging
import socket

_LOOPBACK_TWIN = {"127.0.0.1": "::1", "localhost": "::1"}

log = logging.getLogger(__name__)


def listen(host: str, port: int) -> list[socket.socket]:
    """One socket, or two on the same port (0: a free one). Raises OSError if the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets = [socket.create_server((host, port), family=family, backlog=2048)]
    if twin := _LOOPBACK_TWIN.get(host):
        try:
            port = sockets[0].getsockname()[1]
            sockets.append(socket.create_server((twin, port), family=socket.AF_INET6, backlog=2048))
        except OSError as error:
            log.info("not listening on [%s]:%d: %s", twin, port, error)
    return sockets
