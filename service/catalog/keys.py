"""Every key and channel on Redis, which docs/redis.md lists: who writes and reads each, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from service.identity import RunnerId


@dataclass(frozen=True, slots=True)
class Keys:
    """Names under one namespace: two deployments may share a Redis."""

    namespace: str

    @property
    def runners(self) -> str:
        return f"{self.namespace}:runners"

    def runner(self, runner_id: RunnerId) -> str:
        return f"{self.namespace}:runner:{runner_id}"

    def owner(self, conversation_id: UUID) -> str:
        return f"{self.namespace}:owner:{conversation_id.hex}"

    @property
    def index_created(self) -> str:
        return f"{self.namespace}:index:created"

    @property
    def index_updated(self) -> str:
        return f"{self.namespace}:index:updated"

    @property
    def index_status(self) -> str:
        return f"{self.namespace}:index:status"

    @property
    def index_running(self) -> str:
        return f"{self.namespace}:index:running"

    @property
    def index_building(self) -> str:
        return f"{self.namespace}:index:building"

    @property
    def untold(self) -> str:
        return f"{self.namespace}:untold"

    @property
    def goals(self) -> str:
        return f"{self.namespace}:goals"

    @property
    def runs(self) -> str:
        return f"{self.namespace}:runs"

    @property
    def activity(self) -> str:
        return f"{self.namespace}:activity"

    def watchers(self, conversation_id: UUID) -> str:
        return f"{self.namespace}:watchers:{conversation_id.hex}"

    def oauth_job(self, job_id: str) -> str:
        return f"{self.namespace}:oauth:{job_id}"

    @property
    def store_lock(self) -> str:
        return f"{self.namespace}:store:lock"

    @property
    def init(self) -> str:
        return f"{self.namespace}:init"

    @property
    def init_failure(self) -> str:
        return f"{self.namespace}:init:failure"

    def events(self, conversation_id: UUID) -> str:
        return f"{self.namespace}:events:{conversation_id.hex}"

    @property
    def bash(self) -> str:
        return f"{self.namespace}:bash"

    @property
    def bash_live(self) -> str:
        return f"{self.namespace}:bash:live"

    def bash_command(self, command_id: str) -> str:
        return f"{self.namespace}:bash:{command_id}"

    def inbox(self, runner_id: RunnerId) -> str:
        return f"{self.namespace}:inbox:{runner_id}"

    def replies(self, caller_id: str) -> str:
        return f"{self.namespace}:replies:{caller_id}"

    @property
    def control(self) -> str:
        return f"{self.namespace}:control"
