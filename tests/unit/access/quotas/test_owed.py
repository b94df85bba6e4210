"""What a process owes to the shared counters."""

from access.quotas.owed import Debt, Owed
from access.quotas.windows import Window


def debt(change: int, end: int = 100) -> Debt:
    return Debt(Window.MINUTE, end, change, made_up=False)


def test_what_is_owed_adds_up_within_a_window_and_ends_with_it() -> None:
    owed = Owed()
    owed.add("a", debt(3))
    owed.add("a", debt(-1))
    owed.add("b", debt(7))
    assert (2, 0, 7) == (owed.of("a", 100), owed.of("a", 160), owed.of("b", 100))
    owed.add("a", debt(5, 160))
    assert {"a": debt(5, 160), "b": debt(7)} == owed.payment("one")


def test_a_payment_is_the_same_until_it_has_arrived() -> None:
    owed = Owed()
    assert {} == owed.payment("none")
    owed.add("a", debt(3))
    first = owed.payment("one")
    owed.add("a", debt(4))
    assert first == owed.payment("two")
    assert ("one", 7, 2) == (owed.name, owed.of("a", 100), len(owed))
    owed.paid()
    assert {"a": debt(4)} == owed.payment("three")
    assert "three" == owed.name
    owed.paid()
    assert not owed
