"""Lets a test look into a gateway: on SIGUSR1 it writes what it has of tasks to the file SLUICE_PROBE, and of garbage
where SLUICE_PROBE_GARBAGE is set.

Python imports this before anything else where its directory is on PYTHONPATH (tests/gateway_probe.py puts it there).
"""

import asyncio
import collections
import gc
import json
import os
import signal
from pathlib import Path


def _tell(*_: object) -> None:
    # A handler of Python runs between two steps of the event loop's thread, so that the loop is the running one.
    found = {"tasks": len(asyncio.all_tasks()), "garbage": _garbage() if os.environ.get("SLUICE_PROBE_GARBAGE") else {}}
    place = Path(os.environ["SLUICE_PROBE"])
    new = place.with_suffix(".new")
    new.write_text(json.dumps(found))
    new.replace(place)


def _garbage() -> dict[str, int]:
    # From here on nothing is collected but here: what went by itself is gone, what did not is found and counted.
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    garbage = collections.Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    gc.garbage.clear()
    gc.collect()
    return dict(garbage.most_common())


signal.signal(signal.SIGUSR1, _tell)
