"""The page, and its part that changes."""

import asyncio
import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api.dashboard.pages import Pages
from api.dashboard.schemas import View
from api.dashboard.service import DashboardService
from api.http import problem_responses

# An error is a page to browsers and a problem document to programs.
_PAGES: dict[int | str, dict[str, Any]] = {303: {"description": "There is no such page any more: the first one"}}
for _status, _documented in problem_responses(413, 422, 431, 503).items():
    _PAGES[_status] = {**_documented, "content": {**_documented["content"], "text/html": {}}}


def dashboard_router(service: DashboardService, pages: Pages) -> APIRouter:
    """`/` and `/live`; errors of the first are pages, of the second problem documents.

    HTML is written in a thread: a thousand rows take 0.2 s, which other requests need not wait for.
    """
    router = APIRouter(default_response_class=HTMLResponse)

    @router.head("/", include_in_schema=False)
    @router.get("/", responses=_PAGES)
    async def index(view: Annotated[View, Query()]) -> Response:
        """The whole page."""
        page = await service.page(view)
        if page is None:
            return RedirectResponse(view.url(after=None), 303)
        return HTMLResponse(await asyncio.to_thread(pages.whole, page, await service.symbols()))

    @router.get("/live", responses={**_PAGES, 304: {"description": "The caller has it already"}})
    async def live(request: Request, view: Annotated[View, Query()]) -> Response:
        """Its changing part; 304 to who has it already."""
        page = await service.page(view)
        if page is None:
            return RedirectResponse(view.url("/live", after=None), 303)
        part = await asyncio.to_thread(pages.part, page)
        tag = f'"{hashlib.sha256(part.encode()).hexdigest()[:32]}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return HTMLResponse(part, headers={"ETag": tag})

    return router
