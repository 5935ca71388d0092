"""One log format for every process: UTC, one line an event, to stderr."""

import logging
import time


def setup_logging(level: str) -> None:
    """Send all logs to stderr; libraries that log each request are kept to warnings."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for chatty in ("httpx", "httpcore", "aiohttp.access", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
