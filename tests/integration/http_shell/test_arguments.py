"""Arguments on the wire."""

from __future__ import annotations

import pytest

from tests.live_app import SanicClient
from tests.support_shell import ID, KEY


@pytest.mark.parametrize(
    "text",
    [ID, ID.replace("-", ""), ID.upper(), f"%7B{ID}%7D", f"{{{ID}}}", f"urn:uuid:{ID}"],
)
async def test_conversation_id_is_read_in_every_form_and_printed_dashed(client: SanicClient, text: str) -> None:
    assert (await client.get(f"/api/conversations/{text}")).json() == ID


async def test_path_is_decoded_once_and_after_routing(keyed: SanicClient) -> None:
    """So an encoded slash is part of a name, and what is left of a percent sign stays."""
    answer = await keyed.get("/api/conversations/caf%C3%A9%2Fworkspace%2Fx%2520y", headers=KEY)
    assert (answer.status_code, answer.json()["detail"][0]["input"]) == (422, "café/workspace/x%20y")
    inside = await keyed.get(f"/api/conversations/{ID}/workspace/a%2Fb/%252e")
    assert inside.json() == "a/b/%2e"


async def test_path_that_is_not_utf_8_is_refused(keyed: SanicClient) -> None:
    answer = await keyed.get("/api/conversations/a%ff", headers=KEY)
    [problem] = answer.json()["detail"]
    assert (answer.status_code, problem["type"]) == (422, "string_unicode")
    assert (problem["loc"], problem["input"]) == (["path", "conversation_id"], "a%ff")
    assert (await keyed.get("/api/conversations/a%ff")).status_code == 401


async def test_problems_have_the_contract_shape_on_the_wire(client: SanicClient) -> None:
    response = await client.get("/api/conversations/notauuid")
    reason = "invalid character: found `n` at 0"
    assert response.status_code == 422
    assert response.json() == {
        "detail": [
            {
                "type": "uuid_parsing",
                "loc": ["path", "conversation_id"],
                "msg": f"Input should be a valid UUID, {reason}",
                "input": "notauuid",
                "ctx": {"error": reason},
            }
        ]
    }


async def test_secrets_of_a_wrong_body_are_not_repeated(client: SanicClient) -> None:
    response = await client.post(
        "/api/things", json={"api_key": ["sk-1"], "env": {"A": "sk-2"}, "x": {"token": "sk-3"}}
    )
    assert response.status_code == 422
    assert len(response.json()["detail"]) == 3
    assert "sk-" not in response.text


async def test_repeated_scalar_counts_its_last_value(client: SanicClient) -> None:
    response = await client.get("/api/things/search?limit=999&limit=7&ids=a&ids=b&unknown=1")
    assert response.json() == {"limit": 7, "ids": ["a", "b"], "title": None}


async def test_get_with_a_body_is_read_where_the_route_asks_for_it(client: SanicClient) -> None:
    assert (await client.request("GET", "/api/things", json=["a"])).json() == {"body": ["a"]}
    assert (await client.get("/api/things")).json() == {"body": None}
