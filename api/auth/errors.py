"""The authorization service's errors.

AuthError
├── InvalidInput        a name or password that can't be taken; the message names the field
├── NameTaken
├── NotAuthenticated    wrong name or password, or a refresh token that is unknown, used, revoked or expired
├── Overloaded          too many passwords wait to be hashed; worth another try
└── DatabaseAway        PostgreSQL did not answer in time; worth another try
"""


class AuthError(Exception):
    """Root of the service's errors; `retry_after_s` where another try may help."""

    retry_after_s: int | None = None


class InvalidInput(AuthError):
    """A name or password that can't be taken; the message names the field."""


class NameTaken(AuthError):
    """Another user has that name."""


class NotAuthenticated(AuthError):
    """Wrong name or password, or a refresh token that is unknown, used, revoked or expired."""


class Overloaded(AuthError):
    """Too many passwords wait to be hashed."""

    retry_after_s = 2


class DatabaseAway(AuthError):
    """PostgreSQL did not answer in time."""

    retry_after_s = 2
