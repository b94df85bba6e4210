from pathlib import Path

from tools import run_tests

ROOT = run_tests.ROOT


def test_each_file_of_tests_is_in_one_session() -> None:
    waiting, beside = run_tests.sessions()
    files = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    ignored = {argument.removeprefix("--ignore=") for argument in waiting if argument.startswith("--ignore=")}
    for file in files:
        waits = any(Path(file).is_relative_to(place) for place in run_tests._WAITING) and file not in ignored
        is_beside = any(Path(file).is_relative_to(place) for place in beside)
        assert waits != is_beside, file
    assert all(Path(ROOT, place).exists() for place in (*beside, *ignored))
