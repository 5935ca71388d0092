"""What the exchange's refusals mean, and how long to wait before the next try."""

import ipaddress
import random
from collections.abc import Mapping
from urllib.parse import urlsplit

from flows.domain.errors import ExchangeBlocked, ExchangeError, ExchangeUnreachable, RateLimited

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
BLOCKED_PAUSE_S = 300.0
SHORTEST_LIMIT_S = 1.0


def pause_before_retry(error: ExchangeError, attempt: int) -> float:
    """Seconds to wait after a failure: all are worth another try, only not equally soon.

    Exponential with full jitter, so that connections which died together do not come back together; a block is
    asked about every few minutes, a rate limit when the exchange said.
    """
    if isinstance(error, RateLimited):
        return max(SHORTEST_LIMIT_S, error.retry_after_s)
    if isinstance(error, ExchangeBlocked):
        return BLOCKED_PAUSE_S
    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 30))
    return max(0.1, random.uniform(0, longest_s))  # noqa: S311


def refused(status: int, headers: Mapping[str, str], what: str) -> ExchangeError:
    """The error for an HTTP status that is no success."""
    if status in (403, 451):
        return ExchangeBlocked(
            f"{what}: HTTP {status}: the exchange does not serve this address (a geo-block or a ban); "
            "try from another network, or run with EXCHANGE=simulated"
        )
    if status in (418, 429):
        wait = headers.get("Retry-After", "")
        return RateLimited(f"{what}: HTTP {status}, too many requests", float(wait) if wait.isdigit() else 60.0)
    return ExchangeUnreachable(f"{what}: HTTP {status}")


def is_near(url: str) -> bool:
    """Whether an exchange is on this machine, where the environment's proxies do not lead."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
