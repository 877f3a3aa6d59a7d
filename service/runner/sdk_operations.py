"""What is asked of the SDK itself, by name: what every runner answers alike."""

from __future__ import annotations

from openhands.sdk.llm.utils.unverified_models import UNVERIFIED_MODELS_EXCLUDING_BEDROCK
from openhands.sdk.llm.utils.verified_models import VERIFIED_MODELS
from openhands.sdk.tool.registry import list_registered_tools, list_tool_catalog

from service.requests.message import Request
from service.requests.requester import Answer
from service.runner.operations import Operation, answered
from service.runner.schemas import sdk_schemas
from service.runner.workers import Workers

_UNKNOWN = "other"
"""Where the SDK lists models whose provider it does not know: no part of their ids."""


class SdkOperations:
    """What the SDK of this runner knows."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self.table: dict[str, Operation] = {
            "sdk.schemas": self._schemas,
            "sdk.tools": self._tools,
            "sdk.tool_catalog": self._tool_catalog,
            "llm.providers": self._providers,
            "llm.models": self._models,
            "llm.verified": self._verified_models,
        }

    async def _schemas(self, request: Request) -> Answer:
        return Answer(200, await self._workers.call(sdk_schemas))

    async def _tools(self, request: Request) -> Answer:
        return answered(list_registered_tools())

    async def _tool_catalog(self, request: Request) -> Answer:
        # Whether a tool is usable may be found out by looking for programs.
        return answered({"tools": await self._workers.call(list_tool_catalog)})

    async def _providers(self, request: Request) -> Answer:
        names = sorted(UNVERIFIED_MODELS_EXCLUDING_BEDROCK.keys() | VERIFIED_MODELS.keys())
        return answered({"providers": names})

    async def _models(self, request: Request) -> Answer:
        """`provider/model`; without the provider when it was asked for by name."""
        provider = request.arguments.get("provider")
        if provider is not None:
            return answered({"models": _models_of(provider)})
        names = sorted(UNVERIFIED_MODELS_EXCLUDING_BEDROCK.keys() | VERIFIED_MODELS.keys())
        models = [model if name == _UNKNOWN else f"{name}/{model}" for name in names for model in _models_of(name)]
        return answered({"models": models})

    async def _verified_models(self, request: Request) -> Answer:
        return answered({"models": VERIFIED_MODELS})


def _models_of(provider: str) -> list[str]:
    """Nothing is asked over a network: the lists come with the SDK and with litellm."""
    return sorted({*VERIFIED_MODELS.get(provider, ()), *UNVERIFIED_MODELS_EXCLUDING_BEDROCK.get(provider, ())})
