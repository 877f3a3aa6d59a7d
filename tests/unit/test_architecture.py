"""The rooms of `service/` and the direction of the arrows between them; function-level imports count too."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.server_process import REPOSITORY

SERVICE = REPOSITORY / "service"
MAX_LINES = 400

VALUES = frozenset({"errors", "identity", "open_directory"})
COUNTED = VALUES | {"metrics", "tracing"}
REDIS = COUNTED | {"redis_source", "embedded_redis", "exchange"}
SHARED = REDIS | {"settings", "redaction", "tasks", "thread_pool"}

ALLOWED = {
    "blueprints": SHARED | {"requests", "pubsub", "catalog", "store", "git"},
    "runner": SHARED
    | {
        "git",
        "requests",
        "pubsub",
        "catalog",
        "store",
        "backoff",
        "child_process",
        "logs",
        "metrics_port",
        "node_directory",
    },
    "requests": COUNTED | {"tasks", "pubsub", "catalog"},
    "pubsub": REDIS | {"tasks"},
    "catalog": REDIS,
    "store": VALUES,
    "git": VALUES | {"settings"},
    "settings": VALUES,
    "demo": frozenset(),
}
PARTS = {
    "blueprints": {
        "http": frozenset({"streams"}),
        "streams": frozenset({"http"}),
        "openai": frozenset({"http", "streams"}),
    },
    "runner": {
        "wire": frozenset(),
        "bash": frozenset(),
        "programs": frozenset({"bash"}),
        "servers": frozenset(),
        "extensions": frozenset(),
        "persistence": frozenset({"extensions"}),
        "webhooks": frozenset({"conversation"}),
        "conversation": frozenset({"wire", "persistence", "servers", "webhooks"}),
        "ownership": frozenset({"wire", "conversation", "webhooks"}),
        "operations": frozenset(
            {
                "wire",
                "bash",
                "programs",
                "servers",
                "extensions",
                "persistence",
                "webhooks",
                "conversation",
                "ownership",
            }
        ),
    },
}
"""The folders of a room, and which others of it each may import."""
ROUTERS = frozenset(path.stem for path in (SERVICE / "blueprints").glob("*.py"))
COMPOSITION_ROOTS = frozenset({"app", "cli", "doctor", "__main__"})
SDK = ("openhands", "litellm")
SDK_ROOMS = ("runner", "demo")
"""The agents' host, and a client that nothing else imports."""


class Import(NamedTuple):
    """One imported name and the line it stands on."""

    name: str
    """Dotted, with the imported attribute: `service.errors.NotFound`."""
    level: int
    """Dots in front of it: 0 for an absolute import."""
    line: int

    @property
    def top(self) -> str:
        return self.name.split(".")[0]

    @property
    def room(self) -> str:
        """The room, or the module directly in `service`, that a name of ours belongs to."""
        return self.name.split(".")[1]


def imports_of(source: str) -> list[Import]:
    """Every import of a module, those inside functions included."""
    found: list[Import] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found += [Import(f"{node.module}.{alias.name}", node.level, node.lineno) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [Import(alias.name, 0, node.lineno) for alias in node.names]
    return found


def room_of(path: Path) -> str:
    """The folder of `service` that a file is in, or its own name when it lies in `service` itself."""
    parts = path.relative_to(SERVICE).parts
    return parts[0] if len(parts) > 1 else path.stem


def part_breaches(room: str, part: str, source: str) -> list[str]:
    """What a module in a folder of a room imports of the room's other folders and must not, one line each."""
    barred = PARTS[room].keys() - PARTS[room][part] - {part} | (ROUTERS if room == "blueprints" else set())
    return [
        f"line {each.line}: {room}/{part} -> {each.name}"
        for each in imports_of(source)
        if each.name.startswith(f"service.{room}.") and each.name.split(".")[2] in barred
    ]


def breaches(room: str, source: str) -> list[str]:
    """What a module of `room` imports and must not, one line each."""
    allowed = ALLOWED.get(room, frozenset(other.stem for other in SERVICE.glob("*.py")) | {"settings"})
    reasons: list[str] = []
    for each in imports_of(source):
        if each.level:
            reasons.append(f"line {each.line}: relative import")
        elif each.top in SDK and room not in SDK_ROOMS:
            reasons.append(f"line {each.line}: {each.name} in {room}")
        elif each.top in ("tests", "bench"):
            reasons.append(f"line {each.line}: {each.name} is not part of the product")
        elif each.top == "service" and room not in COMPOSITION_ROOTS and each.room not in allowed | {room}:
            reasons.append(f"line {each.line}: {room} -> {each.room}")
    return reasons


MODULES = sorted(SERVICE.rglob("*.py"))
PATHS = pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(SERVICE)) for path in MODULES])


