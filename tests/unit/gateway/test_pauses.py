import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from config.load import load
from gateway.build import build
from gateway.pauses import brief_pauses, take_apart
from gateway.resources import Resources
from tests.webhook_receiver import SECRET


def settings() -> tuple[float, tuple[int, int, int]]:
    return sys.getswitchinterval(), gc.get_threshold()


def test_threads_that_overlap_leave_the_settings_as_they_were() -> None:
    before = settings()
    first_in, second_in, first_out = Barrier(2), Barrier(2), Barrier(2)

    def first() -> None:
        with brief_pauses():
            first_in.wait()
            second_in.wait()
        first_out.wait()

    def second() -> tuple[float, tuple[int, int, int]]:
        first_in.wait()
        with brief_pauses():
            second_in.wait()
            first_out.wait()
            return settings()

    with ThreadPoolExecutor(2) as threads:
        one, two = threads.submit(first), threads.submit(second)
        one.result(60)
        still_inside = two.result(60)
    assert still_inside != before
    assert before == settings()


async def test_a_generation_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "providers: [{name: echo, type: echo, models: ['echo-*']}]\n"
        "model_aliases: [{from: fast, to: echo/echo-small}]\n"
        "routes: [{name: r, match: {model: 'a-*'}, targets: [echo/a, {to: echo/b, weight: 2}], strategy: weighted}]\n"
        "webhooks: [{name: w, url: 'https://h', secret: '${env:HOOK}', events: ['config.*'], match: {trigger: a}}]\n"
    )
    resources = Resources({})
    try:
        generation = build(load(path, {"HOOK": SECRET}), resources)
        # Until nothing of other tests is left: what a finalizer drops may be a circle too.
        while gc.collect():
            pass
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            pieces = generation.pieces()
            del generation
            take_apart(pieces)
            gc.collect()
            assert [] == [f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    finally:
        await resources.close()


@pytest.mark.parametrize("count", [0, 3])
def test_taking_apart_drops_every_piece(count: int) -> None:
    pieces: list[object] = [object() for _ in range(count)]
    take_apart(pieces)
    assert [] == pieces
