"""The profile service's errors.

ProfileError
├── NotAuthenticated        no or bad credentials
├── InvalidInput            refused by a rule; nothing was changed
├── NotFound                no such profile or coin
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


class InvalidInput(ProfileError):
    """Refused by a rule; nothing was changed."""


class NotFound(ProfileError):
    """No such profile or coin."""


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
    InvalidInput: 422,
    NotFound: 404,
    Conflict: 409,
    TooManyRequests: 429,
    NotAvailable: 503,
    DatabaseAway: 503,
}
