"""Skills, plugins, hooks and sub-agents: what is found, installed, and offered, without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server_process import Server

JsonObject = dict[str, Any]


def write_skill(folder: Path, name: str, description: str = "what it is for") -> Path:
    """A skill in the AgentSkills format."""
    directory = folder / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "SKILL.md").write_text(f"---\nname: {name}\ndescription: {description}\n---\nDo it like this.\n")
    return directory


def write_plugin(folder: Path, name: str, **manifest: Any) -> Path:
    directory = folder / name
    (directory / ".plugin").mkdir(parents=True)
    content = {"name": name, "version": "1.2.0", "description": "a bundle", **manifest}
    (directory / ".plugin" / "plugin.json").write_text(json.dumps(content))
    write_skill(directory / "skills", f"{name}-skill")
    return directory


@pytest.fixture(scope="module", autouse=True)
def catalog(server: Server) -> Iterator[Path]:
    """The public catalog as a copy on this disk."""
    root = server.directory / "extensions"
    write_skill(root / "skills", "public-skill")
    write_plugin(root / "plugins", "public-plugin")
    (root / "marketplaces").mkdir()
    entries = [
        {"name": "public-skill", "source": "./skills/public-skill", "description": "a skill"},
        {"name": "public-plugin", "source": "./plugins/public-plugin", "description": "a plugin"},
        {"name": "elsewhere", "source": {"source": "github", "repo": "o/r", "ref": "v1", "path": "plugins/p"}},
    ]
    listed = {"name": "public", "owner": {"name": "tests"}, "plugins": entries}
    (root / "marketplaces" / "default.json").write_text(json.dumps(listed))
    yield root
    root.rename(root.with_name("extensions-gone"))


def posted(http: httpx.Client, path: str, content: object) -> JsonObject:
    found: JsonObject = http.post(path, json=content).raise_for_status().json()
    return found


def names(found: list[JsonObject]) -> set[str]:
    return {each["name"] for each in found}


# Skills


def test_skills_of_every_source(http: httpx.Client, server: Server, project: Path) -> None:
    home = server.directory / "home"
    write_skill(home / ".openhands" / "skills", "of-the-user")
    write_skill(home / ".agents" / "skills", "shared-name", "the user's")
    write_skill(project / ".openhands" / "skills", "shared-name", "the project's")
    exposed = [
        {"name": "WORKER_1", "url": "http://work.example:1", "port": 1},
        {"name": "VSCODE", "url": "http://code.example", "port": 2},
    ]
    found = posted(http, "/api/skills", {"project_dir": str(project), "sandbox_config": {"exposed_urls": exposed}})
    skills = {skill["name"]: skill for skill in found["skills"]}
    assert {"public-skill", "of-the-user", "shared-name", "work_hosts"} <= skills.keys()
    assert skills["shared-name"]["description"] == "the project's"
    assert skills["of-the-user"].keys() == {
        "name", "type", "content", "triggers", "source", "description",
        "is_agentskills_format", "disable_model_invocation",
    }  # fmt: skip
    assert "work.example" in skills["work_hosts"]["content"]
    assert "code.example" not in skills["work_hosts"]["content"]
    counts = found["sources"]
    assert (counts["sandbox"], counts["project"], counts["org"], counts["registered_marketplaces"]) == (1, 1, 0, 0)
    assert counts["sdk_base"] >= 3


def test_sources_can_be_left_out(http: httpx.Client, project: Path) -> None:
    write_skill(project / ".openhands" / "skills", "of-the-project")
    nothing = {"load_public": False, "load_user": False, "load_project": False, "load_org": False}
    assert posted(http, "/api/skills", nothing | {"project_dir": str(project)})["skills"] == []
    only = posted(http, "/api/skills", nothing | {"load_project": True, "project_dir": str(project)})
    assert names(only["skills"]) == {"of-the-project"}


def test_profile_chooses_among_public_skills(http: httpx.Client, server: Server) -> None:
    """Those of the user stay, also one that has a public skill's name."""
    own = server.directory / "home" / ".agents" / "skills"
    write_skill(own, "kept-anyway")
    http.post("/api/profiles/some", json={"llm": {"model": "openai/some", "api_key": "none"}}).raise_for_status()
    draft = {"agent_kind": "openhands", "llm_profile_ref": "some", "public_skills": []}

    def resolved() -> set[str]:
        return set(posted(http, "/api/agent-profiles/draft/materialize", {"profile": draft})["resolved_skills"])

    chosen = resolved()
    assert "kept-anyway" in chosen
    assert "public-skill" not in chosen
    draft["public_skills"] = ["public-skill"]
    assert resolved() == chosen | {"public-skill"}
    draft["public_skills"] = []
    write_skill(own, "public-skill", "the user's")
    assert "public-skill" in resolved()
    shutil.rmtree(own / "public-skill")


