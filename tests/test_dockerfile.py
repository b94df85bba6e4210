"""No container engine runs here: what the image is made of is read instead."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from wcmatch import glob

from config.schema import Server

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    rest: str

    def words(self) -> list[str]:
        """Its arguments; of the JSON form too."""
        text = self.rest[self.rest.index("[") :] if "[" in self.rest else None
        return [str(word) for word in json.loads(text)] if text else self.rest.split()


def _stages() -> list[list[Instruction]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    stages: list[list[Instruction]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, rest.strip()))
    return stages


def _copied() -> list[str]:
    """Every source that comes from the tree."""
    copies = [one.words() for stage in _stages() for one in stage if one.name == "COPY"]
    return [source for words in copies if not words[0].startswith("--from") for source in words[:-1]]


def _last(name: str) -> Instruction:
    return [one for one in _stages()[-1] if one.name == name][-1]


def _reaches_the_builder(path: str) -> bool:
    """By the rules of .dockerignore: the last line that matches the path or a directory above it decides."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    above = [path, *map(str, Path(path).parents)]
    ignored = False
    for line in lines:
        pattern = line.removeprefix("!").rstrip("/")
        if any(glob.globmatch(one, pattern, flags=glob.GLOBSTAR | glob.DOTGLOB) for one in above):
            ignored = not line.startswith("!")
    return not ignored


@pytest.mark.parametrize("source", _copied())
def test_a_copied_source_exists_and_reaches_the_builder(source: str) -> None:
    assert (ROOT / source).exists()
    path = source.rstrip("/")
    assert _reaches_the_builder(path if (ROOT / path).is_file() else f"{path}/__init__.py")


@pytest.mark.parametrize("source", _copied())
def test_a_copied_source_is_not_ignored_by_git(source: str) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    # 1: no pattern of .gitignore takes it.
    assert 1 == subprocess.run(["git", "check-ignore", "--quiet", source], cwd=ROOT, check=False).returncode


@pytest.mark.parametrize("path", [".env", "config.yaml", "tests/conftest.py", "core/__pycache__/ids.pyc", ".git/HEAD"])
def test_what_the_image_does_not_need_stays_away_from_the_builder(path: str) -> None:
    assert not _reaches_the_builder(path)


def test_every_package_of_the_program_is_copied_and_compiled() -> None:
    packages = {place.parent.name for place in ROOT.glob("*/__init__.py")} - {"bench"}
    assert packages == {source.rstrip("/") for source in _copied() if source.endswith("/")}
    compiled = next(one for one in _stages()[0] if one.name == "RUN" and "compileall" in one.rest)
    assert packages == set(compiled.rest.partition(" -q ")[2].split())


def test_it_installs_by_the_command_that_make_run_uses() -> None:
    runs = [one.rest for one in _stages()[0] if one.name == "RUN"]
    assert "./sluice --setup" in runs
    assert "./sluice serve" in (ROOT / "Makefile").read_text()


def test_the_last_stage_runs_as_a_number_that_is_not_root() -> None:
    user = _last("USER").rest
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_the_last_stage_installs_nothing() -> None:
    assert 2 <= len(_stages())
    assert not [one for one in _stages()[-1] if one.name in {"RUN", "ADD"}]


def test_the_stages_are_of_one_image_as_an_environment_belongs_to_its_interpreter() -> None:
    assert 1 == len({stage[0].words()[0] for stage in _stages()})


def test_its_health_is_asked_by_the_program_itself() -> None:
    assert ["./sluice", "health"] == _last("HEALTHCHECK").words()[:2]


def test_the_exposed_port_is_the_one_that_is_listened_on() -> None:
    port = _last("EXPOSE").rest
    listen = _last("CMD").words()
    assert f"0.0.0.0:{port}" == listen[listen.index("--listen") + 1]
    assert port == Server().listen.rpartition(":")[2]
