"""Every form in which a variable can give a value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel

from service.settings.environment import EnvironmentSource, shape_of
from service.settings.errors import SettingsError
from service.settings.loading import load_settings
from service.settings.values import Integer, WebhookSpec


def raw(**environ: str) -> dict[str, Any]:
    return EnvironmentSource(environ).read()


def origins(environ: dict[str, str], location: tuple[int | str, ...]) -> str:
    source = EnvironmentSource(environ)
    source.read()
    return source.name(location)[0]


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        raw(**environ)
    return str(caught.value)


def test_unset_variables_give_nothing() -> None:
    """The environment of a bare process holds no setting."""
    assert raw(PATH="/bin", HOME="/root", OHIO="x", OH_UNKNOWN="1") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [(t, True) for t in ("1", "true", "TRUE", "True", "yes", "on", " On ")]
    + [(t, False) for t in ("0", "false", "False", "no", "OFF", "", " ")],
)
def test_flag_words(tmp_path: Path, text: str, expected: bool) -> None:
    """Both words of every pair, in any case; empty is false."""
    assert load_settings({"OH_FSYNC": text}, tmp_path).fsync is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("1", True), ("yes", True), ("true", True), ("", False), ("0", False), ("app:*", False)]
)
def test_debug_is_false_for_other_programs_texts(tmp_path: Path, text: str, expected: bool) -> None:
    """`DEBUG=app:*` is meant for somebody else and stops nothing."""
    settings = load_settings({"DEBUG": text}, tmp_path)
    assert settings.debug is expected
    assert settings.effective_log_level == ("DEBUG" if expected else "INFO")


@pytest.mark.parametrize(("text", "value"), [("7", 7), (" 7 ", 7), ("1_000", 1000)])
def test_integer_texts(tmp_path: Path, text: str, value: int) -> None:
    """What Python takes for an integer."""
    assert load_settings({"OH_MAX_CONCURRENT_RUNS": text}, tmp_path).max_concurrent_runs == value


def test_names_without_prefix(tmp_path: Path) -> None:
    """The variables that keep their own names."""
    environ = {
        "DOCKER_HOST_ADDR": "host.internal",
        "LOG_LEVEL": "warn",
        "LOG_JSON": "true",
        "OPENHANDS_BUILD_GIT_SHA": "abc",
        "OPENHANDS_BUILD_GIT_REF": "main",
        "REDIS_URL": "redis://r",
    }
    settings = load_settings(environ, tmp_path)
    assert (settings.docker_host_addr, settings.log_level, settings.log_json) == ("host.internal", "WARNING", True)
    assert (settings.build_git_sha, settings.build_git_ref, settings.redis_address) == ("abc", "main", "redis://r")


def test_blank_shared_variables_count_as_unset() -> None:
    """`LOG_LEVEL=${LOG_LEVEL:-}` in a compose file leaves the default."""
    assert raw(LOG_LEVEL="", LOG_JSON=" ", REDIS_URL="", DEBUG="", DOCKER_HOST_ADDR="") == {}


def test_own_redis_url_wins_unless_blank() -> None:
    """OH_REDIS_URL is the more particular name."""
    assert raw(OH_REDIS_URL="redis://a", REDIS_URL="redis://b") == {"redis_url": "redis://a"}
    assert raw(OH_REDIS_URL="", REDIS_URL="redis://b") == {"redis_url": "redis://b"}


def test_is_none_wins_over_a_value_and_only_if_true() -> None:
    """A false mark changes nothing."""
    assert raw(OH_WEB_URL="x", OH_WEB_URL_IS_NONE="1") == {"web_url": None}
    assert raw(OH_WEB_URL="x", OH_WEB_URL_IS_NONE="0") == {"web_url": "x"}
    assert refusal(OH_WEB_URL_IS_NONE="perhaps").startswith("OH_WEB_URL_IS_NONE: expected true or false")


def test_is_none_of_a_setting_that_cannot_be_null_is_not_read() -> None:
    """There is nothing it could mean."""
    assert raw(OH_PORT_IS_NONE="1") == {}


def test_list_as_json() -> None:
    """One variable holds it all; an empty list is a list."""
    assert raw(OH_ALLOW_CORS_ORIGINS='["a", "b"]') == {"allow_cors_origins": ["a", "b"]}
    assert raw(OH_ALLOW_CORS_ORIGINS="[]") == {"allow_cors_origins": []}


def test_list_by_index_ends_at_the_first_gap() -> None:
    """Items after the gap are not read, and that is known."""
    environ = {f"OH_ALLOW_CORS_ORIGINS_{i}": str(i) for i in (0, 1, 3, 10)}
    source = EnvironmentSource(environ)
    assert source.read() == {"allow_cors_origins": ["0", "1"]}
    assert source.unreachable == [("OH_ALLOW_CORS_ORIGINS_10", 2), ("OH_ALLOW_CORS_ORIGINS_3", 2)]


def test_list_by_index_keeps_order_past_nine() -> None:
    """Indexes are numbers, not text."""
    environ = {f"OH_ALLOW_CORS_ORIGINS_{i}": str(i) for i in range(12)}
    assert raw(**environ) == {"allow_cors_origins": [str(i) for i in range(12)]}


def test_items_after_a_gap_are_noticed(tmp_path: Path) -> None:
    """Nobody wonders in vain why an origin is refused."""
    settings = load_settings({"OH_ALLOW_CORS_ORIGINS_1": "a"}, tmp_path)
    assert settings.notices == ("OH_ALLOW_CORS_ORIGINS_1: ignored, the list ends after 0 items",)


def test_indexed_items_replace_items_of_a_json_list() -> None:
    """By index, and never past the JSON list's end."""
    environ = {"OH_ALLOW_CORS_ORIGINS": '["a", "b"]', "OH_ALLOW_CORS_ORIGINS_1": "B", "OH_ALLOW_CORS_ORIGINS_2": "C"}
    source = EnvironmentSource(environ)
    assert source.read() == {"allow_cors_origins": ["a", "B"]}
    assert source.unreachable == [("OH_ALLOW_CORS_ORIGINS_2", 2)]


