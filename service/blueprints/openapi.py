"""The OpenAPI document: `documented` on a handler says what it takes and gives, `OpenApiDocument` puts it together.

Built from sanic-ext's definitions, one document per app and without its registries: those belong to the process, so a
second app would empty the first one's paths, and its `body` decorator adds a wrapper to every request (sanic-ext
25.12). The document is 3.1, whose schemas are JSON Schema as pydantic writes them; sanic-ext labels its own 3.0.3.
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
from sanic_ext.extensions.openapi import builders, definitions
from sanic_ext.utils.route import clean_route_name
from sanic_routing.route import Route

from service.blueprints.auth import HEADER
from service.blueprints.schemas import ERROR_SCHEMAS, REF_TEMPLATE, complete, hoisted
from service.errors import JsonObject

Shape = str | type[BaseModel] | JsonObject | None
"""A schema: the name of one of the SDK's models, a model of ours, or JSON Schema itself."""

oas: Any = definitions
"""Untyped on purpose: sanic-ext's annotations contradict what its constructors take."""

VERSION = "3.1.0"
_ATTRIBUTE = "__documentation__"
_DOCUMENTED_PREFIX = "/api/"
_UUID_NAMES = frozenset({"conversation_id", "runtime_conversation_id"})
_PATH_PARAMETER = re.compile(r"<(\w+)(?::[^>]*)?>")
_KEY_SCHEME = "APIKeyHeader"


@dataclass(frozen=True, slots=True)
class Documentation:
    """What one handler takes and gives."""

    summary: str = ""
    description: str = ""
    body: Shape = None
    query: type[BaseModel] | None = None
    response: Shape = None
    status: int = 200
    errors: Sequence[int] = ()
    media_type: str = "application/json"
    """Of the response."""
    deprecated: bool = False
    hidden: bool = False


def documented[Handler: Callable[..., Any]](
    *,
    summary: str = "",
    description: str = "",
    body: Shape = None,
    query: type[BaseModel] | None = None,
    response: Shape = None,
    status: int = 200,
    errors: Sequence[int] = (),
    media_type: str = "application/json",
    deprecated: bool = False,
    hidden: bool = False,
) -> Callable[[Handler], Handler]:
    """Describe a handler, below the route's decorator. The handler itself is returned, so a call costs nothing more.

    `body`, `response`: a name such as "ConversationInfo" (the SDK's schema, from a runner), a pydantic model, JSON
    Schema, or None for no content. Handlers under /api/ that carry no description appear with what the route tells;
    others do not appear.
    """
    what = Documentation(
        summary, description, body, query, response, status, tuple(errors), media_type, deprecated, hidden
    )

    def attach(handler: Handler) -> Handler:
        setattr(handler, _ATTRIBUTE, what)
        return handler

    return attach


def array_of(item: str | type[BaseModel]) -> JsonObject:
    """The schema of a list."""
    name = item if isinstance(item, str) else item.__name__
    return {"type": "array", "items": _reference(name)}


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

    def document(self, sdk_schemas: Mapping[str, JsonObject], root_path: str = "") -> JsonObject:
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
        paths: dict[str, dict[str, Any]] = {}
        models: dict[type[BaseModel], None] = {}
        tags: dict[str, None] = {}
        for route, what in sorted(_described_routes(self._app), key=lambda found: found[0].path):
            tag = _tag(route)
            tags[tag] = None
            models.update(dict.fromkeys(_models(what)))
            operations = paths.setdefault(_openapi_path(route), {})
            for method in sorted(route.methods):
                operations[method.lower()] = _operation(route, method, what, tag)
        document: JsonObject = oas.OpenAPI(
            oas.Info(self._title, self._version),
            {path: oas.PathItem(**operations) for path, operations in paths.items()},
            tags=[oas.Tag(tag) for tag in tags],
            components=oas.Components(
                securitySchemes={_KEY_SCHEME: oas.SecurityScheme("apiKey", location="header", name=HEADER)}
            ),
        ).serialize()
        document["components"]["schemas"] = {**ERROR_SCHEMAS, **_model_schemas(models)}
        return {**document, "openapi": VERSION}


