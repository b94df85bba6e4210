"""What there is of credentials whose tokens end, and what their operators do with it."""

import asyncio
from typing import Any

import msgspec
import pytest

from config.schema import AzureEntra, Credential, OAuthProvider, Provider, TokenPlacement
from core.clock import Clock
from core.secret import Secret
from credentials.accounts import Accounts
from credentials.declared import definition_of
from credentials.errors import (
    AccountMissing,
    CredentialRefused,
    RecordDamaged,
    StoreConflict,
    StoreUnavailable,
)
from credentials.records import AccountSettings, SignIn
from credentials.stores.memory import MemoryShelf
from credentials.tokens import TokenSet
from tests.unit.credentials.refresh_world import (
    AHEAD_SECONDS,
    LIFE_SECONDS,
    NAME,
    PROVIDER,
    Process,
    World,
    logged,
    parsed,
    world,
)

DOWN = "accounts can be neither read nor written"


@world()
async def test_an_operator_has_a_token_exchanged_whatever_its_end(there: World) -> None:
    state = await there.processes[0].accounts.refresh("claude", NAME)

    assert ("ready", "account", 2) == (state.state, state.source, state.version)
    assert state.next_refresh_at is not None
    assert state.expires_at is not None
    assert state.next_refresh_at < state.expires_at
    with pytest.raises(AccountMissing, match="there is no credential `claude/other`"):
        await there.processes[0].accounts.refresh("claude", "other")


@world(2)
async def test_an_edit_says_which_version_it_has_seen(there: World) -> None:
    one, other = (process.accounts for process in there.processes)

    def disabled(record: Any) -> Any:
        return msgspec.structs.replace(record, settings=AccountSettings(disabled=True))

    changed = await one.change("claude", NAME, disabled, 1)
    assert 2 == changed.version
    assert () == one.members("claude")
    assert "disabled" == one.states()[0].state
    with pytest.raises(StoreConflict, match="has version 2 by now, and not 1"):
        await other.change("claude", NAME, disabled, 1)
    with pytest.raises(StoreConflict):
        await other.remove("claude", NAME, 1)
    with pytest.raises(AccountMissing):
        await other.change("claude", "other", disabled, None)
    with pytest.raises(AccountMissing):
        await other.remove("claude", "other", None)
    # It is left alone while it is disabled.
    await asyncio.sleep(2 * LIFE_SECONDS)
    assert {} == there.server.used


@world(2)
async def test_a_write_is_told_where_it_was_made_and_what_serves_changes_its_serial(there: World) -> None:
    one, other = (process.accounts for process in there.processes)
    told: list[str] = []
    one.changed = lambda: told.append("one")
    other.changed = lambda: told.append("other")
    before = one.serial, other.serial

    await there.edit(0, "gpt-*")
    await other.sync()
    assert ["one"] == told
    assert before[0] < one.serial
    assert before[1] < other.serial
    serial = one.serial
    await one.refresh("claude", NAME)
    assert (["one", "one"], serial) == (told, one.serial)


@world()
async def test_a_new_sign_in_keeps_what_its_operator_has_said(there: World) -> None:
    accounts = there.processes[0].accounts
    tokens = there.server.sign_in()
    made = await accounts.signed_in(
        SignIn("claude", "work", "accounts", tokens, AccountSettings(weight=3), "http://proxy.example.com")
    )
    again = await accounts.signed_in(SignIn("claude", "work", "accounts", there.server.sign_in()))

    assert (3, 1, 2) == (again.settings.weight, made.version, again.version)
    assert made.sealed_proxy_url == again.sealed_proxy_url
    (_, work) = accounts.members("claude")
    assert ("work", 3) == (work.name, work.weight)
    assert work.proxy_url is not None
    assert "http://proxy.example.com" == work.proxy_url.reveal()
    assert ("main", "work") == tuple(state.name for state in accounts.states())