def test_list_as_a_number_of_items() -> None:
    """Exactly so many are read, and all must be there."""
    two = {"OH_ALLOW_CORS_ORIGINS_0": "a", "OH_ALLOW_CORS_ORIGINS_1": "b"}
    assert raw(OH_ALLOW_CORS_ORIGINS="1", **two) == {"allow_cors_origins": ["a"]}
    assert raw(OH_ALLOW_CORS_ORIGINS="2", **two) == {"allow_cors_origins": ["a", "b"]}
    assert raw(OH_ALLOW_CORS_ORIGINS="0", **two) == {"allow_cors_origins": []}
    assert (
        refusal(OH_ALLOW_CORS_ORIGINS="3", **two)
        == "OH_ALLOW_CORS_ORIGINS_2: is missing, and OH_ALLOW_CORS_ORIGINS announces 3 items"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected a JSON list, got text that is not JSON"),
        ("a,b", "expected a JSON list, got text that is not JSON"),
        ('"a"', "expected a JSON list, got text"),
        ("{}", "expected a JSON list, got an object"),
        ("true", "expected a JSON list, got true or false"),
        ("1.5", "expected a JSON list, got a number"),
        ("null", "expected a JSON list, got null"),
        ("-1", "expected a JSON list or a number of items, got -1"),
        ("9" * 5000, "expected a JSON list, got text that is not JSON"),
    ],
)
def test_list_that_is_none_stops_the_start(text: str, reason: str) -> None:
    """Nothing is guessed, and nothing quoted."""
    assert refusal(OH_ALLOW_CORS_ORIGINS=text) == f"OH_ALLOW_CORS_ORIGINS: {reason}"


def test_objects_by_field_over_their_own_json() -> None:
    """`OH_WEBHOOKS_0_FLUSH_DELAY` is laid over `OH_WEBHOOKS_0`."""
    environ = {"OH_WEBHOOKS_0": '{"base_url": "http://a", "flush_delay": 1}', "OH_WEBHOOKS_0_FLUSH_DELAY": "2"}
    assert raw(**environ) == {"webhooks": [{"base_url": "http://a", "flush_delay": "2"}]}


def test_single_fields_are_laid_over_an_item_of_a_json_list() -> None:
    """The item's other fields stay."""
    environ = {"OH_WEBHOOKS": '[{"base_url": "http://a", "num_retries": 1}]', "OH_WEBHOOKS_0_NUM_RETRIES": "2"}
    assert raw(**environ) == {"webhooks": [{"base_url": "http://a", "num_retries": "2"}]}


