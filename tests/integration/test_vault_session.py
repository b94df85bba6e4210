"""The session with Vault, by the real hvac, against a server: the stand-in, one that is prepared through hvac, or both.

A test that takes `vault` runs twice. The second time the server is prepared by its own API; that is the real server
of `SLUICE_TEST_VAULT_ADDR` and `SLUICE_TEST_VAULT_TOKEN` where they are set (tests/vault_server.py says how to start
one), and a stand-in otherwise. A test that takes `stand_in` needs what no real server does on command.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.schema import ClientTls, KvVersion, Vault, VaultAuth
from config.vault.errors import (
    VaultDenied,
    VaultFault,
    VaultMissing,
    VaultSignInFailed,
    VaultUnavailable,
    VaultUnusable,
)
from config.vault.session import Session
from config.vault.settings import VaultSettings
from core.clock import Clock, ManualClock, SystemClock
from core.secret import Secret
from tests.ports import closed_port, free_port
from tests.vault_http import AUTHORITY, CERTIFICATES, server_tls
from tests.vault_server import NoNamespaces, PreparedVault
from tests.vault_stand_in import VaultStandIn, vault_stand_in
from tests.vault_state import Login

READ = ["read"]
PATIENCE = 60.0
"""Seconds that a session waits for an answer, however slow the machine is on which both run."""
HASTE = 0.3
"""Those that it waits for a server which is to answer too late."""
AT_ONCE = 20.0
"""Seconds within which nobody can have waited for `PATIENCE`."""


class Sessions:
    """Opens sessions; all are closed at the end of the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: list[Session] = []

    def __call__(
        self,
        vault: PreparedVault,
        login: Login | str | VaultAuth,
        clock: Clock | None = None,
        **settings: Any,
    ) -> Session:
        """``login`` as AppRole's, or a token, or all of `auth`."""
        if isinstance(login, Login):
            secret_id = Secret.literal(login.secret_id)
            login = VaultAuth(method="approle", mount=login.mount, role_id=login.role_id, secret_id=secret_id)
        elif isinstance(login, str):
            login = VaultAuth(token=Secret.literal(login))
        given: dict[str, Any] = {"address": vault.address, "auth": login, "timeout_seconds": PATIENCE}
        config = Vault(**given | settings)
        session = Session(VaultSettings(config, self._directory), clock or SystemClock())
        self._open.append(session)
        return session

    def close(self) -> None:
        for session in self._open:
            session.close()


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[Sessions]:
    sessions = Sessions(tmp_path)
    yield sessions
    sessions.close()


def taken(began: float) -> float:
    return time.perf_counter() - began


def wait_for(session: Session, seconds: float) -> None:
    """``session`` waits so long for an answer from now on, as after a reload."""
    settings = session._settings
    config = msgspec.structs.replace(settings.config, timeout_seconds=seconds)
    session.retune(msgspec.structs.replace(settings, config=config))


# Key-value stores


def test_the_newest_version_is_read(vault: PreparedVault, open_session: Sessions) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/llm/openai", api_key="one")
    session = open_session(vault, vault.approle(vault.policy({f"{store}/data/llm/*": READ})))
    assert {"api_key": "one"} == session.read(store, "llm/openai", None, 2).data
    vault.put(f"{store}/llm/openai", api_key="two", base="b")
    reading = session.read(store, "llm/openai", None, 2)
    assert {"api_key": "two", "base": "b"} == reading.data
    assert (2, "", 0.0) == (reading.version, reading.lease_id, reading.lease_seconds)


def test_a_version_that_is_named_is_read(vault: PreparedVault, open_session: Sessions) -> None:
    store = vault.mount("store")
    for key in ("one", "two", "three"):
        vault.put(f"{store}/key", value=key)
    session = open_session(vault, vault.token(vault.policy({f"{store}/data/key": READ})))
    assert ("one", 1) == (session.read(store, "key", 1, "auto").data["value"], 1)
    assert "three" == session.read(store, "key", 3, "auto").data["value"]
    with pytest.raises(VaultMissing, match=f"`{store}/data/key`"):
        session.read(store, "key", 4, "auto")


@pytest.mark.parametrize("destroy", [False, True])
def test_a_deleted_version_is_missing(vault: PreparedVault, open_session: Sessions, destroy: bool) -> None:
    store = vault.mount("store")
    for key in ("one", "two"):
        vault.put(f"{store}/key", value=key)
    session = open_session(vault, vault.token(vault.policy({f"{store}/data/key": READ})))
    vault.delete(f"{store}/key", 1, destroy=destroy)
    assert "two" == session.read(store, "key", None, 2).data["value"]
    with pytest.raises(VaultMissing, match="destroyed" if destroy else "deleted") as error:
        session.read(store, "key", 1, 2)
    assert "missing" == error.value.reason
    vault.delete(f"{store}/key", destroy=destroy)
    with pytest.raises(VaultMissing):
        session.read(store, "key", None, 2)


@pytest.mark.parametrize("kind", ["kv", "kv-v2"])
@pytest.mark.parametrize("path", ["team", "team/eu/secrets"])
def test_the_kind_of_a_store_is_found_out(vault: PreparedVault, open_session: Sessions, kind: str, path: str) -> None:
    store = vault.mount(path, kind)
    vault.put(f"{store}/llm/openai", api_key="one")
    data = "data/" if kind == "kv-v2" else ""
    session = open_session(vault, vault.approle(vault.policy({f"{store}/{data}llm/openai": READ})))
    for _ in range(2):
        assert {"api_key": "one"} == session.read(store, "llm/openai", None, "auto").data


