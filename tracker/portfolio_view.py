"""How a portfolio looks in a terminal; pure, but for the clock."""

import time
from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flows.domain.times import iso
from tracker.portfolio_client import Lost, Push

_UP, _DOWN, _SAME = "green", "red", "white"


class PortfolioView:
    """What is known of one portfolio; rich draws it again and again, so that ages and countdowns move."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._push: Push | None = None
        self._lost: Lost | None = None
        self._directions: dict[str, str] = {}
        self._value_direction = _SAME

    def show(self, event: Push | Lost) -> None:
        """Take in the newest."""
        if isinstance(event, Lost):
            self._lost = event
            return
        before = self._push or {"Coins": [], "TotalValue": event["TotalValue"]}
        prices = {coin["Symbol"]: coin["Price"] for coin in before["Coins"]}
        for coin in event["Coins"]:
            symbol = coin["Symbol"]
            known = self._directions.get(symbol, _SAME)
            self._directions[symbol] = _direction(prices.get(symbol), coin["Price"], known)
        self._value_direction = _direction(before["TotalValue"], event["TotalValue"], self._value_direction)
        self._push, self._lost = event, None

    def __rich__(self) -> Panel:
        """The whole view."""
        if self._push is None:
            return Panel(self._connection(), title="portfolio")
        value = Text(f"total {amount(self._push['TotalValue'])} USDT", style=f"bold {self._value_direction}")
        return Panel(
            Group(self._coins(self._push), Text(), value, self._connection()),
            title=f"portfolio of {self._push['UserName']}",
            expand=False,
        )

    def _coins(self, push: Push) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("coin", "quantity", "price", "total", "share", ""):
            table.add_column(heading, justify="left" if heading in {"coin", ""} else "right")
        for coin in push["Coins"]:
            style = self._directions.get(coin["Symbol"], _SAME)
            price = Text("–") if coin["Price"] is None else Text(f"{Decimal(coin['Price']):,f}", style=style)
            total = "–" if coin["Total"] is None else amount(coin["Total"])
            quantity = f"{Decimal(coin['Quantity']):,f}"
            note = Text("stale" if coin["Symbol"] in push["Stale"] else "", style="yellow")
            table.add_row(coin["Symbol"], quantity, price, total, share(coin["Total"], push), note)
        return table

    def _connection(self) -> Text:
        if self._lost is not None:
            seconds = max(0.0, self._lost.retry_at - time.monotonic())
            return Text(f"reconnecting in {seconds:.0f} s: {self._lost.reason}", style="yellow")
        if self._push is None:
            return Text(f"connecting to {self._url}", style="dim")
        return Text(f"connected to {self._url} · push {self._push['Sequence']} · {age(self._push)}", style="dim")


def line(event: Push | Lost) -> str:
    """The same for a file or a pipe: one line a push."""
    if isinstance(event, Lost):
        return f"reconnecting: {event.reason}"
    now = datetime.now(UTC).strftime("%H:%M:%S")
    coins = "  ".join(f"{coin['Symbol']} {coin['Price'] or '–'}" for coin in event["Coins"])
    return f"{now}  #{event['Sequence']}  total {event['TotalValue']} USDT  {coins}  {age(event)}"


def amount(text: str) -> str:
    """For people: two decimals, thousands apart."""
    return f"{Decimal(text):,.2f}"


def share(total: str | None, push: Push) -> str:
    """A coin's part of the whole, in percent."""
    value = Decimal(push["TotalValue"])
    return "" if total is None or not value else f"{100 * Decimal(total) / value:.1f} %"


def age(push: Push) -> str:
    """How old the newest price in it is."""
    if not push["AsOf"]:
        return "no trades yet"
    if "Replay" in push:
        return f"replay of {iso(push['AsOf'])}"
    return f"prices {max(0.0, time.time() - push['AsOf'] / 1000):.1f} s old"


def _direction(before: str | None, after: str | None, known: str) -> str:
    if before is None or after is None or before == after:
        return known
    return _UP if Decimal(after) > Decimal(before) else _DOWN