def test_a_whole_object_replaces_an_item_of_a_json_list() -> None:
    """The headers of one receiver are not sent to another."""
    environ = {
        "OH_WEBHOOKS": '[{"base_url": "http://a", "headers": {"k": "v"}}]',
        "OH_WEBHOOKS_0": '{"base_url": "http://b"}',
    }
    assert raw(**environ) == {"webhooks": [{"base_url": "http://b"}]}


def test_objects_by_number() -> None:
    """The announced number of objects is read field by field."""
    environ = {"OH_WEBHOOKS": "1", "OH_WEBHOOKS_0_BASE_URL": "http://a", "OH_WEBHOOKS_0_HEADERS": '{"k": "v"}'}
    assert raw(**environ) == {"webhooks": [{"base_url": "http://a", "headers": {"k": "v"}}]}


def test_object_that_is_no_json_object_stops_the_start() -> None:
    """For an item and for a field of an item."""
    assert refusal(OH_WEBHOOKS_0="[]") == "OH_WEBHOOKS_0: expected a JSON object, got a list"
    assert (
        refusal(OH_WEBHOOKS_0_HEADERS="a=b")
        == "OH_WEBHOOKS_0_HEADERS: expected a JSON object, got text that is not JSON"
    )


@pytest.mark.parametrize(
    ("environ", "location", "key"),
    [
        ({"OH_PORT": "x"}, ("port",), "OH_PORT"),
        ({"REDIS_URL": "x"}, ("redis_url",), "REDIS_URL"),
        ({"OH_SESSION_API_KEYS_0": "x"}, ("session_api_keys", 0), "OH_SESSION_API_KEYS_0"),
        ({"OH_SESSION_API_KEYS": '["x"]'}, ("session_api_keys", 0), "OH_SESSION_API_KEYS[0]"),
        (
            {"OH_SESSION_API_KEYS": '["x"]', "OH_SESSION_API_KEYS_0": "y"},
            ("session_api_keys", 0),
            "OH_SESSION_API_KEYS_0",
        ),
        ({"OH_WEBHOOKS": "[{}]"}, ("webhooks", 0, "base_url"), "OH_WEBHOOKS[0].base_url"),
        ({"OH_WEBHOOKS_0": "{}"}, ("webhooks", 0, "base_url"), "OH_WEBHOOKS_0.base_url"),
        ({"OH_WEBHOOKS_0_HEADERS": "{}"}, ("webhooks", 0, "base_url"), "OH_WEBHOOKS_0_BASE_URL"),
        ({"OH_WEBHOOKS_0_HEADERS": "{}"}, ("webhooks", 0, "headers", "a"), "OH_WEBHOOKS_0_HEADERS.a"),
    ],
)
def test_a_value_is_called_as_its_author_wrote_it(
    environ: dict[str, str], location: tuple[int | str, ...], key: str
) -> None:
    """The longest variable that holds it, and the JSON path inside."""
    assert origins(environ, location) == key


@pytest.mark.parametrize(
    ("annotation", "bare", "is_optional", "item", "model"),
    [
        (int, int, False, None, None),
        (Integer, int, False, None, None),
        (Integer | None, int, True, None, None),
        (Annotated[Annotated[str, 1] | None, 2], str, True, None, None),
        (tuple[str, ...], tuple[str, ...], False, str, None),
        (WebhookSpec | None, WebhookSpec, True, None, WebhookSpec),
        (Literal["a", "b"], Literal["a", "b"], False, None, None),
    ],
)
def test_shape_of_annotations(
    annotation: Any, bare: Any, is_optional: bool, item: Any, model: type[BaseModel] | None
) -> None:
    """`Annotated` and `| None` are looked through, however nested."""
    shape = shape_of(annotation)
    assert (shape.annotation, shape.is_optional, shape.item, shape.model) == (bare, is_optional, item, model)


def test_union_of_several_types_is_a_scalar() -> None:
    """Its own validator sorts it out."""
    shape = shape_of(bool | tuple[str, ...] | None)
    assert (shape.item, shape.model, shape.is_object, shape.is_optional) == (None, None, False, True)
