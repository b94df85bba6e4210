"""Settings: the scalars of the document that the environment may set over it, and the API may set one by one.

`server.drain_seconds` is set by `SLUICE_SERVER_DRAIN_SECONDS`, and so on for each row of the table and for nothing else.
"""

import math
from collections.abc import Mapping
from functools import cache

import msgspec

from config.faults import Fault, Path
from config.json_schema import branches, json_schema, shape
from config.scalars import Scalar, read_plain
from config.substitute import Resolved, Substituted

KEYS: tuple[str, ...] = (
    "server.listen",
    "server.workers",
    "server.max_body_bytes",
    "server.max_decompressed_bytes",
    "server.max_upload_bytes",
    "server.max_header_bytes",
    "server.max_header_fields",
    "server.max_url_bytes",
    "server.max_connections",
    "server.max_requests_per_connection",
    "server.header_seconds",
    "server.body_idle_seconds",
    "server.send_idle_seconds",
    "server.keep_alive_seconds",
    "server.drain_seconds",
    "server.drain_delay_seconds",
    "telemetry.access_log",
    "telemetry.log_level",
    "transport.max_connections",
    "transport.max_connections_per_origin",
    "transport.max_waiting",
    "transport.keep_alive_seconds",
    "transport.dns_cache_seconds",
    "transport.max_decoded_bytes",
)
"""No secret, and nothing that has a say in who may call: those who set the environment are not always administrators."""

_PREFIX = "SLUICE_"


class Setting(msgspec.Struct, frozen=True):
    """A key that the environment and the API may set."""

    key: str
    path: tuple[str, ...]
    variable: str
    """Of the environment."""
    description: str
    default: Scalar
    restart: bool
    """Whether it takes effect at start alone."""
    types: frozenset[str]
    """JSON types of its values."""

    def read(self, text: str) -> Scalar:
        """What the ``text`` of a variable means; what cannot be read stays a text, for validation to tell."""
        if "string" in self.types:
            return text
        try:
            value = read_plain(text)
        except ValueError:  # a number of too many digits
            return text
        return text if isinstance(value, float) and not math.isfinite(value) else value


@cache
def settings() -> Mapping[str, Setting]:
    """By key, in the order of the table."""
    return {key: _setting(key) for key in KEYS}


def _setting(key: str) -> Setting:
    path = tuple(key.split("."))
    schema = json_schema()
    found, here = schema, shape()
    for step in path:
        (found,) = branches(found, schema["$defs"])
        found, here = found["properties"][step], here.at(step)
    return Setting(
        key=key,
        path=path,
        variable=_PREFIX + key.upper().replace(".", "_"),
        description=found["description"],
        default=found.get("default"),
        restart=here.restart,
        types=here.types,
    )


def in_environment(setting: Setting, env: Mapping[str, str]) -> bool:
    """Whether the environment sets it. A variable that is empty sets nothing."""
    return bool(env.get(setting.variable))


def with_environment(substituted: Substituted, env: Mapping[str, str]) -> tuple[Substituted, dict[Path, str]]:
    """What the document becomes by the variables that are set; and the names of these, by the keys that they set."""
    value, variables = substituted.value, dict[Path, str]()
    for setting in settings().values():
        if in_environment(setting, env):
            changed = _put(value, setting.path, setting.read(env[setting.variable]))
            if changed is not None:
                value = changed
                variables[setting.path] = setting.variable
    if not variables:
        return substituted, variables
    # Messages name the variable, not its value, as they do for references.
    referenced = substituted.referenced | variables
    faults = [fault for fault in substituted.faults if fault.path not in variables]
    return msgspec.structs.replace(substituted, value=value, faults=faults, referenced=referenced), variables


def named(fault: Fault, variables: Mapping[Path, str]) -> Fault:
    """``fault`` of a value; where that comes from the environment, the variable is named."""
    variable = variables.get(fault.path)
    if variable is None:
        return fault
    return msgspec.structs.replace(fault, message=f"the value of `{variable}` in the environment: {fault.message}")


def _put(value: Resolved, path: tuple[str, ...], scalar: Scalar) -> Resolved | None:
    """``value`` with ``scalar`` at ``path``; None where something other than a mapping is in the way: that is told."""
    step, *rest = path
    if not isinstance(value, dict):
        return None
    if not rest:
        return {**value, step: scalar}
    inner = _put(value.get(step, {}), tuple(rest), scalar)
    return None if inner is None else {**value, step: inner}
