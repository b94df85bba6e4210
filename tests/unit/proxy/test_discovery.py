"""Lists of models: who is asked when, what is given out meanwhile, and what outlives the process."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import msgspec
import pytest

from core.clock import ManualClock
from core.errors import ConnectFailed, UpstreamError
from core.tasks import Tasks
from proxy.discovery import AT_ONCE, Discovery, Entry, KeeperFailed, SeenList
from proxy.providers.base import ListedModel
from tests.exchange import until


class Outcome(msgspec.Struct, frozen=True):
    models: tuple[ListedModel, ...] = ()
    error: UpstreamError | None = None


REFUSED = Outcome(error=ConnectFailed("The provider refused the connection."))


def outcome(*names: str) -> Outcome:
    return Outcome(tuple(ListedModel(name) for name in names))


class Keeper:
    """Keeps lists, or does not."""

    def __init__(self) -> None:
        self.kept: dict[str, SeenList] = {}
        self.down = False
        self.loads = 0

    async def load(self) -> Mapping[str, SeenList]:
        self.loads += 1
        self._require()
        return dict(self.kept)

    async def keep(self, provider: str, seen: SeenList) -> None:
        await asyncio.sleep(0)
        self._require()
        self.kept[provider] = seen

    def _require(self) -> None:
        if self.down:
            raise KeeperFailed


class Scene:
    """A discovery whose providers answer with what a test has put here, when it lets them."""

    def __init__(self, tasks: Tasks) -> None:
        self.clock = ManualClock()
        self.keeper = Keeper()
        self.answers: dict[str, Outcome] = {}
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.changes = 0
        self.most_at_once = 0
        self._now = 0
        self.tasks = tasks
        self.discovery = self.new()

    def new(self) -> Discovery:
        """Of the same keeper, in another process."""
        discovery = Discovery(self.ask, self.keeper, self.clock, self.tasks, self.changed)
        discovery.follow({name: Entry("here", 60.0) for name in ("a", "b")})
        return discovery

    async def ask(self, name: str) -> Outcome:
        self.asked.append(name)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self.open.wait()
        finally:
            self._now -= 1
        return self.answers[name]

    def changed(self) -> None:
        self.changes += 1

    async def known(self, name: str = "a") -> list[str]:
        return [model.id for model in (await self.discovery.known(name)).models]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    tasks = Tasks()
    yield Scene(tasks)
    await tasks.cancel()


async def test_a_list_that_was_never_read_is_read_behind_the_answer(scene: Scene) -> None:
    scene.answers["a"] = outcome("one")
    first = await scene.discovery.known("a")
    assert ((), None, True, True) == (first.models, first.seen_at, first.stale, first.refreshing)
    await until(lambda: not scene.discovery.now("a").refreshing)
    second = await scene.discovery.known("a")
    assert (1_700_000_000.0, False, False, True) == (second.seen_at, second.stale, second.refreshing, second.stored)
    assert (["one"], ["a"]) == (await scene.known(), scene.asked)


async def test_a_caller_who_is_shown_lists_has_those_read_that_are_stale_and_shown(scene: Scene) -> None:
    scene.answers["a"] = outcome("m")
    scene.discovery.follow({"a": Entry("here", 60.0), "b": Entry("here", 60.0, shown=False)})
    for _ in range(3):
        scene.discovery.asked_for()
        await until(lambda: scene.discovery.now("a").models)
    assert (["a"], ("m",)) == (scene.asked, tuple(model.id for model in scene.discovery.now("a").models))
    scene.clock.advance(61.0)
    scene.discovery.asked_for()
    await until(lambda: not scene.discovery.now("a").stale)
    assert ["a", "a"] == scene.asked


async def test_a_stale_list_is_given_out_while_it_is_read_again(scene: Scene) -> None:
    scene.answers["a"] = outcome("old")
    await scene.discovery.refresh("a")
    scene.clock.advance(60)
    assert not (await scene.discovery.known("a")).stale
    scene.clock.advance(1)
    scene.answers["a"] = outcome("new")
    scene.open.clear()
    assert ["old"] == await scene.known()
    assert (True, True) == ((state := scene.discovery.now("a")).stale, state.refreshing)
    scene.open.set()
    await until(lambda: not scene.discovery.now("a").refreshing)
    assert (["new"], ["a", "a"]) == (await scene.known(), scene.asked)


async def test_a_clock_that_was_set_back_makes_a_list_stale(scene: Scene) -> None:
    scene.answers["a"] = outcome("one")
    await scene.discovery.refresh("a")
    scene.keeper.kept.clear()
    scene.clock._time -= 1000
    assert scene.discovery.now("a").stale


async def test_whoever_asks_at_the_same_time_waits_for_the_same_answer(scene: Scene) -> None:
    scene.open.clear()
    scene.answers["a"] = outcome("one")
    waiting = [asyncio.ensure_future(scene.discovery.refresh("a")) for _ in range(20)]
    await until(lambda: scene.asked)
    # Who gives up does not give up for the others.
    waiting[0].cancel()
    await asyncio.sleep(0)
    scene.open.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {1} == {len(each.models) for each in found[1:] if not isinstance(each, BaseException)}
    assert ["a"] == scene.asked


async def test_what_could_not_be_read_leaves_the_list_and_is_told(scene: Scene) -> None:
    scene.answers["a"] = outcome("one")
    await scene.discovery.refresh("a")
    scene.answers["a"] = REFUSED
    with pytest.raises(ConnectFailed):
        await scene.discovery.refresh("a")
    assert (["one"], REFUSED.error) == (await scene.known(), scene.discovery.now("a").error)
    scene.answers["a"] = outcome("two")
    assert None is (await scene.discovery.refresh("a")).error
    assert ["two"] == await scene.known()


async def test_a_provider_that_fails_is_not_asked_at_every_look(scene: Scene) -> None:
    scene.answers["a"] = REFUSED
    for _ in range(5):
        await scene.discovery.known("a")
        await until(lambda: not scene.discovery.now("a").refreshing)
    assert ["a"] == scene.asked
    scene.clock.advance(31)
    await scene.discovery.known("a")
    await until(lambda: not scene.discovery.now("a").refreshing)
    assert ["a", "a"] == scene.asked


async def test_a_list_outlives_the_process(scene: Scene) -> None:
    scene.answers["a"] = outcome("one")
    await scene.discovery.refresh("a")
    scene.discovery = scene.new()
    found = await scene.discovery.known("a")
    assert (["one"], True, False) == ([model.id for model in found.models], found.stored, found.stale)
    assert ["a"] == scene.asked


async def test_a_list_that_another_process_has_read_later_is_taken_over(scene: Scene) -> None:
    other = scene.new()
    scene.answers["a"] = outcome("one")
    await scene.discovery.refresh("a")
    scene.clock.advance(1)
    scene.answers["a"] = outcome("two")
    await other.refresh("a")
    assert ["two"] == await scene.known()
    # An older one is not.
    scene.keeper.kept["a"] = SeenList((ListedModel("zero"),), 1.0)
    assert ["two"] == await scene.known()


async def test_without_its_keeper_it_serves_from_memory_and_says_so(scene: Scene) -> None:
    scene.keeper.down = True
    scene.answers["a"] = outcome("one")
    assert not (await scene.discovery.refresh("a")).stored
    assert ["one"] == await scene.known()
    loads = scene.keeper.loads
    for _ in range(5):
        await scene.known()
    # Whoever waits for a database that is away waits long.
    assert loads == scene.keeper.loads
    scene.keeper.down = False
    scene.clock.advance(11)
    assert (await scene.discovery.refresh("a")).stored


async def test_of_a_provider_that_has_moved_the_former_list_says_nothing(scene: Scene) -> None:
    scene.answers["a"] = outcome("one")
    await scene.discovery.refresh("a")
    scene.discovery.follow({"a": Entry("elsewhere", 60.0)})
    found = scene.discovery.now("a")
    assert ((), None, True) == (found.models, found.seen_at, found.stale)
    assert {} == scene.discovery.lists()
    # Nor does what was kept of it.
    assert [] == await scene.known()
    await until(lambda: not scene.discovery.now("a").refreshing)
    assert ["one"] == await scene.known()


async def test_a_provider_that_moves_while_it_is_asked_is_asked_again(scene: Scene) -> None:
    scene.open.clear()
    scene.answers["a"] = outcome("one")
    reading = asyncio.ensure_future(scene.discovery.refresh("a"))
    await until(lambda: scene.asked)
    scene.discovery.follow({"a": Entry("elsewhere", 60.0)})
    scene.open.set()
    assert not (await reading).stale
    assert ["a", "a"] == scene.asked


async def test_a_provider_that_goes_while_it_is_asked_is_unknown(scene: Scene) -> None:
    scene.open.clear()
    scene.answers["a"] = outcome("one")
    reading = asyncio.ensure_future(scene.discovery.refresh("a"))
    await until(lambda: scene.asked)
    scene.discovery.follow({"b": Entry("here", 60.0)})
    del scene.answers["a"]
    scene.open.set()
    with pytest.raises(KeyError):
        await reading
    with pytest.raises(KeyError):
        await scene.discovery.known("a")


async def test_all_are_told_in_order_and_a_few_are_asked_at_a_time(scene: Scene) -> None:
    names = [f"p{number}" for number in range(AT_ONCE + 5)]
    scene.answers = {name: outcome(name) for name in names}
    scene.discovery.follow({name: Entry("here", 60.0) for name in names})
    scene.open.clear()
    assert names == list(await scene.discovery.all_known())
    await until(lambda: len(scene.asked) == AT_ONCE)
    scene.open.set()
    await until(lambda: len(scene.discovery.lists()) == len(names))
    assert AT_ONCE == scene.most_at_once
    assert [ListedModel("p0")] == list(scene.discovery.lists()["p0"])
    assert scene.changes >= len(names)
