"""One event loop for all inputs: making one takes longer than most of them."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

import uvloop

_T = TypeVar("_T")
_failures: list[dict[str, Any]] = []


class _Loud(logging.Handler):
    """A failure that is logged and survived is a finding all the same."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        raise AssertionError(self.format(record)) from error


_loud = _Loud(logging.WARNING)


@cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    runner.get_loop().set_exception_handler(lambda _loop, context: _failures.append(context))
    return runner


def run_in_loop(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """What ``coroutine`` gives.

    Raises:
        AssertionError: something was logged as a warning or an error, or raised in a callback of the loop.
        Exception: what ``coroutine`` raised.
    """
    logger = logging.getLogger("sluice")
    logger.addHandler(_loud)
    try:
        result = _runner().run(coroutine)
    finally:
        logger.removeHandler(_loud)
    if _failures:
        context = _failures.pop()
        raise AssertionError(context["message"]) from context.get("exception")
    return result
