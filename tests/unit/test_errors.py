"""Errors cross from a runner to a web worker as JSON and arrive as what they were."""

from __future__ import annotations

import json

import pytest

from service import errors
from service.errors import FanoutError, from_wire, to_wire

PROBLEMS = [{"type": "missing", "loc": ["body", "agent"], "msg": "Field required"}]

SAMPLES: list[FanoutError] = [
    errors.InvalidRequest("one sentence"),
    errors.InvalidRequest(PROBLEMS),
    errors.BadRequest("makes no sense"),
    errors.Unauthorized(),
    errors.Forbidden("Permission denied"),
    errors.NotFound(),
    errors.NotFound("Agent profile not found"),
    errors.ConversationNotFound("0f0e"),
    errors.EventNotFound("e1"),
    errors.Conflict("not now"),
    errors.AlreadyRunning(),
    errors.OwnershipLost(),
    errors.RunLimitReached(),
    errors.RunLimitReached(saved_in="0f0e"),
    errors.BashLimitReached(),
    errors.SourceRefused("missing_secret", "Missing secret: TOKEN"),
    errors.SourceUnavailable("source_unavailable", "Could not resolve host"),
    errors.SourceTimedOut("timeout", "Git operation timed out."),
    errors.Unavailable("soon"),
    errors.RemoteUnavailable("GitHub failed (500)"),
    errors.Unsupported("The service cannot do it"),
    errors.RemoteTimedOut("GitHub does not answer"),
    errors.Disabled("VSCode is disabled in configuration"),
    errors.NoRunner(),
    errors.OwnerMoving("0f0e"),
    errors.Dormant("initializing"),
    errors.BrokerUnavailable(),
    errors.OutcomeUnknown("conversation.run", 2.5),
    errors.RequestFailed("the provider said no"),
]


def name_of(error: FanoutError) -> str:
    return f"{type(error).__name__}-{error}"[:40]


@pytest.mark.parametrize("error", SAMPLES, ids=name_of)
def test_error_survives_the_wire(error: FanoutError) -> None:
    """Class, fields, text and detail are the same on the other side of a JSON message."""
    arrived = from_wire(json.loads(json.dumps(to_wire(error))))

    assert type(arrived) is type(error)
    assert vars(arrived) == vars(error)
    assert str(arrived) == str(error)
    assert arrived.detail == error.detail


def test_every_error_with_a_code_is_sampled() -> None:
    """A new leaf does not escape the test above."""
    sent = {cls for cls in FanoutError._by_code.values() if cls.__module__ == errors.__name__}
    assert sent == {type(sample) for sample in SAMPLES}


def test_codes_are_distinct_and_stable() -> None:
    """Another version of the server finds the same code for the same error."""
    assert {type(sample).__name__: sample.code for sample in SAMPLES} == {
        "InvalidRequest": "invalid_request",
        "BadRequest": "bad_request",
        "Unauthorized": "unauthorized",
        "Forbidden": "forbidden",
        "NotFound": "not_found",
        "ConversationNotFound": "conversation_not_found",
        "EventNotFound": "event_not_found",
        "Conflict": "conflict",
        "AlreadyRunning": "already_running",
        "OwnershipLost": "ownership_lost",
        "RunLimitReached": "run_limit_reached",
        "BashLimitReached": "bash_limit_reached",
        "SourceRefused": "source_refused",
        "SourceUnavailable": "source_unavailable",
        "SourceTimedOut": "source_timed_out",
        "Unavailable": "unavailable",
        "RemoteUnavailable": "remote_unavailable",
        "Unsupported": "unsupported",
        "RemoteTimedOut": "remote_timed_out",
        "Disabled": "disabled",
        "NoRunner": "no_runner",
        "OwnerMoving": "owner_moving",
        "Dormant": "dormant",
        "BrokerUnavailable": "broker_unavailable",
        "OutcomeUnknown": "outcome_unknown",
        "RequestFailed": "request_failed",
    }


def test_an_unknown_code_becomes_a_failure_with_what_was_sent() -> None:
    """A web worker older than the runner still tells the client something."""
    arrived = from_wire({"code": "from_the_future", "fields": {"why": "because"}})

    assert isinstance(arrived, errors.RequestFailed)
    assert "from_the_future" in str(arrived)
    assert "because" in str(arrived)


def test_a_saved_message_says_how_to_go_on() -> None:
    """A client whose message was stored is not told to send it again."""
    text = str(errors.RunLimitReached(saved_in="0f0e"))
    assert "Message saved" in text
    assert "/api/conversations/0f0e/run" in text


def test_validation_problems_are_handed_on_as_a_list() -> None:
    """The body of a 422 is pydantic's list, not its text."""
    assert errors.InvalidRequest(PROBLEMS).detail == PROBLEMS
    assert str(errors.InvalidRequest(PROBLEMS)) == "1 validation errors"
