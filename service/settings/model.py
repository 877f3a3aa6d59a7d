"""Every setting of the server.

Names and forms are the published server's (1.58), so that a deployment's configuration carries over;
`docs/configuration.md` is generated from here and lists the differences.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from service.settings.values import (
    DEFAULT_LEASE_TTL_SECONDS,
    AbsolutePath,
    DebugFlag,
    Flag,
    HttpUrl,
    Integer,
    LeaseSeconds,
    LocalRuntime,
    LogLevel,
    Marketplace,
    Named,
    Number,
    OptionalPath,
    OptionalSeconds,
    OptionalText,
    RedisUrl,
    Regex,
    SecretKeys,
    WebhookSpec,
)

_MIB = 1024**2
_LOCAL_ADDRESSES = ("127.0.0.1", "::1", "localhost")


class Settings(BaseModel):
    """What the server was told, checked. Immutable, picklable, and silent about secrets in `repr` and dumps.

    `load_settings` makes one from the environment and files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    SECTIONS: ClassVar[dict[str, str]] = {
        "session_api_keys": "Keys and secrets",
        "host": "Where it listens and how it looks from outside",
        "conversations_path": "Where things are kept",
        "redis_url": "Processes and Redis",
        "max_concurrent_runs": "Runs and ownership",
        "event_cache_bytes": "Bounds",
        "webhooks": "Webhooks and marketplaces",
        "enable_vscode": "Tools and editors",
        "metrics_key": "Metrics, logs and build",
    }
    """The heading each group of fields begins with, by its first field. A group has one kind of reader."""

    session_api_keys: SecretKeys = Field(
        (),
        description="Keys that open the API; any one of them does. Empty strings are dropped; without a key every "
        "route is open. Where no source lists a key, `SESSION_API_KEY` is the only one.",
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Encrypts secrets at rest. Null or blank: `SESSION_API_KEY`, else the first session key, however "
        "it was given, else secrets are not kept over a restart.",
    )
    previous_secret_keys: SecretKeys = Field((), description="Former values of `secret_key`; used to decrypt only.")
    deferred_init: Flag = Field(False, description="Start dormant and wait for `POST /api/init`.")

    host: OptionalText = Field(
        None, description="Address to listen on. Null: `127.0.0.1` without session keys, `0.0.0.0` with."
    )
    port: Integer = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    web_url: OptionalText = Field(
        None, description="URL under which clients reach the server; its path is accepted as a prefix of every route."
    )
    app_backend_public_url: OptionalText = Field(
        None, description="Public URL of an application backend in front, announced in `/server_info`."
    )
    internal_server_url: HttpUrl | None = Field(
        None,
        description="URL under which agents reach a web server of this deployment. Null: where `serve` listens; a "
        "`runner` on its own knows none.",
    )
    trust_forwarded_headers: Flag = Field(
        False,
        description="Redirect to the scheme and host that `X-Forwarded-*` headers name; only behind a proxy.",
    )
    allow_cors_origins: tuple[str, ...] = Field(
        (), description="Origins that browsers may call from, beside localhost and `docker_host_addr`."
    )
    allow_cors_origin_regex: Regex = Field(None, description="Regular expression for further origins.")
    docker_host_addr: Annotated[OptionalText, Named(("DOCKER_HOST_ADDR",))] = Field(
        None, description="Host name whose origins are allowed on every port."
    )

    conversations_path: AbsolutePath = Field(
        Path("workspace/conversations"), description="Folder of the conversations; shared by all runners and workers."
    )
    workspace_path: AbsolutePath = Field(
        Path("workspace/project"), description="Working folder of conversations that the server makes itself."
    )
    conversation_worktree_root: AbsolutePath = Field(
        Path("/tmp/conversation-worktrees"), description="Folder of the git worktrees made for conversations."
    )
    bash_events_dir: AbsolutePath = Field(
        Path("workspace/bash_events"), description="Folder of commands run through `/api/bash` and their output."
    )
    bash_events_retention_seconds: Integer | None = Field(
        None, gt=0, description="Seconds after which these are deleted. Null: kept."
    )
    persistence_dir: OptionalPath = Field(
        None,
        description="Folder of settings, secrets and profiles. Null: `~/.openhands`, or `.openhands` beside "
        "`conversations_path`, by what is kept.",
    )
    static_files_path: OptionalPath = Field(
        None, description="Folder served under `/static` to everybody, without a key. Null: none."
    )

    redis_url: Annotated[RedisUrl, Named(("OH_REDIS_URL", "REDIS_URL"))] = Field(
        None, description="`redis://`, `rediss://` or `unix://` URL of the shared Redis. Null: one inside the process."
    )
    redis_namespace: str = Field(
        "fanout", min_length=1, description="Prefix of every Redis key and channel, so that deployments can share one."
    )
    workers: Integer = Field(1, ge=1, description="Web worker processes.")
    runners: Integer = Field(1, ge=0, description="Runner processes started beside them; 0: web only.")
    request_timeout_seconds: Number = Field(
        60.0, gt=0, description="Seconds a web worker waits for a runner's answer to an ordinary request."
    )
    drain_seconds: Number = Field(
        30.0, ge=0, description="Seconds a stopping runner gives its runs to reach a step's end."
    )

    max_concurrent_runs: Integer = Field(
        10, ge=1, description="Runs at the same time in one runner; more are answered 429."
    )
    max_cluster_runs: Integer | None = Field(
        None, ge=1, description="Runs at the same time in all runners together. Null: no limit."
    )
    resume_runs: Flag = Field(True, description="Continue a run whose runner died on the runner that takes it over.")
    fsync: Flag = Field(
        True, description="Wait for the disk before a write is acknowledged. Off is faster; a power cut may lose it."
    )
    lease_ttl_seconds: LeaseSeconds = Field(
        DEFAULT_LEASE_TTL_SECONDS,
        ge=1,
        description="Seconds after which a silent runner loses its conversations. 0, which turned leases off on the "
        "published server, means the default here and is remarked on at the start.",
    )
    conversation_idle_ttl_seconds: Number | None = Field(
        1200.0, gt=0, description="Seconds without activity after which a conversation leaves memory. Null: never."
    )
    conversation_runtime: LocalRuntime = Field(
        "local", description="Where conversations run. `docker` is not served and stops the start."
    )

    event_cache_bytes: Integer = Field(
        64 * _MIB, ge=0, description="Bytes of stored events that each web worker keeps in memory."
    )
    socket_backlog_bytes: Integer = Field(
        4 * _MIB, ge=1, description="Bytes published and not yet written to one socket before it reads from the log."
    )
    socket_stall_seconds: Number = Field(
        30.0, gt=0, description="Seconds after which a socket that takes nothing is closed (1013)."
    )
    socket_ping_seconds: Number = Field(
        10.0,
        gt=0,
        description="Seconds between pings on a socket; who leaves one unanswered for two is closed (1011).",
    )
    request_max_bytes: Integer = Field(100 * _MIB, ge=1, description="Bytes of the largest request body; more is 413.")

    upload_max_bytes: Integer = Field(10 * 1024 * _MIB, ge=1, description="Bytes of the largest upload; more is 413.")
    max_bash_commands: Integer = Field(
        256, ge=1, description="Bash commands at the same time in one runner; more are answered 429."
    )
    bash_output_max_characters: Integer = Field(
        64 * _MIB,
        ge=_MIB,
        description="Characters of one bash command's output that are kept; the middle of what is longer is left out.",
    )

    webhooks: tuple[WebhookSpec, ...] = Field((), description="Receivers of events and conversation changes.")
    registered_marketplaces: tuple[Marketplace, ...] = Field(
        (), description="Where plugins and skills of agents that name no marketplaces of their own are resolved from."
    )
    github_api_url: HttpUrl = Field(
        "https://api.github.com", description="Where repositories are looked for; a GitHub Enterprise has its own."
    )
    acp_skill_sourcing: Literal["native", "openhands_managed"] = Field(
        "native", description="Who gives ACP agents their skills: themselves, or this server."
    )

    direct_llm_requests: Flag = Field(
        False,
        description="Have litellm make requests to OpenAI-compatible LLMs itself, not through the `openai` package: an "
        "agent's step takes half the CPU. litellm calls it experimental; an LLM's refusals are shown as raw JSON.",
    )

    enable_vscode: Flag = Field(True, description="Serve an editor where it is installed.")
    vscode_port: Integer = Field(8001, ge=1, le=65535, description="TCP port of the editor.")
    vscode_path: str = Field("/openhands/.openvscode-server", description="Directory of OpenVSCode Server.")
    vscode_base_path: OptionalText = Field(None, description="Path that a proxy adds before the editor's URLs.")
    enable_vnc: Flag = Field(False, description="Serve a desktop where it is installed.")
    novnc_port: Annotated[Integer, Named(("NOVNC_PORT",))] = Field(
        8002, ge=1, le=65535, description="TCP port of the desktop in the browser."
    )
    novnc_web: Annotated[str, Named(("NOVNC_WEB",))] = Field(
        "/opt/novnc-web", description="Directory of noVNC's pages."
    )
    vnc_display: str = Field(":1", pattern=r"^:\d{1,4}$", description="X display of the desktop, such as :1.")
    vnc_geometry: Annotated[str, Named(("VNC_GEOMETRY",))] = Field(
        "1280x800", pattern=r"^\d{2,5}x\d{2,5}$", description="Size of the desktop in pixels."
    )
    enable_browser: Flag = Field(True, description="Offer the browser tool where a browser is installed.")
    extra_python_path: OptionalText = Field(
        None,
        description="Folders, divided by colons, in which conversations find Python modules with tools of their own.",
    )
    preload_tools: Flag = Field(True, description="Accepted; tools are always loaded when a runner starts.")
    runtime_idle_timeout_seconds: OptionalSeconds = Field(
        None,
        gt=0,
        description="Seconds after which the host stops an idle machine; caps foreground commands at 0.9 of "
        "it. Null, blank or 0: never.",
    )

    metrics_key: SecretStr | None = Field(
        None, description="Token that `/metrics` demands (`Authorization: Bearer`). Null or blank: open, as `/docs` is."
    )
    metrics_port: Integer | None = Field(
        None, ge=1, le=65535, description="TCP port on which `fanout runner` serves `/metrics`. Null: none."
    )
    trace_endpoint: HttpUrl | None = Field(
        None,
        description="Where traces are posted, OTLP over HTTP (`http://collector:4318/v1/traces`); needs the extra "
        "`tracing`. Null: nothing is traced.",
    )
    debug: Annotated[DebugFlag, Named(("DEBUG",))] = Field(
        False, description="Log at DEBUG and put tracebacks into 5xx bodies. Any text but 1, true, yes and on is false."
    )
    log_level: Annotated[LogLevel, Named(("LOG_LEVEL",))] = Field(
        "INFO", description="Least severity that is logged, in any case; WARN, FATAL and TRACE are understood."
    )
    log_json: Annotated[Flag, Named(("LOG_JSON",))] = Field(False, description="Log one JSON object a line.")
    build_git_sha: Annotated[str, Named(("OPENHANDS_BUILD_GIT_SHA",))] = Field(
        "unknown", description="Commit the image was built from, shown in `/server_info`."
    )
    build_git_ref: Annotated[str, Named(("OPENHANDS_BUILD_GIT_REF",))] = Field(
        "unknown", description="Branch or tag the image was built from, shown in `/server_info`."
    )

    _notices: tuple[str, ...] = PrivateAttr(())

    @property
    def auth_keys(self) -> tuple[str, ...]:
        """The accepted session keys in clear, for the comparer. Empty: authentication is off."""
        return tuple(key.get_secret_value() for key in self.session_api_keys)

    @property
    def cipher_key(self) -> str | None:
        """The key that encrypts secrets at rest, in clear, or None: they cannot be kept."""
        given = self.secret_key.get_secret_value() if self.secret_key is not None else ""
        return given if given.strip() else next(iter(self.auth_keys), None)

    @property
    def previous_cipher_keys(self) -> tuple[str, ...]:
        """Keys that decrypt and never encrypt, in clear, newest first as given."""
        return tuple(key.get_secret_value() for key in self.previous_secret_keys)

    @property
    def persistence_root(self) -> Path:
        """Where settings, secrets, profiles, skills and plugins are kept."""
        return self.persistence_dir or Path("~/.openhands").expanduser()

    @property
    def redis_address(self) -> str | None:
        """`redis_url` in clear, password included, or None."""
        return self.redis_url.get_secret_value() if self.redis_url is not None else None

    @property
    def metrics_token(self) -> str | None:
        """`metrics_key` in clear, or None: anybody may read the metrics."""
        given = self.metrics_key.get_secret_value() if self.metrics_key is not None else ""
        return given.strip() or None

    @property
    def bind_host(self) -> str:
        """The address to listen on; open to other hosts by default only if keys protect it."""
        return self.host or ("0.0.0.0" if self.session_api_keys else "127.0.0.1")

    @property
    def is_open_to_others(self) -> bool:
        """Whether other hosts reach the server, and no key is asked for."""
        return not self.auth_keys and self.bind_host not in _LOCAL_ADDRESSES

    @property
    def own_url(self) -> str | None:
        """Under which processes of this machine reach the web role; None while the port is not known."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.bind_host, self.bind_host)
        return f"http://{host}:{self.port}" if self.port else None

    @property
    def root_path(self) -> str:
        """The path of `web_url` as a route prefix: `/a/b`, or '' if there is none."""
        return urlsplit(self.web_url or "").path.rstrip("/")

    @property
    def effective_log_level(self) -> str:
        """`log_level`, or DEBUG in debug mode."""
        return "DEBUG" if self.debug else self.log_level

    @property
    def notices(self) -> tuple[str, ...]:
        """Lines for the log at the start about what was given and not obeyed. Empty if constructed directly."""
        return self._notices
