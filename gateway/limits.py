"""Limits: the rules of a configuration, and where their counters are kept, for as long as the process lives."""

import logging
import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from access.limit_entries import read_limits
from access.quotas.amounts import Amounts
from access.quotas.limits import Limits, ScopeKind, Terms
from access.quotas.memory import MemoryStore
from access.quotas.outage import Observer, OnFailure, Reason
from access.quotas.outcomes import Admission, Lease, Unavailable
from access.quotas.rules import Rule, Rules
from access.quotas.store import QuotaStore
from access.quotas.waiting import WaitingStore
from config.faults import ConfigFaults, Fault, Path, did_you_mean
from config.schema import Config, LimitMatch, SharedLimit
from core.clock import Clock
from core.events import Events, QuotaStoreDown, QuotaStoreRecovered
from core.globs import Glob
from telemetry.metrics import Metrics

_log = logging.getLogger("sluice.quotas")

_KINDS = tuple(ScopeKind)
_REDIS_ADDRESS = re.compile(
    r"rediss?://([^\s/?#]*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[0-9]{0,4})?"
    r"|unix://([^\s/?#]*@)?/[^\s?#]+"
)
# What else Redis's client takes there would change how it is spoken to.
_REDIS_OPTIONS = re.compile(r"(ssl_(ca_certs|certfile|keyfile)=[^\s&#]+(&|\Z))*")
_RETRY_SECONDS = 60.0
# Not repeated: it may carry a password.
_NO_ADDRESS = (
    "not the address of a Redis: write `redis://HOST:PORT/DATABASE`, `rediss://` for TLS (with `?ssl_ca_certs=FILE` for "
    "an authority of your own), or `unix:///PATH`"
)


def rules_of(config: Config) -> Rules:
    """The limits of the file, but for tokens' own, which come with them.

    Raises:
        ConfigFaults: every fault of every limit, with paths only.
    """
    faults: list[Fault] = []

    def terms_of(path: Path, limits: tuple[Any, ...]) -> tuple[Terms, ...]:
        terms, found = read_limits(path, map(_terms_members, limits))
        faults.extend(found)
        return terms

    shared = terms_of(("limits",), config.limits)
    matches = [tuple(_match(each.match)) for each in config.limits]
    for position, match in enumerate(matches):
        faults += _match_faults(("limits", position, "match"), match, config)
    providers: dict[str, tuple[Terms, ...]] = {}
    credentials: dict[tuple[str, str], tuple[Terms, ...]] = {}
    for position, provider in enumerate(config.providers):
        path: Path = ("providers", position)
        providers[provider.name] = terms_of((*path, "limits"), provider.limits)
        for number, credential in enumerate(provider.credentials):
            terms = terms_of((*path, "credentials", number, "limits"), credential.limits)
            credentials[provider.name, credential.name] = terms
    if faults:
        raise ConfigFaults(faults)
    rules = [
        Rule(terms, match, _each(entry)) for terms, match, entry in zip(shared, matches, config.limits, strict=True)
    ]
    return Rules(rules, providers, credentials, config.quotas.thresholds)


def _terms_members(limit: Any) -> dict[str, Any]:
    members = msgspec.structs.asdict(limit)
    members.pop("match", None)
    members.pop("each", None)
    return members


def _match(match: LimitMatch) -> Iterator[tuple[ScopeKind, tuple[str, ...]]]:
    for kind in _KINDS:
        globs = getattr(match, kind.value)
        if globs is not None:
            yield kind, (globs,) if isinstance(globs, str) else globs


def _each(shared: SharedLimit) -> tuple[ScopeKind, ...]:
    kinds = {ScopeKind(kind) for kind in shared.each}
    if ScopeKind.CREDENTIAL in kinds:
        # Each provider has credentials of its own, whatever they are called.
        kinds.add(ScopeKind.PROVIDER)
    return tuple(kinds)


