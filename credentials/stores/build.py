"""Opens the store that `oauth.store` names. What each needs is imported when it is opened."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from config.schema import Redis
from core.clock import Clock
from credentials.errors import StoreUnavailable
from credentials.records import AccountStore

if TYPE_CHECKING:
    from storage.accounts import AccountCells

StoreKind = Literal["memory", "database", "redis", "file"]


async def open_store(
    kind: StoreKind,
    *,
    clock: Clock,
    directory: Path,
    redis: Redis,
    cells: "Callable[[], Awaitable[AccountCells]]",
) -> AccountStore:
    """
    Args:
        directory: of the store `file`.
        redis: of the store `redis`.
        cells: of the store `database`; called for that one alone.

    Raises:
        StoreUnavailable: `redis` without an address.
    """
    # Not on the event loop: requests are answered meanwhile.
    module = await asyncio.get_running_loop().run_in_executor(
        None, importlib.import_module, f"credentials.stores.{kind}"
    )
    store: AccountStore
    match kind:
        case "memory":
            store = module.MemoryStore(clock)
        case "file":
            store = module.FileStore(directory, clock)
        case "database":
            store = module.DatabaseStore(await cells())
        case "redis":
            if redis.url is None:
                raise StoreUnavailable("the accounts cannot be used: `oauth.store: redis` needs `redis.url`")
            store = module.RedisStore(redis.url.reveal, redis.prefix, redis.timeout_seconds)
    return store
