"""The token of a session: prolonged in time, replaced when it must be, and given back where it is ours."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import hvac
import pytest

from config.schema import Vault, VaultAuth
from config.vault.answers import Answer, Asked, Auth, Limit
from config.vault.calls import Calls
from config.vault.errors import VaultDenied, VaultFault, VaultSignInFailed, VaultUnavailable, VaultUnusable
from config.vault.settings import VaultSettings
from config.vault.tokens import OTHER_TOKEN_SECONDS, Token, Tokens
from core.clock import ManualClock
from core.secret import Secret

ExpectLog = Callable[..., AbstractContextManager[None]]


class Script:
    """In the place of calls to a server: what each path answers, or raises; and what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer | VaultFault] = {}
        self.tokens = 0

    def client(self, token: str) -> hvac.Client:
        return hvac.Client(url="http://127.0.0.1:9", token=token)

    def __call__(self, asked: Asked, limit: Limit, call: Callable[[], Any]) -> Answer:
        self.asked.append(asked.path)
        answer = self.answers.get(asked.path, Answer(data={}))
        if isinstance(answer, VaultFault):
            raise answer
        return answer

    def earns(self, ttl: float, *, renewable: bool = True, name: str = "earned") -> None:
        self.answers["auth/approle/login"] = Answer(auth=Auth(name, ttl, renewable))

    def prolongs(self, ttl: float) -> None:
        self.answers["auth/token/renew-self"] = Answer(auth=Auth("", ttl, renewable=True))

    def describes(self, ttl: float, whole: float, *, renewable: bool = False) -> None:
        self.answers["auth/token/lookup-self"] = Answer(
            data={"ttl": ttl, "creation_ttl": whole, "renewable": renewable}
        )

    def take(self) -> list[str]:
        asked, self.asked = self.asked, []
        return asked


class Held:
    def __init__(self, auth: VaultAuth, directory: Path) -> None:
        self.clock = ManualClock()
        self.script = Script()
        settings = VaultSettings(Vault(address="http://vault:8200", auth=auth), directory)
        self.tokens = Tokens(settings, self.clock, cast("Calls", self.script))

    def limit(self) -> Limit:
        return Limit(self.clock, 10)

    def get(self) -> Token:
        return self.tokens.get(self.limit())

    def ask(self, question: Callable[[Token], str]) -> str:
        return self.tokens.ask(question, self.limit())

    def renew(self) -> None:
        self.tokens.renew_if_due(self.limit())


@pytest.fixture
def approle(tmp_path: Path) -> Held:
    held = Held(VaultAuth(method="approle", role_id="role", secret_id=Secret.literal("id")), tmp_path)
    held.script.earns(3600)
    return held


def _denied_to(*names: str) -> Callable[[Token], str]:
    def question(token: Token) -> str:
        if token.secret.reveal() in names:
            raise VaultDenied("secret/data/x", "read")
        return token.secret.reveal()

    return question


def test_one_sign_in_serves_all(approle: Held) -> None:
    assert approle.get() is approle.get()
    assert ["auth/approle/login"] == approle.script.take()
    assert 1 == approle.tokens.sign_in


def test_a_token_is_prolonged_when_two_thirds_of_its_life_are_spent(approle: Held) -> None:
    token = approle.get()
    approle.script.prolongs(3600)
    approle.script.take()
    approle.clock.advance(2399)
    approle.renew()
    assert [] == approle.script.take()
    approle.clock.advance(1)
    approle.renew()
    assert ["auth/token/renew-self"] == approle.script.take()
    assert token is approle.get()
    assert token.due_at == approle.clock.monotonic() + 2400


@pytest.mark.parametrize("why", ["short", "refused", "not renewable"])
def test_where_it_cannot_be_prolonged_another_takes_its_place_in_time(approle: Held, why: str) -> None:
    approle.script.earns(3600, renewable=why != "not renewable")
    former = approle.get()
    approle.script.prolongs(1200)
    if why == "refused":
        approle.script.answers["auth/token/renew-self"] = VaultUnusable("no")
    approle.clock.advance(2400)
    approle.renew()
    assert former is not approle.get()
    assert 2 == approle.tokens.sign_in
    # Requests in flight use what was lent to the former.
    assert "auth/token/revoke-self" not in approle.script.take()


def test_a_token_that_cannot_be_prolonged_during_an_outage_stays_and_is_due_again(approle: Held) -> None:
    token = approle.get()
    approle.script.answers["auth/token/renew-self"] = VaultUnavailable("down", "unreachable")
    approle.clock.advance(2400)
    with pytest.raises(VaultUnavailable):
        approle.renew()
    assert token is approle.get()
    assert token.due_at == approle.clock.monotonic() + 30
    approle.renew()  # not before


def test_a_token_without_an_end_is_never_due(approle: Held) -> None:
    approle.script.earns(0)
    assert approle.get().due_at is None
    approle.renew()


def test_after_a_denial_a_dead_token_is_replaced_and_the_question_asked_again(approle: Held) -> None:
    approle.get()
    approle.script.answers["auth/token/lookup-self"] = VaultDenied("auth/token/lookup-self", "read")
    approle.script.earns(3600, name="second")
    assert "second" == approle.ask(_denied_to("earned"))
    assert 2 == approle.tokens.sign_in


