"""Sources, precedence, keys, secrets and refusals of the settings; the forms of variables have their own file."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.settings import Settings
from service.settings.environment import environment_names
from service.settings.errors import SettingsError
from service.settings.loading import DEFAULT_FILE, FILE_VARIABLE, hand_down, load_settings
from service.settings.values import WebhookSpec

SECRETS = {
    "OH_SESSION_API_KEYS_0": "hush-session",
    "OH_SECRET_KEY": "hush-cipher",
    "OH_PREVIOUS_SECRET_KEYS_0": "hush-former",
    "OH_REDIS_URL": "redis://:hush-redis@localhost",
    "OH_WEBHOOKS_0_BASE_URL": "https://user:hush-url@hooks.example",
    "OH_WEBHOOKS_0_HEADERS": '{"Authorization": "hush-header"}',
}


def write_file(directory: Path, value: Any, name: str = DEFAULT_FILE) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def refusal(environ: dict[str, str], cwd: Path) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, cwd)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _runs_in_child(settings: Settings) -> int:
    return settings.max_concurrent_runs


# Defaults and construction


def test_defaults_are_the_published_ones_and_ours(tmp_path: Path) -> None:
    """Nothing given: the documented defaults, paths below the working directory."""
    settings = load_settings({}, tmp_path)
    assert settings.conversations_path == tmp_path / "workspace/conversations"
    assert settings.workspace_path == tmp_path / "workspace/project"
    assert settings.bash_events_dir == tmp_path / "workspace/bash_events"
    assert settings.conversation_worktree_root == Path("/tmp/conversation-worktrees")
    assert (settings.max_concurrent_runs, settings.conversation_idle_ttl_seconds) == (10, 1200)
    assert (settings.lease_ttl_seconds, settings.drain_seconds, settings.request_timeout_seconds) == (10, 30, 60)
    assert (settings.fsync, settings.resume_runs, settings.preload_tools) == (True, True, True)
    assert (settings.socket_backlog_bytes, settings.event_cache_bytes) == (4 * 2**20, 64 * 2**20)
    assert (settings.auth_keys, settings.cipher_key, settings.redis_url, settings.notices) == ((), None, None, ())


def test_construction_reads_neither_environment_nor_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only load_settings looks outside."""
    monkeypatch.chdir(tmp_path)
    write_file(tmp_path, {"max_concurrent_runs": 3})
    for name in ("OH_MAX_CONCURRENT_RUNS", "MAX_CONCURRENT_RUNS", "max_concurrent_runs"):
        monkeypatch.setenv(name, "4")
    assert Settings(conversations_path=tmp_path).max_concurrent_runs == 10
    assert load_settings().max_concurrent_runs == 4


def test_construction_refuses_an_unknown_name() -> None:
    """A misspelt argument in code is an error, unlike an unknown key in a file."""
    with pytest.raises(ValidationError):
        Settings(max_concurent_runs=3)  # type: ignore[call-arg]  # the point of the test


def test_settings_are_frozen() -> None:
    """A setting cannot be changed after the start."""
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]  # the point of the test


def test_relative_paths_are_resolved_without_load_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directly constructed Settings holds absolute paths."""
    monkeypatch.chdir(tmp_path)
    settings = Settings(conversations_path="a/b")
    assert settings.conversations_path == tmp_path / "a/b"
    assert settings.workspace_path == tmp_path / "workspace/project"


def test_settings_survive_pickling() -> None:
    """A copy through pickle is equal and keeps its secrets and notices."""
    settings = load_settings({**SECRETS, "OH_LEASE_TTL_SECONDS": "0"})
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.auth_keys == ("hush-session",)
    assert copy.notices == settings.notices != ()


def test_settings_cross_a_spawned_process() -> None:
    """A worker started by spawn receives them as an argument."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_runs_in_child, (Settings(max_concurrent_runs=3),)) == 3


# Sources and precedence


