"""``./sluice doctor`` as a person runs it, on documents whose servers are real."""

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from time import time
from typing import Any

import pytest

from config.master_key import parse_keys
from config.sealing import CONFIG, KeyRing
from core.tasks import Tasks
from tests.certificates import Authority
from tests.connect_proxy import connect_proxy
from tests.gateway_process import TOKEN, document, run_cli
from tests.integration.conftest import StartGateway
from tests.planted import place_of_secrets, planted, planted_key
from tests.provider import Call, Provider, free_port, provider
from tests.vault_stand_in import VaultStandIn, vault_stand_in

ECHO = "providers: [{name: echo, type: echo}]"
MASTER_KEY = planted_key("master").hex()
KEYS = {name: planted(name) for name in ("refused", "file-key", "sealed", "denied", "literal", "env", "vault")}
_SEALER = KeyRing(parse_keys(MASTER_KEY))


@dataclass(frozen=True)
class Found:
    """One finding."""

    where: str
    """A key of the document, or a file."""
    what: str
    mend: str


@dataclass(frozen=True)
class Told:
    """What the doctor told."""

    status: int
    told: str
    faults: list[Found]
    warnings: list[Found]
    fine: list[Found]

    def fault(self, words: str) -> Found:
        """The one fault that is told in these words."""
        return self._only(self.faults, words)

    def warning(self, words: str) -> Found:
        """The one warning."""
        return self._only(self.warnings, words)

    @staticmethod
    def _only(of: list[Found], words: str) -> Found:
        found = [each for each in of if re.search(words, f"{each.what} {each.mend}")]
        assert 1 == len(found), f"{words!r} is in {len(found)} of {of}"
        return found[0]


async def printed(config: Path, *arguments: str, status: int = 1, **environment: str) -> str:
    """What it prints, and nothing else."""
    variables = {"SLUICE_MASTER_KEY": MASTER_KEY, "DOCTOR_TOKEN": TOKEN, **environment}
    command = ("doctor", "-c", config.name, *arguments)
    ended, out, err = await asyncio.to_thread(run_cli, *command, cwd=config.parent, extra=variables)
    assert not err, err
    assert status == ended, out
    return out


async def doctor(config: Path, *arguments: str, status: int = 1, **environment: str) -> Told:
    """Its report, by what it tells a program."""
    out = await printed(config, "--json", *arguments, status=status, **environment)
    told: dict[str, list[Found]] = {"fault": [], "warning": [], "fine": []}
    for each in json.loads(out)["findings"]:
        where = each["where"]
        assert each["severity"] != "fault" or each["mend"], each
        told[each["severity"]].append(Found(where["path"] or where["file"], each["what"], each["mend"]))
    return Told(status, out, told["fault"], told["warning"], told["fine"])


def write(place: Path, text: str) -> Path:
    path = place_of_secrets(place / "config.yaml")
    path.write_text(document(text))
    path.chmod(0o600)
    return path


def sealed(text: str) -> str:
    ring = _SEALER
    return f"${{sealed:{ring.seal(text.encode(), CONFIG)}}}"


def flipped(reference: str) -> str:
    """The same with one letter of its text changed."""
    place = len(reference) - 12
    return reference[:place] + ("A" if reference[place] != "A" else "B") + reference[place + 1 :]


def vendor(ahead_seconds: float, *keys: str) -> Any:
    """A provider that knows ``keys``, whose clock goes wrong."""

    async def behave(call: Call) -> None:
        headers = {"date": formatdate(time() + ahead_seconds, usegmt=True)}
        if call.headers.get("authorization") not in [f"Bearer {key}" for key in keys]:
            await call.answer({"error": {"message": f"bad key {call.headers['authorization']}"}}, 401, headers)
            return
        await call.answer({"object": "list", "data": []}, 200, headers)

    return behave


