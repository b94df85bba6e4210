"""A setting as the management API shows it."""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Where a value comes from, highest first."""

    SYSTEM = "system"
    COMMAND_LINE = "command_line"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


class SettingShown(msgspec.Struct, frozen=True, kw_only=True):
    """A setting as it counts now."""

    key: str
    """A key of the configuration, or `system.…` for what the program knows of itself."""
    value: str | int | float | bool
    default: str | int | float | bool | None
    """Null: of the system there is none."""
    source: Source
    variable: str | None
    """Of the environment, that sets it before the file; null: none does."""
    editable: bool
    """Whether it may be set here: not while a higher source than the file sets it."""
    restart: bool
    """Whether another value takes effect when the gateway is started again."""
    description: str
