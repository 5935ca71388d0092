"""Strategies on recorded seconds. What a strategy's file imports is here."""

from flows.backtest.account import Account
from flows.backtest.bar import Bar
from flows.backtest.errors import BacktestError, ParamError, StrategyError
from flows.backtest.orders import Fill, OpenOrder, Order
from flows.backtest.strategy import Orders, Strategy

__all__ = [
    "Account",
    "BacktestError",
    "Bar",
    "Fill",
    "OpenOrder",
    "Order",
    "Orders",
    "ParamError",
    "Strategy",
    "StrategyError",
]
