"""Limits as the management API takes and shows them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from access.quotas.amounts import NANO, Metric
from access.quotas.limits import ScopeKind, Terms
from access.quotas.outcomes import Standing
from access.quotas.rules import Listed
from access.quotas.windows import Window
from config.schema import Limit
from core.identity import ApiToken
from core.moments import moment_of

MAX_LIMITS = 32


_Per = Annotated[
    str,
    Meta(
        description="the window, which begins with the first request after the last one; month: the UTC calendar month",
        extra_json_schema={"enum": [window.word for window in Window]},
    ),
]


class TokenLimit(Limit, frozen=True, kw_only=True, omit_defaults=True):
    """So much of one thing, at most: exactly one of the amounts, and `per`, which all but `concurrency` takes."""

    # What else is written there is judged with all that the entry says: so the mend is told with the place.
    per: _Per | None = None  # type: ignore[assignment]


Limits = Annotated[tuple[TokenLimit, ...], Meta(max_length=MAX_LIMITS, description="how much it may use")]


class LimitStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and how it stands at the moment. Amounts are of what is limited; money is in US dollars."""

    limit: TokenLimit
    source: Literal["token", "limits", "provider", "credential"]
    """Where it is written: in the token, in the configuration's `limits`, in a provider, or in one of its credentials."""
    match: dict[str, tuple[str, ...]]
    """The globs by which it counts requests."""
    each: tuple[str, ...]
    """Of these, each name is counted apart."""
    names: dict[str, str]
    """For which names this is the count."""
    used: float | None
    """With what is reserved for requests under way. It may be more than the limit, as what a request uses is known in the end.
    Null: each name has a count of its own."""
    remaining: float | None
    reset_seconds: float | None
    """Until the window ends; null: none has begun, or there is none."""
    resets_at: datetime | None


class LimitList(msgspec.Struct, frozen=True):
    """All that are asked for."""

    data: tuple[LimitStanding, ...]
    next_cursor: None = None


def entries_of(limits: tuple[TokenLimit, ...]) -> tuple[dict[str, Any], ...]:
    """As they are kept: what is given, without what is left out."""
    return tuple(msgspec.to_builtins(each) for each in limits)


def shown_limits(entries: tuple[Mapping[str, Any], ...]) -> tuple[TokenLimit, ...]:
    """As answers have them; a later version of the program may know more of a limit than this one."""
    known = {field.name for field in msgspec.structs.fields(TokenLimit)}
    return tuple(TokenLimit(**{name: each[name] for name in each.keys() & known}) for each in entries)


def shown_terms(terms: Terms) -> TokenLimit:
    """As somebody would write them."""
    said: dict[str, Any] = {terms.metric.word: _amount(terms.metric, terms.amount)}
    if terms.window is not None:
        said["per"] = terms.window.word
    if terms.shadow:
        said["shadow"] = True
    if terms.max_wait_seconds:
        said["max_wait_seconds"] = terms.max_wait_seconds
    return TokenLimit(**said)


def shown_of_token(standing: Standing, token: ApiToken, now: float) -> LimitStanding:
    """One that counts the requests of the ``token``. ``now``: seconds since the Unix epoch."""
    scope = standing.limit.scope
    own = scope.named == ((ScopeKind.TOKEN, token.counted_as),)
    return _shown(
        standing.limit.terms,
        "token" if own else "limits",
        match=_globs(scope.matched),
        each=() if own else tuple(kind.value for kind, _ in scope.named),
        names={} if own else _names(scope.named),
        standing=standing,
        now=now,
    )


def shown_of_config(listed: Listed, standing: Standing | None, now: float) -> LimitStanding:
    """One of the configuration; without a ``standing`` where it counts each name apart."""
    source: Literal["limits", "provider", "credential"] = "limits"
    if listed.place:
        source = "provider" if len(listed.place) == 1 else "credential"
    rule = listed.rule
    return _shown(
        rule.terms,
        source,
        match=_globs(rule.match),
        each=tuple(kind.value for kind in rule.each),
        names=_names(listed.place),
        standing=standing,
        now=now,
    )


def _shown(
    terms: Terms,
    source: Literal["token", "limits", "provider", "credential"],
    *,
    match: dict[str, tuple[str, ...]],
    each: tuple[str, ...],
    names: dict[str, str],
    standing: Standing | None,
    now: float,
) -> LimitStanding:
    reset = (standing.reset_seconds or None) if standing is not None else None
    return LimitStanding(
        limit=shown_terms(terms),
        source=source,
        match=match,
        each=each,
        names=names,
        used=None if standing is None else _amount(terms.metric, standing.used),
        remaining=None if standing is None else _amount(terms.metric, standing.remaining),
        reset_seconds=reset,
        resets_at=None if reset is None else moment_of(now + reset),
    )


def _globs(matched: tuple[tuple[ScopeKind, tuple[str, ...]], ...]) -> dict[str, tuple[str, ...]]:
    return {kind.value: patterns for kind, patterns in matched}


def _names(named: tuple[tuple[ScopeKind, str], ...]) -> dict[str, str]:
    return {kind.value: name for kind, name in named}


def _amount(metric: Metric, amount: int) -> float:
    return amount / NANO if metric is Metric.USD else amount
