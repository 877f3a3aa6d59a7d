"""An OpenAI-compatible chat completions server on loopback that answers what the user message tells it to.

It makes an agent's run exact without a model, a key or a network: see `service.demo.llm_script` for the language.
A test sees what the LLM was asked (`requests`) and holds an answer back until it says so (`HOLD name`,
`wait_held`, `release`), so no test has to sleep. Run it by hand with `python -m service.demo.scripted_llm --port 9000`.
"""

from __future__ import annotations

import argparse
import json
import threading
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from service.demo.llm_script import Hold, JsonObject, Refusal, ScriptError, Turn, content_parts, turn_for, verdict_for

MODEL = "scripted"
API_KEY = "scripted-llm-key"
PROMPT_TOKENS = 10
COMPLETION_TOKENS = 5
_HEAD_CHUNKS = 2
"""The role and the first word."""
SIDE_ANSWER = "Scripted side answer"
"""What a request without tools gets, but a goal's judge: titles and summaries are asked beside the run and quote its
script."""


class LlmRequest(NamedTuple):
    """One chat completions request as it arrived."""

    api_key: str
    body: JsonObject
    user_agent: str

    @property
    def messages(self) -> list[JsonObject]:
        """The prompt, OpenAI's message objects."""
        return list(self.body["messages"])

    @property
    def tool_names(self) -> list[str]:
        """Names of the tools offered to the LLM."""
        return [tool["function"]["name"] for tool in self.body.get("tools") or []]

    @property
    def text(self) -> str:
        """All text of the prompt, one message after the other."""
        return "\n".join(part for message in self.messages for part in content_parts(message))


class Gates:
    """Named gates: a request stops at one until the test opens it. An opened gate stays open."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[str] = set()
        self._open: set[str] = set()
        self._all_open = False

    def pass_through(self, name: str) -> None:
        """Block until the gate is opened."""
        with self._changed:
            self._held.add(name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._all_open or name in self._open)

    def wait_held(self, name: str, timeout_seconds: float) -> bool:
        """Block until a request has reached the gate; False when none came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: name in self._held, timeout_seconds)

    def open(self, name: str) -> None:
        """Let everyone at this gate pass, now and later."""
        with self._changed:
            self._open.add(name)
            self._changed.notify_all()

    def open_all(self) -> None:
        """Let everyone pass every gate, now and later."""
        with self._changed:
            self._all_open = True
            self._changed.notify_all()


