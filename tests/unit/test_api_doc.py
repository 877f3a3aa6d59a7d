"""docs/api.md says what the app serves: no more, no less."""

from __future__ import annotations

import re

import pytest
from sanic import Sanic
from sanic_routing.route import Route

from service.app import create_app
from service.blueprints.http.errors import STATUS
from service.blueprints.streams.socket import CloseCode
from service.settings import Settings
from tests.server_process import REPOSITORY

PAGE = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
SERVICE = REPOSITORY / "service"

UNSERVED = re.compile(r"`((?:GET|POST|PUT|PATCH|DELETE|WS)(?: [A-Z]+)*) (/[^` ]*)`")
PLACEHOLDER = re.compile(r"\{[^}]*\}")

Operation = tuple[str, str]
"""Method, WS for a socket, and path."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[Operation, str]:
    """What the app routes, with what each handler says of itself (empty: nothing)."""
    directory = tmp_path_factory.mktemp("api")
    settings = Settings(conversations_path=directory / "conversations", static_files_path=directory)
    app = create_app(settings, embedded_runner=False)
    Sanic.unregister_app(app)
    return {
        (method, path_of(route)): getattr(getattr(route.handler, "__documentation__", None), "summary", "")
        for route in app.router.routes
        for method in methods_of(route)
    }


def methods_of(route: Route) -> list[str]:
    return ["WS"] if hasattr(route.handler, "is_websocket") else sorted(route.methods)


def path_of(route: Route) -> str:
    """The path with `{name}` for each parameter."""
    return "/" + re.sub(r"<(\w+)(?::[^>]*)?>", r"{\1}", route.path)


def rows(title: str) -> list[list[str]]:
    """The cells of each row in the tables of a section, header lines left out."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    heads = {number for number, line in enumerate(lines) if line.startswith("|---")}
    kept = [line for number, line in enumerate(lines) if number not in heads and number + 1 not in heads]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in kept]


def documented() -> dict[Operation, str]:
    return {
        (method, path.strip("`")): summary
        for methods, path, summary in rows("Routes")
        for method in methods.strip("`").split(", ")
    }


def test_every_route_has_a_row_and_every_row_a_route(served: dict[Operation, str]) -> None:
    """A route added, moved or removed is so on the page too."""
    assert sorted(documented()) == sorted(served)


def test_row_says_what_the_handler_says(served: dict[Operation, str]) -> None:
    """The page has the words of the OpenAPI document."""
    told = {operation: summary for operation, summary in served.items() if summary}
    assert {operation: documented()[operation] for operation in told} == told


def test_what_is_listed_as_not_served_is_not(served: dict[Operation, str]) -> None:
    """A route leaves the list when it arrives."""
    listed = [
        (method, PLACEHOLDER.sub("{}", path))
        for cells in rows("Not served yet")
        for methods, path in UNSERVED.findall(" ".join(cells))
        for method in methods.split()
    ]
    assert listed
    assert not set(listed) & {(method, PLACEHOLDER.sub("{}", path)) for method, path in served}


def test_every_status_of_an_error_has_a_row() -> None:
    """Nobody has to guess what a status means here."""
    listed = {int(status) for cells in rows("Errors") for status in re.findall(r"\b[45]\d\d\b", cells[0])}
    assert {*STATUS.values(), 401, 403, 405, 413} <= listed


def test_every_close_code_has_a_row() -> None:
    """And says whether to come back."""
    listed = {int(code) for cells in rows("Close codes") for code in re.findall(r"\b\d{4}\b", cells[0])}
    assert listed == set(CloseCode)


def test_settings_without_effect_are_listed() -> None:
    """A setting that is read and then used by nobody is said to be so, and only such a one."""
    room = SERVICE / "settings"
    texts = [path.read_text(encoding="utf-8") for path in SERVICE.rglob("*.py") if path.parent != room]
    # Some are used through a property of the settings.
    texts.append("\n".join(re.findall(r"self\.\w+", (room / "model.py").read_text(encoding="utf-8"))))
    used = {name for text in texts for name in re.findall(r"\.(\w+)\b", text)}
    paragraph = PAGE.split("Settings that are read and have no effect:", 1)[1].split("\n\n", 1)[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(set(Settings.model_fields) - used)
