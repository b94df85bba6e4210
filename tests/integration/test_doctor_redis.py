"""What ``./sluice doctor`` tells of Redis; it is a real one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from gateway.doctor.redis import judge
from gateway.doctor.report import Severity, Where
from tests import redis_server
from tests.doctor import ECHO, doctor, write
from tests.planted import planted

DOCUMENT = ECHO + "\nredis: {url: '${env:REDIS}'}\n"


@pytest.fixture(scope="module")
def running() -> Iterator[redis_server.Redis]:
    if redis_server.program() is None:
        pytest.skip(f"no redis-server (Debian: {redis_server.PACKAGE})")
    with redis_server.redis() as server:
        yield server


async def test_a_redis_that_answers_is_told_and_nothing_is_left_in_it(
    running: redis_server.Redis, tmp_path: Path
) -> None:
    told = await doctor(write(tmp_path, DOCUMENT), status=0, REDIS=running.url)
    assert 1 == sum(each.where == "redis.url" and "answers" in each.what for each in told.fine)
    with Client.from_url(running.url) as client:
        assert 0 == client.dbsize()
    # It is a matter of the network.
    told = await doctor(write(tmp_path, DOCUMENT), "--offline", status=0, REDIS=running.url)
    assert [] == [each for each in told.fine if each.where == "redis.url"]


@pytest.mark.parametrize(
    ("url", "what", "mend"),
    [
        ("redis://127.0.0.1:1/0", "Redis cannot be used .unreachable", "start it, or name another in `redis.url`"),
        (
            "redis://:{other}@127.0.0.1:{port}/0",
            "Redis cannot be used .denied",
            "put a user and a password that it knows",
        ),
    ],
)
async def test_a_redis_that_cannot_be_used_is_a_fault(
    running: redis_server.Redis, tmp_path: Path, url: str, what: str, mend: str
) -> None:
    url = url.format(other=planted("redis-other"), port=running.port)
    found = (await doctor(write(tmp_path, DOCUMENT), REDIS=url)).fault(what)
    assert ("redis.url", True) == (found.where, mend in found.mend)


@pytest.mark.parametrize(
    ("told", "severity", "what"),
    [
        ({"redis_version": "4.0.14"}, Severity.FAULT, "Redis 4.0.14 is too old"),
        ({"redis_version": "7.2.1", "role": "slave"}, Severity.FAULT, "Redis 7.2.1 is a replica"),
        ({"maxmemory": "1000", "maxmemory_policy": "allkeys-lru"}, Severity.WARNING, "`maxmemory-policy allkeys-lru`"),
        ({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, None, ""),
        ({"redis_version": "7.2.1", "role": "master", "maxmemory": "1000", "maxmemory_policy": "noeviction"}, None, ""),
        # Its user may not ask.
        ({}, None, ""),
    ],
)
def test_a_redis_that_cannot_be_relied_on_is_told_with_the_mend(
    told: dict[str, Any], severity: Severity | None, what: str
) -> None:
    _, *loud = judge(told, Where("redis.url"))
    assert ([] if severity is None else [severity]) == [each.severity for each in loud]
    assert all(what in each.what and each.mend for each in loud)
