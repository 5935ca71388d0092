"""The profile service's errors.

ProfileError
├── NotAuthenticated        no or bad credentials
├── NotAllowed              a token alone is not enough: the account's password is needed, or was wrong
├── InvalidInput            refused by a rule; nothing was changed
├── NotFound                no such profile, coin or session
├── Conflict                the name or profile exists already
├── TooManyRequests         worth another try after `retry_after_s`
└── NotAvailable            a service behind this one is away; worth another try after `retry_after_s`
"""

from collections.abc import Mapping

from api.database import DatabaseAway


class ProfileError(Exception):
    """Root of the service's errors; `retry_after_s` where another try may help."""

    retry_after_s: float | None = None


class NotAuthenticated(ProfileError):
    """No or bad credentials."""


class NotAllowed(ProfileError):
    """A token alone is not enough: the account's password is needed, or was wrong."""


class InvalidInput(ProfileError):
    """Refused by a rule; nothing was changed."""


class NotFound(ProfileError):
    """No such profile, coin or session."""


class Conflict(ProfileError):
    """The name or profile exists already."""


class TooManyRequests(ProfileError):
    """Worth another try after `retry_after_s`."""

    retry_after_s = 2


class NotAvailable(ProfileError):
    """A service behind this one is away; worth another try after `retry_after_s`."""

    retry_after_s = 2


# NotAuthenticated (401) has a handler of its own, for its WWW-Authenticate.
STATUSES: Mapping[type[Exception], int] = {
    NotAllowed: 403,
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    TooManyRequests: 429,
    NotAvailable: 503,
    DatabaseAway: 503,
}
