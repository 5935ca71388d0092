"""The authorization service's errors.

AuthError
├── InvalidInput        a name or password that can't be taken; the message names the field
├── NameTaken
├── NotAuthenticated    wrong name or password, or a token that is unknown, used, revoked or expired
├── NotAllowed          a token alone is not enough: the account's password is needed, or was wrong
├── NoSuchSession
├── TooManyTries        failed logins; worth another try after `retry_after_s`
├── Overloaded          too many passwords wait to be hashed; worth another try
└── DatabaseAway        PostgreSQL did not answer in time; worth another try
"""

import math


class AuthError(Exception):
    """Root of the service's errors; `retry_after_s` where another try may help."""

    retry_after_s: int | None = None


class InvalidInput(AuthError):
    """A name or password that can't be taken; the message names the field."""


class NameTaken(AuthError):
    """Another user has that name."""


class NotAuthenticated(AuthError):
    """Wrong name or password, or a token that is unknown, used, revoked or expired."""


class NotAllowed(AuthError):
    """A token alone is not enough: the account's password is needed, or was wrong."""


class NoSuchSession(AuthError):
    """The user has no session with this id."""


class TooManyTries(AuthError):
    """Failed logins; worth another try after `retry_after_s`."""

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = math.ceil(wait_s)


class Overloaded(AuthError):
    """Too many passwords wait to be hashed."""

    retry_after_s = 2


class DatabaseAway(AuthError):
    """PostgreSQL did not answer in time."""

    retry_after_s = 2
