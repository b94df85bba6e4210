"""What `./sluice rekey` and `./sluice doctor` do for accounts that have signed in, wherever these are kept."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from config.master_key import VARIABLE, parse_keys
from config.schema import Config, OAuth, Redis
from config.sealing import KeyRing
from core.clock import SystemClock
from core.secret import Secret
from credentials.records import AccountRecord, AccountStore
from credentials.sealer import RecordSealer
from credentials.stores.build import open_store
from credentials.tokens import TokenSet
from gateway.stores import Stores
from tests import redis_server
from tests.doctor import doctor
from tests.gateway_process import run_cli
from tests.planted import planted, planted_key

OLD_KEY, NEW_KEY, LOST_KEY = (f"{name}:{planted_key(f'{name}-acct').hex()}" for name in ("old", "new", "lost"))
ACCESS, REFRESH = planted("access-token"), planted("refresh-token")


@pytest.fixture
def redis() -> Iterator[redis_server.Redis]:
    with redis_server.redis(keeps=True) as server:
        yield server


@pytest.fixture(params=["database", "file", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def extra(request: pytest.FixtureRequest, kind: str) -> dict[str, str]:
    """The environment of the commands."""
    url = request.getfixturevalue("redis").url if kind == "redis" else ""
    return {"REDIS_URL": url, VARIABLE: f"{NEW_KEY} {OLD_KEY}"}


def written(place: Path, kind: str, more: str = "") -> Path:
    path = place / "config.yaml"
    path.write_text(
        f"""
server: {{listen: "127.0.0.1:0"}}
redis: {{url: "${{env:REDIS_URL:-}}", timeout_seconds: 10}}
oauth:
  store: {kind}
  providers: [{{name: strict, client_id: here, issuer: "https://127.0.0.1:1"}}]