@PATHS
def test_imports_point_down(path: Path) -> None:
    """A module imports only its own room, those below it, and what all share."""
    assert breaches(room_of(path), path.read_text()) == []


PARTED = [
    pytest.param(room, part, path, id=str(path.relative_to(SERVICE)))
    for room, parts in PARTS.items()
    for part in parts
    for path in sorted((SERVICE / room / part).glob("*.py"))
]


@pytest.mark.parametrize(("room", "part", "path"), PARTED)
def test_folders_of_a_room_are_layers(room: str, part: str, path: Path) -> None:
    """A conversation knows nothing of operations, and what routers have in common nothing of a router."""
    assert part_breaches(room, part, path.read_text()) == []


def test_every_folder_of_a_room_has_rules() -> None:
    """A new folder does not slip past the rules."""
    folders = {
        (path.parent.parent.name, path.parent.name)
        for room in ALLOWED
        for path in (SERVICE / room).glob("*/__init__.py")
    }
    assert folders == {(room, part) for room, parts in PARTS.items() for part in parts}


@pytest.mark.parametrize(
    ("room", "part", "source"),
    [
        ("runner", "conversation", "from service.runner.operations.table import Operation"),
        ("runner", "bash", "from service.runner.ownership.host import Host"),
        ("blueprints", "http", "from service.blueprints import conversations"),
        ("blueprints", "streams", "from service.blueprints.openai.run import Run"),
    ],
)
def test_a_breach_between_folders_is_seen(room: str, part: str, source: str) -> None:
    """The rule above finds what it is there to find."""
    assert len(part_breaches(room, part, source)) == 1


@PATHS
def test_file_is_not_long(path: Path) -> None:
    """No file outgrows what can be read at a sitting; split by noun before this fails."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_folder_is_a_room_with_rules() -> None:
    """A new folder does not slip past the rules."""
    folders = {path.name for path in SERVICE.iterdir() if any(path.glob("*.py"))}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("store", "from service.pubsub.envelope import encode"),
        ("pubsub", "from service.store import event_log"),
        ("pubsub", "import service.catalog.keys"),
        ("catalog", "from service.settings import Settings"),
        ("requests", "from service.runner.ownership.host import Host"),
        ("runner", "from service.blueprints import shell"),
        ("blueprints", "def late() -> None:\n    from service.runner.wire.schemas import sdk_schemas"),
        ("blueprints", "def late() -> None:\n    import openhands.sdk"),
        ("redis_source", "from litellm import completion"),
        ("settings", "from service.blueprints import auth"),
        ("runner", "from . import host"),
        ("app", "from openhands.sdk import LLM"),
        ("app", "from tests.waiting import wait_until"),
    ],
)
def test_a_breach_is_seen(room: str, source: str) -> None:
    """The walk above finds what it is there to find."""
    assert len(breaches(room, source)) == 1


WEB_ROLE = """
import asyncio, json, sys
from pathlib import Path
import httpx
from service.app import create_app
from service.settings import Settings
from tests.live_app import LiveApp

async def main(directory):
    settings = Settings(conversations_path=directory / "conversations", workspace_path=directory / "workspace")
    server = LiveApp(create_app(settings, embedded_runner=False))
    await server.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        alive = await client.get(server.make_url("/alive"))
    await server.stop()
    sdk = sorted(name for name in sys.modules if name.split(".")[0] in ("openhands", "litellm"))
    print(json.dumps({"alive": alive.status_code, "sdk": sdk}))

asyncio.run(main(Path(sys.argv[1])))
"""


def test_web_role_answers_without_the_sdk(tmp_path: Path) -> None:
    """The web role alone starts, answers, and has imported nothing of the SDK."""
    process = subprocess.run(
        [sys.executable, "-c", WEB_ROLE, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == {"alive": 200, "sdk": []}