def test_skills_of_an_organization_and_of_a_marketplace(http: httpx.Client, tmp_path: Path) -> None:
    organization = tmp_path / "organization"
    write_skill(organization / "skills", "of-the-organization")
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one"],
    ):
        subprocess.run(["git", *command], cwd=organization, check=True)
    market = tmp_path / "market"
    write_skill(market / "skills", "of-the-market")
    (market / ".plugin").mkdir()
    plugin = write_plugin(market / "plugins", "bundle")
    (plugin / "commands").mkdir()
    (plugin / "commands" / "greet.md").write_text("---\ndescription: greets\n---\nHello\n")
    skill = {"name": "of-the-market", "source": "./skills/of-the-market"}
    (market / ".plugin" / "marketplace.json").write_text(
        json.dumps(
            {
                "name": "market",
                "owner": {"name": "t"},
                "skills": [skill],
                "plugins": [{"name": "bundle", "source": "./plugins/bundle"}, {"name": "lost", "source": "./lost"}],
            }
        )
    )

    def found(auto_load: object, **wanted: object) -> set[str]:
        content = {
            "load_user": False,
            "org_configs": [
                {"repository": "o/r", "provider": "github", "org_repo_url": f"file://{organization}", "org_name": "o"}
            ],
            "registered_marketplaces": [
                {"name": "market", "source": str(market), "auto_load": auto_load},
                {"name": "gone", "source": str(tmp_path / "gone"), "auto_load": True},
            ],
        }
        return names(posted(http, "/api/skills", content | wanted)["skills"]) - {"public-skill"}

    bundled = {"bundle-skill", "bundle:greet"}
    assert found(True) == {"of-the-organization", "of-the-market"} | bundled
    assert found(["bundle"]) == {"of-the-organization"} | bundled
    assert found(True, load_public=False) == {"of-the-organization"}


def test_catalog_names_the_origin(http: httpx.Client, server: Server) -> None:
    write_skill(server.directory / "home" / ".openhands" / "skills", "own-skill")
    origins = {skill["name"]: skill["origin"] for skill in http.get("/api/skills/catalog").json()["skills"]}
    assert origins.items() >= {"public-skill": "public", "own-skill": "user"}.items()


def test_sync_says_how_it_went(http: httpx.Client) -> None:
    assert posted(http, "/api/skills/sync", {})["status"] == "success"


def test_skill_is_installed_changed_and_removed(http: httpx.Client, tmp_path: Path) -> None:
    source = write_skill(tmp_path, "my-skill")
    wanted = {"source": str(source)}
    made = posted(http, "/api/skills/install", wanted)
    assert made.keys() == {
        "name", "version", "description", "enabled", "source", "resolved_ref", "repo_path", "installed_at",
        "install_path",
    }  # fmt: skip
    assert (made["name"], made["enabled"], made["source"]) == ("my-skill", True, str(source))
    one = "/api/skills/installed/my-skill"
    assert http.get(one).json() == made
    assert made in http.get("/api/skills/installed").json()["skills"]
    assert "my-skill" in names(posted(http, "/api/skills", {})["skills"])

    assert http.post("/api/skills/install", json=wanted).status_code == 409
    assert http.patch(one, json={"enabled": False}).json() == {"name": "my-skill", "enabled": False}
    assert "my-skill" not in names(posted(http, "/api/skills", {})["skills"])

    write_skill(tmp_path, "my-skill", "now for something else")
    refreshed = posted(http, f"{one}/refresh", {})
    assert (refreshed["skill"]["description"], refreshed["skill"]["enabled"]) == ("now for something else", False)
    source.rename(tmp_path / "moved")
    assert http.post(f"{one}/refresh").status_code == 400
    assert http.get(one).json()["description"] == "now for something else"

    assert http.delete(one).status_code == 200
    assert [http.request(method, one).status_code for method in ("GET", "DELETE")] == [404, 404]
    assert http.patch(one, json={"enabled": True}).status_code == 404
    assert http.post(f"{one}/refresh").status_code == 404


