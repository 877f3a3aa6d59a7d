"""Requests and replies as bytes: a line of JSON, then a body that nobody touches."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.requests.message import (
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

JSON_OBJECTS = st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.booleans(), st.integers(), st.text()))
REQUESTS = st.builds(
    Request,
    request_id=st.text(min_size=1),
    operation=st.text(),
    conversation_id=st.one_of(st.none(), st.uuids()),
    reply_to=st.text(),
    arguments=JSON_OBJECTS,
    body=st.binary(),
)
REPLIES = st.builds(
    Reply,
    request_id=st.text(min_size=1),
    status=st.integers(0, 599),
    error=st.one_of(st.none(), JSON_OBJECTS),
    body=st.binary(),
)


@given(REQUESTS)
def test_request_arrives_as_it_was_sent(request: Request) -> None:
    """Newlines in the body included."""
    assert decode_request(encode_request(request)) == request


@given(REPLIES)
def test_reply_arrives_as_it_was_sent(reply: Reply) -> None:
    """Newlines in the body included."""
    assert decode_reply(encode_reply(reply)) == reply


def test_layout_is_the_documented_one() -> None:
    """The head is one line; the body follows as it is."""
    request = Request("r1", "conversation.run", UUID(int=1), "replies:c1", {"a": 1}, b'{"x":\n1}')
    head, body = encode_request(request).split(b"\n", 1)
    assert body == b'{"x":\n1}'
    assert json.loads(head) == {
        "id": "r1",
        "op": "conversation.run",
        "conversation": UUID(int=1).hex,
        "reply_to": "replies:c1",
        "args": {"a": 1},
    }


@pytest.mark.parametrize("decode", [decode_request, decode_reply])
@pytest.mark.parametrize(
    "message",
    [b"", b"?", b"[]", b"1", b"null", b"{}", b'{"id":"r1"}', b"\xff\n{}", b'{"id":1,"conversation":5}'],
)
def test_anything_else_is_refused_with_a_known_error(decode: Callable[[bytes], object], message: bytes) -> None:
    """A listener that meets it goes on."""
    with pytest.raises((ValueError, KeyError)):
        decode(message)
