"""Another LLM, another model or one more plugin for a conversation's agent. All of it is asked of the owner."""

from __future__ import annotations

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty

from service.blueprints.http.answers import Success
from service.blueprints.http.arguments import checked_json, uuid_path
from service.blueprints.http.asking import LLM_SECONDS, ask_owner
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented

blueprint = Blueprint("agent_changes", url_prefix="/api/conversations/<conversation_id:str>")


@blueprint.post("/switch_llm")
@documented(summary="Go on with another LLM", body="SwitchLlmRequest", response=Success, errors=(404,))
async def switch_llm(request: Request, conversation_id: str) -> HTTPResponse:
    return await _change(request, conversation_id, "agent.switch_llm")


@blueprint.post("/switch_profile")
@documented(summary="Go on with a stored LLM profile", body="SwitchProfileRequest", response=Success, errors=(404,))
async def switch_profile(request: Request, conversation_id: str) -> HTTPResponse:
    return await _change(request, conversation_id, "agent.switch_profile")


@blueprint.post("/switch_acp_model")
@documented(
    summary="Have an ACP server go on with another model",
    body="SwitchAcpModelRequest",
    response=Success,
    errors=(404, 504),
)
async def switch_acp_model(request: Request, conversation_id: str) -> HTTPResponse:
    return await _change(request, conversation_id, "agent.switch_acp_model")


@blueprint.post("/load_plugin")
@documented(summary="Give the agent another plugin", body="LoadPluginRequest", response=Success, errors=(404,))
async def load_plugin(request: Request, conversation_id: str) -> HTTPResponse:
    return await _change(request, conversation_id, "agent.load_plugin")


@blueprint.put("/credential-bindings/<secret_name:str>")
@documented(summary="Say where an ACP agent's login is kept up to date", status=204, hidden=True)
async def bind_credential(request: Request, conversation_id: str, secret_name: str) -> HTTPResponse:
    """The conversation need not exist yet: then it is for when it is created."""
    await web_of(request).requester.ask(
        "conversation.bind_credential",
        uuid_path(conversation_id),
        body=checked_json(request),
        arguments={"secret_name": secret_name},
    )
    return empty(204)


async def _change(request: Request, conversation_id: str, operation: str) -> HTTPResponse:
    return await ask_owner(request, operation, conversation_id, body=checked_json(request), timeout_seconds=LLM_SECONDS)
