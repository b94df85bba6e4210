"""Holes that other gateways had, tried on this one: over sockets, against a gateway as it is deployed.

docs/security.md lists them with where they were seen. What cannot happen here at all stands there with its reason.
"""

import asyncio
import gzip
import http.client
import json
import re
import socket
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from access.admin_key import FAILURES_BEFORE_LOCKOUT
from management.handler.base import ManagementHandler
from management.routes import ROUTES, Route
from tests.gateway_process import ADMIN_KEY, ADMIN_KEY_HASH, TOKEN, Answer, Gateway, sha256
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.provider import Call, completion, provider

ATTACKER = "https://attacker.test"
CREDENTIAL = planted("provider-key")
QUICK_SECONDS = 30.0
"""What is long for a machine that does something else besides, and short for what is quadratic in a million bytes."""
INFERENCE = ("/v1/chat/completions", "/v1/embeddings", "/v1/responses", "/api/v1/chat/completions")
OPEN = {"/healthz", "/readyz", "/oauth/callback"}
LIVE = "/api/v1/events"
"""What it tells is held against secrets where webhooks are: it tells the same (tests/integration/test_events_api.py)."""


def path_of(route: Route) -> str:
    """A path of ``route``; names of things that there are, where the gateways of these tests have them."""
    path = route.path.replace("{key}", "telemetry.log_level").replace("{name}", "real")
    if route.path == LIVE:
        # It goes on for as long as it is listened to; asked for what there is not, it ends.
        return f"{path}?events=nothing"
    return re.sub(r"\{[a-z_]+\}", "nothing", path)


MANAGEMENT = sorted({(route.method, path_of(route)) for route in ROUTES if route.permit.open_because is None})


@pytest.fixture(scope="module")
def shared(start_shared_gateway: StartGateway) -> Gateway:
    """One for all that leaves no trace. Nobody listens at its provider's address."""
    gateway = start_shared_gateway(
        f"""
        server: {{max_decompressed_bytes: 1048576}}
        providers:
          - {{name: echo, type: echo, models: [hello]}}
          - name: real
            type: openai-compatible
            base_url: http://127.0.0.1:9/v1?key={CREDENTIAL}
            headers: {{x-account: {CREDENTIAL}}}
            credentials: [{{name: main, api_key: {CREDENTIAL}}}]
        """
    )
    # Once verified, the admin key passes whatever strangers do at the same address.
    assert 200 == gateway.management("GET", "/api/v1/health").status
    gateway.expect_log("is locked out")
    return gateway


def raw(gateway: Gateway, request: bytes, source: str = "127.0.0.1") -> Answer:
    """The answer to a request as it is written here, from an address of this machine."""
    with socket.create_connection((gateway.host, gateway.port), timeout=60, source_address=(source, 0)) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection, method=request.partition(b" ")[0].decode("ascii"))
        response.begin()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())


async def ask(gateway: Gateway, *arguments: Any, **more: Any) -> Answer:
    """A request, while the test's own provider serves."""
    return await asyncio.to_thread(gateway.request, *arguments, **more)


# An empty list of keys, or a key that is none, that opens the proxy (LiteLLM without a master key; new-api; CLIProxyAPI's
# commented-out `api-keys`; Bifrost's management API as it is shipped)


