"""Traces: a request, what a runner did for it, and the run and its events are one, whatever processes they were in."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversations, call, user_message
from tests.server_process import FANOUT, Server
from tests.waiting import wait_until

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"


class Told(NamedTuple):
    """One span, as a collector gets it."""

    name: str
    process: str
    trace_id: str
    span_id: str
    parent_id: str
    event_ids: list[str]
    """Of the events of the conversation that were stored in it."""


class Collector:
    """An OTLP receiver on loopback that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
                collector.told += spans_of(message)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def named(self, name: str) -> Told:
        """The span of our trace with this name."""
        found = [span for span in self.told if (span.name, span.trace_id) == (name, TRACE_ID)]
        assert len(found) == 1, [span.name for span in self.told if span.trace_id == TRACE_ID]
        return found[0]


def spans_of(message: ExportTraceServiceRequest) -> Iterator[Told]:
    for resource in message.resource_spans:
        told = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = [each.value.string_value for event in span.events for each in event.attributes]
                yield Told(
                    span.name,
                    told["service.instance.id"],
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    [text for text in ids if text],
                )


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_request_run_and_events_are_one_trace(tmp_path: Path, scripted_llm: ScriptedLlm, collector: Collector) -> None:
    """From the caller's span on, over web worker and runner; log lines have its id, and nothing is left unsent."""
    environment = {"OH_TRACE_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50", "LOG_JSON": "true"}
    command = [*FANOUT, "serve", "--workers", "2", "--runners", "1"]
    with Server(tmp_path / "server", environment, command) as server:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
            one = Conversations(http, scripted_llm, str(tmp_path / "project"))()
            headers = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
            script = user_message(call("think", thought="traced"), "HTTP 400 refused", run=True)
            http.post(f"{one.path}/events", json=script, headers=headers).raise_for_status()
            one.wait_status("error")
            stored = [event["id"] for event in one.events]
            wait_until(lambda: any(span.name == "run" for span in collector.told), "the run has been told")
            one.http.post("/api/conversations/search", headers=headers)  # no such route: nothing breaks
        server.terminate()
        log = server.log_path.read_text("utf-8")

    request = collector.named("POST /api/conversations/{conversation_id}/events")
    operation = collector.named("events.send")
    applied, run = collector.named("apply message"), collector.named("run")
    assert request.parent_id == CALLER
    assert [each.parent_id for each in (operation, applied, run)] == [
        request.span_id,
        operation.span_id,
        applied.span_id,
    ]
    assert request.process.startswith("Sanic-Server-")
    assert {each.process for each in (operation, applied, run)} == {"Runner-0"}
    told = applied.event_ids + run.event_ids
    assert sorted(told) == sorted(stored)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["trace_id"] for line in lines if line["event"] == "run_failed"] == [TRACE_ID]
