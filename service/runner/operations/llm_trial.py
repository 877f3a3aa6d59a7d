"""Whether an LLM would answer: one call of one token, before anybody saves it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openhands.sdk.llm import LLM, Message, TextContent
from openhands.sdk.llm.auth import create_subscription_llm_from_config
from openhands.sdk.llm.exceptions import LLMRateLimitError, LLMTimeoutError
from openhands.sdk.utils.cipher import Cipher

from service.errors import JsonObject
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.persistence.profile_stores import ProfileStores
from service.runner.wire.request_models import LlmDraft
from service.runner.wire.validation import parse
from service.runner.workers import Workers

_TRIAL_SECONDS = 15
_VALID: JsonObject = {"valid": True, "error": None}
_SPENT = ("quota", "billing", "credit")
"""Words of a rate limit that does not go away by waiting."""


class LlmTrial:
    """`profiles.validate`."""

    def __init__(self, root: Path, workers: Workers, cipher: Cipher) -> None:
        self._stores = ProfileStores(root)
        self._workers = workers
        self._cipher = cipher
        self.table: dict[str, Operation] = {"profiles.validate": self._validate}

    async def _validate(self, request: Request) -> Answer:
        llm = parse(LlmDraft, request.body, {"cipher": self._cipher}).llm
        try:
            async with asyncio.timeout(_TRIAL_SECONDS + 1):
                verdict = await self._workers.call_that_waits(self._verdict, llm)
        except TimeoutError:
            verdict = _VALID
        return answered(verdict)

    def _verdict(self, llm: LLM) -> JsonObject:
        """A provider that is busy or slow has nothing against the LLM. Blocking."""
        seconds = min(llm.timeout or _TRIAL_SECONDS, _TRIAL_SECONDS)
        once = {"num_retries": 0, "timeout": seconds, "max_output_tokens": 1, "usage_id": "trial"}
        given = llm.model_dump(context={"expose_secrets": True})
        try:
            trial = self._complete(LLM.model_validate(given | once))
            trial.generate([Message(role="user", content=[TextContent(text="Say yes.")])])
        except LLMTimeoutError:
            return _VALID
        except LLMRateLimitError as error:
            return _problem(error) if any(word in str(error).lower() for word in _SPENT) else _VALID
        except Exception as error:  # noqa: BLE001  whatever the provider's library raises is the answer
            return _problem(error)
        return _VALID

    def _complete(self, llm: LLM) -> LLM:
        """With what it has from its provider connection, or from a ChatGPT subscription. Blocking."""
        if llm.provider_connection_id is not None:
            llm = self._stores.llm_profiles.resolve_provider_connection(llm, cipher=self._cipher)
        return create_subscription_llm_from_config(llm)


def _problem(error: Exception) -> JsonObject:
    return {"valid": False, "error": {"type": type(error).__name__, "message": str(error)}}