def _described_routes(app: Sanic[Any, Any]) -> Iterator[tuple[Route, Documentation]]:
    for group in app.router.groups.values():
        for route in group:
            what = getattr(route.handler, _ATTRIBUTE, None)
            if what is None and _openapi_path(route).startswith(_DOCUMENTED_PREFIX):
                what = Documentation()
            if what is not None and not what.hidden and not hasattr(route.handler, "is_websocket"):
                yield route, what


def _operation(route: Route, method: str, what: Documentation, tag: str) -> Any:
    path = _openapi_path(route)
    name = route.name.rpartition(".")[2]
    operation: Any = builders.OperationBuilder()  # type: ignore[no-untyped-call]
    operation.name(f"{re.sub(r'\W', '_', f'{name}{path}')}_{method.lower()}")
    operation.describe(what.summary or clean_route_name(name), what.description)
    operation.tag(tag)
    operation.parameters.extend([*_path_parameters(route), *_query_parameters(what.query)])
    if what.deprecated:
        operation.deprecate()
    if what.body is not None:
        operation.requestBody = oas.RequestBody({"application/json": _content(what.body)}, required=True)
    if path.startswith(_DOCUMENTED_PREFIX):
        operation.secured(_KEY_SCHEME)
    operation.responses.update(_responses(what, is_guarded=path.startswith(_DOCUMENTED_PREFIX)))
    return operation.build()


def _responses(what: Documentation, *, is_guarded: bool) -> Iterable[tuple[str, Any]]:
    content = {what.media_type: _content(what.response)} if what.response is not None else None
    yield str(what.status), oas.Response(content, description=HTTPStatus(what.status).phrase)
    for status in sorted({*what.errors, *([401] if is_guarded else [])}):
        schema = "HTTPValidationError" if status == HTTPStatus.UNPROCESSABLE_ENTITY else "ErrorDetail"
        yield str(status), oas.Response({"application/json": _content(schema)}, description=HTTPStatus(status).phrase)


def _path_parameters(route: Route) -> list[Any]:
    return [
        oas.Parameter(
            name, {"type": "string", **({"format": "uuid"} if name in _UUID_NAMES else {})}, "path", required=True
        )
        for name in _PATH_PARAMETER.findall(route.path)
    ]


def _query_parameters(model: type[BaseModel] | None) -> list[Any]:
    if model is None:
        return []
    schema = model.model_json_schema(ref_template=REF_TEMPLATE)
    required = schema.get("required", [])
    return [
        oas.Parameter(name, found, "query", found.get("description"), name in required)
        for name, found in schema.get("properties", {}).items()
    ]


def _content(shape: Shape) -> Any:
    if isinstance(shape, type):
        return oas.MediaType(_reference(shape.__name__))
    return oas.MediaType(_reference(shape) if isinstance(shape, str) else shape or {})


def _reference(name: str) -> JsonObject:
    return {"$ref": REF_TEMPLATE.format(model=name)}


def _models(what: Documentation) -> list[type[BaseModel]]:
    return [shape for shape in (what.body, what.query, what.response) if isinstance(shape, type)]


def _model_schemas(models: Iterable[type[BaseModel]]) -> dict[str, JsonObject]:
    _, schema = models_json_schema([(model, "validation") for model in models], ref_template=REF_TEMPLATE)
    found: dict[str, JsonObject] = schema.get("$defs", {})
    return found


def _openapi_path(route: Route) -> str:
    return f"/{_PATH_PARAMETER.sub(r'{\1}', route.path)}"


def _tag(route: Route) -> str:
    """The blueprint's name, or the app's for a route without one."""
    parts = route.name.split(".")
    return str(parts[-2])
