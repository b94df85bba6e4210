"""Vault and the running gateway: rotation, outages, starts without Vault; seen by clients and by the provider."""

import asyncio
import json
import re
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.gateway_process import Gateway, GatewayFailure, run_cli, until
from tests.integration.conftest import StartGateway
from tests.planted import place_of_secrets, planted
from tests.provider import Call, Provider, completion, provider
from tests.vault_stand_in import VaultStandIn, vault_stand_in

FIRST, SECOND = planted("vault-first", "sk-"), planted("vault-second", "sk-")
PATH = "secret/llm/mock"
REFERENCE = "${vault:secret/llm/mock#api_key}"
READS = {"secret/data/llm/*": ["read"]}


@pytest.fixture
def vault() -> Iterator[VaultStandIn]:
    with vault_stand_in() as running:
        running.put(PATH, api_key=FIRST)
        yield running


@pytest.fixture
async def real() -> AsyncIterator[Provider]:
    async def behave(call: Call) -> None:
        if call.method == "GET":
            await call.answer({"object": "list", "data": []})
            return
        asked = json.loads(await call.body())
        if not asked.get("stream"):
            await call.answer(completion("hello"))
            return
        await call.stream()
        for number in range(20):
            await call.event(str(number))
            await asyncio.sleep(0.05)
        await call.end()

    async with provider(behave) as running:
        yield running


class Setting:
    """A Vault, a provider, and gateways that have the provider's key from there."""

    def __init__(self, start: StartGateway, vault: VaultStandIn, real: Provider, place: Path) -> None:
        self.start_gateway = start
        self.vault = vault
        self.real = real
        self.place = place
        self.login = vault.approle(vault.policy(READS))
        self.extra = {"VAULT_SECRET_ID": self.login.secret_id}

    def document(self, reference: str = REFERENCE, secrets: str = "") -> str:
        text = f"""\
            providers:
              - name: real
                type: openai-compatible
                base_url: http://127.0.0.1:{self.real.port}/v1
                credentials: [{{name: main, api_key: "{reference}"}}]
            secrets:
              directory: {self.place / "own"}
              vault:
                address: {self.vault.address}
                auth: {{method: approle, role_id: "{self.login.role_id}", secret_id: "${{env:VAULT_SECRET_ID}}"}}
                cache_seconds: 0.3
                timeout_seconds: 60
            """
        return textwrap.dedent(text) + textwrap.indent(secrets, "  ")

    def start(self, reference: str = REFERENCE, secrets: str = "", server: str = "") -> Gateway:
        return self.start_gateway(server + self.document(reference, secrets), extra=self.extra)

    def wait_for_vault(self, gateway: Gateway, seconds: int) -> None:
        """``gateway`` waits so long for an answer of Vault from now on."""
        text = re.sub("timeout_seconds: .*", f"timeout_seconds: {seconds}", gateway.config.read_text())
        gateway.rewrite(text)
        assert 200 == gateway.management("POST", "/api/v1/config/reload").status

    def key_of(self, gateway: Gateway) -> str:
        """The key that the provider is sent with a request now."""
        answer = gateway.chat("real/real")
        assert 200 == answer.status, answer
        return self.real.calls[-1].headers["authorization"].removeprefix("Bearer ")

    async def until_key(self, gateway: Gateway, key: str) -> None:
        async def asked() -> bool:
            return key == await asyncio.to_thread(self.key_of, gateway)

        deadline = time.monotonic() + 60
        while not await asked():
            assert time.monotonic() < deadline, "the new key is not used"
            await asyncio.sleep(0.05)

    def refused(self, reference: str = REFERENCE, secrets: str = "") -> str:
        """What a gateway says that does not start."""
        with pytest.raises(GatewayFailure) as failure:
            self.start(reference, secrets)
        return str(failure.value)


@pytest.fixture
def setting(vault: VaultStandIn, real: Provider, start_gateway: StartGateway, tmp_path: Path) -> Setting:
    # In this order: gateways end before what they talk to.
    return Setting(start_gateway, vault, real, tmp_path)


