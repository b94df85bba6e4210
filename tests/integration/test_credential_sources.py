"""Tokens for credentials of the file, over real sockets: from oidc-provider, and from stand-ins for Google and Entra."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from config.schema import AzureEntra, Credential, GoogleServiceAccount, OAuthProvider
from core.clock import ManualClock, SystemClock
from core.secret import Secret
from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable
from credentials.oauth.server import OAuthServer
from credentials.sources.build import source_of
from credentials.tokens import CredentialSource
from tests.oauth_server import CLIENT_SECRET, CLIENTS, OAuthServerProcess, oauth_server
from tests.planted import labels, planted
from tests.rsa_keys import KEY_ID, certificate_of, pem_of, rsa_key, service_key
from tests.token_endpoint_stand_in import (
    ENTRA_TOKEN,
    GOOGLE_TOKEN,
    Application,
    TokenEndpoints,
    token_endpoints,
)
from transport.client import HttpClient
from transport.messages import STRAIGHT

KEY = rsa_key()
ROBOT = "robot@project.example.com"
APPLICATION = "5a1b2c3d-0000-4000-8000-000000000000"
APPLICATION_SECRET = planted("entra-client")
ENTRA_PATH = "/contoso.example.com/oauth2/v2.0/token"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time=datetime(2030, 6, 1, tzinfo=UTC).timestamp())


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture
async def endpoints(clock: ManualClock) -> AsyncIterator[TokenEndpoints]:
    async with token_endpoints(clock) as served:
        served.accounts[ROBOT] = (KEY_ID, KEY.public_key())
        yield served


@pytest.fixture(scope="module")
def oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    """Its token endpoint is where Entra's is, and it knows the application by its key."""
    numbers = KEY.public_key().public_numbers()
    application = {
        "client_id": APPLICATION,
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "PS256",
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "jwks": {"keys": [{"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}]},
    }
    scratch = tmp_path_factory.mktemp("oidc")
    with oauth_server(scratch, clients=[*CLIENTS, application], routes={"token": ENTRA_PATH}) as running:
        yield running


def _number(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).decode().rstrip("=")


class Sources:
    """Makes them as the gateway does."""

    def __init__(self, client: HttpClient, clock: ManualClock | SystemClock) -> None:
        self.client = client
        self.clock = clock

    def of(self, credential: Credential, **servers: OAuthServer) -> CredentialSource:
        source = source_of(credential, servers, self.client, STRAIGHT, self.clock, {})
        assert source is not None
        return source

    def google(self, key: str | Secret, **settings: Any) -> CredentialSource:
        handle = key if isinstance(key, Secret) else Secret.literal(key)
        return self.of(Credential(name="a", google_service_account=GoogleServiceAccount(key=handle, **settings)))

    def entra(self, authority: str, **settings: Any) -> CredentialSource:
        given = {"tenant": "contoso.example.com", "client_id": APPLICATION, "authority": authority, **settings}
        return self.of(Credential(name="a", azure_entra=AzureEntra(**given)))


@pytest.fixture
def sources(client: HttpClient, clock: ManualClock) -> Sources:
    return Sources(client, clock)


async def refused(source: CredentialSource, kind: type[CredentialFault] = CredentialRefused) -> str:
    """Why there is no token."""
    with pytest.raises(kind) as fault:
        await source.obtain(None)
    assert kind is type(fault.value)
    assert not labels(str(fault.value))
    return str(fault.value)


async def test_a_service_account_gets_a_token_for_an_assertion(
    sources: Sources, endpoints: TokenEndpoints, clock: ManualClock
) -> None:
    endpoints.subjects = frozenset({"ada@example.com"})
    source = sources.google(
        service_key(KEY, endpoints.google), scopes=("scope-a", "scope-b"), subject="ada@example.com"
    )
    tokens = await source.obtain(None)
    assert "google_service_account" == source.kind
    assert (GOOGLE_TOKEN, clock.time() + 3599, None) == (
        tokens.access_token.reveal(),
        tokens.expires_at,
        tokens.refresh_token,
    )
    (assertion,) = endpoints.assertions
    assert {
        "iss": ROBOT,
        "sub": "ada@example.com",
        "aud": endpoints.google,
        "scope": "scope-a scope-b",
        "iat": int(clock.time()),
        "exp": int(clock.time()) + 3600,
    } == assertion.claims


async def test_a_key_that_has_been_exchanged_for_another_counts_from_the_next_token_on(
    sources: Sources, endpoints: TokenEndpoints
) -> None:
    present = [service_key(KEY, endpoints.google)]
    source = sources.google(Secret(lambda: present[0], "${file:key.json}"))
    await source.obtain(None)
    other = rsa_key("another")
    endpoints.accounts[ROBOT] = (KEY_ID, other.public_key())
    told = await refused(source)
    assert f"Google service account `{ROBOT}`: " in told
    assert "`invalid_grant`: Invalid JWT Signature." in told
    assert "its key is neither deleted nor disabled" in told
    present[0] = service_key(other, endpoints.google)
    await source.obtain(None)
    present[0] = "cut of"
    assert "the key of a Google service account is not the JSON key" in await refused(source)


async def test_what_google_refuses_is_told_with_its_mend(
    sources: Sources, endpoints: TokenEndpoints, clock: ManualClock
) -> None:
    nobody = sources.google(service_key(KEY, endpoints.google, "nobody@project.example.com"))
    assert "account not found" in await refused(nobody)
    delegated = sources.google(service_key(KEY, endpoints.google), subject="eve@example.com")
    assert "allow it the `scopes` for the `subject` at Google, by domain-wide delegation" in await refused(delegated)
    endpoints.clock = ManualClock(time=clock.time() + 5000)
    assert "this machine's clock is right" in await refused(sources.google(service_key(KEY, endpoints.google)))


async def test_an_application_signs_in_by_its_secret(
    sources: Sources, endpoints: TokenEndpoints, clock: ManualClock
) -> None:
    endpoints.applications[APPLICATION] = Application(client_secret=APPLICATION_SECRET)
    source = sources.entra(f"{endpoints.base}/", client_secret=Secret.literal(APPLICATION_SECRET))
    tokens = await source.obtain(None)
    assert ("azure_entra", ENTRA_TOKEN, clock.time() + 3599) == (
        source.kind,
        tokens.access_token.reveal(),
        tokens.expires_at,
    )
    endpoints.applications[APPLICATION] = Application(client_secret=planted("another-client"))
    told = await refused(source)
    assert f"Entra application `{APPLICATION}`: " in told
    assert "AADSTS7000215: Invalid client secret provided.): see that `client_secret` is the secret's value" in told


async def test_an_application_signs_in_by_its_certificate(sources: Sources, endpoints: TokenEndpoints) -> None:
    certificate = certificate_of(KEY, datetime(2031, 1, 1, tzinfo=UTC))
    endpoints.applications[APPLICATION] = Application(certificate=certificate.encode())
    held = Secret.literal(certificate + pem_of(KEY))
    source = sources.entra(endpoints.base, certificate=held)
    # The second one is refused if it repeats the first one's id.
    assert [ENTRA_TOKEN] * 2 == [(await source.obtain(None)).access_token.reveal() for _ in range(2)]
    endpoints.applications[APPLICATION] = Application(certificate=certificate_of(rsa_key("another")).encode())
    assert "see that the certificate is registered with the application" in await refused(source)


async def test_a_certificate_that_has_ended_is_named_where_it_is_refused(
    sources: Sources, endpoints: TokenEndpoints
) -> None:
    endpoints.applications[APPLICATION] = Application(certificate=certificate_of(rsa_key("another")).encode())
    ended = certificate_of(KEY, datetime(2029, 1, 1, tzinfo=UTC)) + pem_of(KEY)
    assert "its certificate has expired" in await refused(
        sources.entra(endpoints.base, certificate=Secret.literal(ended))
    )
    broken = sources.entra(endpoints.base, certificate=Secret.literal("cut off"))
    assert f"Entra application `{APPLICATION}`: its certificate has no private key" in await refused(broken)


async def test_the_token_of_a_workload_is_read_for_each_sign_in(
    sources: Sources, endpoints: TokenEndpoints, clock: ManualClock, tmp_path: Path
) -> None:
    issuer = rsa_key("another")
    endpoints.applications[APPLICATION] = Application(federated=("https://cluster", "pod", issuer.public_key()))
    file = tmp_path / "token"
    source = sources.entra(endpoints.base, federated_token=Secret(file.read_text, "${file:token}"))
    file.write_text(_workload_token(issuer, clock.time() + 600) + "\n")
    await source.obtain(None)
    clock.advance(601)
    told = await refused(source)
    assert "AADSTS700024" in told
    assert "the token is renewed where `federated_token` leads" in told
    file.write_text(_workload_token(issuer, clock.time() + 600))
    await source.obtain(None)


def _workload_token(issuer: RSAPrivateKey, ends: float) -> str:
    """As a cluster signs one."""
    claims = {"iss": "https://cluster", "sub": "pod", "aud": "api://AzureADTokenExchange", "exp": ends}
    parts = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "RS256"}, claims)
    )
    text = ".".join(parts)
    signature = issuer.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{text}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


