"""How settings and profiles are read and changed: in a thread, changes under the lock of the whole deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pydantic_core
from openhands.sdk.llm.llm_profile_store import ProfileLimitExceeded
from openhands.sdk.llm.meta_profile_store import MetaProfileLimitExceeded
from openhands.sdk.llm.provider_connection_store import ProviderConnectionLimitExceeded, ProviderConnectionNotFound
from openhands.sdk.profiles.agent_profile_store import ProfileLimitExceeded as AgentProfileLimitExceeded
from openhands.sdk.profiles.profile_refs import ProfileReferenced
from pydantic import ValidationError

from service.catalog.store_lock import StoreLock
from service.errors import BadRequest, Conflict, InvalidRequest, NotFound, Unavailable
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation
from service.runner.wire.validation import invalid
from service.runner.workers import Workers

_LIMITS = (
    ProfileLimitExceeded,
    AgentProfileLimitExceeded,
    MetaProfileLimitExceeded,
    ProviderConnectionLimitExceeded,
)


class StoreAccess:
    """Makes operations of blocking functions from a request to something that can be JSON."""

    def __init__(self, workers: Workers, lock: StoreLock) -> None:
        self._workers = workers
        self._lock = lock

    def reading(self, function: Callable[[Request], Any]) -> Operation:
        async def operation(request: Request) -> Answer:
            return Answer(200, await self._workers.call(_answered, function, request))

        return operation

    def changing(self, function: Callable[[Request], Any], *, status: int = 200) -> Operation:
        async def operation(request: Request) -> Answer:
            async with self._lock.held():
                return Answer(status, await self._workers.call(_answered, function, request))

        return operation


def _answered(function: Callable[[Request], Any], request: Request) -> bytes:
    with store_errors():
        return pydantic_core.to_json(function(request))


@contextmanager
def store_errors() -> Iterator[None]:
    """What the SDK's stores raise, as clients are told it."""
    try:
        yield
    except _LIMITS as error:
        raise Conflict(str(error)) from error
    except (ProfileReferenced, FileExistsError) as error:
        raise Conflict(str(error)) from error
    except ProviderConnectionNotFound as error:
        raise InvalidRequest(str(error)) from error
    except FileNotFoundError as error:
        raise NotFound(str(error)) from error
    except TimeoutError as error:
        raise Unavailable("Profile store is busy. Please retry.") from error
    except ValidationError as error:
        raise invalid(error) from None
    except ValueError as error:
        raise BadRequest(str(error)) from error