def test_variable_over_whole_object_over_file_over_default(tmp_path: Path) -> None:
    """Each source yields to the next one up, key by key."""
    write_file(tmp_path, {"max_concurrent_runs": 1, "vscode_port": 9001, "port": 7001})
    environ = {"OH": '{"max_concurrent_runs": 2, "vscode_port": 9002}', "OH_MAX_CONCURRENT_RUNS": "3"}
    settings = load_settings(environ, tmp_path)
    assert (settings.max_concurrent_runs, settings.vscode_port, settings.port) == (3, 9002, 7001)


def test_file_is_found_by_variable_relative_to_cwd(tmp_path: Path) -> None:
    """The variable names another file, and the default one is not read."""
    write_file(tmp_path, {"max_concurrent_runs": 1})
    write_file(tmp_path, {"max_concurrent_runs": 5}, "etc/server.json")
    assert load_settings({FILE_VARIABLE: "etc/server.json"}, tmp_path).max_concurrent_runs == 5
    assert load_settings({FILE_VARIABLE: ""}, tmp_path).max_concurrent_runs == 1


def test_named_file_that_is_absent_is_empty_and_noticed(tmp_path: Path) -> None:
    """As on the published server it is not an error, but it is said."""
    settings = load_settings({FILE_VARIABLE: "nowhere.json"}, tmp_path)
    assert settings.max_concurrent_runs == 10
    assert settings.notices == (f"{FILE_VARIABLE}: there is no file nowhere.json",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "expected a JSON object, got a list"),
        ("null", "expected a JSON object, got null"),
        ("", "expected a JSON object, got text that is not JSON (Expecting value, line 1, column 1)"),
        ('{"a":\n 1', "expected a JSON object, got text that is not JSON (Expecting ',' delimiter, line 2, column 3)"),
    ],
)
def test_file_that_is_no_object_stops_the_start(tmp_path: Path, text: str, reason: str) -> None:
    """The line names the file."""
    write_file(tmp_path, text)
    assert refusal({}, tmp_path) == f"{DEFAULT_FILE}: {reason}"


def test_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    """A directory in its place, or bytes that are no text."""
    assert refusal({FILE_VARIABLE: "."}, tmp_path) == ".: cannot be read: Is a directory"
    (tmp_path / "x.json").write_bytes(b"\xff{}")
    assert refusal({FILE_VARIABLE: "x.json"}, tmp_path) == "x.json: expected UTF-8 text"


def test_whole_object_that_is_no_object_stops_the_start_without_showing_it(tmp_path: Path) -> None:
    """It may hold keys."""
    assert refusal({"OH": "[1]"}, tmp_path) == "OH: expected a JSON object, got a list"
    assert "hush" not in refusal({"OH": '{"secret_key": hush}'}, tmp_path)


def test_unknown_file_keys_are_ignored_and_noticed_but_the_published_servers_are_silent(tmp_path: Path) -> None:
    """A typo is visible in the log; configuration for containers and telemetry is not worth a line."""
    published = {"telemetry": {"exporter": "none"}, "conversation_image": "x", "conversation_container_cpus": 2.0}
    write_file(tmp_path, {"max_concurent_runs": 3, **published})
    settings = load_settings({"OH": '{"colour": "red"}'}, tmp_path)
    assert settings.notices == (
        f"max_concurent_runs: unknown setting, ignored (in {DEFAULT_FILE})",
        "colour: unknown setting, ignored (in OH)",
    )


def test_variable_list_replaces_file_list(tmp_path: Path) -> None:
    """An old key in the file is not valid beside a new one in the environment."""
    write_file(tmp_path, {"session_api_keys": ["f0", "f1"], "allow_cors_origins": ["http://f"]})
    environ = {
        "OH_SESSION_API_KEYS_0": "e0",
        "OH_ALLOW_CORS_ORIGINS_0": "http://a",
        "OH_ALLOW_CORS_ORIGINS_1": "http://b",
    }
    settings = load_settings(environ, tmp_path)
    assert settings.auth_keys == ("e0",)
    assert settings.allow_cors_origins == ("http://a", "http://b")
    assert load_settings({"OH_SESSION_API_KEYS": "[]"}, tmp_path).auth_keys == ()