async def test_what_entra_refuses_is_told_with_its_mend(sources: Sources, endpoints: TokenEndpoints) -> None:
    endpoints.applications[APPLICATION] = Application(client_secret=APPLICATION_SECRET)
    secret = Secret.literal(APPLICATION_SECRET)
    entra = partial(sources.entra, endpoints.base, client_secret=secret)
    assert "see that `client_id` is an application of `tenant`" in await refused(entra(client_id="another"))
    assert "write a resource and `/.default` in `scope`" in await refused(entra(scope="models.read"))
    assert "status 404 and without a reason: see that `tenant`, `client_id`" in await refused(entra(tenant="elsewhere"))


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "retry_after", "words"),
    [
        (503, {"retry-after": "7"}, "", CredentialUnavailable, 7.0, "busy or out of order (status 503)"),
        (429, {}, '{"error": "too_many"}', CredentialUnavailable, None, "busy or out of order (`too_many`)"),
        (400, {}, '{"error": "temporarily_unavailable"}', CredentialUnavailable, None, "busy or out of order"),
        (200, {}, "<html>", CredentialUnavailable, None, "something that is no JSON"),
        (200, {}, '{"expires_in": 5}', CredentialUnavailable, None, "without an access token"),
        (200, {}, " " * 1_100_000, CredentialUnavailable, None, "more than 1048576 bytes"),
        (302, {"location": "/"}, "", CredentialRefused, None, "a redirect"),
        (403, {}, "<html>", CredentialRefused, None, "status 403 and without a reason"),
        # No person signs in for it, so that no sign-in is asked for.
        (400, {}, '{"error": "login_required"}', CredentialRefused, None, "`login_required`"),
        (
            401,
            {},
            json.dumps({"error": "invalid_client", "error_description": f"not {APPLICATION_SECRET}"}),
            CredentialRefused,
            None,
            "refuses it (`invalid_client`): see",
        ),
    ],
)
async def test_whatever_an_endpoint_answers_is_told_apart(
    status: int,
    headers: dict[str, str],
    body: str,
    kind: type[CredentialFault],
    retry_after: float | None,
    words: str,
    sources: Sources,
    endpoints: TokenEndpoints,
) -> None:
    endpoints.instead = [web.Response(status=status, headers=headers, text=body)]
    source = sources.entra(endpoints.base, client_secret=Secret.literal(APPLICATION_SECRET))
    with pytest.raises(kind) as fault:
        await source.obtain(None)
    assert (kind, retry_after) == (type(fault.value), fault.value.retry_after_seconds)
    assert words in str(fault.value)
    assert not labels(str(fault.value))