@logged("what is kept of the account `claude/main` was changed or cut")
@world(2)
async def test_a_damaged_record_serves_as_it_was_known_and_a_sign_in_mends_it(there: World) -> None:
    one, other = (process.accounts for process in there.processes)
    await one.signed_in(SignIn("claude", "work", "accounts", there.server.sign_in()))
    shelf = there.shared.store._shelf
    assert isinstance(shelf, MemoryShelf)
    shelf._accounts["claude", NAME] = shelf._accounts["claude", NAME][:-3] + b"!!}"
    shelf._version += 1
    await one.sync()

    assert ["damaged", "ready"] == [state.state for state in one.states()]
    assert [NAME, "work"] == [member.name for member in one.members("claude")]
    with pytest.raises(CredentialRefused, match="delete it and sign in again"):
        await one.refresh("claude", NAME)
    with pytest.raises(RecordDamaged):
        await one.change("claude", NAME, lambda record: record, None)
    later = Process(there, 7)
    await later.accounts.sync()
    assert ["work"] == [member.name for member in later.accounts.members("claude")]

    await there.sign_in()
    await other.sync()
    assert ["ready", "ready"] == [state.state for state in other.states()]
    assert await one.remove("claude", NAME, None) is not None


@logged("accounts cannot be read yet", DOWN)
@world()
async def test_a_start_does_not_wait_for_a_store_that_is_down(there: World) -> None:
    late = Process(there, 7)
    late.line.cut = True
    began = there.clock.time()
    await late.start()
    assert 2.0 == there.clock.time() - began
    assert "" == late.token
    with pytest.raises(StoreUnavailable):
        await late.accounts.sync()

    late.line.cut = False
    await asyncio.sleep(2.0)
    assert (1, 0) == parsed(late.token)
    await late.stop()


class Machine:
    """A stand-in for a source of tokens."""

    kind = "client_credentials"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked = 0
        self.fault: CredentialRefused | None = None

    async def obtain(self, held: TokenSet | None) -> TokenSet:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        now = self._clock.time()
        return TokenSet(
            access_token=Secret.literal(f"machine-0-{self.asked}"), issued_at=now, expires_at=now + LIFE_SECONDS
        )


def configured(*credentials: Credential) -> Provider:
    return msgspec.structs.replace(PROVIDER, credentials=credentials)


MACHINE = Credential(name="machine", client_credentials="accounts", weight=2)


def follow(accounts: Accounts, provider: Provider, source: Machine, server: Any) -> None:
    names = [each.name for each in provider.credentials if each.api_key is None]
    accounts.follow([provider], {("claude", name): source for name in names}, {"accounts": server}, AHEAD_SECONDS)


@world()
async def test_a_credential_of_the_file_has_its_token_before_it_is_asked_for(there: World) -> None:
    accounts, machine = there.processes[0].accounts, Machine(there.clock)
    follow(accounts, configured(MACHINE), machine, there.server)
    assert "pending" == accounts.states()[0].state

    await asyncio.sleep(0.0001)
    member, account = accounts.members("claude")
    assert ("machine", 2, TokenPlacement()) == (member.name, member.weight, member.placement)
    assert (NAME, None) == (account.name, account.placement)
    assert member.secret is not None
    assert "machine-0-1" == member.secret.reveal()
    await asyncio.sleep(LIFE_SECONDS)
    assert "machine-0-2" == member.secret.reveal()
    assert ("client_credentials", "file", "ready", "accounts") == (
        (state := accounts.states()[0]).kind,
        state.source,
        state.state,
        state.oauth,
    )


