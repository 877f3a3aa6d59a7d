"""Answers in JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from sanic import HTTPResponse


class Success(BaseModel):
    success: bool = True


class Deleted(BaseModel):
    deleted: Literal[True]


def json_answer(content: bytes | BaseModel, status: int = 200) -> HTTPResponse:
    """`content`: UTF-8 JSON, which is sent untouched, or what is sent as JSON."""
    body = content if isinstance(content, bytes) else content.model_dump_json().encode()
    return HTTPResponse(body, status=status, content_type="application/json")
