"""The `fanout` command."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Annotated, NoReturn

import structlog
import typer
from rich.console import Console
from rich.markup import escape
from sanic import Sanic
from sanic.worker.loader import AppLoader

from service.app import create_app
from service.conversations_command import conversations
from service.doctor import NO_KEY, Level, examine
from service.logs import configure_logging
from service.private_redis import RedisServerMissing, require_redis_server
from service.runner.fleet import run_fleet
from service.settings import Settings
from service.settings.errors import SettingsError
from service.settings.loading import hand_down, load_settings
from service.settings.secrets import forget_secrets
from service.supervisor import CannotListen, require_address

_BACKLOG = 1024

_MARKS = {Level.GOOD: "[green]good   [/]", Level.WARNING: "[yellow]warning[/]", Level.PROBLEM: "[red]problem[/]"}

cli = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
cli.add_typer(conversations, name="conversations")

Host = Annotated[str | None, typer.Option(help="Address to listen on. Default: 127.0.0.1 without keys, else 0.0.0.0.")]
Port = Annotated[int | None, typer.Option(help="TCP port to listen on. Default: 8000.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Web worker processes. Default: 1.")]


@cli.callback()
def fanout() -> None:
    """An OpenHands agent server that spreads over many processes and hosts.

    `fanout serve` is all it takes on one machine. Settings come from the environment and a JSON file
    (docs/configuration.md lists them); what is said here goes over both.
    """


@cli.command()
def serve(
    host: Host = None,
    port: Port = None,
    workers: Workers = None,
    runners: Annotated[int | None, typer.Option(min=0, help="Runner processes. Default: 1.")] = None,
) -> None:
    """Serve everything on this machine.

    One worker and one runner share one process and need no Redis. More are processes of their own; without REDIS_URL
    they get a private redis-server, which ends with them.
    """
    settings = _settings(host=host, port=port, workers=workers, runners=runners)
    if settings.workers == 1 and settings.runners <= 1:
        _serve_in_one_process(settings)
    _serve_in_processes(settings)


@cli.command()
def web(host: Host = None, port: Port = None, workers: Workers = None) -> None:
    """Serve the web role only: as many workers as you like, on any host that shares Redis and the disk."""
    settings = _settings(host=host, port=port, workers=workers, runners=0)
    _require_redis(settings)
    _serve_in_processes(settings)


@cli.command()
def runner(
    processes: Annotated[int, typer.Option(min=1, help="Runner processes on this machine.")] = 1,
) -> None:
    """Run conversations: as many runners as you like, on any host that shares Redis and the disk."""
    settings = _settings()
    _require_redis(settings)
    run_fleet(settings, processes)


@cli.command()
def demo() -> None:
    """Watch an agent write a small program and run it; needs no network and no API key.

    A server and a scripted LLM are started on the loopback address, in a folder that is removed at the end. Exit status
    0 when the agent has finished.
    """
    from service.demo.play import play  # it imports the SDK, which takes seconds

    raise typer.Exit(play())


@cli.command()
def doctor() -> None:
    """Look at disk, locks, Redis, clocks and versions with the settings that a server would have here, and explain.

    Exit status 1 when there is a problem; warnings leave it 0.
    """
    console = Console(soft_wrap=True, highlight=False)
    findings = asyncio.run(examine(load_settings()))
    for finding in findings:
        console.print(f"{_MARKS[finding.level]} [bold]{finding.subject}[/]  {escape(finding.what)}")
        if finding.advice:
            console.print(f"         {escape(finding.advice)}")
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point. What its user can mend ends the process with one line."""
    try:
        cli()
    except (SettingsError, CannotListen, RedisServerMissing) as error:
        sys.exit(f"fanout: {error}")


def _serve_in_one_process(settings: Settings) -> NoReturn:
    _require_address(settings)
    app = create_app(settings)
    forget_secrets()
    app.run(
        host=settings.bind_host,
        port=settings.port,
        single_process=True,
        backlog=_BACKLOG,
        access_log=False,
        motd=False,
    )
    _exit()


def _serve_in_processes(settings: Settings) -> NoReturn:
    # Both now and not when Sanic starts: it would log the failure as an exception of its own.
    if settings.redis_address is None:
        require_redis_server()
    _require_address(settings)
    app = create_app(settings)
    app.prepare(
        host=settings.bind_host,
        port=settings.port,
        workers=settings.workers,
        backlog=_BACKLOG,
        access_log=False,
        motd=False,
    )
    # Workers make their app from the environment, which says what the command line said.
    Sanic.serve(primary=app, app_loader=AppLoader(factory=create_app))
    _exit()


def _require_address(settings: Settings) -> None:
    """Raises CannotListen. What nobody's key protects is said in the log before anybody can come."""
    if settings.is_open_to_others:
        structlog.get_logger(__name__).warning("no_key", host=settings.bind_host, reason=NO_KEY)
    require_address(settings.bind_host, settings.port)


def _require_redis(settings: Settings) -> None:
    if settings.redis_address is None:
        sys.exit("fanout: this role needs a Redis that its peers share: set REDIS_URL")


def _exit() -> NoReturn:
    """End now: everything is closed, and Python would wait for the threads of tools that do not end."""
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(0)


def _settings(**given: str | int | None) -> Settings:
    """The settings, the command line over everything else."""
    loaded = load_settings()
    configure_logging(loaded)
    for notice in loaded.notices:
        structlog.get_logger(__name__).warning("setting_ignored", reason=notice)
    return hand_down(loaded, **{name: value for name, value in given.items() if value is not None})
