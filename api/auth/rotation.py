"""Refresh tokens: opaque, kept as hashes, used once (contract section 3).

A token's successor is derived from it with a secret key, so that a lost answer can be given
again without any token being stored.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

GRACE = timedelta(seconds=10)


class RefreshTokens:
    """Makes refresh tokens (256 bits as URL-safe text), their successors and their hashes."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.digest(secret.encode(), b"refresh token successor", hashlib.sha256)

    def new(self) -> str:
        """A random token, the first of a family."""
        return _text(secrets.token_bytes(32))

    def successor(self, token: str) -> str:
        """The one token that follows `token`."""
        return _text(hmac.digest(self._key, token.encode(), hashlib.sha256))

    @staticmethod
    def hash(token: str) -> bytes:
        """What is stored of a token. It has 256 random bits, so it needs neither salt nor slowness."""
        return hashlib.sha256(token.encode()).digest()


@dataclass(frozen=True)
class StoredToken:
    """What is known of a token: until when it is good, and when it was used."""

    expires_at: datetime
    used_at: datetime | None


class Verdict(Enum):
    """What becomes of a token that is presented."""

    ROTATE = "use it up and give its successor"
    REPEAT = "give the successor again"
    REFUSE = "refuse it"
    REVOKE = "refuse it and revoke the family"


def judge(token: StoredToken, successor: StoredToken | None, family_revoked: bool, now: datetime) -> Verdict:
    """The rule of contract section 3 for a token of a family."""
    if family_revoked:
        return Verdict.REFUSE
    if token.used_at is None:
        return Verdict.ROTATE if now < token.expires_at else Verdict.REFUSE
    forgiven = now - token.used_at <= GRACE and successor is not None and successor.used_at is None
    return Verdict.REPEAT if forgiven else Verdict.REVOKE


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
