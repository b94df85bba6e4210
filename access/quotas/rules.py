"""Which limits are for a request: those of its token, and those of the configuration that match it."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from access.quotas.limits import NO_LIMITS, Limit, Limits, Scope, ScopeKind, Terms, limit
from core.globs import GlobSet

# What is known only once a target is chosen.
_TARGET = (ScopeKind.PROVIDER, ScopeKind.CREDENTIAL)
# Kinds whose names clients choose, within what is open to them.
_CHOSEN = frozenset({ScopeKind.MODEL, ScopeKind.PATH})
_MOST_KEPT = 4096
_LONGEST_KEPT = 256
NOTHING: Mapping[Any, tuple[Terms, ...]] = MappingProxyType({})


class Subject(NamedTuple):
    """What a request is, in names; None: not known, or there is none."""

    token: str | None = None
    owner: str | None = None
    model: str | None = None
    path: str | None = None
    provider: str | None = None
    credential: str | None = None

    def name(self, kind: ScopeKind) -> str | None:
        """Of this ``kind``."""
        name: str | None = getattr(self, kind.value)
        return name


class Rule(msgspec.Struct, frozen=True):
    """Terms for all requests that match."""

    terms: Terms
    match: tuple[tuple[ScopeKind, tuple[str, ...]], ...] = ()
    """Globs: kinds are joined by AND, those of one kind by OR."""
    each: tuple[ScopeKind, ...] = ()
    """Kinds of which each name has a counter of its own; those that a rule names neither here nor there share one."""


class Listed(NamedTuple):
    """A limit as the configuration has it."""

    rule: Rule
    limit: Limit | None
    """What it counts; None: by each name apart."""
    place: tuple[tuple[ScopeKind, str], ...] = ()
    """The provider, or the provider and its credential, in whose entry it stands."""


class _Compiled:
    """A rule, ready to be matched."""

    __slots__ = ("_each", "_globs", "_matched", "_terms", "of_target", "rule")

    def __init__(self, rule: Rule) -> None:
        """
        Raises:
            ValueError: a glob is bad.
        """
        self.rule = rule
        self._terms = rule.terms
        self._each = sorted({*rule.each})
        self._globs = [(kind, GlobSet(patterns)) for kind, patterns in rule.match]
        # Of a kind that it counts by name, the globs only say which names.
        self._matched = tuple((kind, patterns) for kind, patterns in rule.match if kind not in self._each)
        self.of_target = any(kind in _TARGET for kind in (*self._each, *(kind for kind, _ in rule.match)))

    def limit(self, subject: Subject) -> Limit | None:
        """Its limit for the ``subject``; None where it does not match, or has not what the rule counts by."""
        for kind, globs in self._globs:
            name = subject.name(kind)
            if name is None or not globs.matches(name):
                return None
        named = []
        for kind in self._each:
            name = subject.name(kind)
            if name is None:
                return None
            named.append((kind, name))
        return limit(self._terms, Scope(tuple(named), self._matched), _CHOSEN.intersection(self._each))

    def listed(self) -> Listed:
        return Listed(self.rule, None if self._each else limit(self._terms, Scope((), self._matched)))


class Rules:
    """The limits of one configuration. A request meets them twice: as it comes, and for each target that it is sent to."""

    __slots__ = (
        "_credentials",
        "_kept",
        "_of_request",
        "_of_target",
        "_providers",
        "_rules",
        "_targets",
        "_thresholds",
        "_tokens",
        "any",
        "on_requests",
        "on_targets",
        "ruled_by_target",
    )

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        providers: Mapping[str, tuple[Terms, ...]] = NOTHING,
        credentials: Mapping[tuple[str, str], tuple[Terms, ...]] = NOTHING,
        thresholds: Sequence[float] = (),
    ) -> None:
        """``providers`` and ``credentials`` (each by its provider's name and its own): what stands in their own entries.
        ``thresholds``: shares of an amount that are worth telling.

        Raises:
            ValueError: a glob is bad.
        """
        self._rules = [_Compiled(rule) for rule in rules]
        self._of_request = [rule for rule in self._rules if not rule.of_target]
        self._of_target = [rule for rule in self._rules if rule.of_target]
        self._providers = {
            name: [limit(each, Scope(((ScopeKind.PROVIDER, name),))) for each in terms]
            for name, terms in providers.items()
        }
        self._credentials = {
            names: [limit(each, Scope(tuple(zip(_TARGET, names, strict=True)))) for each in terms]
            for names, terms in credentials.items()
        }
        self._thresholds = tuple(thresholds)
        self.on_requests = bool(self._of_request)
        """Whether there are any but tokens' own that a request may meet as it comes."""
        self.on_targets = bool(self._of_target or any(providers.values()) or any(credentials.values()))
        """Whether there are any that it may meet on its way to a target."""
        self.ruled_by_target = bool(self._of_target)
        """Whether rules are among these, and not only entries of providers and credentials."""
        self.any = self.on_requests or self.on_targets
        self._kept: dict[Subject, tuple[tuple[Terms, ...], str | None, Limits]] = {}
        # Where names of models and paths have no say, most requests are told by fewer.
        self._tokens: dict[str, tuple[tuple[Terms, ...], Limits]] = {}
        self._targets: dict[tuple[str, str], Limits] = {}

    def for_request(self, subject: Subject, own: tuple[Terms, ...] = (), counted_as: str | None = None) -> Limits:
        """Before anything is sent. ``own``: the terms of the token itself; its counters are named by ``counted_as``
        (:attr:`core.identity.ApiToken.counted_as`), since tokens may have its name before it and after it."""
        kept = self._kept.get(subject)
        if kept is not None and kept[0] is own and kept[1] == counted_as:
            return kept[2]
        limits = _matching(self._of_request, subject)
        if counted_as is not None:
            limits += [limit(each, Scope(((ScopeKind.TOKEN, counted_as),))) for each in own]
        return self._keep(subject, own, counted_as, limits)

    def of_token(self, own: tuple[Terms, ...], counted_as: str) -> Limits:
        """The same where none are :attr:`on_requests`: the token's own."""
        kept = self._tokens.get(counted_as)
        if kept is not None and kept[0] is own:
            return kept[1]
        if len(self._tokens) >= _MOST_KEPT:
            self._tokens.clear()
        limits = self.for_request(Subject(), own, counted_as)
        self._tokens[counted_as] = own, limits
        return limits

    def for_target(self, subject: Subject) -> Limits:
        """Before an attempt at ``subject.provider``, which is known then, with ``subject.credential``."""
        assert subject.provider is not None
        kept = self._kept.get(subject)
        if kept is not None:
            return kept[2]
        limits = _matching(self._of_target, subject)
        limits += self._providers.get(subject.provider, [])
        if subject.credential is not None:
            limits += self._credentials.get((subject.provider, subject.credential), [])
        return self._keep(subject, (), None, limits)

    def of_target(self, provider: str, credential: str) -> Limits:
        """The same where no rule is :attr:`ruled_by_target`: those of the entries of the two."""
        kept = self._targets.get((provider, credential))
        if kept is None:
            kept = self._targets[provider, credential] = self.for_target(
                Subject(provider=provider, credential=credential)
            )
        return kept

    def listed(self) -> Iterator[Listed]:
        """Those of the configuration: the rules in their order, then those of providers and of credentials."""
        for rule in self._rules:
            yield rule.listed()
        for each in itertools.chain(*self._providers.values(), *self._credentials.values()):
            yield Listed(Rule(each.terms), each, each.scope.named)

    def _keep(self, subject: Subject, own: tuple[Terms, ...], counted_as: str | None, limits: list[Limit]) -> Limits:
        made = Limits(limits, self._thresholds) if limits else NO_LIMITS
        if max((len(name) for name in subject if name is not None), default=0) > _LONGEST_KEPT:
            return made
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()  # the usual come back soon
        self._kept[subject] = own, counted_as, made
        return made


def _matching(rules: list[_Compiled], subject: Subject) -> list[Limit]:
    return [found for rule in rules if (found := rule.limit(subject)) is not None]