providers: [{{name: hub, type: openai-compatible, base_url: "http://127.0.0.1:1/v1", oauth: strict}}]
{more}"""
    )
    return path


@asynccontextmanager
async def opened(place: Path, kind: str, extra: dict[str, str]) -> AsyncIterator[AccountStore]:
    """The store as a gateway has it whose configuration is in ``place``."""
    url = Secret.literal(extra["REDIS_URL"]) if extra["REDIS_URL"] else None
    config = Config(oauth=OAuth(store=kind), redis=Redis(url=url, timeout_seconds=10.0))  # type: ignore[arg-type]  # a text
    clock = SystemClock()
    stores = Stores(clock, writes=False)
    stores.begin(config, place)
    store = await open_store(
        config.oauth.store,
        clock=clock,
        directory=place / config.secrets.directory / config.oauth.directory,
        redis=config.redis,
        cells=stores.account_cells,
    )
    try:
        yield store
    finally:
        await store.close()
        await stores.close()


def sealer(*keys: str) -> RecordSealer:
    ring = KeyRing(parse_keys(" ".join(keys)))

    async def read() -> KeyRing:
        return ring

    return RecordSealer(read)


async def record(name: str, key: str, provider: str = "hub", needs_login: str | None = None) -> AccountRecord:
    tokens = TokenSet(
        access_token=Secret.literal(ACCESS, "access token"),
        refresh_token=Secret.literal(REFRESH, "refresh token"),
        issued_at=1.0,
        expires_at=None,
    )
    return AccountRecord(
        provider=provider,
        name=name,
        version=0,
        oauth="strict",
        sealed_tokens=await sealer(key).seal_tokens(provider, name, tokens),
        needs_login=needs_login,
        created_at=1,
        updated_at=1,
    )


async def test_rekey_seals_accounts_anew_and_names_those_that_it_leaves(
    tmp_path: Path, kind: str, extra: dict[str, str]
) -> None:
    written(tmp_path, kind)
    # Nothing is made where there is nothing yet.
    status, out, err = run_cli("rekey", "-c", "config.yaml", cwd=tmp_path, extra=extra)
    assert (0, "") == (status, err)
    assert "accounts" not in out
    assert not (tmp_path / "data").exists()
    async with opened(tmp_path, kind, extra) as store:
        for name, key in (("ada", OLD_KEY), ("bob", NEW_KEY), ("eve", LOST_KEY)):
            await store.put(await record(name, key), None)
        before = {each.name: each for each in (await store.all()).records}
        status, out, err = run_cli("rekey", "-c", "config.yaml", cwd=tmp_path, extra=extra)
        assert 1 == status
        assert f"accounts ({kind}): 1 account sealed anew with the key `new`" in out
        assert "other keys may go" not in out
        assert "hub/eve: " in err
        assert "master key `lost`" in err
        after = {each.name: each for each in (await store.all()).records}
        assert (before["bob"], before["eve"]) == (after["bob"], after["eve"])
        tokens = await sealer(NEW_KEY).open_tokens(after["ada"])
        assert tokens is not None
        assert (ACCESS, 2) == (tokens.access_token.reveal(), after["ada"].version)
        await store.delete("hub", "eve", None)
        status, out, err = run_cli("rekey", "-c", "config.yaml", cwd=tmp_path, extra=extra)
        assert (0, "") == (status, err)
        assert f"accounts ({kind}): not changed\nall is sealed with the key `new`" in out


def test_rekey_says_why_it_cannot_reach_the_accounts(tmp_path: Path) -> None:
    written(tmp_path, "redis")
    for url, words in (
        (f"redis://:{planted('redis')}@127.0.0.1:1/0", "cannot be used"),
        ("", "needs `redis.url`"),
    ):
        extra = {"REDIS_URL": url, VARIABLE: NEW_KEY}
        status, out, err = run_cli("rekey", "-c", "config.yaml", cwd=tmp_path, extra=extra)
        assert 1 == status
        assert "other keys may go" not in out
        assert "accounts that have signed in to providers are left as they are" in err
        assert words in err


@pytest.mark.parametrize("kind", ["database", "file"])
async def test_the_doctor_tells_which_accounts_need_a_login_or_cannot_be_read(tmp_path: Path, kind: str) -> None:
    extra = {"REDIS_URL": "", VARIABLE: NEW_KEY}
    path = written(tmp_path, kind)
    async with opened(tmp_path, kind, extra) as store:
        await store.put(await record("ada", NEW_KEY), None)
        await store.put(await record("bob", NEW_KEY, needs_login="the server refuses the refresh token"), None)
        await store.put(await record("eve", LOST_KEY), None)
        await store.put(await record("ada", NEW_KEY, provider="gone"), None)
    report = await doctor(path, REDIS_URL="", SLUICE_MASTER_KEY=NEW_KEY)
    login = report.fault("`hub/bob` needs a login, and serves no more once its token has ended: the server refuses")
    assert ("oauth.store", "sign in again: `./sluice login hub --name bob`") == (login.where.split()[-1], login.mend)
    unread = report.fault("hub/eve")
    assert ("needs the master key `lost`" in unread.what, "add it; or sign in again") == (True, unread.mend)
    assert "is of no provider" in report.warning("`gone/ada`").what
    assert any(f"1 account that has signed in can be used ({kind})" in each.what for each in report.fine)


async def test_the_doctor_tells_that_the_accounts_cannot_be_reached(tmp_path: Path) -> None:
    url = f"redis://:{planted('redis')}@127.0.0.1:1/0"
    report = await doctor(written(tmp_path, "redis"), REDIS_URL=url, SLUICE_MASTER_KEY=NEW_KEY)
    assert "oauth.store" in report.fault("accounts in Redis cannot be used").where


async def test_the_doctor_makes_no_database_to_look_for_accounts(tmp_path: Path) -> None:
    await doctor(written(tmp_path, "database"), REDIS_URL="", SLUICE_MASTER_KEY=NEW_KEY)
    assert not (tmp_path / "data").exists()
