"""Access tokens (contract section 5): JWTs that any service of the suite can check with the shared secret alone."""

import hashlib
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jwt

ALGORITHM = "HS256"
ISSUER = "crypto-asset-tracker"
TOKEN_TYPE = "access"  # noqa: S105 - a claim's value
MIN_SECRET_BYTES = 32
_REQUIRED = ["sub", "typ", "iss", "aud", "iat", "exp", "jti"]


class InvalidToken(Exception):
    """Not a token of ours: malformed, wrongly signed, or with wrong or missing claims."""


class ExpiredToken(InvalidToken):
    """A token of ours whose time is over."""


@dataclass(frozen=True)
class Claims:
    """What a valid access token says."""

    sub: str  # user id, a UUID
    name: str
    exp: int  # seconds since the epoch
    jti: str
    sid: str | None = None  # id of the session it was issued in, a UUID


class TokenKeys:
    """Signs with one secret and verifies with it and those before it.

    A token's `kid` names its secret; one without is tried with the present secret.
    Raises ValueError for a secret of fewer than 32 bytes.
    """

    def __init__(self, secret: str, previous: Iterable[str] = ()) -> None:
        secrets = [secret, *previous]
        if any(len(one.encode()) < MIN_SECRET_BYTES for one in secrets):
            raise ValueError(f"the JWT secret must have at least {MIN_SECRET_BYTES} bytes")
        self.kid = key_id(secret)
        self._secrets = {key_id(one): one for one in reversed(secrets)}

    def sign(self, typ: str, ttl_s: float, **claims: Any) -> tuple[str, int]:
        """(token, when it expires in seconds since the epoch)."""
        issued = int(time.time())
        expires = int(issued + ttl_s)
        claims |= {"typ": typ, "iss": ISSUER, "aud": ISSUER, "iat": issued, "exp": expires, "jti": str(uuid.uuid4())}
        return jwt.encode(claims, self._secrets[self.kid], ALGORITHM, {"kid": self.kid}), expires

    def verify(self, token: str, typ: str) -> dict[str, Any]:
        """The claims of a valid token of this type, `sub` a UUID. Raises ExpiredToken or InvalidToken."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret_of(token),
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=ISSUER,
                options={"require": _REQUIRED, "strict_aud": True},
            )
            claims["sub"] = str(uuid.UUID(claims["sub"]))
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken(f"the {typ} token has expired") from error
        # PyJWT lets encoding errors of its input through as ValueError.
        except (jwt.InvalidTokenError, ValueError) as error:
            raise InvalidToken(f"not a valid {typ} token") from error
        if claims["typ"] != typ:
            raise InvalidToken(f"not an {typ} token")
        return claims

    def _secret_of(self, token: str) -> str:
        kid = jwt.get_unverified_header(token).get("kid", self.kid)
        if not isinstance(kid, str) or kid not in self._secrets:
            raise jwt.InvalidTokenError("unknown kid")
        return self._secrets[kid]


class AccessTokens:
    """Issues and verifies access tokens. Raises ValueError for a secret of fewer than 32 bytes."""

    def __init__(self, secret: str, ttl_s: float, previous: Iterable[str] = ()) -> None:
        """`previous` are secrets that sign no more, and whose tokens still run."""
        self.keys = TokenKeys(secret, previous)
        self.ttl_s = ttl_s

    def issue(self, user_id: str, name: str, session_id: str | None = None) -> tuple[str, int]:
        """(token, when it expires in ms since the epoch)."""
        session = {} if session_id is None else {"sid": session_id}
        token, expires = self.keys.sign(TOKEN_TYPE, self.ttl_s, sub=user_id, name=name, **session)
        return token, expires * 1000

    def verify(self, token: str) -> Claims:
        """The claims of a valid token. Raises ExpiredToken or InvalidToken."""
        claims = self.keys.verify(token, TOKEN_TYPE)
        session_id = claims.get("sid")
        if not isinstance(claims.get("name"), str) or not isinstance(session_id, str | None):
            raise InvalidToken("not a valid access token")
        return Claims(claims["sub"], claims["name"], int(claims["exp"]), claims["jti"], session_id)


def key_id(secret: str) -> str:
    """The name of a secret in tokens: some of its hash, which tells nothing of 32 random bytes."""
    return hashlib.sha256(b"kid\0" + secret.encode()).hexdigest()[:16]
