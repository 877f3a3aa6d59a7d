"""`/v1`: the agents of the server as models of OpenAI's interface.

Each request is a run of the active agent profile in a conversation of its own, unless it names one to go on with.
The run belongs to the server: a client that goes away does not end it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from uuid import UUID

from pydantic_core import to_json
from sanic import Blueprint, HTTPResponse, Request
from sanic.exceptions import SanicException

from service.blueprints.http import errors
from service.blueprints.http.answers import json_answer
from service.blueprints.http.arguments import body, invalid_value
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.observability import with_observability
from service.blueprints.http.openapi import documented
from service.blueprints.openai.run import GatewayRun, send
from service.blueprints.openai.shapes import (
    DONE,
    MODEL_PREFIX,
    ChatCompletionRequest,
    Chunks,
    Model,
    ModelList,
    OpenAIError,
    Prompt,
    ResponsesRequest,
    chat_completion,
    error_body,
    error_event,
    prompt_of,
    response,
)
from service.blueprints.streams.server_sent import EventStream, answer_with_events
from service.errors import BadRequest, FanoutError, NotFound, OutcomeUnknown, Unavailable
from service.pubsub.feed import ConversationGone, LogBehind

blueprint = Blueprint("openai", url_prefix="/v1")

CONVERSATION_HEADER = "x-openhands-serverconversation-id"

_RUN_SECONDS = 600.0
"""How long an answer in one piece is waited for; OpenAI's clients wait as long. Its run goes on."""
_CREATE_SECONDS = 120.0
"""Skills of the public catalog may have to be fetched first."""


@blueprint.get("/models")
@documented(summary="The LLM profiles, as models", response=ModelList, error=OpenAIError, errors=(503,))
async def models(request: Request) -> HTTPResponse:
    return json_answer(ModelList(data=[Model(id=each) for each in await _models(web_of(request))]))


async def _models(web: WebContext) -> list[str]:
    names = json.loads((await web.requester.ask("gateway.models")).body)
    return [f"{MODEL_PREFIX}{name}" for name in names]


@blueprint.post("/chat/completions")
@documented(
    summary="Ask the agent",
    description="The answer of a run of the active agent profile, with the whole history that the request has. With "
    "the header `X-OpenHands-ServerConversation-ID` of an earlier answer its last message goes on there instead.",
    body=ChatCompletionRequest,
    response={"type": "object"},
    error=OpenAIError,
    errors=(400, 404, 409, 422, 429, 500, 503, 504),
)
async def chat_completions(request: Request) -> HTTPResponse | None:
    wanted = body(request, ChatCompletionRequest)
    prompt, web = prompt_of(wanted.messages), web_of(request)
    conversation_id = await _conversation(request, wanted.model, prompt)
    headers = {CONVERSATION_HEADER: str(conversation_id)}
    answer_id = f"chatcmpl-{uuid.uuid4().hex}"
    async with _asked(web, conversation_id, prompt) as run:
        if not wanted.stream:
            text = await _whole(run)
            answer = chat_completion(answer_id, wanted.model, text, run.usage)
            return HTTPResponse(answer, content_type="application/json", headers=headers)

        chunks = Chunks(answer_id, wanted.model)
        with_usage = wanted.stream_options is not None and wanted.stream_options.include_usage

        async def produce(stream: EventStream) -> None:
            await stream.write(chunks.role())
            try:
                await run.follow(lambda text: stream.write(chunks.content(text)))
            except (FanoutError, ConversationGone, LogBehind) as error:
                await stream.write(error_event(*_told(error, conversation_id)))
                return
            await stream.write(chunks.stop() + (chunks.usage(run.usage) if with_usage else b"") + DONE)

        stopping = f"The server is stopping. The run of conversation {conversation_id} goes on."
        await answer_with_events(request, produce, headers, error_event(HTTPStatus.SERVICE_UNAVAILABLE, stopping))
    return None


@blueprint.post("/responses")
@documented(
    summary="Ask the agent, for clients of OpenAI's newer interface",
    description="As /v1/chat/completions, in one piece only.",
    body=ResponsesRequest,
    response={"type": "object"},
    error=OpenAIError,
    errors=(400, 404, 409, 422, 429, 500, 503, 504),
)
async def responses(request: Request) -> HTTPResponse:
    wanted = body(request, ResponsesRequest)
    for name in ("stream", "store", "previous_response_id"):
        if getattr(wanted, name):
            raise BadRequest(f"{name} is not supported; the header {CONVERSATION_HEADER} goes on with a conversation.")
    prompt, web = prompt_of(wanted.messages), web_of(request)
    conversation_id = await _conversation(request, wanted.model, prompt)
    async with _asked(web, conversation_id, prompt) as run:
        text = await _whole(run)
    answer = response(uuid.uuid4().hex, wanted, text, run.usage)
    return HTTPResponse(answer, content_type="application/json", headers={CONVERSATION_HEADER: str(conversation_id)})


