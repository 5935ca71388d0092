"""The row of a record, alone and among others: pure."""

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flows.clickhouse_etl import SECOND_STATS, tickers
from flows.connectors.json_columns import JsonColumns
from flows.domain.errors import InvalidRecord
from flows.domain.second_stat import SecondStat

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


LANE = tickers("topic", "table")
DECODER = JsonColumns(LANE.message, LANE.columns)
STATS_DECODER = JsonColumns(SECOND_STATS.message, SECOND_STATS.columns)


def encode(**changes: Any) -> bytes:
    return json.dumps({**MESSAGE, **changes}).encode()


def ticker_row(value: bytes | None) -> dict[str, Any]:
    decoded = DECODER.decode([value])
    if decoded.rejected:
        raise InvalidRecord(decoded.rejected[0][1])
    return {column.name: value for column, (value,) in zip(LANE.columns, decoded.columns, strict=True)}


def test_a_row() -> None:
    assert ticker_row(encode()) == {
        "message_id": "BTCUSDT-1790000000123",
        "event_type": "24hrMiniTicker",
        "event_time": 1790000000123,
        "receive_time": 1790000000150,
        "symbol": "BTCUSDT",
        "close_price": 64000_10000000,
        "open_price": 64100_00000000,
        "high_price": 65000_00000000,
        "low_price": 63000_00000001,
        "change_price": -99_90000000,
        "change_percent": -15585023,
    }


def test_fewer_decimals_and_further_fields_are_fine() -> None:
    row = ticker_row(encode(close_price="1", low_price="0.5", extra={"a": [1]}))
    assert (row["close_price"], row["low_price"]) == (100_000_000, 50_000_000)


@given(st.decimals(Decimal("-9999999999.99999999"), Decimal("9999999999.99999999"), places=8))
def test_decimals_are_exact(price: Decimal) -> None:
    assert Decimal(ticker_row(encode(change_price=f"{price:f}"))["change_price"]) == price * 10**8


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
        ({"event_time": -1}, "_time out of range"),
        ({"receive_time": 10**14}, "_time out of range"),
        ({"event_time": 10**30}, "out of range"),
        ({"symbol": ""}, "empty"),
        *[
            ({"close_price": text}, "not a decimal")
            for text in (
                "",
                "-",
                "--1",
                "1e5",
                "NaN",
                ".5",
                "5.",
                "+1",
                "١",
                "-.50000000",
                ".50000000",
                "1-0.00000000",
                "1.00000000\n2.00000000",
                "1_0.00000000",
                " 1.00000000",
            )
        ],
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


POISON = [
    None,
    b"",
    b"{",
    b"\xff",
    encode(symbol=""),
    encode(close_price="1.1\n2"),
    encode(low_price="-"),
    encode(event_time=-1),
    encode() + b"\n" + encode(),
    encode() + b"," + encode(),
    encode()[:-1],
]
GOOD = [
    encode(),
    encode(close_price="3"),
    json.dumps(MESSAGE, indent=1).encode(),
    encode(symbol="币安USDT"),
    encode(x="}\n{"),
]


@example([encode() + b"\n" + encode(), b""])
@given(st.lists(st.sampled_from(POISON + GOOD), min_size=1, max_size=20))
def test_a_chunk_gives_what_its_records_give_alone(values: list[bytes | None]) -> None:
    decoded = DECODER.decode(values)
    assert [index for index, _ in decoded.rejected] == [i for i, value in enumerate(values) if value in POISON]
    rows = [list(ticker_row(value).values()) for value in values if value in GOOD]
    assert [list(row) for row in zip(*decoded.columns, strict=True)] == rows


amounts = st.integers(0, (1 << 81) - 1)


@given(st.lists(st.tuples(*[amounts] * 8, st.integers(1, (1 << 63) - 1)), min_size=1, max_size=5))
def test_second_stats_as_they_are_published(amounts: list[tuple[int, ...]]) -> None:
    stats = [
        SecondStat("币USDT", 1790000000000 + i, o, h, lo, c, v, v * q, n, tb, v * tq, n, n, i)
        for i, (o, h, lo, c, v, q, tb, tq, n) in enumerate(amounts)
    ]
    decoded = STATS_DECODER.decode([stat.to_json() for stat in stats])
    assert decoded.rejected == []
    assert [SecondStat(*row) for row in zip(*decoded.columns, strict=True)] == stats


def test_its_start_warns_of_nothing() -> None:
    command = [sys.executable, "-c", "import flows.clickhouse_etl"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stderr == ""
