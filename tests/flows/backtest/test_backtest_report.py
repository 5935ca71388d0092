"""The HTML report: from disk in a real browser, at two widths, with nothing asked of any host."""

import json
import sys
from pathlib import Path

import pytest
from backtest_parts import flat, script, spooled, stat, terms

from flows.backtest import Order
from flows.backtest.charts import time_ticks, value_ticks
from flows.backtest.curves import MOST, Curves, Series
from flows.backtest.loading import Loaded
from flows.backtest.report import render, write_report
from flows.backtest.runs import Watch, run_all

sys.path.insert(0, str(Path(__file__).parents[2] / "api" / "dashboard"))
from browser_parts import POOR_CONTRAST, chromium, visit

MANIFEST = {"topic": "recorded <b>", "sha256": "ab" * 32, "backtest": {"fee_bps": "10"}}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def waves(seconds):
    for n in range(seconds):
        price = 60_000 + 40 * abs(n % 200 - 100)
        yield stat(n, "BTCUSDT", f"{price}", f"{price + 25}", f"{price - 25}", f"{price + 5}")
        if n % 3 == 0:
            yield flat(n, "ETHUSDT", f"{2500 + n / 10:.1f}")


def finished(directory, stats, plan, **conditions):
    spool = spooled(directory, stats)
    curves = Curves(spool.symbols)
    cls = script(plan)
    outcome = run_all(spool, Loaded("plan.py", cls, None), [{}], terms(**conditions), watch=Watch((curves,)))[0]
    return outcome, curves


def trade(second, stats, account):
    if second % 100 == 0 and not account.position("BTCUSDT"):
        return [Order.buy("BTCUSDT", "0.1"), Order.buy("ETHUSDT", "1000")]
    return Order.sell("BTCUSDT", "0.1") if second % 100 == 50 and account.position("BTCUSDT") else None


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser_from_disk(tmp_path, browser, width, scheme):
    outcome, curves = finished(tmp_path, waves(3000), trade, fee_bps="10")
    file = tmp_path / "report.html"
    write_report(file, outcome, MANIFEST, curves)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    one = visit(context, file.as_uri())
    page = one.go("")
    assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []
    assert one.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(POOR_CONTRAST) == []
    charts = page.locator("svg:visible")
    assert [charts.nth(n).get_attribute("aria-label") for n in range(charts.count())] == [
        "Equity by time", "Drawdown by time", "Price of BTCUSDT with fills",
    ]  # fmt: skip
    for n in range(3):
        box = charts.nth(n).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        # No text lies outside, and none on another.
        assert charts.nth(n).evaluate(OVERLAPS) == []
    marks = page.locator("svg:visible polygon.mark")
    assert marks.count() == 60
    assert "buy 0.1 at 6" in marks.first.text_content()
    assert page.locator("#fills tr").count() == 61
    assert page.locator("h1").text_content() == "plan.py"
    assert json.loads(page.locator("#manifest").text_content()) == MANIFEST
    assert "30 orders were not filled" in page.content()
    assert outcome.figures["equity_sha256"] in page.content()
    context.close()


OVERLAPS = """(svg) => {
  const frame = svg.getBoundingClientRect(), boxes = [...svg.querySelectorAll("text")].map((t) => t.getBoundingClientRect());
  const bad = [];
  boxes.forEach((a, i) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1) bad.push(i);
    boxes.slice(i + 1).forEach((b) => {
      if (a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom) bad.push([i, a.left, b.left]);
    });
  });
  return bad;
}"""


def test_a_run_without_fills_or_movement(tmp_path):
    outcome, curves = finished(tmp_path, [flat(0, "BTCUSDT", "100")], lambda *_: None)
    page = render(outcome, MANIFEST, curves)
    assert "Nothing was bought or sold." in page
    assert "recorded &lt;b&gt;" in page
    assert page.count("<svg") == 4


def test_a_series_keeps_its_extremes_and_its_size():
    series = Series()
    for n in range(100_000):
        series.add(1000 * n, n if n != 33_333 else -5, 2 * n if n != 77_777 else 1e9, n)
    assert MOST / 2 <= len(series.points) <= MOST
    assert max(point.high for point in series.points) == 1e9
    assert series.points[-1].last == 99_999
    times = [point.time_ms for point in series.points]
    assert times == sorted(times)
    assert min(point.low for point in series.points) == -5


@pytest.mark.parametrize(
    ("low", "high", "ticks", "decimals"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100], 0),
        (59_990, 60_011, [59_990, 59_995, 60_000, 60_005, 60_010], 0),
        (-2.5, 0, [-2.5, -2, -1.5, -1, -0.5, 0], 1),
        (1.0001, 1.0011, [1.0002, 1.0004, 1.0006, 1.0008, 1.001], 4),
        (5, 5, [5], 2),
        (9440, 10_600, [9500, 9750, 10_000, 10_250, 10_500], 0),
    ],
)
def test_value_ticks(low, high, ticks, decimals):
    found, places = value_ticks(low, high)
    assert [round(value, 9) for value in found][: len(ticks)] == ticks
    assert places == decimals


def test_time_ticks_are_round_and_few():
    day = 1_723_075_200_000  # 2024-08-08
    assert time_ticks(day - 90_000, day + 90_000, 3) == [
        (day - 60_000, "23:59"), (day, "2024-08-08"), (day + 60_000, "00:01"),
    ]  # fmt: skip
    assert time_ticks(day + 255, day + 3000, 5)[0] == (day + 1000, "00:00:01")
    assert len(time_ticks(day, day + 400 * 86_400_000, 7)) <= 7