def _match_faults(path: Path, match: tuple[tuple[ScopeKind, tuple[str, ...]], ...], config: Config) -> Iterator[Fault]:
    known = {
        ScopeKind.PROVIDER: {provider.name for provider in config.providers},
        ScopeKind.CREDENTIAL: {each.name for provider in config.providers for each in provider.credentials},
    }
    for kind, globs in match:
        for place, text in enumerate(globs):
            at = (*path, kind.value, place) if len(globs) > 1 else (*path, kind.value)
            try:
                glob = Glob(text)
            except ValueError as error:
                yield Fault(at, str(error))
                continue
            names = known.get(kind)
            # It would limit nothing, and nobody would see.
            if names is not None and glob.exact and text not in names:
                yield Fault(at, f"there is no {kind.value} `{text}`{did_you_mean(text, names)}")


def limited_places(config: Config) -> Iterator[Path]:
    """Where the document has limits."""
    if config.limits:
        yield ("limits",)
    for position, token in enumerate(config.tokens):
        if token.limits:
            yield ("tokens", position, "limits")
    for position, provider in enumerate(config.providers):
        if provider.limits:
            yield ("providers", position, "limits")
        for number, credential in enumerate(provider.credentials):
            if credential.limits:
                yield ("providers", position, "credentials", number, "limits")


def _is_address(url: str) -> bool:
    address, _, options = url.partition("?")
    if _REDIS_ADDRESS.fullmatch(address) is None or _REDIS_OPTIONS.fullmatch(options) is None:
        return False
    if options and not url.startswith("rediss:"):
        return False  # its client has certificates only for TLS
    try:
        return urlsplit(address).port != 0
    except ValueError:  # there is no such port, or no such IPv6 address
        return False


class QuotaState(msgspec.Struct, frozen=True, kw_only=True):
    """How the store of the counters is, as far as this process knows."""

    store: Literal["memory", "redis", "none"]
    """`none`: several workers have no Redis in common."""
    up: bool
    reason: str | None = None
    """One of :class:`access.quotas.outage.Reason`."""
    since: float | None = None
    """Since when it cannot be used, in seconds since the Unix epoch."""
    waiting: int = 0
    """Requests that wait for a limit."""


