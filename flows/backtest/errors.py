"""The error tree of backtests.

TrackerError
└── BacktestError          a run that can't be made; the message says what to change
    ├── StrategyError      a strategy that can't be found or loaded, or that failed or ordered nonsense
    ├── ParamError         a parameter that the strategy does not have, or a value that is none of its type
    └── NothingToTest      not one second in the range
"""

from flows.domain.errors import TrackerError


class BacktestError(TrackerError):
    """A run that can't be made; the message says what to change."""


class StrategyError(BacktestError):
    """A strategy that can't be found or loaded, or that failed or ordered nonsense."""


class ParamError(BacktestError):
    """A parameter that the strategy does not have, or a value that is none of its type."""


class NothingToTest(BacktestError):
    """Not one second in the range."""
