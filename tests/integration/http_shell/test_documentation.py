"""The OpenAPI document and its pages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.live_app import SanicClient
from tests.support_shell import KEY, web_of

EVENT: dict[str, Any] = {
    "$defs": {"Text": {"type": "object", "properties": {"text": {"type": "string"}}}},
    "oneOf": [{"$ref": "#/$defs/Text"}, {"$ref": "#/components/schemas/Elsewhere"}],
    "discriminator": {"propertyName": "kind", "mapping": {"Text": "#/$defs/Text"}},
}


async def document(client: SanicClient) -> dict[str, Any]:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: dict[str, Any] = response.json()
    return found


async def test_document_is_valid_before_any_runner_is_up(keyed: SanicClient) -> None:
    found = await document(keyed)
    OpenAPIV31SpecValidator(found).validate()
    assert found["components"]["schemas"]["ConversationInfo"] == {"title": "ConversationInfo", "type": "object"}


async def test_document_takes_in_the_schemas_of_a_runner_once_it_is_up(client: SanicClient) -> None:
    await document(client)
    web_of(client).schemas = {"Event": EVENT, "ConversationInfo": {"type": "object", "title": "Real"}}
    found = await document(client)
    OpenAPIV31SpecValidator(found).validate()
    schemas = found["components"]["schemas"]
    assert schemas["ConversationInfo"]["title"] == "Real"
    assert schemas["Event"]["oneOf"][0] == {"$ref": "#/components/schemas/Text"}
    assert schemas["Event"]["discriminator"] == {"propertyName": "kind"}
    assert schemas["Text"]["properties"] == {"text": {"type": "string"}}
    assert schemas["Elsewhere"]["type"] == "object"


async def test_document_says_what_a_handler_takes_and_gives(client: SanicClient) -> None:
    paths = (await document(client))["paths"]
    search = paths["/api/things/search"]["get"]
    assert search["summary"] == "Search things"
    assert search["operationId"] == "search_things_api_things_search_get"
    assert search["security"] == [{"APIKeyHeader": []}]
    limit, ids, _ = search["parameters"]
    assert (limit["name"], limit["in"], limit.get("required", False)) == ("limit", "query", False)
    assert limit["schema"]["maximum"] == 100
    assert ids["schema"]["anyOf"][0] == {"type": "array", "items": {"type": "string"}}
    assert content(search["responses"]["200"]) == {"type": "array", "items": {"$ref": "#/components/schemas/Event"}}
    assert content(search["responses"]["422"]) == {"$ref": "#/components/schemas/HTTPValidationError"}
    assert content(search["responses"]["404"]) == {"$ref": "#/components/schemas/ErrorDetail"}
    create = paths["/api/things"]["post"]
    assert create["requestBody"]["required"] is True
    assert content(create["requestBody"]) == {"$ref": "#/components/schemas/Thing"}
    assert content(create["responses"]["201"]) == {"$ref": "#/components/schemas/ConversationInfo"}


async def test_document_names_path_parameters(client: SanicClient) -> None:
    (parameter,) = (await document(client))["paths"]["/api/conversations/{conversation_id}"]["get"]["parameters"]
    assert parameter == {
        "name": "conversation_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "format": "uuid"},
    }


async def test_document_holds_every_api_route_and_no_page_or_socket(client: SanicClient) -> None:
    found = await document(client)
    paths = set(found["paths"])
    assert {"/", "/alive", "/ready", "/server_info", "/api/tools/", "/api/init"} <= paths
    assert not [path for path in paths if path.startswith(("/docs", "/redoc", "/sockets", "/static", "/openapi"))]
    assert "security" not in found["paths"]["/alive"]["get"]
    identifiers = [operation["operationId"] for item in found["paths"].values() for operation in item.values()]
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect"])
async def test_page_answers_head_with_the_length_of_its_body(keyed: SanicClient, path: str) -> None:
    whole = await keyed.get(path)
    head = await keyed.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"])
async def test_page_loads_nothing_from_elsewhere(keyed: SanicClient, path: str) -> None:
    page = await keyed.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'self'" in page.headers["content-security-policy"]
    loaded = re.findall(r'(?:src|href|spec-url|data-openapi)="([^"]*)"', page.text)
    assert loaded
    for address in loaded:
        assert address.startswith("/"), address
        assert (await keyed.get(address)).status_code == 200, address


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("swagger-ui/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("swagger-ui/swagger-ui.css", "text/css; charset=utf-8"),
        ("swagger-ui/favicon-32x32.png", "image/png"),
        ("redoc/redoc.standalone.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_asset_is_served_whole_and_may_be_kept(keyed: SanicClient, name: str, media_type: str) -> None:
    response = await keyed.get(f"/docs/assets/{name}")
    assert response.headers["content-type"] == media_type
    assert int(response.headers["content-length"]) == len(response.content) > 500
    assert "max-age" in response.headers["cache-control"]


@pytest.mark.parametrize("name", ["", "README.md", "../documentation.py", "%2e%2e/documentation.py", "swagger-ui"])
async def test_nothing_but_the_assets_is_served_beside_them(keyed: SanicClient, name: str) -> None:
    assert (await keyed.get(f"/docs/assets/{name}", headers=KEY)).status_code == 404


def content(described: dict[str, Any]) -> Any:
    """The JSON schema of a body or a response."""
    return described["content"]["application/json"]["schema"]