def test_webhook_variables_replace_file_webhooks(tmp_path: Path) -> None:
    """No header of the file's webhook reaches the environment's."""
    write_file(tmp_path, {"webhooks": [{"base_url": "http://f", "headers": {"a": "b"}}, {"base_url": "http://g"}]})
    settings = load_settings({"OH_WEBHOOKS_0_BASE_URL": "http://e"}, tmp_path)
    assert settings.webhooks == (WebhookSpec(base_url="http://e"),)


def test_is_none_clears_a_file_value(tmp_path: Path) -> None:
    """A variable can say null."""
    write_file(tmp_path, {"conversation_idle_ttl_seconds": 5, "web_url": "http://h/a"})
    environ = {"OH_CONVERSATION_IDLE_TTL_SECONDS_IS_NONE": "1", "OH_WEB_URL_IS_NONE": "true", "OH_WEB_URL": "http://x"}
    settings = load_settings(environ, tmp_path)
    assert settings.conversation_idle_ttl_seconds is None
    assert settings.web_url is None


def test_what_is_handed_down_is_what_children_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment said that there is none."""
    monkeypatch.setattr(os, "environ", os.environ | {"OH_REDIS_URL_IS_NONE": "1"})
    settings = load_settings(os.environ, tmp_path)
    assert settings.redis_address is None
    handed = hand_down(settings, redis_url="unix:///s")
    assert load_settings(os.environ, tmp_path).redis_address == handed.redis_address == "unix:///s"


@pytest.mark.parametrize("form", ["file", "whole", "variables"])
def test_webhooks_arrive_in_every_source(tmp_path: Path, form: str) -> None:
    """The same two receivers, however they are written."""
    value = [{"base_url": "http://a", "headers": {"h": "v"}, "num_retries": 0}, {"base_url": "https://b"}]
    environ: dict[str, str] = {}
    if form == "file":
        write_file(tmp_path, {"webhooks": value})
    elif form == "whole":
        environ = {"OH": json.dumps({"webhooks": value})}
    else:
        environ = {
            "OH_WEBHOOKS_0_BASE_URL": "http://a",
            "OH_WEBHOOKS_0_HEADERS": '{"h": "v"}',
            "OH_WEBHOOKS_0_NUM_RETRIES": "0",
            "OH_WEBHOOKS_1": '{"base_url": "https://b"}',
        }
    first, second = load_settings(environ, tmp_path).webhooks
    assert (first.base_url, first.headers["h"].get_secret_value(), first.num_retries) == ("http://a", "v", 0)
    assert (second.base_url, second.event_buffer_size, second.flush_delay) == ("https://b", 5, 30)


# Keys


@pytest.mark.parametrize(
    ("environ", "in_file", "auth_keys", "cipher_key"),
    [
        ({"SESSION_API_KEY": "v"}, {}, ("v",), "v"),
        ({"OH_SESSION_API_KEYS_0": "", "SESSION_API_KEY": "v"}, {}, ("v",), "v"),
        ({"OH_SESSION_API_KEYS": "[]", "SESSION_API_KEY": "v"}, {}, ("v",), "v"),
        ({"OH_SESSION_API_KEYS_0": "", "OH_SESSION_API_KEYS_1": "b"}, {}, ("b",), "b"),
        ({"OH_SESSION_API_KEYS_0": "a", "SESSION_API_KEY": "v"}, {}, ("a",), "v"),
        ({"OH_SESSION_API_KEYS": '["a", "b"]'}, {}, ("a", "b"), "a"),
        ({"OH": '{"session_api_keys": ["j"]}', "SESSION_API_KEY": "v"}, {}, ("j",), "v"),
        ({}, {"session_api_keys": ["f"]}, ("f",), "f"),
        ({"SESSION_API_KEY": "v"}, {"session_api_keys": ["f"]}, ("f",), "v"),
        ({"SESSION_API_KEY": "v"}, {"session_api_keys": [""]}, ("v",), "v"),
        ({"OH_SESSION_API_KEYS_0": ""}, {"session_api_keys": ["f"]}, ("f",), "f"),
        ({"OH_SESSION_API_KEYS_0": "a", "OH_SECRET_KEY": "s"}, {}, ("a",), "s"),
        ({"OH_SESSION_API_KEYS_0": "a", "OH_SECRET_KEY": " "}, {}, ("a",), "a"),
        ({"OH_SECRET_KEY": "", "SESSION_API_KEY": "v"}, {}, ("v",), "v"),
        ({"OH_SECRET_KEY": ""}, {}, (), None),
        ({"OH_SECRET_KEY_IS_NONE": "1"}, {"secret_key": "s", "session_api_keys": ["f"]}, ("f",), "f"),
        ({"OH_SECRET_KEY": "s"}, {}, (), "s"),
        ({"SESSION_API_KEY": ""}, {}, (), None),
    ],
)
def test_keys_from_every_source(
    tmp_path: Path,
    environ: dict[str, str],
    in_file: dict[str, Any],
    auth_keys: tuple[str, ...],
    cipher_key: str | None,
) -> None:
    """No empty value turns authentication off while a key is given, and any key given encrypts."""
    write_file(tmp_path, in_file)
    settings = load_settings(environ, tmp_path)
    assert settings.auth_keys == auth_keys
    assert settings.cipher_key == cipher_key


def test_empty_keys_are_noticed(tmp_path: Path) -> None:
    """An unset variable in a template leaves a line in the log."""
    assert load_settings({"OH_SESSION_API_KEYS_0": ""}, tmp_path).notices == (
        "OH_SESSION_API_KEYS: only empty keys, ignored",
    )


def test_keys_numbered_from_one_do_not_leave_the_server_open(tmp_path: Path) -> None:
    """They would never be read."""
    line = "OH_SESSION_API_KEYS_1: is never read, since keys are numbered from 0 without a gap"
    assert refusal({"OH_SESSION_API_KEYS_1": "hush"}, tmp_path) == line
    assert load_settings({"OH_SESSION_API_KEYS_1": ""}, tmp_path).auth_keys == ()


@pytest.mark.parametrize("name", ["OH_SESSION_API_KEYS_0", "SESSION_API_KEY"])
def test_key_of_spaces_stops_the_start(tmp_path: Path, name: str) -> None:
    """No header could ever match it."""
    assert refusal({name: "  "}, tmp_path) == f"{name}: expected a key, got only spaces"


def test_directly_constructed_keys_drop_empty_ones() -> None:
    """The same rule without load_settings."""
    settings = Settings(session_api_keys=["", "a"], previous_secret_keys=["", "p"])
    assert (settings.auth_keys, settings.cipher_key, settings.previous_cipher_keys) == (("a",), "a", ("p",))


def test_blank_secret_key_stays_visible_as_blank(tmp_path: Path) -> None:
    """A dormant server answers differently to a blank init key than to none."""
    blank = load_settings({"OH_SECRET_KEY": ""}, tmp_path).secret_key
    assert blank is not None
    assert blank.get_secret_value() == ""


# Secrets stay secret


def test_no_secret_in_any_printed_form(tmp_path: Path) -> None:
    """repr, str, dump and JSON hide every secret; the properties give them in clear."""
    settings = load_settings(SECRETS, tmp_path)
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(exclude={"webhooks": {"__all__": {"base_url"}}}),
    ):
        assert "hush" not in text
    assert settings.redis_address == "redis://:hush-redis@localhost"
    assert settings.webhooks[0].headers["Authorization"].get_secret_value() == "hush-header"


@pytest.mark.parametrize(
    "environ",
    [
        {"OH_SESSION_API_KEYS": "hush"},
        {"OH_SESSION_API_KEYS": '{"hush": 1}'},
        {"OH_SESSION_API_KEYS": '[["hush"]]'},
        {"OH_PREVIOUS_SECRET_KEYS": '"hush"'},
        {"OH": '{"secret_key": ["hush"]}'},
        {"OH": '{"session_api_keys": "hush"}'},
        {"OH_REDIS_URL": "hush"},
        {"OH_WEBHOOKS_0": "hush"},
        {"OH_WEBHOOKS": '["hush"]'},
        {"OH_WEBHOOKS": '[{"headers": {"a": "hush"}}]'},
        {"OH_WEBHOOKS_0_BASE_URL": "hush", "OH_WEBHOOKS_0_HEADERS": '{"a": "hush"}'},
        {"OH_WEBHOOKS_0_BASE_URL": "http://a", "OH_WEBHOOKS_0_HEADERS": "hush"},
        {"OH_WEBHOOKS_0_BASE_URL": "http://a", "OH_WEBHOOKS_0_HEADERS": '{"a": ["hush"]}'},
        {**SECRETS, "OH_PORT": "x"},
    ],
)
def test_no_secret_in_a_refusal(tmp_path: Path, environ: dict[str, str]) -> None:
    """Neither the line nor a printed traceback quotes a value that may be secret."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ, tmp_path)
    assert "hush" not in str(caught.value)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


