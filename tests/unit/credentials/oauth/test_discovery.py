import asyncio
from typing import Any

import pytest

from credentials.errors import LoginFailed, LoginMismatch
from tests.unit.credentials.oauth.scripted_server import HERE, ScriptedServer
from transport.script import Head, Send

ISSUER = "https://login.example.com/realm"
DOCUMENT = f"{ISSUER}/.well-known/openid-configuration"
ELSEWHERE = "https://login.example.com/.well-known/oauth-authorization-server/realm"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://login.example.com/authorize?realm=1",
    "token_endpoint": "https://login.example.com/token",
}


async def opened(server: ScriptedServer, **keys: Any) -> str:
    return await server.known_as(issuer=ISSUER, token_endpoint=None, **keys).authorization_url("s", None, HERE)


@pytest.mark.parametrize("address", [DOCUMENT, ELSEWHERE])
async def test_endpoints_are_found_at_either_place(address: str) -> None:
    server = ScriptedServer()
    server.answers_json(address, METADATA)
    url = await opened(server)
    assert url.startswith("https://login.example.com/authorize?realm=1&response_type=code&redirect_uri=https%3A%2F%2F")


async def test_what_the_entry_names_counts_before_the_document() -> None:
    server = ScriptedServer()
    server.answers_json(DOCUMENT, METADATA)
    assert (await opened(server, authorization_endpoint="https://a.example.com/sign-in")).startswith("https://a.")
    assert [] == server.asked


async def test_a_document_is_kept_for_an_hour_and_longer_where_there_is_no_other() -> None:
    server = ScriptedServer()
    server.answers_json(DOCUMENT, METADATA)
    known = server.known_as(issuer=ISSUER, token_endpoint=None)
    # However many ask, one document is read.
    await asyncio.gather(*(known.authorization_url("s", None, HERE) for _ in range(5)))
    server.clock.advance(3599)
    await known.authorization_url("s", None, HERE)
    assert 1 == len(server.asked)
    server.clock.advance(1)
    server.answers(DOCUMENT, Head(503))
    for _ in range(2):
        assert (await known.authorization_url("s", None, HERE)).startswith("https://login.example.com/authorize")
    assert 2 == len(server.asked)
    server.clock.advance(60)
    server.answers_json(DOCUMENT, METADATA | {"authorization_endpoint": "https://moved.example.com/"})
    assert (await known.authorization_url("s", None, HERE)).startswith("https://moved.")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (METADATA | {"issuer": "https://evil.example.com"}, "that of `https://evil.example.com`: write as `issuer`"),
        (METADATA | {"issuer": f"{ISSUER}/"}, "write as `issuer` exactly what the server calls itself"),
        (METADATA | {"issuer": None}, "that of nobody"),
        (METADATA | {"token_endpoint": "http://login.example.com/token"}, "token_endpoint .* not an https address"),
        # Nor does a server elsewhere send us to what listens on this machine.
        (METADATA | {"token_endpoint": "http://127.0.0.1:6379/"}, "token_endpoint .* not an https address"),
        (METADATA | {"authorization_endpoint": 17}, "authorization_endpoint .* not an https address"),
        (METADATA | {"revocation_endpoint": "https://a\n.example.com"}, "revocation_endpoint .* not an https address"),
        ({"issuer": ISSUER}, "no page to sign in at: take `device`, or write `authorization_endpoint`"),
        ([], "no discovery document: see that `issuer` is right"),
    ],
)
async def test_a_document_that_cannot_be_trusted_is_not_used(document: object, words: str) -> None:
    server = ScriptedServer()
    server.answers_json(DOCUMENT, document)
    with pytest.raises(LoginFailed, match=words):
        await opened(server)


async def test_a_document_that_cannot_be_had_now_is_no_reason_to_change_anything() -> None:
    server = ScriptedServer()
    server.answers(DOCUMENT, Head(503), Send(b"{}"))
    with pytest.raises(LoginFailed, match=r"busy or out of order \(status 503\)"):
        await opened(server)


@pytest.mark.parametrize(("sends", "refused"), [(True, True), (False, False), ("yes", False)])
async def test_a_missing_issuer_is_a_mismatch_where_the_server_always_sends_it(sends: object, refused: bool) -> None:
    server = ScriptedServer()
    server.answers_json(DOCUMENT, METADATA | {"authorization_response_iss_parameter_supported": sends})
    known = server.known_as(issuer=ISSUER)
    await known.check_issuer(ISSUER)
    if refused:
        with pytest.raises(LoginMismatch):
            await known.check_issuer(None)
    else:
        await known.check_issuer(None)
    with pytest.raises(LoginMismatch):
        await known.check_issuer(f"{ISSUER}/")


async def test_without_an_issuer_there_is_nothing_to_compare() -> None:
    known = ScriptedServer().known_as()
    await known.check_issuer(None)
    await known.check_issuer("https://anybody.example.com")
