"""What is asked of the SDK itself, by name: what every runner answers alike."""

from __future__ import annotations

from functools import cache

import litellm
from openhands.sdk.llm.utils.unverified_models import get_supported_llm_models
from openhands.sdk.llm.utils.verified_models import VERIFIED_MODELS
from openhands.sdk.tool.registry import list_registered_tools, list_tool_catalog

from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.wire.schemas import sdk_schemas
from service.runner.workers import Workers

_PROVIDERS = {str(getattr(provider, "value", provider)) for provider in litellm.provider_list}


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
        return answered({"providers": sorted(_PROVIDERS)})

    async def _models(self, request: Request) -> Answer:
        """As an LLM's settings name them, of all providers or of one; empty stands for those of none known."""
        provider = request.arguments.get("provider")
        models = await self._workers.call(_all_models)
        return answered({"models": [each for each in models if provider is None or provider in _providers_of(each)]})

    async def _verified_models(self, request: Request) -> Answer:
        return answered({"models": VERIFIED_MODELS})


@cache
def _all_models() -> list[str]:
    """Nothing is asked over a network: the lists come with the SDK and with litellm."""
    return sorted(set(get_supported_llm_models()))


def _providers_of(model: str) -> list[str]:
    prefix, slash, _ = model.partition("/")
    if slash:
        return [prefix if prefix in _PROVIDERS else ""]
    return [provider for provider, models in VERIFIED_MODELS.items() if model in models] or [""]
