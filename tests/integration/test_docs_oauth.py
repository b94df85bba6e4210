"""What docs/oauth.md and docs/credentials.md say: each YAML loads, the commands run in the order of the page and answer as
printed, and each template sends a person to the address that is printed for it.

The vendors themselves are not asked: where a template needs a discovery document, what is said of its absence is looked at.
"""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from credentials.oauth.templates import TEMPLATES
from gateway.cli import main
from tests.gateway_process import ADMIN_KEY, ADMIN_KEY_HASH, ROOT, Gateway, environment, gateway
from tests.oauth_server import REDIRECT_URL, OAuthServerProcess, oauth_server
from tests.planted import place_of_secrets
from tests.rsa_keys import rsa_key, service_key

PAGE = (ROOT / "docs" / "oauth.md").read_text(encoding="utf-8")
_YAML = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
_PLAIN = re.compile(r"```\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(text, id=f"{name}-{number}")
    for name in ("oauth", "credentials")
    for number, text in enumerate(_YAML.findall((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")))
]
MARK = "@@@ next @@@"

CLIENT = {
    "client_id": "sluice",
    "application_type": "native",
    "token_endpoint_auth_method": "none",
    "redirect_uris": [REDIRECT_URL],
    "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
    "response_types": ["code"],
}
# Who stands for the reader: goes wherever the server sends it and says yes to everything.
_BROWSER = """\
import re, sys
from html import unescape
from http.cookiejar import CookieJar
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, build_opener

options = [each for each in sys.argv[1:] if each.startswith("--")]
url, *codes = [each for each in sys.argv[1:] if not each.startswith("--")]
home = urlsplit(url).netloc

class Redirects(HTTPRedirectHandler):
    def redirect_request(self, request, body, status, message, headers, location):
        if "--far" in options and urlsplit(location).netloc != home:
            print(location)
            raise SystemExit(0)
        return super().redirect_request(request, body, status, message, headers, location)

def hidden(page):
    return {name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\\w+)" value="([^"]*)"', page)}

def opened(url, fields=None):
    with browser.open(url, None if fields is None else urlencode(fields).encode()) as answer:
        return answer.url, answer.read().decode()

browser = build_opener(HTTPCookieProcessor(CookieJar()), Redirects)
url, page = opened(url)
for code in codes:
    url, page = opened(url, hidden(page) | {"user_code": code})
    url, page = opened(url, hidden(page))
if "--quiet" not in options:
    print(*re.findall("<h1>(.*?)</h1>", page))
"""


def section(heading: str) -> str:
    return PAGE.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def of_template(name: str) -> tuple[str, str]:
    """Its YAML, and what a sign-in begins with."""
    text = section(f"### {name}").split("\n### ", 1)[0]
    (document,), (printed,) = _YAML.findall(text), _PLAIN.findall(_YAML.sub("", text))
    return document, printed.strip()


def variables(text: str) -> dict[str, str]:
    """A value for each `${env:…}`."""
    return {name: f"test-{name.lower().replace('_', '-')}" for name in re.findall(r"\$\{env:(\w+)", text)}


def as_printed(printed: str, found: str) -> bool:
    return re.match(".*?".join(map(re.escape, printed.split("…"))), found, re.DOTALL) is not None


@pytest.mark.parametrize("text", EXAMPLES)
def test_each_example_loads(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables(text).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLUICE_ADMIN_KEY_HASH", ADMIN_KEY_HASH)
    monkeypatch.setenv("OAUTH_ISSUER", "https://accounts.example.com")
    if "vertex.json" in text:
        place_of_secrets(tmp_path / "vertex.json").write_text(service_key(rsa_key(), None))
    place_of_secrets(tmp_path / "azure-identity-token").write_text("any")
    (tmp_path / "config.yaml").write_text(text)
    status = main(["check", "--config", str(tmp_path / "config.yaml")])
    assert 0 == status, capsys.readouterr()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OAuthServerProcess]:
    with oauth_server(tmp_path_factory.mktemp("oauth"), clients=[CLIENT]) as server:
        yield server


@pytest.fixture(scope="module")
def extra(strict: OAuthServerProcess) -> dict[str, str]:
    return {**variables(PAGE), "SLUICE_ADMIN_KEY_HASH": ADMIN_KEY_HASH, "OAUTH_ISSUER": strict.url}


@pytest.fixture(scope="module")
def running(extra: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the page's own server and all templates."""
    documents = [*_YAML.findall(section("## Try it")), *(of_template(name)[0] for name in TEMPLATES)]
    whole: dict[str, Any] = {"oauth": {"providers": []}, "providers": []}
    for value in map(yaml.safe_load, documents):
        whole["oauth"]["providers"] += value.pop("oauth")["providers"]
        whole["providers"] += value.pop("providers")
        whole |= value
    for entry in whole["oauth"]["providers"]:
        if entry["name"] == "openai":
            # Nobody is asked outside of this machine.
            entry["proxy_url"] = "http://127.0.0.1:9"
    place = tmp_path_factory.mktemp("docs-oauth")
    with gateway(msgspec.json.encode(whole).decode(), place, extra=extra) as started:
        started.expect_log("made a master key|needs_login|sign in again")
        yield started


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_sends_a_person_where_the_page_says(name: str, running: Gateway) -> None:
    _, printed = of_template(name)
    provider = "gemini" if name == "google" else name
    answer = running.request("POST", "/api/v1/credentials/login", {"provider": provider}, key=ADMIN_KEY)
    if printed.startswith("{"):
        assert as_printed(printed, answer.body.decode()), answer
    else:
        assert re.fullmatch(".*".join(map(re.escape, printed.split("…"))), answer.json()["authorization_url"]), answer


async def test_the_commands_work_and_answer_as_printed(
    running: Gateway, strict: OAuthServerProcess, extra: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "browser.py").write_text(_BROWSER)
    for name, program in {"sluice": "-m gateway", "browser": f"-I '{tmp_path}/browser.py'"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' {program} \"$@\"\n")
        (tmp_path / name).chmod(0o755)
    steps: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), ""))
        else:
            command, printed = steps[-1]
            steps[-1] = command, f"{printed}{line}\n"
    await strict.hurry_device("sluice")
    known = {
        **extra,
        "SLUICE": running.url,
        "SLUICE_URL": running.url,
        "SLUICE_ADMIN_KEY": ADMIN_KEY,
        "BROWSER": f"{tmp_path}/browser --quiet %s",
    }
    run = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-e", "-c", "\n".join(f"{command}\necho '{MARK}'" for command, _ in steps)],
        cwd=tmp_path,
        env={**environment(known), "PATH": f"{tmp_path}:{environment()['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # As a terminal shows both.
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    outputs = run.stdout.split(f"{MARK}\n")
    for (command, printed), output in zip(steps, outputs, strict=False):
        assert as_printed(printed.strip(), output.strip()), f"$ {command}\n{output}\nis not as printed:\n{printed}"
    assert (0, len(steps) + 1) == (run.returncode, len(outputs)), run.stdout
