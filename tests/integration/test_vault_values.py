"""The values of `${vault:…}` references as the gateway holds them, against a server: what a reader of a handle sees.

See test_vault_session.py for the fixtures `vault` (a stand-in, and a server that is prepared through hvac) and
`stand_in` (for what no real server does on command).
"""

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from config.references import Reference, ReferenceFault, References, parse_template
from config.schema import Vault, VaultAuth, VaultMount
from config.sealing import KeyRing, SealingKey
from config.vault.kept import KeptValues
from config.vault.settings import VaultSettings
from config.vault.values import VaultValues
from core.clock import Clock, ManualClock, SystemClock
from core.events import Event, SecretFresh, SecretRotated, SecretStale
from core.secret import Secret
from tests.conftest import ExpectLog
from tests.vault_server import PreparedVault
from tests.vault_stand_in import VaultStandIn
from tests.vault_state import Login

READ = ["read"]
GRACE_SECONDS = 60.0
"""How long a lease goes on that is not in use any more."""
CACHE_SECONDS = 0.05
TIMEOUT_SECONDS = 60.0
"""That of a gateway which waits for every answer, however slow the machine is on which both run."""
HASTE = 0.3
"""That of one which is to give up a server that does not answer."""
SOON = 60.0
"""Seconds within which what is expected has long happened."""
AT_ONCE = 20.0
"""Seconds within which nobody can have waited for `TIMEOUT_SECONDS`."""


def named(text: str) -> Reference:
    (reference,) = parse_template(f"${{vault:{text}}}")
    assert isinstance(reference, Reference)
    return reference


async def until(happened: Callable[[], object]) -> None:
    """Wait for what is to happen soon."""
    async with asyncio.timeout(SOON):
        while not happened():
            await asyncio.sleep(0.005)


class Held:
    """Values as a gateway holds them: `keep_fresh` runs beside it."""

    def __init__(self, values: VaultValues, pool: ThreadPoolExecutor, events: list[Event]) -> None:
        self.values = values
        self.events = events
        self._pool = pool
        self._references: list[Reference] = []
        self._rounds = 0
        """Of `keep_fresh`; those that have ended."""
        self._round = values._round
        values._round = self._count_round  # type: ignore[method-assign]  # the one place that knows when all is done

    async def _count_round(self) -> None:
        await self._round()
        self._rounds += 1

    async def load(self, *texts: str) -> list[Callable[[], str]]:
        """Handles on the references, as a document gets them; they are in force from then on."""
        references = [named(text) for text in texts]
        loaded = await asyncio.to_thread(self.load_now, references)
        self._references += references
        self.values.follow(self._references)
        return loaded

    def load_now(self, references: list[Reference]) -> list[Callable[[], str]]:
        self.values.fetch(references)
        documents = References({"vault": self.values.resolve})
        return [documents.secret((each,)).reveal for each in references]

    async def settle(self, vault: VaultStandIn) -> None:
        """Wait until all has been asked of ``vault`` that is due by a clock which stands still."""
        async with asyncio.timeout(SOON):
            asked = -1
            while asked != len(vault.requests):
                asked, rounds = len(vault.requests), self._rounds
                # The first of them may have begun before.
                while self._rounds < rounds + 2:
                    await asyncio.sleep(0.005)

    def be_patient(self, seconds: float) -> None:
        """Wait so long for an answer from now on, as after a reload."""
        config = msgspec.structs.replace(self.values.settings.config, timeout_seconds=seconds)
        self.values.retune(msgspec.structs.replace(self.values.settings, config=config), None)

    async def be_hasty(self, vault: VaultStandIn) -> None:
        """Give ``vault`` up soon from now on, with each question that has not been answered by now."""
        self.be_patient(HASTE)
        answered = len(vault.requests)
        # The first of them may have been asked before.
        await until(lambda: self.stale or len(vault.requests) >= answered + 2)

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def stale(self) -> dict[str, str]:
        """The reason by the reference's path and field."""
        return {each.reference.removeprefix("${vault:")[:-1]: each.reason for each in self.values.stale()}