@pytest.mark.parametrize(
    "access",
    ["tokens: []\nmanagement: {admin_key_hash: null}\n", "management: {admin_key_hash: '${env:NO_KEY:-}'}\n"],
    ids=["an empty list, no hash", "no list, an empty hash"],
)
def test_an_empty_list_of_keys_opens_nothing(start_gateway: StartGateway, access: str) -> None:
    gateway = start_gateway("providers: [{name: echo, type: echo, models: ['*']}]", access=access)
    for key in (None, "", " ", "null", "None", "undefined", "x", "sk-1234", "sluice-admin-", TOKEN):
        for path in INFERENCE:
            assert 401 == gateway.request("POST", path, {"model": "hello", "messages": []}, key=key).status
        for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/api/v1/health"), ("GET", "/")):
            assert gateway.request(method, path, key=key).status in (401, 429)
    # The tries with the keys above were tries with the admin key, though there is none.
    gateway.expect_log("is locked out")


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Basic YWRtaW46YWRtaW4="},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ."},
        {"authorization": "Bearer ' OR '1'='1"},
        {"authorization": "Bearer sk-sluice-' UNION SELECT 1; DROP TABLE tokens; --"},
        {"x-api-key": "'; SELECT pg_sleep(600); --"},
        {"x-goog-api-key": "%"},
        {"authorization": f"Bearer {sha256(TOKEN)}"},
        {"authorization": f"Bearer {ADMIN_KEY_HASH}"},
        {"cookie": "session=admin; token=admin"},
        {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"},
        {"x-forwarded-user": "admin", "x-remote-user": "admin", "x-sluice-token": "tester"},
    ],
    ids=lambda fields: next(iter(fields)) + " " + next(iter(fields.values()))[:16],
)
def test_no_made_up_credential_opens_anything(shared: Gateway, fields: dict[str, str]) -> None:
    for method, path in (("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/api/v1/health")):
        began = perf_counter()
        answer = shared.request(method, path, headers=fields, key=None)
        # Ten of these are tries enough with what could be the admin key.
        assert answer.status == 401 or (answer.status == 429 and path == "/api/v1/health")
        assert perf_counter() - began < QUICK_SECONDS
        # Neither what was sent, nor its hash, nor where it was looked for.
        key = fields.get("authorization", "Bearer ?").partition(" ")[2] or "?"
        text = answer.body.decode().replace("YOUR_KEY` (or", "")
        assert [] == [told for told in (key, sha256(key), "sqlite", "argon2") if told in text]


@pytest.mark.parametrize("query", ["key", "api_key", "token", "access_token", "authorization"])
def test_no_key_is_taken_from_a_query(shared: Gateway, query: str) -> None:
    for method, path, key in (("POST", "/v1/chat/completions", TOKEN), ("GET", "/api/v1/health", ADMIN_KEY)):
        assert 401 == shared.request(method, f"{path}?{query}={key}", key=None).status


# `Host` that chooses the auth route (LiteLLM, CVE-2026-49468; Starlette, CVE-2026-48710), and other ways to be one path to
# who asks for credentials and another to who serves (Portkey's /v1/proxy/*)


HOSTS = (
    "localhost:8080/#@attacker.test",
    "localhost/healthz?x=",
    "localhost/healthz#",
    "localhost\\healthz",
    "localhost/v1/",
    "/healthz",
    "localhost@attacker.test",
    "attacker.test",
    "localhost, attacker.test",
    "",
)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("key", [None, TOKEN])
def test_no_host_chooses_another_plane_or_spares_credentials(shared: Gateway, host: str, key: str | None) -> None:
    fields = f"Host: {host}\r\nContent-Length: 0\r\n" + ("" if key is None else f"Authorization: Bearer {key}\r\n")
    for method, path in MANAGEMENT:
        answer = raw(shared, f"{method} {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode())
        assert answer.status in (400, 401, 403, 421), (method, path, answer)


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-Host: localhost",
        "X-Original-URL: /healthz",
        "X-Rewrite-URL: /healthz",
        "X-Forwarded-Prefix: /healthz",
        "X-Forwarded-Uri: /healthz",
        "X-HTTP-Method-Override: GET",
        "Forwarded: for=127.0.0.1;host=localhost;proto=https",
    ],
)
def test_no_field_chooses_another_path_or_method(shared: Gateway, field: str) -> None:
    name, _, value = field.partition(": ")
    for method, path in MANAGEMENT:
        assert 401 == shared.request(method, path, headers={name: value}, key=None).status
    assert 401 == shared.request("POST", "/v1/chat/completions", {}, headers={name: value}, key=None).status


