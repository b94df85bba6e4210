"""Limits at full size: as many requests as a busy minute has, by as many processes as a large machine runs."""

from collections.abc import Iterator

import pytest

from tests import redis_server
from tests.integration import test_quotas_redis

REQUESTS = 100_000

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]


@pytest.fixture
def server() -> Iterator[redis_server.Redis]:
    with redis_server.redis() as running:
        yield running


def test_eight_processes_admit_exactly_the_amount_of_a_hundred_thousand_requests(
    server: redis_server.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_QUOTA_REQUESTS", str(REQUESTS))
    monkeypatch.setattr(test_quotas_redis, "REQUESTS", REQUESTS)
    test_quotas_redis.test_many_processes_admit_exactly_the_amount(server)
