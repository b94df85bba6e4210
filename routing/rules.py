"""Rules: which route takes a request. Fields are joined by AND, the globs of a field by OR, the first rule wins.

A thousand rules are not tried one by one: each is filed in an index under one of its fields, and only the rules
whose filed field matches are looked at further, in file order.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import msgspec

from config.faults import ConfigFaults, Fault, Path
from config.schema import Names, Route
from core.globs import Glob, GlobIndex, GlobSet
from routing.plan import RouteQuery

_FIELDS = ("model", "requested_model", "token", "path")
_HEADERS = "headers."
_EVERY = sys.maxsize


class Loss(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a rule did not take a request."""

    route: str
    field: str
    """The first field that failed: `model`, `token`, `headers.x-tier`, …"""
    wanted: tuple[str, ...]
    """What the rule asks for; any one would do. Empty: it does not say, where it would have to."""
    value: tuple[str, ...]
    """What the request has; empty: nothing."""


class Rule:
    """The `match` of one route, compiled."""

    __slots__ = ("globs", "name", "stream")

    def __init__(self, route: Route, place: int) -> None:
        """
        Raises:
            ConfigFaults: bad globs.
        """
        self.name = route.name
        self.stream = route.match.stream
        path: Path = ("routes", place, "match")
        faults: list[Fault] = []
        self.globs: dict[str, GlobSet] = {}
        """By field, in the order of asking; a header's field is ``headers.`` and its name in lower case."""
        for field in _FIELDS:
            names: Names | None = getattr(route.match, field)
            if names is not None:
                self.globs[field] = _globs(names, (*path, field), faults)
        for header, names in route.match.headers.items():
            at: Path = (*path, "headers", header)
            field = _HEADERS + header.lower()
            if field in self.globs:
                faults.append(Fault(at, "the same header twice: case does not tell them apart; join the two lists"))
            self.globs[field] = _globs(names, at, faults)
        if faults:
            raise ConfigFaults(faults)

    def mismatch(self, query: RouteQuery, model: str | None) -> str | None:
        """The first field that ``query`` (whose final name is ``model``) fails; None: the rule takes it.

        A request without a model is taken only by a rule that asks for its path.
        """
        if model is None and "path" not in self.globs:
            return "path"
        if self.stream is not None and self.stream is not query.stream:
            return "stream"
        for field, globs in self.globs.items():
            if not any(globs.matches(value) for value in _values(query, model, field)):
                return field
        return None

    def loss(self, query: RouteQuery, model: str | None) -> Loss | None:
        """:meth:`mismatch`, with what was wanted and what was there."""
        field = self.mismatch(query, model)
        if field is None:
            return None
        if field == "stream":
            return Loss(self.name, field, (_word(bool(self.stream)),), (_word(query.stream),))
        wanted = self.globs[field].patterns if field in self.globs else ()
        return Loss(self.name, field, wanted, tuple(_values(query, model, field)))


class RuleSet:
    """Every rule, in file order."""

    __slots__ = ("_fields", "_indexes", "_streams", "_unfiled", "rules")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._unfiled: list[int] = []
        # Filed under the field whose globs are shared with the fewest others: of a thousand rules for `gpt-*`,
        # each for its own token, the tokens tell which one it is.
        crowds = Counter(
            (field, glob.pattern) for rule in self.rules for field, globs in rule.globs.items() for glob in globs.globs
        )
        filed: dict[str, list[tuple[Glob, int]]] = {}
        for place, rule in enumerate(self.rules):
            if not rule.globs:
                self._unfiled.append(place)
                continue
            field = min(rule.globs, key=partial(_crowd, rule, crowds))
            filed.setdefault(field, []).extend((glob, place) for glob in rule.globs[field].globs)
        self._indexes: Mapping[str, GlobIndex] = {field: GlobIndex(entries) for field, entries in filed.items()}
        fields = dict.fromkeys(field for rule in self.rules for field in rule.globs)
        self._fields = tuple(field for field in fields if field not in ("model", "requested_model"))
        self._streams = any(rule.stream is not None for rule in self.rules)

    def seen(self, query: RouteQuery) -> tuple[object, ...]:
        """All that any rule looks at in ``query`` besides its model: two queries with the same are taken alike."""
        if not self._fields:
            return (query.stream,) if self._streams else ()
        return (
            query.stream if self._streams else None,
            *(tuple(_values(query, None, field)) for field in self._fields),
        )

    def first(self, query: RouteQuery, model: str | None) -> int | None:
        """The place of the first rule that takes ``query``, whose final name is ``model``; None: none does."""
        candidates = list(self._unfiled)
        for field, index in self._indexes.items():
            for value in _values(query, model, field):
                candidates += index.matching(value)
        candidates.sort()
        for place in candidates:
            if self.rules[place].mismatch(query, model) is None:
                return place
        return None

    def model_globs(self) -> tuple[Glob, ...] | None:
        """Every glob over final names; None where some rule takes any name at all."""
        if not all("model" in rule.globs for rule in self.rules):
            return None
        return tuple(glob for rule in self.rules for glob in rule.globs["model"].globs)

    def losses(self, query: RouteQuery, model: str | None) -> Iterator[Loss]:
        """Why each rule before the winner lost, in order."""
        for rule in self.rules:
            loss = rule.loss(query, model)
            if loss is None:
                return
            yield loss


def _globs(names: Names, path: Path, faults: list[Fault]) -> GlobSet:
    """The set of the good patterns; the bad ones become faults."""
    good: list[Glob] = []
    for number, pattern in enumerate((names,) if isinstance(names, str) else names):
        try:
            good.append(Glob(pattern))
        except ValueError as error:
            faults.append(Fault(path if isinstance(names, str) else (*path, number), str(error)))
    return GlobSet(good)


def _values(query: RouteQuery, model: str | None, field: str) -> Sequence[str]:
    """What the request has for ``field``. Only a header can have several values; any one of them will do."""
    if field == "model":
        value = model
    elif field == "token":
        value = query.token
    elif field == "path":
        value = query.path
    elif field == "requested_model":
        value = query.model
    else:
        return query.headers.get_all(field.removeprefix(_HEADERS))
    return () if value is None else (value,)


def _crowd(rule: Rule, crowds: Mapping[tuple[str, str], int], field: str) -> int:
    """How many rules the index would have to look at for the least telling glob of ``field``."""
    return max(
        crowds[field, glob.pattern] if all(each.head or each.tail for each in glob.alternatives) else _EVERY
        for glob in rule.globs[field].globs
    )


def _word(stream: bool) -> str:
    return "streamed" if stream else "not streamed"