def test_what_cannot_be_installed_is_refused(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for content, status in (
        ({"source": str(tmp_path / "nowhere")}, 400),
        ({"source": f"file://{tmp_path}/no-repository"}, 400),
        ({"source": str(tmp_path / "empty")}, 422),
        ({"source": ""}, 422),
        ({}, 422),
    ):
        response = http.post("/api/skills/install", json=content)
        assert (response.status_code, content) == (status, content)
        assert response.json()["detail"]


@pytest.mark.parametrize("kind", ["skills", "plugins"])
def test_installed_names_are_in_kebab_case(http: httpx.Client, kind: str) -> None:
    for method in ("GET", "DELETE"):
        assert http.request(method, f"/api/{kind}/installed/Not_A_Name").status_code == 422


def test_wrong_marketplace_is_told_by_its_place(http: httpx.Client) -> None:
    wrong = {"name": "m", "source": "/m", "repo_path": "../out"}
    answer = http.post("/api/skills", json={"registered_marketplaces": [wrong]})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "registered_marketplaces", 0, "repo_path"]


def test_offered_skill_can_be_installed_as_offered(http: httpx.Client) -> None:
    [offered] = http.get("/api/skills/marketplace").json()["skills"]
    assert (offered["name"], offered["description"], offered["installed"]) == ("public-skill", "a skill", False)
    posted(http, "/api/skills/install", {"source": offered["source"]})
    assert http.get("/api/skills/marketplace").json()["skills"][0]["installed"] is True
    http.delete("/api/skills/installed/public-skill").raise_for_status()


def test_reads_write_nothing(http: httpx.Client, server: Server) -> None:
    """Also where somebody has copied a skill by hand, which the SDK would note down."""
    installed = server.directory / "home" / ".openhands" / "skills" / "installed"
    copied = write_skill(installed, "copied-skill")
    before = {path: path.stat().st_mtime_ns for path in installed.rglob("*")}
    assert http.get("/api/skills/installed/copied-skill").json()["source"] == "local"
    assert "copied-skill" in names(http.get("/api/skills/installed").json()["skills"])
    assert {path: path.stat().st_mtime_ns for path in installed.rglob("*")} == before
    assert http.post("/api/skills/installed/copied-skill/refresh").status_code == 400
    assert http.get("/api/skills/installed/copied-skill").status_code == 200
    http.delete("/api/skills/installed/copied-skill").raise_for_status()
    assert not copied.exists()


# Plugins


def test_plugin_is_installed_changed_and_removed(http: httpx.Client, tmp_path: Path) -> None:
    source = write_plugin(tmp_path, "my-plugin")
    (source / "commands").mkdir()
    (source / "commands" / "greet.md").write_text("---\ndescription: greets\n---\nHello\n")
    made = posted(http, "/api/plugins/install", {"source": str(source)})
    assert (made["name"], made["version"]) == ("my-plugin", "1.2.0")
    assert names(made["skills"]) == {"my-plugin-skill", "my-plugin:greet"}
    assert ".plugin/plugin.json" in made["files"]
    one = "/api/plugins/installed/my-plugin"
    assert http.get(one).json() == made
    assert http.get("/api/plugins/installed").json()["plugins"] == [made]
    assert names(posted(http, "/api/plugins", {})["plugins"]) == {"my-plugin"}
    assert http.patch(one, json={"enabled": False}).json() == {"name": "my-plugin", "enabled": False}
    assert posted(http, "/api/plugins", {})["plugins"] == []
    assert posted(http, f"{one}/refresh", {})["plugin"]["enabled"] is False
    assert http.post("/api/plugins/install", json={"source": str(source)}).status_code == 409
    assert http.delete(one).status_code == 200
    assert http.get(one).status_code == 404


def test_plugins_of_a_project(http: httpx.Client, project: Path) -> None:
    write_plugin(project / ".openhands" / "plugins", "of-the-project")
    [plugin] = posted(http, "/api/plugins", {"project_dir": str(project)})["plugins"]
    assert plugin.keys() == {"name", "version", "description", "path", "skills", "files"}
    assert plugin["name"] == "of-the-project"
    assert posted(http, "/api/plugins", {"project_dir": str(project), "load_project": False})["plugins"] == []


def test_offered_plugin_shows_what_is_in_it(http: httpx.Client) -> None:
    offered, elsewhere = http.get("/api/plugins/marketplace").json()["plugins"]
    assert (offered["name"], offered["installed"]) == ("public-plugin", False)
    assert names(offered["skills"]) == {"public-plugin-skill"}
    assert [elsewhere[key] for key in ("source", "ref", "repo_path", "path")] == ["github:o/r", "v1", "plugins/p", None]
    posted(http, "/api/plugins/install", {"source": offered["source"]})
    assert http.get("/api/plugins/marketplace").json()["plugins"][0]["installed"] is True
    http.delete("/api/plugins/installed/public-plugin").raise_for_status()


