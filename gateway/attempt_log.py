"""Failed attempts in the gateway's own log: the access log tells the request's end, not what was tried on the way."""

import logging

from core.events import AttemptFailed, CredentialCooled, Event, ProviderDown, ProviderRecovered, TargetCooled

_log = logging.getLogger("sluice.attempts")


def log_attempts(event: Event) -> None:
    """An observer: one INFO line for each attempt that failed, each target or credential that has a pause, and each
    provider that is down or up again."""
    match event:
        case AttemptFailed():
            _log.info(
                "request %s: attempt %d at %s/%s%s failed: %s; next: %s",
                event.request_id,
                event.number,
                event.provider,
                event.model_label,
                _with(event.credential),
                event.error_code,
                event.next,
            )
        case TargetCooled() | CredentialCooled():
            _log.info(
                "%s/%s%s is out of the rotation for %.1f s: %s",
                event.provider,
                event.model_label or "*",
                _with(event.credential if isinstance(event, CredentialCooled) else None),
                event.seconds,
                event.reason,
            )
        case ProviderDown():
            _log.info("%s is down: %s, %d failures in a row", event.provider, event.reason, event.failures)
        case ProviderRecovered():
            _log.info("%s is up again after %.1f s", event.provider, event.down_seconds)
        case _:
            pass


def _with(credential: str | None) -> str:
    return "" if credential is None else f" with credential {credential}"
