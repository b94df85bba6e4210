"""Which webhooks an event is for: by its name, by its fields, and by sample. Pure.

All is worked out when a configuration is put in force: of an event that nobody wants, one look-up is left.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import get_args, get_type_hints

import msgspec

from core.events import EVENTS, Event
from core.globs import GlobSet
from core.ids import EVENT_ID_PREFIX
from core.remembered import Remembered

_SAMPLE_DIGITS = 8
_SAMPLED = slice(len(EVENT_ID_PREFIX), len(EVENT_ID_PREFIX) + _SAMPLE_DIGITS)


class SubscriptionFault(ValueError):
    """A subscription that can match nothing, or not what it seems to. ``key`` says which part of it is at fault."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """What one webhook wants to be told."""

    webhook: str
    """Its name."""
    events: tuple[str, ...] = ("*",)
    """Globs over the names of events, joined by OR."""
    match: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Globs over the texts of fields: those of one field are joined by OR, fields by AND. Numbers are matched as they are
    written, booleans as `true` and `false`; a field that is null, or that an event does not have, never matches."""
    sample: float = 1.0
    """The share of these events that it is told, over 0 and up to 1. Which ones follows from their ids alone: every process
    chooses alike, and what a small share has a larger one has too."""


class _Wish(msgspec.Struct, frozen=True):
    """A subscription, as far as one kind of event is concerned."""

    webhook: str
    below: str | None
    """The digits of the id must be below this; None: any will do."""
    fields: tuple[tuple[str, Remembered[bool]], ...]


class Subscriptions:
    """Those of all webhooks."""

    __slots__ = ("_wishes",)

    def __init__(self, subscriptions: Iterable[Subscription], kinds: Sequence[type[Event]] = EVENTS) -> None:
        """
        Raises:
            SubscriptionFault: one of them is bad.
        """
        self._wishes: dict[type[Event], tuple[_Wish, ...]] = {}
        for subscription in subscriptions:
            for kind, wish in _wishes(subscription, kinds):
                self._wishes[kind] = (*self._wishes.get(kind, ()), wish)

    @property
    def kinds(self) -> frozenset[type[Event]]:
        """Those of which any event may be for anybody."""
        return frozenset(self._wishes)

    def wanted(self, kind: type[Event]) -> bool:
        """Whether an event of ``kind`` may be for anybody."""
        return kind in self._wishes

    def webhooks_for(self, event: Event, event_id: str) -> tuple[str, ...]:
        """The names of those that it is for, in the order of the configuration."""
        wishes = self._wishes.get(type(event))
        if wishes is None:
            return ()
        names: tuple[str, ...] = ()
        for wish in wishes:
            if wish.below is not None and event_id[_SAMPLED] >= wish.below:
                continue
            for field, matches in wish.fields:
                if not matches[_text(getattr(event, field))]:
                    break
            else:
                names += (wish.webhook,)
        return names


def _wishes(subscription: Subscription, kinds: Sequence[type[Event]]) -> Iterable[tuple[type[Event], _Wish]]:
    name = subscription.webhook
    if not 0 < subscription.sample <= 1:
        raise SubscriptionFault(
            "sample",
            f"webhook `{name}`: a sample of {subscription.sample} is no share: write a number over 0 and up to 1",
        )
    named = [kind for kind in kinds if _globs("events", subscription.events, name).matches(kind.name)]
    for pattern in subscription.events:
        if not any(_globs("events", (pattern,), name).matches(kind.name) for kind in kinds):
            raise SubscriptionFault(
                "events",
                f"webhook `{name}`: no event has a name like `{pattern}`{_meant(pattern, [kind.name for kind in kinds])}",
            )
    plain = {field: _is_plain(kind, field) for kind in named for field in kind.__struct_fields__}
    known = [field for field, is_plain in plain.items() if is_plain]
    for field in subscription.match:
        if not plain.get(field, True):
            raise SubscriptionFault(
                f"match.{field}",
                f"webhook `{name}`: `{field}` has members of its own, which no glob matches: leave it out",
            )
        if field not in known:
            raise SubscriptionFault(
                f"match.{field}",
                f"webhook `{name}`: none of its events has a field `{field}`{_meant(field, sorted(known))}",
            )
    fields = tuple((field, _matcher(field, globs, name)) for field, globs in subscription.match.items())
    below = None
    if subscription.sample < 1:
        below = f"{round(subscription.sample * 16**_SAMPLE_DIGITS):0{_SAMPLE_DIGITS}x}"
        # The share may be so close to 1 that the bound has one digit more.
        below = below if len(below) == _SAMPLE_DIGITS else None
    wish = _Wish(name, below, fields)
    return [(kind, wish) for kind in named if subscription.match.keys() <= set(kind.__struct_fields__)]


def _globs(key: str, patterns: tuple[str, ...], webhook: str) -> GlobSet:
    try:
        return GlobSet(patterns)
    except ValueError as error:
        raise SubscriptionFault(key, f"webhook `{webhook}`: {error}") from None


def _matcher(field: str, patterns: tuple[str, ...], webhook: str) -> Remembered[bool]:
    if not patterns:
        raise SubscriptionFault(
            f"match.{field}", f"webhook `{webhook}`: `{field}` has an empty list, which nothing matches: leave it out"
        )
    return Remembered(_globs(f"match.{field}", patterns, webhook).matches)


def _meant(text: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(text, known, 1)
    return f": did you mean `{close[0]}`?" if close else f": there are {', '.join(f'`{one}`' for one in known)}"


def _is_plain(kind: type[Event], field: str) -> bool:
    """Whether there are texts, numbers or booleans in it."""
    hint = get_type_hints(kind)[field]
    return not {str, int, float, bool}.isdisjoint(get_args(hint) if isinstance(hint, UnionType) else (hint,))


def _text(value: object) -> str:
    """What globs are matched against; the empty text, which none matches, for what is no plain value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""
