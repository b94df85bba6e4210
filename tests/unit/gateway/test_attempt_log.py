"""What the log tells of attempts."""

import pytest

from core.events import AttemptFailed, ConfigApplied, CredentialCooled, Event, TargetCooled
from gateway.attempt_log import log_attempts


def failed(credential: str | None) -> AttemptFailed:
    return AttemptFailed(
        request_id="req_1",
        provider="cloud",
        model_label="gpt-*",
        credential=credential,
        number=2,
        error_code="upstream_timeout",
        delivered="maybe",
        next="fallback",
    )


def cooled(model_label: str | None, credential: str | None) -> TargetCooled | CredentialCooled:
    if credential is None:
        return TargetCooled(provider="cloud", model_label=model_label, reason="rate_limit", seconds=12.34)
    return CredentialCooled(
        provider="cloud", credential=credential, model_label=model_label, reason="rate_limit", seconds=12.34
    )


LINES: list[tuple[Event, list[str]]] = [
    (
        failed("spare"),
        ["request req_1: attempt 2 at cloud/gpt-* with credential spare failed: upstream_timeout; next: fallback"],
    ),
    (failed(None), ["request req_1: attempt 2 at cloud/gpt-* failed: upstream_timeout; next: fallback"]),
    (cooled("gpt-*", None), ["cloud/gpt-* is out of the rotation for 12.3 s: rate_limit"]),
    (cooled(None, "main"), ["cloud/* with credential main is out of the rotation for 12.3 s: rate_limit"]),
    (ConfigApplied(revision="r", trigger="watch", duration_seconds=0.1), []),
]


@pytest.mark.parametrize(("event", "lines"), LINES)
def test_each_failed_attempt_and_each_pause_is_one_line(
    event: Event, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    log_attempts(event)
    assert lines == [record.getMessage() for record in caplog.records]
    assert {"INFO"} >= {record.levelname for record in caplog.records}
