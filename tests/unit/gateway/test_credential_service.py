"""Credentials for the management API: the real accounts, sealer and memory store; who gives tokens is a stand-in."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from config.schema import ClientTls, Config, Credential, OAuth, OAuthProvider, Provider, Server
from config.sealing import KeyRing, SealingKey
from core.clock import ManualClock
from core.events import Event
from core.secret import Secret
from credentials.accounts import Accounts
from credentials.errors import (
    AccountMissing,
    CredentialUnavailable,
    RecordDamaged,
    RecordElsewhere,
    RecordLocked,
    StoreConflict,
    StoreUnavailable,
)
from credentials.records import AccountRecord, AccountStore
from credentials.sealer import RecordSealer
from credentials.stores.memory import MemoryStore
from credentials.tokens import TokenSet
from gateway.account_checks import kept_accounts
from gateway.credential_service import GatewayCredentials
from management.credential_bodies import CredentialPatch, Exported, NewCredential, SecretKept, SecretSet
from management.credential_service import (
    CannotRefresh,
    InFile,
    NameTaken,
    NothingSealed,
    Unfit,
    UnknownCredential,
    UnknownProvider,
)
from tests.conftest import ExpectLog
from tests.live_credentials import TokenServer
from tests.planted import planted, planted_key

REFRESH = planted("account-refresh")
ACCESS = planted("account-access")
PROXY = f"http://user:{planted('proxy')}@proxy.example.com:3128"

CONFIG = Config(
    providers=(
        Provider(
            name="openai",
            type="openai",
            oauth="corp",
            credentials=(Credential(name="of-file", api_key=Secret.literal("key")),),
        ),
        Provider(name="plain", type="openai"),
        Provider(name="near", type="openai-compatible", base_url="http://near.example.com/v1", oauth="corp"),
    ),
    oauth=OAuth(providers=(OAuthProvider(name="corp", template="github", client_id="ours"),)),
)


class RevokingServer(TokenServer):
    """The same, which takes tokens back."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.revoked: list[TokenSet] = []
        self.revokes: bool | Exception = True

    async def revoke(self, tokens: TokenSet) -> bool:
        if isinstance(self.revokes, Exception):
            raise self.revokes
        self.revoked.append(tokens)
        return self.revokes


class OneProcess:
    """Fits what :class:`GatewayCredentials` needs of the keeper of a process."""

    def __init__(self, key: str = "k1", shared: MemoryStore | None = None) -> None:
        self.clock = ManualClock()
        self.shared = MemoryStore(self.clock) if shared is None else shared
        self.server = RevokingServer(self.clock)
        self.key = key
        self.gone = False
        self.settled = 0
        self.told: list[Event] = []
        self.sealer = RecordSealer(self._keys)
        self.accounts = Accounts(
            store=self.store, sealer=self.sealer, clock=self.clock, random=lambda: 0.0, tell=self.told.append
        )
        self.config = CONFIG
        self.follow(CONFIG)
        self.service = GatewayCredentials(self, lambda: self.config, self.clock)

    def follow(self, config: Config) -> None:
        self.config = config
        self.accounts.follow(config.providers, {}, self.servers, 300.0)

    @property
    def servers(self) -> dict[str, RevokingServer]:
        return {each.name: self.server for each in self.config.oauth.providers}

    async def store(self) -> AccountStore:
        if self.gone:
            raise StoreUnavailable("the store does not answer")
        return self.shared

    async def refresh(self) -> None:
        await self.accounts.sync()

    async def settle(self) -> bool:
        self.settled += 1
        return True

    async def _keys(self) -> KeyRing:
        return KeyRing([SealingKey(self.key, planted_key(self.key))])

    async def close(self) -> None:
        await self.accounts.close()
        await self.shared.close()

    async def record(self, name: str = "main") -> AccountRecord:
        found = await self.shared.get("openai", name)
        assert found is not None
        return found

    async def replace(self, **members: Any) -> None:
        """Somebody else writes the record of `main`."""
        held = await self.record()
        await self.shared.put(msgspec.structs.replace(held, **members), held.version)


@pytest.fixture
async def process() -> AsyncIterator[OneProcess]:
    one = OneProcess()
    yield one
    await one.close()


def new(name: str = "main", provider: str = "openai", **members: Any) -> NewCredential:
    given = {"refresh_token": SecretSet(REFRESH), "access_token": SecretSet(ACCESS), **members}
    return NewCredential(provider=provider, name=name, **given)


