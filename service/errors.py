"""Every error Fanout raises on purpose.

    FanoutError
    ├── Refused                     the request itself is wrong; repeating it changes nothing
    │   ├── InvalidRequest          422, a pydantic error list or one sentence
    │   ├── BadRequest              400
    │   ├── Unauthorized            401
    │   ├── Forbidden               403
    │   ├── NotFound                404
    │   │   ├── ConversationNotFound
    │   │   └── EventNotFound
    │   ├── Conflict                409
    │   │   ├── AlreadyRunning
    │   │   └── OwnershipLost
    │   ├── SourceRefused           422, a code and a sentence
    │   ├── RunLimitReached         429
    │   └── BashLimitReached        429
    ├── Unavailable                 nothing happened; the same request may work shortly (503 + Retry-After)
    │   ├── NoRunner
    │   ├── OwnerMoving
    │   ├── Dormant
    │   └── BrokerUnavailable
    ├── Disabled                    503, the configuration leaves it out; trying again does not help
    ├── Unsupported                 501, another server cannot do what this would need
    ├── RemoteUnavailable           502, another server that this needs does not answer, fails or refuses
    ├── RemoteTimedOut              504, likewise
    ├── SourceUnavailable           502, as SourceRefused
    ├── SourceTimedOut              504, likewise
    ├── OutcomeUnknown              it may or may not have happened; retry with the same idempotency key (504)
    └── RequestFailed               500, a failure of the work itself, with its text

An error raised in a runner reaches the client through a web worker: `to_wire` and `from_wire` carry it
across as its `code` and fields. `service.blueprints.http.errors` maps each leaf to a status, once.
"""

from __future__ import annotations

from typing import Any, ClassVar

JsonObject = dict[str, Any]


