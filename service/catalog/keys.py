"""Every key and channel on Redis. Nothing here holds what cannot be made again from the disk.

| key (after `<namespace>:`)    | type    | TTL              | written by        | read by        |
|-------------------------------|---------|------------------|-------------------|----------------|
| runners                       | zset    | none             | runner heartbeat  | web, runner    |
| runner:<runner id>            | string  | 3 heartbeats     | runner heartbeat  | web            |
| owner:<hex id>                | string  | lease TTL        | runner            | web, runner    |
| index:created, index:updated  | zset    | none             | runner            | web            |
| index:status                  | hash    | none             | runner            | web            |
| index:running                 | set     | none             | runner            | runner         |
| index:building                | string  | 60 s             | index builder     | index builder  |
| untold                        | set     | none             | runner            | runner         |
| goals                         | set     | none             | runner            | runner         |
| runs                          | zset    | none (scores)    | runner            | runner         |
| activity                      | string  | none             | runner            | web            |
| watchers:<hex id>             | hash    | 15 s             | web               | web            |
| oauth:<job id>                | string  | 900 s            | runner, web       | web            |
| store:lock                    | string  | 30 s             | runner            | runner         |
| init                          | hash    | 60 s             | web, runner       | web, runner    |
| init:failure                  | string  | none             | web               | web            |

| channel                       | published by | heard by                      | carries                    |
|-------------------------------|--------------|-------------------------------|----------------------------|
| events:<hex id>               | owner, web   | web workers with sockets      | `pubsub.envelope`          |
| bash                          | runner       | web workers with bash sockets | `pubsub.envelope`          |
| bash:<hex command id>         | runner       | who waits for the command     | `pubsub.envelope`, empty   |
| bash:live                     | runner       | who watches all output        | `pubsub.envelope`, an id   |
| inbox:<runner id>             | web, runner  | that runner                   | `requests.message` request |
| replies:<caller id>           | runner       | that caller                   | `requests.message` reply   |
| control                       | nobody       | every listener                | nothing; keeps it connected|
"""

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
