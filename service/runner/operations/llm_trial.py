"""Whether an LLM would answer: one call of one token, before anybody saves it."""

from __future__ import annotations

import asyncio

from openhands.sdk.llm import LLM, Message, TextContent
from openhands.sdk.llm.exceptions import LLMRateLimitError, LLMTimeoutError
from openhands.sdk.utils.cipher import Cipher

from service.errors import JsonObject
from service.requests.message import Request
from service.requests.requester import Answer
from service.runner.operations.profiles import profile_name
from service.runner.operations.table import Operation, answered
from service.runner.wire.request_models import LlmDraft
from service.runner.wire.validation import parse
from service.runner.workers import Workers

_TRIAL_SECONDS = 15
_VALID: JsonObject = {"valid": True, "error": None}
_SPENT = ("quota", "billing", "credit")
"""Words of a rate limit that does not go away by waiting."""


class LlmTrial:
    """`profiles.validate`."""

    def __init__(self, workers: Workers, cipher: Cipher) -> None:
        self._workers = workers
        self._cipher = cipher
        self.table: dict[str, Operation] = {"profiles.validate": self._validate}

    async def _validate(self, request: Request) -> Answer:
        profile_name(request)
        llm = parse(LlmDraft, request.body, {"cipher": self._cipher}).llm
        try:
            async with asyncio.timeout(_TRIAL_SECONDS + 1):
                verdict = await self._workers.call_that_waits(_verdict, llm)
        except TimeoutError:
            verdict = _VALID
        return answered(verdict)


def _verdict(llm: LLM) -> JsonObject:
    """A provider that is busy or slow has nothing against the LLM. Blocking."""
    once = {"num_retries": 0, "timeout": _TRIAL_SECONDS, "max_output_tokens": 1, "usage_id": "trial"}
    given = llm.model_dump(context={"expose_secrets": True})
    try:
        LLM.model_validate(given | once).generate([Message(role="user", content=[TextContent(text="Say yes.")])])
    except LLMTimeoutError:
        return _VALID
    except LLMRateLimitError as error:
        return _problem(error) if any(word in str(error).lower() for word in _SPENT) else _VALID
    except Exception as error:  # noqa: BLE001  whatever the provider's library raises is the answer
        return _problem(error)
    return _VALID


def _problem(error: Exception) -> JsonObject:
    return {"valid": False, "error": {"type": type(error).__name__, "message": str(error)}}