async def _conversation(request: Request, model: str, prompt: Prompt) -> UUID:
    """The one that the header names, which keeps its own LLM, or a new one; it exists when this returns.

    Raises:
        NotFound: the model is no LLM profile.
        InvalidRequest: a header makes no sense.
        Unavailable: the server is stopping.
    """
    given = request.headers.getone(CONVERSATION_HEADER, None)
    try:
        conversation_id = uuid.uuid4() if given is None else UUID(given)
    except ValueError:
        raise invalid_value("uuid_parsing", ["header", CONVERSATION_HEADER], "Not a UUID", given) from None
    web = web_of(request)
    _require_serving(web)
    if model not in await _models(web):
        raise NotFound(f"The model {model} does not exist.")
    if web.root.exists(conversation_id):
        return conversation_id
    wanted = {
        "llm_profile": model.removeprefix(MODEL_PREFIX),
        "system": prompt.system,
        "history": prompt.history,
        "observability": with_observability(request, {}),
    }
    await web.requester.ask(
        "gateway.create",
        conversation_id,
        body=to_json(wanted),
        arguments={"idempotency_key": f"gateway {conversation_id}"},
        timeout_seconds=_CREATE_SECONDS,
    )
    return conversation_id


@asynccontextmanager
async def _asked(web: WebContext, conversation_id: UUID, prompt: Prompt) -> AsyncIterator[GatewayRun]:
    """Listen, then ask, so that nothing is missed.

    Raises:
        Unavailable: the server is stopping; nothing was sent.
    """
    _require_serving(web)  # it may have taken long to get here
    async with web.watch(conversation_id, None) as subscriber:
        yield await send(web, conversation_id, prompt.message, subscriber)


def _require_serving(web: WebContext) -> None:
    if web.is_stopping:
        raise Unavailable("The server is stopping. Retry the request.")


async def _whole(run: GatewayRun) -> str:
    """Raises OutcomeUnknown: the run takes longer than anybody waits; it goes on."""
    try:
        async with asyncio.timeout(_RUN_SECONDS):
            return await run.follow(_nobody)
    except TimeoutError:
        raise OutcomeUnknown(f"the run of {run.conversation_id}", _RUN_SECONDS) from None
    except ConversationGone:
        raise NotFound(f"Conversation not found: {run.conversation_id}") from None
    except LogBehind as error:
        raise Unavailable(str(error)) from error


async def _nobody(text: str) -> None:
    """Takes what grows where only the whole is wanted."""


def _told(error: Exception, conversation_id: UUID) -> tuple[int, str]:
    if isinstance(error, FanoutError):
        return errors.STATUS[type(error)], str(error)
    return 503, f"Conversation {conversation_id} can no longer be followed: {error or 'it was deleted'}"


@blueprint.exception(FanoutError)  # type: ignore[untyped-decorator]
def fanout_error(request: Request, error: FanoutError) -> HTTPResponse:
    return _in_openais_shape(errors.answer_fanout(request, error))


@blueprint.exception(SanicException)  # type: ignore[untyped-decorator]
def sanic_error(request: Request, error: SanicException) -> HTTPResponse:
    return _in_openais_shape(errors.answer_sanic(request, error))


@blueprint.exception(Exception)  # type: ignore[untyped-decorator]
def unexpected_error(request: Request, error: Exception) -> HTTPResponse:
    return _in_openais_shape(errors.answer_unexpected(request, error))


def _in_openais_shape(response: HTTPResponse) -> HTTPResponse:
    """The same status and headers; of a list of problems the first, and of what has a code its sentence, which is all
    that OpenAI's shape has room for.
    """
    content = json.loads(response.body or b"{}")
    detail = content["detail"]
    if "error_id" in content:
        detail = f"{detail} (error_id {content['error_id']}): {content['exception']}"
    if isinstance(detail, dict):
        detail = detail["message"]
    if isinstance(detail, list):
        detail = f"{'.'.join(map(str, detail[0]['loc']))}: {detail[0]['msg']}"
    answer = to_json(error_body(response.status, str(detail)))
    return HTTPResponse(answer, response.status, dict(response.headers), "application/json")
