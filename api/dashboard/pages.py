"""HTML out of the templates, and errors as pages for those who read pages."""

import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dashboard.chart import draw
from api.dashboard.formats import SECONDS, Number, aligned, duration, plain, stamp
from api.dashboard.schemas import MAX_LIMIT, PriceColumn, Range, TickerRow
from api.dashboard.service import Page

HERE = Path(__file__).parent
LIMITS = (25, 50, 100, 250, 500, MAX_LIMIT)
QUIET_MS = 60_000  # without new rows: the page says so
_DECIMALS = ("close_price", "change_price", "change_percent", "open_price", "high_price", "low_price")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


class Pages:
    """The templates, with what they all need; `source` is the table's name as people write it."""

    def __init__(self, source: str) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {
            "source": source,
            "stamp": stamp,
            "SECONDS": SECONDS,
            "columns": list(PriceColumn),
            "ranges": list(Range),
            "limits": LIMITS,
            "max_limit": MAX_LIMIT,
        }
        self._environment.filters |= {"plain": plain, "thousands": lambda number: f"{number:,}"}

    def whole(self, page: Page, symbols: list[str]) -> str:
        """The document."""
        return self._render("page.html", symbols=symbols, **_of(page))

    def part(self, page: Page) -> str:
        """Only what changes as rows arrive."""
        return self._render("live.html", **_of(page))

    def error(self, status: int, title: str, detail: str, retry_s: int | None) -> str:
        """A document that says what is wrong, and tries again where that helps."""
        return self._render("error.html", status=status, title=title, detail=detail, retry_s=retry_s)

    def _render(self, template: str, **values: Any) -> str:
        return self._environment.get_template(template).render(values)


def _of(page: Page) -> dict[str, Any]:
    quiet_ms = int(time.time() * 1000) - page.extent.newest_ms
    return {
        "page": page,
        "view": page.view,
        "decimals": _decimals(page.rows),
        "chart": draw(page.series) if page.series else None,
        "quiet": duration(quiet_ms) if page.rows and quiet_ms > QUIET_MS else "",
    }


def _decimals(rows: list[TickerRow]) -> list[list[tuple[str, Number]]]:
    """For each row, its decimals by column."""
    columns = [aligned(getattr(row, name) for row in rows) for name in _DECIMALS]
    return [list(zip(_DECIMALS, numbers, strict=True)) for numbers in zip(*columns, strict=True)]


def errors_as_pages(app: FastAPI, pages: Pages) -> None:
    """Turn the problem documents of all handlers into pages, where a page was asked for."""
    for error, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(error, _as_page(handler, pages))


def _as_page(handler: Handler, pages: Pages) -> Handler:
    async def handle(request: Request, error: Exception) -> Response:
        answer = handler(request, error)
        response = answer if isinstance(answer, Response) else await answer
        if not _wants_page(request):
            return response
        problem = json.loads(bytes(response.body))
        wrong = [f"{one['location'].removeprefix('query.')}: {one['message']}" for one in problem.get("errors", ())]
        detail = "; ".join(wrong) or problem["detail"]
        retry = response.headers.get("Retry-After")
        html = pages.error(response.status_code, problem["title"], detail, int(retry) if retry else None)
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return HTMLResponse(html, response.status_code, kept)

    return handle


def _wants_page(request: Request) -> bool:
    return request.url.path == "/" or "text/html" in request.headers.get("accept", "")


class CarefulHeaders:
    """ASGI middleware: every answer tells browsers to stay with this host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, careful)
