"""The pages in a real browser: layout, live rows, local time, without script, and without ClickHouse."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_parts import POOR_CONTRAST, Visit, chromium, served, visit
from dashboard_parts import START_MS, Table, connect, ticker
from playwright.sync_api import Browser, expect

from infra.clickhouse.migrate import migrate
from infra.local.clickhouse import clickhouse as clickhouse_part
from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready

Visitor = Callable[..., Visit]
SOON_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def site(table: Table, browser: Browser) -> Iterator[str]:
    with served(table.settings()) as base:
        yield base


@pytest.fixture
def visitor(browser: Browser, site: str) -> Iterator[Visitor]:
    """`visitor(width=400, …)` opens a watched page; what it complains about fails the test."""
    visits: list[Visit] = []

    def open_page(width: int = 1280, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        visits.append(visit(context, site))
        return visits[-1]

    yield open_page
    for one in visits:
        one.check()
        one.page.context.close()


def rows(count: int = 60, symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT")) -> list[Any]:
    return [
        ticker(symbol, START_MS + 1000 * number, f"{100 + number % 13}.{number:08}")
        for number in range(count)
        for symbol in symbols
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_page(table: Table, visitor: Visitor, width: int, scheme: str) -> None:
    table.insert(rows())
    table.insert([ticker("1000000BABYDOGEUSDT", START_MS, "9999999999.99999999", low_price="-9999999999.99999999")])
    one = visitor(width, color_scheme=scheme)
    for address in ("/", "/?limit=5", "/?symbol=ethusdt&range=5m", "/?symbol=1000000babydogeusdt", f"/?symbol={'x' * 99}",
                    "/?column=change_percent&range=7d"):  # fmt: skip
        page = one.go(address)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert page.evaluate(POOR_CONTRAST) == [], address
    page = one.go("/?limit=5")
    with page.expect_navigation():  # with its stylesheet
        page.click("text=Older ›")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    one.check()
    page = one.go("/?limit=none")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(POOR_CONTRAST) == []
    one.complaints.clear()  # Chromium reports the status 422


def test_the_narrow_table_scrolls_beside_its_symbols(table: Table, visitor: Visitor) -> None:
    table.insert(rows())
    page = visitor(400).go("/?live=off")
    box = page.locator("#scroll")
    assert box.evaluate("one => one.scrollWidth > one.clientWidth")
    symbol = page.locator("#rows th").first
    before = symbol.bounding_box()
    box.evaluate("one => { one.scrollLeft = one.scrollWidth; }")
    last = page.locator("#rows tr").first.locator("td").last.bounding_box()
    after = symbol.bounding_box()
    assert before
    assert after
    assert abs(before["x"] - after["x"]) < 1
    assert last
    assert last["x"] + last["width"] <= 400


def test_rows_and_chart_follow(table: Table, visitor: Visitor) -> None:
    table.insert(rows())
    one = visitor()
    page = one.go("/?symbol=btcusdt&limit=50")
    expect(page.locator("#last")).to_have_text("107.00000059")
    line = page.locator("#plot path.line").get_attribute("d")
    page.locator("#scroll").evaluate("one => { one.scrollLeft = 30; }")
    table.insert([ticker("BTCUSDT", START_MS + 61_000, "250.5")])
    expect(page.locator("#rows tr").first).to_contain_text("250.5", timeout=SOON_MS)
    expect(page.locator("#rows tr.new")).to_have_count(1)
    expect(page.locator("#rows tr")).to_have_count(50)
    expect(page.locator("#last")).to_have_text("250.5")
    assert page.locator("#plot path.line").get_attribute("d") != line
    expect(page.locator("#summary")).to_contain_text("61 rows")


def test_pause_holds_the_page_still(table: Table, visitor: Visitor) -> None:
    table.insert(rows(3))
    one = visitor()
    one.page.clock.install()
    page = one.go()
    page.click("#pause")
    expect(page.locator("#state")).to_have_text("Paused")
    assert page.url.endswith("/?live=off")
    page.wait_for_load_state("networkidle")
    asked = one.asked_for("/live")
    table.insert([ticker("BTCUSDT", START_MS + 10_000, "555")])
    page.clock.run_for(60_000)
    assert one.asked_for("/live") == asked
    expect(page.locator("#rows")).not_to_contain_text("555")
    page.click("#pause")
    page.clock.run_for(10)
    expect(page.locator("#rows tr").first).to_contain_text("555", timeout=SOON_MS)
    expect(page.locator("#state")).to_have_text("Live")


def test_rows_come_to_an_empty_page(table: Table, visitor: Visitor) -> None:
    page = visitor().go()
    expect(page.get_by_role("heading", name="No rows yet")).to_be_visible()
    table.insert(rows(2))
    expect(page.locator("#rows tr")).to_have_count(4, timeout=SOON_MS)
    expect(page.locator("#plot")).to_be_visible()


def test_an_unknown_symbol_leads_to_one_there_is(table: Table, visitor: Visitor) -> None:
    table.insert(rows(2))
    page = visitor().go()
    page.get_by_label("Symbol").fill("ethusd")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No rows for ETHUSD")).to_be_visible()
    page.locator(".chips").get_by_text("ETHUSDT", exact=True).click()
    expect(page.locator("#rows tr")).to_have_count(2)


def test_local_time(table: Table, visitor: Visitor) -> None:
    table.insert(rows(60))
    page = visitor(timezone_id="Asia/Kolkata").go("/?limit=25")
    time = page.locator("#rows time").first
    expect(time).to_have_text("2026-09-21 14:14:19.000")
    page.click("text=Local")
    expect(time).to_have_text("2026-09-21 19:44:19.000")
    expect(page.locator("thead [data-zone-name]").first).to_have_text("UTC+05:30")
    assert "19:44:00" in page.locator("#plot .axis text").all_text_contents()
    table.insert([ticker("BTCUSDT", START_MS + 60_000)])
    expect(time).to_have_text("2026-09-21 19:44:20.000", timeout=SOON_MS)
    page.reload()
    expect(time).to_have_text("2026-09-21 19:44:20.000")
    page.click("text=UTC >> nth=0")
    expect(time).to_have_text("2026-09-21 14:14:20.000")


def test_pages_by_their_links(table: Table, visitor: Visitor) -> None:
    table.insert(rows(30, ("BTCUSDT",)))
    one = visitor()
    page = one.go("/?limit=10&live=off")
    top = page.locator("#rows tr").first

    def shows(number: int) -> None:
        expect(top).to_have_attribute("data-id", f"BTCUSDT-{START_MS + 1000 * number}")

    shows(29)
    page.click("text=Older ›")
    shows(19)
    expect(page.locator("#state")).to_have_text("Older rows")
    table.insert([ticker("BTCUSDT", START_MS + 100_000)])
    page.click("text=Older ›")
    shows(9)
    expect(page.locator("#pager")).to_contain_text("These are the oldest rows")
    page.click("text=‹ Newer")
    shows(19)
    page.click("text=« Newest")
    shows(100)
    assert one.asked_for("/live") == 0


def test_without_script_all_but_following_works(table: Table, visitor: Visitor) -> None:
    table.insert(rows(30))
    page = visitor(java_script_enabled=False).go("/?limit=25")
    expect(page.locator("#rows time").first).to_have_text("2026-09-21 14:13:49.000")
    expect(page.locator("#zone")).to_be_hidden()
    page.get_by_role("link", name="Pause").click()
    assert "live=off" in page.url
    page.get_by_label("Symbol").fill("ethusdt")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#rows tr")).to_have_count(25)
    page.click("text=Older ›")
    expect(page.locator("#rows tr")).to_have_count(5)
    page.click("text=Change %")
    expect(page.locator("#chart-title")).to_contain_text("Change %")


def test_the_chart_is_read_by_pointer_and_keys(table: Table, visitor: Visitor) -> None:
    table.insert(rows(60))
    page = visitor().go("/?range=5m&live=off")
    value, cross = page.locator("#value"), page.locator("#cross")
    expect(cross).to_have_attribute("visibility", "hidden")
    page.locator("#plot").focus()
    page.keyboard.press("ArrowLeft")
    expect(value).to_have_text("106.00000058")
    page.keyboard.press("Home")
    expect(value).to_have_text("100")
    expect(cross).to_have_attribute("visibility", "visible")
    page.keyboard.press("Escape")
    expect(cross).to_have_attribute("visibility", "hidden")
    expect(value).to_have_text("107.00000059")
    page.locator("#chart-title").click()
    page.locator("#plot").hover(position={"x": 2, "y": 100})
    expect(value).to_have_text("100")


def test_clickhouse_goes_and_comes(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    part = clickhouse_part(tmp_path, port)
    table = Table(None, f"{LOOPBACK}:{port}", "crypto")  # type: ignore[arg-type]
    with served(table.settings()) as base:
        one = visit(browser.new_context(), base)
        page = one.go()
        expect(page.get_by_role("heading", name="No data at the moment")).to_be_visible()
        for price in ("111", "222"):
            process = spawn(part, tmp_path / "log")
            try:
                wait_ready(part, process)
                client = connect(table.address)
                migrate(client, "crypto", "market_tickers")
                Table(client, table.address, "crypto").insert([ticker("BTCUSDT", START_MS + int(price), price)])
                client.close()
                # First the error page goes on by itself, then the page that followed.
                expect(page.locator("#rows tr").first).to_contain_text(price, timeout=60_000)
                expect(page.locator("#state")).to_have_text("Live")
                expect(page.locator("#alert")).to_be_hidden()
            finally:
                stop(part, process)
            expect(page.locator("#alert")).to_contain_text("not up to date", timeout=60_000)
            expect(page.locator("#rows tr").first).to_contain_text(price)
        page.context.close()
