"""Targets in absolute form."""

import pytest

from gateway.frontdoor import origin_form


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/models?x=/y", "/v1/models?x=/y"),
        ("*", "*"),
        ("http://host/v1/models", "/v1/models"),
        ("HTTPS://host:1/v1/models?a", "/v1/models?a"),
        ("http://host", "/"),
        ("http://host?a=/v1/models", "/?a=/v1/models"),
        ("http://[::1]:8080/v1", "/v1"),
        ("ftp://host/v1", "ftp://host/v1"),
    ],
)
def test_a_target_loses_its_scheme_and_authority_alone(target: str, path: str) -> None:
    assert path == origin_form(target)
