"""The push of a portfolio, against a naive valuation with Decimals."""

import json
from decimal import Context, Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from profile_parts import second_stat

from api.profile.portfolio import Holding, Push, user_head
from api.profile.prices import Quote

WIDE = Context(prec=200)
SECOND = 1_790_000_000_000
quantities = st.integers(0, 10**36 - 1).map(lambda value: WIDE.scaleb(Decimal(value), -18))
prices = st.none() | st.integers(0, 10**18).map(lambda value: WIDE.scaleb(Decimal(value), -8))
coins = st.lists(st.tuples(quantities, prices, st.integers(0, 120)), max_size=12)
USER = user_head("0" * 8, 'a "quoted"\n名')


def naive(coins: list[tuple[Decimal, Decimal | None, int]], now_ms: int) -> dict[str, Any]:
    total, rows, stale, newest = Decimal(0), [], [], 0
    for number, (quantity, price, age_s) in enumerate(coins):
        row: dict[str, Any] = {"Symbol": f"coin{number}usdt", "Quantity": quantity, "Price": price, "Total": None}
        if price is not None:
            row["Total"] = WIDE.multiply(quantity, price)
            total = WIDE.add(total, row["Total"])
            end_ms = now_ms - age_s * 1000
            newest = max(newest, end_ms)
            if age_s > 60:
                stale.append(row["Symbol"])
        rows.append(row)
    return {"TotalValue": total, "Coins": rows, "Sequence": 42, "AsOf": newest, "Stale": stale}


@given(coins)
def test_every_push_is_exact(coins: list[tuple[Decimal, Decimal | None, int]]) -> None:
    now_ms, holdings = SECOND + 1000, []
    for number, (quantity, price, age_s) in enumerate(coins):
        quote = Quote(f"coin{number}usdt")
        if price is not None:
            quote.apply_second_stat(second_stat(quote.symbol, f"{price:.8f}", SECOND - age_s * 1000))
        quote.check_age(now_ms, 60_000)
        holdings.append(Holding(quantity, quote))
    text = Push(USER, holdings).numbered(42).decode()
    push = json.loads(text)
    assert list(push) == ["UserID", "UserName", "TotalValue", "Coins", "Sequence", "AsOf", "Stale"]
    assert (push.pop("UserID"), push.pop("UserName")) == ("0" * 8, 'a "quoted"\n名')
    assert text == json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    for coin in push["Coins"]:
        assert list(coin) == ["Symbol", "Quantity", "Price", "Total"]
    decimals = [push["TotalValue"], *(coin[key] for coin in push["Coins"] for key in ("Quantity", "Price", "Total"))]
    for one in decimals:
        assert one is None or (
            one[0] != "." and "E" not in one and (not one.endswith("0") or "." not in one or one == "0")
        )
    assert exact(push) == naive(coins, now_ms)


def exact(push: dict[str, Any]) -> dict[str, Any]:
    def number(text: str | None) -> Decimal | None:
        return None if text is None else Decimal(text)

    rows = [
        {"Symbol": coin["Symbol"], **{key: number(coin[key]) for key in ("Quantity", "Price", "Total")}}
        for coin in push["Coins"]
    ]
    return {**push, "TotalValue": number(push["TotalValue"]), "Coins": rows}


def test_the_same_state_is_the_same_push() -> None:
    quote = Quote("btcusdt")
    holdings = [Holding(Decimal("1.50"), quote)]
    before = Push(USER, holdings)
    assert before.same_as(Push(USER, holdings))
    quote.apply_second_stat(second_stat("btcusdt", "1.00000000", SECOND))
    assert not before.same_as(Push(USER, holdings))
