"""Sign-ins through a running gateway, at a strict OAuth server that others have written."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import pytest

from tests.gateway_process import ADMIN_KEY, Answer, Gateway
from tests.integration.conftest import StartGateway
from tests.oauth_server import Browser, OAuthServerProcess, browser, oauth_server
from tests.provider import Call, completion, provider

LOGIN = "/api/v1/credentials/login"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth")) as server:
        yield server


@pytest.fixture
async def person() -> AsyncIterator[Browser]:
    async with browser() as opened:
        yield opened


def with_accounts(issuer: str, base_url: str = "http://127.0.0.1:9/v1", *, workers: int = 1) -> str:
    """A configuration whose provider `real` has accounts that sign in at ``issuer``."""
    return f"""
        server: {{workers: {workers}}}
        oauth:
          providers:
            - {{name: strict, issuer: "{issuer}", client_id: public, scopes: [openid, email, models.read]}}
            - {{name: devices, issuer: "{issuer}", client_id: device, scopes: [openid, email]}}
            - {{name: strangers, issuer: "{issuer}", client_id: public, redirect_url: "https://elsewhere.example.com/"}}
        providers:
          - {{name: real, type: openai-compatible, base_url: "{base_url}", oauth: strict}}
          - {{name: boxed, type: openai-compatible, base_url: "{base_url}", oauth: devices}}
          - {{name: strange, type: openai-compatible, base_url: "{base_url}", oauth: strangers}}
          - {{name: plain, type: echo}}
    """


@pytest.fixture(scope="module")
def running(strict: OAuthServerProcess, start_shared_gateway: StartGateway) -> Gateway:
    gateway = start_shared_gateway(with_accounts(strict.url))
    gateway.expect_log("made a master key")
    return gateway


def ask(gateway: Gateway, method: str, path: str = "", body: object = None) -> Answer:
    return gateway.request(method, f"{LOGIN}{path}", body, key=ADMIN_KEY)


def begin(gateway: Gateway, **members: object) -> dict[str, Any]:
    answer = ask(gateway, "POST", "", {"provider": "real", **members})
    assert 200 == answer.status, answer
    found: dict[str, Any] = answer.json()
    return found


def come_back(gateway: Gateway, address: str) -> tuple[int, str]:
    """Status and heading of the page that a browser is shown at ``address``, which is one of the gateway's."""
    url = urlsplit(address)
    assert ("127.0.0.1", "/oauth/callback") == (url.hostname, url.path)
    answer = gateway.request("GET", f"{url.path}?{url.query}", key=None)
    found = re.search("<h1>(.*)</h1>", answer.body.decode())
    assert found is not None, answer
    return answer.status, found[1]


def status_of(gateway: Gateway, begun: dict[str, Any]) -> tuple[str, str | None]:
    shown = ask(gateway, "GET", f"/{begun['state']}").json()
    return shown["status"], shown["message"]


def account(gateway: Gateway, begun: dict[str, Any]) -> Answer:
    name = quote(f"{begun['provider']}/{begun['name']}", safe="")
    return gateway.request("GET", f"/api/v1/credentials/{name}", key=ADMIN_KEY)


