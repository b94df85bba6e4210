"""Whose turn the next connection is: by counts that all workers see, of those that live and are not stuck."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.tasks import Tasks
from gateway import spread
from gateway.spread import Board, Spread, is_turn
from tests.gateway_process import until


@pytest.mark.parametrize(
    ("own", "counts", "turn"),
    [
        (0, [0, 0], True),
        (2, [2, 0], True),
        (3, [3, 0], False),
        (3, [3, 1], True),
        (40, [40, 35], True),
        (40, [40, 34], False),
        (7, [7], True),
        (7, [], True),
    ],
)
def test_who_has_more_than_the_least_leaves_the_next_to_it(own: int, counts: list[int], turn: bool) -> None:
    assert turn is is_turn(own, counts)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.data())
def test_it_is_always_somebodys_turn(counts: list[int], data: st.DataObject) -> None:
    assert is_turn(min(counts), counts)
    assert any(is_turn(own, counts) for own in counts)


@pytest.mark.parametrize("workers", [2, 3, 4])
@given(st.data())
def test_whoever_of_those_whose_turn_it_is_takes_it_none_has_half_as_much_again(
    workers: int, data: st.DataObject
) -> None:
    counts = [0] * workers
    for _ in range(64):
        ready = [slot for slot, own in enumerate(counts) if is_turn(own, counts)]
        counts[data.draw(st.sampled_from(ready))] += 1
    assert max(counts) <= 1.5 * min(counts)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def two(board: Board, clock: Clock) -> tuple[Spread, Spread]:
    first, second = (Spread(os.dup(board.descriptor), board.slots, slot, clock) for slot in (0, 1))
    return first, second


@pytest.mark.parametrize("memfd", [True, False])
def test_workers_see_each_others_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch, memfd: bool) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create")
    board = Board(2)
    first, second = two(board, clock)
    assert (-1, -1) == board.counts()
    first.join()
    second.join()
    first.changed(9)
    second.changed(2)
    assert (9, 2) == board.counts()
    assert (False, True) == (first.may_accept(), second.may_accept())
    second.changed(8)
    assert first.may_accept()
    for each in (first, second, board):
        each.close()


def test_nobody_waits_for_an_empty_slot_nor_for_one_that_goes_nor_for_one_that_is_stuck(clock: Clock) -> None:
    board = Board(3)
    first, second = two(board, clock)
    first.join()
    first.changed(9)
    assert first.may_accept()

    second.join()
    assert not first.may_accept()
    second.leave()
    assert first.may_accept()
    # Its connections end one by one: that does not bring it back.
    second.changed(0)
    assert -1 == board.counts()[1]
    assert second.may_accept()

    second.join()
    assert not first.may_accept()
    board.vacate(1)
    assert first.may_accept()

    second.changed(0)
    assert not first.may_accept()
    clock.now += 0.9
    first.beat()
    assert not first.may_accept()
    clock.now += 0.2
    assert first.may_accept()
    second.beat()
    assert not first.may_accept()
    for each in (first, second, board):
        each.close()


async def test_a_worker_says_that_it_is_not_stuck(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_BEAT_SECONDS", 0.01)
    board = Board(2)
    first, second = two(board, clock)
    first.join()
    second.join()
    first.changed(9)
    clock.now += 5
    assert first.may_accept()
    tasks = Tasks()
    tasks.spawn(second.keep_beating(), "beats")
    await until(lambda: not first.may_accept())
    clock.now += 5
    assert first.may_accept()
    await until(lambda: not first.may_accept())
    await tasks.cancel()
    for each in (first, second, board):
        each.close()
