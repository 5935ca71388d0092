"""A headless Chromium on the dashboard."""

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from api.dashboard.app import create_app
from infra.local.part import LOOPBACK
from infra.settings import Settings

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The contrast of each text with the first solid ground below it, where it is under WCAG's 4.5.
POOR_CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = color.map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    for (; one; one = one.parentElement) {
      const color = rgb(getComputedStyle(one).backgroundColor);
      if (color.length < 4 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const one of document.querySelectorAll("main *, header *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !one.getClientRects().length || one.closest("title, desc, option, noscript, .tag-text")) continue;
    const style = getComputedStyle(one);
    const text = rgb(one instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(text), light(ground(one))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push(`${one.tagName}.${one.className} ${contrast.toFixed(2)}`);
  }
  return poor;
}"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's browser; skips where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: install it (apt install chromium) to run the browser tests")
    with sync_playwright() as playwright:
        root = os.geteuid() == 0
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if root else [])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The dashboard on a port of its own, in a thread; gives its address."""
    with socket.create_server((LOOPBACK, 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"  # the socket takes connections already
        finally:
            server.should_exit = True
            thread.join(20)
        assert not thread.is_alive()


@dataclass
class Visit:
    """A page with what it asked for and complained about."""

    page: Page
    base: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, address: str = "/") -> Page:
        self.page.goto(self.base + address)
        return self.page

    def asked_for(self, path: str) -> int:
        return sum(urlsplit(url).path == path for url in self.requests)

    def check(self) -> None:
        """No errors, and no other host was asked."""
        assert self.complaints == []
        assert {urlsplit(url).netloc for url in self.requests} <= {urlsplit(self.base).netloc}


def visit(context: BrowserContext, base: str) -> Visit:
    """A new page that is watched."""
    context.set_default_timeout(30_000)
    one = Visit(context.new_page(), base)

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            one.complaints.append(message.text)

    def asked(request: Request) -> None:
        one.requests.append(request.url)

    one.page.on("console", heard)
    one.page.on("pageerror", lambda error: one.complaints.append(str(error)))
    one.page.on("request", asked)
    return one