# Refusals


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"OH_MAX_CONCURRENT_RUNS": "ten"}, "OH_MAX_CONCURRENT_RUNS: expected an integer, got 'ten'"),
        ({"OH_MAX_CONCURRENT_RUNS": ""}, "OH_MAX_CONCURRENT_RUNS: expected an integer, got ''"),
        ({"OH_MAX_CONCURRENT_RUNS": "0"}, "OH_MAX_CONCURRENT_RUNS: expected 1 or more, got '0'"),
        (
            {"OH_CONVERSATION_IDLE_TTL_SECONDS": "null"},
            "OH_CONVERSATION_IDLE_TTL_SECONDS: expected a number, got 'null'",
        ),
        ({"OH_CONVERSATION_IDLE_TTL_SECONDS": "0"}, "OH_CONVERSATION_IDLE_TTL_SECONDS: expected more than 0, got '0'"),
        ({"OH_DRAIN_SECONDS": "inf"}, "OH_DRAIN_SECONDS: expected a finite number, got 'inf'"),
        ({"OH_VSCODE_PORT": "65536"}, "OH_VSCODE_PORT: expected 65535 or less, got '65536'"),
        ({"OH_LEASE_TTL_SECONDS": "0.5"}, "OH_LEASE_TTL_SECONDS: expected 1 or more, got '0.5'"),
        ({"OH_BASH_EVENTS_RETENTION_SECONDS": "0"}, "OH_BASH_EVENTS_RETENTION_SECONDS: expected more than 0, got '0'"),
        (
            {"OH_FSYNC": "maybe"},
            "OH_FSYNC: expected true or false (1, true, yes, on, 0, false, no, off or empty), got 'maybe'",
        ),
        (
            {"OH_ACP_SKILL_SOURCING": "both"},
            "OH_ACP_SKILL_SOURCING: expected 'native' or 'openhands_managed', got 'both'",
        ),
        (
            {"OH_CONVERSATION_RUNTIME": "docker"},
            "OH_CONVERSATION_RUNTIME: expected 'local', got 'docker': "
            "this server does not run conversations in containers",
        ),
        ({"OH_CONVERSATION_RUNTIME": "pod"}, "OH_CONVERSATION_RUNTIME: expected 'local', got 'pod'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL: expected 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL', got 'LOUD'"),
        (
            {"OH_ALLOW_CORS_ORIGIN_REGEX": "("},
            "OH_ALLOW_CORS_ORIGIN_REGEX: expected a regular expression: "
            "missing ), unterminated subpattern at position 0",
        ),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL: expected a redis://, rediss:// or unix:// URL"),
        ({"OH_CONVERSATIONS_PATH": ""}, "OH_CONVERSATIONS_PATH: expected a path, got empty text"),
        ({"OH_WEBHOOKS_0_FLUSH_DELAY": "1"}, "OH_WEBHOOKS_0_BASE_URL: is missing"),
        ({"OH_WEBHOOKS_0_URL": "http://a"}, "OH_WEBHOOKS_0_BASE_URL: is missing"),
        (
            {"OH_WEBHOOKS_0_BASE_URL": "http://a", "OH_WEBHOOKS_0_FLUSH_DELAY": "soon"},
            "OH_WEBHOOKS_0_FLUSH_DELAY: expected a number, got 'soon'",
        ),
        (
            {"OH_WEBHOOKS_0_BASE_URL": "ftp://a"},
            "OH_WEBHOOKS_0_BASE_URL: expected an http:// or https:// URL",
        ),
        (
            {"OH_WEBHOOKS": '[{"base_url": "http://a", "num_retries": -1}]'},
            "OH_WEBHOOKS[0].num_retries: expected 0 or more, got -1",
        ),
        (
            {"OH_WEBHOOKS_0": '{"base_url": "http://a", "flush_delay": 0}'},
            "OH_WEBHOOKS_0.flush_delay: expected more than 0, got 0",
        ),
        ({"OH_SESSION_API_KEYS": "[1]"}, "OH_SESSION_API_KEYS[0]: expected text, got a number"),
        ({"OH": '{"max_concurrent_runs": null}'}, "max_concurrent_runs: expected an integer, got null (in OH)"),
        ({"OH": '{"max_concurrent_runs": true}'}, "max_concurrent_runs: expected a number, got true or false (in OH)"),
        ({"OH": '{"max_concurrent_runs": 1.5}'}, "max_concurrent_runs: expected an integer, got 1.5 (in OH)"),
        ({"OH": '{"webhooks": {}}'}, "webhooks: expected a list, got an object (in OH)"),
        ({"OH": '{"webhooks": [{}]}'}, "webhooks[0].base_url: is missing (in OH)"),
        ({"OH": '{"conversations_path": 5}'}, "conversations_path: expected a path, got a number (in OH)"),
        (
            {"OH": '{"fsync": []}'},
            "fsync: expected true or false (1, true, yes, on, 0, false, no, off or empty), got a list (in OH)",
        ),
    ],
)
def test_bad_value_stops_the_start_with_a_line_naming_it(tmp_path: Path, environ: dict[str, str], line: str) -> None:
    """One line, the key as it was written, what was expected, what came."""
    assert refusal(environ, tmp_path) == line


