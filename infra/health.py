"""`/livez`, `/readyz` and `/metrics` for processes that have no HTTP interface of their own."""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Ready = Callable[[], str | None]


class HealthServer:
    """A small HTTP server in a daemon thread; `close()` stops it."""

    def __init__(self, host: str, port: int, ready: Ready, extra: Mapping[str, Callable[[], bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/livez":
                    self._answer(200, b'{"status":"ok"}')
                elif path in ("/readyz", "/healthz"):
                    reason = ready()
                    status = {"status": "ok"} if reason is None else {"status": "unavailable", "detail": reason}
                    self._answer(200 if reason is None else 503, json.dumps(status).encode())
                elif path == "/metrics":
                    self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
                elif path in extra:
                    self._answer(200, extra[path]())
                else:
                    self._answer(404, b'{"status":"not found"}')

            def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("X-Content-Type-Options", "nosniff")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not news."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()


def serve_health(
    host: str, port: int, ready: Ready, extra: Mapping[str, Callable[[], bytes]] | None = None
) -> HealthServer:
    """Serve health and Prometheus metrics on `host:port` (0: any free port).

    `ready` returns None when the process does its work, else the reason (answered with 503).
    `extra` maps further paths to functions that return a JSON body.
    """
    return HealthServer(host, port, ready, extra or {})
