"""Requests that nobody would think of, made up from the server's own description of its routes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversations
from tests.server_process import Server

UNCALLED = r"/bash/(start|execute)|/file/(upload|create_directory)|/stream$"
"""Would run or write anything anywhere on the developer's machine, or do not end."""
UUID_NAMES = {"conversation_id", "runtime_conversation_id"}
EXAMPLES = int(os.environ.get("FANOUT_EXAMPLES", "3"))
"""Of each operation; a developer who looks for more says so."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose settings and profiles may be changed."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_PERSISTENCE_DIR": str(directory / "kept")}) as running:
        yield running


@pytest.fixture(scope="module")
def schema(server: Server) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json").exclude(path_regex=UNCALLED)


Operation = APIOperation[Any, Any, Any, Any]


def operations(schema: BaseSchema) -> list[Operation]:
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(found) > 100
    return found


def test_any_request_is_answered_as_described(
    schema: BaseSchema, http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With a status and a body that the description has, and never by a bug; every other conversation exists."""
    project = tmp_path_factory.mktemp("project")
    failures: list[str] = []
    for operation in operations(schema):
        known = Conversations(http, llm, str(project))()
        failures += failures_of(operation, known.id)
    assert failures == [], "\n\n".join(failures)


def failures_of(operation: Operation, conversation_id: str) -> list[str]:
    failures: dict[int, str] = {}
    is_known = cycle((True, False))

    def check(case: Case[Any]) -> None:
        for name in UUID_NAMES.intersection(case.path_parameters) if next(is_known) else ():
            case.path_parameters[name] = conversation_id
        response = case.call(timeout=30)
        try:
            case.validate_response(response, checks=[status_code_conformance, response_schema_conformance])
            assert b'"error_id"' not in response.content, response.content  # what was not foreseen has one
        except (Failure, FailureGroup, AssertionError) as error:
            failures.setdefault(response.status_code, f"{operation.label}: {error}"[:1500])

    quick = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    quick(given(case=operation.as_strategy())(check))()
    return list(failures.values())