@world()
async def test_a_reload_keeps_the_token_of_what_is_defined_as_it_was(there: World) -> None:
    accounts, machine = there.processes[0].accounts, Machine(there.clock)
    follow(accounts, configured(MACHINE), machine, there.server)
    await asyncio.sleep(0.0001)
    (member, _) = accounts.members("claude")

    follow(accounts, configured(msgspec.structs.replace(MACHINE, weight=5)), machine, there.server)
    (same, _) = accounts.members("claude")
    assert (5, member.live) == (same.weight, same.live)
    assert 1 == machine.asked

    there.server.entry = OAuthProvider(name="accounts", client_id="another")
    follow(accounts, configured(MACHINE), machine, there.server)
    await asyncio.sleep(0.0001)
    (other, _) = accounts.members("claude")
    assert member.live is not other.live
    assert 2 == machine.asked

    follow(accounts, configured(msgspec.structs.replace(MACHINE, disabled=True)), machine, there.server)
    assert [NAME] == [each.name for each in accounts.members("claude")]
    assert "disabled" == accounts.states()[0].state


@logged("claude/machine` could not be refreshed: the server says `invalid_client`")
@world()
async def test_what_the_server_refuses_is_tried_again_as_a_configuration_comes(there: World) -> None:
    accounts, machine = there.processes[0].accounts, Machine(there.clock)
    machine.fault = CredentialRefused("the server says `invalid_client`")
    follow(accounts, configured(MACHINE), machine, there.server)
    await asyncio.sleep(100.0)
    assert 1 == machine.asked

    machine.fault = None
    follow(accounts, configured(MACHINE), machine, there.server)
    await asyncio.sleep(0.0001)
    assert "ready" == accounts.states()[0].state


@pytest.mark.parametrize(
    ("credentials", "servers", "state", "message"),
    [
        ((Credential(name=NAME, api_key=Secret.literal("x")),), True, "shadowed", "has a credential of this name"),
        ((), False, "disabled", "`oauth.providers` has no entry `accounts`, where it signed in"),
        (None, True, "disabled", "the configuration has no provider `claude`"),
    ],
)
def test_an_account_that_the_configuration_leaves_no_place_is_shown_and_serves_not(
    credentials: tuple[Credential, ...] | None, servers: bool, state: str, message: str
) -> None:
    @world()
    async def play(there: World) -> None:
        accounts = there.processes[0].accounts
        providers = [] if credentials is None else [configured(*credentials)]
        accounts.follow(providers, {}, {"accounts": there.server} if servers else {}, AHEAD_SECONDS)

        assert () == accounts.members("claude")
        found = accounts.states()[-1]
        assert (state, "account") == (found.state, found.source)
        assert message in (found.message or "")
        await asyncio.sleep(2 * LIFE_SECONDS)
        assert {} == there.server.used
        # It is as it was when there is a place for it again.
        accounts.follow([PROVIDER], {}, {"accounts": there.server}, AHEAD_SECONDS)
        await asyncio.sleep(0.01)
        assert (1, 1) == parsed(there.processes[0].token)

    play()


@logged("the tokens of the account `claude/main`: what is sealed needs the master key `k1`")
@world()
async def test_an_account_that_does_not_open_is_shown_and_others_are_not_affected(there: World) -> None:
    other = Process(there, 7, key="k2")
    await other.accounts.signed_in(SignIn("claude", "work", "accounts", there.server.sign_in()))
    await other.accounts.sync()

    assert ["damaged", "ready"] == [state.state for state in other.accounts.states()]
    assert ["work"] == [member.name for member in other.accounts.members("claude")]
    with pytest.raises(CredentialRefused, match="master key `k1`"):
        await other.accounts.refresh("claude", NAME)
    assert {} == there.server.used


def test_definitions_differ_by_what_their_secrets_are() -> None:
    values = ["the-first"]
    where = Secret(lambda: values[0], "${file:client}")

    def definition() -> object:
        entra = AzureEntra(tenant="contoso", client_id="ours", client_secret=where)
        return definition_of(Credential(name="entra", azure_entra=entra, weight=len(values)), None)

    first = definition()
    assert first == definition()
    assert "the-first" not in repr(first)
    values[0] = "the-second"
    assert first != definition()
    values.clear()  # as a file that is gone
    assert first != definition() == definition()
