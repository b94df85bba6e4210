import sys
from pathlib import Path

import pytest

from tools import run_tests

ROOT = run_tests.ROOT


def _runs(session: list[str], file: str) -> bool:
    """Whether pytest, told so, runs the tests of ``file``."""
    ignored = [argument.removeprefix("--ignore=") for argument in session if argument.startswith("--ignore=")]
    return any(Path(file).is_relative_to(place) for place in session) and not any(
        Path(file).is_relative_to(place) for place in ignored
    )


def test_each_file_of_tests_is_in_one_session() -> None:
    sessions = run_tests.sessions()
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    assert dict.fromkeys(files, 1) == {file: sum(_runs(each, file) for each in sessions) for file in files}
    assert all(Path(ROOT, place.removeprefix("--ignore=")).exists() for session in sessions for place in session)


SESSION = """
import sys
from pathlib import Path
runs = Path(sys.argv[1])
runs.write_text(runs.read_text() + "x")
sys.exit(runs.read_text() in sys.argv[2].split(","))
"""
"""In pytest's place: fails at the runs that it is told, as `x,xxx`, and counts them."""


@pytest.mark.parametrize(
    ("tests", "fails_at", "runs", "outcome"),
    [
        (["a::one"], "", 3, True),
        (["a::one", "b::two", "c::three"], "xxxx", 3, True),
        (["a::one", "b::two", "c::three", "d::four"], "", 0, False),
        ([], "", 0, False),
        (["a::one"], "x", 1, False),
        (["a::one"], "xxx", 3, False),
    ],
)
def test_tests_that_failed_count_as_starved_where_few_pass_three_times_alone(
    tests: list[str],
    fails_at: str,
    runs: int,
    outcome: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counted = tmp_path / "runs"
    counted.touch()
    monkeypatch.setattr(run_tests, "_PYTEST", (sys.executable, "-ISc", SESSION, str(counted), fails_at))
    assert outcome is run_tests.starved(tests, ["-q"])
    assert "x" * runs == counted.read_text()
    told = capsys.readouterr().out
    assert tests * outcome == [line.strip() for line in told.splitlines() if line.startswith("    ")]


def test_what_has_failed_is_read_from_the_caches_of_all_sessions(tmp_path: Path) -> None:
    assert [] == run_tests.failed(tmp_path)
    for session, text in (("a", '{"tests/x.py::one": true}'), ("b", '{"tests/y.py::two[1]": true}'), ("c", "{}")):
        (tmp_path / session / "v/cache").mkdir(parents=True)
        (tmp_path / session / "v/cache/lastfailed").write_text(text)
    assert ["tests/x.py::one", "tests/y.py::two[1]"] == run_tests.failed(tmp_path)


@pytest.mark.parametrize(
    ("waiting", "unmeasured", "beside", "starved", "status"),
    [
        (0, 0, 0, False, 0),
        (5, 0, 5, False, 0),
        (5, 5, 5, True, 5),
        (1, 5, 0, True, 0),
        (1, 0, 1, False, 1),
        (1, 2, 0, True, 2),
        (0, 0, -11, True, 11),
    ],
    ids=["all pass", "some have none", "none has any", "starved", "failed", "ended", "killed"],
)
def test_the_worst_of_the_sessions_counts_but_for_those_without_tests(
    waiting: int,
    unmeasured: int,
    beside: int,
    starved: bool,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes = {"waiting": waiting, "unmeasured": unmeasured, "beside": beside}
    monkeypatch.setattr(run_tests, "_CACHES", tmp_path)
    monkeypatch.setattr(run_tests, "_session", lambda name, *_: abs(codes[name]))
    monkeypatch.setattr(run_tests, "starved", lambda *_: starved)
    assert status == run_tests.main([])
