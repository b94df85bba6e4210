"""The shape of the tree: names, layers, sizes, locks."""

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAX_LINES = 400
LONG_FILES: dict[str, str] = {
    # file: why it is better long
    "config/schema.py": "one table of all keys, in the order of the document; it grows with them, and is read by search",
    "core/errors.py": "one tree of all errors, drawn at its top: it is read as a whole",
    "core/events.py": "one table of all events, which docs/webhooks.md repeats; it grows with them, and is read by search",
}

_MADE = {".git", ".venv", ".venv-dev", ".cache", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
_MADE |= {"__pycache__", "node_modules", "data"}


def _packages() -> set[str]:
    return {place.parent.name for place in ROOT.glob("*/__init__.py")}


def _tree() -> Iterator[Path]:
    """The files that belong to the project: those that git has or would take; without git, all that no tool made."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        yield from (ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())
        return
    for path in ROOT.rglob("*"):
        if path.is_file() and not _MADE & set(path.relative_to(ROOT).parts):
            yield path


def test_no_package_is_named_like_a_module_of_the_standard_library() -> None:
    assert set() == (_packages() | {"tests", "tools"}) & sys.stdlib_module_names


def test_no_package_is_named_like_one_of_an_installed_distribution() -> None:
    installed = importlib.metadata.packages_distributions()
    assert {} == {name: installed[name] for name in _packages() | {"tests", "tools"} if name in installed}


def test_every_package_is_under_the_import_contracts_the_types_and_the_coverage() -> None:
    layers = " | ".join(SETTINGS["tool"]["importlinter"]["contracts"][0]["layers"]).split(" | ")
    assert _packages() == set(layers)
    assert sorted(_packages()) == SETTINGS["tool"]["importlinter"]["root_packages"]
    assert _packages() | {"tests", "tools"} == set(SETTINGS["tool"]["mypy"]["files"])
    assert _packages() - {"bench"} == set(SETTINGS["tool"]["coverage"]["run"]["source"])


def _imported(path: Path) -> set[str]:
    """What a file imports anywhere in it, and the modules that hold it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_the_program_speaks_http_by_its_own_transport() -> None:
    # Packages as a whole are the import contracts' matter (aiohttp is); they cannot name a part of a foreign one.
    others = {"httpclient", "simple_httpclient", "curl_httpclient", "http1connection", "httpserver", "tcpserver"}
    stock = {f"tornado.{name}" for name in others}
    files = [
        path for path in _tree() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] not in ("tests", "bench")
    ]
    assert {} == {str(path.relative_to(ROOT)): found for path in files if (found := _imported(path) & stock)}


def test_a_long_file_has_its_reason() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in _tree()
        if path.suffix == ".py"
        and path.relative_to(ROOT).parts[0] != "tests"
        and len(path.read_text().splitlines()) > MAX_LINES
    }
    assert set(LONG_FILES) == long


def test_no_file_names_a_machine_or_a_registry() -> None:
    # In pieces, so that this file does not hold what it looks for.
    addresses = ["pypi" + r"\.org", "python" + r"hosted\.org", "registry" + r"\.npmjs", "npmjs" + r"\.(com|org)/"]
    places = [r"(?<![\w.}])/" + "root" + r"\b", r"(?<![\w.}])/" + "work" + "/", r"(?<![\w.}])/" + r"home/\w"]
    told = re.compile("|".join(addresses + places))
    found = []
    for path in _tree():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}:{n}: {line[:100]}" for n, line in enumerate(lines, 1) if told.search(line)]
    assert [] == found


def test_the_version_is_the_same_everywhere() -> None:
    assert SETTINGS["project"]["version"] == VERSION


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def _canonical(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_the_locks_name_every_dependency_and_agree_with_each_other() -> None:
    run, dev = _pins("run.txt"), _pins("dev.txt")
    assert set() == {_canonical(one) for one in SETTINGS["project"]["dependencies"]} - run.keys()
    assert set() == {_canonical(one) for one in SETTINGS["dependency-groups"]["dev"]} - dev.keys()
    assert run == {name: version for name, version in dev.items() if name in run}


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_a_lock_has_hashes_for_everything_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert [] == [block.split()[0] for block in blocks if "--hash=sha256:" not in block]
    assert None is re.search(r"://|^-", text, re.MULTILINE)


def test_the_lock_of_the_node_servers_has_hashes_and_no_address() -> None:
    text = (ROOT / "tests/node/package-lock.json").read_text()
    assert '"integrity"' in text
    assert "://" not in text
