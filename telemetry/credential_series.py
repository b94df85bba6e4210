"""The metrics of credentials whose tokens end."""

import math
from collections.abc import Mapping

import msgspec
from prometheus_client import CollectorRegistry

from telemetry import registry
from telemetry.series import Series, counter, gauge

NO_STATE = -1
"""Of a credential that there is no more; below what other workers know of it."""
NO_END = math.inf
"""Of a token that does not end, or of which that is not said; above what other workers know of it."""


class Shown(msgspec.Struct, frozen=True):
    """What is shown of one credential."""

    needs_login: bool
    expires_at: float | None
    """In seconds since the Unix epoch; None: never, or it is not said."""


_GONE = (NO_STATE, NO_END)


class CredentialSeries:
    """Labels are names of providers and credentials, and words of the gateway's own."""

    def __init__(self, own: CollectorRegistry) -> None:
        self._refreshes = Series(counter(registry.CREDENTIAL_REFRESHES, own))
        self._states = Series(gauge(registry.CREDENTIAL_STATE, own))
        self._ends = Series(gauge(registry.CREDENTIAL_EXPIRES, own))
        self._shown: dict[tuple[str, str], tuple[float, float]] = {}

    def refreshed(self, provider: str, outcome: str) -> None:
        """One refresh has ended."""
        self._refreshes[provider, outcome].inc()

    def show(self, credentials: Mapping[tuple[str, str], Shown]) -> None:
        """There are these, by provider and name, and no others."""
        values = {
            labels: (float(each.needs_login), NO_END if each.expires_at is None else each.expires_at)
            for labels, each in credentials.items()
        }
        # Workers' files cannot forget a label: what is gone is hidden when it is rendered.
        for labels in {**self._shown, **values}:
            state, end = values.get(labels, _GONE)
            if self._shown.get(labels) != (state, end):
                self._states[labels].set(state)
                self._ends[labels].set(end)
                self._shown[labels] = state, end
