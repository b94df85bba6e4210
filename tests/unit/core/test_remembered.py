"""Functions of a name, remembered within bounds."""

import pytest

from core.remembered import LONGEST_NAME, MOST_NAMES, Remembered


def test_a_value_is_worked_out_once() -> None:
    asked: list[str] = []

    def length(name: str) -> int:
        asked.append(name)
        return len(name)

    remembered = Remembered(length)
    assert [3, 3, 1] == [remembered[name] for name in ("abc", "abc", "d")]
    assert ["abc", "d"] == asked


def test_it_stays_within_its_bounds() -> None:
    remembered = Remembered(len)
    for number in range(2 * MOST_NAMES):
        assert len(str(number)) == remembered[str(number)]
        assert len(remembered) <= MOST_NAMES
    long = "x" * (LONGEST_NAME + 1)
    assert len(long) == remembered[long]
    assert long not in remembered


def test_what_it_raises_is_not_remembered() -> None:
    remembered = Remembered(int)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            remembered["x"]
    assert not remembered
