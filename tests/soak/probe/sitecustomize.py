"""Lets a soak look into the gateway: on SIGUSR1, the number of its tasks is written to the file SLUICE_SOAK_TASKS.

Python imports this before anything else where its directory is on PYTHONPATH.
"""

import asyncio
import os
import signal
from pathlib import Path


def _tell(*_: object) -> None:
    # A handler of Python runs between two steps of the event loop's thread, so that the loop is the running one.
    tasks = len(asyncio.all_tasks())
    place = Path(os.environ["SLUICE_SOAK_TASKS"])
    new = place.with_suffix(".new")
    new.write_text(str(tasks))
    new.replace(place)


signal.signal(signal.SIGUSR1, _tell)
