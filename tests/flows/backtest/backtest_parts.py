"""Seconds for strategies, written in decimals, and runs over them."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from flows.backtest.account import Terms
from flows.backtest.loading import Loaded, load
from flows.backtest.params import read_params
from flows.backtest.result import Outcome
from flows.backtest.runs import run_all
from flows.backtest.spool import Spool
from flows.backtest.units import MONEY_PLACES, rate, scaled_down
from flows.domain.second_stat import SecondStat

START_MS = 1_723_161_255_000


def stat(second: int, symbol: str, open_: str, high: str, low: str, close: str, volume: str = "1") -> SecondStat:
    """The SecondStat of a second after START_MS; its quote volume and ids are of no matter here."""
    o, h, low_, c, v = (int(Decimal(text).scaleb(8)) for text in (open_, high, low, close, volume))
    return SecondStat(symbol, START_MS + 1000 * second, o, h, low_, c, v, v * c, 1, v, v * c, second, second, 0)


def flat(second: int, symbol: str, price: str) -> SecondStat:
    """A second of one price."""
    return stat(second, symbol, price, price, price, price)


def terms(cash: str = "10000", fee_bps: str = "0", slippage_bps: str = "0", **allowed: bool) -> Terms:
    return Terms(
        scaled_down(cash, MONEY_PLACES, "cash"), rate(fee_bps, "fee"), rate(slippage_bps, "slippage"), **allowed
    )


def spooled(directory: Path, stats: Iterable[SecondStat], symbols: tuple[str, ...] = ()) -> Spool:
    return Spool.write(directory / "spool", stats, symbols)


def run(
    directory: Path, stats: Iterable[SecondStat], strategy: str | type, params: Mapping[str, str] | None = None,
    symbols: tuple[str, ...] = (), **conditions: Any,
) -> Outcome:  # fmt: skip
    """One strategy over seconds."""
    loaded = load(strategy) if isinstance(strategy, str) else Loaded(strategy.__name__, strategy, None)
    values = read_params(loaded.strategy, params or {})
    return run_all(spooled(directory, stats, symbols), loaded, [values], terms(**conditions))[0]


class Script:
    """A strategy that does what a function says, by the second after START_MS."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_second(self, stats, account):
        return self.plan(next(iter(stats.values())).timestamp // 1000 - START_MS // 1000, stats, account)


def script(plan) -> type:
    """The class of a strategy whose `on_second` is plan(second, stats, account)."""
    return type("Plan", (Script,), {"plan": staticmethod(plan)})