@asynccontextmanager
async def tls_server(pem: bytes, place: Path, *keys: str) -> AsyncIterator[int]:
    """The port of a provider that speaks TLS with the certificate and key ``pem``, and knows ``keys``."""
    file = place / "server.pem"
    file.write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    running = Provider(vendor(0, *keys))
    tasks = Tasks()
    listener = await asyncio.start_server(
        lambda reader, writer: tasks.spawn(running.serve(reader, writer), "connection"), "127.0.0.1", 0, ssl=context
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()


@asynccontextmanager
async def before(port: int, *, holds_back: bool) -> AsyncIterator[int]:
    """The port of a proxy before the server on ``port``; one that holds back passes on whole answers alone."""
    tasks = Tasks()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            to.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            length = re.search(rb"(?i)content-length: (\d+)", head)
            to.write(await reader.readexactly(int(length[1])) if length else b"")
            held = b""
            while piece := await there.read(65536):
                held += piece
                if not holds_back:
                    writer.write(piece)
            if holds_back:
                writer.write(held)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            to.close()

    listener = await asyncio.start_server(
        lambda reader, writer: tasks.spawn(pass_on(reader, writer), "proxied"), "127.0.0.1", 0
    )
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await tasks.cancel()
        await listener.wait_closed()


@contextmanager
def taken_port() -> Iterator[int]:
    """A port where somebody else listens, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as running:
        yield running


async def test_ten_planted_faults_are_named_each_with_its_mend(
    tmp_path: Path, start_gateway: StartGateway, vault: VaultStandIn
) -> None:
    running = await asyncio.to_thread(start_gateway, ECHO)
    vault.put("secret/team/denied", api_key=KEYS["denied"])
    login = vault.approle(vault.policy({"secret/data/other/*": ["read"]}))
    key_file = place_of_secrets(tmp_path / "provider.key")
    key_file.write_text(KEYS["file-key"])
    key_file.chmod(0o644)
    secret_id = place_of_secrets(tmp_path / "secret-id")
    secret_id.write_text(login.secret_id)
    secret_id.chmod(0o600)
    authority = Authority()
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    async with (
        provider(vendor(300)) as refusing,
        tls_server(authority.issue("127.0.0.1", begins_days=-40, ends_days=-2), tmp_path) as expired,
        before(running.port, holds_back=True) as proxy,
    ):
        with taken_port() as taken:
            path = write(
                tmp_path,
                f"""\
                server: {{listen: "127.0.0.1:{taken}", public_url: "http://127.0.0.1:{proxy}", max_connections: 100}}
                secrets:
                  vault:
                    address: {vault.address}
                    auth: {{method: approle, role_id: {login.role_id}, secret_id: "${{file:secret-id}}"}}
                providers:
                  - {{name: echo, type: echo}}
                  - name: refusing
                    type: openai-compatible
                    base_url: http://127.0.0.1:{refusing.port}/v1
                    credentials:
                      - {{name: bad, api_key: "${{env:REFUSED_KEY}}"}}
                      - {{name: from-file, api_key: "${{file:provider.key}}"}}
                      - {{name: unset, api_key: "${{env:NOT_SET}}"}}
                      - {{name: sealed, api_key: "{flipped(sealed(KEYS["sealed"]))}"}}
                      - {{name: denied, api_key: "${{vault:secret/team/denied#api_key}}"}}
                  - name: expired
                    type: openai-compatible
                    base_url: https://127.0.0.1:{expired}/v1
                    tls: {{ca: authority.pem}}
                    credentials: [{{name: main, api_key: "{KEYS["literal"]}"}}]
                  - name: nowhere
                    type: openai-compatible
                    base_url: http://no-such-host.invalid/v1
                """,
            )
            options = ("--token-env", "DOCTOR_TOKEN")
            report = await doctor(path, *options, REFUSED_KEY=KEYS["refused"])
            text = await printed(path, *options, REFUSED_KEY=KEYS["refused"])
    keys = "providers[1].credentials"
    expected = (
        # The words of the fault, its place, and words of its mend.
        (r"`\$\{env:NOT_SET\}` is not set", f"{keys}[2].api_key", "set it where the gateway is started"),
        (r"`\$\{sealed:[^}]*\}` was changed or cut", f"{keys}[3].api_key", "seal"),
        (
            r"secret/team/denied.*denies",
            f"{keys}[4].api_key",
            'path "secret/data/team/denied" { capabilities = ["read"] }',
        ),
        (r"everybody may read the secret file .*/provider\.key", f"{keys}[1].api_key", "chmod"),
        (r"refuses the credential `bad` \(status 401\)", f"{keys}[0].api_key", "put a valid key"),
        (r"refuses the credential `from-file`", f"{keys}[1].api_key", "put a valid key"),
        (r"the provider `expired` at 127\.0\.0\.1 has expired", "providers[2].base_url", "renew it"),
        (
            r"no-such-host\.invalid of the provider `nowhere`",
            "providers[3].base_url",
            "getent hosts no-such-host.invalid",
        ),
        (rf"another program has 127\.0\.0\.1:{taken}", "server.listen", "ss -ltnp"),
        (r"holds streams back", "server.public_url", "proxy_buffering off"),
        (r"this machine's clock is (299|300) s behind", "", "timedatectl"),
    )
    for words, where, mend in expected:
        found = report.fault(words)
        assert where == found.where
        assert mend in found.mend
    assert 1 == report.status
    assert len(expected) == len(report.faults), report.faults
    assert all(each.what in text and each.mend in text for each in report.faults)
    assert f"\n{len(expected)} faults, " in text
    for secret in (*KEYS.values(), login.secret_id, MASTER_KEY, TOKEN):
        assert secret not in report.told + text


@pytest.mark.parametrize("listening", ["a free port", "the gateway's"])
async def test_a_good_document_has_no_fault(
    tmp_path: Path, start_gateway: StartGateway, vault: VaultStandIn, listening: str
) -> None:
    running = await asyncio.to_thread(start_gateway, ECHO)
    vault.put("secret/team/provider", api_key=KEYS["vault"])
    login = vault.approle(vault.policy({"secret/data/team/*": ["read"]}))
    files = {"provider.key": KEYS["file-key"], "secret-id": login.secret_id}
    for name, content in files.items():
        file = place_of_secrets(tmp_path / name)
        file.write_text(content)
        file.chmod(0o600)
    authority = Authority()
    (tmp_path / "authority.pem").write_bytes(authority.pem)
    known = (KEYS["env"], KEYS["file-key"], KEYS["sealed"], KEYS["vault"])
    port = running.port if listening == "the gateway's" else free_port()
    async with (
        provider(vendor(0, *known)) as plain,
        tls_server(authority.issue("localhost"), tmp_path, KEYS["env"]) as safe,
        before(running.port, holds_back=False) as proxy,
    ):
        path = write(
            tmp_path,
            f"""\
            server: {{listen: "127.0.0.1:{port}", public_url: "http://127.0.0.1:{proxy}", max_connections: 100}}
            secrets:
              persist: true
              vault:
                address: {vault.address}
                auth: {{method: approle, role_id: {login.role_id}, secret_id: "${{file:secret-id}}"}}
            providers:
              - {{name: echo, type: echo}}
              - name: plain
                type: openai-compatible
                base_url: http://127.0.0.1:{plain.port}/v1
                credentials:
                  - {{name: env, api_key: "${{env:PROVIDER_KEY}}"}}
                  - {{name: file, api_key: "${{file:provider.key}}"}}
                  - {{name: sealed, api_key: "{sealed(KEYS["sealed"])}"}}
                  - {{name: vault, api_key: "${{vault:secret/team/provider#api_key}}"}}
              - name: safe
                type: openai-compatible
                base_url: https://localhost:{safe}/v1
                tls: {{ca: authority.pem}}
                credentials: [{{name: env, api_key: "${{env:PROVIDER_KEY}}"}}]
            """,
        )
        report = await doctor(path, "--token-env", "DOCTOR_TOKEN", status=0, PROVIDER_KEY=KEYS["env"])
        text = await printed(path, "--token-env", "DOCTOR_TOKEN", status=0, PROVIDER_KEY=KEYS["env"])
    assert ([], []) == (report.faults, report.warnings)
    assert text.endswith("\nno faults, no warnings\n")
    for words in (
        "streams come through `server.public_url` event by event",
        "the provider `plain` takes the credential `vault`",
        "the provider `safe` takes the credential `env`",
        "the certificate of localhost is good until",
        "the gateway signs in to Vault",
        "this machine's clock agrees",
        f"127.0.0.1:{port} is free" if listening == "a free port" else f"a gateway answers at 127.0.0.1:{port}",
    ):
        assert words in text
    for secret in (*KEYS.values(), login.secret_id, MASTER_KEY, TOKEN):
        assert secret not in report.told + text


async def test_ways_to_providers_that_end_are_told_with_where_and_why(tmp_path: Path) -> None:
    authority, stranger = Authority(), Authority("Somebody else")
    (tmp_path / "authority.pem").write_bytes(authority.pem)

    async def page(call: Call) -> None:
        status, kind = {"/html/models": (200, "text/html"), "/moved/models": (308, "")}.get(call.path, (404, ""))
        await call.answer(b"<html>", status, {"content-type": kind, "location": f"/{KEYS['literal']}"})

    async with (
        provider(page) as plain,
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
            ("plain", f"https://127.0.0.1:{plain.port}/v1", ""),
            ("nobody", f"http://127.0.0.1:{free_port()}/v1", ""),
            ("html", f"http://127.0.0.1:{plain.port}/html", ""),
            ("moved", f"http://127.0.0.1:{plain.port}/moved", ""),
            ("no-list", f"http://127.0.0.1:{plain.port}", ""),
            ("no-proxy", f"http://127.0.0.1:{plain.port}", f'proxy_url: "http://127.0.0.1:{free_port()}"'),
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
        ("other-user", "proxy_url", "other credentials.* correct `proxy_url`"),
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
    return f"""\
        server: {{listen: 127.0.0.1:0, max_connections: 9}}
        secrets: {{vault: {{address: {vault.address}, auth: {{{auth}}}, timeout_seconds: 1}}}}
        providers:
          - {{name: echo, type: echo}}
          - {{name: a, type: openai-compatible, base_url: "http://127.0.0.1:1/v1",
              credentials: [{{name: main, api_key: "{api_key}"}}]}}
        """


async def test_a_sealed_vault(tmp_path: Path, vault: VaultStandIn) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.seal()
    report = await doctor(path, TOKEN_OF_VAULT=vault.root_token)
    assert "secrets.vault.address" == report.fault("^Vault is sealed .*vault operator unseal").where
    assert "providers[1].credentials[0].api_key" == report.fault("secret/a#key.*sealed").where


async def test_a_vault_that_is_not_there(tmp_path: Path, vault: VaultStandIn) -> None:
    path = write(tmp_path, vault_document(vault, 'token: "${env:TOKEN_OF_VAULT}"'))
    vault.stop()
    report = await doctor(path, TOKEN_OF_VAULT="hvs.nothing")
    assert "secrets.vault.address" == report.fault("^Vault refuses connections").where


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
    assert "Vault is a standby, which passes requests on to the active one" in [each.what for each in report.fine]


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
    assert [] == vault.tokens


async def test_offline_asks_nobody(tmp_path: Path, vault: VaultStandIn) -> None:
    async with provider(vendor(0)) as asked:
        text = vault_document(vault, 'token: "${env:NOT_SET}"').replace("127.0.0.1:1/", f"127.0.0.1:{asked.port}/")
        path = write(tmp_path, text + "          - {name: b, type: openai-compatible, base_url: ''}\n")
        report = await doctor(path, "--offline")
        assert ["providers[2].base_url"] == [each.where for each in report.faults]
        assert [] == vault.requests
        assert [] == asked.calls


async def test_what_is_needed_to_try_a_stream_is_told(tmp_path: Path, start_gateway: StartGateway) -> None:
    running = await asyncio.to_thread(start_gateway, ECHO)
    head = f'server: {{listen: 127.0.0.1:0, max_connections: 9, public_url: "{running.url}"}}\n'
    echo = "providers: [{name: echo, type: echo}]\n"
    cases = (
        ("", (), "add a provider that answers by itself"),
        (echo, (), "give a token by --token-env NAME"),
        (echo, ("--token-env", "NOT_SET"), "variable NOT_SET, which is not set"),
        (echo, ("--token-env", "STRANGE_TOKEN"), "a token that the document knows"),
        (
            "providers: [{name: echo, type: echo}, {name: o, type: openai}]\n"
            "routes: [{name: all, match: {model: '*'}, targets: [echo/x], fallbacks: [[o/gpt]]}]\n",
            ("--token-env", "DOCTOR_TOKEN", "--offline"),
            "",
        ),
        (
            "providers: [{name: echo, type: echo, options: {interval_seconds: 0}}]\n",
            ("--token-env", "DOCTOR_TOKEN"),
            "interval_seconds: 0.02",
        ),
    )
    for text, options, mend in cases:
        path = write(tmp_path, head + text)
        report = await doctor(path, *options, status=0, STRANGE_TOKEN=planted("strange"))
        assert not mend or mend in report.warning("event by event was not looked at").mend
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


async def test_the_certificate_of_the_listener(tmp_path: Path) -> None:
    pem = Authority().issue("llm.example", ends_days=3)
    place_of_secrets(tmp_path / "server.pem").write_bytes(pem)
    (tmp_path / "server.pem").chmod(0o644)
    tls = "tls: {cert: server.pem, key: server.pem}"
    head = f"listen: 127.0.0.1:0, max_connections: 9, public_url: 'https://other.invalid', {tls}"
    report = await doctor(write(tmp_path, f"server: {{{head}}}\n{ECHO}\n"))
    assert "server.tls.cert" == report.warning("server.pem expires on").where
    assert "server.tls.cert" == report.warning("is for llm.example, and not for other.invalid").where
    assert "server.tls.key" == report.fault("everybody may read the key .*chmod o-rwx").where
    assert "server.public_url" == report.fault("the name other.invalid").where
    (tmp_path / "server.pem").write_bytes(Authority().issue("llm.example", begins_days=-9, ends_days=-3))
    report = await doctor(tmp_path / "config.yaml", "--offline")
    assert "server.tls.cert" == report.fault("server.pem has expired on .*renew it").where


async def test_management_that_is_open_and_documents_that_anybody_may_read_or_write(tmp_path: Path) -> None:
    text = f"""\
        server: {{listen: 0.0.0.0:0, max_connections: 1000000}}
        providers:
          - {{name: a, type: openai, credentials: [{{name: main, api_key: "{KEYS["literal"]}"}},
              {{name: spare, api_key: "${{env:NOT_SET:-{KEYS["env"]}}}"}}]}}
        """
    path = write(tmp_path, text)
    path.chmod(0o646)
    report = await doctor(path, "--offline")
    assert "config.yaml" == report.fault("everybody may write the configuration .*chmod go-w").where
    assert "config.yaml" == report.warning("there are secrets in it").where
    assert "server.listen" == report.warning("management is open to other machines").where
    assert "server.max_connections" == report.warning("files open: not enough").where
    assert "providers[0].credentials[1].api_key" == report.warning("its default is in use as a secret").where
    assert KEYS["literal"] not in report.told
    assert KEYS["env"] not in report.told


async def test_without_a_document_it_says_so(tmp_path: Path) -> None:
    report = await doctor(tmp_path / "config.yaml", "--env-file", "none.env")
    assert "none.env" == report.fault("cannot be read").where
    assert 2 == len(report.faults)
    assert "config.yaml" == report.warning("nothing that depends on the document").where


async def test_an_environment_file_is_read_and_looked_after(tmp_path: Path) -> None:
    env = place_of_secrets(tmp_path / "gateway.env")
    env.write_text(f"PROVIDER_KEY={KEYS['env']}\n")
    env.chmod(0o644)
    async with provider(vendor(0, KEYS["env"])) as plain:
        entry = plain.entry(extra='credentials: [{name: main, api_key: "${env:PROVIDER_KEY}"}]')
        path = write(tmp_path, f"server: {{listen: 127.0.0.1:0, max_connections: 9}}\nproviders: [{entry}]\n")
        report = await doctor(path, "--env-file", "gateway.env")
    assert ["gateway.env"] == [each.where for each in report.faults]
    assert "chmod" in report.fault("everybody may read the environment file").mend
    assert "the provider `real` takes the credential `main`" in [each.what for each in report.fine]
