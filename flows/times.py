"""Times as people write and read them."""

from datetime import UTC, datetime


def iso(time_ms: int) -> str:
    """Epoch ms as an ISO time in UTC, with ms only where there are some: 2024-08-08T23:54:15Z."""
    whole = time_ms % 1000 == 0
    time = datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)
    return time.isoformat(timespec="seconds" if whole else "milliseconds").replace("+00:00", "Z")
