"""The tree of errors: every class says what it is, and the docstring draws them all."""

import inspect
import re

import pytest

import core.errors
from core.errors import (
    CallerError,
    ConnectFailed,
    ConnectTimeout,
    ContentRefused,
    ContextExceeded,
    CredentialLimited,
    CredentialNotReady,
    CredentialsRejected,
    Delivered,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    PrivateAddressRefused,
    RetryScope,
    TargetLimited,
    UpstreamAnswered,
    UpstreamError,
    UpstreamErrorEvent,
    UpstreamRateLimited,
    UpstreamRejected,
)
from core.headers import Headers

CLASSES = [value for value in vars(core.errors).values() if inspect.isclass(value) and issubclass(value, GatewayError)]
KINDS = {"server_error", "invalid_request_error", "rate_limit_error"}


def made(kind: type[GatewayError]) -> GatewayError:
    if issubclass(kind, UpstreamAnswered):
        return kind("m", upstream_status=418)
    if kind is MethodNotAllowed:
        return MethodNotAllowed("m", ("GET",))
    if kind is UpstreamErrorEvent:
        return UpstreamErrorEvent("m", b"data: 1\n\n")
    return kind("m")


def drawn() -> dict[str, tuple[int, int | None, str]]:
    """Class → depth, status (if one is drawn) and the rest of its line, out of the docstring."""
    found = {}
    for line in (core.errors.__doc__ or "").splitlines():
        match = re.match(r"^    ((?:│   |    )*)(?:├── |└── )?([A-Z]\w+)\s+(?:(\d{3}) )?(.*)$", line)
        if match is not None and match[2] != "Each":
            depth = len(match[1]) // 4 + (1 if "──" in line else 0)
            found[match[2]] = (depth, int(match[3]) if match[3] else None, match[4])
        elif line.strip() == "GatewayError":
            found["GatewayError"] = (0, None, "")
    return found


def test_the_docstring_draws_every_class_at_its_place() -> None:
    tree = drawn()
    assert {kind.__name__ for kind in CLASSES} == set(tree)
    for kind in CLASSES:
        depth = len([base for base in kind.__mro__ if issubclass(base, GatewayError)]) - 1
        assert depth == tree[kind.__name__][0], kind


def test_the_docstring_draws_the_status_of_every_class_that_has_one() -> None:
    for kind in CLASSES:
        _, status, _ = drawn()[kind.__name__]
        if status is not None and kind is not UpstreamRateLimited:
            # Other answers of providers keep the status that they came with.
            assert status == made(kind).client_status, kind


@pytest.mark.parametrize("kind", CLASSES, ids=[kind.__name__ for kind in CLASSES])
def test_every_class_says_all_that_is_asked_of_it(kind: type[GatewayError]) -> None:
    error = made(kind)
    assert kind.__doc__
    assert kind.kind in KINDS
    assert re.fullmatch(r"[a-z_]+", error.client_code)
    assert 400 <= error.client_status < 600
    assert ("m", "m", None, None) == (error.message, str(error), error.param, error.retry_after_seconds)
    if issubclass(kind, CallerError):
        assert 400 <= kind.status < 500
        assert "server_error" != kind.kind
    if isinstance(error, UpstreamError):
        assert isinstance(kind.retry, RetryScope)  # type: ignore[attr-defined]  # of the one kind
        assert kind.fallback in ("error", "context", "content")  # type: ignore[attr-defined]  # of the one kind
        undelivered = (
            ConnectFailed,
            ConnectTimeout,
            PrivateAddressRefused,
            CredentialsRejected,
            UpstreamRateLimited,
            TargetLimited,
            CredentialLimited,
            CredentialNotReady,
        )
        assert (Delivered.NO if kind in undelivered else Delivered.MAYBE) is error.delivered


def test_a_refusal_of_the_request_itself_is_never_tried_again_and_rests_nobody() -> None:
    for kind in (UpstreamRejected, ContextExceeded, ContentRefused):
        assert (RetryScope.NEVER, False) == (kind.retry, kind.cools_down)
    assert ("error", "context", "content") == tuple(
        kind.fallback for kind in (UpstreamRejected, ContextExceeded, ContentRefused)
    )


def test_an_answer_keeps_its_status_but_for_our_own_credential() -> None:
    headers = Headers([("a", "b")])
    limited = UpstreamRateLimited("m", upstream_status=429, headers=headers, body=b"x", retry_after_seconds=2.5)
    assert (429, headers, b"x", 2.5) == (
        limited.client_status,
        limited.headers,
        limited.body,
        limited.retry_after_seconds,
    )
    assert (502, 401) == (
        (refused := CredentialsRejected("m", upstream_status=401)).client_status,
        refused.upstream_status,
    )
    assert Headers() == refused.headers


def test_an_invalid_request_says_in_which_way() -> None:
    error = InvalidRequest("m", param="n", code="invalid_type")
    assert (400, "invalid_type", "n") == (error.client_status, error.client_code, error.param)