def test_bad_file_value_names_key_and_file(tmp_path: Path) -> None:
    """The key alone would send the reader to the environment."""
    write_file(tmp_path, {"max_concurrent_runs": "ten"}, "x.json")
    line = "max_concurrent_runs: expected an integer, got 'ten' (in x.json)"
    assert refusal({FILE_VARIABLE: "x.json"}, tmp_path) == line


def test_bad_file_value_under_a_good_variable_does_not_matter(tmp_path: Path) -> None:
    """A value that is replaced is not judged."""
    write_file(tmp_path, {"max_concurrent_runs": "ten"})
    assert load_settings({"OH_MAX_CONCURRENT_RUNS": "2"}, tmp_path).max_concurrent_runs == 2


def test_long_and_multiline_values_stay_on_one_short_line(tmp_path: Path) -> None:
    """A value pasted by mistake does not flood the terminal."""
    line = refusal({"OH_PORT": "a\nb" * 1000}, tmp_path)
    assert len(line) < 150
    key_of_two_lines = {"webhooks": [{"base_url": "http://a", "headers": {"a\nb": 1}}]}
    line = refusal({"OH": json.dumps(key_of_two_lines)}, tmp_path)
    assert line == "webhooks[0].headers.a b: expected text, got a number (in OH)"


def test_settings_error_has_key_and_reason_and_survives_pickling() -> None:
    """The command line prints it; a supervisor may carry it across processes."""
    error = pickle.loads(pickle.dumps(SettingsError("OH_X", "is wrong")))
    assert (error.key, error.reason, str(error)) == ("OH_X", "is wrong", "OH_X: is wrong")
    assert isinstance(error, ValueError)


