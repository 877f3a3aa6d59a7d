"""What is asked of the places that host repositories, by name. Only GitHub is one of them."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, NamedTuple

import httpx
from openhands.sdk.utils.cipher import Cipher

from service.errors import BadRequest, JsonObject, NotFound, RemoteTimedOut, RemoteUnavailable
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.persistence.settings_store import SecretsStore
from service.runner.workers import Workers
from service.settings import Settings

_TOKEN_NAMES = ("github_token", "GITHUB_TOKEN", "GH_TOKEN", "github")
"""Secrets that may hold the token, in this order (contract)."""
_TIMEOUT_SECONDS = 15.0
_PAGE_SIZE = 100
_MOST_PAGES = 10
"""Of GitHub's, for one of ours: a rare name must not be looked for through thousands of repositories."""
_PAGE_ID = re.compile(r"(?P<page>[1-9]\d{0,8})(:(?P<offset>\d{1,3}))?", re.ASCII)


class _Position(NamedTuple):
    """Where a page begins: GitHub's page, from 1, and how many of its repositories were looked at."""

    page: int
    offset: int

    @classmethod
    def parse(cls, page_id: str | None) -> _Position:
        """Raises BadRequest for what is no `<page>[:<offset>]`."""
        parts = _PAGE_ID.fullmatch(page_id or "1")
        if parts is None or int(parts["offset"] or 0) > _PAGE_SIZE:
            raise BadRequest("Invalid repository page_id")
        return cls(int(parts["page"]), int(parts["offset"] or 0))

    def __str__(self) -> str:
        return f"{self.page}:{self.offset}" if self.offset else str(self.page)


class RepositoryOperations:
    """Any runner answers them."""

    def __init__(self, settings: Settings, workers: Workers, client: httpx.AsyncClient, cipher: Cipher) -> None:
        self._url = settings.github_api_url.rstrip("/")
        self._workers = workers
        self._client = client
        self._secrets = SecretsStore(settings.persistence_root, cipher)
        self.table: dict[str, Operation] = {"repositories.search": self._search}

    async def _search(self, request: Request) -> Answer:
        wanted = request.arguments
        token = await self._workers.call(self._token)
        if token is None:
            return answered({"items": [], "next_page_id": None, "missing_token": True})
        position = _Position.parse(wanted["page_id"])
        words = (wanted["query"] or "").casefold()
        items: list[JsonObject] = []
        for _ in range(_MOST_PAGES):
            repositories = await self._page(token, position.page)
            for offset, repository in enumerate(repositories):
                if offset < position.offset or words not in repository["full_name"].casefold():
                    continue
                if len(items) == wanted["limit"]:
                    return _found(items, _Position(position.page, offset))
                items.append(_described(repository))
            if len(repositories) < _PAGE_SIZE:
                return _found(items, None)
            position = _Position(position.page + 1, 0)
        return _found(items, position)

    def _token(self) -> str | None:
        for name in _TOKEN_NAMES:
            with suppress(NotFound):
                return str(self._secrets.value(name))
        return None

    async def _page(self, token: str, page: int) -> list[dict[str, Any]]:
        """The repositories that the token's owner works with, the one pushed to last first.

        Raises:
            RemoteUnavailable: GitHub cannot be reached, refuses the token (never a 401, which would look like ours), or
                answers with something else.
            RemoteTimedOut: it does not answer.
        """
        try:
            response = await self._client.get(
                f"{self._url}/user/repos",
                params={"sort": "pushed", "per_page": _PAGE_SIZE, "page": page},
                headers={"authorization": f"Bearer {token}", "accept": "application/vnd.github+json"},
                timeout=_TIMEOUT_SECONDS,
            )
        except httpx.TimeoutException:
            raise RemoteTimedOut("GitHub does not answer") from None
        except httpx.HTTPError as error:
            raise RemoteUnavailable(f"GitHub cannot be reached: {error}") from None
        if response.status_code in (401, 403):
            raise RemoteUnavailable(f"GitHub refuses the stored token ({response.status_code})")
        if 400 <= response.status_code < 500:
            raise BadRequest(f"GitHub refuses the request ({response.status_code})")
        if response.status_code != 200:
            raise RemoteUnavailable(f"GitHub failed ({response.status_code})")
        with suppress(ValueError):
            found: list[dict[str, Any]] = response.json()
            if isinstance(found, list) and all(map(_is_repository, found)):
                return found
        raise RemoteUnavailable("GitHub does not answer with repositories")


def _is_repository(found: object) -> bool:
    return isinstance(found, dict) and "id" in found and isinstance(found.get("full_name"), str)


def _described(repository: dict[str, Any]) -> JsonObject:
    return {
        "id": str(repository["id"]),
        "full_name": repository["full_name"],
        "git_provider": "github",
        "is_public": not repository.get("private", True),
        "stargazers_count": repository.get("stargazers_count"),
        "pushed_at": repository.get("pushed_at"),
        "main_branch": repository.get("default_branch"),
    }


def _found(items: list[JsonObject], following: _Position | None) -> Answer:
    next_page_id = None if following is None else str(following)
    return answered({"items": items, "next_page_id": next_page_id, "missing_token": False})