def test_a_question_that_a_new_token_is_denied_too_is_denied(approle: Held) -> None:
    approle.get()
    approle.script.answers["auth/token/lookup-self"] = VaultDenied("auth/token/lookup-self", "read")
    approle.script.earns(3600, name="second")
    with pytest.raises(VaultDenied):
        approle.ask(_denied_to("earned", "second"))


def test_policies_that_a_role_was_given_since_count_after_a_denial(approle: Held) -> None:
    approle.get()
    approle.script.earns(3600, name="second")
    assert "second" == approle.ask(_denied_to("earned"))
    assert "auth/token/revoke-self" not in approle.script.take()


def test_a_sign_in_that_is_of_no_use_changes_nothing_and_is_not_repeated_at_once(approle: Held) -> None:
    token = approle.get()
    approle.script.earns(3600, name="second")
    for seconds, tries in ((0, 1), (OTHER_TOKEN_SECONDS, 0), (OTHER_TOKEN_SECONDS, 1), (2 * OTHER_TOKEN_SECONDS, 0)):
        approle.clock.advance(seconds)
        approle.script.take()
        with pytest.raises(VaultDenied):
            approle.ask(_denied_to("earned", "second"))
        asked = approle.script.take()
        assert tries == asked.count("auth/approle/login") == asked.count("auth/token/revoke-self")
    assert token is approle.get()
    assert 1 == approle.tokens.sign_in


def test_a_refused_sign_in_does_not_hide_the_denial(approle: Held) -> None:
    approle.get()
    approle.script.answers["auth/approle/login"] = VaultUnusable("used up")
    with pytest.raises(VaultDenied):
        approle.ask(_denied_to("earned"))


@pytest.mark.parametrize(
    "fault", [VaultUnusable("400"), VaultDenied("auth/approle/login", "update")], ids=["400", "403"]
)
def test_refused_credentials_are_named(approle: Held, fault: VaultFault) -> None:
    approle.script.answers["auth/approle/login"] = fault
    with pytest.raises(VaultSignInFailed, match=r"`auth/approle/login`: see `role_id` and `secret_id`"):
        approle.get()


def test_no_answer_to_a_sign_in_is_no_refusal(approle: Held) -> None:
    approle.script.answers["auth/approle/login"] = VaultUnavailable("down", "sealed")
    with pytest.raises(VaultUnavailable):
        approle.get()
    approle.script.answers["auth/approle/login"] = Answer()
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        approle.get()


def test_a_token_that_was_earned_is_given_back_and_there_is_no_other(approle: Held) -> None:
    approle.get()
    approle.script.take()
    approle.tokens.close(approle.limit())
    approle.tokens.close(approle.limit())
    assert ["auth/token/revoke-self"] == approle.script.take()
    with pytest.raises(VaultUnavailable, match="has ended"):
        approle.get()


def test_what_cannot_be_given_back_is_left(approle: Held) -> None:
    approle.get()
    approle.script.answers["auth/token/revoke-self"] = VaultUnavailable("down")
    approle.tokens.close(approle.limit())


def _given(values: list[str], directory: Path) -> Held:
    return Held(VaultAuth(token=Secret(lambda: values[0], "${file:token}")), directory)


def test_a_given_token_is_looked_up_and_never_given_back(tmp_path: Path) -> None:
    held = _given(["hvs.one\n"], tmp_path)
    held.script.describes(900, 900, renewable=True)
    token = held.get()
    assert "hvs.one" == token.secret.reveal()
    assert token.due_at == held.clock.monotonic() + 600
    held.tokens.close(held.limit())
    assert ["auth/token/lookup-self"] == held.script.take()


def test_a_given_token_that_is_replaced_in_its_file_is_taken_when_it_is_due(tmp_path: Path) -> None:
    values = ["hvs.one"]
    held = _given(values, tmp_path)
    held.script.describes(900, 900)
    held.get()
    values[0] = "hvs.two"
    held.clock.advance(600)
    held.renew()
    assert "hvs.two" == held.get().secret.reveal()
    assert 2 == held.tokens.sign_in


def test_a_given_token_that_is_replaced_is_due_at_once(tmp_path: Path) -> None:
    values = ["hvs.one"]
    held = _given(values, tmp_path)
    held.script.describes(0, 0)
    assert (None, None) == (held.get().due_at, held.tokens.due_at)
    values[0] = "hvs.two\n"
    due_at = held.tokens.due_at
    assert due_at is not None
    assert due_at <= held.clock.monotonic()
    held.renew()
    assert ("hvs.two", 2) == (held.get().secret.reveal(), held.tokens.sign_in)
    assert (None, None) == (held.get().due_at, held.tokens.due_at)


