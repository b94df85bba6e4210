"""``./sluice ctl`` against a running gateway, and its commands against the routes' table."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.ctl.body import put
from gateway.ctl.commands import COMMANDS, parse, resources
from gateway.ctl.errors import CtlError
from gateway.ctl.show import as_json, as_text, escaped
from tests.gateway_process import ADMIN_KEY, ROOT, Gateway, run_cli
from tests.integration.conftest import StartGateway
from tests.planted import place_of_secrets

Ctl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def running(start_shared_gateway: StartGateway) -> Gateway:
    gateway = start_shared_gateway("""
        providers:
          - {name: echo, type: echo, options: {interval_seconds: 0.001}}
        model_aliases: [{from: fast, to: echo/echo-small}]
    """)
    gateway.expect_log("made a master key")
    return gateway


@pytest.fixture
def ctl(running: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """``ctl("providers", "list")``: exit status, standard output, standard error."""
    monkeypatch.setenv("SLUICE_URL", running.url)
    monkeypatch.setenv("SLUICE_ADMIN_KEY", ADMIN_KEY)

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(["ctl", *arguments])
        except SystemExit as end:
            status = int(str(end.code))
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_entries_are_made_listed_changed_and_removed(ctl: Ctl, running: Gateway, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text("# as in the configuration\nname: local\ntype: echo\nmodels: [a, 'b*']\n")
    status, out, err = ctl("providers", "create", "-f", str(tmp_path / "new.yaml"), "--set", "models.1=c")
    assert (0, "") == (status, err)
    assert re.search(r"^models +a, c$", out, re.MULTILINE)
    status, out, _ = ctl("providers", "list")
    assert 0 == status
    assert ["NAME", "echo", "local"] == [line.split()[0] for line in out.splitlines()]
    # What is there is read first, and its revision sent along.
    assert 0 == ctl("providers", "patch", "local", "--set", 'models=["d"]')[0]
    assert "models: [d]" in running.config.read_text().replace('"', "")
    status, _, err = ctl("providers", "delete", "local", "--if-match", "0" * 64)
    assert 1 == status
    assert err.startswith("sluice: config_error-stale: ")
    assert (0, "", "") == ctl("providers", "delete", "local")
    assert "local" not in running.config.read_text()


def test_a_document_comes_as_it_is_and_goes_back(ctl: Ctl, running: Gateway, tmp_path: Path) -> None:
    status, out, err = ctl("config", "document")
    assert (0, "") == (status, err)
    copy = tmp_path / "copy.yaml"
    copy.write_text(out.replace("fast", "faster"))
    assert 0 == ctl("config", "replace-document", "-f", str(copy))[0]
    assert "faster" in running.config.read_text()
    copy.write_text(out)
    assert 0 == ctl("config", "replace-document", "--body", str(copy), "--json")[0]
    running.settle()
    assert 1 == len(ctl("revisions", "list", "--limit", "1", "--json")[1].split('"id"')) - 1


def test_a_refusal_names_its_code_its_faults_and_its_mend(ctl: Ctl) -> None:
    route = '[{"name": "x", "match": {"model": "a"}, "targets": ["nowhere/a"]}]'
    status, out, err = ctl("config", "patch", "--set", f"routes={route}")
    assert (1, "") == (status, out)
    assert "sluice: config_error-invalid: " in err
    assert re.search(r"^  \S*config\.yaml:\d+:\d+: routes\[0\].*nowhere", err, re.MULTILINE), err
    assert "404" not in ctl("tokens", "get", "tok_none")[2]
    assert ctl("tokens", "get", "tok_none")[2].startswith("sluice: token_error-not_found: There is no token `tok_none`")


def test_lists_go_on_where_a_page_ends(ctl: Ctl) -> None:
    made = [json.loads(ctl("tokens", "create", "--set", f"name=page-{n}", "--json")[1])["id"] for n in range(3)]
    status, out, err = ctl("tokens", "list", "--limit", "2")
    assert (0, 3) == (status, len(out.splitlines()))
    found = re.search(r"there is more: --cursor (\S+), or --all", err)
    assert found is not None
    assert made[0] in ctl("tokens", "list", "--limit", "2", "--cursor", found[1])[1]
    _, out, err = ctl("tokens", "list", "--limit", "1", "--all", "--json")
    assert "" == err
    assert {*made, "file:tester"} <= {each["id"] for each in json.loads(out)["data"]}
    assert ctl("tokens", "list", "--all", "--include-revoked")[1].count("page-") == 3


def test_names_go_into_the_path_whatever_they_are(ctl: Ctl) -> None:
    assert 0 == ctl("aliases", "create", "--set", "from=a/b*?#%", "--set", "to=echo/echo-small")[0]
    assert "a/b*?#%" in ctl("aliases", "get", "a/b*?#%")[1]
    assert (0, "", "") == ctl("aliases", "delete", "a/b*?#%")


def test_where_there_is_one_verb_it_may_be_left_out(ctl: Ctl) -> None:
    assert ctl("health", "get", "--json")[1].splitlines()[1] == ctl("health", "--json")[1].splitlines()[1]
    assert "echo/echo-small" in ctl("explain", "--set", "model=fast")[1]
    assert (0, "status  alive\n", "") == ctl("healthz")
    assert "sluice_requests_total" in ctl("metrics")[1]


def test_a_body_may_come_from_standard_input_and_secrets_from_files(
    running: Gateway, tmp_path: Path, planted_secret: str
) -> None:
    place_of_secrets(tmp_path / "key").write_text(f"{ADMIN_KEY}\n")
    place_of_secrets(tmp_path / "secret").write_text(f"{planted_secret}\n")
    status, out, err = run_cli(
        *("ctl", "--url", running.url, "--key-file", tmp_path / "key", "providers", "create", "-f", "-"),
        *(
            "--set",
            "credentials.0.api_key.action=set",
            "--set-file",
            f"credentials.0.api_key.value={tmp_path / 'secret'}",
        ),
        cwd=tmp_path,
        stdin='{"name": "sealed", "type": "openai", "credentials": [{"name": "main"}]}',
        extra={"SLUICE_ADMIN_KEY": "not-this-one"},
    )
    assert (0, "") == (status, err)
    assert "sealed" in out
    assert "${sealed:" in running.config.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nothing",), "invalid choice: 'nothing'"),
        (("tokens",), "the following arguments are required: VERB"),
        (("tokens", "get"), "the following arguments are required: ID"),
        (("tokens", "create"), "give the body: -f FILE, or --set KEY=VALUE"),
        (("tokens", "create", "--set", "name"), "'name' is not KEY=VALUE"),
        (("tokens", "list", "--lim", "1"), "unrecognized arguments"),
    ],
)
def test_wrong_usage_is_told_with_what_there_is(ctl: Ctl, arguments: tuple[str, ...], told: str) -> None:
    status, out, err = ctl(*arguments)
    assert (2, "") == (status, out)
    assert told in err
    assert "usage: sluice ctl" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--url", "http://127.0.0.1:1", "health"),
            "cannot be asked: Connection refused; name a running gateway by --url",
        ),
        (("--url", "ftp://x", "health"), "ftp://x is not the address of a gateway"),
        (("--url", "http://[::1", "health"), "is not the address of a gateway"),
        (("--url", "http://127.0.0.1:99999", "health"), "is not the address of a gateway"),
        (("--key-file", "/nowhere", "health"), "the key cannot be read from /nowhere"),
        (("--url", "https://127.0.0.1:1", "--ca", "/nowhere", "health"), "--ca /nowhere"),
        (("tokens", "create", "-f", "/nowhere"), "/nowhere cannot be read"),
        (("tokens", "create", "--set", "name=a", "--set", "name.b=c"), "--set name.b: `b` cannot be set"),
    ],
)
def test_what_cannot_be_done_is_told_with_a_mend(ctl: Ctl, arguments: tuple[str, ...], told: str) -> None:
    status, out, err = ctl(*arguments)
    assert (1, "") == (status, out)
    assert err.startswith("sluice: ")
    assert told in err


def test_without_a_key_nothing_is_asked(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLUICE_ADMIN_KEY")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert "no key: put the admin key, or an API token, into SLUICE_ADMIN_KEY" in ctl("health")[2]
    assert 0 == ctl("healthz")[0]
    for key in ("a b", "schlüssel"):
        monkeypatch.setenv("SLUICE_ADMIN_KEY", key)
        assert "is no key" in ctl("health")[2]


def test_every_operation_is_a_command_whose_help_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit):
            parse([command.named.resource, command.named.verb, "--help"])
        out = capsys.readouterr().out
        assert f"({command.route.method} {command.route.path})" in out.replace("\n", " ")
    with pytest.raises(SystemExit):
        parse(["--help"])
    out = capsys.readouterr().out
    assert [] == [resource for resource in resources() if f"\n    {resource}" not in out]


def test_what_demands_a_revision_can_read_one() -> None:
    assert [] == [each.named for each in COMMANDS if each.route.operation.if_match and each.shown_by is None]


def _commands_of_pages() -> list[tuple[str, str, str]]:
    found = []
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        for resource, rest in re.findall(r"\./sluice ctl ([a-z][a-z.-]*)([^\n`|#]*)", page.read_text()):
            found.append((page.name, resource, (rest.split() or [""])[0]))
    return found


def test_a_command_that_a_page_names_exists() -> None:
    for page, resource, verb in _commands_of_pages():
        assert resource in resources(), f"{page}: {resource}"
        verbs = [command.named.verb for command in resources()[resource]]
        assert verb in {*verbs, "--help"} or len(verbs) == 1, f"{page}: {resource} {verb}"


@pytest.mark.parametrize(
    ("before", "key", "value", "after"),
    [
        ({}, "a", 1, {"a": 1}),
        ({}, "a.b.c", 1, {"a": {"b": {"c": 1}}}),
        ({"a": None}, "a.b", 1, {"a": {"b": 1}}),
        ({}, "a.0.b", 1, {"a": [{"b": 1}]}),
        ({"a": [1, 2]}, "a.1", 3, {"a": [1, 3]}),
        ({"a": [1]}, "a.1", 2, {"a": [1, 2]}),
    ],
)
def test_a_member_is_put_where_its_key_says(before: dict[str, Any], key: str, value: Any, after: Any) -> None:
    put(before, key, value)
    assert after == before


@pytest.mark.parametrize("key", ["a.x", "a.5", "b.c"])
def test_a_member_has_no_place_in_what_is_no_object(key: str) -> None:
    with pytest.raises(CtlError, match="cannot be set"):
        put({"a": [1], "b": "text"}, key, 1)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ({"data": [], "next_cursor": None}, []),
        (
            {"data": [{"name": "a", "n": 1, "none": None, "deep": [{"x": 1}]}, {"name": "bcd", "n": None, "on": True}]},
            ["NAME  N  ON", "a     1  -", "bcd   -  yes"],
        ),
        (
            {"data": [{"limit": {"requests": 60, "per": "hour", "usd": None}, "match": {}}, {"limit": None}]},
            ["LIMIT", "requests 60, per hour", "-"],
        ),
        ({"a": 1, "b": {"c": ["x", "y"], "d": {}}}, ["a    1", "b.c  x, y", "b.d  -"]),
        ({"a": 1, "rows": [{"x": 1}]}, ["a  1", "rows", "  X", "  1"]),
        ({"mixed": [[1], {"x": 1}]}, ["mixed", "  1", "  x 1"]),
        ([{"x": "a\x1b[31mb"}], ["X", "a\\x1b[31mb"]),
        ("text", ["text"]),
    ],
)
def test_answers_become_tables_and_lines(value: Any, lines: list[str]) -> None:
    assert lines == list(as_text(value))


def test_on_a_terminal_long_cells_are_cut_and_nothing_is_obeyed() -> None:
    assert ["X", "a" * 47 + "…"] == list(as_text([{"x": "a" * 100}], cut=True))
    assert "\\x9b\\u202e" == escaped("\x9b\u202e")
    assert "\x9b" not in as_json({"a": "\x9b\x7f"})
    assert {"a": "\x9b\x7fü"} == json.loads(as_json({"a": "\x9b\x7fü"}))