class ScriptedLlm:
    """The server, running in threads of this process between `with` and its end."""

    def __init__(self, port: int = 0) -> None:
        """Bind 127.0.0.1.

        Args:
            port: 0 takes a free one, see `base_url`.
        """
        self._gates = Gates()
        self._requests: list[LlmRequest] = []
        self._closing = threading.Event()
        self._server = _LoopbackServer(("127.0.0.1", port), _handler_for(self))
        # The poll interval is what closing waits for; the default is half a second.
        serve = partial(self._server.serve_forever, poll_interval=0.02)
        self._thread = threading.Thread(target=serve, name="scripted-llm", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._gates.open_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        """What an LLM client takes as `base_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def settings(self) -> JsonObject:
        """An agent's `llm` object that talks to this server: one attempt and no price, so nothing retries or warns."""
        return {
            "model": f"openai/{MODEL}",
            "base_url": self.base_url,
            "api_key": API_KEY,
            "usage_id": "agent",
            "num_retries": 1,
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
        }

    @property
    def requests(self) -> list[LlmRequest]:
        """Every request so far, in order of arrival, the refused and the held ones included."""
        return list(self._requests)

    @property
    def agent_requests(self) -> list[LlmRequest]:
        """The requests of agents' steps: those that offer tools."""
        return [request for request in self._requests if request.tool_names]

    def wait_held(self, name: str, timeout_seconds: float = 20.0) -> None:
        """Wait until a request stands at `HOLD name`.

        Raises:
            TimeoutError: none came within `timeout_seconds`.
        """
        if not self._gates.wait_held(name, timeout_seconds):
            raise TimeoutError(f"no LLM request reached HOLD {name} within {timeout_seconds} s")

    def release(self, name: str) -> None:
        """Let the requests at `HOLD name` go on, this one and all later ones."""
        self._gates.open(name)

    def stall(self, name: str) -> None:
        """Wait at `STALL name`, which `wait_held` and `release` know as well."""
        self._gates.pass_through(name)

    def answer(self, request: LlmRequest) -> Turn:
        """Record a request, sit through its waits and return what to answer."""
        self._requests.append(request)
        if not request.tool_names:
            return Turn(text=verdict_for(request.messages) or SIDE_ANSWER)
        try:
            turn = turn_for(request.messages)
        except ScriptError as error:
            return Turn(refusal=Refusal(400, str(error)))
        for wait in turn.waits:
            if isinstance(wait, Hold):
                self._gates.pass_through(wait.name)
            else:
                self._closing.wait(wait.seconds)
        return turn


class _LoopbackServer(ThreadingHTTPServer):
    daemon_threads = True
    # A client that gave up on a held answer must not keep the server from closing.
    block_on_close = False
    # Tests run hundreds of conversations at once; the default backlog is 5.
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when a client goes away: an interrupted agent does so on purpose."""


def _handler_for(llm: ScriptedLlm) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes: without this the second waits for the peer's delayed ACK.
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.path != "/v1/chat/completions":
                self._send_json(404, _error(Refusal(404, f"no such path: {self.path}")))
                return
            api_key = (self.headers["authorization"] or "").removeprefix("Bearer ")
            turn = llm.answer(LlmRequest(api_key, body, self.headers.get("user-agent", "")))
            if turn.refusal is not None:
                self._send_json(turn.refusal.status, _error(turn.refusal))
            elif body.get("stream"):
                self._send_stream(turn)
            else:
                self._send_json(200, _completion(turn))

        def _send_json(self, status: int, value: JsonObject) -> None:
            payload = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def _send_stream(self, turn: Turn) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for number, chunk in enumerate(_chunks(turn)):
                if turn.stall is not None and number == _HEAD_CHUNKS:
                    llm.stall(turn.stall)
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True

    return Handler


def _error(refusal: Refusal) -> JsonObject:
    return {"error": {"message": refusal.text, "type": "scripted", "code": str(refusal.status)}}


def _usage() -> JsonObject:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": COMPLETION_TOKENS,
        "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    }


def _finish_reason(turn: Turn) -> str:
    return "tool_calls" if turn.calls else "stop"


def _completion(turn: Turn) -> JsonObject:
    calls = [
        {"id": _new_id("call"), "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in turn.calls
    ]
    message: JsonObject = {"role": "assistant", "content": turn.text}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": _finish_reason(turn)}
    return _envelope("chat.completion") | {"choices": [choice], "usage": _usage()}


def _chunks(turn: Turn) -> Iterator[JsonObject]:
    """The answer cut up as a provider cuts it: text by words, arguments in halves, usage in a chunk of its own."""
    head = _envelope("chat.completion.chunk")
    for delta in _deltas(turn):
        yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield head | {"choices": [{"index": 0, "delta": {}, "finish_reason": _finish_reason(turn)}]}
    yield head | {"choices": [], "usage": _usage()}


def _deltas(turn: Turn) -> Iterator[JsonObject]:
    yield {"role": "assistant", "content": ""}
    for number, word in enumerate((turn.text or "").split(" ")):
        if turn.text:
            yield {"content": word if number == 0 else f" {word}"}
    for index, call in enumerate(turn.calls):
        middle = len(call.arguments) // 2
        named = {"name": call.name, "arguments": call.arguments[:middle]}
        yield {"tool_calls": [{"index": index, "id": _new_id("call"), "type": "function", "function": named}]}
        yield {"tool_calls": [{"index": index, "function": {"arguments": call.arguments[middle:]}}]}


def _envelope(kind: str) -> JsonObject:
    return {"id": _new_id("chatcmpl"), "object": kind, "created": 1, "model": MODEL}


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A chat completions server that answers what the message tells it to.")
    parser.add_argument("--port", type=int, default=9000, help="port on 127.0.0.1; 0 takes a free one")
    with ScriptedLlm(parser.parse_args().port) as llm:
        # The address is this program's output: a caller that asked for port 0 reads it here.
        print(llm.base_url, flush=True)  # noqa: T201
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
