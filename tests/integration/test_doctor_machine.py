"""What ``./sluice doctor`` tells of this machine: files, certificates of our own, the environment."""

from pathlib import Path

from tests.authority import Authority
from tests.doctor import ECHO, KEYS, doctor, vendor, write
from tests.planted import place_of_secrets
from tests.provider import provider


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
        server: {{listen: 0.0.0.0:0, max_connections: 9}}
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
    assert "providers[0].credentials[1].api_key" == report.warning("its default is in use as a secret").where
    assert KEYS["literal"] not in report.told
    assert KEYS["env"] not in report.told


async def test_a_directory_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    text = f"server: {{listen: 127.0.0.1:0, max_connections: 9}}\nsecrets: {{persist: true, directory: kept}}\n{ECHO}\n"
    report = await doctor(write(tmp_path, text), "--offline")
    assert ["secrets.directory"] == [each.where for each in report.faults]
    assert "is no directory" in report.faults[0].what


async def test_an_address_of_another_machine(tmp_path: Path) -> None:
    report = await doctor(write(tmp_path, f"server: {{listen: '192.0.2.1:8080', max_connections: 9}}\n{ECHO}\n"))
    assert "server.listen" == report.fault("192.0.2.1:8080 is no address of this machine .*0.0.0.0").where


async def test_without_a_document_it_says_so(tmp_path: Path) -> None:
    report = await doctor(tmp_path / "config.yaml", "--env-file", "none.env")
    assert ["none.env", "config.yaml"] == [each.where for each in report.faults]
    assert "correct its name" in report.faults[1].mend
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
