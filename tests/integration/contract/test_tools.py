"""`/api/tools`: the tools of the runners."""

from __future__ import annotations

import httpx


def test_names_of_registered_tools(http: httpx.Client) -> None:
    """Those of every preset, so that a client need not say where they are."""
    names = http.get("/api/tools/").raise_for_status().json()
    of_presets = {"glob", "grep", "planning_file_editor", "edit", "list_directory", "read_file", "write_file"}
    assert {"terminal", "file_editor", "task_tracker"} | of_presets <= set(names)
    moved = http.get("/api/tools")
    assert (moved.status_code, moved.headers["location"]) == (307, str(http.base_url.join("/api/tools/")))


def test_catalog_says_what_a_person_needs_to_choose(http: httpx.Client) -> None:
    tools = {tool["name"]: tool for tool in http.get("/api/tools/catalog").raise_for_status().json()["tools"]}
    terminal = tools["terminal"]
    assert terminal.keys() == {"name", "user_selectable", "usable", "description", "in_default_set"}
    assert (terminal["user_selectable"], terminal["usable"], terminal["in_default_set"]) == (True, True, True)
    assert terminal["description"]
    assert tools["switch_llm"]["user_selectable"] is True


def test_tools_that_cannot_work_are_not_usable(http: httpx.Client) -> None:
    """The tests' server has its browser turned off or none installed; what is listed as usable is what it tells."""
    catalog = http.get("/api/tools/catalog").json()["tools"]
    usable = {tool["name"] for tool in catalog if tool["usable"]}
    assert set(http.get("/server_info").json()["usable_tools"]) <= usable | {"ClassifyAndSwitchLLMTool"}
