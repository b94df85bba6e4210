"""docs/errors.md against the code, both ways."""

import re
from pathlib import Path

import core.errors
from core.errors import GatewayError

ROOT = Path(__file__).parent.parent

# Codes of the management plane's own refusals, which answer in its own form (docs/access.md).
ELSEWHERE = {"too_many_failed_attempts", "admin_key_check_busy"}

# What attempts are told as in the log and in metrics, of which no client gets to know.
INSIDE = {"target_limited"}


def classes() -> list[type[GatewayError]]:
    return [
        value
        for value in vars(core.errors).values()
        if isinstance(value, type) and issubclass(value, GatewayError) and not value.__subclasses__()
    ]


def codes_in_code() -> set[str]:
    # These bases are raised as they are, too.
    kinds: list[type[GatewayError]] = [
        *classes(),
        core.errors.PermissionDenied,
        core.errors.InvalidRequest,
        core.errors.UpstreamRejected,
        core.errors.NoTargetAvailable,
    ]
    codes = {cls.code for cls in kinds}
    for package in ("proxy", "routing"):
        for path in (ROOT / package).rglob("*.py"):
            codes.update(re.findall(r'\bcode="([a-z_]+)"', path.read_text()))
    # Of an error with two codes the class has one.
    codes.add(core.errors.LimitExceeded("", spent=True).client_code)
    return codes - ELSEWHERE - INSIDE


def codes_in_docs() -> set[str]:
    data_plane = (ROOT / "docs" / "errors.md").read_text().partition("## On the management API")[0]
    rows = [line.split("|")[2] for line in data_plane.splitlines() if line.startswith("| ")]
    return {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    assert codes_in_code() == codes_in_docs()


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert core.errors.__doc__ is not None
    named = set(re.findall(r"\b[A-Z][A-Za-z]+\b", core.errors.__doc__))
    assert {cls.__name__ for cls in classes()} <= named
