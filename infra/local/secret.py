"""Random secrets that are made once and kept in the data directory."""

import os
import secrets
from pathlib import Path


def kept_secret(file: Path) -> str:
    """The secret in `file` (32 random bytes as URL-safe text), made at the first call; only we can read the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii") as opened:
        if kept := opened.read().strip():
            return kept
        made = secrets.token_urlsafe(32)
        opened.write(made)
    return made
