"""The settings as they count in this process, with where each value comes from."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from config.settings import Setting, in_environment, settings
from gateway.build import Generation
from gateway.version import VERSION
from management.setting_values import SettingShown, Source

LISTEN = "server.listen"
"""The one that the command line may set."""


class Started(msgspec.Struct, frozen=True):
    """How this process was started."""

    listen: str | None = None
    """What the command line says of `server.listen`."""
    workers: int = 1
    """How many serve."""


def current_settings(
    generation: Generation, environment: Mapping[str, str], started: Started
) -> dict[str, SettingShown]:
    """By key: those of the configuration, then what the system is.

    ``environment``: of the start, as documents are loaded with it.
    """
    found = [_of_config(each, generation, environment, started.listen) for each in settings().values()]
    root = generation.loaded.sources.root
    found += [
        _of_system("system.version", VERSION, "of this program"),
        _of_system("system.python", platform.python_version(), "version of Python that runs it"),
        _of_system("system.config", str(root), "the configuration's file"),
        _of_system("system.data_directory", str(_data_directory(generation, root)), "where what is kept lies"),
        _of_system("system.workers", started.workers, "processes that serve"),
    ]
    return {each.key: each for each in found}


def _of_config(
    setting: Setting, generation: Generation, environment: Mapping[str, str], listen: str | None
) -> SettingShown:
    value: Any = generation.config
    for step in setting.path:
        value = getattr(value, step)
    if setting.key == LISTEN and listen is not None:
        source, value = Source.COMMAND_LINE, listen
    elif in_environment(setting, environment):
        source = Source.ENVIRONMENT
    else:
        _, stated = generation.loaded.place.find(setting.path)
        source = Source.FILE if stated else Source.DEFAULT
    return SettingShown(
        key=setting.key,
        value=value,
        default=setting.default,
        source=source,
        variable=setting.variable,
        editable=source in (Source.FILE, Source.DEFAULT),
        restart=setting.restart,
        description=setting.description,
    )


def _of_system(key: str, value: str | int, description: str) -> SettingShown:
    return SettingShown(
        key=key,
        value=value,
        default=None,
        source=Source.SYSTEM,
        variable=None,
        editable=False,
        restart=False,
        description=description,
    )


def _data_directory(generation: Generation, root: Path) -> Path:
    return root.parent / generation.config.secrets.directory