async def test_an_account_that_is_added_serves_and_is_sealed(process: OneProcess) -> None:
    end = datetime(2099, 1, 1, tzinfo=UTC)
    shown = await process.service.add(
        new(expires_at=end, account="ann", scopes=("a",), weight=2, models=("gpt-*",), proxy_url=SecretSet(PROXY))
    )
    assert ("openai/main", "oauth", "account", "ready", "corp", "ann", 2, True, 1) == (
        shown.id,
        shown.kind,
        shown.source,
        shown.state,
        shown.oauth,
        shown.account,
        shown.weight,
        shown.has_proxy,
        shown.version,
    )
    assert end == shown.expires_at
    assert shown == await process.service.get("openai", "main")
    (member,) = process.accounts.members("openai")
    assert member.secret is not None
    assert member.proxy_url is not None
    assert (ACCESS, PROXY, 2) == (member.secret.reveal(), member.proxy_url.reveal(), member.weight)
    kept = repr(await process.record())
    assert not any(secret in kept for secret in (ACCESS, REFRESH, PROXY))
    tokens = await process.sealer.open_tokens(await process.record())
    assert tokens is not None
    assert tokens.refresh_token is not None
    assert REFRESH == tokens.refresh_token.reveal()
    assert process.settled


async def test_with_a_refresh_token_alone_a_token_is_got_when_it_is_needed(process: OneProcess) -> None:
    shown = await process.service.add(new(access_token=None, account="main"))
    assert "ready" == shown.state
    (member,) = process.accounts.members("openai")
    assert member.live is not None
    assert not member.live.fresh(process.clock.time())
    refreshed = await process.service.refresh("openai", "main")
    assert ["main"] == process.server.asked
    assert (2, True) == (refreshed.version, member.live.fresh(process.clock.time()))


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (new(provider="nobody"), UnknownProvider),
        (new(provider="plain"), UnknownProvider),
        (new("of-file"), NameTaken),
        (new(models=("[",)), Unfit),
        (new(prefix="plain"), Unfit),
        (new(proxy_url=SecretSet("ftp://proxy")), Unfit),
        (new(proxy_url=SecretSet("http://127.0.0.1:3128")), Unfit),
        (new(proxy_url=SecretSet("http://proxy.internal:3128")), Unfit),
    ],
)
async def test_what_cannot_be_an_account_is_not_kept(
    process: OneProcess, given: NewCredential, refused: type[Exception]
) -> None:
    with pytest.raises(refused):
        await process.service.add(given)
    assert () == (await process.shared.all()).records


async def test_a_proxy_in_a_private_network_is_the_apis_where_the_operator_says_so(process: OneProcess) -> None:
    process.follow(msgspec.structs.replace(CONFIG, server=Server(allow_private_targets=True)))
    assert (await process.service.add(new(proxy_url=SecretSet("http://127.0.0.1:3128")))).has_proxy
    assert (await process.service.add(new("direct", proxy_url=SecretSet("direct")))).has_proxy


async def test_a_name_is_taken_once_whoever_was_first(process: OneProcess) -> None:
    await process.service.add(new())
    with pytest.raises(NameTaken):
        await process.service.add(new())
    other = OneProcess(shared=process.shared)
    with pytest.raises(NameTaken):
        await other.service.add(new())
    await other.accounts.close()


async def test_a_change_touches_no_token_and_says_what_was(process: OneProcess) -> None:
    await process.service.add(new(note="old", weight=4))
    sealed = (await process.record()).sealed_tokens
    patch = CredentialPatch(note="new", disabled=True, proxy_url=SecretSet(PROXY))
    changed = await process.service.change("openai", "main", 1, patch)
    assert ("old", False, False, 1) == (
        changed.before.note,
        changed.before.disabled,
        changed.before.has_proxy,
        changed.before.version,
    )
    assert ("new", True, True, 2, 4, "disabled") == (
        changed.after.note,
        changed.after.disabled,
        changed.after.has_proxy,
        changed.after.version,
        changed.after.weight,
        changed.after.state,
    )
    assert sealed == (await process.record()).sealed_tokens
    assert () == process.accounts.members("openai")
    kept = await process.service.change("openai", "main", 2, CredentialPatch(proxy_url=SecretKept()))
    assert kept.after.has_proxy
    gone = await process.service.change("openai", "main", 3, CredentialPatch(proxy_url=None, disabled=False))
    assert (False, "ready") == (gone.after.has_proxy, gone.after.state)