def test_key_value_1_needs_no_question_and_has_neither_lease_nor_versions(
    vault: PreparedVault, open_session: Sessions
) -> None:
    store = vault.mount("plain", "kv", {"version": "1"})
    vault.put(f"{store}/key", value="one", ttl="90s")
    session = open_session(vault, vault.token(vault.policy({f"{store}/key": READ})))
    reading = session.read(store, "key", None, 1)
    assert {"value": "one", "ttl": "90s"} == reading.data
    assert (None, "", 0.0, False) == (reading.version, reading.lease_id, reading.lease_seconds, reading.renewable)
    with pytest.raises(VaultMissing, match="keeps no versions"):
        session.read(store, "key", 1, 1)
    with pytest.raises(VaultMissing, match=f"`{store}/other`"):
        open_session(vault, vault.token(vault.policy({f"{store}/*": READ}))).read(store, "other", None, "auto")


def test_the_wrong_kind_of_store_is_told_apart_from_a_missing_secret(
    vault: PreparedVault, open_session: Sessions
) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    session = open_session(vault, vault.token(vault.policy({f"{store}/*": READ})))
    with pytest.raises(VaultMissing, match="KV version 2"):
        session.read(store, "key", None, 1)


def test_a_mount_is_asked_about_once(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/a", value="1")
    stand_in.put("secret/b", value="2")
    session = open_session(stand_in, stand_in.root_token)
    for path in ("a", "b", "a"):
        session.read("secret", path, None, "auto")
    assert 1 == len(stand_in.asked("sys/internal/ui/mounts/*"))


def test_where_the_kind_may_not_be_asked_it_is_2(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    stand_in.deny("sys/internal/ui/mounts/*")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"secret/data/key": READ})))
    for _ in range(2):
        assert {"value": "one"} == session.read("secret", "key", None, "auto").data
    assert 1 == len(stand_in.asked("sys/internal/ui/mounts/*"))


def test_a_denial_of_a_dead_token_says_nothing_about_the_store(vault: PreparedVault, open_session: Sessions) -> None:
    store = vault.mount("plain", "kv", {"version": "1"})
    other = vault.mount("other")
    vault.put(f"{store}/key", value="one")
    vault.put(f"{other}/key", value="two")
    policy = vault.policy({f"{store}/key": READ, f"{other}/data/key": READ})
    session = open_session(vault, vault.approle(policy, ttl=6, max_ttl=6))
    assert {"value": "two"} == session.read(other, "key", None, "auto").data
    vault.advance(7)
    # The question about the mount is the first that the dead token asks.
    for _ in range(2):
        assert {"value": "one"} == session.read(store, "key", None, "auto").data


def test_a_store_that_was_mounted_anew_as_another_kind_is_found(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.root_token)
    session.read("secret", "key", None, "auto")
    del stand_in.api.namespaces[""].mounts["secret"]
    stand_in.mount("secret", "kv")
    stand_in.put("secret/key", value="two")
    with pytest.raises(VaultMissing):
        session.read("secret", "key", None, "auto")
    assert {"value": "two"} == session.read("secret", "key", None, "auto").data


@pytest.mark.parametrize("kind", ["kv", "kv-v2"])
@pytest.mark.parametrize("path", ["a b/ключ", "100%25/x", "what?list=true", "c;d&e=f", "(x)/~y.z", "%2e%2e/x", "a%2Fb"])
def test_any_path_is_asked_for_as_it_is(vault: PreparedVault, open_session: Sessions, kind: str, path: str) -> None:
    store = vault.mount("store", kind)
    vault.put(f"{store}/{path}", value="one")
    session = open_session(vault, vault.token(vault.policy({f"{store}/*": READ})))
    assert {"value": "one"} == session.read(store, path, None, "auto").data


# Denials


@pytest.mark.parametrize("kind", ["kv", "kv-v2"])
def test_a_denial_names_the_line_that_the_policy_lacks(vault: PreparedVault, open_session: Sessions, kind: str) -> None:
    store = vault.mount("store", kind)
    vault.put(f"{store}/llm/openai", api_key="one")
    path = f"{store}/data/llm/openai" if kind == "kv-v2" else f"{store}/llm/openai"
    near = path.removesuffix("openai") + "other"
    name = vault.policy({near: READ})
    session = open_session(vault, vault.approle(name))
    with pytest.raises(VaultDenied) as error:
        session.read(store, "llm/openai", None, "auto")
    assert f'path "{path}" {{ capabilities = ["read"] }}' in str(error.value)
    assert "denied" == error.value.reason
    # What the message asks for is the mend, and policies need no new sign-in.
    vault.policy({near: READ, path: READ}, name)
    assert {"api_key": "one"} == session.read(store, "llm/openai", None, "auto").data


def test_a_denial_says_where_even_if_nothing_of_the_mount_is_granted(
    vault: PreparedVault, open_session: Sessions
) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    session = open_session(vault, vault.token())
    with pytest.raises(VaultDenied) as error:
        session.read(store, "key", None, "auto")
    assert f'path "{store}/data/key" {{ capabilities = ["read"] }}' in str(error.value)