def stale(gateway: Gateway) -> list[dict[str, str]]:
    found = gateway.management("GET", "/api/v1/health").json()["stale_secrets"]
    assert isinstance(found, list)
    return found


async def until_stale(gateway: Gateway, reason: str | None) -> None:
    """Until the one value in use is stale for ``reason``; None: fresh."""

    def so() -> bool:
        reasons = [each["reason"] for each in stale(gateway)]
        return reasons == ([] if reason is None else [reason])

    await asyncio.to_thread(lambda: asyncio.run(until(so, 60, f"{reason}")))


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_rotated_key_is_used_without_a_reload_and_streams_in_flight_go_on(
    setting: Setting, workers: int
) -> None:
    gateway = await asyncio.to_thread(setting.start, server=f"server: {{workers: {workers}}}\n")
    assert FIRST == await asyncio.to_thread(setting.key_of, gateway)
    stream = asyncio.create_task(asyncio.to_thread(gateway.chat, "real/real", stream=True))
    await until(lambda: len(setting.real.calls) >= 2)
    setting.vault.put(PATH, api_key=SECOND)
    await setting.until_key(gateway, SECOND)
    answer = await stream
    assert answer.body.rstrip().endswith(b"data: [DONE]")
    assert 21 + 1 == answer.body.count(b"data: ")
    if workers == 1:
        # It is in use a moment before it is told.
        await until(lambda: 1 == gateway.metric("sluice_secret_rotations_total", reference=REFERENCE), 60)
        assert 1 == gateway.metric("sluice_config_reloads_total")
    assert FIRST not in gateway.err


