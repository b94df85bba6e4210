"""Signatures, held against the package that receivers use."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from tests.planted import planted_key
from webhooks.signing import SecretFault, new_secret, parse_secret, sign

EVENT_ID = "evt_0123456789abcdef01234567"


def secret_of(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()


def headers(keys: list[bytes], body: bytes, timestamp: int | None = None) -> dict[str, str]:
    now = int(time.time()) if timestamp is None else timestamp
    return {
        "webhook-id": EVENT_ID,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(keys, EVENT_ID, now, body),
    }


@given(key=st.binary(min_size=24, max_size=64), body=st.text().map(str.encode))
def test_what_is_signed_the_receivers_package_takes(key: bytes, body: bytes) -> None:
    assert key == parse_secret(secret_of(key))
    Webhook(secret_of(key)).verify(body, headers([key], body), json_parse=False)


@given(key=st.binary(min_size=24, max_size=64), body=st.text().map(str.encode), place=st.integers(min_value=0))
def test_a_body_that_was_changed_is_not_taken(key: bytes, body: bytes, place: int) -> None:
    at = place % (len(body) + 1)
    changed = body[:at] + b"!" + body[at:]
    if changed.decode(errors="ignore").encode() != changed:
        return
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(key)).verify(changed, headers([key], body), json_parse=False)


def test_while_a_secret_is_changed_receivers_with_either_take_it() -> None:
    new, old, other = (planted_key(f"hook-{name}") for name in ("new", "old", "other"))
    told = headers([new, old], b"{}")
    assert 2 == len(told["webhook-signature"].split(" "))
    for key in (new, old):
        Webhook(secret_of(key)).verify(b"{}", told)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(other)).verify(b"{}", told)


def test_an_old_signature_is_not_taken_again() -> None:
    key = planted_key("hook")
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret_of(key)).verify(b"{}", headers([key], b"{}", int(time.time()) - 600))


def test_a_signature_is_over_id_time_and_body() -> None:
    # Worked out with `openssl dgst -sha256 -hmac`, with neither of the two packages.
    key = b"0123456789abcdef01234567"
    expected = "v1,onKWIMx7J8Odbw5mpYc00B8Twmaem+6nYWy9u8Eo2pc="
    assert expected == sign([key], "evt_1", 1700000000, b'{"type":"a"}')


def test_new_secrets_are_good_and_differ() -> None:
    made = {new_secret() for _ in range(20)}
    assert 20 == len(made)
    assert {32} == {len(parse_secret(text)) for text in made}


def test_a_secret_may_have_lost_its_padding_or_gained_a_line_break() -> None:
    key = b"x" * 25
    assert key == parse_secret(secret_of(key).rstrip("=") + "\n")


FAULTS = {
    "no prefix": (base64.b64encode(b"q" * 32).decode(), "begins with `whsec_`"),
    "empty": ("", "begins with `whsec_`"),
    "nothing behind the prefix": ("whsec_", "and this one for 0"),
    "too short": (secret_of(b"q" * 23), "24 to 64 bytes, and this one for 23: have a new one made"),
    "too long": (secret_of(b"q" * 65), "24 to 64 bytes, and this one for 65: have a new one made"),
    "not base64": ("whsec_qqqq!qqqqqqqqqqqqqqqqqqqqqqqqqqqq", "base64 behind `whsec_`"),
    "not ASCII": ("whsec_qüqq", "base64 behind `whsec_`"),
    "cut": ("whsec_qqqqq", "base64 behind `whsec_`"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_secret_is_refused_with_the_mend_and_without_its_text(name: str) -> None:
    text, message = FAULTS[name]
    with pytest.raises(SecretFault) as refused:
        parse_secret(text)
    assert message in str(refused.value)
    assert "qq" not in str(refused.value)
    assert None is refused.value.__cause__
