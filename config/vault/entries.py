"""What a reference names in Vault, what text that is, and when it is read again. No IO, no clock, no chance."""

import json
from collections.abc import Mapping, Sequence

import msgspec

from config.schema import KvVersion, Vault, VaultMount
from config.secret_files import without_line_break
from config.vault.errors import VaultMissing, VaultUnusable

JITTER = 0.1
"""Share of a time by which it may be shortened, so that values read together are not read together for ever."""
MAX_RETRY_SECONDS = 30.0
_SPENT = 2 / 3
"""Share of its life after which a lease or token is prolonged: what is left is for trying again."""
_WHOLE = 0.9
"""Share of the time asked for that counts as granted."""


class Place(msgspec.Struct, frozen=True):
    """One secret of Vault: all its fields come from one reading."""

    mount: str
    path: str
    version: int | None
    kv: KvVersion

    def __str__(self) -> str:
        return f"{self.mount}/{self.path}" + (f"@{self.version}" if self.version is not None else "")


def place_of(parts: Mapping[str, str], config: Vault) -> Place:
    """Where a reference of ``parts`` leads: its mount is the longest of `mounts` that fits, else the first segment."""
    whole = f"{parts['mount']}/{parts['path']}"
    version = int(parts["version"]) if "version" in parts else None
    mount, kv = parts["mount"], config.kv
    known = [(each.path, each.kv) if isinstance(each, VaultMount) else (each, None) for each in config.mounts]
    fitting = [(path.strip("/"), own) for path, own in known if whole.startswith(path.strip("/") + "/")]
    if fitting:
        mount, own = max(fitting, key=lambda each: len(each[0]))
        kv = config.kv if own is None else own
    return Place(mount, whole[len(mount) + 1 :], version, kv)


def text_of(data: Mapping[str, object], field: str, place: Place) -> str:
    """The field as a text that is not empty.

    Raises:
        VaultMissing: it is not there, null or empty.
        VaultUnusable: it is an object or a list.
    """
    value = data.get(field)
    if isinstance(value, str):
        value = without_line_break(value)
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        kind = "an object" if isinstance(value, Mapping) else "a list"
        raise VaultUnusable(f"the field `{field}` at `{place}` is {kind}: a secret is a text, a number or a boolean")
    if value is None or value == "":
        what = "is empty" if field in data else "is not there"
        raise VaultMissing(f"the field `{field}` at `{place}` {what}: write it, or mend its name")
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a character, which JSON can write and nothing can send.
        raise VaultUnusable(f"the field `{field}` at `{place}` is no Unicode text: write it again") from None
    return text


def due_in(life_seconds: float) -> float:
    """Seconds until a lease or token of ``life_seconds`` is prolonged."""
    return life_seconds * _SPENT


def read_again_in(cache_seconds: float, chance: float) -> float:
    """Seconds until a value without a lease is read again; ``chance`` is from 0 to 1."""
    return cache_seconds * (1 - JITTER * chance)


def try_again_in(failures: int, cache_seconds: float) -> float:
    """Seconds until what failed ``failures`` times in a row (at least once) is tried again."""
    return min(2.0 ** min(failures - 1, 10), MAX_RETRY_SECONDS, cache_seconds)


def falls_short(granted_seconds: float, asked_seconds: float) -> bool:
    """Whether a prolongation is so short that the end of all prolonging (its `max_ttl`) is near."""
    return granted_seconds < asked_seconds * _WHOLE
