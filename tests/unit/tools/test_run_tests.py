from pathlib import Path

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
