"""Runs over a spool: one, or many side by side in one pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import localcontext
from typing import Any

from flows.backtest.account import Terms
from flows.backtest.engine import Observer, Run
from flows.backtest.errors import BacktestError, ParamError, StrategyError
from flows.backtest.loading import Loaded
from flows.backtest.metrics import BuyAndHold, Metrics
from flows.backtest.params import build
from flows.backtest.result import Outcome, outcome
from flows.backtest.spool import Progress, Spool
from flows.backtest.units import METRIC

PROGRESS_EVERY = 2000  # seconds


@dataclass(frozen=True, slots=True)
class Watch:
    """What else looks at a run: observers for the report, and where each line of the equity curve is written."""

    observers: Sequence[Observer] = ()
    write_equity: Callable[[bytes], object] | None = None


def run_all(
    spool: Spool,
    loaded: Loaded,
    combinations: Sequence[Mapping[str, Any]],
    terms: Terms,
    progress: Progress = lambda _done: None,
    watch: Watch | None = None,
) -> list[Outcome]:
    """Run a strategy with each combination of parameter values, all in one pass. Raises BacktestError."""
    watch = watch or Watch()
    runs = []
    with localcontext(METRIC):  # for what strategies compute: the same on any machine
        for values in combinations:
            metrics = Metrics(terms.cash, watch.write_equity)
            hold = BuyAndHold(spool.symbols, terms.slippage_rate)
            strategy = _built(loaded, values)
            run = Run(strategy, terms, spool.symbols, (metrics, hold, *watch.observers), loaded.strategy.__name__)
            runs.append((values, run, metrics, hold))
        for done, (timestamp, stats) in enumerate(spool.read(), 1):
            for _, run, _, _ in runs:
                run.second(timestamp, stats)
            if done % PROGRESS_EVERY == 0:
                progress(done)
        progress(spool.seconds)
        return [outcome(loaded.name, values, terms, run, metrics, hold) for values, run, metrics, hold in runs]


def possible(loaded: Loaded, combinations: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[ParamError]]:
    """The combinations that the strategy's constructor takes, and why it refuses the others. Raises BacktestError."""
    taken, refusals = [], []
    with localcontext(METRIC):
        for values in combinations:
            try:
                _built(loaded, values)
                taken.append(values)
            except ParamError as error:
                refusals.append(error)
    return taken, refusals


def _built(loaded: Loaded, values: Mapping[str, Any]) -> Any:
    try:
        return build(loaded.strategy, values)
    except BacktestError:
        raise
    except ValueError as error:
        raise ParamError(f"{loaded.name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{loaded.name} can't be built: {type(error).__name__}: {error}") from error
