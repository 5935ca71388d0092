"""Wrong, hostile and repeated requests, and what goes with every answer."""

import json
import re

import httpx
import pytest
from dashboard_parts import START_MS, Table, identities, ticker

from api.dashboard.schemas import Cursor

HOSTILE = [
    "'; DROP TABLE market_tickers --",
    "BTCUSDT' OR '1'='1",
    'x" OR 1=1',
    "\\",
    "\\'",
    "{symbol:String}",
    "a\tb\nc\0d",
    "%s",
    "<script>alert(1)</script>",
    "\ufffd",
    "x" * 5000,
    "`",
    "币安",
]


@pytest.mark.parametrize("path", ["/", "/live"])
@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("limit=", "limit"),
        ("column=symbol", "column"),
        ("column=close_price,1", "column"),
        ("range=1y", "range"),
        ("before=nonsense", "before"),
        ("before=W10", "before"),
        ("before=WzEsICJcdWQ4MDAiLCAieCJd", "before"),  # half a character
        ("after=WyJ4IiwieSIsInoiXQ", "after"),
        ("live=perhaps", "live"),
        (f"before={Cursor(START_MS, 'a', 'b')}&after={Cursor(START_MS, 'a', 'b')}", "not both"),
        (f"before={Cursor(-1, 'a', 'b')}", "outside of time"),
        (f"before={Cursor(10**18, 'a', 'b')}", "outside of time"),
        (f"before={'x' * 3000}", "before"),
    ],
)
async def test_bad_parameters_are_422(client: httpx.AsyncClient, path: str, query: str, wrong: str) -> None:
    response = await client.get(f"{path}?{query}")
    assert response.status_code == 422
    kind = "text/html" if path == "/" else "application/problem+json"
    assert response.headers["content-type"].startswith(kind)
    assert wrong in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_values_stay_values(table: Table, client: httpx.AsyncClient, hostile: str) -> None:
    table.insert([ticker("BTCUSDT", START_MS), ticker("BTCUSDT", START_MS + 1)])
    page = await client.get("/", params={"symbol": hostile})
    assert (page.status_code, identities(page)) == (200, [])
    assert "No rows for" in page.text
    assert "<script>alert" not in page.text
    for name in ("column", "range", "limit", "live", "before", "after"):
        assert (await client.get("/", params={name: hostile})).status_code == 422
    for name in ("before", "after"):
        cursor = str(Cursor(START_MS + 1, hostile[:64], hostile[:64]))
        assert (await client.get("/", params={name: cursor}, follow_redirects=True)).status_code == 200
    assert table.count() == 2


async def test_stored_values_are_escaped(table: Table, client: httpx.AsyncClient) -> None:
    hostile = "<img src=x onerror=alert(1)>\"'&"
    table.insert([ticker(hostile, START_MS, event_type=hostile, message_id=hostile)])
    page = await client.get("/")
    assert identities(page) == [hostile]
    assert "<img src=x" not in page.text
    assert identities(await client.get("/live?limit=5")) == [hostile]


@pytest.mark.parametrize(
    "path", ["/", "/?limit=0", "/live", "/nowhere", "/static/dashboard.js", "/static/nix", "/readyz", "/metrics"]
)
async def test_every_answer_is_careful(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


async def test_pages_have_nothing_inline_and_nothing_of_others(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker("BTCUSDT", START_MS)])
    text = (await client.get("/")).text + (await client.get("/?limit=0")).text
    assert re.findall(r"<script(?! src=\"/static/dashboard.js\" defer></script>)", text) == []
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", text)
    assert re.findall(r"(?:src|href)=\"(?!/|\?)[^\"]*", text) == []
    for name in ("dashboard.js", "dashboard.css", "icon.svg"):
        answer = await client.get(f"/static/{name}")
        assert answer.status_code == 200
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", answer.text) == []


async def test_errors_speak_to_their_readers(client: httpx.AsyncClient) -> None:
    program = await client.get("/nowhere")
    assert (program.status_code, program.headers["content-type"]) == (404, "application/problem+json")
    assert program.json()["status"] == 404
    browser = await client.get("/nowhere", headers={"Accept": "text/html,*/*"})
    assert (browser.status_code, browser.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "Not Found" in browser.text
    assert (await client.post("/")).status_code == 405


async def test_the_changing_part_is_sent_once(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker("BTCUSDT", START_MS)])
    first = await client.get("/live")
    again = await client.get("/live", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.text) == (304, "")
    table.insert([ticker("BTCUSDT", START_MS + 1000)])
    later = await client.get("/live", headers={"If-None-Match": first.headers["etag"]})
    assert len(identities(later)) == 2
    assert later.text.startswith('<div id="live"')


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert (await client.get(path)).json() == {"status": "ok"}
    assert "dashboard_query_seconds_count" in (await client.get("/metrics")).text


def test_a_place_survives_its_address() -> None:
    for symbol, message_id in (("BTCUSDT", "BTCUSDT-1"), ("币安人生USDT", 'a"b\\'), ("", "")):
        cursor = Cursor(START_MS, symbol, message_id)
        assert re.fullmatch(r"[\w-]+", str(cursor))
        assert Cursor.parse(str(cursor)) == cursor
    with pytest.raises(ValueError, match="place"):
        Cursor.parse(json.dumps([True, "a", "b"]))
