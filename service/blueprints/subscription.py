"""`/api/llm/subscription/openai`: signing in with a ChatGPT subscription. Tokens are never told."""

from __future__ import annotations

from pydantic import BaseModel, Field
from sanic import Blueprint, HTTPResponse, Request

from service.blueprints.http.arguments import body
from service.blueprints.http.asking import ask_any
from service.blueprints.http.openapi import documented

blueprint = Blueprint("subscription", url_prefix="/api/llm/subscription/openai")

_REMOTE_SECONDS = 60.0


class SubscriptionModels(BaseModel):
    vendor: str
    models: list[str]


class SubscriptionStatus(BaseModel):
    """`expires_at` is in Unix milliseconds."""

    vendor: str
    connected: bool
    account_email: str | None
    expires_at: int | None


class DeviceLogin(BaseModel):
    """What to show a person: the address and the code to enter there. Times in milliseconds and seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_at: int
    interval_seconds: int


class DevicePoll(BaseModel):
    device_code: str = Field(min_length=1, max_length=64)


@blueprint.get("/models")
@documented(summary="The models of a ChatGPT subscription", response=SubscriptionModels)
async def subscription_models(request: Request) -> HTTPResponse:
    return await ask_any(request, "subscription.models")


@blueprint.get("/status")
@documented(summary="Whether somebody is signed in", response=SubscriptionStatus)
async def subscription_status(request: Request) -> HTTPResponse:
    return await ask_any(request, "subscription.status", timeout_seconds=_REMOTE_SECONDS)


@blueprint.post("/device/start")
@documented(summary="Begin to sign in by a code", response=DeviceLogin, errors=(502,))
async def start_device_login(request: Request) -> HTTPResponse:
    return await ask_any(request, "subscription.start", timeout_seconds=_REMOTE_SECONDS)


@blueprint.post("/device/poll")
@documented(summary="Whether the code was entered", body=DevicePoll, response=SubscriptionStatus, errors=(404, 502))
async def poll_device_login(request: Request) -> HTTPResponse:
    return await ask_any(request, "subscription.poll", body(request, DevicePoll), timeout_seconds=_REMOTE_SECONDS)


@blueprint.post("/logout")
@documented(summary="Sign out", response=SubscriptionStatus)
async def logout_subscription(request: Request) -> HTTPResponse:
    return await ask_any(request, "subscription.logout")
