"""Which limits are for a request: those of its token, and those of the configuration that match it."""

from collections.abc import Iterable, Mapping
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


class _Compiled:
    """A rule, ready to be matched."""

    __slots__ = ("_each", "_globs", "_matched", "_terms", "of_target")

    def __init__(self, rule: Rule) -> None:
        """
        Raises:
            ValueError: a glob is bad.
        """
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


class Rules:
    """The limits of one configuration. A request meets them twice: as it comes, and for each target that it is sent to."""

    __slots__ = ("_credentials", "_kept", "_of_request", "_of_target", "_providers")

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        providers: Mapping[str, tuple[Terms, ...]] = NOTHING,
        credentials: Mapping[tuple[str, str], tuple[Terms, ...]] = NOTHING,
    ) -> None:
        """``providers`` and ``credentials`` (each by its provider's name and its own): what stands in their own entries.

        Raises:
            ValueError: a glob is bad.
        """
        compiled = [_Compiled(rule) for rule in rules]
        self._of_request = [rule for rule in compiled if not rule.of_target]
        self._of_target = [rule for rule in compiled if rule.of_target]
        self._providers = {
            name: [limit(each, Scope(((ScopeKind.PROVIDER, name),))) for each in terms]
            for name, terms in providers.items()
        }
        self._credentials = {
            names: [limit(each, Scope(tuple(zip(_TARGET, names, strict=True)))) for each in terms]
            for names, terms in credentials.items()
        }
        self._kept: dict[Subject, tuple[tuple[Terms, ...], Limits]] = {}

    def for_request(self, subject: Subject, own: tuple[Terms, ...] = ()) -> Limits:
        """Before anything is sent. ``own``: the terms of the token itself, whose name is in ``subject``."""
        kept = self._kept.get(subject)
        if kept is not None and kept[0] is own:
            return kept[1]
        limits = _matching(self._of_request, subject)
        if subject.token is not None:
            limits += [limit(each, Scope(((ScopeKind.TOKEN, subject.token),))) for each in own]
        return self._keep(subject, own, limits)

    def for_target(self, subject: Subject) -> Limits:
        """Before an attempt at ``subject.provider``, which is known then, with ``subject.credential``."""
        assert subject.provider is not None
        kept = self._kept.get(subject)
        if kept is not None:
            return kept[1]
        limits = _matching(self._of_target, subject)
        limits += self._providers.get(subject.provider, [])
        if subject.credential is not None:
            limits += self._credentials.get((subject.provider, subject.credential), [])
        return self._keep(subject, (), limits)

    def _keep(self, subject: Subject, own: tuple[Terms, ...], limits: list[Limit]) -> Limits:
        made = Limits(limits) if limits else NO_LIMITS
        if max((len(name) for name in subject if name is not None), default=0) > _LONGEST_KEPT:
            return made
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()  # the usual come back soon
        self._kept[subject] = own, made
        return made


def _matching(rules: list[_Compiled], subject: Subject) -> list[Limit]:
    return [found for rule in rules if (found := rule.limit(subject)) is not None]
