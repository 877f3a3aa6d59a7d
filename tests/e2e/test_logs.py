"""What a server of several processes logs: lines that can be followed, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import httpx

from service.demo.scripted_llm import ScriptedLlm
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, Server
from tests.waiting import wait_until

SECRETS = {
    "session key": "log-test-session-key",
    "secret key": "log-test-secret-key",
    "metrics key": "log-test-metrics-key",
    "LLM's key": "log-test-llm-key",
    "conversation's secret": "log-test-conversation-secret",
    "secret in a bad request": "log-test-refused-key",
    "Redis' password": "log-test-redis-password",
    "webhook's header": "log-test-webhook-header",
    "webhook's signing secret": "log-test-signing-secret",
}
SESSION_KEY = SECRETS["session key"]
ENVIRONMENT = {
    "OH_SESSION_API_KEYS_0": SESSION_KEY,
    "OH_SECRET_KEY": SECRETS["secret key"],
    "OH_METRICS_KEY": SECRETS["metrics key"],
    "DEBUG": "true",
    "LOG_JSON": "true",
    # Nobody listens there.
    "OH_WEBHOOKS_0_BASE_URL": "http://127.0.0.1:1",
    "OH_WEBHOOKS_0_HEADERS": json.dumps({"Authorization": SECRETS["webhook's header"]}),
    "OH_WEBHOOKS_0_SIGNING_SECRET": SECRETS["webhook's signing secret"],
    "OH_WEBHOOKS_0_EVENT_BUFFER_SIZE": "1",
    "OH_WEBHOOKS_0_NUM_RETRIES": "0",
}


def test_log_tells_who_and_never_a_secret(tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """With everything logged that can be, over a run that ends well, one that fails, and requests that are refused."""
    command = [*FANOUT, "serve", "--workers", "2", "--runners", "1"]
    (tmp_path / "redis").mkdir()
    with RedisProcess(tmp_path / "redis") as redis:
        password = SECRETS["Redis' password"]
        redis.client.config_set("requirepass", password)
        address = {"REDIS_URL": redis.url.replace("redis://", f"redis://:{password}@")}
        log = log_of_a_server(tmp_path, ENVIRONMENT | address, command, scripted_llm)

    for name, secret in SECRETS.items():
        assert secret not in log, name
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    failed = next(line for line in lines if line["event"] == "run_failed")
    assert failed["process"] == "Runner-0"
    assert failed["conversation_id"]
    assert any("webhook" in line["event"] for line in lines)


def log_of_a_server(tmp_path: Path, environment: dict[str, str], command: list[str], scripted_llm: ScriptedLlm) -> str:
    with Server(tmp_path / "server", environment, command) as server:
        with httpx.Client(
            base_url=server.url, headers={"x-session-api-key": SESSION_KEY}, timeout=60, trust_env=False
        ) as client:
            good = hold(client, tmp_path, scripted_llm.settings)
            nobody = scripted_llm.settings | {"base_url": "http://127.0.0.1:1/v1", "num_retries": 0}
            bad = hold(client, tmp_path, nobody)
            assert (good, bad) == ("finished", "error")
            refused = {"agent": {"kind": "None", "llm": {"api_key": SECRETS["secret in a bad request"]}}}
            assert client.post("/api/conversations", json=refused).status_code == 422
            httpx.get(f"{server.url}/sockets/events/{uuid4()}?session_api_key={SESSION_KEY}", trust_env=False)
        server.terminate()
        return server.log_path.read_text("utf-8")


def hold(client: httpx.Client, folder: Path, llm: dict[str, object]) -> str:
    """A conversation of one message with a secret; returns how it ended."""
    conversation_id = str(uuid4())
    path = f"/api/conversations/{conversation_id}"
    body = {
        "conversation_id": conversation_id,
        "agent": {
            "kind": "Agent",
            "llm": llm | {"api_key": SECRETS["LLM's key"]},
            "tools": [{"name": "terminal", "params": {"terminal_type": "subprocess"}}],
        },
        "workspace": {"working_dir": str(folder)},
        "secrets": {"TOKEN": {"kind": "StaticSecret", "value": SECRETS["conversation's secret"]}},
    }
    message = 'CALL terminal {"command": "echo $TOKEN"}\nSAY done'
    client.post("/api/conversations", json=body).raise_for_status()
    content = [{"type": "text", "text": message}]
    client.post(f"{path}/events", json={"role": "user", "content": content, "run": True}).raise_for_status()

    def ended() -> str | None:
        status = str(client.get(path).raise_for_status().json()["execution_status"])
        return status if status in ("finished", "error") else None

    return str(wait_until(ended, "the run has ended", 60))
