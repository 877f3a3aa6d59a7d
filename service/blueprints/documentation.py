"""/openapi.json and the pages that show it, open to everybody, with every asset served from here."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Any

from sanic import Blueprint, HTTPResponse, Request, Sanic
from sanic.response import html
from sanic_ext import Extend
from sanic_ext.extensions.base import Extension

from service.blueprints.http.answers import json_answer
from service.blueprints.http.context import web_of
from service.blueprints.http.file_response import send_file
from service.blueprints.http.openapi import OpenApiDocument
from service.blueprints.server_details import INTERFACE_VERSION, TITLE
from service.errors import NotFound

_ASSETS = Path(__file__).parent / "assets"
_SERVED = frozenset(
    {
        "swagger-start.js",
        "swagger-ui/swagger-ui-bundle.js",
        "swagger-ui/swagger-ui.css",
        "swagger-ui/oauth2-redirect.js",
        "swagger-ui/favicon-32x32.png",
        "redoc/redoc.standalone.js",
    }
)
_ASSET_HEADERS = {"cache-control": "public, max-age=86400"}

_PAGE_HEADERS = {
    # Nothing from elsewhere: pages look the same without a network, and no third party learns who reads them.
    "content-security-policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; worker-src blob:; connect-src *"
    ),
}

_SWAGGER_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title - Swagger UI</title>
<link rel="icon" href="$root/docs/assets/swagger-ui/favicon-32x32.png">
<link rel="stylesheet" href="$root/docs/assets/swagger-ui/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="$root/docs/assets/swagger-ui/swagger-ui-bundle.js"></script>
<script src="$root/docs/assets/swagger-start.js"
 data-openapi="$root/openapi.json" data-redirect="$root/docs/oauth2-redirect"></script>
</body>
</html>
""")

_REDOC_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title - ReDoc</title>
<link rel="icon" href="$root/docs/assets/swagger-ui/favicon-32x32.png">
<style>body { margin: 0; padding: 0; }</style>
</head>
<body>
<noscript>ReDoc needs JavaScript.</noscript>
<redoc spec-url="$root/openapi.json"></redoc>
<script src="$root/docs/assets/redoc/redoc.standalone.js"></script>
</body>
</html>
""")

_REDIRECT_PAGE = Template("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>$title - OAuth2 redirect</title></head>
<body><script src="$root/docs/assets/swagger-ui/oauth2-redirect.js"></script></body>
</html>
""")

blueprint = Blueprint("documentation")


class DocumentationExtension(Extension):  # type: ignore[no-untyped-call]
    """sanic-ext's place for this: one document per app.

    Instead of its OpenAPIExtension, whose pages load from a public CDN, one of them while a request waits (25.12).
    """

    name = "documentation"

    def startup(self, bootstrap: Extend) -> None:
        self.app.ctx.openapi = OpenApiDocument(self.app, TITLE, INTERFACE_VERSION)
        self.app.blueprint(blueprint)

    def label(self) -> str:
        return "/docs"


def install(app: Sanic[Any, Any]) -> None:
    """Add the document and its pages, and keep sanic-ext from adding all its other extensions by itself."""
    Extend(app, built_in_extensions=False, extensions=[DocumentationExtension])


async def openapi(request: Request) -> HTTPResponse:
    web = web_of(request)
    document: OpenApiDocument = request.app.ctx.openapi
    return json_answer(document.render(await web.sdk_schemas(), web.settings.root_path))


async def swagger(request: Request) -> HTTPResponse:
    return _page(request, _SWAGGER_PAGE)


async def redoc(request: Request) -> HTTPResponse:
    return _page(request, _REDOC_PAGE)


async def oauth2_redirect(request: Request) -> HTTPResponse:
    return _page(request, _REDIRECT_PAGE)


async def asset(request: Request, name: str) -> HTTPResponse | None:
    """One of the vendored files.

    Raises:
        NotFound: there is no such file.
    """
    if name not in _SERVED:
        raise NotFound
    return await send_file(request, _ASSETS / name, _ASSET_HEADERS)


def _page(request: Request, template: Template) -> HTTPResponse:
    root = web_of(request).settings.root_path
    return html(template.substitute(title=TITLE, root=root), headers=_PAGE_HEADERS)


for _handler, _path in (
    (openapi, "/openapi.json"),
    (swagger, "/docs"),
    (redoc, "/redoc"),
    (oauth2_redirect, "/docs/oauth2-redirect"),
    (asset, "/docs/assets/<name:path>"),
):
    blueprint.add_route(_handler, _path, methods=("GET", "HEAD"))
