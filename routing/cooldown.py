"""Targets and credentials out of rotation until a time.

The state outlives generations: it is keyed by names, so a reload forgets nothing. Times are monotonic seconds,
passed in. Model names may come from clients (``provider/anything``), so the tables are bounded.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import msgspec

_MOST = 4096
"""Entries of each table; the oldest go first."""


class Reason(StrEnum):
    """Why something cools."""

    FAILURES = "failures"
    """Too many failures in a row."""
    RATE_LIMITED = "rate_limited"
    """The provider answered 429."""
    CREDENTIAL_REFUSED = "credential_refused"
    """The provider answered 401 or 403."""
    CREDENTIAL_NOT_READY = "credential_not_ready"
    """No fresh token could be had for it."""
    RETRY_AFTER = "retry_after"
    """The provider asked for a pause with another answer than 429."""


class Cooled(msgspec.Struct, frozen=True):
    """One cooldown, of a target (``model``) or of a credential (``credential``)."""

    provider: str
    model: str | None
    credential: str | None
    label: str | None
    """The target's label for metrics; None for a credential."""
    reason: Reason
    until: float
    """Monotonic seconds."""
    seconds: float
    """Its length."""
    asked: bool
    """Whether the provider named the time itself (`Retry-After`)."""


Observer = Callable[[Cooled], None]
_Key = tuple[str, str | None]
_Value = TypeVar("_Value")


class Cooldowns:
    """What is out of rotation, and how often each target has failed in a row. For one thread."""

    __slots__ = ("_credentials", "_failures", "_observer", "_targets")

    def __init__(self, observer: Observer | None = None) -> None:
        """``observer`` is told of each cooldown that begins; one that is only prolonged is not told again."""
        self._observer = observer
        self._targets: dict[_Key, Cooled] = {}
        self._credentials: dict[_Key, Cooled] = {}
        self._failures: dict[_Key, int] = {}

    def target(self, provider: str, model: str | None, now: float) -> Cooled | None:
        """The target's cooldown, if it is in one."""
        return _current(self._targets, (provider, model), now)

    def credential(self, provider: str, credential: str, now: float) -> Cooled | None:
        """The credential's cooldown, if it is in one."""
        return _current(self._credentials, (provider, credential), now)

    def credential_cooled(self, provider: str, credential: str, now: float) -> bool:
        """Whether the credential is out of rotation."""
        # As `credential` tells it, in one call: it is asked of each credential for each attempt.
        cooled = self._credentials.get((provider, credential))
        return cooled is not None and cooled.until > now

    def current(self, now: float) -> tuple[Cooled, ...]:
        """Everything that cools at ``now``, targets first."""
        entries = (*self._targets.values(), *self._credentials.values())
        return tuple(entry for entry in entries if entry.until > now)

    def cool_target(
        self,
        provider: str,
        model: str | None,
        *,
        label: str,
        reason: Reason,
        seconds: float,
        now: float,
        asked: bool = False,
    ) -> Cooled | None:
        """Take the target out for ``seconds``; a longer cooldown under way stays. None where ``seconds`` is 0."""
        cooled = Cooled(provider, model, None, label, reason, now + seconds, seconds, asked)
        return self._cool(self._targets, (provider, model), cooled, now)

    def cool_credential(
        self, provider: str, credential: str, *, reason: Reason, seconds: float, now: float, asked: bool = False
    ) -> Cooled | None:
        """Take the credential out for ``seconds``; a longer cooldown under way stays. None where ``seconds`` is 0."""
        cooled = Cooled(provider, None, credential, None, reason, now + seconds, seconds, asked)
        return self._cool(self._credentials, (provider, credential), cooled, now)

    def _cool(self, table: dict[_Key, Cooled], key: _Key, cooled: Cooled, now: float) -> Cooled | None:
        before = _current(table, key, now)
        if cooled.seconds <= 0:
            return before
        if before is not None and before.until >= cooled.until:
            return before
        table.pop(key, None)
        _make_room(table)
        table[key] = cooled  # at the end: the table is in order of the latest cooling
        if before is None and self._observer is not None:
            self._observer(cooled)
        return cooled

    def count_failure(self, provider: str, model: str | None) -> int:
        """One failure more; how many there have been in a row."""
        key = (provider, model)
        count = self._failures.pop(key, 0) + 1
        _make_room(self._failures)
        self._failures[key] = count  # at the end: the table is in order of the latest failure
        return count

    def succeeded(self, provider: str, model: str | None) -> None:
        """The target works: its failures are forgotten."""
        if self._failures:
            self._failures.pop((provider, model), None)

    def restore(self, provider: str, model: str | None) -> None:
        """End the target's cooldown before its time."""
        self._targets.pop((provider, model), None)

    def renewed(self, provider: str, credential: str) -> None:
        """The credential has another token: what was said of the last one does not hold, its rate limits do."""
        cooled = self._credentials.get((provider, credential))
        if cooled is not None and cooled.reason in (Reason.CREDENTIAL_REFUSED, Reason.CREDENTIAL_NOT_READY):
            del self._credentials[provider, credential]

    def clear(self, provider: str, model: str | None, credential: str | None, now: float) -> tuple[Cooled, ...]:
        """End cooldowns of the ``provider`` before their time: of one target, of one credential, or, with neither, all.

        The targets' failures are forgotten too. Gives what still cooled at ``now``.
        """
        ended = []
        if credential is None:
            ended += _taken(self._targets, lambda key: key[0] == provider and model in (None, key[1]))
            _taken(self._failures, lambda key: key[0] == provider and model in (None, key[1]))
        if model is None:
            ended += _taken(self._credentials, lambda key: key[0] == provider and credential in (None, key[1]))
        return tuple(cooled for cooled in ended if cooled.until > now)

    def __len__(self) -> int:
        return len(self._targets) + len(self._credentials) + len(self._failures)

    def __repr__(self) -> str:
        entries = (*self._targets.values(), *self._credentials.values())
        shown = ", ".join(f"{each.provider}/{each.model or each.credential} until {each.until:.3f}" for each in entries)
        return f"<Cooldowns {shown or 'none'}; {len(self._failures)} failing>"


def _current(table: dict[_Key, Cooled], key: _Key, now: float) -> Cooled | None:
    # Nothing is deleted here: callers also ask about times to come.
    cooled = table.get(key)
    return cooled if cooled is not None and cooled.until > now else None


def _taken(table: dict[_Key, _Value], fits: Callable[[_Key], bool]) -> list[_Value]:
    return [table.pop(key) for key in [*filter(fits, table)]]


def _make_room(table: dict[_Key, _Value]) -> None:
    # No search for what has expired: a client that makes names up would buy a scan of the table with each request.
    if len(table) >= _MOST:
        del table[next(iter(table))]
