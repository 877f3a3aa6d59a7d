"""A client of `/api/bash` or of its copy below a conversation."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.integration.contract.conversations import JsonObject
from tests.waiting import wait_until


class Bash:
    """The routes of one scope."""

    def __init__(self, http: httpx.Client, prefix: str = "/api/bash") -> None:
        self._http = http
        self._prefix = prefix

    def start(self, command: str, **fields: Any) -> JsonObject:
        return self.post("start_bash_command", command=command, **fields)

    def execute(self, command: str, **fields: Any) -> JsonObject:
        return self.post("execute_bash_command", command=command, **fields)

    def post(self, route: str, **content: Any) -> JsonObject:
        answer: JsonObject = self.answer("POST", route, json=content or None).raise_for_status().json()
        return answer

    def answer(self, method: str, route: str, **options: Any) -> httpx.Response:
        return self._http.request(method, f"{self._prefix}/{route}", **options)

    def search(self, **query: Any) -> JsonObject:
        page: JsonObject = self.answer("GET", "bash_events/search", params=query).raise_for_status().json()
        return page

    def outputs(self, command_id: str) -> list[JsonObject]:
        found: list[JsonObject] = self.search(command_id__eq=command_id)["items"]
        return found

    def wait_ended(self, command_id: str) -> JsonObject:
        """The last output."""

        def last() -> JsonObject | None:
            outputs = self.outputs(command_id)
            return outputs[-1] if outputs and outputs[-1]["exit_code"] is not None else None

        return wait_until(last, "the command has ended") or {}

    def steer(self, command_id: str, route: str, **content: Any) -> httpx.Response:
        """Ask something of a command that runs."""
        return self.answer("POST", f"bash_commands/{command_id}/{route}", json=content)

    def send(self, command_id: str, **content: Any) -> None:
        """Input."""
        self.steer(command_id, "input", **content).raise_for_status()

    def wait_shown(self, command_id: str, text: str) -> None:
        """Until the live output has it; fails when the command ends without."""
        shown = ""
        with self._http.stream("GET", f"{self._prefix}/bash_commands/{command_id}/stream") as response:
            for line in response.iter_lines():
                if line.startswith("data:"):
                    shown += json.loads(line[5:]).get("text", "")
                    if text in shown:
                        return
        raise AssertionError(f"{text!r} is not in {shown!r}")
