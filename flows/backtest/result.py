"""What a run gives: the figures as exact decimal strings, keys in a fixed order."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from flows.backtest.account import Terms
from flows.backtest.engine import Run
from flows.backtest.metrics import BuyAndHold, Metrics
from flows.backtest.params import as_json
from flows.backtest.units import MONEY_PLACES, plain, plain_ratio
from flows.domain.times import iso

KEYS = (
    "strategy", "params", "symbols", "start", "end", "cash", "final_equity", "total_return", "buy_and_hold_return",
    "max_drawdown", "sharpe", "volatility", "turnover", "fees", "exposure", "fills", "equity_sha256", "manifest",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run's result; `figures` has all of KEYS but `manifest`. The rest is for people."""

    values: Mapping[str, Any]  # the parameters
    figures: dict[str, Any]
    refusals: tuple[tuple[int, str, str], ...]  # timestamp, order, reason
    open_orders: int

    @property
    def total_return(self) -> Decimal:
        """To sort by."""
        return Decimal(self.figures["total_return"])

    def as_json(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """All of KEYS."""
        return {**self.figures, "manifest": dict(manifest)}


def outcome(
    name: str, values: Mapping[str, Any], terms: Terms, run: Run, metrics: Metrics, hold: BuyAndHold
) -> Outcome:
    """The result of a run that has taken every second."""
    return Outcome(
        values,
        {
            "strategy": name,
            "params": {param: as_json(value) for param, value in values.items()},
            "symbols": list(run.account.symbols),
            "start": iso(metrics.first_ms),
            "end": iso(metrics.end_ms),
            "cash": plain(terms.cash, MONEY_PLACES),
            "final_equity": plain(metrics.equity, MONEY_PLACES),
            "total_return": plain_ratio(metrics.total_return(terms.cash)),
            "buy_and_hold_return": plain_ratio(hold.total_return()),
            "max_drawdown": plain_ratio(metrics.max_drawdown),
            "sharpe": _rounded(metrics.sharpe()),
            "volatility": _rounded(metrics.volatility()),
            "turnover": _rounded(metrics.turnover(run.ledger.traded)),
            "fees": plain(run.ledger.fees, MONEY_PLACES),
            "exposure": _rounded(metrics.exposure()),
            "fills": [fill.as_json() for fill in run.fills],
            "equity_sha256": metrics.equity_sha256,
        },
        tuple((one.timestamp, str(one.order), one.reason) for one in run.refusals),
        run.open_orders,
    )


def _rounded(value: Decimal | None) -> str | None:
    return None if value is None else plain_ratio(value, 12)