@pytest.mark.parametrize("fault", [VaultDenied("auth/token/lookup-self", "read"), VaultUnavailable("down")])
def test_while_what_is_put_in_its_place_is_refused_a_given_token_stays(tmp_path: Path, fault: VaultFault) -> None:
    values = ["hvs.one"]
    held = _given(values, tmp_path)
    held.script.describes(30, 30, renewable=True)
    former = held.get()
    values[0] = "hvs.two"
    held.script.answers["auth/token/lookup-self"] = fault
    with pytest.raises((VaultSignInFailed, VaultUnavailable)):
        held.renew()
    assert former is held.get()
    held.script.take()
    held.renew()
    assert [] == held.script.take(), "it is not asked again and again"
    # Meanwhile the former lives on.
    held.clock.advance(20)
    held.script.prolongs(30)
    held.renew()
    assert ["auth/token/renew-self"] == held.script.take()
    # Yet another is tried at once, and the same one later.
    held.script.describes(0, 0)
    held.renew()
    assert former is held.get()
    held.clock.advance(10)
    held.renew()
    assert "hvs.two" == held.get().secret.reveal()
    values[0] = "hvs.three"
    held.renew()
    assert "hvs.three" == held.get().secret.reveal()


def test_after_a_denial_what_was_put_in_the_place_of_a_given_token_is_asked(tmp_path: Path) -> None:
    values = ["hvs.one"]
    held = _given(values, tmp_path)
    held.get()
    values[0] = "hvs.two"
    assert "hvs.two" == held.ask(_denied_to("hvs.one"))
    assert "hvs.two" == held.get().secret.reveal()


def test_after_a_denial_a_refused_token_does_not_hide_it(tmp_path: Path) -> None:
    values = ["hvs.one"]
    held = _given(values, tmp_path)
    former = held.get()
    values[0] = ""
    with pytest.raises(VaultDenied):
        held.ask(_denied_to("hvs.one"))
    assert former is held.get()


@pytest.mark.parametrize("ttl", [float("nan"), float("inf"), -1, "90s", True])
def test_a_description_that_is_not_vaults_is_not_believed(tmp_path: Path, ttl: Any) -> None:
    held = _given(["hvs.one"], tmp_path)
    for ends in ((ttl, 900), (900, ttl)):
        held.script.describes(*ends)
        with pytest.raises(VaultUnavailable, match="not as Vault does"):
            held.get()
    held.script.answers["auth/token/lookup-self"] = Answer()
    with pytest.raises(VaultUnavailable, match="not as Vault does"):
        held.get()


def test_the_end_of_a_given_token_is_warned_of_once(tmp_path: Path, expect_log: ExpectLog) -> None:
    held = _given(["hvs.one"], tmp_path)
    held.script.describes(900, 900)
    held.get()
    held.clock.advance(600)
    held.script.describes(300, 900)
    held.renew()  # whoever replaces it may do so still
    held.clock.advance(200)
    held.script.describes(100, 900)
    with expect_log(r"`secrets.vault.auth.token` ends in 100 s"):
        held.renew()
    held.clock.advance(90)
    held.script.describes(10, 900)
    held.renew()
    # It is the same one, with all that was lent to it.
    assert 1 == held.tokens.sign_in


def test_a_refused_given_token_is_named_and_not_shown(tmp_path: Path, planted_secret: str) -> None:
    held = _given([planted_secret], tmp_path)
    held.script.answers["auth/token/lookup-self"] = VaultDenied("auth/token/lookup-self", "read")
    with pytest.raises(VaultSignInFailed, match=r"refuses `secrets.vault.auth.token`") as error:
        held.get()
    assert planted_secret not in str(error.value)


@pytest.mark.parametrize("text", ["", " ", "hvs.ö", "hvs.one\nhvs.two"])
def test_what_can_be_no_token_is_not_sent(tmp_path: Path, text: str) -> None:
    held = _given([text], tmp_path)
    with pytest.raises(VaultSignInFailed, match="is no token of Vault"):
        held.get()
    assert [] == held.script.take()


def test_the_token_of_a_service_account_is_read_at_each_sign_in(tmp_path: Path) -> None:
    held = Held(VaultAuth(method="kubernetes", mount="k8s", role="sluice", jwt_file="jwt"), tmp_path)
    with pytest.raises(VaultSignInFailed, match=r"`secrets.vault.auth.jwt_file` jwt cannot be read: No such file"):
        held.get()
    (tmp_path / "jwt").write_bytes(b"\xff")
    with pytest.raises(VaultSignInFailed, match="it is no text"):
        held.get()
    (tmp_path / "jwt").write_text("one\n")
    held.script.answers["auth/k8s/login"] = VaultDenied("auth/k8s/login", "update")
    with pytest.raises(VaultSignInFailed, match="see `role` and `jwt_file`"):
        held.get()
    held.script.answers["auth/k8s/login"] = Answer(auth=Auth("earned", 60, renewable=True))
    assert "earned" == held.get().secret.reveal()


def test_a_sign_in_that_another_thread_is_stuck_in_is_not_waited_for_for_ever(approle: Held) -> None:
    with approle.tokens._locked(approle.limit()), pytest.raises(VaultUnavailable, match="takes too long") as error:
        approle.tokens.get(Limit(approle.clock, 0.01))
    assert "slow" == error.value.reason
