"""Limits: so much of a metric in a window, for a scope."""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from math import ceil
from typing import Any, NamedTuple

import msgspec

from access.quotas.amounts import MOST, Metric, nano_usd_of
from access.quotas.windows import Window

_METRICS = {metric.word: metric for metric in Metric}
_TOKENS = (Metric.TOKENS, Metric.INPUT_TOKENS, Metric.OUTPUT_TOKENS)
_WINDOWS = {window.word: window for window in Window}
_SAFE = re.compile(r"[A-Za-z0-9._*?|@:/-]{1,80}", re.ASCII)
_OTHERS = "~"  # is quoted where it is a name
# More than a counter and a charge together: a limit with it refuses nothing. A double holds it exactly.
_UNBOUNDED = 4 * MOST


class BadTerms(ValueError):
    """An entry is no limit; the text says what is wrong with it, and how to mend it."""

    def __init__(self, message: str, member: str | None = None) -> None:
        """``member``: the one that is wrong; None: it is the entry."""
        super().__init__(message)
        self.member = member


class Terms(msgspec.Struct, frozen=True):
    """A limit as it is written, without whom it is for."""

    metric: Metric
    window: Window | None
    """None for concurrency, which has none."""
    amount: int
    """In the metric's unit; money in nano-dollars."""
    shadow: bool = False
    """Whether it only counts and refuses nothing."""
    max_wait_seconds: float = 0.0
    """How long a request may wait for it instead of being refused."""

    def __str__(self) -> str:
        amount = f"{self.amount / 1e9:g}" if self.metric is Metric.USD else str(self.amount)
        return f"{amount} {self.metric.word}" + (f" per {self.window.word}" if self.window is not None else "")


def parse_terms(entry: Mapping[str, Any]) -> Terms:
    """The terms of a plain mapping such as ``{"requests": 60, "per": "minute"}``; members that are None are not there.

    Raises:
        BadTerms: what is wrong with it, and how to mend it.
    """
    given = {name: value for name, value in entry.items() if value is not None}
    named = [name for name in given if name in _METRICS]
    if not named:
        raise BadTerms(f"nothing is limited: give an amount, one of {', '.join(f'`{name}`' for name in _METRICS)}")
    if len(named) > 1:
        raise BadTerms(f"{' and '.join(f'`{name}`' for name in named)} in one entry: write an entry for each")
    metric = _METRICS[named[0]]
    amount = _amount(metric, given.pop(named[0]))
    per = given.pop("per", None)
    if metric is Metric.CONCURRENCY:
        if per is not None:
            raise BadTerms("`concurrency` is what is under way at a time: leave `per` out", "per")
        window = None
    elif per not in _WINDOWS:
        words = ", ".join(f"`{word}`" for word in _WINDOWS)
        raise BadTerms(f"`{metric.word}` takes a `per`, one of {words}", "per")
    else:
        window = _WINDOWS[per]
    shadow, wait = given.pop("shadow", False), given.pop("max_wait_seconds", 0.0)
    if given:
        raise BadTerms(f"unknown: {', '.join(f'`{name}`' for name in given)}")
    if shadow and wait:
        raise BadTerms(
            "`shadow` refuses nothing, so that nothing waits for it: leave `max_wait_seconds` out", "max_wait_seconds"
        )
    return Terms(metric, window, amount, shadow, float(wait))


def _amount(metric: Metric, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadTerms(f"`{metric.word}` is a number", metric.word)
    if metric is Metric.USD:
        try:
            amount = nano_usd_of(value)
        except ValueError as error:
            raise BadTerms(str(error), metric.word) from None
    elif value != int(value):
        raise BadTerms(f"`{metric.word}` is a whole number", metric.word)
    else:
        amount = int(value)
    if not 0 < amount <= MOST:
        most = "9 000 000" if metric is Metric.USD else str(MOST)
        raise BadTerms(f"`{metric.word}` is above 0 and at most {most}", metric.word)
    return amount


class ScopeKind(StrEnum):
    """What a limit may be tied to."""

    TOKEN = "token"
    OWNER = "owner"
    MODEL = "model"
    PATH = "path"
    PROVIDER = "provider"
    CREDENTIAL = "credential"


class Scope(msgspec.Struct, frozen=True):
    """Whom a counter is for: all that match the globs, and of these each of the names; neither: everybody."""

    named: tuple[tuple[ScopeKind, str], ...] = ()
    matched: tuple[tuple[ScopeKind, tuple[str, ...]], ...] = ()

    def key(self, without: Collection[ScopeKind] = ()) -> str:
        """A text that no other scope has, of bounded length, without blanks.

        ``without``: for all names of these kinds together, which is the key of no single one.
        """
        parts = [f"{kind.value}~{_quoted('|'.join(sorted(globs)))}" for kind, globs in self.matched]
        parts += [f"{kind.value}={_OTHERS if kind in without else _quoted(name)}" for kind, name in self.named]
        return ",".join(sorted(parts)) or "all"

    def has(self, kind: ScopeKind) -> bool:
        """Whether it is tied to this ``kind``."""
        return any(each is kind for each, _ in (*self.named, *self.matched))

    @property
    def kinds(self) -> str:
        """What it is tied to, in words that stand for no name: such as `model+token`; `all`: to nothing."""
        return "+".join(sorted({kind.value for kind, _ in (*self.named, *self.matched)})) or "all"

    def __str__(self) -> str:
        parts = [f"{kind.value} `{'` or `'.join(globs)}`" for kind, globs in self.matched]
        return ", ".join(parts + [f"{kind.value} `{name}`" for kind, name in self.named]) or "all requests"


def _quoted(name: str) -> str:
    if _SAFE.fullmatch(name):
        return name
    # No name that stands for itself begins so, and no two share a hash. Lone surrogates come from the wire.
    return "+" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:40]


