"""How many WebSockets one user, and one network address, may have open at this process."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

IPV6_PREFIX = 64  # what one customer has


class TooManyConnections(Exception):
    """Some have to be closed first."""


class Admission:
    """Counts open connections; a limit of 0 is none. Loopback addresses count only with `limit_loopback`."""

    def __init__(self, per_user: int, per_address: int, *, limit_loopback: bool = False) -> None:
        self._per_user = per_user
        self._per_address = per_address
        self._limit_loopback = limit_loopback
        self._open: Counter[str] = Counter()

    @contextmanager
    def user(self, user_id: str) -> Iterator[None]:
        """One more connection of this user. Raises TooManyConnections."""
        with self._counted(f"user {user_id}", self._per_user, "this user has"):
            yield

    @contextmanager
    def address(self, address: str) -> Iterator[None]:
        """One more connection from this IP address, or from its IPv6 network. Raises TooManyConnections."""
        network, is_loopback = _network(address)
        limit = 0 if is_loopback and not self._limit_loopback else self._per_address
        with self._counted(f"address {network}", limit, "this address has"):
            yield

    @contextmanager
    def _counted(self, who: str, limit: int, said: str) -> Iterator[None]:
        if limit and self._open[who] >= limit:
            raise TooManyConnections(f"{said} {limit} connections open")
        self._open[who] += 1
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]


def _network(address: str) -> tuple[str, bool]:
    """(the part of the address that counts, is it loopback)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # a Unix socket has none
        return address, not address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            parsed = parsed.ipv4_mapped
        elif not parsed.is_loopback:
            return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False)), False
    return str(parsed), parsed.is_loopback