@pytest.mark.parametrize(
    "target",
    [
        "/healthz/../api/v1/health",
        "/healthz/..%2fapi/v1/health",
        "/healthz;/../api/v1/health",
        "//api/v1/health",
        "/api//v1/health",
        "/api/v1//health",
        "/api/v1/./health",
        "/api/v1/health/",
        "/API/V1/HEALTH",
        "/api%2fv1%2fhealth",
        "/%61pi/v1/health",
        "/api/v1/health%00",
        "/v1/../api/v1/health",
        "/v1/proxy/../../api/v1/health",
        "/v1beta/%2e%2e/api/v1/health",
        "/console/../api/v1/health",
        "http://localhost/api/v1/health",
        "http://localhost/healthz/../api/v1/health",
        "http://localhost@attacker.test/api/v1/health",
        "http://attacker.test/api/v1/health",
    ],
)
@pytest.mark.parametrize("key", [None, TOKEN])
def test_no_spelling_of_a_path_spares_credentials(shared: Gateway, target: str, key: str | None) -> None:
    field = "" if key is None else f"Authorization: Bearer {key}\r\n"
    for method in ("GET", "POST"):
        request = (
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{field}Connection: close\r\n\r\n"
        )
        answer = raw(shared, request.encode())
        # A token of the data plane may be told that nothing is there; nobody is served.
        assert answer.status in ((400, 401, 421) if key is None else (400, 403, 404, 405, 421)), answer
        assert b"uptime" not in answer.body


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/api/v1/health", "localhost", 200),
        ("http://127.0.0.1:80/api/v1/health", "localhost", 200),
        ("http://attacker.test/api/v1/health", "localhost", 421),
        ("http://localhost/api/v1/health", "attacker.test", 421),
    ],
)
def test_a_target_with_a_host_counts_like_host(shared: Gateway, target: str, host: str, status: int) -> None:
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n\r\n"
    assert status == raw(shared, request.encode()).status


# CORS `*` on management (Bifrost, CLIProxyAPI, and whoever leaves a framework's default)


@pytest.mark.parametrize("origin", [ATTACKER, "null", "http://localhost:3000"])
@pytest.mark.parametrize("key", [None, ADMIN_KEY], ids=["nobody", "admin"])
def test_no_page_of_another_site_may_read_or_change_anything(shared: Gateway, origin: str, key: str | None) -> None:
    for method, path in MANAGEMENT:
        ask_first = {"origin": origin, "access-control-request-method": method}
        for answer in (
            shared.request("OPTIONS", path, headers=ask_first, key=None),
            shared.request("OPTIONS", path, headers=ask_first, key=key),
            # What would change something is refused before it is looked at.
            shared.request(method, path, headers={"origin": origin}, key=key),
        ):
            assert [] == [name for name in answer.headers if name.startswith("access-control-")], (method, path)
        if method != "GET":
            assert (403, "request_error-foreign_origin") == (answer.status, answer.code), (method, path)


def test_a_page_of_another_site_cannot_use_the_proxy_either(shared: Gateway) -> None:
    ask_first = {"origin": ATTACKER, "access-control-request-method": "POST"}
    for answer in (
        shared.request("OPTIONS", "/v1/chat/completions", headers=ask_first, key=None),
        shared.request(
            "POST", "/v1/chat/completions", {"model": "hello", "messages": []}, headers={"origin": ATTACKER}
        ),
    ):
        assert [] == [name for name in answer.headers if name.startswith("access-control-")]


def test_over_https_browsers_are_told_to_stay_with_it(start_gateway: StartGateway) -> None:
    certificate = Path(__file__).parent / "localhost.pem"
    gateway = start_gateway(f"server: {{tls: {{cert: {certificate}, key: {certificate}}}}}", tls=True)
    told = [
        gateway.request("GET", "/healthz", headers={"host": host}).headers for host in ("a.example.com", "localhost")
    ]
    assert ["max-age=31536000", None] == [headers.get("strict-transport-security") for headers in told]


# Unlimited or exploding bodies


