"""The app under the test client of Sanic's own tools, for whoever embeds it and tests their part of it."""

from __future__ import annotations

from sanic_testing.testing import SanicASGITestClient

from service.app import create_app
from service.settings import Settings


async def test_app_answers_sanic_testing_without_a_port(settings: Settings) -> None:
    """`create_app` gives an app that answers plain HTTP in the test's loop, without a runner and without listening."""
    app = create_app(settings, embedded_runner=False)

    _, alive = await SanicASGITestClient(app).get("/alive")
    _, unknown = await SanicASGITestClient(app).get("/no-such-path")

    assert alive.status == 200
    assert (unknown.status, unknown.json) == (404, {"detail": "Not Found"})
