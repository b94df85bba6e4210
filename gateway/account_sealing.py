"""`./sluice rekey` for accounts that have signed in to providers, wherever they are kept; gateways may be using them."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from config.document import Document
from config.faults import ConfigFaults
from config.resolution import resolve
from config.schema import Config
from config.sealing import KeyRing
from config.secret_stores import SecretStores
from config.substitute import typed
from config.validation import validate
from core.clock import SystemClock
from credentials.errors import StoreFault
from credentials.rekeying import Rekeyed, rekey_accounts
from credentials.sealer import RecordSealer
from credentials.stores.build import open_store
from gateway.stores import Stores
from storage.errors import StorageUrlFault

_SECTIONS = ("secrets", "storage", "redis")
_KEYS = ("store", "directory")
"""Of `oauth`: the rest has no say in where accounts are, and may be at fault."""


def rekey_kept_accounts(document: Document, directory: Path, env: Mapping[str, str], keys: KeyRing) -> bool:
    """Seal the accounts of the configuration ``document`` anew with the first of ``keys``; tell, and name those that are left
    as they are. Whether none is.

    Args:
        directory: where relative names of the document begin.
    """
    stores = SecretStores(writes=False)
    try:
        config = _settings(document, directory, env, stores)
        if config.oauth.store == "memory":
            return True
        rekeyed = asyncio.run(_rekey(config, directory, keys))
    except ConfigFaults as refused:
        for fault in refused.faults:
            print(fault, file=sys.stderr)
        return _left("where they are kept cannot be told")
    except StorageUrlFault as fault:
        return _left(str(fault))
    except StoreFault as fault:
        return _left(str(fault))
    finally:
        stores.close()
    if rekeyed is None:
        return True
    for each in rekeyed.left:
        print(f"{each.provider}/{each.name}: {each.message}", file=sys.stderr)
    if rekeyed.count:
        accounts = "1 account" if rekeyed.count == 1 else f"{rekeyed.count} accounts"
        print(f"{_place(config)}: {accounts} sealed anew with the key `{keys.first_id}`")
    elif rekeyed.unchanged:
        print(f"{_place(config)}: not changed")
    return not rekeyed.left


def _left(why: str) -> bool:
    print(f"accounts that have signed in to providers are left as they are: {why}", file=sys.stderr)
    return False


def _place(config: Config) -> str:
    return f"accounts ({config.oauth.store})"


def _settings(document: Document, directory: Path, env: Mapping[str, str], stores: SecretStores) -> Config:
    """What of the configuration says where accounts are.

    Raises:
        ConfigFaults: something is wrong with that.
    """
    own = {key: value for key, value in document.value.items() if key in _SECTIONS}
    oauth = document.value.get("oauth")
    if isinstance(oauth, dict):
        own["oauth"] = {key: value for key, value in oauth.items() if key in _KEYS}
    resolution = resolve(own, env, stores, directory)
    substituted, place = resolution.substituted, document.place
    faults = validate(substituted.value, place, substituted.referenced)
    faults += [place.locate(fault) for fault in substituted.faults]
    if faults:
        raise ConfigFaults(faults)
    return typed(substituted.value, Config)


async def _rekey(config: Config, directory: Path, keys: KeyRing) -> Rekeyed | None:
    """None: there is no place yet where there could be any."""

    async def ring() -> KeyRing:
        return keys

    clock = SystemClock()
    stores = Stores(clock, writes=False)
    stores.begin(config, directory)
    try:
        if config.oauth.store == "database" and not stores.exists():
            return None
        store = await open_store(
            config.oauth.store,
            clock=clock,
            directory=directory / config.secrets.directory / config.oauth.directory,
            redis=config.redis,
            cells=stores.account_cells,
        )
        try:
            return await rekey_accounts(store, RecordSealer(ring))
        finally:
            await store.close()
    finally:
        await stores.close()
