"""The tokens that the API has made, as requests look them up: a snapshot in memory, swapped whole.

Nothing of a request waits for the database that they are kept in; gateway/issued_tokens.py brings its changes here.
"""

import ipaddress
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from weakref import WeakValueDictionary

import msgspec

from access.address import IPNetwork, parse_network
from access.limit_entries import read_limits
from access.lookup import TokenTable
from access.quotas.amounts import Metric
from access.quotas.limits import Terms
from access.quotas.windows import Window
from core.globs import GlobSet
from core.identity import ApiToken, Bounds, Grant, Scope
from core.moments import MICROSECONDS
from storage.records import StoredToken, TokenChanges

_log = logging.getLogger("sluice.access")

# RFC 6666: nothing is sent from there.
_NOWHERE = ipaddress.IPv6Network("100::/64")
_KEPT_ANSWERS = 256
_NOTHING = Terms(Metric.REQUESTS, Window.MINUTE, 0)


class IssuedTokens:
    """The snapshot in use. Lives on one event loop; outlives generations."""

    __slots__ = ("_ending_at", "_graces", "_table", "incomplete", "version")

    def __init__(self) -> None:
        self._table = TokenTable()
        self._graces: dict[bytes, float] = {}
        """When those end that live on beside their successors, by their digests."""
        self._ending_at = math.inf
        self.version: int | None = None
        """Of the tokens in the database (:attr:`storage.records.TokenChanges.version`); None: nothing is loaded yet."""
        self.incomplete = False
        """Whether there are some that could not be loaded yet: who holds one is not to be told that it is unknown."""

    def find(self, presented: bytes) -> ApiToken | None:
        """The living token whose text has the SHA-256 ``presented``."""
        return self._table.find(presented)

    def become(self, other: "IssuedTokens") -> None:
        """Put the snapshot of ``other`` in use, whole: it has all that there are."""
        self._table, self._graces = other._table, other._graces  # noqa: SLF001  of the same class
        self._ending_at, self.version = other._ending_at, other.version  # noqa: SLF001  as above
        self.incomplete = False

    def apply(self, changes: TokenChanges, now: float) -> None:
        """Put a snapshot in use that has these ``changes`` over the present one. ``now``: seconds since the Unix epoch."""
        at = round(now * MICROSECONDS)
        living = [each for each in changes.tokens if each.living(at)]
        self._swap(living, [each.sha256 for each in changes.tokens if not each.living(at)])
        self.version = changes.version

    def put(self, changed: StoredToken, now: float) -> None:
        """The same with one that this process has changed itself; of others' changes nothing is known by that.

        What is known already is newer or the same: a revocation that came meanwhile must not be undone.
        """
        if self.version is not None and changed.changed <= self.version:
            return
        if changed.living(round(now * MICROSECONDS)):
            self._swap((changed,), ())
        else:
            self._swap((), (changed.sha256,))

    def prune(self, now: float) -> None:
        """Forget those whose grace has ended: they are refused from then on in any case."""
        if now >= self._ending_at:
            self._swap((), [sha256 for sha256, until in self._graces.items() if now >= until])

    def _swap(self, put: Sequence[StoredToken], removed: Iterable[bytes]) -> None:
        removed = tuple(removed)
        changed = {*removed, *(each.sha256 for each in put)}
        graces = {sha256: until for sha256, until in self._graces.items() if sha256 not in changed}
        graces |= {each.sha256: each.grace_until / MICROSECONDS for each in put if each.grace_until is not None}
        self._table = self._table.changed(((each.sha256, api_token(each)) for each in put), removed)
        self._graces, self._ending_at = graces, min(graces.values(), default=math.inf)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"IssuedTokens({len(self)} tokens, version {self.version})"


def api_token(stored: StoredToken) -> ApiToken:
    """What a request gets to know of ``stored``. What cannot be understood opens nothing."""
    scope = _scope(stored)
    ends = [at / MICROSECONDS for at in (stored.expires_at, stored.grace_until) if at is not None]
    return ApiToken(
        name=stored.name,
        scope=scope,
        grants=grants_of(scope, stored.endpoints),
        allows_model=_allowing(stored.models),
        any_model="*" in stored.models,
        bounds=bounds_of(min(ends, default=None), _networks(stored.ip_ranges)),
        id=stored.id,
        owner=stored.owner,
        limits=_limits(msgspec.json.encode(stored.limits)) if stored.limits else (),
        counted_as=f"api:{stored.counted_as or stored.id}" if stored.limits else "",
    )


def bounds_of(until: float | None, networks: tuple[IPNetwork, ...]) -> Bounds | None:
    """None where there are none, so that most requests ask nothing."""
    if until is None and not networks:
        return None
    return Bounds(math.inf if until is None else until, networks)


@lru_cache(maxsize=256)
def grants_of(scope: Scope, endpoints: tuple[str, ...]) -> frozenset[Grant]:
    """`scope_metrics` opens `/metrics` alone, whatever `endpoints` says by default."""
    if scope is Scope.METRICS:
        return frozenset()
    return frozenset(Grant(name) for name in endpoints if name in _GRANTS)


_GRANTS = frozenset(Grant)


def _scope(stored: StoredToken) -> Scope:
    try:
        return Scope(stored.scope)
    except ValueError:
        _log.error("the token `%s` has the unknown scope `%s`: it counts as `%s`", stored.id, stored.scope, Scope.USER)
        return Scope.USER


@lru_cache(maxsize=1024)
def _networks(ip_ranges: tuple[str, ...]) -> tuple[IPNetwork, ...]:
    try:
        return tuple(parse_network(each) for each in ip_ranges)
    except ValueError as error:
        _log.error("a token in the database may be used from nowhere: %s", error)
        return (_NOWHERE,)


@lru_cache(maxsize=1024)
def _limits(written: bytes) -> tuple[Terms, ...]:
    """The same for all tokens that say the same."""
    terms, faults = read_limits((), msgspec.json.decode(written))
    for fault in faults:
        _log.error("a token in the database is admitted to nothing, as a limit of it cannot be understood: %s", fault)
    return (_NOTHING,) if faults else terms


class _Models:
    """Whether a name matches one of a token's `models`; compiled when first asked.

    Thousands of tokens mostly have a few sets of models between them, and many are never used.
    """

    __slots__ = ("__weakref__", "_matches", "_models")

    def __init__(self, models: tuple[str, ...]) -> None:
        self._models = models
        self._matches: Callable[[str], bool] | None = None

    def __call__(self, name: str) -> bool:
        if self._matches is None:
            # Most requests ask for a model that another has asked for.
            self._matches = lru_cache(maxsize=_KEPT_ANSWERS)(self._globs().matches)
        return self._matches(name)

    def _globs(self) -> GlobSet:
        try:
            return GlobSet(self._models)
        except ValueError as error:
            _log.error("a token in the database opens no model: %s", error)
            return GlobSet(())


_shared: WeakValueDictionary[tuple[str, ...], _Models] = WeakValueDictionary()


def _allowing(models: tuple[str, ...]) -> Callable[[str], bool]:
    """The same for all tokens that say the same."""
    known = _shared.get(models)
    if known is None:
        known = _shared[models] = _Models(models)
    return known
