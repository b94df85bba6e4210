"""What the entry says reaches the server, and faults keep the form that their callers count on."""

from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from core.secret import Secret
from credentials.errors import CredentialRefused, CredentialUnavailable, LoginDenied, LoginFailed
from credentials.oauth.source import OAuthAccountSource
from credentials.tokens import CredentialSource, TokenSet
from tests.unit.credentials.oauth.scripted_server import HERE, TOKENS, ScriptedServer
from transport.script import Head

REVOKE = "https://login.example.com/revoke"
HELD = TokenSet(
    access_token=Secret.literal("old"), issued_at=0, expires_at=1, refresh_token=Secret.literal("refresh-17")
)


def test_it_is_known_by_its_entry() -> None:
    server = ScriptedServer()
    known = server.known_as()
    assert ("company", HERE, True, "<OAuthServer company>") == (known.name, known.redirect_url, known.pkce, repr(known))
    own = server.known_as(redirect_url="https://own.example.com/back", pkce=False)
    assert ("https://own.example.com/back", False) == (own.redirect_url, own.pkce)
    source: CredentialSource = OAuthAccountSource(known)
    assert "oauth" == source.kind


async def test_the_page_is_opened_with_what_the_entry_says() -> None:
    known = ScriptedServer().known_as(
        authorization_endpoint="https://login.example.com/authorize?tenant=a",
        scopes=("a", "b"),
        audience="https://models.example.com",
        authorization_parameters={"prompt": "consent"},
    )
    assert (
        "https://login.example.com/authorize?tenant=a&prompt=consent&response_type=code"
        "&redirect_uri=https%3A%2F%2Fgateway.example.com%2Foauth%2Fcallback&state=s%26t&client_id=sluice&scope=a+b"
        "&audience=https%3A%2F%2Fmodels.example.com"
    ) == await known.authorization_url("s&t", None, HERE)
    assert "&scope=other&" in await known.authorization_url("s", None, HERE, ("other",))
    assert ("code",) == known.flows


async def test_a_page_by_plain_http_is_not_opened() -> None:
    known = ScriptedServer().known_as(authorization_endpoint="http://login.example.com/authorize")
    with pytest.raises(LoginFailed, match="not an https address: write one"):
        await known.authorization_url("s", None, HERE)


async def test_an_entry_that_names_no_token_endpoint_says_so() -> None:
    known = ScriptedServer().known_as(token_endpoint=None)
    with pytest.raises(CredentialRefused, match="write `token_endpoint`"):
        await known.refresh(HELD)


async def test_an_error_that_shows_the_state_is_not_repeated() -> None:
    known = ScriptedServer().known_as()
    query = {"state": "a-state-17", "error": "server_error", "error_description": "a-state-17 \x1b[2J"}
    with pytest.raises(LoginDenied, match=r"refused \(`server_error`\)"):
        await known.read_answer(query, "a-state-17")
    query = {"state": "a-state-17", "error": "<script>", "error_description": "busy"}
    with pytest.raises(LoginDenied, match=r"refused \(`error`: busy\)"):
        await known.read_answer(query, "a-state-17")


async def test_a_document_that_cannot_be_had_ends_the_sign_in() -> None:
    known = ScriptedServer().known_as(issuer="https://login.example.com")
    with pytest.raises(LoginFailed, match="see that `issuer` is right"):
        await known.read_answer({"state": "s", "code": "c"}, "s")


async def test_a_client_that_is_not_granted_anything_is_the_operators_to_mend() -> None:
    server = ScriptedServer()
    server.answers_json(TOKENS, {"error": "invalid_grant"}, 400)
    with pytest.raises(CredentialRefused, match=r"gives the client no token \(`invalid_grant`\): see that"):
        await server.known_as().client_credentials()


async def test_tokens_are_given_back_the_refresh_token_first() -> None:
    server = ScriptedServer()
    await server.known_as().revoke(HELD)
    assert [] == server.asked
    server.answers(REVOKE, Head(200))
    await server.known_as(revocation_endpoint=REVOKE).revoke(HELD)
    assert [("refresh_token", "refresh-17"), ("access_token", "old")] == [
        (asked.form["token_type_hint"], asked.form["token"]) for asked in server.asked
    ]


@pytest.mark.parametrize(
    ("status", "document", "refused"),
    [
        (400, {"error": "unsupported_token_type"}, False),
        (400, {"error": "invalid_client"}, True),
        (302, {}, True),
        (503, {}, True),
        (404, {}, True),
    ],
)
async def test_what_is_not_given_back_is_told_as_one_kind_of_fault(
    status: int, document: dict[str, str], refused: bool
) -> None:
    server = ScriptedServer()
    server.answers_json(REVOKE, document, status)
    giving_back = server.known_as(revocation_endpoint=REVOKE).revoke(HELD)
    if refused:
        with pytest.raises(CredentialUnavailable, match=r"^OAuth provider `company`: its revocation endpoint"):
            await giving_back
    else:
        await giving_back


_KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", _KEYS)
async def test_a_key_of_each_kind_signs(algorithm: str) -> None:
    key, server = _KEYS[algorithm], ScriptedServer()
    server.answers_json(TOKENS, {"access_token": "new"})
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    known = server.known_as(client_secret=Secret.literal(pem), client_authentication="private_key_jwt")
    await known.refresh(HELD)
    await known.refresh(HELD)
    first, second = (asked.form for asked in server.asked)
    now = server.clock.time()
    claims = jwt.decode(
        first["client_assertion"],
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        [algorithm],
        # It is of the time of the test's clock.
        options={"verify_exp": False, "verify_iat": False, "verify_aud": False},
    )
    assert {"iss": "sluice", "sub": "sluice", "aud": TOKENS, "iat": now, "exp": now + 60}.items() <= claims.items()
    assert "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" == first["client_assertion_type"]
    # Each is good once.
    assert claims["jti"] != jwt.decode(second["client_assertion"], options={"verify_signature": False})["jti"]


@pytest.mark.parametrize(
    "pem",
    [
        "no key",
        dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    ],
    ids=["no key", "DSA"],
)
async def test_a_secret_that_cannot_sign_is_the_operators_to_mend(pem: str) -> None:
    server = ScriptedServer()
    known = server.known_as(client_secret=Secret.literal(pem), client_authentication="private_key_jwt")
    with pytest.raises(CredentialRefused, match="`client_secret` is no private key that can sign") as failed:
        await known.refresh(HELD)
    assert pem not in str(failed.value)
