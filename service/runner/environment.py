"""The environment of a runner, which the SDK reads and all that agents start inherits."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_DEFAULTS = {
    # Without it importing litellm fetches a price list over the network and leaves a retrying thread behind.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENHANDS_SUPPRESS_BANNER": "1",
    # The SDK would configure the root logger at import, with tracebacks that take seconds to render.
    "LOG_AUTO_CONFIG": "false",
    "LOG_RICH_TRACEBACKS": "false",
}


DIRECT_LLM_REQUESTS = {"EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "true"}
"""litellm's switch, which it asks for at each request.

The `openai` package compares every message of a request, at every step again, with the types it knows.
"""


def import_sdk() -> None:
    """Import what a runner is made of, with the environment that it has to find. Blocking, for seconds."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    # Nearly all that an import makes is there to stay; looking for garbage in it takes a seventh of the time.
    gc.disable()
    try:
        import service.runner.deferred  # noqa: F401  the point of it
    finally:
        gc.enable()
    # Nor is there any to be found later, and a look at all of it would stop this process for a third of a second.
    gc.freeze()


@contextmanager
def environment_variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set these for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
