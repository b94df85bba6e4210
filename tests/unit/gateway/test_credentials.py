"""The keeper of credentials whose tokens end: when it starts, what the other workers are told, which keys seal."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from config.load import LoadedConfig
from config.master_key import VARIABLE
from core.secret import Secret
from credentials.errors import StoreUnavailable
from credentials.records import SignIn
from credentials.tokens import TokenSet
from gateway.build import load_and_build
from gateway.control import Answered, RefreshAccounts
from gateway.master_keys import MasterKeys
from gateway.resources import Resources
from routing.cooldown import Reason
from tests.conftest import ExpectLog
from tests.gateway_process import until
from tests.planted import place_of_secrets, planted, planted_key
from tests.unit.gateway.conftest import Others

KEY = f"main:{planted_key('keeper').hex()}"
OAUTH = """\
oauth:
  store: memory
  providers: [{name: strict, client_id: here, issuer: "https://127.0.0.1:1"}]
providers: [{name: hub, type: openai-compatible, base_url: "http://127.0.0.1:1/v1", oauth: strict}]
"""
PLAIN = "providers: [{name: echo, type: echo}]\n"
TOKENS = TokenSet(access_token=Secret.literal(planted("access"), "access token"), issued_at=1.0, expires_at=None)


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({VARIABLE: KEY}, writes=False)
    made.others = Others()
    yield made
    await made.close()


def put_in_force(resources: Resources, place: Path, text: str) -> LoadedConfig:
    document = place / "config.yaml"
    document.write_text(text)
    generation = load_and_build(document, resources)
    resources.follow(generation.loaded, generation.webhooks, generation.token_sources)
    return generation.loaded


async def sign_in(resources: Resources) -> None:
    await resources.credentials.accounts.signed_in(SignIn("hub", "ada", "strict", TOKENS))


async def test_accounts_start_with_the_configuration_that_has_any(resources: Resources, tmp_path: Path) -> None:
    put_in_force(resources, tmp_path, PLAIN)
    await resources.credentials.start("http://127.0.0.1:8080")
    assert 0 == len(resources.background)
    put_in_force(resources, tmp_path, OAUTH)
    await until(lambda: len(resources.background) > 2)
    await sign_in(resources)
    assert ["ada"] == [member.name for member in resources.credentials.accounts.members("hub")]
    # Another reload starts nothing twice, and what has signed in serves on.
    running = len(resources.background)
    put_in_force(resources, tmp_path, OAUTH)
    await asyncio.sleep(0)
    assert (running, ["ada"]) == (
        len(resources.background),
        [member.name for member in resources.credentials.accounts.members("hub")],
    )


async def test_the_other_workers_are_told_of_what_is_written(resources: Resources, tmp_path: Path) -> None:
    others = resources.others
    assert isinstance(others, Others)
    put_in_force(resources, tmp_path, OAUTH)
    await resources.credentials.start("http://127.0.0.1:8080")
    await sign_in(resources)
    await until(lambda: [RefreshAccounts] == [type(task) for task in others.asked])
    assert await resources.credentials.settle()
    others.answer = Answered(2, silent=1)
    assert not await resources.credentials.settle()


async def test_a_worker_that_is_told_reads_the_store(resources: Resources, tmp_path: Path) -> None:
    put_in_force(resources, tmp_path, OAUTH)
    other = Resources({VARIABLE: KEY}, writes=False)
    try:
        put_in_force(other, tmp_path, OAUTH)
        # What the two have in common, as a database would be.
        store = await resources.credentials.store()
        other.credentials._store = store
        await sign_in(resources)
        await other.credentials.refresh()
        assert ["ada"] == [member.name for member in other.credentials.accounts.members("hub")]
    finally:
        await other.close()


async def test_an_account_that_was_refused_serves_again_as_soon_as_it_has_signed_in(
    resources: Resources, tmp_path: Path
) -> None:
    put_in_force(resources, tmp_path, OAUTH)
    await sign_in(resources)
    now = resources.clock.monotonic()
    resources.cooldowns.cool_credential("hub", "ada", reason=Reason.CREDENTIAL_REFUSED, seconds=600, now=now)
    anew = msgspec.structs.replace(TOKENS, access_token=Secret.literal(planted("anew"), "access token"))
    await resources.credentials.accounts.signed_in(SignIn("hub", "ada", "strict", anew))
    assert not resources.cooldowns.credential_cooled("hub", "ada", now)


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        ("null", "http://127.0.0.1:8080/oauth/callback"),
        ("https://x.example.com/llm/", "https://x.example.com/llm/oauth/callback"),
    ],
)
async def test_people_come_back_to_the_public_address_or_the_own_one(
    resources: Resources, tmp_path: Path, public: str, expected: str
) -> None:
    put_in_force(resources, tmp_path, f"server: {{public_url: {public}}}\n{PLAIN}")
    await resources.credentials.start("http://127.0.0.1:8080")
    assert expected == resources.redirect_url()


async def test_metrics_show_who_needs_a_login(resources: Resources, tmp_path: Path) -> None:
    put_in_force(resources, tmp_path, OAUTH)
    await sign_in(resources)
    await resources.credentials.start("http://127.0.0.1:8080")

    line = 'sluice_credential_state{credential="ada",provider="hub"} 0.0'
    await until(lambda: line in resources.metrics.render()[1].decode().splitlines())


async def test_master_keys_are_read_again_when_their_file_has_changed(
    resources: Resources, tmp_path: Path, expect_log: ExpectLog
) -> None:
    resources.secrets.writes = True
    loaded = put_in_force(resources, tmp_path, PLAIN)
    keys = MasterKeys(resources.secrets, {})
    keys.follow(loaded)
    with expect_log("made a master key"):
        made = await keys.read()
    known = await keys.read()
    assert (made.ids, True) == (known.ids, known is await keys.read())
    path = place_of_secrets(tmp_path / "data" / "master.key")
    path.write_text(f"{KEY}\n{path.read_text()}")
    assert ("main", *made.ids) == (await keys.read()).ids


async def test_without_a_master_key_nothing_is_sealed(resources: Resources, tmp_path: Path) -> None:
    keys = MasterKeys(resources.secrets, {})
    keys.follow(put_in_force(resources, tmp_path, PLAIN))
    with pytest.raises(StoreUnavailable, match="set `SLUICE_MASTER_KEY`"):
        await keys.read()
    broken = MasterKeys(resources.secrets, {VARIABLE: planted("no-key")})
    broken.follow(put_in_force(resources, tmp_path, PLAIN))
    with pytest.raises(StoreUnavailable, match="is not 32 bytes"):
        await broken.read()
