"""Web workers ask, runners answer: on the embedded Redis and on a real one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID

import pytest

from service import redis_source
from service.blueprints.bash import Scope, ask_runner_of
from service.blueprints.http.context import WebContext
from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.catalog.runners import RunnerRecord
from service.errors import (
    BrokerUnavailable,
    ConversationNotFound,
    InvalidRequest,
    NoRunner,
    OutcomeUnknown,
    OwnerMoving,
    RequestFailed,
)
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.redis_source import RedisSource
from service.requests import requester as requester_module
from service.requests.message import IN_PROGRESS, Answer, Reply, Request, encode_reply
from service.requests.requester import Requester
from service.requests.responder import Responder
from service.settings import Settings
from service.store.bash_history import BashHistory, new_command_id
from service.store.running_commands import RunningCommand
from tests.faults.owner import stopped
from tests.integration.listening import Listening, make_broker
from tests.redis_process import RedisProcess
from tests.redis_under_test import RedisUnderTest
from tests.waiting import wait_until, wait_until_async

ID = UUID(int=1)
ONE, OTHER, THIRD = (RunnerId(name) for name in ("one", "other", "third"))
LEASE_SECONDS = 30.0
PATIENCE_SECONDS = 10.0

Handler = Callable[[Request], Awaitable[Answer]]


class Deployment:
    """A catalog, and runners and web workers made on demand."""

    def __init__(self, source: RedisSource, stack: AsyncExitStack) -> None:
        self.source = source
        self.keys = Keys(source.namespace)
        self._stack = stack
        redis = source.commands()
        stack.push_async_callback(redis.aclose)
        self.catalog = Catalog(redis, self.keys, LEASE_SECONDS)

    async def runner(self, runner_id: RunnerId, handle: Handler | None = None, *, load: int = 0) -> list[Request]:
        """A runner that shows up and answers with its name or by `handle`; returns what it was asked, as it comes."""
        asked: list[Request] = []

        async def answer(request: Request) -> Answer:
            asked.append(request)
            return await handle(request) if handle is not None else Answer(200, runner_id.encode())

        broker = make_broker(self.source)
        self._stack.push_async_callback(broker.close)
        await self._stack.enter_async_context(
            Responder(broker, Channel(self.keys.inbox(runner_id)), answer, lambda: None)
        )
        await self.shows_up(runner_id, load)
        return asked

    async def shows_up(self, runner_id: RunnerId, load: int = 0, *, is_able: bool = True) -> None:
        """Its heartbeat is there, whether or not anybody listens."""
        await self.catalog.runners.beat(RunnerRecord(runner_id, load, {}, is_able))

    @asynccontextmanager
    async def web_worker(self, *, moving_seconds: float = 0.0) -> AsyncIterator[Requester]:
        """Somebody who asks."""
        broker = make_broker(self.source)
        requester = Requester(broker, self.catalog, timeout_seconds=PATIENCE_SECONDS, moving_seconds=moving_seconds)
        try:
            async with requester:
                yield requester
        finally:
            await broker.close()


@pytest.fixture
def deployment(source: RedisSource, stack: AsyncExitStack) -> Deployment:
    return Deployment(source, stack)


@pytest.fixture
async def requester(deployment: Deployment, stack: AsyncExitStack) -> Requester:
    """A web worker that does not wait for a conversation to find a new owner."""
    return await stack.enter_async_context(deployment.web_worker())


async def test_request_and_answer_pass_untouched(deployment: Deployment, requester: Requester) -> None:
    """Operation, conversation, arguments and body there; status and body back."""

    async def handle(request: Request) -> Answer:
        return Answer(201, request.body + b"\n\xff")

    asked = await deployment.runner(ONE, handle)
    answer = await requester.ask("conversation.create", ID, body=b"{\n}", arguments={"include_skills": True})
    assert answer == Answer(201, b"{\n}\n\xff")
    [request] = asked
    assert request[1:3] == ("conversation.create", ID)
    assert request[4:6] == ({"include_skills": True}, b"{\n}")


async def test_answers_find_the_one_who_asked(deployment: Deployment, requester: Requester) -> None:
    """Many questions at a time, from several workers, answered in another order."""

    async def handle(request: Request) -> Answer:
        for _ in range(10 - int(request.body) % 10):
            await asyncio.sleep(0)
        return Answer(200, request.body)

    await deployment.runner(ONE, handle)
    async with deployment.web_worker() as second:
        questions = [(worker, b"%d" % number) for number in range(20) for worker in (requester, second)]
        answers = await asyncio.gather(*(worker.ask("echo", body=body) for worker, body in questions))
    assert [answer.body for answer in answers] == [body for _, body in questions]


async def test_slow_request_holds_nobody_up(deployment: Deployment, requester: Requester) -> None:
    """A runner answers others while one waits."""
    release = asyncio.Event()

    async def handle(request: Request) -> Answer:
        if request.operation == "slow":
            await release.wait()
        return Answer(200, b"")

    await deployment.runner(ONE, handle)
    slow = asyncio.create_task(requester.ask("slow"))
    await requester.ask("quick")
    assert not slow.done()
    release.set()
    assert await slow == Answer(200, b"")


# Errors


@pytest.mark.parametrize(
    "error",
    [ConversationNotFound("0f0e"), InvalidRequest([{"loc": ["body"], "msg": "Field required"}]), RequestFailed("no")],
    ids=["leaf with a field", "list of problems", "failure"],
)
async def test_error_of_the_runner_is_raised_where_it_was_asked(
    deployment: Deployment, requester: Requester, error: Exception
) -> None:
    """As what it was, with its fields."""

    async def handle(request: Request) -> Answer:
        raise error

    await deployment.runner(ONE, handle)
    with pytest.raises(type(error)) as raised:
        await requester.ask("anything", ID)
    assert vars(raised.value) == vars(error)


async def test_crash_of_one_request_is_its_answer(deployment: Deployment, requester: Requester) -> None:
    """The runner goes on."""

    async def handle(request: Request) -> Answer:
        if request.body:
            raise ZeroDivisionError("by zero")
        return Answer(200, b"fine")

    await deployment.runner(ONE, handle)
    with pytest.raises(RequestFailed, match="ZeroDivisionError: by zero"):
        await requester.ask("anything", body=b"x")
    assert await requester.ask("anything") == Answer(200, b"fine")


async def test_late_answer_leaves_the_outcome_unknown(deployment: Deployment, requester: Requester) -> None:
    """The runner has the request; when its answer comes after all, nobody is disturbed."""
    release = asyncio.Event()

    async def handle(request: Request) -> Answer:
        if request.operation == "slow":
            await release.wait()
        return Answer(200, b"")

    asked = await deployment.runner(ONE, handle)
    with pytest.raises(OutcomeUnknown) as raised:
        await requester.ask("slow", timeout_seconds=0.1)
    assert (raised.value.operation, raised.value.waited_seconds) == ("slow", 0.1)
    assert len(asked) == 1
    release.set()
    assert await requester.ask("quick") == Answer(200, b"")
    assert requester.is_listening


@pytest.fixture
def quick_silence(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a runner may be silent, far below any other patience."""
    silence_seconds = 0.3
    monkeypatch.setattr(requester_module, "_SILENCE_SECONDS", silence_seconds)
    monkeypatch.setattr(requester_module, "_LOOK_AFTER_SECONDS", 0.05)
    return silence_seconds


