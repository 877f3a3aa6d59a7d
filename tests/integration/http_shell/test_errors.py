"""Error bodies, statuses and headers."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import SanicClient
from tests.support_shell import send_raw, shell_app, start


@pytest.mark.parametrize(
    ("name", "status", "content"),
    [
        ("bad_request", 400, {"detail": "makes no sense"}),
        ("conversation_not_found", 404, {"detail": f"Conversation not found: {'0' * 32}"}),
        ("already_running", 409, {"detail": "Conversation already running. Wait for completion or pause first."}),
        ("run_limit", 429, {"detail": "Conversation run limit reached. Retry the request later."}),
        ("invalid", 422, {"detail": "one sentence"}),
        (
            "failed",
            500,
            {"detail": "the provider said no", "exception": "500: the provider said no"},
        ),
    ],
)
async def test_error_of_ours_has_its_status_and_says_why(
    client: SanicClient, name: str, status: int, content: dict[str, str]
) -> None:
    response = await client.get(f"/api/raise/{name}")
    assert (response.status_code, response.json()) == (status, content)
    assert response.headers["content-type"] == "application/json"


async def test_purposeful_5xx_tells_the_reason_in_both_places(client: SanicClient) -> None:
    response = await client.get("/api/raise/unavailable")
    reason = "No runner is available right now. Retry the request."
    assert response.status_code == 503
    assert response.json() == {"detail": reason, "exception": f"503: {reason}"}


@pytest.mark.parametrize(("name", "seconds"), [("unavailable", "1"), ("run_limit", "5"), ("bash_limit", "5")])
async def test_error_worth_a_retry_says_when(client: SanicClient, name: str, seconds: str) -> None:
    assert (await client.get(f"/api/raise/{name}")).headers["retry-after"] == seconds


async def test_unknown_outcome_is_a_gateway_timeout(client: SanicClient) -> None:
    response = await client.get("/api/raise/unknown_outcome")
    assert response.status_code == 504
    assert response.json()["exception"].startswith("504: No answer to run within 3 s")


async def test_unexpected_error_is_answered_with_the_id_of_its_log_line(client: SanicClient) -> None:
    with capture_logs() as lines:
        response = await client.get("/api/raise/value_error?key=secret")
    content = response.json()
    assert response.status_code == 500
    assert content == {
        "detail": "Internal Server Error",
        "exception": "no such luck",
        "error_id": content["error_id"],
    }
    assert len(bytes.fromhex(content["error_id"])) == 16
    (line,) = lines
    assert (line["error_id"], line["path"]) == (content["error_id"], "/api/raise/value_error")
    assert isinstance(line["exc_info"], ValueError)


async def test_errors_of_the_server_carry_their_traceback_in_debug_mode(
    settings: Settings, sanic_client: StartClient
) -> None:
    client = await start(sanic_client, settings, debug=True)
    assert "ValueError: no such luck" in (await client.get("/api/raise/value_error")).json()["traceback"]
    assert "NoRunner: No runner" in (await client.get("/api/raise/unavailable")).json()["traceback"]
    assert "traceback" not in (await client.get("/api/nothing")).json()


async def test_bug_the_framework_reports_is_an_unexpected_error(client: SanicClient) -> None:
    with capture_logs() as lines:
        content = (await client.get("/api/raise/server_error")).json()
    assert content["exception"] == "the framework's own"
    assert [line["error_id"] for line in lines] == [content["error_id"]]


async def test_error_text_that_is_no_utf_8_is_still_sent(client: SanicClient) -> None:
    assert (await client.get("/api/raise/surrogate")).json()["exception"] == "?"


async def test_unknown_path_is_not_found(client: SanicClient) -> None:
    for path in ("/nothing", "/api/nothing", "/api/conversations", "/%ff", "/alive//"):
        response = await client.get(path)
        assert (response.status_code, response.json()) == (404, {"detail": "Not Found"}), path


@pytest.mark.parametrize("method", ["PUT", "HEAD", "OPTIONS", "QUERY", "DELETE"])
async def test_wrong_method_names_the_right_ones(client: SanicClient, method: str) -> None:
    response = await client.request(method, "/api/things")
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["GET", "POST"]
    if method != "HEAD":
        assert response.json() == {"detail": "Method Not Allowed"}


async def test_body_over_the_limit_is_413(settings: Settings, sanic_client: StartClient) -> None:
    app, _ = shell_app(settings)
    app.config.REQUEST_MAX_SIZE = 1000
    client = await sanic_client(app)
    response = await client.post("/api/things", content=b"x" * 1001)
    assert (response.status_code, response.json()) == (413, {"detail": "Request body exceeds the size limit"})


async def test_request_that_is_no_http_is_a_bad_request_in_json(client: SanicClient) -> None:
    head, content = await send_raw(client, b"nonsense\r\n\r\n")
    assert head.startswith(b"http/1.1 400 ")
    assert content == b'{"detail":"Bad Request"}'


async def test_doubled_slash_is_another_path(client: SanicClient) -> None:
    head, content = await send_raw(client, b"GET //alive HTTP/1.1\r\nHost: h\r\n\r\n")
    assert head.startswith(b"http/1.1 404 ")
    assert content == b'{"detail":"Not Found"}'
