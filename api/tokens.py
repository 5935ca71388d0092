"""Access tokens (contract section 5): JWTs that any service of the suite can check with the shared secret alone."""

import time
import uuid
from dataclasses import dataclass

import jwt

ALGORITHM = "HS256"
ISSUER = "crypto-asset-tracker"
TOKEN_TYPE = "access"  # noqa: S105 - a claim's value
MIN_SECRET_BYTES = 32
_REQUIRED = ["sub", "name", "typ", "iss", "aud", "iat", "exp", "jti"]


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


class AccessTokens:
    """Issues and verifies access tokens. Raises ValueError for a secret of fewer than 32 bytes."""

    def __init__(self, secret: str, ttl_s: float) -> None:
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"the JWT secret must have at least {MIN_SECRET_BYTES} bytes")
        self._secret = secret
        self._ttl_s = ttl_s

    def issue(self, user_id: str, name: str) -> tuple[str, int]:
        """(token, when it expires in ms since the epoch)."""
        issued = int(time.time())
        expires = int(issued + self._ttl_s)
        claims = {
            "sub": user_id,
            "name": name,
            "typ": TOKEN_TYPE,
            "iss": ISSUER,
            "aud": ISSUER,
            "iat": issued,
            "exp": expires,
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, self._secret, ALGORITHM), expires * 1000

    def verify(self, token: str) -> Claims:
        """The claims of a valid token. Raises ExpiredToken or InvalidToken."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=ISSUER,
                options={"require": _REQUIRED, "strict_aud": True},
            )
            user_id = str(uuid.UUID(claims["sub"]))
        except jwt.ExpiredSignatureError as error:
            raise ExpiredToken("the access token has expired") from error
        # PyJWT lets encoding errors of its input through as ValueError.
        except (jwt.InvalidTokenError, ValueError) as error:
            raise InvalidToken("not a valid access token") from error
        if claims["typ"] != TOKEN_TYPE or not isinstance(claims["name"], str):
            raise InvalidToken("not an access token")
        return Claims(user_id, claims["name"], int(claims["exp"]), claims["jti"])