async def test_a_change_of_what_has_changed_is_refused(process: OneProcess) -> None:
    await process.service.add(new())
    await process.replace(account="bob")
    with pytest.raises(StoreConflict):
        await process.service.change("openai", "main", 1, CredentialPatch(weight=2))
    with pytest.raises(StoreConflict):
        await process.service.remove("openai", "main", 1)
    assert [] == process.server.revoked
    assert "bob" == (await process.service.get("openai", "main")).account
    with pytest.raises(Unfit):
        await process.service.change("openai", "main", 2, CredentialPatch(prefix="near"))


async def test_tokens_that_go_without_tls_get_no_other_proxy(process: OneProcess) -> None:
    await process.service.add(new(provider="near"))
    for proxy in (SecretSet(PROXY), None):
        with pytest.raises(RecordElsewhere):
            await process.service.change("near", "main", 1, CredentialPatch(proxy_url=proxy))
    assert 2 == (await process.service.change("near", "main", 1, CredentialPatch(weight=2))).after.version


@pytest.mark.parametrize(
    ("revokes", "told"),
    [
        (True, (True, None)),
        (False, (False, "no address for that")),
        (CredentialUnavailable("it fails"), (False, "it fails")),
    ],
)
async def test_a_removal_gives_the_tokens_back_if_they_are_taken(
    process: OneProcess, revokes: bool | Exception, told: tuple[bool, str | None]
) -> None:
    await process.service.add(new())
    process.server.revokes = revokes
    removed = await process.service.remove("openai", "main", 1)
    assert told[0] == removed.revoked
    assert (told[1] or "") in (removed.because or "")
    assert () == (await process.shared.all()).records
    assert () == process.accounts.members("openai")
    if revokes is True:
        (tokens,) = process.server.revoked
        assert tokens.refresh_token is not None
        assert REFRESH == tokens.refresh_token.reveal()
    with pytest.raises(UnknownCredential):
        await process.service.get("openai", "main")


async def test_what_nobody_can_give_back_is_removed_all_the_same(process: OneProcess, expect_log: ExpectLog) -> None:
    await process.service.add(new())
    process.follow(msgspec.structs.replace(CONFIG, oauth=OAuth()))
    assert "is named `corp` any more" in str((await process.service.remove("openai", "main", 1)).because)
    process.follow(CONFIG)
    await process.service.add(new())
    other = OneProcess("other", process.shared)
    with expect_log("the tokens of the account `openai/main`"):
        shown = await other.service.account("openai", "main")
    assert ("damaged", None) == (shown.state, shown.version)
    with pytest.raises(RecordLocked):
        await other.service.export("openai", "main")
    with pytest.raises(CannotRefresh):
        await other.service.refresh("openai", "main")
    removed = await other.service.remove("openai", "main", None)
    assert (False, "were not given back" in str(removed.because)) == (removed.revoked, True)
    await other.accounts.close()


async def test_what_the_file_declares_is_told_and_not_changed(process: OneProcess) -> None:
    assert [("openai/of-file", "file", "api_key")] == [
        (each.id, each.source, each.kind) for each in await process.service.all()
    ]
    for asked in (
        process.service.account("openai", "of-file"),
        process.service.change("openai", "of-file", 1, CredentialPatch()),
        process.service.remove("openai", "of-file", 1),
        process.service.export("openai", "of-file"),
    ):
        with pytest.raises(InFile):
            await asked
    with pytest.raises(CannotRefresh):
        await process.service.refresh("openai", "of-file")
    with pytest.raises(UnknownCredential):
        await process.service.account("openai", "nobody")


async def test_an_account_that_the_file_hides_can_still_be_removed(process: OneProcess) -> None:
    await process.service.add(new())
    openai = CONFIG.providers[0]
    hiding = msgspec.structs.replace(
        openai, credentials=(*openai.credentials, Credential(name="main", api_key=Secret.literal("key")))
    )
    process.follow(msgspec.structs.replace(CONFIG, providers=(hiding, *CONFIG.providers[1:])))
    assert [("account", "shadowed"), ("file", "ready"), ("file", "ready")] == [
        (each.source, each.state) for each in await process.service.all()
    ]
    assert "file" == (await process.service.get("openai", "main")).source
    with pytest.raises(CannotRefresh):
        await process.service.refresh("openai", "main")
    assert "shadowed" == (await process.service.account("openai", "main")).state
    assert (await process.service.remove("openai", "main", 1)).revoked


