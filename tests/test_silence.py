"""The strictness of conftest.py itself: a pytest of its own runs tests that must not pass."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_MODULE = """
import asyncio
import logging
import warnings

log = logging.getLogger("quiet.one")
kept = []


def test_passes_with_an_expected_record(expect_log):
    with expect_log("two h[aeiou]lves"):
        log.warning("two %s", "halves")


async def test_passes_on_uvloop():
    assert "uvloop" in type(asyncio.get_running_loop()).__module__


def test_fails_for_a_warning_in_the_log():
    log.propagate = False
    log.warning("nobody expects it")


def test_fails_when_an_expected_record_does_not_come(expect_log):
    with expect_log("never said"):
        log.info("something else")


def test_fails_for_a_warning_of_python():
    warnings.warn("old", DeprecationWarning)


async def test_fails_for_a_task_that_is_left():
    kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(60)))


def test_fails_for_a_file_that_is_not_closed():
    open("/dev/null")


def test_fails_for_a_secret_in_a_quiet_record(planted_secret):
    log.info("the key is %s", planted_secret)


def test_fails_for_a_secret_in_an_extra_field(planted_secret):
    log.info("asked", extra={"key": planted_secret})


def test_fails_for_a_secret_in_a_traceback(planted_secret, expect_log):
    with expect_log("failed"):
        try:
            raise ValueError(planted_secret)
        except ValueError:
            log.exception("failed")


def test_fails_for_a_secret_that_is_printed(planted_secret):
    print(planted_secret)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Test → its outcomes in all phases, from a run of ``_MODULE`` below the real settings and conftest.py."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py", "tests/servers.py"):
        shutil.copy(ROOT / name, tree / name)
    (tree / "tests/test_inner.py").write_text(_MODULE)
    command = [sys.executable, "-m", "pytest", "-rA", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    found: dict[str, set[str]] = {}
    for line in run.stdout.splitlines():
        word, _, rest = line.partition(" tests/test_inner.py::")
        if rest and word in {"PASSED", "FAILED", "ERROR"}:
            found.setdefault(rest.split()[0], set()).add(word)
    assert 11 == len(found), run.stdout + run.stderr
    return found


def test_what_is_silent_passes(outcomes: dict[str, set[str]]) -> None:
    assert [{"PASSED"}] * 2 == [seen for name, seen in outcomes.items() if "passes" in name]


def test_what_is_not_silent_fails(outcomes: dict[str, set[str]]) -> None:
    passed = [name for name, seen in outcomes.items() if "fails" in name and not seen & {"FAILED", "ERROR"}]
    assert [] == passed
