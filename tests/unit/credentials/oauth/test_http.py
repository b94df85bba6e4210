"""What a server may do with us: nothing without bounds, and nothing that shows a secret."""

import base64

import pytest

from config.schema import OAuthProvider
from core.headers import Headers
from core.secret import Secret
from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable, NeedsLogin
from credentials.oauth.http import MAX_ANSWER_BYTES, Way, is_safe, post_form, shown
from credentials.tokens import TokenSet
from tests.planted import planted
from tests.unit.credentials.oauth.scripted_server import TOKENS, ScriptedServer
from transport.script import Cut, Head, Refuse, Send, Stall, Step

CLIENT_SECRET = planted("oauth-client-secret")
REFRESH_TOKEN = planted("oauth-refresh-token")
HELD = TokenSet(
    access_token=Secret.literal(planted("oauth-access-token")),
    issued_at=0,
    expires_at=1,
    refresh_token=Secret.literal(REFRESH_TOKEN),
)
ENDLESS = tuple(Send(b" " * (1 << 16)) for _ in range(2 * MAX_ANSWER_BYTES >> 16))


@pytest.mark.parametrize(
    ("steps", "kind", "words"),
    [
        ((Refuse(),), CredentialUnavailable, "cannot be reached: the provider refused the connection"),
        ((Head(200), Send(b"{"), Cut()), CredentialUnavailable, "cannot be reached"),
        ((Head(200), *ENDLESS), CredentialUnavailable, "more than 1048576 bytes: see that it is the right address"),
        ((Head(200), Send(b"<html>")), CredentialUnavailable, "no JSON: see that it is the right address"),
        ((Head(200), Send(b"[1]")), CredentialUnavailable, "no JSON"),
        ((Head(200), Send(b"[" * 100_000)), CredentialUnavailable, "no JSON"),
        ((Head(200), Send(b"\xff")), CredentialUnavailable, "no JSON"),
        ((Head(200), Send(b"{}")), CredentialUnavailable, "without an access token"),
        ((Head(302, Headers([("location", "https://a")])),), CredentialRefused, "a redirect .* write the address"),
        ((Head(404), Send(b"not here")), CredentialRefused, "status 404 .*see that it is the right address"),
        ((Head(500), Send(b"{}")), CredentialUnavailable, "out of order"),
        ((Head(400), Send(b'{"error": "invalid_grant"}')), NeedsLogin, "`invalid_grant`.*sign in again"),
        ((Head(400), Send(b'{"error": "invalid_scope"}')), CredentialRefused, "see that `scopes`"),
        ((Head(400), Send(b'{"error": "temporarily_unavailable"}')), CredentialUnavailable, "busy"),
        # GitHub answers so.
        ((Head(200), Send(b'{"error": "bad_refresh_token"}')), NeedsLogin, "`bad_refresh_token`"),
        ((Head(200), Send(b'{"error": "incorrect_client_credentials"}')), CredentialRefused, "`client_secret`"),
        # Others have an object of their own.
        ((Head(400), Send(b'{"error": {"code": "refresh_token_reused", "message": "no"}}')), NeedsLogin, "reused`: no"),
        ((Head(403), Send(b'{"error": {"code": 403, "message": "no"}}')), CredentialRefused, "`error`: no"),
        ((Head(400), Send(b'{"error": "<b>"}')), CredentialRefused, "`error`"),
        ((Head(200), Send(b'{"access_token": "a", "token_type": "DPoP"}')), CredentialRefused, "bearer tokens"),
        ((Head(200), Send(b'{"access_token": "a b"}')), CredentialUnavailable, "without an access token"),
    ],
)
async def test_each_failure_is_of_its_kind_and_names_the_mend(
    steps: tuple[Step, ...], kind: type[CredentialFault], words: str
) -> None:
    server = ScriptedServer()
    server.answers(TOKENS, *steps)
    with pytest.raises(CredentialFault, match=f"^OAuth provider `company`.*{words}") as failed:
        await server.known_as().refresh(HELD)
    assert kind is type(failed.value)