# Single meanings


@pytest.mark.parametrize("text", ["0", "0.0"])
def test_lease_of_zero_means_the_default_and_is_noticed(tmp_path: Path, text: str) -> None:
    """Leases cannot be turned off."""
    settings = load_settings({"OH_LEASE_TTL_SECONDS": text}, tmp_path)
    assert settings.lease_ttl_seconds == 10
    assert settings.notices == ("lease_ttl_seconds: 0 is taken for the default, 10; leases stay on",)


def test_host_is_open_only_behind_keys(tmp_path: Path) -> None:
    """Without a key only this machine is served, unless told otherwise."""
    assert load_settings({}, tmp_path).bind_host == "127.0.0.1"
    assert load_settings({"OH_SESSION_API_KEYS_0": "a"}, tmp_path).bind_host == "0.0.0.0"
    assert load_settings({"OH_HOST": "10.0.0.1", "OH_SESSION_API_KEYS_0": "a"}, tmp_path).bind_host == "10.0.0.1"


@pytest.mark.parametrize(
    ("web_url", "root_path"), [(None, ""), ("https://h", ""), ("https://h/", ""), ("https://h/rt/abc/", "/rt/abc")]
)
def test_root_path_is_the_path_of_web_url(web_url: str | None, root_path: str) -> None:
    """The prefix has no slash at its end."""
    assert Settings(web_url=web_url).root_path == root_path


