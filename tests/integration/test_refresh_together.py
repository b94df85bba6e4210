"""Many processes and one account, whose refresh token is good for one use at a strict server that others have written: it
revokes all that it has given when one is used twice. One exchanges it, and no request fails."""

import base64
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from credentials.oauth.pkce import new_verifier
from credentials.records import SignIn
from credentials.tokens import TokenSet
from tests import redis_server
from tests.integration.conftest import NewUrl
from tests.oauth_server import OAuthServerProcess, browser, oauth_server
from tests.planted import planted_key
from tests.refresh_processes import NAME, OAUTH, PROVIDER, Order, Part, Settings, digest, processes

COUNT = 4
WITH_REDIS = 8
REQUESTS = 5
"""Of each process, at once."""
ENDS_SECONDS = 1.5
"""Time for all to ask before; on a machine where it is not, they ask after."""
HERE = "http://127.0.0.1:8080/oauth/callback"
STATE = "a-state-of-the-test"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth")) as server:
        yield server


@pytest.fixture(params=["redis", "sqlite", "postgresql", "file"])
def settings(request: pytest.FixtureRequest, strict: OAuthServerProcess, tmp_path: Path) -> Iterator[Settings]:
    with contextlib.ExitStack() as running:
        yield _settings(request, str(request.param), strict, tmp_path, running)


def _settings(
    request: pytest.FixtureRequest,
    kind: str,
    strict: OAuthServerProcess,
    place: Path,
    running: contextlib.ExitStack,
) -> Settings:
    key = base64.b64encode(planted_key("k1")).decode()
    match kind:
        case "redis":
            if redis_server.program() is None:
                pytest.skip("no redis-server: `python -m tests.redis_server` gets it")
            url = running.enter_context(redis_server.redis(keeps=True)).url
            return Settings(issuer=strict.url, store="redis", url=url, key=key)
        case "file":
            return Settings(issuer=strict.url, store="file", directory=str(place / "accounts"), key=key)
        case _:
            new_url: NewUrl = request.getfixturevalue("new_url")
            return Settings(issuer=strict.url, store="database", url=new_url(kind), key=key)


@contextlib.asynccontextmanager
async def account(settings: Settings, life_seconds: float = 3600.0) -> AsyncIterator[Part]:
    """Somebody has signed in, and the access token ends so soon."""
    part = Part(settings)
    try:
        async with browser() as person:
            verifier = new_verifier()
            back = await person.sign_in(await part.server.authorization_url(STATE, verifier, HERE))
            code = await part.server.read_answer(dict(parse_qsl(urlsplit(back).query)), STATE)
            tokens = await part.server.exchange_code(code, verifier, HERE)
        issued_at = tokens.issued_at
        ending = msgspec.structs.replace(tokens, issued_at=issued_at - 3600, expires_at=issued_at + life_seconds)
        await part.accounts.signed_in(SignIn(PROVIDER.name, NAME, OAUTH, ending))
        yield part
    finally:
        await part.stop()


async def refreshes(server: OAuthServerProcess) -> tuple[int, int]:
    """How many refresh tokens were exchanged and refused."""
    counts = (await server.grants()).get("refresh_token", {"given": 0, "refused": 0})
    return counts["given"], counts["refused"]


async def kept(part: Part) -> TokenSet:
    """What the store has."""
    record = await (await part.store()).get(PROVIDER.name, NAME)
    assert record is not None
    tokens = await part.sealer.open_tokens(record)
    assert tokens is not None
    return tokens


async def test_many_processes_exchange_a_one_time_token_once_and_no_request_fails(
    settings: Settings, strict: OAuthServerProcess, tmp_path: Path
) -> None:
    before, _ = await refreshes(strict)
    count = WITH_REDIS if settings.store == "redis" else COUNT
    async with account(settings, ENDS_SECONDS) as part:
        order = Order(requests=REQUESTS, until_not=digest((await kept(part)).access_token.reveal()))
        async with processes(count, settings, tmp_path) as many:
            answers = await many.ask_all(order)

            assert [()] * count == [answer.faults for answer in answers]
            token = (await kept(part)).access_token.reveal()
            assert [digest(token)] * count == [answer.token for answer in answers]
            assert count == len({answer.pid for answer in answers})
            assert (before + 1, 0) == await refreshes(strict)

            # And once more when their provider answers 401 to it.
            answers = await many.ask_all(Order(requests=REQUESTS, reject=digest(token)))
            assert [()] * count == [answer.faults for answer in answers]
            assert {digest((await kept(part)).access_token.reveal())} == {answer.token for answer in answers}
            assert (before + 2, 0) == await refreshes(strict)
            tokens = await kept(part)
            assert await strict.is_active(tokens.access_token.reveal())


@pytest.fixture
def in_files(request: pytest.FixtureRequest, strict: OAuthServerProcess, tmp_path: Path) -> Iterator[Settings]:
    with contextlib.ExitStack() as running:
        yield _settings(request, "file", strict, tmp_path, running)


async def test_after_a_process_was_killed_before_the_exchange_another_takes_over(
    in_files: Settings, strict: OAuthServerProcess, tmp_path: Path
) -> None:
    before, refused = await refreshes(strict)
    async with account(in_files) as part, processes(2, in_files, tmp_path) as both:
        held = digest((await kept(part)).access_token.reveal())
        await both.tell(0, Order(stand_still="before", requests=1, reject=held))
        standing = await both.answer(0)
        assert standing.stands
        os.kill(standing.pid, signal.SIGKILL)

        answer = await both.ask(1, Order(requests=REQUESTS, reject=held, locks_run_out=True))

        assert () == answer.faults
        assert digest((await kept(part)).access_token.reveal()) == answer.token
        assert (before + 1, refused) == await refreshes(strict)


async def test_after_a_process_was_killed_between_exchange_and_write_the_account_says_that_it_needs_a_sign_in(
    in_files: Settings, strict: OAuthServerProcess, tmp_path: Path
) -> None:
    before, refused = await refreshes(strict)
    async with account(in_files) as part, processes(2, in_files, tmp_path) as both:
        held = digest((await kept(part)).access_token.reveal())
        await both.tell(0, Order(stand_still="after", requests=1, reject=held))
        standing = await both.answer(0)
        assert standing.stands
        os.kill(standing.pid, signal.SIGKILL)

        answer = await both.ask(1, Order(requests=REQUESTS, reject=held, locks_run_out=True))

        assert REQUESTS == len(answer.faults)
        assert answer.faults[0].startswith("NeedsLogin: ")
        assert "invalid_grant" in answer.faults[0]
        assert ("credential.refresh_failed",) == answer.told
        assert (before + 1, refused + 1) == await refreshes(strict)
        record = await (await part.store()).get(PROVIDER.name, NAME)
        assert record is not None
        assert record.needs_login is not None
        # Nobody tries again.
        assert 1 == len((await both.ask(1, Order(requests=1, reject=answer.token))).faults)
        assert (before + 1, refused + 1) == await refreshes(strict)
