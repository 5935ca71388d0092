"""A circuit breaker: a neighbour that does not answer is asked no more for a while, then by one call at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from circuitbreaker import STATE_HALF_OPEN, CircuitBreaker

from api.profile.errors import NotAvailable

T = TypeVar("T")


class Breaker:
    """Opens after `failures` calls in a row that raised NotAvailable; `recovery_s` later one probe may close it."""

    def __init__(self, failures: int, recovery_s: float) -> None:
        self._recovery_s = recovery_s
        self._probing = False
        self._circuit = CircuitBreaker(failures, recovery_s, _is_failure)

    @property
    def open(self) -> bool:
        """Are calls refused at once?"""
        return self._circuit.opened or self._probing

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Its answer. Raises what it raises, or NotAvailable at once while the neighbour is given its time."""
        if self.open:
            refused = NotAvailable("the service behind this one is away")
            refused.retry_after_s = max(self._circuit.open_remaining, self._recovery_s if self._probing else 1)
            raise refused
        # The library lets everybody through when half open; who hangs there would wait for their deadlines.
        probe = self._probing = self._circuit.state == STATE_HALF_OPEN
        try:
            with self._circuit:
                return await attempt()
        finally:
            if probe:
                self._probing = False


def _is_failure(kind: type[BaseException], _error: BaseException) -> bool:
    # A call that was given up has told nothing: the library would take it for a success.
    return issubclass(kind, NotAvailable | asyncio.CancelledError)
