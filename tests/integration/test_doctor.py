"""``./sluice doctor`` as a person runs it, on a document with ten faults and on a good one; servers are real."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.doctor import (
    KEYS,
    MASTER_KEY,
    before,
    doctor,
    flipped,
    printed,
    sealed,
    taken_port,
    tls_server,
    vendor,
    write,
)
from tests.gateway_process import TOKEN
from tests.integration.conftest import StartGateway
from tests.planted import place_of_secrets
from tests.ports import free_port
from tests.provider import provider
from tests.vault_stand_in import VaultStandIn, vault_stand_in

QUICK_SECONDS = 0.005
"""Between events that a proxy holds back: it makes no difference to these."""
SLOW_SECONDS = 0.05
"""Between events that come one by one: more than a busy machine lets them come together by."""


def echo(interval_seconds: float) -> str:
    return f"providers: [{{name: echo, type: echo, options: {{interval_seconds: {interval_seconds}}}}}]"


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as running:
        yield running


async def test_ten_planted_faults_are_named_each_with_its_mend(
    tmp_path: Path, start_gateway: StartGateway, vault: VaultStandIn
) -> None:
    running = await asyncio.to_thread(start_gateway, echo(QUICK_SECONDS))
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
                  - {{name: echo, type: echo, options: {{interval_seconds: {QUICK_SECONDS}}}}}
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
        (r"this machine's clock is (29\d|300) s behind", "", "timedatectl"),
    )
    for words, where, mend in expected:
        found = report.fault(words)
        assert where == found.where
        assert mend in found.mend
    assert 1 == report.status
    assert len(expected) == len(report.faults), report.faults
    assert all(each.mend in text for each in report.faults)
    assert f"\n{len(expected)} faults, " in text
    for secret in (*KEYS.values(), login.secret_id, MASTER_KEY, TOKEN):
        assert secret not in report.told + text


@pytest.mark.parametrize("listening", ["a free port", "the gateway's"])
async def test_a_good_document_has_no_fault(
    tmp_path: Path, start_gateway: StartGateway, vault: VaultStandIn, listening: str
) -> None:
    running = await asyncio.to_thread(start_gateway, echo(SLOW_SECONDS))
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
              - {{name: echo, type: echo, options: {{interval_seconds: {SLOW_SECONDS}}}}}
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
