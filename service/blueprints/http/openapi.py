"""The OpenAPI document: `documented` on a handler says what it takes and gives, `OpenApiDocument` puts it together.

Plugged into sanic-ext (see `documentation`), but without its builder. In version 25.12 its registries belong
to the process, so a second app empties the first one's paths; its `body` decorator adds a wrapper to every request; its
definitions take 15 ms for each operation, on the loop that serves. The document is 3.1, whose schemas are JSON Schema
as pydantic writes them; sanic-ext writes 3.0.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import ujson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from sanic import Sanic
from sanic_ext.utils.route import clean_route_name
from sanic_routing.route import Route

from service.blueprints.http.auth import HEADER
from service.blueprints.http.schemas import ERROR_SCHEMAS, REF_TEMPLATE, complete, hoisted
from service.errors import JsonObject

Shape = str | type[BaseModel] | JsonObject | None
"""A schema: the name of one of the SDK's models, a model of ours, or JSON Schema itself."""

VERSION = "3.1.0"
_ATTRIBUTE = "__documentation__"
_DOCUMENTED_PREFIXES = ("/api/", "/v1/")
_UUID_NAMES = frozenset({"conversation_id", "runtime_conversation_id"})
_PATH_PARAMETER = re.compile(r"<(\w+)(?::[^>]*)?>")
_KEY_SCHEME = "APIKeyHeader"


@dataclass(frozen=True, slots=True, kw_only=True)
class documented:
    """What a handler takes and gives; `@documented(...)` below the route's decorator says it.

    `body`, `response`: a name such as "ConversationInfo" (the SDK's schema, from a runner), a pydantic model, JSON
    Schema, or None for no content. Handlers under /api/ and /v1/ that carry no description appear with what the route
    tells; others do not appear.
    """

    summary: str = ""
    description: str = ""
    body: Shape = None
    query: type[BaseModel] | None = None
    response: Shape = None
    status: int = 200
    errors: Sequence[int] = ()
    error: Shape = None
    """Of every error; None: those of the contract."""
    media_type: str = "application/json"
    """Of the response."""
    deprecated: bool = False
    hidden: bool = False

    def __call__[Handler: Callable[..., Any]](self, handler: Handler) -> Handler:
        """The handler itself, so that a call of it costs nothing more."""
        setattr(handler, _ATTRIBUTE, self)
        return handler


def array_of(item: str | type[BaseModel], *, with_nulls: bool = False) -> JsonObject:
    """The schema of a list; with `with_nulls` it may say null in an item's place."""
    reference = _reference(item if isinstance(item, str) else item.__name__)
    return {"type": "array", "items": {"anyOf": [reference, {"type": "null"}]} if with_nulls else reference}


class OpenApiDocument:
    """The document of one app, kept as bytes until the SDK's schemas or the prefix change."""

    def __init__(self, app: Sanic[Any, Any], title: str, version: str) -> None:
        self._app = app
        self._title = title
        self._version = version
        self._base: JsonObject | None = None
        self._rendered: tuple[Mapping[str, JsonObject], str, bytes] | None = None

    def render(self, sdk_schemas: Mapping[str, JsonObject], root_path: str) -> bytes:
        """The document in JSON. `sdk_schemas`: name to JSON Schema; a name nobody knows yet is an open object."""
        if self._rendered is not None:
            schemas, prefix, content = self._rendered
            if schemas is sdk_schemas and prefix == root_path:
                return content
        content = ujson.dumps(self.document(sdk_schemas, root_path), escape_forward_slashes=False).encode()
        self._rendered = (sdk_schemas, root_path, content)
        return content

    def document(self, sdk_schemas: Mapping[str, JsonObject], root_path: str) -> JsonObject:
        """The document as a fresh object."""
        if self._base is None:
            self._base = self._build()
        base = self._base
        schemas = {**hoisted(sdk_schemas), **base["components"]["schemas"]}
        components = {**base["components"], "schemas": complete(schemas, base["paths"])}
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        return {**base, **servers, "components": components}

    def _build(self) -> JsonObject:
        """All but the SDK's schemas. Routes are final once the app has started."""
        paths: dict[str, JsonObject] = {}
        models: dict[type[BaseModel], None] = {}
        for route, what in sorted(_described_routes(self._app), key=lambda found: found[0].path):
            models.update(dict.fromkeys(_models(what)))
            operations = paths.setdefault(path_of(route), {})
            for method in sorted(route.methods):
                operations[method.lower()] = _operation(route, method, what)
        tags = sorted({tag for operations in paths.values() for found in operations.values() for tag in found["tags"]})
        return {
            "openapi": VERSION,
            "info": {"title": self._title, "version": self._version},
            "paths": paths,
            "tags": [{"name": tag} for tag in tags],
            "components": {
                "schemas": {**ERROR_SCHEMAS, **_model_schemas(models)},
                "securitySchemes": {_KEY_SCHEME: {"type": "apiKey", "in": "header", "name": HEADER}},
            },
        }