async def exported(process: OneProcess, **members: Any) -> Exported:
    await process.service.add(new(weight=3, proxy_url=SecretSet(PROXY), **members))
    return await process.service.export("openai", "main")


async def test_an_export_opens_where_the_same_key_is(process: OneProcess) -> None:
    document = await exported(process, account="ann")
    assert not any(secret in str(document) for secret in (ACCESS, REFRESH, PROXY))
    with pytest.raises(NameTaken):
        await process.service.take(document)
    elsewhere = OneProcess()
    shown = await elsewhere.service.take(document)
    assert ("ready", 3, True, "ann", 1) == (
        shown.state,
        shown.weight,
        shown.has_proxy,
        shown.account,
        shown.version,
    )
    (member,) = elsewhere.accounts.members("openai")
    assert member.secret is not None
    assert ACCESS == member.secret.reveal()
    await elsewhere.close()


async def test_an_import_is_refused_where_it_does_not_open_or_belong(process: OneProcess) -> None:
    document = await exported(process)
    renamed = msgspec.structs.replace(document, name="copy")
    cut = msgspec.structs.replace(renamed, sealed=renamed.sealed[:-4])
    with pytest.raises(RecordDamaged) as caught:
        await process.service.take(cut)
    assert RecordLocked is not type(caught.value)
    other = OneProcess("other")
    with pytest.raises(RecordLocked):
        await other.service.take(renamed)
    await other.close()
    for changed, refused in (
        ({"provider": "nobody"}, UnknownProvider),
        ({"provider": "plain"}, UnknownProvider),
        ({"oauth": "nobody"}, Unfit),
        ({"settings": msgspec.structs.replace(document.settings, prefix="near")}, Unfit),
        ({"provider": "near"}, RecordElsewhere),
    ):
        with pytest.raises(refused):
            await process.service.take(msgspec.structs.replace(renamed, **changed))
    assert ["main"] == [each.name for each in (await process.shared.all()).records]


@pytest.mark.parametrize(
    "moved",
    [
        {"base_url": "https://evil.example.com/v1"},
        {"type": "openai-compatible"},
        {"tls": ClientTls(ca="evil.pem")},
        {"options": {"organization": "other"}},
    ],
)
async def test_tokens_are_not_imported_for_a_provider_at_another_address(
    process: OneProcess, moved: dict[str, Any]
) -> None:
    document = msgspec.structs.replace(await exported(process), name="copy")
    openai = msgspec.structs.replace(CONFIG.providers[0], **moved)
    process.follow(msgspec.structs.replace(CONFIG, providers=(openai, *CONFIG.providers[1:])))
    with pytest.raises(RecordElsewhere):
        await process.service.take(document)
    server = OAuthProvider(name="corp", token_endpoint="https://evil.example.com/token")
    process.follow(msgspec.structs.replace(CONFIG, oauth=OAuth(providers=(server,))))
    with pytest.raises(RecordElsewhere):
        await process.service.take(document)
    process.follow(CONFIG)
    assert "openai/copy" == (await process.service.take(document)).id


async def test_an_account_that_has_not_signed_in_is_not_exported(process: OneProcess) -> None:
    await process.service.add(new())
    await process.replace(sealed_tokens=None)
    with pytest.raises(NothingSealed):
        await process.service.export("openai", "main")


async def test_while_the_store_is_gone_what_was_known_is_shown(process: OneProcess, expect_log: ExpectLog) -> None:
    await process.service.add(new())
    process.gone = True
    with expect_log("the store does not answer"):
        assert "openai/main" == (await process.service.get("openai", "main")).id
    assert 2 == len(await process.service.all())
    with pytest.raises(StoreUnavailable):
        await process.service.add(new("other"))
    with pytest.raises(StoreUnavailable):
        await process.service.change("openai", "main", 1, CredentialPatch())
    assert {("openai", "corp"), ("near", "corp")} == await kept_accounts(process, CONFIG)
    process.gone = False
    assert {("openai", "corp")} == await kept_accounts(process, CONFIG)


async def test_one_that_another_process_has_removed_is_missing(process: OneProcess) -> None:
    await process.service.add(new())
    await process.shared.delete("openai", "main", None)
    with pytest.raises(AccountMissing):
        await process.service.change("openai", "main", 1, CredentialPatch())
    with pytest.raises(UnknownCredential):
        await process.service.get("openai", "main")