async def test_an_account_signs_in_serves_requests_and_is_given_back_when_it_is_deleted(
    strict: OAuthServerProcess, person: Browser, start_gateway: StartGateway, http: aiohttp.ClientSession
) -> None:
    async def answers(call: Call) -> None:
        await call.body()
        await call.answer(completion("hi"))

    async with provider(answers) as there:
        gateway = start_gateway(with_accounts(strict.url, f"http://127.0.0.1:{there.port}/v1"))
        gateway.expect_log("made a master key")
        begun = begin(gateway, weight=3)
        assert ("main", f"{gateway.url}/oauth/callback") == (begun["name"], begun["redirect_url"])
        address = await person.sign_in(begun["authorization_url"], person="grace")
        assert (200, "Signed in") == come_back(gateway, address)
        shown = account(gateway, begun)
        told = shown.json()
        assert ("ready", "grace@example.com", 3) == (told["state"], told["account"], told["weight"])
        assert {"status": "complete", "account": "grace@example.com"}.items() <= ask(
            gateway, "GET", f"/{begun['state']}"
        ).json().items()
        question = {"model": "real/any", "messages": [{"role": "user", "content": "hi"}]}
        async with http.post(f"{gateway.url}/v1/chat/completions", json=question) as answer:
            assert 200 == answer.status, await answer.text()
        token = there.calls[0].headers["authorization"].removeprefix("Bearer ")
        assert await strict.is_active(token)
        removed = gateway.request(
            "DELETE",
            "/api/v1/credentials/real%2Fmain",
            headers={"if-match": shown.headers["etag"]},
            key=ADMIN_KEY,
        )
        assert (200, {"revoked": True, "message": None}) == (removed.status, removed.json())
        assert not await strict.is_active(token)
        assert 404 == account(gateway, begun).status
    for secret in (begun["state"], token, address):
        assert secret not in gateway.err + gateway.out


async def test_what_comes_back_wrong_is_refused_each_with_its_own_error(
    running: Gateway, person: Browser, strict: OAuthServerProcess
) -> None:
    async def signed_in() -> tuple[dict[str, Any], dict[str, str], str]:
        begun = begin(running)
        address = await person.sign_in(begun["authorization_url"])
        base, _, query = address.partition("?")
        return begun, dict(pair.split("=", 1) for pair in query.split("&")), base

    # Another state: the sign-in goes on.
    begun, query, base = await signed_in()
    wrong = {**query, "state": "x" * 43}
    assert (400, "No sign-in waits for this") == come_back(running, f"{base}?{urlencode(wrong)}")
    assert ("pending", None) == status_of(running, begun)
    # No issuer, or another's (RFC 9207).
    for changed in ({"iss": None}, {"iss": "https%3A%2F%2Fevil.example.com"}):
        begun, query, base = await signed_in()
        parts = {**query, **changed}
        changed_query = "&".join(f"{name}={value}" for name, value in parts.items() if value is not None)
        assert (400, "This answer does not belong to the sign-in") == come_back(running, f"{base}?{changed_query}")
        assert "failed" == status_of(running, begun)[0]
    # The code of another sign-in: its verifier is another.
    (begun, query, base), (_, other, _) = await signed_in(), await signed_in()
    assert (502, "The sign-in has failed") == come_back(
        running, f"{base}?code={other['code']}&state={query['state']}&iss={query['iss']}"
    )
    status, message = status_of(running, begun)
    assert ("failed", True) == (status, "invalid_grant" in str(message))
    # Once more: the address is good once, and so is the code.
    begun, query, base = await signed_in()
    address = f"{base}?code={query['code']}&state={query['state']}&iss={query['iss']}"
    assert (200, "Signed in") == come_back(running, address)
    assert (410, "This sign-in has ended already") == come_back(running, address)
    again = begin(running)
    assert (502, "The sign-in has failed") == come_back(
        running, f"{base}?code={query['code']}&state={again['state']}&iss={query['iss']}"
    )
    assert 404 == account(running, again).status


async def test_who_says_no_is_told_and_so_is_who_waits(running: Gateway, person: Browser) -> None:
    begun = begin(running, name="denied")
    address = await person.sign_in(begun["authorization_url"], allow=False)
    assert "error=access_denied" in address
    assert (400, "The sign-in was refused") == come_back(running, address)
    status, message = status_of(running, begun)
    assert ("failed", True) == (status, "access_denied" in str(message))
    assert 404 == account(running, begun).status


async def test_an_address_that_is_pasted_does_as_well_unless_it_is_another_places(
    running: Gateway, person: Browser
) -> None:
    begun = begin(running, name="pasted")
    address = await person.sign_in(begun["authorization_url"])
    foreign = address.replace("127.0.0.1", "evil.example.com")
    refused = ask(running, "POST", "/complete", {"redirect_url": foreign})
    assert (422, "login_error-mismatch") == (refused.status, refused.code)
    assert ("pending", None) == status_of(running, begun)
    done = ask(running, "POST", "/complete", {"redirect_url": address})
    assert (200, "complete", "ada@example.com") == (done.status, done.json()["status"], done.json()["account"])
    again = ask(running, "POST", "/complete", {"redirect_url": address})
    assert (410, "login_error-used") == (again.status, again.code)


