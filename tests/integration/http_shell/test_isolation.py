"""Several apps in one process."""

from __future__ import annotations

from service.settings import Settings
from tests.conftest import StartClient
from tests.live_app import SanicClient
from tests.support_shell import start


async def test_two_apps_in_one_process_do_not_mix(
    settings: Settings, sanic_client: StartClient, keyed: SanicClient
) -> None:
    other = await start(sanic_client, settings)
    assert (await keyed.get("/api/things/search")).status_code == 401
    assert (await other.get("/api/things/search")).status_code == 200
    assert (await keyed.get("/openapi.json")).json()["paths"].keys() == (await other.get("/openapi.json")).json()[
        "paths"
    ].keys()
