"""The SDK's request models, with errors in the contract's shape."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from service.errors import InvalidRequest
from service.redaction import redact_problems


def parse[Model: BaseModel](model: type[Model], body: bytes, context: dict[str, Any] | None = None) -> Model:
    """The body as `model`. The caller has checked that it is JSON.

    Raises:
        InvalidRequest: pydantic's error list, each `loc` under `body`, secrets redacted; or one sentence.
    """
    try:
        # Not `model_validate_json`, and from_attributes: both only change the wording, to the published server's.
        return model.model_validate(from_json(body), context=context, from_attributes=True)
    except ValidationError as error:
        raise invalid(error) from None
    except (AttributeError, TypeError, ValueError, re.error) as error:
        # The SDK's own validators assume what a client need not send (workspace: {}, a tag that is no text, a pattern
        # that is none).
        raise InvalidRequest(f"The request is not well formed: {error}") from error


def invalid(error: ValidationError) -> InvalidRequest:
    """A pydantic error as the client is told it."""
    problems = [{**problem, "loc": ["body", *problem["loc"]]} for problem in error.errors(include_url=False)]
    return InvalidRequest(redact_problems(problems))