class QuotaKeeper(Observer):
    """Has the counters. The first configuration that is put in force says where they are, for as long as the process lives."""

    def __init__(self, clock: Clock, events: Events, metrics: Metrics, workers: int = 1) -> None:
        """``workers``: how many serve, this one included."""
        self._clock = clock
        self._events = events
        self._metrics = metrics
        self._workers = workers
        self._config: Config | None = None
        self._store: WaitingStore | None = None
        self._reason: Reason | None = None
        self._since: float | None = None

    def follow(self, config: Config) -> None:
        """``config`` is put in force. All but the first change nothing."""
        if self._config is None:
            self._config = config

    def check(self, config: Config) -> None:
        """See that limits of ``config`` would be kept.

        Raises:
            ConfigFaults: several processes would each count for itself; Redis has no address.
        """
        url = config.redis.url
        if url is not None and not _is_address(url.reveal()):
            raise ConfigFaults([Fault(("redis", "url"), _NO_ADDRESS)])
        because = self._not_kept_with(config)
        if because is not None and (faults := [Fault(path, because) for path in limited_places(config)]):
            raise ConfigFaults(faults)

    @property
    def not_kept_because(self) -> str | None:
        """Why no limit can be kept in this process, in words with a mend; None: each can."""
        return None if self._config is None else self._not_kept_with(self._config)

    def _not_kept_with(self, config: Config) -> str | None:
        running = self._config
        if running is not None and self._workers > 1 and running.redis.url is None:
            return (
                f"{self._workers} workers run without Redis, and each would count for itself: "
                "set `redis.url`, or `server.workers: 1`, and start the gateway again"
            )
        workers = max(self._workers, config.server.workers) if running is None else config.server.workers
        if workers > 1 and config.redis.url is None:
            return f"{workers} workers would each count for itself: set `redis.url`, or `server.workers: 1`"
        return None

    @property
    def store(self) -> WaitingStore:
        """There from :meth:`start` on."""
        assert self._store is not None, "start() comes first"
        return self._store

    async def start(self) -> None:
        """Begin to count. A Redis that is not to be reached is no failure: it is looked for as long as it takes."""
        assert self._config is not None, "a configuration comes first"
        store = self._store = WaitingStore(self._inner(self._config), self._config.quotas.max_waiting)
        self._metrics.quotas.watch_waiting(lambda: store.waiting)
        await store.start()
        if self._config.redis.url is not None and self._reason is None:
            self._metrics.quotas.show_store(up=True)

    def _inner(self, config: Config) -> QuotaStore:
        memory = MemoryStore(self._clock)
        if self.not_kept_because is not None:
            return Unkept(memory, self.not_kept_because)
        redis, quotas = config.redis, config.quotas
        if redis.url is None:
            return memory
        # Its client takes 15 MB and a tenth of a second.
        from access.quotas.channel import Channel  # noqa: PLC0415  large: see above
        from access.quotas.redis import RedisStore  # noqa: PLC0415  as above

        return RedisStore(
            Channel(redis.url.reveal, redis.timeout_seconds),
            self._clock,
            on_failure=OnFailure(quotas.on_store_failure),
            observer=self,
            prefix=redis.prefix,
            lease_seconds=quotas.lease_seconds,
        )

    async def close(self) -> None:
        """No request is under way any more."""
        if self._store is not None:
            await self._store.close()

    def state(self) -> QuotaState:
        """For the health."""
        config, reason = self._config, self._reason
        waiting = self._store.waiting if self._store is not None else 0
        if self.not_kept_because is not None:
            return QuotaState(store="none", up=False)
        if config is None or config.redis.url is None:
            return QuotaState(store="memory", up=True, waiting=waiting)
        word = None if reason is None else reason.value
        return QuotaState(store="redis", up=reason is None, reason=word, since=self._since, waiting=waiting)

    # What the store tells

    def down(self, reason: Reason, detail: str) -> None:
        assert self._config is not None
        on_failure = self._config.quotas.on_store_failure
        self._reason, self._since = reason, self._clock.time()
        then = "each process counts for itself" if on_failure == "local" else "requests with limits are refused"
        _log.warning("Redis, which counts limits, cannot be used (%s: %s): %s", reason.value, detail, then)
        self._metrics.quotas.show_store(up=False)
        self._events.emit(QuotaStoreDown(reason=reason.value, on_store_failure=on_failure))

    def up(self, down_seconds: float) -> None:
        self._reason = self._since = None
        _log.info("Redis counts limits again, after %.1f s", down_seconds)
        self._metrics.quotas.show_store(up=True)
        self._events.emit(QuotaStoreRecovered(down_seconds=down_seconds))


class Unkept:
    """A :class:`access.quotas.store.QuotaStore` of one among several processes that have no counters in common.

    The configuration of such processes has no limits; tokens in the database may have them all the same. These are not
    ignored: requests with them are refused.
    """

    def __init__(self, memory: MemoryStore, because: str) -> None:
        """``memory`` has what only counts; ``because`` is for the log."""
        self._memory = memory
        self._because = because
        self._told = False

    async def admit(self, limits: Limits, charges: Amounts) -> Admission:
        return self.decide(limits, charges)

    def decide(self, limits: Limits, charges: Amounts) -> Admission:
        if not limits.enforcing:
            return self._memory.decide(limits, charges)
        if not self._told:
            self._told = True
            _log.error("requests are refused whose tokens have limits: %s", self._because)
        return Unavailable(_RETRY_SECONDS)

    def settle(self, lease: Lease, actual: Amounts) -> None:
        self._memory.settle(lease, actual)

    def release(self, lease: Lease) -> None:
        self._memory.release(lease)

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass
