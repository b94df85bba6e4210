"""What ``./sluice doctor`` tells of providers, of Vault, and of `server.public_url`."""

import asyncio
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.load import load
from config.secret_stores import SecretStores
from tests.authority import Authority
from tests.connect_proxy import connect_proxy
from tests.doctor import ECHO, KEYS, MASTER_KEY, doctor, no_tls, tls_server, vendor, write
from tests.integration.conftest import StartGateway
from tests.planted import planted
from tests.ports import closed_port
from tests.provider import Call, entry, provider
from tests.vault_stand_in import VaultStandIn, vault_stand_in


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody is at home."""
    with closed_port() as port:
        yield port


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as running:
        yield running


async def test_ways_to_providers_that_end_are_told_with_where_and_why(tmp_path: Path, nobody: int) -> None:
    authority, stranger = Authority(), Authority("Somebody else")
    (tmp_path / "authority.pem").write_bytes(authority.pem)

    async def page(call: Call) -> None:
        status, kind = {"/html/models": (200, "text/html"), "/moved/models": (308, "")}.get(call.path, (404, ""))
        await call.answer(b"<html>", status, {"content-type": kind, "location": f"/{KEYS['literal']}"})

    async with (
        provider(page) as plain,
        no_tls() as without_tls,
        tls_server(authority.issue("other.example"), tmp_path) as misnamed,
        tls_server(stranger.issue("localhost"), tmp_path) as untrusted,
        tls_server(authority.issue("localhost", begins_days=2), tmp_path) as early,
        tls_server(authority.issue("localhost", ends_days=3), tmp_path, KEYS["env"]) as soon,
        connect_proxy(user_password=f"user:{KEYS['literal']}") as proxy,
    ):
        entries = (
            ("misnamed", f"https://localhost:{misnamed}/v1", "tls: {ca: authority.pem}"),
            ("untrusted", f"https://localhost:{untrusted}/v1", "tls: {ca: authority.pem}"),
            ("early", f"https://localhost:{early}/v1", "tls: {ca: authority.pem}"),
            ("soon", f"https://localhost:{soon}/v1", "tls: {ca: authority.pem}"),
            ("plain", f"https://127.0.0.1:{without_tls}/v1", ""),
            ("nobody", f"http://127.0.0.1:{nobody}/v1", ""),
            ("html", f"http://127.0.0.1:{plain.port}/html", ""),
            ("moved", f"http://127.0.0.1:{plain.port}/moved", ""),
            ("no-list", f"http://127.0.0.1:{plain.port}", ""),
            ("no-proxy", f"http://127.0.0.1:{plain.port}", f'proxy_url: "http://127.0.0.1:{nobody}"'),
            ("other-user", f"http://127.0.0.1:{plain.port}", f'proxy_url: "http://127.0.0.1:{proxy.port}"'),
            (
                "through-proxy",
                f"https://localhost:{soon}/v1",
                f'tls: {{ca: authority.pem}}, proxy_url: "http://user:{KEYS["literal"]}@127.0.0.1:{proxy.port}"',
            ),
        )
        lines = "".join(
            f'  - {{name: {name}, type: openai-compatible, base_url: "{url}", '
            f'credentials: [{{name: main, api_key: "${{env:KEY}}"}}]{extra and ", "}{extra}}}\n'
            for name, url, extra in entries
        )
        path = write(tmp_path, f"server: {{listen: 127.0.0.1:0, max_connections: 9}}\nproviders:\n{lines}")
        report = await doctor(path, KEY=KEYS["env"])
    places = {name: f"providers[{number}]" for number, (name, _, _) in enumerate(entries)}
    for name, key, words in (
        ("misnamed", "base_url", "the provider `misnamed` at localhost is for other names"),
        (
            "untrusted",
            "base_url",
            r"an authority that is not trusted here name the authority's PEM file in `providers\[1\]",
        ),
        ("early", "base_url", "`early` at localhost is not valid yet .*`date -u`"),
        ("plain", "base_url", "`plain` speaks no TLS .*http://"),
        ("nobody", "base_url", "`nobody` refuses connections .*start it"),
        ("no-proxy", "proxy_url", "the proxy on the way to the provider `no-proxy` refuses connections"),
        ("other-user", "proxy_url", "other credentials.* `proxy_url`"),
    ):
        assert f"{places[name]}.{key}" == report.fault(words).where
    assert 7 == len(report.faults), report.faults
    for name, key, words in (
        ("soon", "base_url", r"localhost expires on 20.*renew"),
        ("html", "credentials[0].api_key", "`html` answers with something that is no JSON .*/v1"),
        ("moved", "credentials[0].api_key", "`moved` sends requests elsewhere"),
        ("no-list", "credentials[0].api_key", "`no-list` has no list of models"),
    ):
        found = [each for each in report.warnings if re.search(words, f"{each.what} {each.mend}")]
        assert f"{places[name]}.{key}" in [each.where for each in found]
    assert "the provider `through-proxy` takes the credential `main`" in [each.what for each in report.fine]
    assert any(each.startswith(b"CONNECT localhost") for each in proxy.heads)
    for secret in KEYS.values():
        assert secret not in report.told


def vault_document(vault: VaultStandIn, auth: str, api_key: str = "${vault:secret/a#key}") -> str:
    return textwrap.dedent(f"""\
        server: {{listen: 127.0.0.1:0, max_connections: 9}}
        secrets: {{vault: {{address: {vault.address}, auth: {{{auth}}}, timeout_seconds: 30}}}}
        providers:
          - {{name: echo, type: echo}}
          - {{name: a, type: openai-compatible, base_url: "http://127.0.0.1:1/v1",
              credentials: [{{name: main, api_key: "{api_key}"}}]}}
        """)


async def test_a_sealed_vault(tmp_path: Path, vault: VaultStandIn) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.seal()
    report = await doctor(path, TOKEN_OF_VAULT=vault.root_token)
    assert "secrets.vault.address" == report.fault("^Vault is sealed .*vault operator unseal").where
    assert "providers[1].credentials[0].api_key" == report.fault("secret/a#key.*sealed").where


@pytest.mark.parametrize(
    ("role", "words"), [("disaster-recovery", "secondary for disaster recovery"), ("no-leader", "knows no active node")]
)
async def test_a_vault_that_cannot_serve(tmp_path: Path, vault: VaultStandIn, role: str, words: str) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.become(role)
    report = await doctor(path, TOKEN_OF_VAULT=vault.root_token)
    assert "secrets.vault.address" == report.fault(f"^Vault is a .*{words}").where


async def test_a_vault_that_is_not_there(tmp_path: Path, vault: VaultStandIn) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.stop()
    report = await doctor(path, TOKEN_OF_VAULT="hvs.nothing")
    assert "secrets.vault.address" == report.fault("^Vault refuses connections").where


async def test_values_that_are_kept_while_vault_is_away_are_told(tmp_path: Path, vault: VaultStandIn) -> None:
    vault.put("secret/a", key=KEYS["vault"])
    text = vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"').replace("secrets: {", "secrets: {persist: true, ")
    path = write(tmp_path, text)
    # As a gateway does, which keeps them; whoever looks keeps nothing.
    stores = SecretStores()
    environment = {"SLUICE_MASTER_KEY": MASTER_KEY, "TOKEN_OF_VAULT": vault.root_token}
    await asyncio.to_thread(load, path, environment, stores)
    await asyncio.to_thread(stores.close)
    report = await doctor(path, TOKEN_OF_VAULT=vault.root_token)
    assert [] == report.warnings
    vault.stop()
    report = await doctor(path, TOKEN_OF_VAULT=vault.root_token)
    assert "secrets.vault.address" == report.fault("^Vault refuses connections").where
    found = report.warning(r"`\$\{vault:secret/a#key\}` could not be read again \(unreachable\)")
    assert "providers[1].credentials[0].api_key" == found.where
    assert KEYS["vault"] not in report.told


async def test_a_token_that_vault_does_not_know(tmp_path: Path, vault: VaultStandIn) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    report = await doctor(path, TOKEN_OF_VAULT=KEYS["vault"])
    assert "secrets.vault.auth.token" == report.fault("^Vault refuses the token").where
    assert KEYS["vault"] not in report.told


async def test_a_token_that_will_end(tmp_path: Path, vault: VaultStandIn) -> None:
    vault.put("secret/a", key=KEYS["vault"])
    token = vault.token(vault.policy({"secret/data/a": ["read"]}), ttl=7200 * 3, renewable=False)
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.become("standby")
    report = await doctor(path, TOKEN_OF_VAULT=token)
    found = report.warning("ends in 6 hours, and cannot be renewed .*approle")
    assert "secrets.vault.auth.token" == found.where
    assert "Vault is a standby, which passes requests on to the active node" in [each.what for each in report.fine]


async def test_a_sign_in_that_vault_refuses_shows_where_no_reference_needs_it(
    tmp_path: Path, vault: VaultStandIn
) -> None:
    auth = f'method: approle, role_id: {vault.approle().role_id}, secret_id: "${{env:SECRET_ID}}"'
    path = write(tmp_path, vault_document(vault, auth, "${env:SECRET_ID}"))
    report = await doctor(path, SECRET_ID=KEYS["vault"])
    assert "secrets.vault.auth" == report.fault("refuses the sign-in").where
    assert KEYS["vault"] not in report.told


async def test_a_login_is_used_once_and_given_back(tmp_path: Path, vault: VaultStandIn) -> None:
    vault.put("secret/a", key=KEYS["vault"])
    login = vault.approle(vault.policy({"secret/data/a": ["read"]}), uses=1)
    auth = f'method: approle, role_id: {login.role_id}, secret_id: "${{env:SECRET_ID}}"'
    # Loaded a second time, without what is at fault.
    path = write(tmp_path, vault_document(vault, auth) + "nonsense: true\n")
    report = await doctor(path, SECRET_ID=login.secret_id)
    assert ["nonsense", "providers[1].base_url"] == [each.where for each in report.faults]
    assert [] == vault.tokens()


async def test_who_might_be_somebody_else_is_sent_no_credential(tmp_path: Path, vault: VaultStandIn) -> None:
    document = f"""\
        server: {{listen: 127.0.0.1:0, max_connections: 9}}
        secrets: {{vault: {{address: {vault.address}, auth: {{token: "${{env:NOT_SET}}"}}}}}}
        providers:
          - {{name: typo, type: openai, base_ulr: "http://127.0.0.1:1/v1", credentials: [{{name: a, api_key: "${{env:KEY}}"}}]}}
          - {{name: unset, type: openai, base_url: "${{env:NOT_SET}}", credentials: [{{name: a, api_key: "${{env:KEY}}"}}]}}
          - name: proxied
            type: openai-compatible
            base_url: http://127.0.0.1:1/v1
            proxy_url: "${{env:NOT_SET}}"
            credentials: [{{name: a, api_key: "${{vault:secret/a#key}}"}}]
        """
    report = await doctor(write(tmp_path, document), KEY=KEYS["env"])
    assert [
        "secrets.vault.auth.token",
        "providers[0].base_ulr",
        "providers[1].base_url",
        "providers[2].proxy_url",
        "providers[2].credentials[0].api_key",
    ] == [each.where for each in report.faults]
    told = [each.what for each in report.fine]
    for name in ("typo", "unset", "proxied"):
        assert f"the provider `{name}` is not asked before what is told above is mended" in told
    assert ["sys/health"] == [each.path for each in vault.requests]


async def test_offline_asks_nobody(tmp_path: Path, vault: VaultStandIn) -> None:
    async with provider(vendor(0)) as asked:
        text = vault_document(vault, 'token: "${env:NOT_SET}"').replace("127.0.0.1:1/", f"127.0.0.1:{asked.port}/")
        path = write(tmp_path, text + "  - {name: b, type: openai-compatible, base_url: nowhere}\n")
        report = await doctor(path, "--offline")
        assert ["providers[2].base_url"] == [each.where for each in report.faults]
        assert [] == vault.requests
        assert [] == asked.calls


ROUTE_TO_ALL = "routes: [{name: all, match: {model: '*'}, targets: [echo/x], fallbacks: [[real/gpt]]}]\n"


async def test_what_is_needed_to_try_a_stream_is_told(tmp_path: Path, start_gateway: StartGateway, nobody: int) -> None:
    running = await asyncio.to_thread(start_gateway, ECHO)
    head = f'server: {{listen: 127.0.0.1:0, max_connections: 9, public_url: "{running.url}"}}\n'
    echo = "providers: [{name: echo, type: echo}]\n"
    cases = (
        ("", (), "add a provider that answers by itself"),
        (echo, (), "give a token by --token-env NAME"),
        (echo, ("--token-env", "NOT_SET"), "variable NOT_SET, which is not set"),
        (echo, ("--token-env", "STRANGE_TOKEN"), "a token that the document knows"),
        (
            f"providers: [{{name: echo, type: echo}}, {entry(nobody)}]\n{ROUTE_TO_ALL}",
            ("--token-env", "DOCTOR_TOKEN"),
            "a route takes `echo/doctor` elsewhere",
        ),
        (
            "providers: [{name: echo, type: echo, options: {interval_seconds: 0}}]\n",
            ("--token-env", "DOCTOR_TOKEN"),
            "interval_seconds: 0.02",
        ),
    )
    for text, options, mend in cases:
        path = write(tmp_path, head + text)
        # Of the provider that costs something nobody is at home.
        report = await doctor(path, *options, status=1 if ROUTE_TO_ALL in text else 0, STRANGE_TOKEN=planted("strange"))
        assert mend in report.warning("event by event was not looked at").mend
    assert [] == running.access_log() or all(line["path"] == "/healthz" for line in running.access_log())


async def test_a_public_url_that_leads_nowhere(tmp_path: Path, start_gateway: StartGateway) -> None:
    async def behave(call: Call) -> None:
        await call.answer(b"", 502)

    async with provider(behave) as wrong:
        head = f'listen: 127.0.0.1:0, max_connections: 9, public_url: "http://127.0.0.1:{wrong.port}"'
        path = write(tmp_path, f"server: {{{head}}}\n{ECHO}\n")
        report = await doctor(path, status=0)
        assert "start the gateway" in report.warning("/healthz answers with status 502").mend
        running = await asyncio.to_thread(start_gateway, ECHO)
        path.write_text(path.read_text().replace("127.0.0.1:0", f"127.0.0.1:{running.port}"))
        report = await doctor(path)
        assert "server.public_url" == report.fault("/healthz answers with status 502").where
