"""What a token may say of itself, wherever it is declared: in the file or through the API."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from access.address import parse_network
from config.faults import Fault, Path, did_you_mean
from core.globs import Glob
from core.identity import Grant, Scope

CREATABLE_SCOPES = frozenset({Scope.USER, Scope.POWER_USER, Scope.METRICS})
"""`scope_token_manager` and `scope_token_admin` exist, and can be created by nobody."""

MAX_OWNER_CHARACTERS = 128

_GRANTS = frozenset(Grant)
_SCOPES = frozenset(Scope)
# RFC 3339 section 5.6; `fromisoformat` reads more than that, and times without an offset.
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> float:
    """Seconds since the Unix epoch of a time of RFC 3339.

    Raises:
        ValueError: it is none; the message says how to write one.
    """
    if _TIME.fullmatch(text) is not None:
        try:
            return datetime.fromisoformat(text.upper()).astimezone(UTC).timestamp()
        except (ValueError, OverflowError):
            # The 31st of June, and so on.
            pass
    raise ValueError("not a time with its offset: write it like `2027-01-31T12:00:00Z` or `2027-01-31T13:00:00+01:00`")


def token_faults(
    path: Path,
    *,
    scope: str,
    models: Sequence[str],
    endpoints: Sequence[str],
    ip_ranges: Sequence[str],
    owner: str | None,
) -> Iterator[Fault]:
    """What is wrong with a token's members; ``path`` leads to it."""
    yield from _scope_faults(path, scope, models)
    for position, endpoint in enumerate(endpoints):
        if endpoint not in _GRANTS:
            yield Fault(
                (*path, "endpoints", position), f"unknown endpoints `{endpoint}`{did_you_mean(endpoint, _GRANTS)}"
            )
    for position, pattern in enumerate(models):
        try:
            Glob(pattern)
        except ValueError as error:
            yield Fault((*path, "models", position), str(error))
    for position, network in enumerate(ip_ranges):
        try:
            parse_network(network)
        except ValueError as error:
            yield Fault((*path, "ip_ranges", position), str(error))
    if owner is not None and not (0 < len(owner) <= MAX_OWNER_CHARACTERS and owner.isprintable()):
        yield Fault(
            (*path, "owner"), f"not a name: write 1 to {MAX_OWNER_CHARACTERS} printable characters, or leave it out"
        )


def _scope_faults(path: Path, scope: str, models: Sequence[str]) -> Iterator[Fault]:
    creatable = sorted(CREATABLE_SCOPES)
    if scope not in _SCOPES:
        yield Fault((*path, "scope"), f"unknown scope `{scope}`{did_you_mean(scope, creatable)}")
    elif scope not in CREATABLE_SCOPES:
        yield Fault(
            (*path, "scope"),
            f"`{scope}` can be given to no token: use the admin key, or one of "
            + ", ".join(f"`{each}`" for each in creatable),
        )
    elif Scope(scope) is Scope.METRICS and models:
        yield Fault((*path, "models"), f"a `{Scope.METRICS}` token opens /metrics alone: remove its models")