async def test_an_address_that_is_not_registered_is_refused_by_the_server(running: Gateway, person: Browser) -> None:
    begun = begin(running, provider="strange")
    assert "https://elsewhere.example.com/" == begun["redirect_url"]
    page = await person.opened(begun["authorization_url"])
    assert 400 == page.status
    assert "redirect_uri" in page.text
    assert ("pending", None) == status_of(running, begun)


async def test_a_sign_in_that_was_cancelled_is_answered_no_more(running: Gateway, person: Browser) -> None:
    begun = begin(running, name="cancelled")
    address = await person.sign_in(begun["authorization_url"])
    assert "cancelled" == ask(running, "DELETE", f"/{begun['state']}").json()["status"]
    assert (410, "This sign-in has ended already") == come_back(running, address)
    again = ask(running, "DELETE", f"/{begun['state']}")
    assert (410, "login_error-used") == (again.status, again.code)


async def test_a_device_signs_in_or_is_denied_or_takes_too_long(
    running: Gateway, person: Browser, strict: OAuthServerProcess
) -> None:
    async def ended(begun: dict[str, Any]) -> tuple[str, str | None]:
        async with asyncio.timeout(60):
            while (found := status_of(running, begun))[0] == "pending":
                await asyncio.sleep(0.1)
        return found

    outcomes = []
    for name in ("allowed", "denied"):
        await strict.hurry_device()
        begun = begin(running, provider="boxed", name=name, flow="device")
        await person.enter_code(begun["verification_uri"], begun["user_code"], allow=name == "allowed")
        outcomes.append((await ended(begun))[0])
        assert (200 if name == "allowed" else 404) == account(running, begun).status
    await strict.hurry_device()
    begun = begin(running, provider="boxed", name="slow", flow="device")
    await strict.answer_next("/token", 400, {"error": "expired_token"})
    outcomes.append((await ended(begun))[0])
    assert ["complete", "failed", "expired"] == outcomes
    # No browser comes back from there.
    assert 400 == come_back(running, f"{running.url}/oauth/callback?code=c&state={begun['state']}")[0]


def test_without_a_sign_in_the_page_says_so_whatever_is_configured_and_wherever_it_is_asked(
    running: Gateway, start_gateway: StartGateway
) -> None:
    apart = start_gateway(
        """
        management: {listen: "127.0.0.1:0"}
        providers: [{name: plain, type: echo}]
    """,
        access="",
    )
    for gateway in (running, apart):
        for query in ("", "?code=c", f"?code=c&state={'x' * 43}", "?error=access_denied"):
            page = gateway.request("GET", f"/oauth/callback{query}", key=None)
            assert (400, "text/html; charset=utf-8") == (page.status, page.headers["content-type"])
            assert b"No sign-in waits for this" in page.body
    refused = ask(running, "POST", "", {"provider": "plain"})
    assert (422, "credential_error-unknown_provider") == (refused.status, refused.code)
    assert 401 == running.request("POST", LOGIN, {"provider": "real"}, key=None).status


async def test_a_sign_in_is_begun_at_one_worker_and_answered_at_any(
    strict: OAuthServerProcess, person: Browser, start_gateway: StartGateway
) -> None:
    gateway = start_gateway(with_accounts(strict.url, workers=2))
    gateway.expect_log("made a master key")
    names = [f"a{number}" for number in range(4)]
    for name in names:
        begun = begin(gateway, name=name)
        address = await person.sign_in(begun["authorization_url"])
        assert (200, "Signed in") == come_back(gateway, address)
        assert (410, "This sign-in has ended already") == come_back(gateway, address)
        # Whichever worker is asked knows of it.
        assert [200] * 4 == [account(gateway, begun).status for _ in range(4)]
        assert ["complete"] * 4 == [status_of(gateway, begun)[0] for _ in range(4)]