async def test_an_endpoint_that_nobody_serves_is_not_available(sources: Sources) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        source = sources.google(service_key(KEY, f"http://127.0.0.1:{taken.getsockname()[1]}/token"))
        assert "cannot be reached" in await refused(source, CredentialUnavailable)


async def test_oidc_provider_takes_the_assertion_of_a_certificate(client: HttpClient, oidc: OAuthServerProcess) -> None:
    sources = Sources(client, SystemClock())
    source = sources.entra(
        oidc.url, certificate=Secret.literal(certificate_of(KEY) + pem_of(KEY)), scope="models.read models.write"
    )
    tokens = await source.obtain(None)
    assert ("models.read", "models.write") == tokens.scopes
    assert tokens.expires_at == tokens.issued_at + 600
    assert await oidc.is_active(tokens.access_token.reveal())
    other = rsa_key("another")
    forged = sources.entra(
        oidc.url, certificate=Secret.literal(certificate_of(other) + pem_of(other)), scope="models.read"
    )
    assert "`invalid_client`" in await refused(forged)


async def test_a_client_of_oidc_provider_signs_in_for_itself(client: HttpClient, oidc: OAuthServerProcess) -> None:
    clock = SystemClock()

    def source(secret: str, client_id: str = "machine") -> CredentialSource:
        entry = OAuthProvider(
            name="company",
            issuer=oidc.url,
            client_id=client_id,
            client_secret=Secret.literal(secret),
            scopes=("models.read",),
        )
        server = OAuthServer(entry, None, client, STRAIGHT, clock, lambda: "http://127.0.0.1/oauth/callback")
        return Sources(client, clock).of(Credential(name="a", client_credentials="company"), company=server)

    machine = source(CLIENT_SECRET)
    first, second = await asyncio.gather(machine.obtain(None), machine.obtain(None))
    assert ("client_credentials", ("models.read",)) == (machine.kind, first.scopes)
    assert first.access_token.reveal() != second.access_token.reveal()
    assert await oidc.is_active(first.access_token.reveal())
    assert "invalid_client" in await refused(source(planted("another-client")))
    assert "requested grant type is not allowed" in await refused(source(CLIENT_SECRET, client_id="basic"))
    await oidc.answer_next(ENTRA_PATH, 503, headers={"retry-after": "3"})
    assert "busy" in await refused(machine, CredentialUnavailable)
    # Nobody could sign in anew: an operator is asked.
    await oidc.answer_next(ENTRA_PATH, 400, {"error": "invalid_grant"})
    assert "invalid_grant" in await refused(machine)