def test_a_denial_is_not_asked_about_for_ever(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    session = open_session(stand_in, stand_in.approle(), clock)
    for _ in range(5):
        with pytest.raises(VaultDenied):
            session.read("secret", "key", None, 2)
    assert len(stand_in.asked("auth/approle/login")) <= 2
    assert len(stand_in.tokens()) <= 1


def test_a_denial_is_not_asked_about_for_ever_where_tokens_may_not_be_looked_up(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    stand_in.deny("auth/token/lookup-self")
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.approle(), ManualClock())
    for _ in range(5):
        with pytest.raises(VaultDenied):
            session.read("secret", "key", None, 2)
    assert len(stand_in.asked("auth/approle/login")) <= 2
    assert len(stand_in.tokens()) <= 1


def test_a_dead_token_is_replaced_even_if_what_is_asked_is_denied(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"secret/data/key": READ})), ManualClock())
    for _ in range(3):
        assert {"value": "one"} == session.read("secret", "key", None, 2).data
        stand_in.expire_token()
        with pytest.raises(VaultDenied):
            session.read("secret", "other", None, 2)
    assert {"value": "one"} == session.read("secret", "key", None, 2).data
    assert 4 == len(stand_in.asked("auth/approle/login"))


def test_a_sign_in_that_the_end_overtakes_is_given_back(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"secret/data/key": READ})))
    stand_in.slow(float("inf"), "auth/approle/login")
    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(session.read, "secret", "key", None, 2)
        while not stand_in.waiting:
            time.sleep(0.01)
        closing = pool.submit(session.close)
        while not session._tokens._closed:
            time.sleep(0.01)
        stand_in.recover()
        closing.result()
        with pytest.raises(VaultUnavailable):
            reading.result()
    assert [] == stand_in.tokens()


def test_a_role_that_was_given_another_policy_is_signed_in_anew(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    login = stand_in.approle()
    (role,) = stand_in.api.namespaces[""].auths["approle"].logins.values()
    clock = ManualClock()
    session = open_session(stand_in, login, clock)
    with pytest.raises(VaultDenied):
        session.read("secret", "key", None, 2)
    role.policies = (stand_in.policy({"secret/data/key": READ}),)
    clock.advance(3601)
    assert {"value": "one"} == session.read("secret", "key", None, 2).data


# Signing in


def test_nothing_is_asked_before_something_is_read(stand_in: VaultStandIn, open_session: Sessions) -> None:
    session = open_session(stand_in, stand_in.approle())
    assert session.token_due_at() is None
    session.renew_token_if_due()
    assert [] == stand_in.requests


def test_wrong_credentials_are_told_as_such(vault: PreparedVault, open_session: Sessions, planted_secret: str) -> None:
    good = vault.approle()
    bad = msgspec.structs.replace(approle_auth(good), secret_id=Secret.literal(planted_secret))
    with pytest.raises(VaultSignInFailed, match=f"auth/{good.mount}/login") as error:
        open_session(vault, bad).read("secret", "key", None, 2)
    assert planted_secret not in str(error.value) + repr(error.value)
    with pytest.raises(VaultSignInFailed, match=r"secrets\.vault\.auth\.token") as error:
        open_session(vault, planted_secret).read("secret", "key", None, 2)
    assert planted_secret not in str(error.value) + repr(error.value)
    with pytest.raises(VaultSignInFailed):
        open_session(vault, msgspec.structs.replace(approle_auth(good), mount="nowhere")).read("a", "b", None, 2)


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "ключ"])
def test_what_cannot_be_a_token_is_not_sent(stand_in: VaultStandIn, open_session: Sessions, text: str) -> None:
    with pytest.raises(VaultSignInFailed, match=r"secrets\.vault\.auth\.token"):
        open_session(stand_in, text).read("secret", "key", None, 2)
    assert [] == stand_in.requests


def test_a_token_from_a_file_may_end_in_a_line_break(vault: PreparedVault, open_session: Sessions) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    token = vault.token(vault.policy({f"{store}/data/key": READ}))
    assert {"value": "one"} == open_session(vault, f"{token}\n").read(store, "key", None, 2).data


@pytest.mark.parametrize("mount", [None, "clusters/eu"])
def test_a_service_account_signs_in_with_what_its_file_holds_now(
    stand_in: VaultStandIn, open_session: Sessions, tmp_path: Path, mount: str | None
) -> None:
    stand_in.put("secret/key", value="one")
    policy = stand_in.policy({"secret/data/key": READ})
    role = stand_in.kubernetes("first.jwt", policy, mount=mount or "kubernetes")
    auth = VaultAuth(method="kubernetes", mount=mount, role=role.name, jwt_file="token")
    session = open_session(stand_in, auth)
    with pytest.raises(VaultSignInFailed, match="jwt_file"):
        session.read("secret", "key", None, 2)
    (tmp_path / "token").write_text("first.jwt\n")
    assert {"value": "one"} == session.read("secret", "key", None, 2).data
    role.jwts = {"second.jwt"}
    stand_in.expire_token()
    with pytest.raises(VaultSignInFailed, match="auth/"):
        session.read("secret", "key", None, 2)
    (tmp_path / "token").write_text("second.jwt\n")
    assert {"value": "one"} == session.read("secret", "key", None, 2).data


