"""The strictness of conftest.py itself: a pytest of its own runs tests that must not pass."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import planted

ROOT = Path(__file__).resolve().parent.parent
_MODULE = """
import asyncio
import base64
import logging
import subprocess
import sys
import traceback
import warnings

import pytest

from core.events import ConfigApplied, Events
from tests.planted import place_of_secrets, planted, planted_key
from telemetry.logs import REDACTED_VALUE

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


def test_fails_for_a_secret_in_base64(planted_secret):
    log.info("Basic %s", base64.b64encode(f"user:{planted_secret}".encode()).decode())


def test_fails_for_a_key_in_hexadecimal_digits():
    log.info("the key is %s", planted_key("master-key").hex())


def test_fails_for_a_secret_in_a_traceback_with_locals(tmp_path, planted_secret):
    def leaky(key):
        raise ValueError("no word of it")

    try:
        leaky(planted_secret)
    except ValueError as error:
        shown = traceback.TracebackException.from_exception(error, capture_locals=True)
        (tmp_path / "traceback.txt").write_text("".join(shown.format()))


def test_fails_for_a_secret_in_a_file(tmp_path, planted_secret):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/core.4711").write_bytes(bytes(1000) + planted_secret.encode())


def test_passes_with_a_secret_in_its_place(tmp_path, planted_secret):
    place_of_secrets(tmp_path / ".env").write_text(planted_secret)


def test_fails_for_a_secret_that_a_child_says_on_standard_error(planted_secret):
    subprocess.run([sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", planted_secret], stderr=2)


def test_fails_for_a_secret_that_a_child_says_through_a_pipe(planted_secret):
    subprocess.run([sys.executable, "-c", "import sys; sys.exit(sys.argv[1])", planted_secret], stderr=subprocess.PIPE)


def test_fails_for_a_secret_in_an_event(planted_secret):
    Events().emit(ConfigApplied(revision=planted_secret, trigger="watch", duration_seconds=1.0))


def test_fails_for_a_secret_that_a_test_takes_from_the_output(capsys, planted_secret):
    print(planted_secret)
    capsys.readouterr()


def test_fails_for_a_value_that_the_log_had_to_mask():
    print(f"the key is {REDACTED_VALUE}")


@pytest.mark.parametrize("key", [planted("parameter")])
def test_passes_with_a_secret_for_a_parameter(key):
    assert key


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def test_passes_though_the_session_does_not(place):
    (place / "state.json").write_text(planted("left"))
"""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run_inner(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs ``_MODULE`` below the real settings and conftest.py, with further arguments for pytest."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py", "tests/servers.py"):
        shutil.copy(ROOT / name, tree / name)
    # Another mark: what these tests leak is no find of the session that runs them.
    searched = (ROOT / "tests/planted.py").read_text().replace(planted._MARK, "planted-other-0b")
    planted.place_of_secrets(tree / "tests/planted.py").write_text(searched)
    (tree / "tests/test_inner.py").write_text(_MODULE)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-rA", "--no-header", "--tb=no", "-p", "no:cacheprovider"]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], cwd=tree, env=environment, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def outcomes(run_inner: Run) -> dict[str, set[str]]:
    """Test → its outcomes in all phases."""
    run = run_inner()
    found: dict[str, set[str]] = {}
    for line in run.stdout.splitlines():
        word, _, rest = line.partition(" tests/test_inner.py::")
        if rest and word in {"PASSED", "FAILED", "ERROR"}:
            found.setdefault(rest.split()[0], set()).add(word)
    assert 23 == len(found), run.stdout + run.stderr
    return found


def test_what_is_silent_passes(outcomes: dict[str, set[str]]) -> None:
    assert [{"PASSED"}] * 5 == [seen for name, seen in outcomes.items() if "passes" in name]


def test_what_is_not_silent_fails(outcomes: dict[str, set[str]]) -> None:
    passed = [name for name, seen in outcomes.items() if "fails" in name and not seen & {"FAILED", "ERROR"}]
    assert [] == passed


def test_a_find_in_what_the_session_left_fails_it_by_file_and_label(run_inner: Run) -> None:
    run = run_inner("-k", "though_the_session_does_not")
    # By no status that tests fail with: those may be run again.
    assert (pytest.ExitCode.INTERNAL_ERROR, "") == (run.returncode, run.stderr)
    assert "1 passed" in run.stdout
    _, _, told = run.stdout.partition("planted secrets in what the session left")
    (find,) = told.splitlines()[1:]
    assert re.fullmatch(r"the planted secret `left` is in the file \S+/shared0/state\.json", find)


def test_a_find_does_not_show_the_secret_again(run_inner: Run) -> None:
    run = run_inner("--tb=short", "--show-capture=no", "-k", "secret_in_an_event or secret_in_a_file")
    assert "the planted secret `secret` is in the event ConfigApplied" in run.stdout
    assert re.search(r"the planted secret `secret` is in the file \S+/deep/core\.4711", run.stdout)
    assert "planted-" not in run.stdout
