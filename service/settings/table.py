"""`docs/configuration.md`, rendered from Settings: `python -m service.settings.table > docs/configuration.md`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from service.settings import Settings
from service.settings.environment import environment_names, shape_of
from service.settings.loading import DEFAULT_FILE, FILE_VARIABLE
from service.settings.values import Marketplace, WebhookSpec

_PREAMBLE = f"""\
# Configuration

<!-- Generated: python -m service.settings.table > docs/configuration.md -->

Names, forms and file are those of the published OpenHands agent server, so its configuration carries over.

## Sources

From the lowest to the highest; what a higher one gives replaces the lower one's value as a whole, lists included.

1. The defaults below.
2. A JSON object in the file that `{FILE_VARIABLE}` names, or else in
   `{DEFAULT_FILE}`. Its keys are the setting names. No file is an empty one.
3. A JSON object in the variable `OH`, with the same keys.
4. The variables below.

Relative paths are below the folder the server is started in. Anything that cannot be obeyed stops the start with one
line that names it, such as `OH_MAX_CONCURRENT_RUNS: expected an integer, got 'ten'`. What is ignored is logged:
unknown keys in the file or in `OH`, list items after a gap, a file that is named and not there. Keys for the published
server's containers and telemetry are ignored silently, and so are unknown variables.

## Forms of a variable

| type | form |
|---|---|
| true/false | `1`, `true`, `yes`, `on`, or `0`, `false`, `no`, `off` and empty, in any case |
| integer, number | decimal |
| text, path, secret | as it is; where null is allowed, blank text is null, except that a blank secret stays blank |
| anything that may be null | `OH_<SETTING>_IS_NONE=1` is null, whatever else is set |
| list | `OH_X='["a", "b"]'`, or `OH_X_0=a`, `OH_X_1=b`, ... up to the first gap, or `OH_X=2` for exactly `OH_X_0` and \
`OH_X_1`. Beside a JSON list, `OH_X_1` replaces its second item; items past its end are ignored |
| list of objects | the same; an item is `OH_WEBHOOKS_0='{{"base_url": "..."}}'`, or `OH_WEBHOOKS_0_BASE_URL`, \
`OH_WEBHOOKS_0_HEADERS='{{"name": "value"}}'`, ... |

A variable without `OH_` in front that is blank counts as unset; so does a blank `OH_REDIS_URL`.

## Different from the published server (1.58) on purpose

| case | there | here |
|---|---|---|
| `yes`, `on` | false | true |
| any other text for true/false, unknown word, `docker` as runtime | false; default; containers | stops the start |
| list in the file and in variables | merged item by item, so an old key stays valid | replaced |
| no or only empty keys in `OH_SESSION_API_KEYS`, and `SESSION_API_KEY` | authentication off | the latter is the key |
| session keys numbered from 1 | authentication off | stops the start |
| session keys as a JSON list or in the file, no `secret_key` | secrets are not kept | encrypted under the first key |
| `OH_LEASE_TTL_SECONDS=0` | no leases | the default, and a line in the log |
| blank optional path, such as `OH_STATIC_FILES_PATH=` | the working folder, served to everybody | null |"""

_RANGES: tuple[tuple[type[Any], str, str], ...] = (
    (Ge, "ge", "{:g} or more"),
    (Gt, "gt", "more than {:g}"),
    (Le, "le", "up to {:g}"),
    (Lt, "lt", "less than {:g}"),
)


def render() -> str:
    """The whole page, ending in a newline."""
    items = [*_items("webhooks", WebhookSpec), *_items("registered_marketplaces", Marketplace)]
    return "\n".join([_PREAMBLE, *_sections(), *items]) + "\n"


def _sections() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        if name in Settings.SECTIONS:
            yield from ("", f"## {Settings.SECTIONS[name]}", "")
            yield from ("| setting | variable | type | default | meaning |", "|---|---|---|---|---|")
        variables = ", ".join(f"`{variable}`" for variable in environment_names(name, field))
        yield _row(f"`{name}`", variables, type_of(field), default_of(field), field.description or "")


def _items(name: str, model: type[BaseModel]) -> Iterator[str]:
    yield from ("", f"## An item of `{name}`", "", "| key | type | default | meaning |", "|---|---|---|---|")
    for key, field in model.model_fields.items():
        yield _row(f"`{key}`", type_of(field), default_of(field), field.description or "")


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def type_of(field: FieldInfo) -> str:
    """A field's type and range in words, such as `integer, 1 or more, or null`."""
    ranges = [
        text.format(getattr(mark, bound))
        for kind, bound, text in _RANGES
        for mark in field.metadata
        if isinstance(mark, kind)
    ]
    null = ["or null"] if shape_of(field.annotation).is_optional else []
    return ", ".join([_type_name(field.annotation), *ranges, *null])


def _type_name(annotation: Any) -> str:
    shape = shape_of(annotation)
    if shape.item is not None:
        return f"list of {_type_name(shape.item)}"
    if shape.model is not None or shape.is_object:
        return "object"
    if get_origin(shape.annotation) is Literal:
        return " or ".join(f"`{word}`" for word in get_args(shape.annotation))
    names = {bool: "true/false", int: "integer", float: "number", str: "text", Path: "path", SecretStr: "secret"}
    return names.get(shape.annotation) or " or ".join(_type_name(arm) for arm in get_args(shape.annotation))


def default_of(field: FieldInfo) -> str:
    """A field's default as it would stand in the file."""
    if field.is_required():
        return "required"
    default = field.default
    return f"`{default}`" if isinstance(default, Path) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    sys.stdout.write(render())
