"""A receiver of webhooks on loopback that keeps what it gets, and can fail, redirect, hang or be down."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.server_process import free_port

JsonObject = dict[str, Any]


class Post(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    status: int
    """What it was answered."""

    @property
    def content(self) -> Any:
        return json.loads(self.body)


class WebhookReceiver:
    """Listens between `__enter__` and `__exit__`, and in between as `up` and `down` say."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        self.status = 200
        """Of the answers from now on."""
        self.posts: list[Post] = []
        self._hanging = threading.Event()
        self._hanging.set()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on()
        self.down()

    def up(self) -> None:
        """Listen."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def down(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def hang(self) -> None:
        """Take posts until `go_on`, answer none of them, and forget them."""
        self._hanging.clear()

    def go_on(self) -> None:
        self._hanging.set()

    def events(self, conversation_id: str) -> list[JsonObject]:
        """The log's events that arrived with a good answer, in order, repetitions of a delivery left out."""
        seen: dict[str, Post] = {}
        path = f"/hooks/events/{conversation_id.replace('-', '')}"
        for post in self.posts:
            if post.path == path and post.status == 200:
                seen.setdefault(post.headers["webhook-id"], post)
        return [event for post in seen.values() for event in post.content if event.get("key") != "full_state"]

    def statuses(self, conversation_id: str) -> list[str]:
        """The statuses of a conversation that arrived."""
        told = [post.content for post in self.posts if post.path == "/hooks/conversations" and post.status == 200]
        return [info["execution_status"] for info in told if info["id"] == conversation_id]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if not receiver._hanging.is_set():
                    receiver._hanging.wait()
                    self.close_connection = True
                    return
                status = receiver.status
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posts.append(Post(self.path, headers, body, status))
                self.send_response(status)
                if status == 307:
                    self.send_header("location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        return Handler
