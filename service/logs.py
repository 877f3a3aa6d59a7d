"""Log lines: one event each, for people or as JSON, on standard error."""

from __future__ import annotations

import logging
import sys
from multiprocessing import current_process

import structlog

from service.settings import Settings

_NOISY = (
    "LiteLLM",
    "httpx",
    "openhands",
    "sanic.root",
    "sanic.server",
    "sanic.error",
    "sanic.websockets",
    # redis-py: at DEBUG it writes out each message it receives, with the keys that clients have posted.
    "push_response",
    "redis",
)


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's loggers for this process. Call once, at the entry point."""
    level = logging.getLevelNamesMapping()[settings.effective_log_level]
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    renderer = structlog.processors.JSONRenderer() if settings.log_json else console
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_process,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer]
        if settings.log_json
        else [*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line: the lines of several processes must not be mixed.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _add_process(_logger: object, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Which of the node's processes speaks."""
    line.setdefault("process", current_process().name)
    return line