@pytest.mark.parametrize("steps", [(Stall(),), (Head(200), Stall()), (Head(200), Send(b"{"), Stall())])
async def test_no_answer_is_waited_for_for_ever(steps: tuple[Step, ...]) -> None:
    server = ScriptedServer()
    server.answers(TOKENS, *steps)
    with pytest.raises(CredentialUnavailable, match=r"token endpoint (has not answered within|cannot be reached)"):
        await server.known_as(timeout_seconds=0.05).refresh(HELD)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        ("9" * 5000, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50", 30.0),
        ("Tue, 14 Nov 2000 22:13:50 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        (None, None),
    ],
)
async def test_when_to_come_back_is_the_servers_to_say(value: str | None, seconds: float | None) -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {}, 429, {} if value is None else {"retry-after": value})
    with pytest.raises(CredentialUnavailable) as failed:
        await server.known_as().refresh(HELD)
    assert seconds == failed.value.retry_after_seconds


@pytest.mark.parametrize(
    ("method", "echoed"),
    [
        ("basic", REFRESH_TOKEN),
        ("basic", CLIENT_SECRET),
        ("basic", base64.b64encode(f"sluice:{CLIENT_SECRET}".encode()).decode()),
        ("post", CLIENT_SECRET),
        ("post", f"{REFRESH_TOKEN[5:30]} is no good"),
    ],
)
@pytest.mark.parametrize("place", ["error", "error_description"])
async def test_what_a_server_echoes_of_a_secret_is_not_repeated(method: str, echoed: str, place: str) -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {"error": "invalid_client", place: echoed}, 400)
    known = server.known_as(client_secret=Secret.literal(CLIENT_SECRET), client_authentication=method)
    with pytest.raises(CredentialRefused) as failed:
        await known.refresh(HELD)
    assert echoed not in str(failed.value)


def test_what_a_server_says_is_cut_and_printable() -> None:
    assert "bad [31m token" == shown("bad\x1b[31m\ntoken")
    assert "x" * 200 == shown("x" * 5000)
    assert None is shown(17)
    assert None is shown(" \n ")


def test_no_length_keeps_the_event_loop() -> None:
    # Each of a megabyte's places held against each of a token's took ten seconds; what is cut off is not looked at.
    token = planted("long-token").ljust(16_384, "t")
    assert "a" * 200 == shown("a" * (MAX_ANSWER_BYTES - 100) + token, (token,))
    assert None is shown("a" * 180 + token, (token,))


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example.com/token", True),
        ("http://127.0.0.1:8080/token", True),
        ("http://127.7.7.7/token", True),
        ("http://[::1]:8080/token", True),
        ("http://localhost/token", True),
        ("http://login.localhost/token", True),
        ("http://login.example.com/token", False),
        ("http://127.0.0.1.example.com/token", False),
        ("http://localhost.example.com/token", False),
        ("http://10.0.0.1/token", False),
        ("ftp://localhost/token", False),
        ("https://", False),
        ("https://[::1/token", False),
        ("token", False),
    ],
)
async def test_secrets_go_by_https_or_nowhere_but_here(url: str, safe: bool) -> None:
    assert safe is is_safe(url)
    if not safe:
        server = ScriptedServer()
        way = Way(whose="It", client=server.client, clock=server.clock)
        with pytest.raises(CredentialRefused, match="not an https address: write one"):
            await post_form(way, "endpoint", url, {"a": "b"})
        assert [] == server.asked


async def test_a_request_is_a_form_that_asks_for_json() -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {"access_token": "new"})
    entry = OAuthProvider(
        name="company",
        client_id="a client:ü",
        client_secret=Secret.literal("a+secret&"),
        token_endpoint=TOKENS,
        audience="https://models.example.com",
        token_parameters={"resource": "models"},
    )
    await server.known_as(entry).refresh(HELD)
    (asked,) = server.asked
    assert {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH_TOKEN,
        "audience": "https://models.example.com",
        "resource": "models",
    } == asked.form
    # RFC 6749 section 2.3.1: each is encoded as in a form before they are joined.
    assert b"a+client%3A%C3%BC:a%2Bsecret%26" == base64.b64decode((asked.headers.get("authorization") or "")[6:])
    assert ("application/json", "identity") == (asked.headers.get("accept"), asked.headers.get("accept-encoding"))
    assert "application/x-www-form-urlencoded" == asked.headers.get("content-type")