class Hold:
    """Makes :class:`Held` for the length of a block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        vault: PreparedVault,
        login: Login | str,
        clock: Clock | None = None,
        kept: KeptValues | None = None,
        **settings: Any,
    ) -> AsyncIterator[Held]:
        auth = VaultAuth(token=Secret.literal(login)) if isinstance(login, str) else _auth(login)
        given: dict[str, Any] = {"cache_seconds": CACHE_SECONDS, "timeout_seconds": TIMEOUT_SECONDS}
        config = Vault(**given | {"address": vault.address, "auth": auth} | settings)
        events: list[Event] = []
        with ThreadPoolExecutor(4) as pool:
            values = VaultValues(
                VaultSettings(config, self._directory), clock or SystemClock(), pool, kept, events.append
            )
            held = Held(values, pool, events)
            keeping = asyncio.get_running_loop().create_task(values.keep_fresh())
            try:
                yield held
                assert not keeping.done(), "what keeps the values fresh has ended"
            finally:
                keeping.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeping
                await asyncio.to_thread(values.close)


def _auth(login: Login) -> VaultAuth:
    return VaultAuth(
        method="approle", mount=login.mount, role_id=login.role_id, secret_id=Secret.literal(login.secret_id)
    )


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hold:
    # A clock that is put forward is not noticed before the next look at it.
    monkeypatch.setattr("config.vault.values._LOOK_SECONDS", 0.01)
    return Hold(tmp_path)


class Reader:
    """Reads a handle again and again in a thread, as requests do; what it read, without repetitions."""

    def __init__(self, read: Callable[[], str]) -> None:
        self.values: list[str] = []
        self.faults: list[BaseException] = []
        self._read = read
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        ended = False
        while not ended:
            # Once more after the end, which may have come between two readings.
            ended = self._ended.wait(0.001)
            try:
                value = self._read()
            except BaseException as error:  # what a reader would have seen
                self.faults.append(error)
                return
            if self.values[-1:] != [value]:
                self.values.append(value)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


# Rotation


@pytest.mark.parametrize("kind", ["kv", "kv-v2"])
async def test_a_rotated_value_is_read_after_the_next_reading_and_nothing_else_changes(
    vault: PreparedVault, hold: Hold, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = vault.mount("store", kind)
    for name in ("openai", "other"):
        vault.put(f"{store}/llm/{name}", api_key="one")
    login = vault.approle(vault.policy({f"{store}/*": READ}))
    async with hold(vault, login) as held:
        openai, other = await held.load(f"{store}/llm/openai#api_key", f"{store}/llm/other#api_key")
        with Reader(openai) as reader:
            await until(lambda: reader.values == ["one"])
            for value in ("two", "three"):
                vault.put(f"{store}/llm/openai", api_key=value)
                # Readers have it a moment before it is told.
                await until(partial(is_read_and_told, reader, held, value))
        assert (["one", "two", "three"], []) == (reader.values, reader.faults)
        assert "one" == other()
        rotated = SecretRotated(reference=f"${{vault:{store}/llm/openai#api_key}}")
        assert [rotated, rotated] == held.events
        assert {} == held.stale
    assert not any(value in caplog.text for value in ("two", "three"))


async def test_a_version_that_is_named_stays(vault: PreparedVault, hold: Hold) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    vault.put(f"{store}/key", value="two")
    async with hold(vault, vault.approle(vault.policy({f"{store}/*": READ}))) as held:
        newest, first, second = await held.load(f"{store}/key#value", f"{store}/key@1#value", f"{store}/key@2#value")
        assert ("two", "one", "two") == (newest(), first(), second())
        vault.put(f"{store}/key", value="three")
        await until(lambda: newest() == "three")
        assert ("one", "two") == (first(), second())


async def test_mounts_of_several_segments_and_kinds_are_told_apart(vault: PreparedVault, hold: Hold) -> None:
    deep, plain = vault.mount("team/eu/secrets"), vault.mount("team/plain", "kv")
    vault.put(f"{deep}/a/b", value="deep")
    vault.put(f"{plain}/a/b", value="plain")
    login = vault.approle(vault.policy({f"{deep}/*": READ, f"{plain}/*": READ}))
    mounts = (deep, VaultMount(path=plain, kv=1))
    async with hold(vault, login, mounts=mounts, kv=2) as held:
        one, two = await held.load(f"{deep}/a/b#value", f"{plain}/a/b#value")
        assert ("deep", "plain") == (one(), two())


async def test_all_fields_of_a_secret_come_from_one_reading(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.credentials("database/creds/app")
    stand_in.put("secret/key", a="1", b="2", c="3")
    async with hold(stand_in, stand_in.root_token, cache_seconds=60.0) as held:
        fields = [f"secret/key#{field}" for field in "abc"]
        handles = await held.load(*fields, "database/creds/app#username", "database/creds/app#password")
        assert ["1", "2", "3"] == [read() for read in handles[:3]]
        (again,) = await held.load("secret/key#a")
        assert "1" == again()
    assert 1 == len(stand_in.asked("secret/data/key"))
    assert 1 == len(stand_in.asked("database/creds/app"))


@pytest.mark.parametrize(
    ("value", "text"),
    [("a text", "a text"), (17, "17"), (1.5, "1.5"), (True, "true"), ("0", "0"), (0, "0"), (False, "false")],
)
async def test_numbers_and_booleans_are_texts_too(vault: PreparedVault, hold: Hold, value: object, text: str) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value=value)
    async with hold(vault, vault.approle(vault.policy({f"{store}/*": READ}))) as held:
        (read,) = await held.load(f"{store}/key#value")
        assert text == read()


@pytest.mark.parametrize("value", [{"a": "b"}, ["a"]])
async def test_objects_and_lists_are_no_secrets(vault: PreparedVault, hold: Hold, value: object) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value=value)
    async with hold(vault, vault.approle(vault.policy({f"{store}/*": READ}))) as held:
        with pytest.raises(ReferenceFault, match=f"`value` at `{store}/key` is an? (object|list)"):
            await held.load(f"{store}/key#value:-default")


# At the start


async def test_what_is_not_there_is_refused_by_path_and_reason(vault: PreparedVault, hold: Hold) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", empty="", nothing=None, other="1")
    async with hold(vault, vault.approle(vault.policy({f"{store}/*": READ}))) as held:
        for text, told in [
            (f"{store}/nowhere#value", f"`{store}/data/nowhere`"),
            (f"{store}/key@9#other", f"`{store}/data/key`"),
            (f"{store}/key#value", f"the field `value` at `{store}/key` is not there"),
            (f"{store}/key#empty", f"the field `empty` at `{store}/key` is empty"),
            (f"{store}/key#nothing", f"the field `nothing` at `{store}/key`"),
        ]:
            with pytest.raises(ReferenceFault, match=re.escape(told)) as error:
                await held.load(text)
            assert f"`${{vault:{text}}}`" in str(error.value)


async def test_a_denial_is_refused_with_the_line_that_the_policy_lacks_even_with_a_default(
    vault: PreparedVault, hold: Hold
) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/llm/openai", api_key="one")
    async with hold(vault, vault.approle()) as held:
        for default in ("", ":-default"):
            with pytest.raises(ReferenceFault) as error:
                await held.load(f"{store}/llm/openai#api_key{default}")
            assert f'path "{store}/data/llm/openai" {{ capabilities = ["read"] }}' in str(error.value)
            assert "default" not in str(error.value)


async def test_a_default_serves_until_there_is_a_value(vault: PreparedVault, hold: Hold) -> None:
    store = vault.mount("store")
    async with hold(vault, vault.approle(vault.policy({f"{store}/*": READ}))) as held:
        (read,) = await held.load(f"{store}/key#value:-default")
        assert "default" == read()
        assert {} == held.stale
        vault.put(f"{store}/key", value="one")
        await until(lambda: read() == "one")


@pytest.mark.parametrize("what", ["stop", "seal", "slow", "limit_rate", "fail"])
async def test_without_vault_a_start_is_refused_in_bounded_time_and_a_default_stands_in(
    stand_in: VaultStandIn, hold: Hold, what: str, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    befall(stand_in, what)
    login = stand_in.approle(stand_in.policy({"secret/*": READ}))
    async with hold(stand_in, login, timeout_seconds=HASTE if what == "slow" else TIMEOUT_SECONDS) as held:
        many = [named(f"secret/key{number}#value") for number in range(40)]
        async with asyncio.timeout(AT_ONCE):
            with pytest.raises(ReferenceFault, match="secret/key0#value") as error:
                await asyncio.to_thread(held.load_now, many)
        # One question, not one for each reference; those that are not answered wait there for the stand-in's recovery.
        assert len(stand_in.requests) + stand_in.waiting <= 2
        assert "Vault" in str(error.value)
        with expect_log(r"secret/key#value.* cannot be read, its default is in use"):
            (read,) = await held.load("secret/key#value:-default")
            assert "default" == read()
            assert [SecretStale] == [type(each) for each in held.events]
        held.be_patient(TIMEOUT_SECONDS)
        recover(stand_in, what)
        await until(lambda: read() == "one")
        await until(lambda: not held.stale and held.told(SecretFresh))
        assert [SecretFresh(reference="${vault:secret/key#value}")] == held.told(SecretFresh)


# Trouble once warm


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("stop", "unreachable"),
        ("seal", "sealed"),
        ("slow", "slow"),
        ("trickle", "slow"),
        ("limit_rate", "rate_limited"),
        ("fail", "error"),
        ("garble", "error"),
        ("no_leader", "error"),
        ("deny", "denied"),
        ("delete", "missing"),
        ("drop_field", "missing"),
        ("empty_field", "missing"),
    ],
)
async def test_once_warm_no_reader_notices_trouble_and_it_is_told_once(
    stand_in: VaultStandIn, hold: Hold, what: str, reason: str, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    login = stand_in.approle(stand_in.policy({"secret/*": READ}))
    async with hold(stand_in, login) as held:
        (read,) = await held.load("secret/key#value")
        with Reader(read) as reader:
            await until(lambda: reader.values)
            with expect_log(r"secret/key#value.* cannot be read, its last value stays in use"):
                if what in ("slow", "trickle"):
                    await held.be_hasty(stand_in)
                befall(stand_in, what)
                await until(lambda: held.told(SecretStale))
                await asyncio.sleep(3 * HASTE)
            assert {"secret/key#value": reason} == held.stale
            (stale,) = held.values.stale()
            assert stale.known_at is not None
            assert stale.known_at <= stale.since <= time.time()
            held.be_patient(TIMEOUT_SECONDS)
            recover(stand_in, what)
            stand_in.put("secret/key", value="two")
            await until(lambda: read() == "two")
            # Readers have it a moment before it is told.
            await until(lambda: held.told(SecretRotated) and held.told(SecretFresh))
        assert (["one", "two"], []) == (reader.values, reader.faults)
        assert {} == held.stale
        label = "${vault:secret/key#value}"
        assert [SecretStale(reference=label, reason=reason)] == held.told(SecretStale)
        assert [SecretFresh(reference=label)] == held.told(SecretFresh)
        assert [SecretRotated(reference=label)] == held.told(SecretRotated)


async def test_an_outage_may_last_for_days(stand_in: VaultStandIn, hold: Hold, expect_log: ExpectLog) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    login = stand_in.approle(stand_in.policy({"secret/*": READ}), ttl=3600, max_ttl=7200)
    async with hold(stand_in, login, clock, cache_seconds=60.0) as held:
        (read,) = await held.load("secret/key#value")
        with expect_log("its last value stays in use"):
            stand_in.stop()
            for _ in range(48):
                for some in (clock, stand_in):
                    some.advance(3600)
                await held.settle(stand_in)
                assert "one" == read()
            assert held.stale
        stand_in.put("secret/key", value="two")
        stand_in.start()
        # By then its token has ended too.
        assert [] == stand_in.tokens()
        clock.advance(60)
        await until(lambda: read() == "two")
        assert 1 == len(held.told(SecretStale))


async def test_a_failure_is_tried_again_ever_more_rarely_and_then_as_often_as_before(
    stand_in: VaultStandIn, hold: Hold, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    async with hold(stand_in, stand_in.root_token, clock, cache_seconds=60.0) as held:
        (read,) = await held.load("secret/key#value")
        with expect_log("its last value stays in use"):
            stand_in.fail(500, path="secret/")
            stand_in.forget()
            clock.advance(60)
            await held.settle(stand_in)
            assert 1 == len(stand_in.asked("secret/*"))
            for tries, pause in enumerate((1, 2, 4, 8, 16, 30, 30), 2):
                clock.advance(pause - 0.1)
                await held.settle(stand_in)
                assert tries - 1 == len(stand_in.asked("secret/*")), f"asked sooner than after {pause} s"
                clock.advance(0.2)
                await held.settle(stand_in)
                assert tries == len(stand_in.asked("secret/*"))
        stand_in.recover()
        clock.advance(31)
        await until(lambda: not held.stale)
        assert "one" == read()


async def test_values_are_read_again_in_their_time_and_not_before(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    async with hold(stand_in, stand_in.root_token, clock, cache_seconds=60.0) as held:
        (read,) = await held.load("secret/key#value")
        stand_in.put("secret/key", value="two")
        clock.advance(53)  # the time is cut by a tenth at most
        await held.settle(stand_in)
        assert "one" == read()
        assert 1 == len(stand_in.asked("secret/*"))
        clock.advance(8)
        await until(lambda: read() == "two")


@pytest.mark.parametrize("what", ["stop", "slow", "seal"])
async def test_a_document_that_is_loaded_during_an_outage_gets_what_is_known_at_once(
    stand_in: VaultStandIn, hold: Hold, what: str, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    async with hold(stand_in, stand_in.approle(stand_in.policy({"secret/*": READ}))) as held:
        await held.load("secret/key#value")
        with expect_log("its last value stays in use"):
            befall(stand_in, what)
            async with asyncio.timeout(AT_ONCE):
                again, with_default = await held.load("secret/key#value", "secret/key#value:-default")
            assert ("one", "one") == (again(), with_default())
            if what == "slow":
                stand_in.fail(500)
                stand_in.slow(0)
            await until(lambda: held.told(SecretStale))


async def test_who_holds_a_handle_still_can_read_it_after_the_end(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.put("secret/key", value="one")
    async with hold(stand_in, stand_in.root_token) as held:
        (read,) = await held.load("secret/key#value")
    assert "one" == read()


# The token


async def test_the_end_of_a_token_is_not_noticed(vault: PreparedVault, hold: Hold) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="0")
    login = vault.approle(vault.policy({f"{store}/data/key": READ}), ttl=6, max_ttl=9)
    async with hold(vault, login) as held:
        (read,) = await held.load(f"{store}/key#value")
        for number in range(1, 5):
            await asyncio.to_thread(vault.advance, 3)
            vault.put(f"{store}/key", value=str(number))
            await until(partial(gives, read, str(number)))
        assert [] == held.told(SecretStale)


async def test_a_token_is_renewed_in_its_time_though_nothing_else_is_due(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    login = stand_in.approle(stand_in.policy({"secret/*": READ}), ttl=300, max_ttl=100_000)
    async with hold(stand_in, login, clock, cache_seconds=50_000.0) as held:
        (read,) = await held.load("secret/key#value")
        life = Life(held, stand_in, clock)
        for renewed in range(1, 6):
            await life.pass_on(201, step=67)
            assert renewed == len(stand_in.asked("auth/token/renew-self"))
        assert "one" == read()
        assert 1 == len(stand_in.asked("auth/approle/login"))
        assert 1 == len(stand_in.tokens())


async def test_a_revoked_token_is_replaced(vault: PreparedVault, hold: Hold) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    login = vault.approle(vault.policy({f"{store}/data/key": READ}))
    async with hold(vault, login) as held:
        (read,) = await held.load(f"{store}/key#value")
        for token in tokens_of(held):
            vault.expire_token(token)
        vault.put(f"{store}/key", value="two")
        await until(lambda: read() == "two")
        assert [] == held.told(SecretStale)
        ours = tokens_of(held)
        assert [True] == [vault.is_good(each) for each in ours]
    assert [False] == [vault.is_good(each) for each in ours]


async def test_a_given_token_that_ends_makes_values_stale_until_there_is_another(
    stand_in: VaultStandIn, hold: Hold, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    policy = stand_in.policy({"secret/*": READ})
    token = [stand_in.token(policy)]
    auth = VaultAuth(token=Secret(lambda: token[0], "${file:token}"))
    async with hold(stand_in, "", auth=auth) as held:
        (read,) = await held.load("secret/key#value")
        with expect_log(r"cannot be read, its last value stays in use.*secrets\.vault\.auth\.token"):
            stand_in.expire_token()
            await until(lambda: held.told(SecretStale))
            stand_in.put("secret/key", value="two")
        assert {"secret/key#value": "denied"} == held.stale
        token[0] = stand_in.token(policy)
        await until(lambda: read() == "two")


# Leases


class Life:
    """A user of a database over time; both clocks go on together."""

    def __init__(self, held: Held, vault: VaultStandIn, clock: ManualClock) -> None:
        self._held = held
        self._vault = vault
        self._clock = clock
        vault.stand_still()

    async def pass_on(self, seconds: float, step: float = 10.0) -> None:
        """Let time pass in steps that leave what happens beside it the time to happen."""
        while seconds > 0:
            for some in (self._clock, self._vault):
                some.advance(min(step, seconds))
            seconds -= step
            await self._held.settle(self._vault)


LEASED = {"database/creds/app": READ, "sys/leases/revoke": ["update"]}


async def test_a_lease_is_prolonged_replaced_in_time_and_given_back(stand_in: VaultStandIn, hold: Hold) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=90, max_ttl=300)
    login = stand_in.approle(stand_in.policy(LEASED), ttl=100_000)
    async with hold(stand_in, login, clock) as held:
        life = Life(held, stand_in, clock)
        username, password = await held.load("database/creds/app#username", "database/creds/app#password")
        first = username()
        pairs = {(username(), password())}
        users = [first]
        for _ in range(40):
            await life.pass_on(20)
            # Whoever reads it now may use it: its lease runs, and will for the time that a request takes.
            lease = stand_in.lease(username())
            assert lease is not None
            assert lease.expires_at - stand_in.api.now() >= 10
            pairs.add((username(), password()))
            if users[-1] != username():
                users.append(username())
                # Those that read the former a moment ago use it still.
                assert stand_in.lease(users[-2]) is not None
        assert 3 <= len(users) <= 6
        assert len(users) == len(pairs), "a user and a password of different leases"
        assert len(stand_in.asked("sys/leases/renew")) >= 4
        assert len(held.told(SecretRotated)) == 2 * (len(users) - 1)
        assert [] == held.told(SecretStale)
        await life.pass_on(GRACE_SECONDS + 20)
        assert len(stand_in.leases()) <= 2
    assert [] == stand_in.leases()


async def test_a_lease_that_cannot_be_prolonged_is_replaced_in_time(stand_in: VaultStandIn, hold: Hold) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=300, renewable=False)
    async with hold(stand_in, stand_in.approle(stand_in.policy(LEASED)), clock) as held:
        life = Life(held, stand_in, clock)
        (username,) = await held.load("database/creds/app#username")
        first = username()
        await life.pass_on(190)
        assert first == username()
        await life.pass_on(20)
        second = username()
        assert first != second
        assert stand_in.lease(first) is not None
        await life.pass_on(GRACE_SECONDS + 10)
        assert stand_in.lease(first) is None
        assert stand_in.lease(second) is not None
        assert [] == stand_in.asked("sys/leases/renew")


async def test_a_lease_does_not_outlive_its_token_unnoticed(stand_in: VaultStandIn, hold: Hold) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=5000, max_ttl=50_000)
    login = stand_in.approle(stand_in.policy(LEASED), ttl=300, max_ttl=400)
    async with hold(stand_in, login, clock) as held:
        life = Life(held, stand_in, clock)
        (username,) = await held.load("database/creds/app#username")
        for _ in range(30):
            await life.pass_on(20)
            assert stand_in.lease(username()) is not None, "the user that is in use has ended with its token"
        assert [] == held.told(SecretStale)
    assert [] == stand_in.leases()


async def test_a_lease_that_somebody_revoked_is_replaced_when_it_is_due(stand_in: VaultStandIn, hold: Hold) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=300)
    async with hold(stand_in, stand_in.approle(stand_in.policy(LEASED)), clock) as held:
        life = Life(held, stand_in, clock)
        (username,) = await held.load("database/creds/app#username")
        stand_in.revoke_lease(username())
        await life.pass_on(210)
        assert stand_in.lease(username()) is not None


async def test_credentials_of_a_time_without_vault_are_those_of_before(
    stand_in: VaultStandIn, hold: Hold, expect_log: ExpectLog
) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=300)
    async with hold(stand_in, stand_in.approle(stand_in.policy(LEASED)), clock) as held:
        life = Life(held, stand_in, clock)
        (username,) = await held.load("database/creds/app#username")
        first = username()
        with expect_log("its last value stays in use"):
            stand_in.seal()
            await life.pass_on(400, step=50)
            assert first == username()
            await until(lambda: held.told(SecretStale))
        stand_in.unseal()
        await life.pass_on(60)
        await until(lambda: not held.stale)
        assert stand_in.lease(username()) is not None


async def test_what_no_document_names_any_more_is_given_back(stand_in: VaultStandIn, hold: Hold) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=10_000)
    stand_in.put("secret/key", value="one")
    login = stand_in.approle(stand_in.policy({**LEASED, "secret/*": READ}))
    async with hold(stand_in, login, clock, cache_seconds=10.0) as held:
        life = Life(held, stand_in, clock)
        username, key = await held.load("database/creds/app#username", "secret/key#value")
        await life.pass_on(200)
        assert stand_in.lease(username()) is not None
        held.values.follow([named("secret/key#value")])
        await life.pass_on(10)
        # Requests that began before are served by the former document.
        assert stand_in.lease(username()) is not None
        await life.pass_on(3 * GRACE_SECONDS)
        assert [] == stand_in.leases()
        assert "one" == key()


async def test_where_leases_may_not_be_revoked_it_is_said_once_and_they_end_with_the_token(
    stand_in: VaultStandIn, hold: Hold, expect_log: ExpectLog
) -> None:
    clock = ManualClock()
    stand_in.credentials("database/creds/app", ttl=10_000, renewable=False)
    login = stand_in.approle(stand_in.policy({"database/creds/app": READ}))
    with expect_log(r'path "sys/leases/revoke" \{ capabilities = \["update"\] \}'):
        async with hold(stand_in, login, clock) as held:
            life = Life(held, stand_in, clock)
            for _ in range(2):
                await held.load("database/creds/app#username")
                held.values.follow([])
                await life.pass_on(3 * GRACE_SECONDS, step=30)
            assert 1 <= len(stand_in.leases())
    assert [] == stand_in.leases()


@pytest.mark.parametrize("what", ["stop", "slow", "seal"])
async def test_the_end_is_quick_and_quiet_whatever_vault_does(stand_in: VaultStandIn, hold: Hold, what: str) -> None:
    stand_in.credentials("database/creds/app", ttl=3600)
    stand_in.credentials("database/creds/other", ttl=3600)
    token = stand_in.token(stand_in.policy({"database/creds/*": READ, "sys/leases/*": ["update"]}))
    async with hold(stand_in, token) as held:
        await held.load("database/creds/app#username", "database/creds/other#username")
        if what == "slow":
            held.be_patient(HASTE)
        befall(stand_in, what)
        async with asyncio.timeout(AT_ONCE):
            await asyncio.to_thread(held.values.close)
        # What is not answered wait there for the stand-in's recovery: one lease is not given back, so no other is tried.
        assert stand_in.waiting <= 1


async def test_what_the_end_interrupts_is_no_trouble(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.put("secret/key", value="one")
    login = stand_in.approle(stand_in.policy({"secret/*": READ}))
    async with hold(stand_in, login) as held:
        await held.load("secret/key#value")
        # The answer comes when the token has been revoked.
        stand_in.slow(0.3, "secret/")
        await until(lambda: stand_in.waiting)
    # conftest sees to it that nothing is warned of.
    assert [] == held.events
    assert {} == held.stale


async def test_leases_of_a_given_token_are_given_back_one_by_one(stand_in: VaultStandIn, hold: Hold) -> None:
    stand_in.credentials("database/creds/app", ttl=3600)
    token = stand_in.token(stand_in.policy(LEASED))
    async with hold(stand_in, token) as held:
        await held.load("database/creds/app#username")
    assert [] == stand_in.leases()
    assert stand_in.is_good(token)


# Values that are kept


def ring(number: int = 1) -> KeyRing:
    return KeyRing([SealingKey(f"k{number}", bytes([number]) * 32)])


async def test_kept_values_serve_a_start_without_vault(
    stand_in: VaultStandIn, hold: Hold, tmp_path: Path, expect_log: ExpectLog, planted_secret: str
) -> None:
    stand_in.put("secret/key", value=planted_secret, other="two")
    login = stand_in.approle(stand_in.policy({"secret/*": READ}))
    path = tmp_path / "data" / "vault-values.sealed"
    async with hold(stand_in, login, kept=KeptValues(path, ring())) as held:
        await held.load("secret/key#value")
        await until(path.exists)
    content = path.read_bytes()
    assert planted_secret.encode() not in content
    assert b"secret/key" not in content
    assert 0o600 == path.stat().st_mode & 0o777

    stand_in.stop()
    async with hold(stand_in, login, kept=KeptValues(path, ring())) as held:
        with expect_log(r"secret/key#value.* cannot be read, its last value stays in use"):
            (read,) = await held.load("secret/key#value")
        assert planted_secret == read()
        assert {"secret/key#value": "unreachable"} == held.stale
        assert [None] == [each.known_at for each in held.values.stale()]
        # What was never read cannot be had, whatever else is kept.
        with pytest.raises(ReferenceFault, match="cannot be reached"):
            await held.load("secret/key#other")
        stand_in.start()
        stand_in.put("secret/key", value="rotated meanwhile")
        await until(lambda: read() == "rotated meanwhile")
        # Readers have it a moment before it is told.
        await until(lambda: not held.stale)

    stand_in.stop()
    async with hold(stand_in, login) as held:
        with pytest.raises(ReferenceFault, match="cannot be reached"):
            await held.load("secret/key#value")
    # Nobody else's values: another namespace, another server, another version.
    elsewhere: list[dict[str, Any]] = [
        {"namespace": "team-a"},
        {"address": stand_in.address.replace("127.0.0.1", "localhost")},
    ]
    for settings in elsewhere:
        async with hold(stand_in, login, kept=KeptValues(path, ring()), **settings) as held:
            with pytest.raises(ReferenceFault):
                await held.load("secret/key#value")
    async with hold(stand_in, login, kept=KeptValues(path, ring())) as held:
        with pytest.raises(ReferenceFault):
            await held.load("secret/key@1#value")


async def test_kept_values_that_do_not_open_are_none(
    stand_in: VaultStandIn, hold: Hold, tmp_path: Path, expect_log: ExpectLog
) -> None:
    stand_in.put("secret/key", value="one")
    path = tmp_path / "vault-values.sealed"
    async with hold(stand_in, stand_in.root_token, kept=KeptValues(path, ring())) as held:
        await held.load("secret/key#value")
        await until(path.exists)
    stand_in.stop()
    good = path.read_text()
    damaged = good[:-9] + ("A" if good[-9] != "A" else "B") + good[-8:]
    for content, keys in [(good, ring(2)), (damaged, ring()), (good[:20], ring()), ("", ring())]:
        path.write_text(content)
        async with hold(stand_in, stand_in.root_token, kept=KeptValues(path, keys)) as held:
            with expect_log("the kept values in .* cannot be used"), pytest.raises(ReferenceFault):
                await held.load("secret/key#value")


async def test_credentials_that_end_with_a_lease_are_not_kept(
    stand_in: VaultStandIn, hold: Hold, tmp_path: Path
) -> None:
    stand_in.credentials("database/creds/app", ttl=3600)
    stand_in.put("secret/key", value="one")
    path = tmp_path / "vault-values.sealed"
    kept = KeptValues(path, ring())
    async with hold(stand_in, stand_in.root_token, kept=kept) as held:
        await held.load("database/creds/app#username", "secret/key#value")
        await until(path.exists)
        await until(kept.read)
        (texts,) = kept.read().values()
        assert {"value": "one"} == texts


# Nothing to be seen


async def test_no_record_event_or_repr_shows_a_value(
    stand_in: VaultStandIn, hold: Hold, planted_secret: str, expect_log: ExpectLog, caplog: pytest.LogCaptureFixture
) -> None:
    # conftest looks for the planted secret in every record that is made, also below WARNING.
    caplog.set_level(logging.DEBUG)
    stand_in.put("secret/key", value=planted_secret)
    login = stand_in.approle(stand_in.policy({"secret/*": READ}))
    async with hold(stand_in, login) as held:
        (read,) = await held.load("secret/key#value")
        stand_in.put("secret/key", value=f"{planted_secret}-2")
        await until(lambda: read() == f"{planted_secret}-2")
        with expect_log("its last value stays in use"):
            stand_in.fail(500, planted_secret, login.secret_id, *tokens_of(held))
            await until(lambda: held.told(SecretStale))
        shown = repr(held.events) + repr(held.values.stale()) + repr(held.values) + repr(read) + caplog.text
        assert planted_secret not in shown
        for secret in (login.secret_id, *tokens_of(held)):
            assert secret not in shown
        for event in held.events:
            assert planted_secret not in json.dumps([str(event)])


def is_read_and_told(reader: Reader, held: Held, value: str) -> bool:
    return [value] == reader.values[-1:] and len(reader.values) - 1 == len(held.events)


def gives(read: Callable[[], str], value: str) -> bool:
    return read() == value


def befall(vault: VaultStandIn, what: str) -> None:
    match what:
        case "stop":
            vault.stop()
        case "seal":
            vault.seal()
        case "slow":
            vault.slow(float("inf"))
        case "trickle":
            vault.trickle(HASTE / 3)
        case "limit_rate":
            vault.limit_rate()
        case "fail":
            vault.fail(500)
        case "garble":
            vault.garble()
        case "no_leader":
            vault.become("no-leader")
        case "deny":
            vault.deny("secret/*")
        case "delete":
            vault.delete("secret/key")
        case "drop_field":
            vault.put("secret/key", other="1")
        case "empty_field":
            vault.put("secret/key", value="")


def recover(vault: VaultStandIn, what: str) -> None:
    vault.recover()
    vault.allow()
    vault.unseal()
    vault.become("active")
    if what == "stop":
        vault.start()


def tokens_of(held: Held) -> list[str]:
    """The token that the values' session has in use."""
    token = held.values._session._tokens.present
    assert token is not None
    return [token.secret.reveal()]
