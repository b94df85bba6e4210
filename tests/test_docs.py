"""What the documents say is so: links, commands, dependencies, the configuration of the README."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.events import EVENTS
from gateway.cli import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _code(page: Path, language: str) -> list[str]:
    return [text for found, text in _FENCE.findall(page.read_text()) if found == language]


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def _anchors(page: Path) -> set[str]:
    """The anchors of its headings, as hosts of Markdown make them: small letters, hyphens, no marks."""
    headings = re.findall(r"^#+ (.+)$", _prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(*link, id=f"{link[0].name}:{link[1]}") for link in _links()])
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    assert found.exists()
    assert not anchor or anchor in _anchors(found)


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {ROOT / "README.md"}, [ROOT / "README.md"]
    while waiting:
        here = waiting.pop()
        targets = {(page.parent / target.partition("#")[0]).resolve() for page, target in _links() if page == here}
        waiting += [page for page in targets & set(PAGES) if page not in reached]
        reached |= targets
    assert set() == set(PAGES) - reached


def test_a_make_command_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = "\n".join([*re.findall(r"`([^`\n]+)`", _prose(page)), *_code(page, "sh")])
        assert set() == set(re.findall(r"\bmake ([a-z-]+)", text)) - targets, page


def test_a_sluice_command_that_a_page_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = set(re.findall(r"^    ([a-z-]+)(?: |$)", capsys.readouterr().out, re.MULTILINE))
    assert "serve" in commands
    for page in PAGES:
        assert set() == set(re.findall(r"\./sluice ([a-z][a-z-]*)", page.read_text())) - commands, page


def test_the_configuration_of_the_readme_loads_and_its_route_tests_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = _code(ROOT / "README.md", "yaml")
    assert 20 >= len(text.splitlines())
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("SLUICE_TOKEN_SHA256", "0" * 64)
    status = main(["check", "--config", str(tmp_path / "config.yaml")])
    assert 0 == status, capsys.readouterr().out


def test_what_the_readme_says_it_is_takes_five_lines() -> None:
    first = _prose(ROOT / "README.md").split("\n## ")[0].split("\n\n")[1]
    assert 5 == len(first.strip().splitlines())


def _documented(heading: str) -> set[str]:
    section = (ROOT / "docs/dependencies.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \| \S", section, re.MULTILINE))


def test_every_dependency_has_its_reason_and_no_other_has_one() -> None:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_node: dict[str, Any] = json.loads((ROOT / "tests/node/package.json").read_text())
    of_oauth: dict[str, Any] = json.loads((ROOT / "tests/oauth/package.json").read_text())
    of_client: dict[str, Any] = json.loads((ROOT / "web/client/package.json").read_text())
    for heading, wanted in {
        "To run": settings["project"]["dependencies"],
        "To develop": settings["dependency-groups"]["dev"],
        "From npm, for tests alone": of_node["dependencies"] | of_oauth["dependencies"],
        "From npm, for the TypeScript client": of_client["dependencies"] | of_client["devDependencies"],
    }.items():
        assert {re.split(r"[<>=]", one)[0] for one in wanted} == _documented(heading), heading


def test_every_event_is_documented_with_its_fields_in_their_order() -> None:
    section = (ROOT / "docs/webhooks.md").read_text().split("\n## Events\n")[1].split("\n## ")[0]
    documented: dict[str, list[str]] = {}
    before: list[str] = []
    for name, fields in re.findall(r"^\| `([a-z_.]+)` \| \S.* \| (.*) \|$", section, re.MULTILINE):
        before = before if fields == "the same" else re.findall(r"`([a-z_]+)`", fields)
        documented[name] = before
    assert {kind.name: list(kind.__struct_fields__) for kind in EVENTS} == documented
