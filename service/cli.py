"""The `fanout` command."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, NoReturn

import typer

from service.app import create_app
from service.logs import configure_logging
from service.settings import Settings, SettingsError, load_settings

_BACKLOG = 1024

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@cli.callback()
def fanout() -> None:
    """An OpenHands agent server that spreads over many processes and hosts."""


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1 without keys.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port to listen on. Default: 8000.")] = None,
) -> None:
    """Serve in one process: web and runner together, no Redis needed."""
    settings = _settings(host=host, port=port)
    configure_logging(settings)
    app = create_app(settings)
    app.run(
        host=settings.bind_host,
        port=settings.port,
        single_process=True,
        backlog=_BACKLOG,
        access_log=False,
        motd=False,
    )
    _exit()


def main() -> None:
    """Entry point."""
    cli()


def _exit() -> NoReturn:
    """End now: everything is closed, and Python would wait for the threads of tools that do not end."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(0)


def _settings(**given: str | int | None) -> Settings:
    """The settings, the command line over everything else; a bad value ends the process with one line."""
    try:
        settings = load_settings()
        changes = {name: value for name, value in given.items() if value is not None}
        return settings.model_validate({**settings.model_dump(), **changes}) if changes else settings
    except SettingsError as error:
        sys.exit(f"fanout: {error}")
