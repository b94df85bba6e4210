"""The shipped templates: public endpoints, and nobody's client."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from config.schema import OAuthProvider, TokenPlacement
from credentials.errors import LoginFailed
from credentials.oauth.pkce import challenge
from credentials.oauth.templates import TEMPLATES
from tests.unit.credentials.oauth.scripted_server import HERE, ScriptedServer

ROOT = Path(__file__).parents[4]
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""Of RFC 7636 appendix B, as its challenge is."""
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
KEYS = "https://openrouter.ai/api/v1/auth/keys"
OPENAI = "https://auth.openai.com"


def entry(template: str, **keys: Any) -> OAuthProvider:
    given = {"name": template, "template": template, "client_id": "registered-by-the-operator"} | keys
    return OAuthProvider(**given)


def test_the_issue_names_seven() -> None:
    assert {"claude", "openai", "google", "github", "azure", "openrouter", "huggingface"} == set(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
async def test_each_leads_to_its_page(name: str) -> None:
    template, server = TEMPLATES[name], ScriptedServer()
    document = {
        "issuer": template.issuer,
        "authorization_endpoint": f"{template.issuer}/authorize",
        "token_endpoint": f"{template.issuer}/token",
    }
    server.answers_json(f"{template.issuer}/.well-known/openid-configuration", document)
    known = server.known_as(entry(name))
    url = urlsplit(await known.authorization_url("s", VERIFIER, known.redirect_url))
    query = dict(parse_qsl(url.query))
    assert ("https", CHALLENGE, "S256") == (url.scheme, query["code_challenge"], query["code_challenge_method"])
    if template.key_exchange:
        assert {"callback_url": f"{HERE}?state=s"}.items() <= query.items()
        assert ("key_exchange",) == known.flows
    else:
        wanted = {"client_id": "registered-by-the-operator", "redirect_uri": HERE, "state": "s"}
        assert wanted.items() <= query.items()
        assert " ".join(template.scopes) == query.get("scope", "")
        assert "code" == known.flows[0]
    assert template.authorization_parameters.items() <= query.items()
    assert bool(server.asked) is (template.authorization_endpoint is None)


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_says_where_to_register(name: str) -> None:
    template = TEMPLATES[name]
    assert template.register_url.startswith("https://")
    given = (template.issuer, template.authorization_endpoint, template.token_endpoint, template.revocation_endpoint)
    assert all(url.startswith("https://") for url in given if url is not None)


def test_none_carries_a_client() -> None:
    text = (ROOT / "credentials/oauth/templates.py").read_text()
    # Ids of clients are long and random; nothing of the kind stands there.
    assert [] == [word for word in re.findall(r"[A-Za-z0-9_-]{20,}", text) if re.search(r"\d[A-Za-z]+\d", word)]
    assert "client_id" not in {field for template in TEMPLATES.values() for field in template.__struct_fields__}


@pytest.mark.parametrize(
    ("name", "placement"),
    [("google", TokenPlacement()), ("openrouter", None)],
)
def test_tokens_are_placed_as_the_template_says(name: str, placement: TokenPlacement | None) -> None:
    assert placement == ScriptedServer().known_as(entry(name)).placement
    own = TokenPlacement(header="x-token", scheme=None)
    assert own == ScriptedServer().known_as(entry(name, placement=own)).placement


def test_an_entry_without_a_template_places_a_bearer_token() -> None:
    assert TokenPlacement() == ScriptedServer().known_as().placement


async def test_openrouter_gives_a_key_for_a_code() -> None:
    server = ScriptedServer()
    server.answers_json(KEYS, {"key": "sk-or-v1-17", "user_id": "user_17"})
    tokens = await server.known_as(entry("openrouter", client_id=None)).exchange_code("a-code", VERIFIER, HERE)
    assert ("sk-or-v1-17", None, "user_17") == (tokens.access_token.reveal(), tokens.expires_at, tokens.account)
    (asked,) = server.asked
    assert "application/json" == asked.headers.get("content-type")
    assert f'{{"code":"a-code","code_verifier":"{VERIFIER}","code_challenge_method":"S256"}}' == asked.body.decode()
    server.answers_json(KEYS, {"error": {"code": 403, "message": "Invalid code or code_verifier"}}, 403)
    with pytest.raises(LoginFailed, match=r"Invalid code or code_verifier.*begin the sign-in anew"):
        await server.known_as(entry("openrouter", client_id=None)).exchange_code("a-code", VERIFIER, HERE)
    server.answers_json(KEYS, {})
    with pytest.raises(LoginFailed, match="without a key"):
        await server.known_as(entry("openrouter", client_id=None)).exchange_code("a-code", None, HERE)


async def test_an_entry_of_one_directory_counts_before_the_endpoints_of_azure() -> None:
    issuer = "https://login.microsoftonline.com/contoso/v2.0"
    server = ScriptedServer()
    server.answers_json(
        f"{issuer}/.well-known/openid-configuration",
        {"issuer": issuer, "authorization_endpoint": "https://login.microsoftonline.com/contoso/authorize"},
    )
    known = server.known_as(entry("azure", issuer=issuer))
    url = await known.authorization_url("s", VERIFIER, HERE)
    assert url.startswith("https://login.microsoftonline.com/contoso/authorize?")
    # What the document leaves out is the template's.
    token_endpoint = TEMPLATES["azure"].token_endpoint
    assert token_endpoint is not None
    server.answers_json(token_endpoint, {"access_token": "a"})
    assert "a" == (await known.exchange_code("c", VERIFIER, HERE)).access_token.reveal()


def test_the_challenge_is_that_of_the_rfc() -> None:
    assert CHALLENGE == challenge(VERIFIER)
