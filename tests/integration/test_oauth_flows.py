"""Our side of OAuth against a strict server that others have written. Each refusal has its own error, which says its mend."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm

from config.schema import OAuthProvider
from core.clock import Clock, ManualClock, SystemClock
from core.secret import Secret
from credentials.errors import (
    CredentialRefused,
    CredentialUnavailable,
    LoginDenied,
    LoginExpired,
    LoginFailed,
    LoginMismatch,
    NeedsLogin,
)
from credentials.oauth.pkce import new_verifier
from credentials.oauth.server import OAuthServer, Pending
from credentials.oauth.source import OAuthAccountSource
from credentials.tokens import TokenSet
from tests.oauth_server import CLIENT_SECRET, CLIENTS, Browser, OAuthServerProcess, browser, oauth_server
from transport.client import HttpClient
from transport.messages import STRAIGHT

HERE = "http://127.0.0.1:8080/oauth/callback"
STATE = "a-state-of-the-test"
_KEY = ec.generate_private_key(ec.SECP256R1())
_SIGNER = {
    "client_id": "signer",
    "token_endpoint_auth_method": "private_key_jwt",
    "token_endpoint_auth_signing_alg": "ES256",
    "jwks": {"keys": [ECAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)]},
    "grant_types": ["client_credentials"],
    "response_types": [],
    "redirect_uris": [],
}

Connect = Callable[..., OAuthServer]


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth"), clients=[*CLIENTS, _SIGNER]) as server:
        yield server


@pytest.fixture
async def connect(strict: OAuthServerProcess) -> AsyncIterator[Connect]:
    """``connect("public", pkce=False, …)``: the server as the gateway knows it, with these keys in its entry."""
    client = HttpClient()

    def made(client_id: str, clock: Clock | None = None, **keys: Any) -> OAuthServer:
        entry = {"name": "strict", "issuer": strict.url, "scopes": ("openid", "email", "models.read")} | keys
        return OAuthServer(
            OAuthProvider(client_id=client_id, **entry),
            None,
            client,
            STRAIGHT,
            clock or ManualClock(),
            lambda: HERE,
        )

    yield made
    await client.close()


@pytest.fixture
async def person() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


def secret() -> Secret:
    return Secret.literal(CLIENT_SECRET)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def code_for(server: OAuthServer, person: Browser, verifier: str | None) -> str:
    """The code that comes back when ``person`` has signed in and allowed."""
    back = await person.sign_in(await server.authorization_url(STATE, verifier, HERE))
    assert back.startswith(f"{HERE}?")
    return await server.read_answer(query_of(back), STATE)


async def signed_in(server: OAuthServer, person: Browser) -> TokenSet:
    verifier = new_verifier()
    return await server.exchange_code(await code_for(server, person, verifier), verifier, HERE)


@pytest.mark.parametrize("client_id", ["public", "basic", "post"])
async def test_a_code_is_exchanged_for_tokens(
    client_id: str, connect: Connect, person: Browser, strict: OAuthServerProcess
) -> None:
    keys = {} if client_id == "public" else {"client_secret": secret(), "client_authentication": client_id}
    tokens = await signed_in(connect(client_id, **keys), person)
    assert await strict.is_active(tokens.access_token.reveal())
    assert ("ada@example.com", {"openid", "email", "models.read"}) == (tokens.account, set(tokens.scopes))
    assert ManualClock().time() + 3600 == tokens.expires_at
    assert tokens.refresh_token is not None


async def test_only_the_verifier_of_the_sign_in_earns_tokens(connect: Connect, person: Browser) -> None:
    server = connect("public")
    for verifier in (new_verifier(), None):
        code = await code_for(server, person, new_verifier())
        with pytest.raises(LoginFailed, match=r"`invalid_grant`.*another verifier.*begin the sign-in anew"):
            await server.exchange_code(code, verifier, HERE)


async def test_a_sign_in_without_a_challenge_is_refused_with_its_mend(connect: Connect, person: Browser) -> None:
    server = connect("public", pkce=False)
    with pytest.raises(LoginDenied, match=r"`invalid_request`.*`pkce`"):
        await code_for(server, person, None)


async def test_a_code_is_good_once_and_its_replay_ends_what_came_of_it(
    connect: Connect, person: Browser, strict: OAuthServerProcess
) -> None:
    server, verifier = connect("public"), new_verifier()
    code = await code_for(server, person, verifier)
    tokens = await server.exchange_code(code, verifier, HERE)
    with pytest.raises(LoginFailed, match="it was used already"):
        await server.exchange_code(code, verifier, HERE)
    assert not await strict.is_active(tokens.access_token.reveal())


async def test_an_answer_to_another_sign_in_is_a_mismatch(connect: Connect, person: Browser) -> None:
    server = connect("public")
    query = query_of(await person.sign_in(await server.authorization_url(STATE, new_verifier(), HERE)))
    for state in ("another", "", "ü"):
        with pytest.raises(LoginMismatch, match=r"state is another.*Begin the sign-in anew"):
            await server.read_answer(query | {"state": state}, STATE)
    with pytest.raises(LoginMismatch, match="state is another"):
        await server.read_answer({}, STATE)


async def test_an_answer_says_whose_it_is(connect: Connect, person: Browser, strict: OAuthServerProcess) -> None:
    server = connect("public")
    query = query_of(await person.sign_in(await server.authorization_url(STATE, new_verifier(), HERE)))
    assert strict.url == query["iss"]
    with pytest.raises(LoginMismatch, match=r"that of another server.*see that `issuer`"):
        await server.read_answer(query | {"iss": "https://elsewhere.example.com"}, STATE)
    with pytest.raises(LoginMismatch, match=r"does not say whose it is.*Begin the sign-in anew"):
        await server.read_answer({key: value for key, value in query.items() if key != "iss"}, STATE)


async def test_a_foreign_redirect_url_earns_nothing(connect: Connect, person: Browser) -> None:
    server, verifier = connect("public"), new_verifier()
    foreign = "http://127.0.0.1:8080/elsewhere"
    page = await person.opened(await server.authorization_url(STATE, verifier, foreign))
    assert (400, True) == (page.status, "invalid_redirect_uri" in page.text)
    code = await code_for(server, person, verifier)
    with pytest.raises(LoginFailed, match="another verifier, redirect URL or client"):
        await server.exchange_code(code, verifier, "http://127.0.0.1:8081/oauth/callback")


async def test_who_denies_is_told_how_to_allow(connect: Connect, person: Browser) -> None:
    server = connect("public")
    back = await person.sign_in(await server.authorization_url(STATE, new_verifier(), HERE), allow=False)
    with pytest.raises(LoginDenied, match=r"`access_denied`.*allow it"):
        await server.read_answer(query_of(back), STATE)


async def test_an_answer_without_a_code_is_a_failed_sign_in(connect: Connect, strict: OAuthServerProcess) -> None:
    with pytest.raises(LoginFailed, match="the whole address"):
        await connect("public").read_answer({"state": STATE, "iss": strict.url}, STATE)


async def test_refresh_tokens_are_good_once_and_one_that_comes_again_ends_the_sign_in(
    connect: Connect, person: Browser, strict: OAuthServerProcess
) -> None:
    server = connect("public")
    first = await signed_in(server, person)
    second = await OAuthAccountSource(server).obtain(first)
    assert first.refresh_token is not None
    assert second.refresh_token is not None
    assert not second.refresh_token.matches(first.refresh_token.reveal())
    assert (first.account, first.scopes) == (second.account, second.scopes)
    assert await strict.is_active(second.access_token.reveal())
    with pytest.raises(NeedsLogin, match=r"`invalid_grant`.*sign in again"):
        await server.refresh(first)
    # Whoever used it twice may have stolen it: the server trusts neither.
    with pytest.raises(NeedsLogin):
        await server.refresh(second)
    assert not await strict.is_active(second.access_token.reveal())


async def test_without_a_refresh_token_a_person_has_to_sign_in(connect: Connect) -> None:
    tokens = TokenSet(access_token=Secret.literal("short"), issued_at=0, expires_at=1)
    server = connect("public")
    for asked in (OAuthAccountSource(server).obtain(None), server.refresh(tokens)):
        with pytest.raises(NeedsLogin, match="sign in"):
            await asked


async def test_a_wrong_secret_is_the_operators_to_mend(connect: Connect, person: Browser) -> None:
    right = connect("basic", client_secret=secret())
    tokens = await signed_in(right, person)
    wrong = connect("basic", client_secret=Secret.literal(f"{CLIENT_SECRET}-not"))
    with pytest.raises(CredentialRefused, match=r"`invalid_client`.*`client_secret`"):
        await wrong.refresh(tokens)
    verifier = new_verifier()
    with pytest.raises(LoginFailed, match=r"`invalid_client`.*`client_secret`"):
        await wrong.exchange_code(await code_for(right, person, verifier), verifier, HERE)


async def test_a_device_waits_until_the_person_has_allowed(
    connect: Connect, person: Browser, strict: OAuthServerProcess
) -> None:
    server = connect("device")
    shown = await server.begin_device()
    assert f"{strict.url}/device" == shown.verification_uri
    assert Pending() == await server.poll_device(shown.device_code)
    # This server knows no such answer, so it is put in its mouth.
    await strict.answer_next("/token", 400, {"error": "slow_down"})
    assert Pending(slow_down=True) == await server.poll_device(shown.device_code)
    await strict.answer_next("/token", 503)
    with pytest.raises(CredentialUnavailable):
        await server.poll_device(shown.device_code)
    page = await person.enter_code(shown.verification_uri, shown.user_code)
    assert 200 == page.status
    tokens = await server.poll_device(shown.device_code)
    assert isinstance(tokens, TokenSet)
    assert "ada@example.com" == tokens.account
    assert await strict.is_active((await server.refresh(tokens)).access_token.reveal())
    with pytest.raises(LoginFailed, match=r"does not know the code of the device.*begin the sign-in anew"):
        await server.poll_device(shown.device_code)


async def test_a_device_is_told_that_the_person_has_denied(connect: Connect, person: Browser) -> None:
    server = connect("device")
    shown = await server.begin_device()
    await person.enter_code(shown.verification_uri, shown.user_code, allow=False)
    with pytest.raises(LoginDenied, match=r"access was denied.*allow it"):
        await server.poll_device(shown.device_code)


async def waited(server: OAuthServer, device_code: Secret) -> None:
    while isinstance(await server.poll_device(device_code), Pending):
        await asyncio.sleep(0.1)


async def test_a_device_waits_no_longer_than_its_code_is_good(tmp_path_factory: pytest.TempPathFactory) -> None:
    client = HttpClient()
    with oauth_server(tmp_path_factory.mktemp("oauth"), lifetimes={"DeviceCode": 1}) as short:
        entry = OAuthProvider(name="strict", issuer=short.url, client_id="device", scopes=("openid",))
        server = OAuthServer(entry, None, client, STRAIGHT, ManualClock(), lambda: HERE)
        shown = await server.begin_device()
        async with asyncio.timeout(60):
            with pytest.raises(LoginExpired, match=r"not entered in time.*Begin the sign-in anew"):
                await waited(server, shown.device_code)
    await client.close()


async def test_a_client_signs_in_for_itself(connect: Connect, strict: OAuthServerProcess) -> None:
    tokens = await connect("machine", client_secret=secret(), scopes=("models.read",)).client_credentials()
    assert await strict.is_active(tokens.access_token.reveal())
    assert (("models.read",), None) == (tokens.scopes, tokens.refresh_token)
    assert ManualClock().time() + 600 == tokens.expires_at
    with pytest.raises(CredentialRefused, match=r"`invalid_scope`.*`scopes`"):
        await connect("machine", client_secret=secret(), scopes=("models.write",)).client_credentials()
    with pytest.raises(
        CredentialRefused, match=r"not allowed for this client\): see that the client may use this flow"
    ):
        await connect("basic", client_secret=secret()).client_credentials()


async def test_a_client_shows_itself_by_a_signature(connect: Connect, strict: OAuthServerProcess) -> None:
    def signing(key: ec.EllipticCurvePrivateKey) -> OAuthServer:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return connect(
            "signer",
            client_secret=Secret.literal(pem),
            client_authentication="private_key_jwt",
            scopes=("models.read",),
            # What is signed has an end, by the server's clock.
            clock=SystemClock(),
        )

    tokens = await signing(_KEY).client_credentials()
    assert await strict.is_active(tokens.access_token.reveal())
    with pytest.raises(CredentialRefused, match="`invalid_client`"):
        await signing(ec.generate_private_key(ec.SECP256R1())).client_credentials()
    with pytest.raises(CredentialRefused, match=r"no private key.*PEM"):
        await connect("signer", client_secret=secret(), client_authentication="private_key_jwt").client_credentials()


async def test_tokens_are_given_back(connect: Connect, person: Browser, strict: OAuthServerProcess) -> None:
    server = connect("public")
    tokens = await signed_in(server, person)
    await server.revoke(tokens)
    assert not await strict.is_active(tokens.access_token.reveal())
    with pytest.raises(NeedsLogin):
        await server.refresh(tokens)
    await server.revoke(tokens)  # RFC 7009 section 2.2: of what there is no longer, too
    await strict.answer_next("/token/revocation", 503, headers={"retry-after": "7"})
    with pytest.raises(CredentialUnavailable) as failed:
        await server.revoke(tokens)
    assert 7 == failed.value.retry_after_seconds


async def test_a_server_out_of_order_says_when_to_come_back(
    connect: Connect, person: Browser, strict: OAuthServerProcess
) -> None:
    server = connect("public")
    tokens = await signed_in(server, person)
    await strict.answer_next("/token", 429, headers={"retry-after": "12"})
    with pytest.raises(CredentialUnavailable) as failed:
        await server.refresh(tokens)
    assert 12 == failed.value.retry_after_seconds
    # The token was not used up by that.
    await server.refresh(tokens)


async def test_an_issuer_by_another_name_is_refused(connect: Connect, strict: OAuthServerProcess) -> None:
    server = connect("public", issuer=strict.url.replace("127.0.0.1", "localhost"))
    with pytest.raises(LoginFailed, match=f"that of `{strict.url}`: write as `issuer` exactly"):
        await server.authorization_url(STATE, new_verifier(), HERE)
