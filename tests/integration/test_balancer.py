"""`deploy/haproxy.cfg`, as it is, in front of servers that do what a test tells them to."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.balancer_process import Balancer
from tests.waiting import wait_until

REQUESTS = 20


class WebServer(ThreadingHTTPServer):
    """Answers `/ready` as it is told, and everything else with its name."""

    daemon_threads = True
    is_ready = True

    def __init__(self, name: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.name = name
        self.forwarded: str | None = None
        """Where the last request came from, as the balancer told."""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when the balancer hangs up: its checks end with the status line."""

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request to a `WebServer`."""

    server: WebServer

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""

    def do_GET(self) -> None:
        """Answer."""
        # The balancer's own checks come from nobody.
        self.server.forwarded = self.headers["X-Forwarded-For"] or self.server.forwarded
        is_refused = self.path == "/ready" and not self.server.is_ready
        self.send_response(503 if is_refused else 200)
        body = self.server.name.encode()
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def servers() -> Iterator[list[WebServer]]:
    """Two servers, both ready."""
    servers = [WebServer("web1"), WebServer("web2")]
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def balancer(tmp_path: Path, servers: list[WebServer]) -> Iterator[Balancer]:
    """A balancer that has checked both servers."""
    with Balancer(tmp_path, [server.server_port for server in servers]) as balancer:
        wait_until_known(balancer, True, True)
        yield balancer


def wait_until_known(balancer: Balancer, *ready: bool) -> None:
    """Wait until the balancer has found out which servers are ready, in order, and acts on it."""

    def is_known() -> bool:
        servers = balancer.statistics().values()
        return [(each.is_in_rotation, each.is_found_ready) for each in servers] == [(each, each) for each in ready]

    wait_until(is_known, f"the balancer knows who is ready: {ready}")


def names(balancer: Balancer) -> Counter[str]:
    """Who answers requests, each with the cookies of those before it."""
    with httpx.Client(base_url=balancer.url, timeout=10, trust_env=False) as client:
        answers = [client.get("/alive") for _ in range(REQUESTS)]
        assert not client.cookies
    return Counter(answer.raise_for_status().text for answer in answers)


def test_requests_of_one_client_go_round_robin(balancer: Balancer) -> None:
    """Requests over one connection are spread evenly, and no cookie ties the client to a server."""
    assert names(balancer) == {"web1": REQUESTS / 2, "web2": REQUESTS / 2}


def test_server_that_is_not_ready_gets_no_request(balancer: Balancer, servers: list[WebServer]) -> None:
    """A server that is starting or draining is left alone until it is ready."""
    servers[0].is_ready = False
    wait_until_known(balancer, False, True)
    assert names(balancer) == {"web2": REQUESTS}

    servers[0].is_ready = True
    wait_until_known(balancer, True, True)
    assert set(names(balancer)) == {"web1", "web2"}


def test_request_to_a_server_that_is_gone_goes_to_another(balancer: Balancer, servers: list[WebServer]) -> None:
    """Clients do not notice that a server refuses connections, not even before the next check finds out."""
    servers[0].stop()

    assert names(balancer) == {"web2": REQUESTS}


def test_servers_that_are_all_not_ready_still_answer(balancer: Balancer, servers: list[WebServer]) -> None:
    """Without runners or Redis no server is ready; what they can answer without, they are asked for."""
    for server in servers:
        server.is_ready = False
    wait_until_known(balancer, False, False)

    assert set(names(balancer)) == {"web1", "web2"}


def test_without_any_server_the_answer_says_to_come_back(balancer: Balancer, servers: list[WebServer]) -> None:
    """With nobody to ask, the balancer itself answers in the form of the API's errors."""
    for server in servers:
        server.stop()

    response = httpx.get(f"{balancer.url}/alive", timeout=30, trust_env=False)

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json() == {"detail": "No web server is available"}


def test_client_address_is_passed_on(balancer: Balancer, servers: list[WebServer]) -> None:
    """Web servers are told where a request came from."""
    names(balancer)

    assert [server.forwarded for server in servers] == ["127.0.0.1", "127.0.0.1"]


def test_log_keeps_keys_to_itself(balancer: Balancer) -> None:
    """The log has a request's path, and not its query, where a socket's key may be."""
    httpx.get(f"{balancer.url}/sockets/events/1?session_api_key=the-key", timeout=10, trust_env=False)

    wait_until(lambda: "/sockets/events/1" in balancer.process.log, "the request is in the log")
    assert "the-key" not in balancer.process.log


def test_drained_server_gets_nothing_new(balancer: Balancer) -> None:
    """An operator takes a server out by hand, over the stats socket."""
    assert balancer.command("set server web/web1 state drain").strip() == ""

    assert names(balancer) == {"web2": REQUESTS}


def test_certificate_is_served(tmp_path: Path, servers: list[WebServer]) -> None:
    """TLS needs nothing but options in the address to listen on."""
    certificate = tmp_path / "site.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 1".split()
    parts = [tmp_path / "certificate", tmp_path / "key"]
    subprocess.run([*make, "-out", parts[0], "-keyout", parts[1]], check=True, capture_output=True)
    certificate.write_text("".join(part.read_text() for part in parts))

    options = f"ssl crt {certificate} alpn h2,http/1.1"
    with Balancer(tmp_path, [server.server_port for server in servers], options) as balancer:
        answer = httpx.get(f"https://127.0.0.1:{balancer.port}/alive", verify=False, trust_env=False)

    assert answer.text in {"web1", "web2"}
