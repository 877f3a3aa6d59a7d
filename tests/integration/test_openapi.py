"""The OpenAPI document of the whole server, with the schemas a runner provides."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from tests.server_process import Server


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """`/openapi.json`, once a runner has been asked."""
    found: dict[str, Any] = httpx.get(f"{server.url}/openapi.json", timeout=30).raise_for_status().json()
    return found


def test_document_is_valid(document: dict[str, Any]) -> None:
    """The document follows the OpenAPI specification."""
    validate(document)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("StartConversationRequest", "workspace"),
        ("SendMessageRequest", "content"),
        ("PostMessageRequest", "sender"),
        ("ConversationInfo", "execution_status"),
        ("EventPage", "next_page_id"),
        ("UpdateSecretsRequest", "secrets"),
    ],
)
def test_document_has_the_models_of_the_sdk(document: dict[str, Any], name: str, field: str) -> None:
    """A request or answer that the SDK defines is described by the SDK's own schema."""
    assert field in document["components"]["schemas"][name]["properties"]


def test_document_leaves_no_schema_open(document: dict[str, Any]) -> None:
    """Every name that a route refers to has a description, none is a stand-in."""
    schemas: dict[str, dict[str, Any]] = document["components"]["schemas"]
    open_objects = [name for name, schema in schemas.items() if schema == {"title": name, "type": "object"}]
    used = str(document["paths"])
    assert [name for name in open_objects if f"'#/components/schemas/{name}'" in used] == []