def test_blank_optional_paths_and_texts_are_null(tmp_path: Path) -> None:
    """In particular the working directory is not served under /static."""
    names = ("STATIC_FILES_PATH", "PERSISTENCE_DIR", "WEB_URL", "HOST", "ALLOW_CORS_ORIGIN_REGEX", "VSCODE_BASE_PATH")
    settings = load_settings({f"OH_{name}": " " for name in names}, tmp_path)
    assert [getattr(settings, name.lower()) for name in names] == [None] * len(names)


def test_relative_paths_are_below_cwd_in_every_source(tmp_path: Path) -> None:
    """Given paths are anchored like defaults; absolute ones stay."""
    write_file(tmp_path, {"bash_events_dir": "b", "workspace_path": "/w"})
    settings = load_settings({"OH_CONVERSATIONS_PATH": "c", "OH_STATIC_FILES_PATH": "s"}, tmp_path)
    assert (settings.conversations_path, settings.bash_events_dir) == (tmp_path / "c", tmp_path / "b")
    assert (settings.static_files_path, settings.workspace_path) == (tmp_path / "s", Path("/w"))


@pytest.mark.parametrize(("text", "value"), [("100", 100.0), ("", None), ("0", None)])
def test_runtime_idle_timeout_may_be_blank_or_zero(tmp_path: Path, text: str, value: float | None) -> None:
    """Both mean that nothing stops the machine, as in the SDK."""
    assert load_settings({"OH_RUNTIME_IDLE_TIMEOUT_SECONDS": text}, tmp_path).runtime_idle_timeout_seconds == value


def test_marketplaces_load_all_nothing_or_names(tmp_path: Path) -> None:
    """`auto_load` takes a flag or a list, in variables too."""
    environ = {"OH_REGISTERED_MARKETPLACES": json.dumps([{"name": n, "source": "/s"} for n in "abc"])}
    environ |= {"OH_REGISTERED_MARKETPLACES_1_AUTO_LOAD": "true", "OH_REGISTERED_MARKETPLACES_2_AUTO_LOAD": '["x"]'}
    marketplaces = load_settings(environ, tmp_path).registered_marketplaces
    assert [marketplace.auto_load for marketplace in marketplaces] == [False, True, ("x",)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_can_be_given_by_its_variable(tmp_path: Path, name: str) -> None:
    """The documented name is read: a strange text arrives in the field, or is refused under that name."""
    variable = environment_names(name, Settings.model_fields[name])[0]
    try:
        settings = load_settings({variable: "[7]"}, tmp_path)
    except SettingsError as error:
        found = error.key
    else:
        found = variable if name in settings.model_fields_set else ""
    assert found.startswith(variable)


def test_only_the_settings_read_the_environment() -> None:
    """Whoever else names os.environ is listed here with a reason that is not reading a setting."""
    # The others pass the environment on to programs, set in it what the SDK and prometheus-client read, or look at
    # what the SDK will find there for itself.
    allowed = {
        "settings/loading.py",
        "settings/secrets.py",
        "runner/environment.py",
        "runner/extensions/skill_catalog.py",
        "metrics.py",
        "demo/own_server.py",
        "demo/play.py",
    }
    service = Path(__file__).parents[2] / "service"
    words = {"environ", "environb", "getenv"}
    users = set()
    for path in service.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        users |= {path.relative_to(service).as_posix()} if names & words else set()
    assert users <= allowed


def test_loading_does_not_import_the_sdk_or_the_web_framework() -> None:
    """Both roles and the command line read settings first."""
    code = (
        "import sys, service.settings; print(sorted({m.split('.')[0] for m in sys.modules} & {'openhands', 'sanic'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "[]"