def test_many_threads_sign_in_once(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"secret/data/key": READ})))
    together = threading.Barrier(12)

    def read(_number: int) -> object:
        together.wait()
        return session.read("secret", "key", None, "auto").data["value"]

    with ThreadPoolExecutor(12) as pool:
        assert ["one"] * 12 == list(pool.map(read, range(12)))
        assert 1 == len(stand_in.asked("auth/approle/login"))
        stand_in.expire_token()
        assert ["one"] * 12 == list(pool.map(read, range(12)))
    assert 2 == len(stand_in.asked("auth/approle/login"))
    assert 1 == len(stand_in.tokens())


# The token's life


def test_after_the_end_of_its_token_a_session_signs_in_anew(vault: PreparedVault, open_session: Sessions) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    login = vault.approle(vault.policy({f"{store}/data/key": READ}), ttl=6, max_ttl=6)
    session = open_session(vault, login)
    session.read(store, "key", None, 2)
    for _ in range(2):
        vault.advance(7)
        assert {"value": "one"} == session.read(store, "key", None, 2).data
    assert 3 == session.sign_in


def test_a_given_token_that_has_ended_is_told_as_such_and_another_is_taken(
    vault: PreparedVault, open_session: Sessions
) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    policy = vault.policy({f"{store}/data/key": READ})
    held = [vault.token(policy)]
    session = open_session(vault, VaultAuth(token=Secret(lambda: held[0], "${file:token}")))
    session.read(store, "key", None, 2)
    vault.expire_token(held[0])
    with pytest.raises(VaultSignInFailed, match="it has ended or was revoked"):
        session.read(store, "key", None, 2)
    # Its reference gives another meanwhile.
    held[0] = vault.token(policy)
    assert {"value": "one"} == session.read(store, "key", None, 2).data


@pytest.mark.parametrize("given", [True, False])
def test_a_token_is_prolonged_when_two_thirds_of_it_are_spent(
    vault: PreparedVault, open_session: Sessions, given: bool
) -> None:
    store = vault.mount("store")
    vault.put(f"{store}/key", value="one")
    policy = vault.policy({f"{store}/data/key": READ})
    clock = ManualClock()
    login = vault.token(policy, ttl=300) if given else vault.approle(policy, ttl=300, max_ttl=3000)
    session = open_session(vault, login, clock)
    session.read(store, "key", None, 2)
    assert clock.monotonic() + 200 == pytest.approx(session.token_due_at(), abs=20)
    session.renew_token_if_due()
    clock.advance(201)
    session.renew_token_if_due()
    assert clock.monotonic() + 200 == pytest.approx(session.token_due_at(), abs=20)
    assert 1 == session.sign_in
    assert {"value": "one"} == session.read(store, "key", None, 2).data


def test_a_token_without_end_is_never_due(vault: PreparedVault, open_session: Sessions) -> None:
    # The root token of the server, which is as good as any that never ends.
    token = vault.root_token if isinstance(vault, VaultStandIn) else vault.token(period=3600)
    clock = ManualClock()
    session = open_session(vault, token, clock).signed_in()
    assert (session.token_due_at() is None) is isinstance(vault, VaultStandIn)


