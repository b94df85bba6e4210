"""Libraries that take tens of milliseconds to load: at the first sign-in, and in a thread, so that no request waits."""

import asyncio
import importlib
import sys


async def loaded(name: str) -> None:
    """Come back when the module ``name`` can be imported without delay."""
    if name not in sys.modules:
        await asyncio.to_thread(importlib.import_module, name)