@pytest.mark.parametrize("outage", ["stopped", "sealed", "denied", "failing", "rate limited", "slow", "garbled"])
async def test_an_outage_of_any_kind_fails_no_request_once_warm(setting: Setting, outage: str) -> None:
    vault = setting.vault
    gateway = await asyncio.to_thread(setting.start)
    gateway.expect_log("last value stays in use|secrets")
    begin = {
        "stopped": vault.stop,
        "sealed": vault.seal,
        "denied": lambda: vault.deny("secret/data/llm/mock"),
        "failing": lambda: vault.fail(500),
        "rate limited": vault.limit_rate,
        "slow": lambda: vault.slow(30),
        "garbled": vault.garble,
    }
    end = {
        "stopped": vault.start,
        "sealed": vault.unseal,
        "denied": lambda: vault.allow("secret/data/llm/mock"),
        "slow": lambda: vault.slow(0),
    }
    reason = {
        "stopped": "unreachable",
        "sealed": "sealed",
        "denied": "denied",
        "rate limited": "rate_limited",
        "slow": "slow",
    }
    if outage == "slow":
        await asyncio.to_thread(setting.wait_for_vault, gateway, 1)
    await asyncio.to_thread(begin[outage])
    await until_stale(gateway, reason.get(outage, "error"))
    assert 0 < await asyncio.to_thread(
        gateway.metric, "sluice_secret_stale_since_timestamp_seconds", reference=REFERENCE
    )
    for _ in range(20):
        assert FIRST == await asyncio.to_thread(setting.key_of, gateway)
    # A reload finds it warm, too.
    assert 200 == (await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")).status
    vault.put(PATH, api_key=SECOND)
    await asyncio.to_thread(end.get(outage, vault.recover))
    if outage == "slow":
        await asyncio.to_thread(setting.wait_for_vault, gateway, 60)
    await setting.until_key(gateway, SECOND)
    await until_stale(gateway, None)
    assert 0 == await asyncio.to_thread(
        gateway.metric, "sluice_secret_stale_since_timestamp_seconds", reference=REFERENCE
    )


async def test_a_start_without_vault_is_refused_with_the_path_and_the_reason(setting: Setting) -> None:
    await asyncio.to_thread(setting.vault.stop)
    said = await asyncio.to_thread(setting.refused)
    assert REFERENCE in said
    assert "config.yaml:" in said
    assert setting.vault.address in said
    assert "providers[0].credentials[0].api_key" in said


async def test_a_denied_path_names_the_policy_that_is_missing(setting: Setting) -> None:
    setting.vault.put("secret/hr/salaries", api_key=SECOND)
    said = await asyncio.to_thread(setting.refused, "${vault:secret/hr/salaries#api_key}")
    assert 'path "secret/data/hr/salaries" { capabilities = ["read"] }' in said
    assert "config.yaml:" in said


async def test_kept_values_serve_a_start_without_vault(setting: Setting) -> None:
    persist = "persist: true\n"
    gateway = await asyncio.to_thread(setting.start, secrets=persist)
    gateway.expect_log("master key")
    assert FIRST == await asyncio.to_thread(setting.key_of, gateway)
    await asyncio.to_thread(gateway.stop)
    kept = setting.place / "own" / "vault-values.sealed"
    assert 0o600 == kept.stat().st_mode & 0o777
    assert FIRST.encode() not in kept.read_bytes()

    await asyncio.to_thread(setting.vault.stop)
    gateway = await asyncio.to_thread(setting.start, secrets=persist)
    gateway.expect_log("secrets|last value|kept")
    assert FIRST == await asyncio.to_thread(setting.key_of, gateway)
    await until_stale(gateway, "unreachable")
    setting.vault.put(PATH, api_key=SECOND)
    await asyncio.to_thread(setting.vault.start)
    await setting.until_key(gateway, SECOND)
    await until_stale(gateway, None)


async def test_a_default_serves_until_vault_answers(setting: Setting) -> None:
    await asyncio.to_thread(setting.vault.stop)
    default = planted("vault-default", "sk-")
    gateway = await asyncio.to_thread(setting.start, f"{REFERENCE[:-1]}:-{default}}}")
    gateway.expect_log("secrets|default")
    assert default == await asyncio.to_thread(setting.key_of, gateway)
    await asyncio.to_thread(setting.vault.start)
    await setting.until_key(gateway, FIRST)


async def test_what_was_leased_and_signed_in_is_given_back_at_the_end(setting: Setting) -> None:
    vault = setting.vault
    vault.credentials("database/creds/app", ttl=3600)
    setting.login = vault.approle(vault.policy({"database/creds/app": ["read"]}), ttl=3600)
    setting.extra = {"VAULT_SECRET_ID": setting.login.secret_id}
    gateway = await asyncio.to_thread(setting.start, "${vault:database/creds/app#password}")
    password = await asyncio.to_thread(setting.key_of, gateway)
    assert 1 == len(vault.leases())
    assert password
    tokens = len(vault.tokens())
    await asyncio.to_thread(gateway.stop)
    assert [] == vault.leases()
    assert tokens - 1 == len(vault.tokens())


async def test_a_value_in_vault_stands_for_a_secret_alone(setting: Setting) -> None:
    document = setting.document().replace(f"http://127.0.0.1:{setting.real.port}/v1", '"${vault:secret/llm/mock#url}"')
    with pytest.raises(GatewayFailure) as failure:
        await asyncio.to_thread(setting.start_gateway, document, extra=setting.extra)
    assert "names a secret" in str(failure.value)


async def test_a_refused_document_leaves_nothing_signed_in(setting: Setting) -> None:
    vault = setting.vault
    before = len(vault.tokens())
    gateway = await asyncio.to_thread(setting.start)
    gateway.expect_log("configuration refused|the configuration in force stays")
    good = gateway.config.read_text()
    for _ in range(3):
        other = vault.approle(vault.policy(READS))
        vault_of_another_role = good.replace(setting.login.role_id, other.role_id)
        setting_secret = vault_of_another_role.replace("${env:VAULT_SECRET_ID}", other.secret_id)
        gateway.rewrite(setting_secret + "unknown: 1\n")
        answer = await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")
        assert 422 == answer.status, answer
    assert FIRST == await asyncio.to_thread(setting.key_of, gateway)
    gateway.rewrite(good)
    await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")
    await until(lambda: before + 1 == len(vault.tokens()), what="a sign-in was given back")
    await asyncio.to_thread(gateway.stop)
    assert before == len(vault.tokens())


async def test_a_key_that_vault_wraps_is_asked_for_once(setting: Setting) -> None:
    vault = setting.vault
    sealed_key = planted("sealed-by-transit", "sk-")
    rules = {"transit/encrypt/sluice": ["create", "update"], "transit/decrypt/sluice": ["update"]}
    setting.login = vault.approle(vault.policy(rules))
    setting.extra = {"VAULT_SECRET_ID": setting.login.secret_id}
    transit = "master_key: {file: wrapped.keys, transit: {key: sluice}}\n"
    (setting.place / "config.yaml").write_text(setting.document("x", transit))
    seal = ("seal", "-c", setting.place / "config.yaml")
    status, out, err = await asyncio.to_thread(
        lambda: run_cli(*seal, cwd=setting.place, stdin=sealed_key, extra=setting.extra)
    )
    assert 0 == status, err
    assert "vault:v1:" in (setting.place / "wrapped.keys").read_text()
    transit = transit.replace("wrapped.keys", str(setting.place / "wrapped.keys"))
    gateway = await asyncio.to_thread(setting.start, out.strip(), transit)
    assert sealed_key == await asyncio.to_thread(setting.key_of, gateway)
    await asyncio.to_thread(vault.stop)
    assert 200 == (await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")).status
    assert sealed_key == await asyncio.to_thread(setting.key_of, gateway)


def test_no_process_of_a_gateway_leaves_a_core_file(start_gateway: StartGateway) -> None:
    gateway = start_gateway("server: {workers: 2}\nproviders: [{name: echo, type: echo}]\n")
    for process in (gateway.process.pid, *gateway.workers()):
        limits = Path(f"/proc/{process}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert "0" == line.split()[4]


async def test_what_was_lent_outlasts_a_change_of_the_sign_in(setting: Setting) -> None:
    vault = setting.vault
    vault.credentials("database/creds/app", ttl=3600)
    reads = vault.policy({"database/creds/app": ["read"]})
    setting.login = vault.approle(reads, ttl=3600)
    setting.extra = {"VAULT_SECRET_ID": setting.login.secret_id}
    gateway = await asyncio.to_thread(setting.start, "${vault:database/creds/app#password}")
    password = await asyncio.to_thread(setting.key_of, gateway)
    other = vault.approle(reads, ttl=3600)
    text = gateway.config.read_text().replace(setting.login.role_id, other.role_id)
    gateway.rewrite(text.replace("${env:VAULT_SECRET_ID}", other.secret_id))
    place_of_secrets(gateway.config)
    assert 200 == (await asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload")).status
    assert password != await asyncio.to_thread(setting.key_of, gateway)
    # Requests in flight may use the former one.
    await asyncio.sleep(0.5)
    assert 2 == len(vault.leases())
    await asyncio.to_thread(gateway.stop)
    assert [] == vault.leases()


async def test_a_command_that_looks_makes_no_file_and_leaves_nothing_signed_in(setting: Setting) -> None:
    config = place_of_secrets(setting.place / "config.yaml")
    config.write_text(setting.document(secrets="persist: true\n"))
    before = len(setting.vault.tokens())
    for command in ("check", "doctor"):
        run = partial(run_cli, command, "-c", config, cwd=setting.place, extra=setting.extra)
        status, out, err = await asyncio.to_thread(run)
        assert REFERENCE not in out + err, out + err
        assert status in (0, 1)
    assert not (setting.place / "own").exists()
    assert before == len(setting.vault.tokens())


async def test_the_end_in_the_middle_of_a_reload_is_no_trouble(setting: Setting) -> None:
    gateway = await asyncio.to_thread(setting.start)
    names = ", ".join(f"{{name: c{number}, api_key: '${{vault:secret/llm/{number}#key}}'}}" for number in range(20))
    text = gateway.config.read_text()
    gateway.rewrite(text.replace(f'[{{name: main, api_key: "{REFERENCE}"}}]', f"[{names}]"))
    setting.vault.slow(0.5, "secret/data/llm/")
    reload = asyncio.create_task(asyncio.to_thread(gateway.management, "POST", "/api/v1/config/reload"))
    await until(lambda: setting.vault.waiting)
    await asyncio.to_thread(gateway.stop)
    await asyncio.gather(reload, return_exceptions=True)
