"""`./sluice` in a tree of its own, with a package of its own to install: no registry is asked."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each makes environments, some seconds apiece: more on a machine that is busy.
pytestmark = pytest.mark.timeout(900)

_PROGRAM = """
import sys, tiny
print(tiny.VERSION, sys.argv[1:])
sys.exit(int(sys.argv[1]))
"""


class Tree:
    """A checkout with the launcher, a `gateway` that prints what it sees, and a lock of one package."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("sluice", "tools/environment", "tools/environment.py"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
        (place / "requirements").mkdir()
        (place / "gateway").mkdir()
        (place / "gateway/__init__.py").touch()
        (place / "gateway/__main__.py").write_text(_PROGRAM)
        self.lock("1.0")

    def lock(self, version: str, digest: str | None = None) -> None:
        """Have the lock demand ``version``; ``digest`` in place of the true one."""
        wheel = self.place / f"tiny-{version}-py3-none-any.whl"
        _write_wheel(wheel, version)
        digest = digest or hashlib.sha256(wheel.read_bytes()).hexdigest()
        (self.place / "requirements/run.txt").write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n")

    def start(
        self, *arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if name != "SLUICE_VENV"}
        return subprocess.Popen(
            [self.place / "sluice", *arguments],
            cwd=cwd or self.place,
            env=inherited | {"PYTHON": sys.executable} | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = self.start(*arguments, cwd=cwd, environment=environment)
        output, errors = process.communicate(timeout=200)
        return process.returncode, output, errors


def _write_wheel(path: Path, version: str) -> None:
    """The smallest wheel (https://packaging.python.org/en/latest/specifications/binary-distribution-format/)."""
    info = f"tiny-{version}.dist-info"
    files = {
        "tiny.py": f'VERSION = "tiny {version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        record += f"{name},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            archive.writestr(name, text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A tree whose environment was made by two starts at the same time."""
    tree = Tree(tmp_path_factory.mktemp("tree") / "with space")
    first, second = tree.start("0"), tree.start("0")
    ends = [(*process.communicate(timeout=200), process.returncode) for process in (first, second)]
    assert ["tiny 1.0 ['0']\n"] * 2 == [output for output, _, _ in ends]
    assert [0, 0] == [status for _, _, status in ends]
    # Whether the second had to wait is a matter of luck; that only one installed is not.
    assert 1 == sum("installing" in errors for _, errors, _ in ends)
    # What it does is told as it goes, in few lines, and on standard error alone.
    told = next(errors for _, errors, _ in ends if "installing" in errors)
    assert "sluice: downloading: 1 of 1 packages\nsluice: unpacking 1 packages" in told
    assert "Processing" not in told
    return tree


def test_a_later_start_installs_nothing_and_gives_the_programs_exit_status(made: Tree) -> None:
    assert (7, "tiny 1.0 ['7', 'a b', '*']\n", "") == made.run("7", "a b", "*")


def test_the_directory_it_is_called_from_can_shadow_nothing(made: Tree, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway/__main__.py").write_text("print('another program')")
    assert (0, "tiny 1.0 ['0']\n", "") == made.run("0", cwd=tmp_path)


def test_it_runs_through_a_symbolic_link(made: Tree, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made.place / "sluice")
    environment = {name: value for name, value in os.environ.items() if name != "SLUICE_VENV"}
    run = subprocess.run([tmp_path / "link", "0"], env=environment, capture_output=True, text=True, check=True)
    assert "tiny 1.0 ['0']\n" == run.stdout


def test_the_set_up_alone_runs_no_program(made: Tree) -> None:
    assert (0, "", "") == made.run("--setup")


def test_a_given_environment_is_used_as_it_is(made: Tree, tmp_path: Path) -> None:
    status, _, errors = made.run("0", environment={"SLUICE_VENV": str(tmp_path)})
    assert 127 == status
    assert f"{tmp_path}/bin/python" in errors


def test_a_wrong_hash_stops_it_and_a_changed_lock_is_installed_from_scratch(made: Tree) -> None:
    leftover = made.place / ".venv/leftover"
    leftover.touch()
    made.lock("2.0", digest="0" * 64)
    status, output, errors = made.run("0")
    assert (1, "") == (status, output)
    assert "DO NOT MATCH THE HASHES" in errors
    assert "the next start tries again" in errors
    # As after a kill in the middle: what is there has no stamp, so it is not trusted.
    made.lock("2.0")
    status, output, errors = made.run("0")
    assert (0, "tiny 2.0 ['0']\n") == (status, output)
    assert "installing run.txt" in errors
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("echo 'pyenv: python3: command not found' >&2; exit 127", "pyenv: python3: command not found"),
        (f"shift; exec '{sys.executable}' -c 'import sys; sys.exit(\"it is Python 3.9\")'", "it is Python 3.9"),
    ],
)
def test_without_a_fitting_python_it_says_what_it_tried(tmp_path: Path, answer: str, told: str) -> None:
    tree = Tree(tmp_path / "tree")
    fake = tmp_path / "bin/python3"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{answer}\n")
    fake.chmod(0o755)
    for name in ("dirname", "readlink", "cmp", "head", "sh"):
        found = shutil.which(name)
        assert found
        (tmp_path / "bin" / name).symlink_to(found)
    status, output, errors = tree.run("0", environment={"PATH": str(tmp_path / "bin"), "PYTHON": ""})
    assert (1, "") == (status, output)
    assert f"{fake}: {told}" in errors
    assert "Python 3.11 or later is needed to make .venv" in errors
