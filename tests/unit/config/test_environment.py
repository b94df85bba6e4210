"""The environment, and the file of `--env-file` beneath it."""

from pathlib import Path

import pytest

from config.environment import environment, parse_env_file
from config.faults import ConfigFaults


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b  ", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A= # comment", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=b c", "b c"),
        ("A=$HOME=x", "$HOME=x"),
        ("A='b # c $D \\n'  # comment", "b # c $D \\n"),
        ('A="b\\n\\"c\\" \\$ \\\\"', 'b\n"c" $ \\'),
        ('A="\\t\\r"#c', "\t\r"),
        ("A=it's", "it's"),
    ],
)
def test_a_line_sets_a_variable(line: str, value: str) -> None:
    assert {"A": value} == parse_env_file(f"\n# comment\n{line}\r\n".encode(), ".env")


def test_every_bad_line_is_told_with_its_number_and_without_its_text(planted_secret: str) -> None:
    lines = f"""\
GOOD=1
{planted_secret}
1BAD={planted_secret}
  OPEN="{planted_secret}
AFTER='x' {planted_secret}
GOOD={planted_secret}
={planted_secret}
"""
    with pytest.raises(ConfigFaults) as refused:
        parse_env_file(lines.encode(), ".env")
    assert [
        ".env:2:1: not an assignment: write `NAME=VALUE`",
        ".env:3:1: not a name: use letters, digits and `_`, no digit first",
        ".env:4:3: the quote of `OPEN` is not closed, or text follows it",
        ".env:5:1: the quote of `AFTER` is not closed, or text follows it",
        ".env:6:1: `GOOD` is set on line 1 already: remove one",
        ".env:7:1: not an assignment: write `NAME=VALUE`",
    ] == str(refused.value).splitlines()


def test_a_file_that_is_no_text_is_told() -> None:
    with pytest.raises(ConfigFaults, match=r"\.env:2:3: byte 0xff is not UTF-8"):
        parse_env_file(b"A=1\nB=\xff", ".env")


def test_the_process_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_TEST_BOTH", "process")
    monkeypatch.delenv("SLUICE_TEST_FILE", raising=False)
    path = tmp_path / ".env"
    path.write_text("SLUICE_TEST_BOTH=file\nSLUICE_TEST_FILE=file\n")
    found = environment(path)
    assert ("process", "file") == (found["SLUICE_TEST_BOTH"], found["SLUICE_TEST_FILE"])
    assert "SLUICE_TEST_FILE" not in environment()


def test_a_missing_env_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults, match="cannot be read: No such file"):
        environment(tmp_path / ".env")
