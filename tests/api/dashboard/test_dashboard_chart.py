"""The chart: which points, their numbers, and where they are drawn."""

import json
import math
import re
from decimal import Decimal
from html import unescape
from xml.etree import ElementTree

import httpx
import pytest
from dashboard_parts import START_MS, Table, figures, ticker
from hypothesis import given
from hypothesis import strategies as st

from api.dashboard.chart import HEIGHT, draw
from api.dashboard.repository import BUCKETS
from api.dashboard.schemas import Point, PriceColumn, Range, Series


def charted(page: httpx.Response) -> list[list[object]]:
    """[ms, value, percent across, pixels down] of each point."""
    found = re.search(r'data-points="([^"]*)"', page.text)
    assert found, page.text
    points: list[list[object]] = json.loads(unescape(found[1]))
    return points


async def test_the_numbers_are_exact(table: Table, client: httpx.AsyncClient) -> None:
    closes = ["100.00000001", "99.99999999", "103", "102.5"]
    table.insert([ticker("ETHUSDT", START_MS + 1000 * number, close) for number, close in enumerate(closes)])
    page = await client.get("/?symbol=ethusdt&range=5m")
    assert list(figures(page).items())[:4] == [
        ("Last", "102.5"), ("In this range", "+2.49999999"), ("Min", "99.99999999"), ("Max", "103"),
    ]  # fmt: skip
    assert [[ms, value] for ms, value, *_ in charted(page)] == [
        [START_MS + 1000 * number, str(Decimal(close))] for number, close in enumerate(closes)
    ]


@pytest.mark.parametrize("column", list(PriceColumn))
async def test_any_price_column(table: Table, client: httpx.AsyncClient, column: PriceColumn) -> None:
    values = {one: Decimal(f"{number}.5") for number, one in enumerate(PriceColumn, 1)}
    table.insert([ticker("BTCUSDT", START_MS, **values)])
    page = await client.get("/", params={"column": column.value})
    assert figures(page)["Last"] == str(values[column])
    assert f'BTCUSDT <span class="light">{column.label}</span>' in page.text


@pytest.mark.parametrize("span", list(Range))
async def test_a_range_leaves_out_what_is_older(table: Table, client: httpx.AsyncClient, span: Range) -> None:
    end_ms = START_MS + span.ms
    table.insert(
        [ticker("BTCUSDT", START_MS, "1"), ticker("BTCUSDT", START_MS + 1, "2"), ticker("BTCUSDT", end_ms, "3")]
    )
    page = await client.get("/", params={"range": span.value})
    assert [ms for ms, *_ in charted(page)] == [START_MS + 1, end_ms]
    assert figures(page)["Min"] == "2"


async def test_many_rows_make_few_points_and_keep_the_extremes(table: Table, client: httpx.AsyncClient) -> None:
    rows = [ticker("BTCUSDT", START_MS + 17_000 * number, f"{500 + number % 7}") for number in range(5000)]
    rows[1234] = rows[1234]._replace(close_price=Decimal("1.00000001"))
    rows[4321] = rows[4321]._replace(close_price=Decimal("9999"))
    table.insert(rows)
    page = await client.get("/?range=24h")
    points = charted(page)
    assert 200 <= len(points) <= BUCKETS + 1
    assert points[-1][:2] == [rows[-1].event_ms, str(rows[-1].close_price)]
    assert (figures(page)["Min"], figures(page)["Max"]) == ("1.00000001", "9999")
    assert "5000 rows" in page.text


async def test_without_a_symbol_it_is_the_usual_one_or_the_first(
    table: Table, client: httpx.AsyncClient, dashboard
) -> None:  # type: ignore[no-untyped-def]
    table.insert([ticker("XRPUSDT", START_MS), ticker("ADAUSDT", START_MS)])
    assert 'ADAUSDT <span class="light">Close' in (await client.get("/")).text
    table.insert([ticker("BTCUSDT", START_MS)])
    async with dashboard(table.settings()) as fresh:
        assert 'BTCUSDT <span class="light">Close' in (await fresh.get("/")).text


async def test_it_is_accessible_svg(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker("BTCUSDT", START_MS + 1000 * number, str(100 + number)) for number in range(100)])
    page = await client.get("/?range=5m")
    found = re.search(r'<svg id="plot".*?</svg>\s*(?=<svg class="levels")', page.text, re.DOTALL)
    assert found
    plot = ElementTree.fromstring(found[0])
    assert (plot.get("role"), plot.get("tabindex")) == ("img", "0")
    labels = {child.get("id"): child.text or "" for child in plot if child.tag in ("title", "desc")}
    assert plot.get("aria-labelledby", "").split() == list(labels)
    assert labels["plot-title"] == "Close of BTCUSDT, 5m"
    assert "lowest 100, highest 199, 100 rows" in labels["plot-text"]
    times = [text.text for text in plot.findall(".//g[@class='axis']/text")]
    assert times == ["14:13:30", "14:13:45", "14:14:00", "14:14:15", "14:14:30", "14:14:45"]


def series(points: list[Point], bucket_ms: int = 1000) -> Series:
    return Series(
        "X", PriceColumn.CLOSE, Range.M5, points[0].time_ms, points[-1].time_ms, bucket_ms, len(points), points
    )


def test_a_long_silence_is_no_line() -> None:
    value = Decimal(5)
    times = [0, 1000, 2000, 200_000, 300_000, 301_000]
    chart = draw(series([Point(START_MS + ms, value, value, value) for ms in times]))
    assert [part.count("L") for part in chart.line.split("M")[1:]] == [2, 0, 1]
    assert "h0M" in chart.line


money = st.decimals(min_value=-(10**10) + 1, max_value=10**10 - 1, places=8)


@given(st.lists(st.tuples(st.integers(1, Range.D7.ms // 30), money, money, money), min_size=1, max_size=30))
def test_whatever_the_values_everything_is_inside(steps: list[tuple[int, Decimal, Decimal, Decimal]]) -> None:
    at, points = START_MS, []
    for step, *values in steps:
        at += step
        low, last, high = sorted(values)
        points.append(Point(at, last, low, high))
    chart = draw(series(points))
    for spot in (chart.lowest, chart.highest, chart.last):
        assert 0 <= spot.x <= 100
        assert 0 <= spot.y <= HEIGHT
    assert chart.highest.y <= chart.last.y <= chart.lowest.y
    assert 2 <= len(chart.levels) <= 8
    assert all(0 <= level.at <= HEIGHT and not math.isnan(level.at) for level in chart.levels)
    assert len(chart.times) <= 9
