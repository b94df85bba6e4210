"""What ``./sluice doctor`` tells of credentials whose tokens it has to get first."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor import KEYS, doctor, vendor, write
from tests.planted import place_of_secrets, planted
from tests.ports import closed_port
from tests.provider import provider
from tests.rsa_keys import rsa_key, service_key


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port where nobody is at home."""
    with closed_port() as port:
        yield port


async def test_credentials_whose_tokens_end_are_tried_with_a_token(tmp_path: Path, nobody: int) -> None:
    key = place_of_secrets(tmp_path / "key.json")
    key.write_text(service_key(rsa_key(), f"http://127.0.0.1:{nobody}/token"))
    key.chmod(0o600)
    async with provider(vendor(0, KEYS["env"])) as server:
        path = write(
            tmp_path,
            f"""
server: {{listen: "127.0.0.1:0", max_connections: 9}}
oauth:
  providers:
    - {{name: company, token_endpoint: "http://127.0.0.1:{nobody}/token", client_id: here, client_secret: "${{env:SECRET}}"}}
providers:
  - name: a
    type: openai-compatible
    base_url: http://127.0.0.1:{server.port}/v1
    credentials:
      - {{name: taken, command: {{run: [printenv, KEY], environment: {{KEY: "${{env:KEY}}"}}}}}}
      - {{name: refused, command: {{run: [printenv, KEY], environment: {{KEY: "${{env:OTHER}}"}}}}}}
      - {{name: failing, command: {{run: [sh, -c, "echo no network >&2; exit 3"]}}}}
      - {{name: missing, command: {{run: [no-such-program-anywhere]}}}}
      - {{name: google, google_service_account: {{key: "${{file:key.json}}"}}}}
      - {{name: client, client_credentials: company}}
      - {{name: left-out, disabled: true, command: {{run: [no-such-program-anywhere]}}}}
""",
        )
        report = await doctor(
            path, KEY=KEYS["env"], OTHER=KEYS["refused"], SECRET=planted("client"), PATH=os.environ["PATH"]
        )
    assert "the provider `a` takes the credential `taken`" in [each.what for each in report.fine]
    for number, kind, words in (
        (1, "command", "refuses the credential `refused` .*does not take: see what the token is for"),
        (
            2,
            "command",
            "no token for the credential `failing` of the provider `a`: the command `sh` ended with status 3",
        ),
        (3, "command", "`missing` .* cannot be started: no such file or directory.* mend what is named there"),
        (4, "google_service_account", "`google` .* cannot be reached: .* ask again a little later"),
        (5, "client_credentials", "`client` .* cannot be reached"),
    ):
        assert f"providers[0].credentials[{number}].{kind}" == report.fault(words).where
    assert 5 == len(report.faults), report.faults
    for secret in KEYS.values():
        assert secret not in report.told


async def test_a_key_that_cannot_be_read_is_told_with_its_place_and_nobody_is_asked(
    tmp_path: Path, nobody: int
) -> None:
    (tmp_path / "key.json").write_text("{}")
    path = write(
        tmp_path,
        f"""
server: {{listen: "127.0.0.1:0", max_connections: 9}}
providers:
  - name: a
    type: openai-compatible
    base_url: http://127.0.0.1:{nobody}/v1
    credentials:
      - {{name: google, google_service_account: {{key: "${{file:key.json}}"}}}}
      - {{name: none}}
""",
    )
    report = await doctor(path)
    assert "providers[0].credentials[0].google_service_account.key" == report.fault("no key of a service account").where
    assert "providers[0].credentials[1]" == report.fault("the credential is of no kind").where
