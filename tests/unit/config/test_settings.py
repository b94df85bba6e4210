"""Settings: what the environment sets over the document."""

from pathlib import Path
from typing import Any

import pytest

from config.faults import ConfigFaults
from config.load import LoadedConfig, load
from config.scalars import Scalar
from config.settings import KEYS, settings
from tests.gateway_process import ROOT

DOCUMENT = """\
tokens: []
providers: [{name: echo, type: echo}]
server: {drain_seconds: 12, max_url_bytes: "${env:URL_BYTES:-512}"}
"""


def loaded(tmp_path: Path, document: str = DOCUMENT, **env: str) -> LoadedConfig:
    (tmp_path / "config.yaml").write_text(document)
    return load(tmp_path / "config.yaml", env)


def faults_of(tmp_path: Path, document: str = DOCUMENT, **env: str) -> list[str]:
    with pytest.raises(ConfigFaults) as raised:
        loaded(tmp_path, document, **env)
    return [str(fault).removeprefix(str(tmp_path) + "/") for fault in raised.value.faults]


def test_each_is_a_scalar_of_the_schema_that_is_shown_with_its_default_and_meaning() -> None:
    assert KEYS == tuple(settings())
    for setting in settings().values():
        assert setting.types in (*map(frozenset, ({"string"}, {"integer"}, {"number"}, {"boolean"})),), setting
        assert setting.description, setting
        assert setting.default is not None, setting
    assert {"server.listen", "server.workers"} == {each.key for each in settings().values() if each.restart}


def test_no_variable_means_something_else_already() -> None:
    known = {"SLUICE_ADMIN_KEY", "SLUICE_MASTER_KEY", "SLUICE_CONFIG", "SLUICE_ENV", "SLUICE_VENV", "SLUICE_WORKER"}
    variables = [each.variable for each in settings().values()]
    assert len(variables) == len(set(variables))
    assert set() == known & set(variables)
    assert "SLUICE_TELEMETRY_LOG_LEVEL" in variables


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("server.drain_seconds", "2.5", 2.5),
        ("server.drain_seconds", "3", 3.0),
        ("server.max_url_bytes", "1024", 1024),
        ("server.workers", "0x4", 4),
        ("server.listen", "127.0.0.1:0", "127.0.0.1:0"),
        ("telemetry.access_log", "false", False),
        ("telemetry.log_level", "debug", "debug"),
        ("transport.dns_cache_seconds", "0", 0.0),
    ],
)
def test_a_variable_goes_before_the_file_and_before_the_default(
    tmp_path: Path, key: str, text: str, value: Scalar
) -> None:
    setting = settings()[key]
    config: Any = loaded(tmp_path, **{setting.variable: text}).config
    for step in setting.path:
        config = getattr(config, step)
    assert value == config
    assert type(value) is type(config)


def test_without_variables_the_document_counts_and_an_empty_one_is_none(tmp_path: Path) -> None:
    config = loaded(tmp_path, SLUICE_SERVER_DRAIN_SECONDS="", SLUICE_SERVER_MAX_BODY_BYTES="").config
    assert (12.0, 512, 33554432) == (
        config.server.drain_seconds,
        config.server.max_url_bytes,
        config.server.max_body_bytes,
    )


def test_the_revision_is_of_the_files_alone(tmp_path: Path) -> None:
    assert loaded(tmp_path).revision == loaded(tmp_path, SLUICE_SERVER_DRAIN_SECONDS="1").revision


@pytest.mark.parametrize(
    ("env", "fault"),
    [
        (
            {"SLUICE_SERVER_DRAIN_SECONDS": "soon"},
            "expected a number, which the value of `SLUICE_SERVER_DRAIN_SECONDS` is not",
        ),
        ({"SLUICE_SERVER_DRAIN_SECONDS": "-1"}, "must be at least 0, got the value of `SLUICE_SERVER_DRAIN_SECONDS`"),
        (
            {"SLUICE_SERVER_DRAIN_SECONDS": ".nan"},
            "expected a number, which the value of `SLUICE_SERVER_DRAIN_SECONDS`",
        ),
        (
            {"SLUICE_SERVER_WORKERS": "1.5"},
            "expected a whole number, which the value of `SLUICE_SERVER_WORKERS` is not",
        ),
        (
            {"SLUICE_SERVER_WORKERS": "9" * 5000},
            "expected a whole number, which the value of `SLUICE_SERVER_WORKERS` is not",
        ),
        (
            {"SLUICE_TELEMETRY_ACCESS_LOG": "yes"},
            "expected `true` or `false`, which the value of `SLUICE_TELEMETRY_ACCESS",
        ),
        (
            {"SLUICE_TELEMETRY_LOG_LEVEL": "loud"},
            "must be one of `debug`, `error`, `info`, `warning`, got the value of `SLUICE_TEL",
        ),
        (
            {"SLUICE_SERVER_LISTEN": "8080"},
            "the value of `SLUICE_SERVER_LISTEN` in the environment: no address before the port",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_bad_value_is_a_fault_that_names_the_variable_and_not_the_value(
    tmp_path: Path, env: dict[str, str], fault: str
) -> None:
    (found,) = faults_of(tmp_path, **env)
    assert fault in found
    assert found.startswith("config.yaml:")


def test_what_the_environment_sets_hides_a_fault_of_the_file_at_that_key(tmp_path: Path) -> None:
    bad = DOCUMENT.replace("${env:URL_BYTES:-512}", "${env:URL_BYTES}")
    assert 1 == len(faults_of(tmp_path, bad))
    assert 700 == loaded(tmp_path, bad, SLUICE_SERVER_MAX_URL_BYTES="700").config.server.max_url_bytes


def test_a_section_that_is_no_mapping_stays_the_fault_that_it_is(tmp_path: Path) -> None:
    (found,) = faults_of(tmp_path, "tokens: []\nserver: [1]\n", SLUICE_SERVER_DRAIN_SECONDS="3")
    assert "config.yaml:2:" in found
    assert "expected a mapping" in found


def test_a_reference_in_a_variable_is_a_text_like_any_other(tmp_path: Path) -> None:
    (found,) = faults_of(tmp_path, SLUICE_SERVER_LISTEN="${env:LISTEN}", LISTEN="127.0.0.1:0")
    assert "SLUICE_SERVER_LISTEN" in found


def test_the_documented_keys_are_those_of_the_table() -> None:
    section = (ROOT / "docs/configuration.md").read_text().split("## Settings\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]
    assert [f"`{key}`" for key in KEYS] == rows