class FanoutError(Exception):
    """Root of the tree. Subclasses set `code`, keep their fields as attributes and build their own text."""

    code: ClassVar[str] = "error"
    _by_code: ClassVar[dict[str, type[FanoutError]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            FanoutError._by_code[cls.code] = cls

    def fields(self) -> JsonObject:
        """The constructor's keyword arguments, all JSON values."""
        return dict(vars(self))

    @property
    def detail(self) -> Any:
        """What the client is told: a sentence, or a list of validation errors."""
        return str(self)


class _Reasoned(FanoutError):
    """Its text is the `reason` that it is given."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class _Fixed(FanoutError):
    """Its text is always the same."""

    text: ClassVar[str]

    def __init__(self) -> None: ...

    def __str__(self) -> str:
        return self.text


class Refused(FanoutError):
    """The request itself is wrong; repeating it unchanged gives the same answer."""


class InvalidRequest(Refused):
    """The request does not validate.

    `problems` is one sentence, a pydantic error list with secrets already redacted, or what has a `message`.
    """

    code = "invalid_request"

    def __init__(self, problems: str | list[JsonObject] | JsonObject) -> None:
        self.problems = problems

    @property
    def detail(self) -> Any:
        return self.problems

    def __str__(self) -> str:
        match self.problems:
            case str(sentence) | {"message": str(sentence)}:
                return sentence
        return f"{len(self.problems)} validation errors"


class BadRequest(_Reasoned, Refused):
    """The request is well formed and makes no sense here."""

    code = "bad_request"


class Unauthorized(_Fixed, Refused):
    """No key, or none that is configured."""

    code = "unauthorized"
    text = "Unauthorized"


class Forbidden(_Reasoned, Refused):
    """The server's user may not do it."""

    code = "forbidden"


class NotFound(_Reasoned, Refused):
    """Something named in the request does not exist."""

    code = "not_found"

    def __init__(self, reason: str = "Not Found") -> None:
        super().__init__(reason)


class ConversationNotFound(NotFound):
    """No directory of that id exists; a conversation that is moving or has no owner is *not* this."""

    code = "conversation_not_found"

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id

    def __str__(self) -> str:
        return f"Conversation not found: {self.conversation_id}"


class EventNotFound(NotFound):
    """The conversation exists and holds no event of that id."""

    code = "event_not_found"

    def __init__(self, event_id: str) -> None:
        self.event_id = event_id

    def __str__(self) -> str:
        return f"Event not found: {self.event_id}"


class Conflict(_Reasoned, Refused):
    """The request contradicts the current state."""

    code = "conflict"


class AlreadyRunning(_Fixed, Conflict):
    """A run is in progress; there is one at a time per conversation."""

    code = "already_running"
    text = "Conversation already running. Wait for completion or pause first."


class OwnershipLost(_Fixed, Conflict):
    """Another runner took the conversation over; this write did not happen."""

    code = "ownership_lost"
    text = "Conversation is owned by another agent server instance; the write was refused"


class RemoteUnavailable(_Reasoned):
    """Another server that was to be asked cannot be reached, fails, or refuses our credentials."""

    code = "remote_unavailable"


class RemoteTimedOut(_Reasoned):
    """Another server that was asked did not answer in time."""

    code = "remote_timed_out"


class Unsupported(_Reasoned):
    """Another server that was asked cannot do it."""

    code = "unsupported"


class _SourceProblem:
    """Why a plugin cannot be had from where it should come from; `reason_code` is the SDK's."""

    def __init__(self, reason_code: str, reason: str) -> None:
        self.reason_code = reason_code
        self.reason = reason

    @property
    def detail(self) -> Any:
        return {"code": self.reason_code, "message": self.reason}

    def __str__(self) -> str:
        return self.reason


class SourceRefused(_SourceProblem, Refused):
    """What was asked for is not there, or may not be used."""

    code = "source_refused"


class SourceUnavailable(_SourceProblem, FanoutError):
    """It cannot be reached."""

    code = "source_unavailable"


class SourceTimedOut(_SourceProblem, FanoutError):
    """It did not answer in the time that the client gave it."""

    code = "source_timed_out"


class RunLimitReached(Refused):
    """No run slot is free. With `saved_in`, the message was stored all the same."""

    code = "run_limit_reached"

    def __init__(self, saved_in: str | None = None) -> None:
        self.saved_in = saved_in

    def __str__(self) -> str:
        if self.saved_in is None:
            return "Conversation run limit reached. Retry the request later."
        return (
            "Message saved, but the conversation run limit was reached. Retry POST "
            f"/api/conversations/{self.saved_in}/run without resending the message."
        )


class BashLimitReached(_Fixed, Refused):
    """The runner has as many bash commands as it may; nothing was started."""

    code = "bash_limit_reached"
    text = "Bash command limit reached. Retry the request later."


class Unavailable(_Reasoned):
    """Nothing happened, and the same request may succeed shortly."""

    code = "unavailable"


class Disabled(_Reasoned):
    """The configuration leaves it out, so trying again does not help."""

    code = "disabled"


class NoRunner(_Fixed, Unavailable):
    """No live runner could take the request."""

    code = "no_runner"
    text = "No runner is available right now. Retry the request."


class OwnerMoving(Unavailable):
    """The conversation is between two owners."""

    code = "owner_moving"

    def __init__(self, conversation_id: str) -> None:
        self.conversation_id = conversation_id

    def __str__(self) -> str:
        return f"Conversation {self.conversation_id} is moving between runners. Retry the request."


class Dormant(Unavailable):
    """The start is deferred, and the configuration has not come yet."""

    code = "dormant"

    def __init__(self, state: str) -> None:
        self.state = state

    def __str__(self) -> str:
        return f"server is in deferred-init state '{self.state}'; call POST /api/init first"


class BrokerUnavailable(_Fixed, Unavailable):
    """Redis did not answer. The cause is in `__cause__`."""

    code = "broker_unavailable"
    text = "The message broker is unavailable. Retry the request."


class OutcomeUnknown(FanoutError):
    """A request was delivered and no reply came before its deadline; it may have had its effect."""

    code = "outcome_unknown"

    def __init__(self, operation: str, waited_seconds: float) -> None:
        self.operation = operation
        self.waited_seconds = waited_seconds

    def __str__(self) -> str:
        return (
            f"No answer to {self.operation} within {self.waited_seconds:g} s; it may still take effect. "
            "Retry with the same Idempotency-Key."
        )


class RequestFailed(_Reasoned):
    """The work was tried and failed for a reason the client can be told, such as an LLM provider's error."""

    code = "request_failed"


def to_wire(error: FanoutError) -> JsonObject:
    """`{"code": ..., "fields": {...}}`, all JSON values."""
    return {"code": error.code, "fields": error.fields()}


def from_wire(wire: JsonObject) -> FanoutError:
    """The same error on the other side; an unknown code (a newer runner) becomes `RequestFailed`."""
    cls = FanoutError._by_code.get(wire["code"])
    if cls is None:
        return RequestFailed(f"{wire['code']}: {wire['fields']}")
    return cls(**wire["fields"])