def test_a_periodic_token_is_prolonged_for_ever(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    token = stand_in.token(stand_in.policy({"secret/data/key": READ}), period=90)
    session = open_session(stand_in, token, clock)
    session.read("secret", "key", None, 2)
    for _ in range(10):
        for some in (clock, stand_in):
            some.advance(61)
        session.renew_token_if_due()
        assert {"value": "one"} == session.read("secret", "key", None, 2).data
    assert 1 == session.sign_in


def test_at_its_greatest_age_a_token_gives_way_to_another_before_it_ends(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    policy = stand_in.policy({"secret/data/key": READ})
    stand_in.stand_still()
    session = open_session(stand_in, stand_in.approle(policy, ttl=90, max_ttl=200), clock)
    session.read("secret", "key", None, 2)
    for _ in range(20):
        due = session.token_due_at()
        assert due is not None
        step = due - clock.monotonic() + 1
        assert step > 1
        for some in (clock, stand_in):
            some.advance(step)
        session.renew_token_if_due()
        assert {"value": "one"} == session.read("secret", "key", None, 2).data
    # No read ever met a dead token: they would have asked `lookup-self`.
    assert {200} == {each.status for each in stand_in.requests}
    assert 5 <= session.sign_in <= 12


def test_a_token_that_cannot_be_prolonged_gives_way_in_time(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    clock = ManualClock()
    policy = stand_in.policy({"secret/data/key": READ})
    session = open_session(stand_in, stand_in.approle(policy, ttl=90, renewable=False), clock)
    session.read("secret", "key", None, 2)
    for some in (clock, stand_in):
        some.advance(61)
    session.renew_token_if_due()
    assert 2 == session.sign_in
    assert [] == stand_in.asked("auth/token/renew-self")


def test_a_renewal_that_vault_cannot_answer_is_tried_again_soon(stand_in: VaultStandIn, open_session: Sessions) -> None:
    clock = ManualClock()
    session = open_session(stand_in, stand_in.approle(ttl=300), clock).signed_in()
    clock.advance(201)
    stand_in.seal()
    with pytest.raises(VaultUnavailable):
        session.renew_token_if_due()
    due = session.token_due_at()
    assert due is not None
    assert 0 < due - clock.monotonic() <= 60
    stand_in.unseal()
    clock.advance(60)
    session.renew_token_if_due()
    assert 1 == session.sign_in
    assert clock.monotonic() + 200 == pytest.approx(session.token_due_at(), abs=20)


def test_at_its_end_a_session_revokes_the_token_that_it_earned(vault: PreparedVault, open_session: Sessions) -> None:
    given = vault.token(ttl=300)
    first = open_session(vault, given).signed_in()
    first.close()
    assert vault.is_good(given)
    second = open_session(vault, vault.approle(ttl=300)).signed_in()
    earned = token_of(second)
    assert vault.is_good(earned)
    second.close()
    assert not vault.is_good(earned)
    second.close()


def test_the_end_of_a_session_is_bounded_and_quiet(stand_in: VaultStandIn, open_session: Sessions) -> None:
    session = open_session(stand_in, stand_in.approle()).signed_in()
    wait_for(session, HASTE)
    stand_in.slow(float("inf"))
    began = time.perf_counter()
    session.close()
    assert taken(began) < AT_ONCE
    with pytest.raises(VaultFault):
        session.read("secret", "key", None, 2)


# Leases


def test_credentials_are_lent_prolonged_and_given_back(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.credentials("database/creds/app", ttl=600, max_ttl=1000)
    rules = {"database/creds/app": READ, "sys/leases/revoke": ["update"]}
    session = open_session(stand_in, stand_in.approle(stand_in.policy(rules)))
    reading = session.read("database", "creds/app", None, "auto")
    user = str(reading.data["username"])
    assert (600.0, True, None) == (reading.lease_seconds, reading.renewable, reading.version)
    stand_in.advance(500)
    assert 500.0 == session.renew_lease(reading.lease_id, 600)
    session.revoke(reading.lease_id)
    assert stand_in.lease(user) is None
    with pytest.raises(VaultUnusable):
        session.renew_lease(reading.lease_id, 600)


def test_without_the_policy_a_lease_ends_with_the_token(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.credentials("database/creds/app")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"database/creds/app": READ})))
    reading = session.read("database", "creds/app", None, "auto")
    with pytest.raises(VaultDenied) as error:
        session.revoke(reading.lease_id)
    assert 'path "sys/leases/revoke" { capabilities = ["update"] }' in str(error.value)
    assert 1 == len(stand_in.leases())
    session.close()
    assert [] == stand_in.leases()


def test_a_denial_leaves_the_leases_of_the_token_alone(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.credentials("database/creds/app")
    session = open_session(stand_in, stand_in.approle(stand_in.policy({"database/creds/app": READ})))
    session.read("database", "creds/app", None, "auto")
    with pytest.raises(VaultDenied):
        session.read("secret", "key", None, 2)
    assert 1 == len(stand_in.leases())


# Transit


def test_bytes_are_wrapped_and_unwrapped(vault: PreparedVault, open_session: Sessions) -> None:
    wrap = vault.mount("wrap", "transit")
    rules = {f"{wrap}/encrypt/sluice": ["create", "update"], f"{wrap}/decrypt/sluice": ["update"]}
    session = open_session(vault, vault.approle(vault.policy(rules)))
    plain = bytes(range(32))
    sealed = session.transit_encrypt(wrap, "sluice", plain)
    assert sealed.startswith("vault:v1:")
    assert sealed != session.transit_encrypt(wrap, "sluice", plain)
    assert plain == session.transit_decrypt(wrap, "sluice", sealed)
    # Servers differ in whose fault it is: 400 of the newer, 500 of the older.
    with pytest.raises((VaultUnusable, VaultUnavailable)):
        session.transit_decrypt(wrap, "sluice", sealed[:-8] + "AAAAAAA=")
    with pytest.raises(VaultDenied) as error:
        session.transit_decrypt(wrap, "other", sealed)
    assert f'path "{wrap}/decrypt/other" {{ capabilities = ["update"] }}' in str(error.value)


# Namespaces


def test_a_secret_of_one_namespace_is_not_seen_in_another(vault: PreparedVault, open_session: Sessions) -> None:
    try:
        ours = vault.namespace("team-a")
    except NoNamespaces as error:
        pytest.skip(f"this server has no namespaces: {error}")
    inner = vault.namespace(f"{ours}/eu")
    theirs = vault.namespace("team-b")
    found = {}
    for name in (ours, inner, theirs):
        store = vault.mount("store", namespace=name)
        vault.put(f"{store}/key", namespace=name, value=name)
        login = vault.approle(vault.policy({f"{store}/data/*": READ}, namespace=name), namespace=name)
        found[name] = open_session(vault, login, namespace=name).read(store, "key", None, "auto").data["value"]
        # The same credentials are nothing elsewhere.
        for other in {ours, inner, theirs, None} - {name}:
            with pytest.raises(VaultSignInFailed):
                open_session(vault, login, namespace=other).signed_in()
    assert {ours: ours, inner: inner, theirs: theirs} == found
    store = vault.mount("only", namespace=theirs)
    vault.put(f"{store}/key", namespace=theirs, value="1")
    login = vault.approle(vault.policy({"+/data/*": READ}, namespace=ours), namespace=ours)
    with pytest.raises((VaultMissing, VaultDenied)):
        open_session(vault, login, namespace=ours).read(store, "key", None, 2)


# What befalls a server


@pytest.mark.parametrize(
    ("what", "reason", "told"),
    [
        ("seal", "sealed", "is sealed"),
        ("stop", "unreachable", "cannot be reached"),
        ("slow", "slow", "does not answer in time"),
        ("trickle", "slow", "does not answer in time"),
        ("limit_rate", "rate_limited", "429"),
        ("fail", "error", "500"),
        ("bad_gateway", "error", "502"),
        ("no_leader", "error", "500"),
        ("garble", "error", "not as Vault does"),
        ("other_json", "error", "not as Vault does"),
    ],
)
@pytest.mark.parametrize("warm", [True, False])
def test_a_server_in_trouble_is_told_in_words_in_time_and_the_session_goes_on_after_it(
    stand_in: VaultStandIn, open_session: Sessions, what: str, reason: str, told: str, warm: bool
) -> None:
    stand_in.put("secret/key", value="one")
    login = stand_in.approle(stand_in.policy({"secret/data/key": READ}))
    session = open_session(stand_in, login)
    if warm:
        session.read("secret", "key", None, 2)
    if what in ("slow", "trickle"):
        wait_for(session, HASTE)
    befall(stand_in, what)
    began = time.perf_counter()
    with pytest.raises(VaultUnavailable, match=told) as error:
        session.read("secret", "key", None, 2)
    # A trickle has not ended by then: it would be waited for as long as some of it comes.
    assert taken(began) < AT_ONCE
    assert reason == error.value.reason
    wait_for(session, PATIENCE)
    assert str(stand_in.port) in str(error.value)

    stand_in.recover()
    stand_in.become("active")
    stand_in.unseal()
    if what == "stop":
        stand_in.start()
    assert {"value": "one"} == session.read("secret", "key", None, 2).data
    assert 1 == session.sign_in


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "<html>default backend - 404"),
        (404, '{"message": "no Route matched with those values"}'),
        (404, '{"data": {"data": null}}'),
        (403, "<html>Access denied"),
        (400, "{}"),
        (405, ""),
        (200, "{}"),
        (200, ""),
        (200, '{"status": "ok"}'),
        (200, '{"errors": ["internal"]}'),
        (302, ""),
        (304, ""),
    ],
)
@pytest.mark.parametrize("kv", [1, 2, "auto"])
@pytest.mark.parametrize("warm", [True, False])
def test_what_is_not_vault_is_neither_believed_that_there_is_nothing_nor_that_we_may_not_see_it(
    stand_in: VaultStandIn, open_session: Sessions, status: int, body: str, kv: KvVersion, warm: bool
) -> None:
    session = open_session(stand_in, stand_in.root_token)
    if warm:
        session.signed_in()
    stand_in.garble(status, body=body)
    with pytest.raises(VaultUnavailable, match="answers, but not as Vault does"):
        session.read("kv" if kv == 1 else "secret", "key", None, kv)


