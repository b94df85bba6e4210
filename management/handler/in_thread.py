"""Work of the management API that takes long, beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")

# One thread, and not one of the loop's own: what many ask for at once must neither take the interpreter from requests
# many times over, nor keep those waiting that look up a provider's name.
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="management")


async def in_thread(work: Callable[..., _T], *arguments: Any) -> _T:
    """``work``, after what others have asked for; for what only computes."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, partial(work, *arguments))
