"""The dashboard's errors.

DashboardError
├── ClickHouseAway      it doesn't answer, not in time, or not to us
└── TableUnusable       it answers, but the table isn't there (yet) or isn't one of market tickers
"""


class DashboardError(Exception):
    """Root of the service's errors; each is worth another try after `retry_after_s`."""

    retry_after_s = 5


class ClickHouseAway(DashboardError):
    """ClickHouse doesn't answer, not in time, or not to us."""


class TableUnusable(DashboardError):
    """The table isn't there (yet), or has other columns."""