def test_a_version_without_what_describes_it_is_not_vaults(stand_in: VaultStandIn, open_session: Sessions) -> None:
    session = open_session(stand_in, stand_in.root_token)
    for data in ('{"data": {"value": "one"}}', "{}"):
        stand_in.recover()
        stand_in.garble(path="secret/data/key", body=f'{{"data": {data}}}')
        with pytest.raises(VaultUnavailable, match="not as Vault does"):
            session.read("secret", "key", None, 2)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "-1", "1e999"])
def test_no_lease_lasts_for_what_is_no_time(stand_in: VaultStandIn, open_session: Sessions, number: str) -> None:
    session = open_session(stand_in, stand_in.root_token)
    lease = f'{{"lease_id": "database/creds/app/1", "lease_duration": {number}, "data": {{"password": "x"}}}}'
    stand_in.garble(path="database/creds/app", body=lease)
    stand_in.garble(path="sys/leases/renew", body=lease)
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        session.read("database", "creds/app", None, "auto")
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        session.renew_lease("database/creds/app/1", 60)


def test_an_answer_larger_than_any_of_vaults_is_not_read(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="a" * 1024 * 1024)
    session = open_session(stand_in, stand_in.root_token)
    assert 1024 * 1024 == len(str(session.read("secret", "key", None, 2).data["value"]))
    stand_in.put("secret/key", value="a" * 5 * 1024 * 1024)
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        session.read("secret", "key", None, 2)


def test_what_is_read_over_a_kept_connection_that_was_just_closed_is_asked_once_more(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.root_token).signed_in()
    stand_in.hang_up(times=1)
    assert {"value": "one"} == session.read("secret", "key", None, 2).data
    assert [0, 200] == [seen.status for seen in stand_in.asked("secret/data/key")]
    # Over a connection that has just been made it is not repeated.
    stand_in.hang_up(times=2)
    with pytest.raises(VaultUnavailable) as error:
        session.read("secret", "key", None, 2)
    assert "unreachable" == error.value.reason
    assert [0, 200, 0, 0] == [seen.status for seen in stand_in.asked("secret/data/key")]


def test_nothing_is_written_twice(stand_in: VaultStandIn, open_session: Sessions) -> None:
    session = open_session(stand_in, stand_in.root_token).signed_in()
    stand_in.hang_up()
    with pytest.raises(VaultUnavailable) as error:
        session.transit_encrypt("transit", "sluice", b"x")
    assert "unreachable" == error.value.reason
    assert 1 == len(stand_in.asked("transit/*"))


