"""``./sluice schema`` and ``./sluice openapi``: what is generated from the code, printed or compared with its file."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.json_schema import SCHEMA_FILE, render_json_schema

_ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class _Generated:
    what: str
    file: Path
    render: Callable[[], str]


def _render_openapi() -> str:
    from management.reference.openapi import render_openapi  # noqa: PLC0415  all handlers, for those who ask for them

    return render_openapi()


_ALL = {
    "schema": _Generated("the JSON schema of the configuration", SCHEMA_FILE, render_json_schema),
    "openapi": _Generated("the OpenAPI document of the management API", _ROOT / "docs/openapi.json", _render_openapi),
}


def add_generated_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Their arguments; ``command`` is that of gateway/cli.py."""
    for name, each in _ALL.items():
        command(name, f"print {each.what}", config=False).add_argument(
            "--check",
            nargs="?",
            metavar="FILE",
            const=str(each.file),
            help=f"exit status 1 unless FILE (default: {each.file.relative_to(_ROOT)} of the program) is the same",
        )


def generated_command(options: argparse.Namespace) -> int:
    """The exit status."""
    text = _ALL[options.command].render()
    if options.check is None:
        print(text, end="")
        return 0
    try:
        current = Path(options.check).read_text(encoding="utf-8")
    except OSError as error:
        print(f"sluice: {options.check} cannot be read: {error.strerror}", file=sys.stderr)
        return 1
    if current != text:
        print(f"sluice: {options.check} is not current: write it anew with ./sluice {options.command}", file=sys.stderr)
        return 1
    return 0