class Limit(msgspec.Struct, frozen=True):
    """Terms for a scope. ``key`` names its counter: by scope, metric and window and never by its amount.

    So the counter outlives a reload, a changed amount takes effect at once, and several limits may share one.
    """

    terms: Terms
    scope: Scope
    key: str
    spare: str | None = None
    """The counter that names share for which there is no room; None: room is always made."""

    @property
    def metric(self) -> Metric:
        return self.terms.metric

    @property
    def window(self) -> Window | None:
        return self.terms.window

    @property
    def amount(self) -> int:
        return self.terms.amount

    @property
    def shadow(self) -> bool:
        return self.terms.shadow

    @property
    def max_wait_seconds(self) -> float:
        return self.terms.max_wait_seconds

    def __str__(self) -> str:
        return f"{self.terms} ({self.scope})"


EVERYBODY = Scope()


def limit(terms: Terms, scope: Scope = EVERYBODY, unbounded: Collection[ScopeKind] = ()) -> Limit:
    """``terms`` for ``scope``. ``unbounded``: kinds whose names in it clients choose, so that they could be without number."""
    spare = None
    # What is under way is bounded by itself.
    if unbounded and terms.window is not None:
        spare = _key(terms, scope.key(unbounded))
    return Limit(terms, scope, _key(terms, scope.key()), spare)


def _key(terms: Terms, scope: str) -> str:
    window = terms.window.word if terms.window is not None else "held"
    return f"{terms.metric.word}/{window}/{scope}"


class Check(msgspec.Struct, frozen=True, gc=False):
    """One counter of a decision, and how far it may go."""

    key: str
    spare: str | None
    metric: Metric
    window: Window | None
    enforced: int
    """The lowest amount of its limits that are not in shadow; larger than any count where there is none."""
    notable: int
    """A count that is as high as this is worth telling."""
    place: int
    """Of the metric in :class:`access.quotas.amounts.Amounts`: a plain number, as it is asked for at each decision."""
    table: int
    """The number of the window, in the same way; 0 where there is none."""


class Shown(NamedTuple):
    """What callers are told of one limit."""

    check: int
    """The place of its check."""
    amount: int
    header: tuple[str, str]
    """The field that tells the amount."""
    remaining: str
    resets: str
    """The names of the two others."""


class Limits:
    """The limits of one decision, which is all or nothing. Made once and used for many requests."""

    __slots__ = (
        "all",
        "changing",
        "checks",
        "enforcing",
        "found",
        "keys",
        "patient",
        "places",
        "priced",
        "shown",
        "sized",
        "thresholds",
        "varying",
    )

    def __init__(self, limits: Iterable[Limit], thresholds: Sequence[float] = ()) -> None:
        """``thresholds``: shares of an amount, below 1, that are worth telling."""
        self.all = tuple(limits)
        self.thresholds = tuple(sorted(thresholds))
        by_key: dict[str, Check] = {}
        for each in self.all:
            known = by_key.get(each.key)
            enforced = _UNBOUNDED if each.shadow else each.amount
            notable = self._notable(each)
            if known is not None:
                enforced, notable = min(enforced, known.enforced), min(notable, known.notable)
            by_key[each.key] = Check(
                each.key,
                each.spare,
                each.metric,
                each.window,
                enforced,
                notable,
                place=int(each.metric),
                table=int(each.window or 0),
            )
        self.found: Any = None
        """The counters of the last decision, for who has made it (access/quotas/counters.py)."""
        self.checks = tuple(by_key.values())
        """One for each counter: limits that share one count it once."""
        self.changing = tuple((number, check.place, check.table) for number, check in enumerate(self.checks))
        """Of each check its number, the place of its metric, its table."""
        self.varying = tuple(each for each in self.changing if each[1] != Metric.REQUESTS)
        """Those of which a request that was served may have used another amount than was reserved."""
        self.keys = frozenset(by_key)
        places = {key: place for place, key in enumerate(by_key)}
        self.places = tuple(places[each.key] for each in self.all)
        """Of each limit, the place of its counter in ``checks``."""
        self.enforcing = any(not each.shadow for each in self.all)
        """Whether anything can be refused."""
        self.patient = any(each.max_wait_seconds > 0 for each in self.all)
        """Whether anything may be waited for."""
        self.priced = any(each.metric is Metric.USD for each in self.all)
        """Whether it matters what a request costs."""
        self.sized = self.priced or any(each.metric in _TOKENS for each in self.all)
        """Whether it matters how large a request is."""
        groups = (self._shown("requests", Metric.REQUESTS), self._shown("tokens", *_TOKENS))
        self.shown = tuple(group for group in groups if group)
        """What callers are told of, requests and tokens apart."""

    def _notable(self, limit: Limit) -> int:
        if limit.window is not None and self.thresholds:
            return ceil(self.thresholds[0] * limit.amount)
        return limit.amount + 1 if limit.shadow else _UNBOUNDED

    def _shown(self, name: str, *metrics: Metric) -> tuple[Shown, ...]:
        """The limits of these ``metrics`` that callers are told of."""
        return tuple(
            Shown(
                place,
                each.amount,
                (f"x-ratelimit-limit-{name}", str(each.amount)),
                f"x-ratelimit-remaining-{name}",
                f"x-ratelimit-reset-{name}",
            )
            for each, place in zip(self.all, self.places, strict=True)
            if each.metric in metrics and not each.shadow
        )

    def __bool__(self) -> bool:
        return bool(self.all)

    def __repr__(self) -> str:
        return f"<Limits {'; '.join(map(str, self.all)) or 'none'}>"


NO_LIMITS = Limits(())
