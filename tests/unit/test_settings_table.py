"""The page of settings: complete, described, and equal to the committed file."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from service.settings import Settings
from service.settings.environment import environment_names
from service.settings.table import default_of, render, type_of
from service.settings.values import Marketplace, WebhookSpec

COMMITTED = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_committed_page_is_the_rendered_one() -> None:
    """Run `python -m service.settings.table > docs/configuration.md` after changing a setting."""
    assert COMMITTED.read_text(encoding="utf-8") == render()


@pytest.mark.parametrize("model", [Settings, WebhookSpec, Marketplace])
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    """One sentence at least, with a full stop."""
    for name, field in model.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_every_setting_has_a_row_with_its_variables() -> None:
    """Nothing can be set that is not on the page."""
    lines = render().splitlines()
    for name, field in Settings.model_fields.items():
        variables = ", ".join(f"`{variable}`" for variable in environment_names(name, field))
        assert sum(line.startswith(f"| `{name}` | {variables} |") for line in lines) == 1, name


def test_sections_begin_with_settings_in_order() -> None:
    """A renamed first field does not lose its heading, and the first setting has one."""
    names = list(Settings.model_fields)
    firsts = [name for name in names if name in Settings.SECTIONS]
    assert firsts == list(Settings.SECTIONS)
    assert firsts[0] == names[0]


def test_no_two_settings_share_a_variable() -> None:
    """Each variable means one thing."""
    variables = [v for name, field in Settings.model_fields.items() for v in environment_names(name, field)]
    assert len(variables) == len(set(variables))


@pytest.mark.parametrize(
    ("name", "words", "default"),
    [
        ("max_cluster_runs", "integer, 1 or more, or null", "`null`"),
        ("session_api_keys", "list of secret", "`[]`"),
        ("conversations_path", "path", "`workspace/conversations`"),
        ("vscode_port", "integer, 1 or more, up to 65535", "`8001`"),
        ("conversation_idle_ttl_seconds", "number, more than 0, or null", "`1200.0`"),
        ("acp_skill_sourcing", "`native` or `openhands_managed`", '`"native"`'),
        ("fsync", "true/false", "`true`"),
        ("webhooks", "list of object", "`[]`"),
    ],
)
def test_types_and_defaults_in_words(name: str, words: str, default: str) -> None:
    """Range and null are said with the type."""
    field = Settings.model_fields[name]
    assert (type_of(field), default_of(field)) == (words, default)
