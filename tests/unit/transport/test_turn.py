"""Writes of one turn of the event loop."""

import asyncio

from tests.conftest import ExpectLog
from transport.turn import turn_of


class Writer:
    def __init__(self, told: list[str], name: str, fault: bool = False) -> None:
        self.told = told
        self.name = name
        self.fault = fault

    def send_out(self) -> None:
        self.told.append(self.name)
        if self.fault:
            raise RuntimeError("this one alone")


async def test_writers_are_called_at_the_end_of_the_turn_in_their_order() -> None:
    told: list[str] = []
    turn = turn_of(asyncio.get_running_loop())
    for name in "ab":
        turn.join(Writer(told, name))
    assert [] == told
    await asyncio.sleep(0)
    assert ["a", "b"] == told
    turn.join(Writer(told, "c"))
    await asyncio.sleep(0)
    assert ["a", "b", "c"] == told


async def test_who_joins_while_others_are_called_has_the_next_turn() -> None:
    told: list[str] = []
    turn = turn_of(asyncio.get_running_loop())

    class Joining(Writer):
        def send_out(self) -> None:
            super().send_out()
            turn.join(Writer(told, "later"))

    turn.join(Joining(told, "first"))
    turn.join(Writer(told, "second"))
    await asyncio.sleep(0)
    assert ["first", "second"] == told
    await asyncio.sleep(0)
    assert "later" == told[-1]


async def test_the_fault_of_one_connection_keeps_no_other_from_sending(expect_log: ExpectLog) -> None:
    told: list[str] = []
    turn = turn_of(asyncio.get_running_loop())
    with expect_log("this one alone"):
        for writer in (Writer(told, "a", fault=True), Writer(told, "b")):
            turn.join(writer)
        await asyncio.sleep(0)
    assert ["a", "b"] == told


async def test_each_loop_has_one_turn() -> None:
    loop = asyncio.get_running_loop()
    assert turn_of(loop) is turn_of(loop)
