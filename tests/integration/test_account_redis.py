"""The store of accounts in a real Redis, which goes and comes back."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from config.schema import Redis
from core.clock import SystemClock
from core.secret import Secret
from credentials.errors import StoreConflict, StoreUnavailable
from credentials.stores.build import open_store
from credentials.stores.redis import RedisStore
from tests import redis_server
from tests.account_places import PATIENCE_SECONDS, account, sign_in
from tests.conftest import ExpectLog
from tests.planted import planted

PREFIX = "{test}:"
KEY = "ab" * 32
AWAY = "the accounts in Redis cannot be used: "

pytestmark = pytest.mark.skipif(
    redis_server.program() is None, reason=f"no redis-server (Debian: {redis_server.PACKAGE})"
)


@pytest.fixture
def server() -> Iterator[redis_server.Redis]:
    with redis_server.redis(keeps=True) as running:
        yield running


def opened(server: redis_server.Redis, timeout_seconds: float = PATIENCE_SECONDS) -> RedisStore:
    return RedisStore(lambda: server.url, PREFIX, timeout_seconds)


async def test_a_redis_that_is_killed_and_comes_back_has_all_that_it_had(server: redis_server.Redis) -> None:
    store, other = opened(server), opened(server)
    first = await store.put(account(sealed_tokens="k:1"), None)
    held = await store.lock("openai", "main", 600)
    assert held is not None
    begun = sign_in(KEY, await store._shelf.now())
    await store.add_login(begun)
    before = await other.version()
    server.kill()
    asked: list[Callable[[], Any]] = [
        store.version,
        store.all,
        lambda: store.get("openai", "main"),
        lambda: store.put(first, 1),
        lambda: store.delete("openai", "main", None),
        lambda: store.lock("openai", "main", 1),
        lambda: store.take_login(KEY),
        lambda: store.end_login(KEY, "failed", None),
        other.version,
    ]
    for ask in asked:
        with pytest.raises(StoreUnavailable, match=f"^{AWAY}ConnectionError: .*127.0.0.1:{server.port}"):
            await ask()
    await asyncio.gather(*(held.release() for _ in range(2)))  # raises nothing
    server.start()
    # At once, by connections that are of the former one too.
    assert (before, (first,)) == (await other.version(), (await store.all()).records)
    assert await other.lock("openai", "main", 1) is None
    second = await store.put(msgspec.structs.replace(first, fence=held.fence, sealed_tokens="k:2"), 1)
    assert second == await other.get("openai", "main")
    assert [begun] == [one for one in await asyncio.gather(store.take_login(KEY), other.take_login(KEY)) if one]
    await store.close()
    await other.close()


async def test_a_redis_that_keeps_nothing_is_warned_of_and_what_it_loses_is_told(expect_log: ExpectLog) -> None:
    with redis_server.redis() as server:
        store = opened(server)
        with expect_log("Redis keeps accounts in memory alone, and a restart of it signs all of them out"):
            first = await store.put(account(), None)
        held = await store.lock("openai", "main", 600)
        assert held is not None
        await store.version()
        server.kill()
        with pytest.raises(StoreUnavailable):
            await store.version()
        server.start()
        with expect_log("Redis has lost its last changes of accounts, or all of them: restore it from a backup"):
            assert 0 == await store.version()
        assert (0, (), ()) == msgspec.structs.astuple(await store.all())  # told once
        # Who was at work on what was lost writes nothing in its place.
        with pytest.raises(StoreConflict, match="is not there any more"):
            await store.put(msgspec.structs.replace(first, fence=held.fence), 1)
        again = await store.put(account(), None)
        with pytest.raises(StoreConflict, match="has run out"):
            await store.put(msgspec.structs.replace(again, fence=held.fence), 1)
        later = await store.lock("openai", "main", 600)
        assert later is not None
        assert later.fence > held.fence
        await store.close()


async def test_a_redis_that_stands_still_is_not_waited_for(server: redis_server.Redis) -> None:
    store = opened(server)
    first = await store.put(account(), None)
    hasty = opened(server)
    await hasty.version()
    shelf: Any = hasty._shelf
    shelf._timeout = 0.05
    server.pause()
    with pytest.raises(StoreUnavailable, match=rf"{AWAY}it does not answer in time \(`redis.timeout_seconds`\)"):
        await hasty.put(first, 1)
    server.resume()
    assert first == await store.get("openai", "main")
    shelf._timeout = PATIENCE_SECONDS
    assert 2 == (await hasty.put(first, 1)).version
    await store.close()
    await hasty.close()


async def test_a_write_whose_answer_was_lost_is_known_as_ones_own(
    server: redis_server.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(server)
    shelf: Any = store._shelf
    exchange = shelf._exchange
    cut: list[object] = []

    async def cut_off(connection: Any, command: tuple[object, ...]) -> object:
        answer = await exchange(connection, command)
        if command[0] == "EVAL" and not cut:
            cut.append(command)
            raise ConnectionResetError("cut off by the test")
        return answer

    monkeypatch.setattr(shelf, "_exchange", cut_off)
    assert 1 == (await store.put(account(), None)).version
    cut.clear()
    await store.add_login(sign_in(KEY, await shelf.now()))
    cut.clear()
    assert await store.take_login(KEY) is not None
    assert await store.take_login(KEY) is None
    await store.close()


async def test_a_lock_runs_out_by_the_time_of_redis(server: redis_server.Redis) -> None:
    store = opened(server)
    assert await store.lock("openai", "main", 600) is not None
    assert await store.lock("openai", "other", 0.001) is not None
    while await store.lock("openai", "other", 600) is None:
        await asyncio.sleep(0.01)
    assert await store.lock("openai", "main", 600) is None
    await store.close()


async def test_a_sign_in_is_forgotten_by_redis_itself(server: redis_server.Redis) -> None:
    store = opened(server)
    await store.add_login(sign_in(KEY, await store._shelf.now(), seconds=300))
    await store.end_login(KEY, "failed", None)
    with server.client() as client:
        left = client.pttl(f"{PREFIX}login:{KEY}")
    assert 0 < left <= 900_000
    await store.add_login(sign_in("cd", 0, seconds=1))
    assert await store.login("cd") is None
    await store.close()


@pytest.mark.parametrize("user", ["", "nobody"])
async def test_a_wrong_password_is_told_and_not_shown(server: redis_server.Redis, user: str) -> None:
    url = f"redis://{user}:{planted('wrong')}@127.0.0.1:{server.port}/0"
    store = RedisStore(lambda: url, PREFIX, PATIENCE_SECONDS)
    with pytest.raises(StoreUnavailable, match=f"^{AWAY}it refuses the user name or the password of `redis.url`$"):
        await store.all()


async def test_a_server_that_repeats_what_it_was_sent_is_not_quoted() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(b"-ERR unknown command, with args beginning with: " + data.replace(b"\r\n", b" ") + b"\r\n")
        writer.close()

    parrot = await asyncio.start_server(answer, "127.0.0.1")
    url = f"redis://:{planted('parrot')}@127.0.0.1:{parrot.sockets[0].getsockname()[1]}/0"
    store = RedisStore(lambda: url, PREFIX, PATIENCE_SECONDS)
    with pytest.raises(StoreUnavailable) as told:
        await store.all()
    assert planted("parrot") not in str(told.value)
    parrot.close()
    await parrot.wait_closed()


async def test_a_store_is_opened_by_its_name(server: redis_server.Redis, tmp_path: Any) -> None:
    async def never() -> Any:
        raise AssertionError

    async def opened_by(kind: Any, url: str | None = None) -> Any:
        redis = Redis(url=None if url is None else Secret.literal(url), prefix=PREFIX, timeout_seconds=PATIENCE_SECONDS)
        return await open_store(kind, clock=SystemClock(), directory=tmp_path / "x", redis=redis, cells=never)

    for kind in ("memory", "file", "redis"):
        store = await opened_by(kind, server.url)
        assert 1 == (await store.put(account(), None)).version
        await store.close()
    with pytest.raises(StoreUnavailable, match=r"`oauth.store: redis` needs `redis.url`"):
        await opened_by("redis")
    store = await opened_by("redis", f"http://:{planted('scheme')}@x")
    with pytest.raises(StoreUnavailable, match=r"`redis.url` is not an address of Redis: write"):
        await store.version()
