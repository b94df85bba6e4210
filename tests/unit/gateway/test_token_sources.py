"""What a configuration says of credentials whose tokens end, and where its faults are told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.faults import ConfigFaults
from gateway.build import Generation, load_and_build
from gateway.resources import Resources
from tests.planted import planted

HUB = "{name: hub, client_id: sluice, issuer: https://accounts.example.com}"


@pytest.fixture
async def resources() -> AsyncIterator[Resources]:
    made = Resources({"SECRET": planted("client-secret"), "PROXY": "socks5://proxy:1080"}, writes=False)
    yield made
    await made.close()


def built(resources: Resources, place: Path, oauth: str, providers: str = "[]", more: str = "") -> Generation:
    document = place / "config.yaml"
    document.write_text(f"oauth: {oauth}\nproviders: {providers}\n{more}\n")
    return load_and_build(document, resources)


def provider(extra: str) -> str:
    return f"[{{name: up, type: openai, {extra}}}]"


async def test_each_kind_of_credential_gets_its_source(resources: Resources, tmp_path: Path) -> None:
    credentials = """
      {name: key, api_key: "${env:SECRET}"},
      {name: client, client_credentials: hub},
      {name: azure, azure_entra: {tenant: t, client_id: c, client_secret: "${env:SECRET}"}},
      {name: program, command: {run: [print-token]}},
    """
    generation = built(resources, tmp_path, f"{{providers: [{HUB}]}}", provider(f"credentials: [{credentials}]"))
    found = generation.token_sources
    assert ["hub"] == list(found.servers)
    assert {"client": "client_credentials", "azure": "azure_entra", "program": "command"} == {
        name: source.kind for (_, name), source in found.sources.items()
    }


async def test_a_configuration_without_them_has_none_and_starts_nothing(resources: Resources, tmp_path: Path) -> None:
    generation = built(resources, tmp_path, "{}", provider('credentials: [{name: key, api_key: "${env:SECRET}"}]'))
    resources.follow(generation.loaded, (), generation.token_sources)
    await resources.credentials.start("http://127.0.0.1:8080")
    assert ({}, {}, 0) == (
        generation.token_sources.servers,
        generation.token_sources.sources,
        len(resources.background),
    )
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("oauth", "providers", "more", "path", "words"),
    [
        (
            "{store: memory}",
            "[]",
            "server: {workers: 2}",
            "oauth.store",
            "2 workers would each have accounts of their own",
        ),
        ("{store: redis}", "[]", "", "oauth.store", "Redis has no address: set `redis.url`"),
        (
            f"{{providers: [{HUB}]}}",
            provider("oauth: hubb"),
            "",
            "providers.0.oauth",
            "`oauth.providers` has no `hubb`: did you mean `hub`?",
        ),
        ("{}", provider("oauth: hub"), "", "providers.0.oauth", "`oauth.providers` has no `hub`: add it there"),
        (
            "{}",
            provider("credentials: [{name: c, client_credentials: hub}]"),
            "",
            "providers.0.credentials.0.client_credentials",
            "`oauth.providers` has no `hub`",
        ),
        (
            "{providers: [{name: hub, template: hugging}]}",
            "[]",
            "",
            "oauth.providers.0.template",
            "did you mean `huggingface`?",
        ),
        (
            "{providers: [{name: hub, template: github}]}",
            "[]",
            "",
            "oauth.providers.0.client_id",
            "register one at http",
        ),
        (
            "{providers: [{name: hub, client_id: c, issuer: https://a.example.com, tls: {ca: missing.pem}}]}",
            "[]",
            "",
            "oauth.providers.0.tls.ca",
            "the authorities cannot be read",
        ),
        (
            '{providers: [{name: hub, client_id: c, issuer: https://a.example.com, proxy_url: "${env:PROXY}"}]}',
            "[]",
            "",
            "oauth.providers.0.proxy_url",
            "proxy",
        ),
        (
            "{}",
            provider("credentials: [{name: g, google_service_account: {key: none}}]"),
            "",
            "providers.0.credentials.0.google_service_account.key",
            "",
        ),
    ],
)
async def test_what_is_wrong_is_told_at_its_place(
    resources: Resources, tmp_path: Path, oauth: str, providers: str, more: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigFaults) as caught:
        built(resources, tmp_path, oauth, providers, more)
    (fault,) = caught.value.faults
    assert path == ".".join(map(str, fault.path))
    assert words in fault.message
    assert 0 < fault.line
