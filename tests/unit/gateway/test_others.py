"""Tasks between workers: each is answered exactly once, whatever becomes of who was asked."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from core.tasks import Tasks
from gateway import others
from gateway.control import Answered, Asked, ClearCooldown, Done, Message, RefreshTokens
from gateway.others import Alone, Relays, Tasked, TaskFailed
from tests.conftest import ExpectLog
from tests.gateway_process import until

TASK = RefreshTokens(7)


class Worker:
    """Hears what the supervisor says."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def tell(self, message: Message) -> None:
        self.heard.append(message)


async def test_one_process_has_nobody_to_ask() -> None:
    alone = Alone()
    answered = await alone.ask(TASK)
    assert Answered(0) == answered
    assert answered.by_all


async def test_the_supervisor_answers_when_the_last_has() -> None:
    relays, asker, one, two = Relays(), Worker(), Worker(), Worker()
    relays.asked(asker, Asked(3, TASK, 5.0), [one, two])
    assert [Asked(1, TASK)] == one.heard == two.heard
    relays.done(one, Done(1))
    # Said twice, by a stranger, or of another task, it counts for nothing.
    relays.done(one, Done(1))
    relays.done(asker, Done(1))
    relays.done(two, Done(2))
    assert [] == asker.heard
    relays.done(two, Done(1, failed=True))
    assert [Answered(2, failed=1, number=3)] == asker.heard
    relays.done(two, Done(1))
    relays.gone(two)
    assert 1 == len(asker.heard)


async def test_tasks_at_the_same_time_do_not_mix() -> None:
    relays, one, two = Relays(), Worker(), Worker()
    relays.asked(one, Asked(1, TASK, 5.0), [two])
    relays.asked(two, Asked(1, TASK, 5.0), [one])
    relays.gone(one)
    assert [Asked(1, TASK), Answered(1, number=1)] == two.heard
    relays.done(two, Done(1))
    assert [Asked(2, TASK), Answered(1, number=1)] == one.heard


async def test_nobody_else_is_an_answer_and_so_is_the_end() -> None:
    relays, asker, other = Relays(), Worker(), Worker()
    relays.asked(asker, Asked(1, TASK, 5.0), [])
    relays.asked(asker, Asked(2, TASK, 5.0), [other])
    relays.close()
    assert [Answered(0, number=1), Answered(1, silent=1, number=2)] == asker.heard


async def test_who_is_silent_is_not_waited_for() -> None:
    relays, asker, other = Relays(), Worker(), Worker()
    relays.asked(asker, Asked(1, TASK, 0.02), [other])
    await until(lambda: asker.heard)
    assert [Answered(1, silent=1, number=1)] == asker.heard


class Supervisor:
    """Stands at the other end of a worker's channel."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def hear(self, message: Message) -> None:
        self.heard.append(message)


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.cancel()


async def test_a_worker_is_told_of_its_own_tasks(tasks: Tasks) -> None:
    supervisor = Supervisor()
    tasked = Tasked(supervisor.hear, tasks)
    asking = [tasks.spawn(tasked.ask(TASK, 5.0), "ask") for _ in range(2)]
    await asyncio.sleep(0)
    assert [Asked(1, TASK, 5.0), Asked(2, TASK, 5.0)] == supervisor.heard
    tasked.answered(Answered(4, number=2))
    tasked.answered(Answered(3, failed=1, number=1))
    tasked.answered(Answered(9, number=1))
    tasked.answered(Answered(9, number=8))
    assert [Answered(3, failed=1, number=1), Answered(4, number=2)] == await asyncio.gather(*asking)


async def test_a_supervisor_that_knows_no_tasks_is_not_waited_for(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "_SUPERVISOR_SECONDS", 0.01)
    answered = await Tasked(lambda _: None, tasks).ask(TASK, 0.01)
    assert not answered.by_all


async def test_a_worker_does_what_others_ask_and_says_so(tasks: Tasks, expect_log: ExpectLog) -> None:
    supervisor, done = Supervisor(), []
    tasked = Tasked(supervisor.hear, tasks)

    async def refresh(task: RefreshTokens) -> None:
        done.append(task.version)
        if task.version == 1:
            raise TaskFailed
        if task.version == 2:
            raise ValueError("unforeseen")

    tasked.on(RefreshTokens, refresh)
    with expect_log("could not be done: RefreshTokens", logging.ERROR):
        for version in range(3):
            tasked.asked(Asked(version, RefreshTokens(version)))
        # What nobody here knows how to do is not done.
        tasked.asked(Asked(3, ClearCooldown("openai")))
        await tasks.join(60)
    assert [0, 1, 2] == done
    assert [Done(0), Done(1, failed=True), Done(2, failed=True), Done(3, failed=True)] == supervisor.heard