def _described_routes(app: Sanic[Any, Any]) -> Iterator[tuple[Route, documented]]:
    for group in app.router.groups.values():
        for route in group:
            what = getattr(route.handler, _ATTRIBUTE, None)
            if what is None and path_of(route).startswith(_DOCUMENTED_PREFIXES):
                what = documented()
            if what is not None and not what.hidden:
                yield route, what


def _operation(route: Route, method: str, what: documented) -> JsonObject:
    path = path_of(route)
    name = route.name.rpartition(".")[2]
    operation: JsonObject = {
        "tags": [_tag(route)],
        "summary": what.summary or clean_route_name(name),
        "operationId": f"{re.sub(r'\W', '_', f'{name}{path}')}_{method.lower()}",
        "parameters": [*_path_parameters(route), *_query_parameters(what.query)],
        "responses": dict(_responses(route, what)),
    }
    if what.description:
        operation["description"] = what.description
    if what.deprecated:
        operation["deprecated"] = True
    if what.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(what.body)}
    if _is_guarded(route):
        operation["security"] = [{_KEY_SCHEME: []}]
    return operation


def _responses(route: Route, what: documented) -> Iterator[tuple[str, JsonObject]]:
    success: JsonObject = {"description": HTTPStatus(what.status).phrase}
    if what.response is not None:
        success["content"] = _content(what.response, what.media_type)
    yield str(what.status), success
    for status in sorted({*what.errors, *_usual_errors(route, what)}):
        usual = "HTTPValidationError" if status == HTTPStatus.UNPROCESSABLE_ENTITY else "ErrorDetail"
        yield str(status), {"description": HTTPStatus(status).phrase, "content": _content(what.error or usual)}


def _usual_errors(route: Route, what: documented) -> Iterator[int]:
    """What follows from the shape of a request, and so is not said with each handler."""
    if _is_guarded(route):
        yield HTTPStatus.UNAUTHORIZED
    if what.body is not None or what.query is not None or _UUID_NAMES.intersection(_PATH_PARAMETER.findall(route.path)):
        yield HTTPStatus.UNPROCESSABLE_ENTITY
    if what.body is not None:
        yield HTTPStatus.BAD_REQUEST  # it is no text
        yield HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def _is_guarded(route: Route) -> bool:
    return path_of(route).startswith(_DOCUMENTED_PREFIXES)


def _path_parameters(route: Route) -> list[JsonObject]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", **({"format": "uuid"} if name in _UUID_NAMES else {})},
        }
        for name in _PATH_PARAMETER.findall(route.path)
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[JsonObject]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=REF_TEMPLATE)
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "schema": found,
            **({"description": found["description"]} if "description" in found else {}),
        }
        for name, found in schema.get("properties", {}).items()
    ]


def _content(shape: Shape, media_type: str = "application/json") -> JsonObject:
    if isinstance(shape, type):
        shape = shape.__name__
    return {media_type: {"schema": _reference(shape) if isinstance(shape, str) else shape or {}}}


def _reference(name: str) -> JsonObject:
    return {"$ref": REF_TEMPLATE.format(model=name)}


def _models(what: documented) -> list[type[BaseModel]]:
    return [shape for shape in (what.body, what.query, what.response, what.error) if isinstance(shape, type)]


def _model_schemas(models: Iterable[type[BaseModel]]) -> dict[str, JsonObject]:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=REF_TEMPLATE)
    found: dict[str, JsonObject] = schema.get("$defs", {})
    return found


def path_of(route: Route) -> str:
    """The path with `{name}` for each parameter."""
    return f"/{_PATH_PARAMETER.sub(r'{\1}', route.path)}"


def _tag(route: Route) -> str:
    """The blueprint's name, or the app's for a route without one."""
    parts = route.name.split(".")
    return str(parts[-2])