async def never(request: Request) -> Answer:
    """A handler that is heard of no more."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    return await answer


async def test_silent_runner_leaves_the_outcome_unknown(
    deployment: Deployment, requester: Requester, quick_silence: float
) -> None:
    """What is told is how long it was waited for, not how long it might have been."""
    await deployment.runner(ONE, never)
    with pytest.raises(OutcomeUnknown) as raised:
        await requester.ask("anything", arguments={})
    assert quick_silence < raised.value.waited_seconds < PATIENCE_SECONDS / 2


async def test_silent_runners_request_goes_to_the_next_with_a_key(
    deployment: Deployment, requester: Requester, quick_silence: float
) -> None:
    """Which keeps it from having a second effect; when there is no next one the outcome is unknown."""
    asked = await deployment.runner(ONE, never)
    key = {"idempotency_key": "k"}
    with pytest.raises(OutcomeUnknown):
        await requester.ask("anything", arguments=key)
    await deployment.runner(OTHER, load=1)
    assert (await requester.ask("anything", arguments=key)).body == b"other"
    assert len(asked) == 2


async def test_progress_that_comes_as_the_silence_ends_is_heard(
    deployment: Deployment, requester: Requester, quick_silence: float
) -> None:
    """This process stood still meanwhile: it goes on listening, and the runner is not blamed for it."""

    async def handle(request: Request) -> Answer:
        async with Listening(deployment.source) as runner:
            progress = encode_reply(Reply(request.request_id, IN_PROGRESS, None, b""))
            await runner.broker.publish([(Channel(request.reply_to), progress)])
            give_up_at = time.monotonic() + 2 * quick_silence
            wait_until(lambda: time.monotonic() > give_up_at, "the silence has lasted too long")
        return Answer(200, b"after all")

    await deployment.runner(ONE, handle)
    assert (await requester.ask("anything")).body == b"after all"
    assert requester.is_listening


async def test_unreadable_messages_disturb_nobody(deployment: Deployment, requester: Requester) -> None:
    """Neither a runner's inbox nor a worker's replies."""
    await deployment.runner(ONE)
    await requester.ask("anything")
    async with Listening(deployment.source) as listening:
        inboxes = [Channel(deployment.keys.inbox(ONE)), Channel(requester._reply_to)]
        assert await listening.broker.publish([(inbox, b"[]") for inbox in inboxes]) == [1, 1]
    assert await requester.ask("anything") == Answer(200, b"one")


# Placement


async def test_without_runners_nobody_answers(requester: Requester) -> None:
    """Nothing happened, and the client may try again."""
    with pytest.raises(NoRunner):
        await requester.ask("anything")
    with pytest.raises(NoRunner):
        await requester.ask("anything", ID)


async def test_idlest_runner_is_asked(deployment: Deployment, requester: Requester) -> None:
    """For what concerns no conversation, or one without an owner."""
    await deployment.runner(ONE, load=3)
    await deployment.runner(OTHER, load=1)
    assert (await requester.ask("anything")).body == b"other"
    assert (await requester.ask("anything", ID)).body == b"other"


async def test_runner_that_is_not_able_is_asked_about_its_own_alone(
    deployment: Deployment, requester: Requester
) -> None:
    """It can open no file, but let go of what is open."""
    await deployment.runner(ONE)
    await deployment.shows_up(ONE, is_able=False)
    with pytest.raises(NoRunner):
        await requester.ask("anything")
    await deployment.catalog.owners.acquire(ID, ONE)
    assert await requester.ask("anything", ID) == Answer(200, ONE.encode())


async def test_runner_that_came_a_moment_ago_is_asked_when_the_known_one_is_gone(
    deployment: Deployment, requester: Requester
) -> None:
    """Who lives is remembered for a moment; that nobody received the request speaks against it."""
    await deployment.shows_up(ONE)
    with pytest.raises(NoRunner):
        await requester.ask("anything")
    await deployment.runner(OTHER, load=1)
    assert (await requester.ask("anything")).body == b"other"


async def test_runners_of_the_same_load_share_the_requests(deployment: Deployment, requester: Requester) -> None:
    """A burst does not land on one of them."""
    for runner_id in (ONE, OTHER):
        await deployment.runner(runner_id)
    answers = {(await requester.ask("anything")).body for _ in range(60)}
    assert answers == {b"one", b"other"}


async def test_owner_is_asked_about_its_conversation(deployment: Deployment, requester: Requester) -> None:
    """However busy it is."""
    await deployment.runner(ONE, load=9)
    await deployment.runner(OTHER)
    await deployment.catalog.owners.acquire(ID, ONE)
    assert (await requester.ask("anything", ID)).body == b"one"
    assert (await requester.ask("anything", UUID(int=2))).body == b"other"


async def test_owner_that_was_asked_is_asked_again(deployment: Deployment, requester: Requester) -> None:
    """Without a look at its lease, for a moment."""
    await deployment.runner(ONE, load=9)
    await deployment.runner(OTHER)
    await deployment.catalog.owners.acquire(ID, ONE)
    await requester.ask("anything", ID)
    await deployment.catalog.owners.release(ID, ONE)
    assert (await requester.ask("anything", ID)).body == b"one"


async def test_remembered_owner_that_refuses_is_forgotten(deployment: Deployment) -> None:
    """The conversation has gone to another meanwhile, and is found there."""

    async def refuse(request: Request) -> Answer:
        if await deployment.catalog.owners.find(ID) != ONE:
            raise OwnerMoving(str(ID))
        return Answer(200, b"one")

    asked = await deployment.runner(ONE, refuse)
    await deployment.runner(OTHER, load=9)
    await deployment.catalog.owners.acquire(ID, ONE)
    async with deployment.web_worker(moving_seconds=PATIENCE_SECONDS) as worker:
        assert (await worker.ask("anything", ID)).body == b"one"
        await deployment.catalog.owners.acquire(ID, OTHER, dead=ONE)
        assert (await worker.ask("anything", ID)).body == b"other"
    assert len(asked) == 2


async def test_remembered_owner_that_does_not_hear_is_forgotten(deployment: Deployment, requester: Requester) -> None:
    """Who has taken its conversation over is asked, however busy it is."""
    async with AsyncExitStack() as lifetime:
        await Deployment(deployment.source, lifetime).runner(ONE)
        await deployment.catalog.owners.acquire(ID, ONE)
        assert (await requester.ask("anything", ID)).body == b"one"
    await deployment.runner(OTHER, load=9)
    await deployment.runner(THIRD)
    await deployment.catalog.owners.acquire(ID, OTHER, dead=ONE)
    assert (await requester.ask("anything", ID)).body == b"other"


@pytest.mark.parametrize("conversation_id", [None, ID])
async def test_dead_runners_request_goes_to_the_next(
    deployment: Deployment, requester: Requester, conversation_id: UUID | None
) -> None:
    """One that died between two heartbeats is noticed at once: nobody is at its inbox."""
    await deployment.shows_up(ONE, load=0)
    await deployment.runner(OTHER, load=1)
    assert (await requester.ask("anything", conversation_id)).body == b"other"


async def test_dead_owners_request_goes_to_another_runner(deployment: Deployment, requester: Requester) -> None:
    """Which decides whether the owner is dead for certain."""
    await deployment.catalog.owners.acquire(ID, ONE)
    await deployment.runner(OTHER)
    assert (await requester.ask("anything", ID)).body == b"other"


async def test_conversation_on_the_move_is_waited_for(deployment: Deployment) -> None:
    """Until it has a new owner, with a pause in between."""
    times: list[float] = []

    async def handle(request: Request) -> Answer:
        times.append(time.monotonic())
        if len(times) < 3:
            raise OwnerMoving(str(ID))
        return Answer(200, b"moved")

    asked = await deployment.runner(ONE, handle)
    async with deployment.web_worker(moving_seconds=PATIENCE_SECONDS) as worker:
        assert (await worker.ask("anything", ID)).body == b"moved"
    assert len({request.request_id for request in asked}) == 3
    assert times[2] - times[0] > 0.1


async def test_conversation_that_finds_no_owner_is_given_up(deployment: Deployment) -> None:
    """With the error that says so."""

    async def handle(request: Request) -> Answer:
        raise OwnerMoving(str(ID))

    await deployment.runner(ONE, handle)
    async with deployment.web_worker(moving_seconds=0.2) as worker:
        with pytest.raises(OwnerMoving):
            await worker.ask("anything", ID)


@pytest.mark.parametrize(("conversation_id", "error"), [(None, NoRunner), (ID, OwnerMoving)])
async def test_runners_that_do_not_listen_are_given_up(
    deployment: Deployment, conversation_id: UUID | None, error: type[Exception]
) -> None:
    """Several with a heartbeat and nobody at the inbox: the caller is not sent round in circles."""
    for runner_id in (ONE, OTHER, THIRD):
        await deployment.shows_up(runner_id)
    await deployment.catalog.owners.acquire(ID, ONE)
    async with deployment.web_worker(moving_seconds=0.3) as worker:
        with pytest.raises(error):
            await worker.ask("anything", conversation_id)


async def test_named_runner_that_is_gone_is_not_waited_for(deployment: Deployment) -> None:
    """No other can do what is wanted; one that lives and is not heard for a moment is asked again."""
    async with deployment.web_worker(moving_seconds=PATIENCE_SECONDS) as worker:
        asked_at = time.monotonic()
        with pytest.raises(NoRunner):
            await worker.ask("anything", runner_id=ONE)
        assert time.monotonic() - asked_at < PATIENCE_SECONDS / 2
        await deployment.shows_up(ONE)
        waiting = asyncio.create_task(worker.ask("anything", runner_id=ONE))
        await deployment.runner(ONE)
        assert (await waiting).body == b"one"


async def test_command_whose_runner_went_as_it_was_asked_has_ended(deployment: Deployment, settings: Settings) -> None:
    """Once another runner has given it its end."""
    namespace = {"redis_namespace": deployment.source.namespace, "lease_ttl_seconds": 0.0}
    history, command_id = BashHistory(settings.bash_events_dir), new_command_id()
    history.begin(command_id, "true", None, 300)
    async with WebContext(settings.model_copy(update=namespace), deployment.source, lambda: None) as web:

        async def go(request: Request) -> Answer:
            web.running_commands.remove(command_id)
            raise NoRunner

        await deployment.runner(ONE, go)
        web.running_commands.add(RunningCommand(command_id, ONE, history.directory))
        assert not await ask_runner_of(Scope(web, history), command_id, "bash.stop")
        web.running_commands.add(RunningCommand(command_id, OTHER, history.directory))
        with pytest.raises(NoRunner):
            await ask_runner_of(Scope(web, history), command_id, "bash.stop")


async def test_runner_that_starts_meanwhile_takes_the_request(deployment: Deployment) -> None:
    """A caller waits a little for the first one."""
    async with deployment.web_worker(moving_seconds=PATIENCE_SECONDS) as worker:
        waiting = asyncio.create_task(worker.ask("anything"))
        await deployment.runner(ONE)
        assert (await waiting).body == b"one"


# Outages


@pytest.mark.parametrize("any_redis", ["redis-server"], indirect=True)
async def test_without_redis_asking_fails_and_works_again_afterwards(
    deployment: Deployment, requester: Requester, any_redis: RedisUnderTest
) -> None:
    """Both sides find each other again by themselves."""
    await deployment.runner(ONE)
    await requester.ask("anything")
    any_redis.take_down()
    for _ in range(10):  # for the loop to see that the connections are closed
        await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailable):
        await requester.ask("anything")
    any_redis.bring_back()
    await deployment.shows_up(ONE)

    async def is_answered() -> bool:
        try:
            return await requester.ask("anything", timeout_seconds=1) == Answer(200, b"one")
        except (NoRunner, OutcomeUnknown):
            return False

    await wait_until_async(is_answered, "the runner answers again")


@pytest.mark.parametrize("any_redis", ["redis-server"], indirect=True)
async def test_request_that_redis_took_and_did_not_confirm_leaves_the_outcome_unknown(
    deployment: Deployment, redis_process: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be carried out after all, so nobody is told that nothing happened."""
    asked = await deployment.runner(ONE)
    await deployment.catalog.owners.acquire(ID, ONE)
    monkeypatch.setattr(redis_source, "_COMMAND_TIMEOUT_SECONDS", 0.2)
    async with deployment.web_worker() as worker:
        await worker.ask("anything", ID)
        with stopped(redis_process.process.pid), pytest.raises(OutcomeUnknown) as raised:
            await worker.ask("anything", ID)
        assert 0.1 < raised.value.waited_seconds < PATIENCE_SECONDS / 2
        await wait_until_async(lambda: len(asked) == 2, "the runner has it")


async def test_request_that_a_runner_took_before_redis_went_has_an_unknown_outcome(
    deployment: Deployment, requester: Requester, any_redis: RedisUnderTest, quick_silence: float
) -> None:
    """Also with a key, which would have had it repeated."""

    async def handle(request: Request) -> Answer:
        any_redis.take_down()
        return await never(request)

    await deployment.runner(ONE, handle)
    with pytest.raises(OutcomeUnknown):
        await requester.ask("anything", arguments={"idempotency_key": "k"})
    any_redis.bring_back()


async def test_web_worker_may_start_before_redis(deployment: Deployment, any_redis: RedisUnderTest) -> None:
    """It asks as soon as there is one."""
    any_redis.take_down()
    async with deployment.web_worker(moving_seconds=PATIENCE_SECONDS) as worker:
        assert worker.is_listening
        any_redis.bring_back()
        await deployment.runner(ONE)

        async def is_answered() -> bool:
            try:
                return await worker.ask("anything", timeout_seconds=1) == Answer(200, b"one")
            except OutcomeUnknown:
                return False

        await wait_until_async(is_answered, "the runner is heard")
