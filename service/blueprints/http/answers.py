"""Answers made of bytes that are JSON already."""

from __future__ import annotations

from sanic import HTTPResponse

SUCCESS = b'{"success":true}'
"""The body of an answer that says no more."""


def json_answer(body: bytes, status: int = 200) -> HTTPResponse:
    """`body`, UTF-8 JSON, untouched."""
    return HTTPResponse(body, status=status, content_type="application/json")