@pytest.mark.parametrize(("method", "path"), [each for each in MANAGEMENT if each[0] not in ("GET", "DELETE")])
def test_no_management_body_is_unlimited_or_explodes(shared: Gateway, method: str, path: str) -> None:
    bomb = gzip.compress(b"[" * 50_000_000, 1)
    cases: tuple[tuple[bytes, dict[str, str], tuple[int, ...]], ...] = (
        (b"", {"content-length": "99999999999"}, (413,)),
        (bomb[:1_000_000], {"content-encoding": "gzip"}, (400, 404, 412, 415, 428)),
        (b"[" * 1_000_000, {}, (400, 404, 412, 415, 428)),
        (b'{"a":' * 150_000, {}, (400, 404, 412, 415, 428)),
        (b'{"a": 1, "a": 2}', {}, (400, 404, 412, 415, 428)),
    )
    for body, fields, statuses in cases:
        began = perf_counter()
        lines = {"host": "localhost", "authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
        lines |= {"content-length": str(len(body)), "connection": "close"} | fields
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        answer = raw(shared, head.encode() + b"\r\n" + body)
        # An operation that takes no body looks at none and does its work.
        takes_none = (
            next(route for route in ROUTES if (route.method, path_of(route)) == (method, path)).operation.body is None
        )
        assert answer.status in statuses or (takes_none and answer.status != 500), (fields, answer)
        assert perf_counter() - began < QUICK_SECONDS


def test_no_inference_body_explodes(shared: Gateway) -> None:
    for body, fields, status in (
        (gzip.compress(b" " * 50_000_000), {"content-encoding": "gzip"}, 413),
        (gzip.compress(gzip.compress(b" " * 50_000_000)), {"content-encoding": "gzip, gzip"}, 415),
        (b"[" * 1_000_000, {}, 400),
        (b'{"model":' * 100_000, {}, 400),
    ):
        began = perf_counter()
        answer = shared.request("POST", "/v1/chat/completions", body, {"content-type": "application/json", **fields})
        assert status == answer.status, answer
        assert perf_counter() - began < QUICK_SECONDS


# `X-Forwarded-For` that evades the lock-out, or turns it against others (CLIProxyAPI #4013: requests without a key count)


PROXY = "127.0.0.2"


@pytest.fixture(scope="module")
def guarded(start_shared_gateway: StartGateway) -> Gateway:
    """One that believes a proxy at an address of its own, and that nobody has shown the admin key."""
    gateway = start_shared_gateway(f"server: {{trusted_proxies: [{PROXY}]}}")
    gateway.expect_log("is locked out for 300 s")
    return gateway


def tried(gateway: Gateway, by: str, *fields: str) -> int:
    """The answer to a wrong key: 401, or 429 to whom is locked out."""
    lines = "".join(f"{field}\r\n" for field in ("Authorization: Bearer wrong", *fields))
    head = f"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n"
    return raw(gateway, head.encode(), by).status


def forwarded(*lines: str) -> tuple[str, ...]:
    return tuple(f"X-Forwarded-For: {line}" for line in lines)


def lock_outs(gateway: Gateway, address: str) -> int:
    return len([each for each in gateway.log() if f"{address} is locked out" in str(each["event"])])


@pytest.mark.parametrize(
    ("stranger", "fields"),
    [
        ("127.0.1.1", lambda number: forwarded(f"203.0.113.{number}")),
        ("127.0.1.2", lambda number: forwarded(f"203.0.113.{number}", f"203.0.113.{number + 100}")),
        ("127.0.1.3", lambda number: forwarded(", ".join(f"10.{number}.0.{hop}" for hop in range(60)))),
        ("127.0.1.4", lambda number: forwarded(f"unknown, , %00, 999.1.1.{number}, [::1")),
        ("127.0.1.5", lambda number: forwarded("," * number)),
        ("127.0.1.6", lambda number: (f"X-Real-IP: 203.0.113.{number}", f"CF-Connecting-IP: 203.0.113.{number}")),
        ("127.0.1.7", lambda number: (f"Forwarded: for=203.0.113.{number}", f"True-Client-IP: 203.0.113.{number}")),
        ("127.0.1.8", lambda number: (f"X-Client-IP: 203.0.113.{number}", f"X-Originating-IP: 203.0.113.{number}")),
    ],
    ids=["a hop", "several lines", "many hops", "garbage", "empty hops", "x-real-ip", "forwarded", "x-client-ip"],
)
def test_a_stranger_neither_evades_the_lock_out_nor_turns_it(guarded: Gateway, stranger: str, fields: Any) -> None:
    for number in range(FAILURES_BEFORE_LOCKOUT):
        assert 401 == tried(guarded, stranger, *fields(number))
    assert [429, 429] == [tried(guarded, stranger, *each) for each in ((), fields(99))]
    assert 1 == lock_outs(guarded, stranger)
    # Whom it named is none the worse for it, nor is anybody behind the proxy.
    last_octet = stranger.rpartition(".")[2]
    assert 401 == tried(guarded, PROXY, *forwarded(f"198.18.1.{last_octet}"))
    assert [] == [address for address in ("203.0.113.", "10.") if lock_outs(guarded, address)]


@pytest.mark.parametrize(
    ("attacker", "lines", "others"),
    [
        ("198.51.100.1", lambda _: ("{victim}, {attacker}",), ("198.51.100.2",)),
        ("198.51.100.3", lambda _: ("{victim}", "{attacker}"), ()),
        ("198.51.100.4", lambda number: (f"{{victim}}, unknown, 10.1.0.{number}, {{attacker}}",), ("10.1.0.1",)),
        (
            "198.51.100.5",
            lambda number: (", ".join(["{victim}"] * 50 + [f"10.2.0.{number}", "{attacker}"]),),
            ("10.2.0.1",),
        ),
        ("198.51.100.6", lambda number: (f"{{victim}}, {{attacker}}:{4000 + number}",), ()),
        ("198.51.100.7", lambda number: (f"{{victim}}, {'' if number % 2 else '::ffff:'}{{attacker}}",), ()),
        (
            "198.51.100.8",
            lambda number: (f"{{victim}}, {{attacker}}, {PROXY}{', ' + PROXY if number % 2 else ''}",),
            (),
        ),
        ("2001:db8:1:2::", lambda number: (f"{{victim}}, {{attacker}}{number:x}",), ("2001:db8:1:3::1",)),
        ("2001:db8:2:2::", lambda number: (f"{{victim}}, [{{attacker}}{number:x}:1]:99",), ("2001:db8:2:3::1",)),
    ],
    ids=["a claim", "lines", "garbage", "many hops", "ports", "spellings", "proxies", "one IPv6 network", "brackets"],
)
def test_behind_a_proxy_the_lock_out_is_the_attackers_alone(
    guarded: Gateway, attacker: str, lines: Any, others: tuple[str, ...]
) -> None:
    victim = f"192.0.2.{sum(attacker.encode()) % 256}"

    def fields(number: int) -> tuple[str, ...]:
        return forwarded(*(line.format(victim=victim, attacker=attacker) for line in lines(number)))

    for number in range(FAILURES_BEFORE_LOCKOUT):
        assert 401 == tried(guarded, PROXY, *fields(number))
    assert [429, 429] == [tried(guarded, PROXY, *fields(number)) for number in (1, 998)]
    for other in (victim, *others):
        assert 401 == tried(guarded, PROXY, *forwarded(other))
    assert 1 == lock_outs(guarded, f"{attacker}/64" if ":" in attacker else attacker)


def test_requests_without_the_admin_key_lock_nobody_out(shared: Gateway) -> None:
    for _ in range(2 * FAILURES_BEFORE_LOCKOUT):
        assert 401 == shared.request("GET", "/api/v1/health", key=None).status
        assert 401 == shared.request("GET", "/api/v1/health", key="sk-sluice-mistyped").status
        assert 401 == shared.request("POST", "/v1/chat/completions", {}, key="wrong").status
    assert 200 == shared.management("GET", "/api/v1/health").status


# Keys and hashes in answers (mem0, BettaFish, openkiwi: GET /config; LiteLLM: the hash in a 401, /model/info, /health)


@pytest.mark.parametrize(
    "path", sorted({path for method, path in MANAGEMENT if method == "GET" and not path.startswith(LIVE)})
)
def test_no_answer_holds_a_key_or_a_hash(shared: Gateway, path: str) -> None:
    answer = shared.management("GET", path)
    assert answer.status in (200, 404), answer
    # Planted secrets are looked for in every answer (Gateway.request); what is stored of them counts, too.
    text = answer.body.decode("utf-8", "replace")
    for stored in (sha256(TOKEN), sha256(TOKEN).upper(), ADMIN_KEY_HASH, "$argon2id$"):
        assert stored not in text


async def test_neither_the_callers_key_goes_to_the_provider_nor_the_providers_to_the_caller(
    start_gateway: StartGateway,
) -> None:
    """LiteLLM #32202 (the proxy's own key sent upstream), Bifrost #3954 (the provider's key in an answer's fields)."""

    async def reflects(call: Call) -> None:
        await call.body()
        sent = call.headers["authorization"]
        key = sent.removeprefix("Bearer ")
        fields = {
            "authorization": sent,
            "x-api-key": key,
            "x-goog-api-key": key,
            "api-key": key,
            "set-cookie": f"k={key}",
        }
        await call.answer(completion("hello"), headers={**fields, "www-authenticate": sent})

    async with provider(reflects) as upstream:
        credentials = f"credentials: [{{name: main, api_key: {CREDENTIAL}}}], models: [m]"
        gateway = start_gateway(f"providers: [{upstream.entry(extra=credentials)}]")
        fields = {"x-api-key": TOKEN, "x-goog-api-key": TOKEN, "api-key": TOKEN, "cookie": f"k={TOKEN}"}
        fields |= {"proxy-authorization": f"Bearer {TOKEN}", "x-forwarded-authorization": TOKEN}
        # What comes back is searched for planted secrets.
        answer = await ask(gateway, "POST", "/v1/chat/completions", {"model": "m", "messages": []}, fields)
        assert 200 == answer.status
        [call] = upstream.calls
        assert f"Bearer {CREDENTIAL}" == call.headers["authorization"]
        assert TOKEN not in repr(call.headers) + call.path + call.content.decode()


# Requests and stored credentials that go where a caller says (LiteLLM's `api_base`; Portkey's `x-portkey-custom-host`,
# CVE-2025-66405; one-api's image fetcher; new-api, CVE-2025-59146 and CVE-2026-42339; 9router's test of a connection)


async def recorded(call: Call) -> None:
    await call.body()
    await call.answer(completion("caught"))


async def test_no_request_says_where_it_goes_or_what_is_fetched(start_gateway: StartGateway) -> None:
    async with provider(recorded) as trap, provider(recorded) as upstream:
        credentials = f"credentials: [{{name: main, api_key: {CREDENTIAL}}}], models: [m]"
        gateway = start_gateway(f"providers: [{upstream.entry(extra=credentials)}]")
        url = f"http://127.0.0.1:{trap.port}/v1"
        where = {"api_base": url, "base_url": url, "api_key": "x", "custom_llm_provider": "x", "proxy_url": url}
        image = {"type": "image_url", "image_url": {"url": f"{url}/image.png"}}
        file = {"type": "file", "file": {"file_url": f"{url}/file.pdf"}}
        body = {"model": "m", "messages": [{"role": "user", "content": [image, file]}], **where}
        headers = {
            "x-portkey-custom-host": url,
            "x-portkey-provider": "openai",
            "x-litellm-api-base": url,
            "x-forwarded-host": f"127.0.0.1:{trap.port}",
            "x-sluice-provider": url,
            "x-pass-authorization": "x",
        }
        assert 200 == (await ask(gateway, "POST", "/v1/chat/completions", body, headers)).status
        target = f"http://127.0.0.1:{trap.port}/v1/chat/completions"
        request = (
            f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{trap.port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        assert 401 == (await asyncio.to_thread(raw, gateway, request.encode())).status
        connect = f"CONNECT 127.0.0.1:{trap.port} HTTP/1.1\r\nHost: 127.0.0.1:{trap.port}\r\n\r\n"
        assert 400 == (await asyncio.to_thread(raw, gateway, connect.encode())).status
        assert (1, []) == (len(upstream.calls), trap.calls)


async def test_no_redirect_of_a_provider_is_followed(start_gateway: StartGateway) -> None:
    statuses = (301, 302, 303, 307, 308)
    async with provider(recorded) as trap:

        async def redirects(call: Call) -> None:
            await call.body()
            location = f"http://127.0.0.1:{trap.port}/v1/chat/completions"
            await call.answer(b"", statuses[call.number % 5], {"location": location})

        async with provider(redirects) as upstream:
            entry = upstream.entry(extra=f"credentials: [{{name: main, api_key: {CREDENTIAL}}}], models: [m]")
            gateway = start_gateway(f"providers: [{entry}]")
            for _ in statuses:
                await ask(gateway, "POST", "/v1/chat/completions", {"model": "m", "messages": []})
            assert ([], True) == (trap.calls, len(upstream.calls) >= 5)


async def test_a_provider_that_may_not_be_private_is_not_connected_to(start_gateway: StartGateway) -> None:
    async with provider(recorded) as trap:
        names = {
            "v4": "127.0.0.1",
            "name": "localhost",
            "zero": "0.0.0.0",
            "number": "2130706433",
            "mapped": "[::ffff:7f00:1]",
        }
        entries = ", ".join(
            f'{{name: {name}, type: openai-compatible, base_url: "http://{host}:{trap.port}/v1", allow_private: false, '
            f"credentials: [{{name: main, api_key: {CREDENTIAL}}}]}}"
            for name, host in names.items()
        )
        gateway = start_gateway(f"providers: [{entries}]")
        for name in names:
            answer = await ask(gateway, "POST", "/v1/chat/completions", {"model": f"{name}/m", "messages": []})
            assert (502, "upstream_address_refused") == (answer.status, answer.code), name
            assert "allow_private" in answer.json()["error"]["message"]
        assert [] == trap.calls


def etag(gateway: Gateway) -> dict[str, str]:
    return {"if-match": gateway.management("GET", "/api/v1/config/document").headers["etag"]}


async def test_a_stored_credential_is_never_sent_to_a_callers_url(start_gateway: StartGateway) -> None:
    async with provider(recorded) as trap, provider(recorded) as upstream:
        entry = upstream.entry(extra=f"credentials: [{{name: main, api_key: {CREDENTIAL}}}], models: [m]")
        gateway = start_gateway(f"providers: [{entry}]")
        gateway.expect_log("made a master key")
        url = f"http://127.0.0.1:{trap.port}/v1"
        item, test, whole = "/api/v1/providers/real", "/api/v1/providers/real/test", "/api/v1/config"
        kept = {"type": "openai-compatible", "credentials": [{"name": "main", "api_key": {"action": "keep"}}]}
        proxy = {"proxy_url": {"action": "set", "value": url[:-3]}}
        # The probe takes no address; an entry keeps no secret while its destination changes, whichever way it is put.
        invalid, required = "request_error-invalid_body", "provider_error-secret_required"
        file_only, document = "config_error-file_only", "/api/v1/config/document"
        tries: list[tuple[str, str, object, int, str]] = [
            ("POST", test, {"base_url": url}, 400, invalid),
            ("POST", test, {"model": "m", "proxy_url": url}, 400, invalid),
            (
                "POST",
                "/api/v1/models/refresh",
                {"source": "provider", "provider": url},
                404,
                "provider_error-not_found",
            ),
            ("PATCH", item, {"base_url": url}, 422, required),
            ("PATCH", item, {"base_url": url, "credentials": kept["credentials"]}, 422, required),
            ("PATCH", item, proxy, 422, required),
            ("PUT", item, {"base_url": url, **kept}, 422, required),
            ("PATCH", whole, {"providers": [{"name": "real", "base_url": url, **kept}]}, 422, required),
            ("PATCH", whole, {"transport": proxy}, 422, required),
            ("PATCH", whole, {"server": {"allow_private_targets": True}}, 422, file_only),
            ("PATCH", whole, {"management": {"allowed_references": ["*"]}}, 422, file_only),
        ]
        shown = (await ask(gateway, "GET", document, key=ADMIN_KEY)).body.decode()
        moved = shown.replace(f":{upstream.port}/", f":{trap.port}/")
        assert shown != moved
        tries += [
            ("PUT", document, moved.encode(), 422, required),
            # By another name it keeps nothing either.
            ("PUT", document, moved.replace("name: real", "name: other").encode(), 422, "config_error-invalid"),
        ]
        for method, path, body, status, code in tries:
            fields = await asyncio.to_thread(etag, gateway)
            if path == document:
                fields["content-type"] = "application/yaml"
            answer = await ask(gateway, method, path, body, fields, key=ADMIN_KEY)
            assert (status, code) == (answer.status, answer.code), (method, path, body, answer)
        for path in (test, f"{test}?base_url={url}"):
            await ask(gateway, "POST", path, {"model": "m"}, {"x-forwarded-host": url}, key=ADMIN_KEY)
        assert {f"Bearer {CREDENTIAL}"} == {call.headers.get("authorization") for call in upstream.calls}
        assert [] == trap.calls


async def test_a_url_that_the_api_sets_leads_into_no_private_network(start_gateway: StartGateway) -> None:
    async with provider(recorded) as trap:
        gateway = start_gateway("providers: []")
        url = f"http://127.0.0.1:{trap.port}/v1"
        entry = {"name": "new", "type": "openai-compatible", "base_url": url}
        made = await ask(gateway, "POST", "/api/v1/providers", entry, key=ADMIN_KEY)
        assert 201 == made.status, made
        shown = await ask(gateway, "GET", "/api/v1/providers/new", key=ADMIN_KEY)
        assert "allow_private: false" in gateway.config.read_text()
        assert b'"allow_private":false' in shown.body.replace(b" ", b"")
        probe = await ask(gateway, "POST", "/api/v1/providers/new/test", key=ADMIN_KEY)
        assert (200, "upstream_address_refused") == (probe.status, probe.json()["error"]["code"])
        fields = await asyncio.to_thread(etag, gateway)
        raised = await ask(gateway, "PATCH", "/api/v1/providers/new", {"allow_private": True}, fields, key=ADMIN_KEY)
        assert (422, "config_error-file_only") == (raised.status, raised.code)
        metadata = {**entry, "name": "metadata", "base_url": "http://169.254.169.254/latest", "allow_private": True}
        refused = await ask(gateway, "POST", "/api/v1/providers", metadata, key=ADMIN_KEY)
        assert (422, "config_error-file_only") == (refused.status, refused.code)
        assert [] == trap.calls


# A token that raises itself (LiteLLM: privilege escalation by /user/update, /key/generate and /config/update)


def test_no_token_opens_what_changes_something(shared: Gateway) -> None:
    body = {"role": "admin", "scope": "scope_token_admin"}
    for route in ROUTES:
        if route.permit.role is not None:
            answer = shared.request(route.method, path_of(route), None if route.method == "GET" else body)
            assert 403 == answer.status, (route.method, route.path, answer)
        else:
            assert "GET" == route.method


# A handler that forgot whom it serves


def test_a_handler_without_a_role_is_no_program() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.post does not say who may call it"):

        class Forgetful(ManagementHandler):
            async def post(self) -> None: ...

    assert all(route.permit.open_because is None for route in ROUTES if route.path.startswith("/api/"))
    assert {route.path for route in ROUTES if route.permit.open_because is not None} <= OPEN | {
        path for route in ROUTES if (path := route.path).startswith("/console/")
    }


# What a stranger learns


def test_a_stranger_learns_nothing_of_models_versions_or_configuration(shared: Gateway) -> None:
    """LiteLLM's /model/info, /health and Swagger pages without a key; LightRAG's /health."""
    texts = []
    for path in (
        "/",
        "/docs",
        "/openapi.json",
        "/model/info",
        "/v1/models",
        "/api/v1/openapi.json",
        "/api/v1/health",
        "/x",
    ):
        answer = shared.request("GET", path, key=None)
        assert 401 == answer.status, path
        texts.append(json.dumps([answer.body.decode(), *answer.headers.values()]))
    texts += [shared.request("GET", path, key=None).body.decode() for path in OPEN]
    for told in ("openai-compatible", "127.0.0.1", "echo", "tornado", "python", "sqlite", str(shared.config.parent)):
        assert not [text for text in texts if told in text.lower()]
