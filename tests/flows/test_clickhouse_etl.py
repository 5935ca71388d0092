"""The row of a record: pure."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.clickhouse_etl import TickerRow, ticker_row
from flows.domain.errors import InvalidRecord

PRICES = ["close_price", "open_price", "high_price", "low_price", "change_price", "change_percent"]
MESSAGE: dict[str, Any] = {
    "message_id": "BTCUSDT-1790000000123",
    "event_type": "24hrMiniTicker",
    "event_time": 1790000000123,
    "receive_time": 1790000000150,
    "symbol": "BTCUSDT",
    "close_price": "64000.10000000",
    "open_price": "64100.00000000",
    "high_price": "65000.00000000",
    "low_price": "63000.00000001",
    "change_price": "-99.90000000",
    "change_percent": "-0.15585023",
}


def encode(**changes: Any) -> bytes:
    return json.dumps({**MESSAGE, **changes}).encode()


def test_a_row() -> None:
    assert ticker_row(encode()) == TickerRow(
        "BTCUSDT-1790000000123",
        "24hrMiniTicker",
        1790000000123,
        1790000000150,
        "BTCUSDT",
        64000_10000000,
        64100_00000000,
        65000_00000000,
        63000_00000001,
        -99_90000000,
        -15585023,
    )


def test_fewer_decimals_and_further_fields_are_fine() -> None:
    row = ticker_row(encode(close_price="1", low_price="0.5", extra={"a": [1]}))
    assert (row.close_price, row.low_price) == (100_000_000, 50_000_000)


@given(st.decimals(Decimal("-9999999999.99999999"), Decimal("9999999999.99999999"), places=8))
def test_decimals_are_exact(price: Decimal) -> None:
    assert Decimal(ticker_row(encode(change_price=f"{price:f}")).change_price) == price * 10**8


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"close_price": "1.123456789"}, "more than 8 decimals"),
        ({"close_price": "1.000000000"}, "more than 8 decimals"),
        ({"close_price": "10000000000"}, r"beyond Decimal64\(8\)"),
        ({"change_price": "-10000000000.0"}, r"beyond Decimal64\(8\)"),
        ({"close_price": 1.5}, "Expected `str`"),
        ({"close_price": None}, "Expected `str`"),
        ({"event_time": "1790000000123"}, "Expected `int`"),
        ({"event_time": -1}, "time out of range"),
        ({"receive_time": 10**14}, "time out of range"),
        ({"event_time": 10**30}, "out of range"),
        ({"symbol": ""}, "empty"),
        *[({"close_price": text}, "not a decimal") for text in ("", "-", "--1", "1e5", "NaN", ".5", "5.", "+1", "١")],
    ],
)
def test_bad_values(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRecord, match=reason):
        ticker_row(encode(**changes))


@pytest.mark.parametrize("name", MESSAGE)
def test_a_missing_field(name: str) -> None:
    fields = {key: value for key, value in MESSAGE.items() if key != name}
    with pytest.raises(InvalidRecord, match=f"missing required field `{name}`"):
        ticker_row(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"symbol":"\\ud800"}']
)
def test_no_json_object(value: bytes | None) -> None:
    with pytest.raises(InvalidRecord):
        ticker_row(value)


@given(st.binary())
def test_any_bytes_are_a_row_or_invalid(value: bytes) -> None:
    with pytest.raises(InvalidRecord):
        ticker_row(value)