def test_plugin_on_the_machine_is_described(http: httpx.Client, tmp_path: Path) -> None:
    """Without a network, and without installing it."""
    manifest = tmp_path / ".claude-plugin" / "plugin.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"name": "local", "version": "1.0.0", "description": "Here."}))
    told = posted(http, "/api/plugins/fetch", {"source": str(tmp_path)})
    assert (told["manifest"]["name"], told["source"], told["resolved_ref"]) == ("local", str(tmp_path), None)
    assert "local" not in [plugin["name"] for plugin in http.get("/api/plugins/installed").json()["plugins"]]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        ({"source": "https://${TOKEN}@git.example/x"}, 422, "missing_secret"),
        ({"source": "/some/path"}, 422, "invalid_plugin"),
        ({"source": "file:///some/path"}, 502, "source_unavailable"),
        ({"source": "http://127.0.0.1:1/${NAME}.git", "secrets": {"NAME": "x"}}, 502, "source_unavailable"),
    ],
)
def test_fetch_says_why_not(http: httpx.Client, content: JsonObject, status: int, code: str) -> None:
    response = http.post("/api/plugins/fetch", json=content)
    assert (response.status_code, response.json()["detail"]["code"]) == (status, code)
    assert response.json()["detail"]["message"]


@pytest.mark.parametrize("content", [{}, {"source": "x", "timeout": 0}, {"source": "x", "timeout": 601}])
def test_fetch_of_nothing_is_422(http: httpx.Client, content: JsonObject) -> None:
    assert http.post("/api/plugins/fetch", json=content).status_code == 422


# Hooks, sub-agents, canvas


def test_there_are_no_extensions_of_the_canvas(http: httpx.Client) -> None:
    assert http.get("/api/canvas-extensions/installed").json() == {"canvas_extensions": []}


def test_hooks_of_a_project(http: httpx.Client, project: Path) -> None:
    question = {"project_dir": str(project)}
    assert posted(http, "/api/hooks", question) == {"hook_config": None}
    path = project / ".openhands" / "hooks.json"
    path.parent.mkdir()
    path.write_text('{"pre_tool_use": [{"matcher": "terminal", "hooks": [{"command": "true"}]}]}')
    [matcher] = posted(http, "/api/hooks", question)["hook_config"]["pre_tool_use"]
    assert (matcher["matcher"], matcher["hooks"][0]["command"]) == ("terminal", "true")
    for useless in ("{}", "no json", '{"pre_tool_use": 1}'):
        path.write_text(useless)
        assert posted(http, "/api/hooks", question) == {"hook_config": None}
    assert posted(http, "/api/hooks", {}) == {"hook_config": None}


def test_sub_agents_first_wins(http: httpx.Client, project: Path) -> None:
    builtin = {agent["name"]: agent for agent in posted(http, "/api/sub-agents", {})["agents"]}
    assert {"bash-runner", "code-explorer", "general-purpose"} <= builtin.keys()
    assert "web-researcher" not in builtin, "it needs a browser"
    assert {"mcp_servers", "is_builtin", "level", "system_prompt"} <= builtin["bash-runner"].keys()
    folder = project / ".agents" / "agents"
    folder.mkdir(parents=True)
    hooks = '{"stop": [{"hooks": [{"command": "true", "async": true}]}]}'
    text = f"---\nname: bash-runner\ndescription: the project's\nhooks: {hooks}\n---\nRun.\n"
    (folder / "bash-runner.md").write_text(text)
    found = posted(http, "/api/sub-agents", {"project_dir": str(project)})["agents"]
    [mine] = [agent for agent in found if agent["name"] == "bash-runner"]
    assert (mine["description"], mine["level"], mine["is_builtin"]) == ("the project's", "project", False)
    assert mine["hooks"]["stop"][0]["hooks"][0]["async"] is True
    only = {"load_user": False, "load_builtin": False, "project_dir": str(project)}
    assert names(posted(http, "/api/sub-agents", only)["agents"]) == {"bash-runner"}


@pytest.mark.parametrize("path", ["skills", "plugins", "hooks", "sub-agents"])
def test_keys_of_newer_clients_are_passed_over(http: httpx.Client, path: str) -> None:
    """As the published server does."""
    alone, with_more = (http.post(f"/api/{path}", json=content) for content in ({}, {"from_the_future": True}))
    assert (with_more.status_code, with_more.json()) == (200, alone.json())
