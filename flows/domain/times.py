"""Times as users write and read them; everywhere else they are integers, epoch ms."""

from datetime import UTC, datetime

from flows.domain.errors import InvalidRange
from flows.domain.market import SECOND_MS


def parse_time(text: str) -> int:
    """Epoch ms of an ISO time (UTC where it names no zone) or of epoch ms. Raises InvalidRange."""
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidRange(f"neither an ISO time nor epoch ms: {text!r}") from error
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * SECOND_MS)


def iso(time_ms: int) -> str:
    """A time as users read it, UTC; one beyond the calendar in ms."""
    try:
        time = datetime.fromtimestamp(time_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
    return time.isoformat(timespec="milliseconds" if time_ms % 1000 else "seconds").replace("+00:00", "Z")
