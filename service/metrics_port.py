"""/metrics of a node that serves nothing else: a thread with the standard library's HTTP server."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import structlog

from service.metrics import CONTENT_TYPE, exposition, may_scrape

_log = structlog.get_logger(__name__)


def serve_metrics(host: str, port: int, token: str | None) -> None:
    """Answer `GET /metrics` until the process ends. A port that is taken is logged: runs matter more."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND)
            elif not may_scrape(self.headers.get("authorization", ""), token):
                self.send_error(HTTPStatus.UNAUTHORIZED)
            else:
                body = exposition()
                self.send_response(HTTPStatus.OK)
                self.send_header("content-type", CONTENT_TYPE)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A line for each scrape would be noise."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        _log.error("metrics_port_not_served", host=host, port=port, error=str(error))
        return
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
