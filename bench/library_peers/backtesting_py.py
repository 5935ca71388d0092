"""The peer of the backtest benchmark: backtesting.py over the same trades, in a Python that has it.

    python backtesting_py.py trades.csv FAST SLOW CASH COMMISSION

The CSV has `time_ms,price` lines, ascending. Prints one JSON line: seconds taken by reading, by the bars, by the run,
and the equity and trades that came out. Prices are taken as floats, as the library does.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy


def bars(file: str) -> tuple[pd.DataFrame, float]:
    """One-second bars of the seconds with trades, and how long the reading of the file took."""
    began = time.perf_counter()
    trades = pd.read_csv(file, names=["time", "Close"])
    took = time.perf_counter() - began
    seconds = trades.groupby(trades["time"] // 1000)["Close"].agg(Open="first", High="max", Low="min", Close="last")
    seconds.index = pd.to_datetime(seconds.index, unit="s")
    return seconds, took


def sides(closes: pd.Series, fast: int, slow: int) -> np.ndarray:
    """1 and −1 where the average changes sides, in whole cents, so that no rounding decides."""
    sums = np.concatenate([[0], np.cumsum(np.rint(closes.to_numpy() * 100).astype(np.int64))])
    difference = np.zeros(len(closes), np.int64)
    ends = np.arange(slow, len(sums))
    difference[slow - 1 :] = (sums[ends] - sums[ends - fast]) * slow - (sums[ends] - sums[ends - slow]) * fast
    side = pd.Series(np.sign(difference)).replace(0, np.nan).ffill().fillna(0).to_numpy()
    before = np.concatenate([[0], side[:-1]])
    return np.where((before != 0) & (side != before), side, 0)


class Cross(Strategy):
    """As bench/one_unit_cross.py."""

    fast, slow = 60, 300

    def init(self) -> None:
        self.change = self.I(sides, self.data.Close.s, self.fast, self.slow, plot=False)

    def next(self) -> None:
        if self.change[-1] > 0:
            self.buy(size=1)
        elif self.change[-1] < 0 and self.position:
            self.position.close()


def main() -> None:
    file, fast, slow, cash, commission = sys.argv[1:]
    began = time.perf_counter()
    data, reading = bars(file)
    ready = time.perf_counter()
    test = Backtest(data, Cross, cash=float(cash), commission=float(commission), finalize_trades=False)
    result = test.run(fast=int(fast), slow=int(slow))
    print(
        json.dumps(
            {
                "read_s": reading,
                "bars_s": ready - began - reading,
                "run_s": time.perf_counter() - ready,
                "bars": len(data),
                "equity": float(result["_equity_curve"]["Equity"].iloc[-1]),
                "curve": result["_equity_curve"]["Equity"].tolist()[:100],
                "trades": int(result["# Trades"]),
            }
        )
    )


if __name__ == "__main__":
    main()