def test_a_given_token_that_was_replaced_is_in_use_at_the_next_denial_and_at_the_next_look(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    stand_in.put("secret/key", value="one")
    policy = stand_in.policy({"secret/data/key": READ})
    values = [stand_in.token()]
    session = open_session(stand_in, VaultAuth(token=Secret(lambda: values[0], "${file:token}"))).signed_in()
    values[0] = stand_in.token(policy)
    assert {"value": "one"} == session.read("secret", "key", None, 2).data
    assert values[0] == token_of(session)
    values[0] = stand_in.token(policy)
    due_at = session.token_due_at()
    assert due_at is not None
    assert due_at <= SystemClock().monotonic()
    session.renew_token_if_due()
    assert values[0] == token_of(session)
    assert 3 == session.sign_in


def test_a_slow_answer_within_the_time_is_an_answer(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    session = open_session(stand_in, stand_in.root_token)
    stand_in.slow(0.2)
    assert {"value": "one"} == session.read("secret", "key", None, "auto").data


def test_an_address_where_nobody_listens_is_told(stand_in: VaultStandIn, open_session: Sessions) -> None:
    with closed_port() as port:
        session = open_session(stand_in, stand_in.root_token, address=f"http://127.0.0.1:{port}")
        with pytest.raises(VaultUnavailable, match=f"127.0.0.1:{port}") as error:
            session.read("secret", "key", None, 2)
    assert "unreachable" == error.value.reason


@pytest.mark.parametrize("address", ["http://[::1", "http://[::1]:x", "vault:8200", ""])
def test_an_address_that_is_none_is_told_at_once(stand_in: VaultStandIn, open_session: Sessions, address: str) -> None:
    began = time.perf_counter()
    for login in (stand_in.root_token, stand_in.approle()):
        session = open_session(stand_in, login, address=address)
        with pytest.raises(VaultUnavailable, match=r"^`secrets\.vault\.address`: not an "):
            session.read("secret", "key", None, "auto")
    assert taken(began) < AT_ONCE


def test_a_standby_may_send_us_to_the_active_node(stand_in: VaultStandIn, open_session: Sessions) -> None:
    stand_in.put("secret/key", value="one")
    with vault_stand_in() as standby:
        for path in ("auth/token/lookup-self", "secret/data/key"):
            standby.redirect(stand_in.address, path=path)
        session = open_session(standby, stand_in.root_token)
        assert {"value": "one"} == session.read("secret", "key", None, 2).data


@pytest.mark.parametrize("scheme", ["http", "HTTP", "hTtp", "h\ttp", "\thttp"])
def test_a_token_is_not_sent_in_the_clear_where_tls_was_asked_for(
    stand_in: VaultStandIn, open_session: Sessions, scheme: str
) -> None:
    with vault_stand_in(server_tls()) as standby:
        standby.redirect(stand_in.address.replace("http", scheme), path="auth/token/lookup-self")
        session = open_session(standby, stand_in.root_token, tls=ClientTls(ca=str(AUTHORITY)))
        with pytest.raises(VaultUnavailable, match="redirects"):
            session.read("secret", "key", None, 2)
        assert 1 == len(standby.requests)
    assert [] == stand_in.requests


def test_credentials_follow_no_redirect_to_another_host_in_the_clear(
    stand_in: VaultStandIn, open_session: Sessions
) -> None:
    login = stand_in.approle()
    with vault_stand_in() as standby:
        for elsewhere in (stand_in.address, stand_in.address.replace("127.0.0.1", "localhost")):
            standby.recover()
            standby.redirect(elsewhere, path="auth/approle/login")
            session = open_session(standby, login)
            if elsewhere == stand_in.address:
                session.signed_in()
                stand_in.forget()
                continue
            with pytest.raises(VaultUnavailable, match="redirects"):
                session.signed_in()
    assert [] == stand_in.requests


def test_credentials_follow_a_redirect_from_tls_to_tls(open_session: Sessions) -> None:
    with vault_stand_in(server_tls()) as active, vault_stand_in(server_tls()) as standby:
        standby.redirect(active.address.replace("127.0.0.1", "localhost"), path="auth/approle/login")
        open_session(standby, active.approle(), tls=ClientTls(ca=str(AUTHORITY))).signed_in()
        assert [200] == [seen.status for seen in active.requests]


# TLS


def test_a_server_is_trusted_by_the_authorities_that_are_named(open_session: Sessions, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.read_bytes())
    with vault_stand_in(server_tls()) as vault:
        vault.put("secret/key", value="one")
        for ca in (str(AUTHORITY), "ca.pem"):  # relative to the directory of the document
            session = open_session(vault, vault.root_token, tls=ClientTls(ca=ca))
            assert {"value": "one"} == session.read("secret", "key", None, "auto").data
        with pytest.raises(VaultUnavailable, match=r"TLS .*certificate.*`secrets\.vault\.tls`") as error:
            open_session(vault, vault.root_token).read("secret", "key", None, 2)
        assert "unreachable" == error.value.reason
        with pytest.raises(VaultUnavailable, match=r"secrets\.vault\.tls"):
            open_session(vault, vault.root_token, tls=ClientTls(ca="none.pem")).read("secret", "key", None, 2)


def test_a_certificate_for_another_name_is_refused(open_session: Sessions) -> None:
    with vault_stand_in(server_tls()) as vault:
        address = vault.address.replace("127.0.0.1", "127.0.0.2")
        session = open_session(vault, vault.root_token, address=address, tls=ClientTls(ca=str(AUTHORITY)))
        with pytest.raises(VaultUnavailable):
            session.read("secret", "key", None, 2)


@pytest.mark.parametrize("apart", [True, False])
def test_a_certificate_is_shown_to_a_server_that_asks(open_session: Sessions, tmp_path: Path, apart: bool) -> None:
    own = (CERTIFICATES / "client.pem").read_text()
    begin = own.index("-----BEGIN CERTIFICATE")
    key, certificate = (own[:begin], own[begin:]) if own.index("PRIVATE KEY") < begin else (own[begin:], own[:begin])
    (tmp_path / "cert.pem").write_text(certificate if apart else own)
    (tmp_path / "key.pem").write_text(key)
    tls = ClientTls(ca=str(AUTHORITY), cert="cert.pem", key="key.pem" if apart else None)
    with vault_stand_in(server_tls(ask_client=True)) as vault:
        vault.put("secret/key", value="one")
        session = open_session(vault, vault.root_token, tls=tls)
        assert {"value": "one"} == session.read("secret", "key", None, "auto").data
        assert {"gateway one"} == {each.client_certificate for each in vault.requests}
        vault.forget()
        with pytest.raises(VaultUnavailable):
            open_session(vault, vault.root_token, tls=ClientTls(ca=str(AUTHORITY))).read("secret", "key", None, 2)
        broken = ClientTls(ca=str(AUTHORITY), cert="none.pem")
        with pytest.raises(VaultUnavailable, match=r"secrets\.vault\.tls"):
            open_session(vault, vault.root_token, tls=broken).read("secret", "key", None, 2)
        assert [] == vault.requests


# Nothing from elsewhere, and nothing to be seen


def test_the_environment_of_the_host_changes_nothing(
    stand_in: VaultStandIn, open_session: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody asks there unless this test fails.
    nowhere = f"http://127.0.0.1:{free_port()}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "VAULT_ADDR"):
        monkeypatch.setenv(name, nowhere)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VAULT_TOKEN", "hvs.other")
    monkeypatch.setenv("VAULT_NAMESPACE", "elsewhere")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("CURL_CA_BUNDLE", str(tmp_path / "none.pem"))
    # hvac reads these when it is imported.
    for name in ("VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"):
        monkeypatch.setattr(f"hvac.v1.{name}", str(tmp_path / "none.pem"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".vault-token").write_text("hvs.other")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    (tmp_path / ".netrc").chmod(0o600)
    stand_in.put("secret/key", value="one")
    login = stand_in.approle(stand_in.policy({"secret/data/key": READ}))

    assert {"value": "one"} == open_session(stand_in, login).read("secret", "key", None, "auto").data

    assert "" == stand_in.asked("auth/approle/login")[0].request.token
    for seen in stand_in.requests:
        assert "authorization" not in seen.headers
        assert "" == seen.request.namespace
    with vault_stand_in(server_tls()) as secure:
        secure.put("secret/key", value="two")
        session = open_session(secure, secure.root_token, tls=ClientTls(ca=str(AUTHORITY)))
        assert {"value": "two"} == session.read("secret", "key", None, "auto").data
        assert {None} == {each.client_certificate for each in secure.requests}


@pytest.mark.parametrize(
    "what", ["seal", "stop", "slow", "fail", "limit_rate", "garble", "other_json", "deny", "expire"]
)
def test_no_fault_shows_a_secret(
    stand_in: VaultStandIn, open_session: Sessions, planted_secret: str, what: str
) -> None:
    stand_in.put("secret/key", value=planted_secret)
    login = stand_in.approle(stand_in.policy({"secret/data/key": READ}))
    session = open_session(stand_in, login)
    reading = session.read("secret", "key", None, 2)
    secrets = [planted_secret, login.secret_id, token_of(session)]
    assert not any(secret in repr(reading) + repr(session) for secret in secrets)
    if what == "slow":
        wait_for(session, HASTE)
    befall(stand_in, what, secrets)
    with pytest.raises(VaultFault) as error:
        session.read("secret", "key", None, 2)
    chain: BaseException | None = error.value
    shown = ""
    while chain is not None:
        shown += str(chain) + repr(chain) + repr(vars(chain))
        chain = chain.__cause__ or chain.__context__
    assert not any(secret in shown for secret in secrets)


def befall(vault: VaultStandIn, what: str, said: list[str] | None = None) -> None:
    """Bring ``what`` about; an answer with an error quotes what it was sent, as a bad one may."""
    match what:
        case "seal":
            vault.seal()
        case "stop":
            vault.stop()
        case "slow":
            vault.slow(float("inf"))
        case "trickle":
            vault.trickle(HASTE / 3)
        case "limit_rate":
            vault.limit_rate()
        case "fail":
            vault.fail(500, *(said or []))
        case "bad_gateway":
            vault.fail(502)
        case "no_leader":
            vault.become("no-leader")
        case "garble":
            vault.garble(body="<html>" + " ".join(said or []))
        case "other_json":
            vault.garble(body='["' + '", "'.join(said or []) + '"]')
        case "deny":
            vault.deny("*")
        case "expire":
            vault.expire_token()
            vault.fail(400, *(said or []), path="auth/")


def approle_auth(login: Login) -> VaultAuth:
    return VaultAuth(
        method="approle", mount=login.mount, role_id=login.role_id, secret_id=Secret.literal(login.secret_id)
    )


def token_of(session: Session) -> str:
    """The token that a session has in use."""
    token = session._tokens.present
    assert token is not None
    return token.secret.reveal()
