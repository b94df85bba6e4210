"""Sign-ins: each state is good once, for what it was begun for, for ten minutes."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from config.sealing import KeyRing, SealingKey
from core.secret import Secret
from credentials.errors import (
    CredentialUnavailable,
    LoginDenied,
    LoginExpired,
    LoginFailed,
    LoginFault,
    LoginImpossible,
    LoginMismatch,
    LoginUnknown,
    LoginUsed,
    StoreUnavailable,
    TooManyLogins,
)
from credentials.logins.logins import LIFETIME_SECONDS, key_of
from credentials.logins.room import MOST_UNDER_WAY
from credentials.logins.values import ShownFlow
from credentials.oauth.server import Pending
from credentials.records import AccountRecord, AccountSettings, PendingLogin
from tests.conftest import ExpectLog
from tests.login_stand_in import CODE, ISSUER, REDIRECT_URL, LoginWorld, ServerStandIn, state_in, tokens


@pytest.fixture
def world() -> LoginWorld:
    return LoginWorld()


async def ended(world: LoginWorld) -> None:
    """What runs in the background has ended."""
    assert await world.tasks.join(10)


async def test_a_code_becomes_an_account_by_its_verifier_and_its_redirect_url(world: LoginWorld) -> None:
    settings = AccountSettings(weight=3, note="hers")
    begun = await world.logins.begin("openai", "ada", settings=settings, proxy_url="direct", scopes=("a", "b"))
    assert begun.authorization_url is not None
    assert "scope=a+b" in begun.authorization_url
    assert ("code", begun.state, REDIRECT_URL) == (begun.flow, state_in(begun.authorization_url), begun.redirect_url)
    assert "pending" == (await world.logins.status(begun.state)).status
    world.server.redirect_url = "https://changed.example.com/"
    done = await world.logins.callback({"state": begun.state, "code": CODE, "iss": ISSUER, "other": "ignored"})
    assert ("openai", "ada", "complete") == (done.provider, done.name, done.status)
    ((code, verifier, redirect_url),) = world.server.exchanged
    assert (CODE, REDIRECT_URL) == (code, redirect_url)
    assert verifier is not None
    assert 43 <= len(verifier)
    assert [("openai", "ada", settings, "direct")] == world.accounts.kept
    assert "complete" == (await world.logins.status(begun.state)).status
    assert begun.state not in repr(begun)


async def test_a_state_is_256_bits_and_the_store_has_its_hash_and_nothing_in_the_clear(world: LoginWorld) -> None:
    kept: list[PendingLogin] = []
    add = world.store.add_login

    async def watched(login: PendingLogin) -> None:
        kept.append(login)
        await add(login)

    world.store.add_login = watched
    states = {(await world.logins.begin("openai", f"a{number}", proxy_url="http://p")).state for number in range(5)}
    assert {32} == {len(base64.urlsafe_b64decode(state + "=")) for state in states}
    assert len(states) == len({each.key for each in kept})
    for login, state in zip(kept, states, strict=True):
        text = msgspec.json.encode(login).decode()
        assert state not in text
        assert "http://p" not in text
        assert str(login.sealed).startswith("k1:")


async def test_a_verifier_is_left_out_where_the_server_refuses_one(world: LoginWorld) -> None:
    world.server.pkce = False
    begun = await world.logins.begin("openai", "ada")
    await world.logins.callback({"state": begun.state, "code": CODE})
    assert None is world.server.exchanged[0][1]


Answer = Callable[[LoginWorld, str], Awaitable[object]]


def callback(**query: str) -> Answer:
    return lambda world, state: world.logins.callback({"state": state, **query})


def paste(address: str) -> Answer:
    return lambda world, state: world.logins.complete(address.replace("STATE", state))


ENDING: list[tuple[Answer, type[LoginFault]]] = [
    (callback(error="access_denied"), LoginDenied),
    (callback(code=CODE, iss="https://evil.example.com"), LoginMismatch),
    (callback(error="access_denied", iss="https://evil.example.com"), LoginMismatch),
    (callback(), LoginFailed),
    (paste(f"{REDIRECT_URL}?error=access_denied&state=STATE"), LoginDenied),
]
CHANGING_NOTHING: list[tuple[Answer, type[LoginFault]]] = [
    (lambda world, _: world.logins.callback({"code": CODE}), LoginUnknown),
    (lambda world, _: world.logins.callback({"code": CODE, "state": ""}), LoginUnknown),
    (lambda world, _: world.logins.callback({"code": CODE, "state": "x" * 43}), LoginUnknown),
    (lambda world, state: world.logins.callback({"code": CODE, "state": state[:-1]}), LoginUnknown),
    (lambda world, state: world.logins.callback({"code": CODE, "state": f"{state}\udcff"}), LoginUnknown),
    (paste(f"https://evil.example.com/oauth/callback?code={CODE}&state=STATE"), LoginMismatch),
    (paste(f"https://gateway.example.com:8443/oauth/callback?code={CODE}&state=STATE"), LoginMismatch),
    (paste(f"http://gateway.example.com/oauth/callback?code={CODE}&state=STATE"), LoginMismatch),
    (paste(f"https://gateway.example.com/elsewhere?code={CODE}&state=STATE"), LoginMismatch),
    (paste(f"https://user@gateway.example.com/oauth/callback?code={CODE}&state=STATE"), LoginMismatch),
    (paste(f"{REDIRECT_URL}?code={CODE}&state=STATE&state=other"), LoginMismatch),
    (paste(f"{REDIRECT_URL}?code={CODE}"), LoginUnknown),
    (paste(f"{REDIRECT_URL}?code={CODE}&state={'x' * 43}"), LoginUnknown),
    (paste("STATE"), LoginMismatch),
    (paste("https://[::1/oauth/callback?state=STATE"), LoginMismatch),
    (paste(f"{REDIRECT_URL}?state=STATE&{'x' * 9000}"), LoginMismatch),
    (paste(f"{REDIRECT_URL}?state=STATE&code=%ff"), LoginMismatch),
]


@pytest.mark.parametrize(("answer", "fault"), ENDING)
async def test_an_answer_that_says_no_or_is_anothers_ends_the_sign_in(
    world: LoginWorld, answer: Answer, fault: type[LoginFault]
) -> None:
    begun = await world.logins.begin("openai", "ada")
    with pytest.raises(fault) as raised:
        await answer(world, begun.state)
    assert fault is type(raised.value)
    status = await world.logins.status(begun.state)
    assert ("failed", str(raised.value)) == (status.status, status.message)
    with pytest.raises(LoginUsed):
        await world.logins.callback({"state": begun.state, "code": CODE})
    assert ([], []) == (world.accounts.kept, world.server.exchanged)


@pytest.mark.parametrize(("answer", "fault"), CHANGING_NOTHING)
async def test_what_is_no_answer_to_it_is_refused_and_changes_nothing(
    world: LoginWorld, answer: Answer, fault: type[LoginFault]
) -> None:
    begun = await world.logins.begin("openai", "ada")
    with pytest.raises(fault) as raised:
        await answer(world, begun.state)
    assert fault is type(raised.value)
    assert [] == world.server.exchanged
    assert "pending" == (await world.logins.status(begun.state)).status
    await world.logins.complete(f" '{REDIRECT_URL}?code={CODE}&state={begun.state}&iss={ISSUER}#_=_' \n")
    assert 1 == len(world.accounts.kept)


async def test_a_state_is_good_once_whichever_process_is_asked_and_however_many_ask_at_once(world: LoginWorld) -> None:
    others = [world.process() for _ in range(7)]
    begun = await world.logins.begin("openai", "ada")
    world.server.exchange_may_go_on = asyncio.Event()
    answers = [
        asyncio.ensure_future(process.callback({"state": begun.state, "code": CODE}))
        for process in [world.logins, *others]
    ]
    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    # While it is being exchanged, too.
    with pytest.raises(LoginUsed):
        await others[0].cancel(begun.state)
    world.server.exchange_may_go_on.set()
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert 7 == sum(type(each) is LoginUsed for each in outcomes)
    assert (1, 1) == (len(world.server.exchanged), len(world.accounts.kept))
    with pytest.raises(LoginUsed):
        await others[1].callback({"state": begun.state, "code": CODE})
    assert "complete" == (await others[2].status(begun.state)).status


async def test_after_ten_minutes_a_sign_in_can_only_fail(world: LoginWorld) -> None:
    begun = await world.logins.begin("openai", "ada")
    assert LIFETIME_SECONDS == begun.expires_at - world.clock.time()
    world.clock.advance(LIFETIME_SECONDS)
    with pytest.raises(LoginExpired):
        await world.logins.callback({"state": begun.state, "code": CODE})
    assert "expired" == (await world.logins.status(begun.state)).status
    with pytest.raises(LoginExpired):
        await world.logins.callback({"state": begun.state, "code": CODE})
    assert [] == world.server.exchanged
    world.clock.advance(LIFETIME_SECONDS + 1)
    with pytest.raises(LoginUnknown):
        await world.logins.status(begun.state)


async def test_a_sign_in_that_is_cancelled_is_no_longer_answered(world: LoginWorld) -> None:
    begun = await world.logins.begin("openai", "ada")
    assert "cancelled" == (await world.process().cancel(begun.state)).status
    with pytest.raises(LoginUsed):
        await world.logins.callback({"state": begun.state, "code": CODE})
    with pytest.raises(LoginUsed):
        await world.logins.cancel(begun.state)
    with pytest.raises(LoginUnknown):
        await world.logins.cancel("x" * 43)


@pytest.mark.parametrize(
    ("provider", "name", "flow", "what"),
    [
        ("nowhere", "ada", None, "provider"),
        ("plain", "ada", None, "provider"),
        ("openai", "of-file", None, "name"),
        ("openai", "ada", "device", "flow"),
    ],
)
async def test_what_cannot_begin_says_what_cannot_be(
    world: LoginWorld, provider: str, name: str, flow: ShownFlow | None, what: str
) -> None:
    world.server.flows = ("key_exchange",)
    with pytest.raises(LoginImpossible) as raised:
        await world.logins.begin(provider, name, flow)
    assert what == raised.value.what
    assert "code" == (await world.logins.begin("openai", "ada", "code")).flow


async def test_a_configuration_that_changes_meanwhile_ends_the_sign_in_and_gives_the_tokens_back(
    world: LoginWorld,
) -> None:
    begun, other = await world.logins.begin("openai", "ada"), await world.logins.begin("other", "of-file")
    world.providers["openai"] = msgspec.structs.replace(world.providers["openai"], oauth=None)
    with pytest.raises(LoginFailed, match="does not say where its accounts sign in"):
        await world.logins.callback({"state": begun.state, "code": CODE})
    # A name of the file's by now.
    declared = msgspec.structs.replace(world.providers["other"], credentials=world.providers["openai"].credentials)
    world.providers["other"] = declared
    with pytest.raises(LoginFailed, match="declares a credential `of-file`"):
        await world.logins.callback({"state": other.state, "code": CODE})
    await ended(world)
    assert ([], 1) == (world.accounts.kept, len(world.server.revoked))


async def test_tokens_that_cannot_be_kept_are_given_back_and_the_sign_in_has_failed(world: LoginWorld) -> None:
    begun = await world.logins.begin("openai", "ada")
    world.accounts.failure = StoreUnavailable("the store does not answer")
    with pytest.raises(StoreUnavailable):
        await world.logins.callback({"state": begun.state, "code": CODE})
    await ended(world)
    assert 1 == len(world.server.revoked)
    assert "the store does not answer" == (await world.logins.status(begun.state)).message


async def test_tokens_that_cannot_be_given_back_either_are_told_of(world: LoginWorld, expect_log: ExpectLog) -> None:
    async def fail(_: object) -> None:
        raise CredentialUnavailable("no answer")

    world.server.revoke = fail  # type: ignore[assignment, method-assign]
    world.accounts.failure = StoreUnavailable("the store does not answer")
    begun = await world.logins.begin("openai", "ada")
    with expect_log("came to nothing could not be revoked: no answer"):
        with pytest.raises(StoreUnavailable):
            await world.logins.callback({"state": begun.state, "code": CODE})
        await ended(world)


async def test_an_account_counts_though_the_end_of_its_sign_in_cannot_be_kept(
    world: LoginWorld, expect_log: ExpectLog
) -> None:
    begun = await world.logins.begin("openai", "ada")

    keep, tries = world.store.end_login, 0

    async def fail_thrice(*how: Any) -> None:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise StoreUnavailable("gone")
        await keep(*how)

    world.store.end_login = fail_thrice
    with expect_log(r"how a sign-in ended \(complete\) could not be kept"):
        assert "complete" == (await world.logins.callback({"state": begun.state, "code": CODE})).status
    assert 1 == len(world.accounts.kept)
    # Who asks knows as soon as the store takes it.
    world.wake.set()
    await ended(world)
    assert (4, "complete") == (tries, (await world.logins.status(begun.state)).status)


async def test_a_key_that_is_gone_fails_the_sign_in_alone(world: LoginWorld) -> None:
    begun = await world.logins.begin("openai", "ada")
    world.keys = KeyRing([SealingKey("k2", b"j" * 32)])
    with pytest.raises(LoginFailed, match="k1"):
        await world.logins.callback({"state": begun.state, "code": CODE})
    assert [] == world.server.exchanged


async def test_what_is_sealed_for_one_sign_in_opens_for_no_other(world: LoginWorld) -> None:
    one, other = await world.logins.begin("openai", "ada"), await world.logins.begin("openai", "bob")
    take = world.store.take_login

    async def swapped(key: str) -> PendingLogin | None:
        kept: PendingLogin | None = await take(key)
        moved: PendingLogin | None = await take(key_of(one.state))
        assert kept is not None
        assert moved is not None
        return msgspec.structs.replace(kept, sealed=moved.sealed)

    world.store.take_login = swapped
    with pytest.raises(LoginFailed):
        await world.logins.callback({"state": other.state, "code": CODE})
    assert [] == world.server.exchanged


async def test_only_so_many_are_under_way_and_one_that_ends_makes_room(world: LoginWorld) -> None:
    begun = [await world.logins.begin("openai") for _ in range(MOST_UNDER_WAY)]
    with pytest.raises(TooManyLogins) as raised:
        await world.logins.begin("openai")
    assert LIFETIME_SECONDS == raised.value.retry_after_seconds
    await world.logins.cancel(begun[0].state)
    await world.logins.begin("openai", "x")
    # What fails to begin takes no room.
    await world.logins.cancel(begun[1].state)
    world.server.failure = LoginFailed("no answer")
    flows: tuple[ShownFlow, ...] = ("code", "device")
    for flow in flows:
        with pytest.raises(LoginFailed):
            await world.logins.begin("openai", "y", flow)
    world.server.failure = None
    await world.logins.begin("openai", "y")
    world.clock.advance(LIFETIME_SECONDS)
    await world.logins.begin("openai", "z")


async def test_strangers_make_the_store_work_for_a_few_at_a_time(world: LoginWorld) -> None:
    asked, may_answer = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: str) -> None:
        asked.release()
        await may_answer.wait()

    world.store.login = slow
    tries = [asyncio.ensure_future(world.logins.look("x" * 43)) for _ in range(50)]
    for _ in range(16):
        await asked.acquire()
    with pytest.raises(TooManyLogins):
        await world.logins.look("x" * 43)
    may_answer.set()
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert 16 == sum(type(each) is LoginUnknown for each in outcomes)
    with pytest.raises(LoginUnknown):
        await world.logins.look("short")


async def test_a_name_that_is_left_out_replaces_nothing_that_works(world: LoginWorld) -> None:
    def record(name: str, needs_login: str | None = None) -> AccountRecord:
        return AccountRecord(
            provider="openai",
            name=name,
            version=0,
            oauth="accounts",
            needs_login=needs_login,
            created_at=0,
            updated_at=0,
        )

    assert "main" == (await world.logins.begin("openai")).name
    assert "main-2" == (await world.logins.begin("openai")).name
    assert "main" == (await world.logins.begin("other")).name
    world.clock.advance(LIFETIME_SECONDS)
    assert "main" == await world.logins.name_for("openai", None)
    first = await world.store.put(record("main"), None)
    assert "main-2" == await world.logins.name_for("openai", None)
    await world.store.put(record("main", "it was revoked"), first.version)
    assert "main" == await world.logins.name_for("openai", None)


async def test_a_device_is_asked_for_until_it_has_signed_in(world: LoginWorld) -> None:
    world.server.polls = [Pending(), Pending(slow_down=True), CredentialUnavailable("no answer"), Pending(), tokens()]
    world.wake.clear()
    begun = await world.logins.begin("openai", "ada", "device", AccountSettings(weight=2))
    assert ("ABCD-EFGH", f"{ISSUER}/device") == (begun.user_code, begun.verification_uri)
    assert 300.0 == begun.expires_at - world.clock.time()
    # No browser comes back from there.
    with pytest.raises(LoginUnknown):
        await world.logins.callback({"state": begun.state, "code": CODE})
    world.wake.set()
    await ended(world)
    assert [5.0, 5.0, 10.0, 20.0, 20.0] == world.waits
    assert [("openai", "ada", AccountSettings(weight=2), None)] == world.accounts.kept
    assert "complete" == (await world.logins.status(begun.state)).status


@pytest.mark.parametrize(
    ("polls", "status", "message"),
    [
        ([LoginDenied("The server says `access_denied`.")], "failed", "The server says `access_denied`."),
        ([LoginExpired("The code has run out.")], "expired", "The code has run out."),
        ([LoginFailed("It fails.")], "failed", "It fails."),
        ([Pending()] * 60, "expired", "The code was not typed in in time: begin anew."),
    ],
)
async def test_a_device_that_does_not_sign_in_is_told_of(
    world: LoginWorld, polls: list[Pending | Exception], status: str, message: str
) -> None:
    world.server.polls = [*polls]
    begun = await world.logins.begin("openai", "ada", "device")
    await ended(world)
    shown = await world.logins.status(begun.state)
    # The store sees an end by its clock as soon as this does.
    assert status == shown.status
    assert shown.message in (message, None if status == "expired" else message)
    assert [] == world.accounts.kept


async def test_a_device_whose_sign_in_is_cancelled_elsewhere_is_asked_for_no_more(world: LoginWorld) -> None:
    world.wake.clear()
    begun = await world.logins.begin("openai", "ada", "device")
    await world.process().cancel(begun.state)
    world.wake.set()
    await ended(world)
    assert "cancelled" == (await world.logins.status(begun.state)).status


async def test_tokens_that_a_device_gets_as_its_sign_in_is_cancelled_are_given_back(world: LoginWorld) -> None:
    begun = await world.logins.begin("openai", "ada", "device")

    async def cancelled_meanwhile(_: Secret) -> object:
        await world.logins.cancel(begun.state)
        return tokens()

    world.server.poll_device = cancelled_meanwhile  # type: ignore[assignment, method-assign]
    await ended(world)
    assert (1, []) == (len(world.server.revoked), world.accounts.kept)
    assert "cancelled" == (await world.logins.status(begun.state)).status


async def test_a_store_that_fails_for_a_while_ends_no_device(world: LoginWorld) -> None:
    login, failures = world.store.login, [StoreUnavailable("gone")]

    async def failing(key: str) -> PendingLogin | None:
        if failures:
            raise failures.pop()
        found: PendingLogin | None = await login(key)
        return found

    world.store.login = failing
    world.server.polls = [Pending(), tokens()]
    begun = await world.logins.begin("openai", "ada", "device")
    await ended(world)
    assert "complete" == (await world.logins.status(begun.state)).status


async def test_a_code_of_one_server_is_not_given_to_another_that_does_not_say_who_it_is(world: LoginWorld) -> None:
    # It may have sent the person on to the other one.
    other = world.servers["other"] = ServerStandIn()
    other.issuer = "https://other.example.com"
    world.server.issuer = None
    begun = await world.logins.begin("openai")
    with pytest.raises(LoginMismatch, match="is that of `other`, and the sign-in was begun at `accounts`"):
        await world.logins.callback({"state": begun.state, "code": CODE, "iss": other.issuer})
    assert ([], "failed") == (world.server.exchanged, (await world.logins.status(begun.state)).status)
    # Who is known by no entry has nothing to be compared with; and two entries may be of one server.
    for mine, iss in ((None, "https://nobody.example.com"), (ISSUER, ISSUER)):
        other.issuer = world.server.issuer = mine
        again = await world.logins.begin("openai")
        assert "complete" == (await world.logins.callback({"state": again.state, "code": CODE, "iss": iss})).status


async def test_of_two_that_are_given_one_name_by_two_processes_the_second_takes_nothing_away(world: LoginWorld) -> None:
    first, second = await world.logins.begin("openai"), await world.process().begin("openai")
    device = await world.process().begin("openai", flow="device")
    assert {"main"} == {each.name for each in (first, second, device)}
    account = AccountRecord(provider="openai", name="main", version=0, oauth="accounts", created_at=0, updated_at=0)
    kept = await world.store.put(account, None)
    with pytest.raises(LoginFailed, match="`main` of `openai` has signed in meanwhile: begin anew"):
        await world.logins.callback({"state": second.state, "code": CODE})
    world.server.polls = [tokens()]
    await ended(world)
    assert "failed" == (await world.logins.status(device.state)).status
    assert ([], 2) == (world.accounts.kept, len(world.server.revoked))
    # One that has to sign in again is replaced, as is one that was asked for by its name.
    await world.store.put(msgspec.structs.replace(kept, needs_login="gone"), kept.version)
    await world.logins.callback({"state": first.state, "code": CODE})
    named = await world.logins.begin("openai", "main")
    await world.logins.callback({"state": named.state, "code": CODE})
    assert ["main", "main"] == [name for _, name, _, _ in world.accounts.kept]
