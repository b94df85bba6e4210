"""Signatures of Standard Webhooks: HMAC-SHA256 over id, time of the try and body
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, "Signature scheme").

A receiver takes a body for ours when any of the signatures in the header fits. So a secret is changed without a gap: for a
while the former one signs too.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
LEAST_BYTES = 24
MOST_BYTES = 64
_NEW_BYTES = 32


class SecretFault(ValueError):
    """A text that is no secret to sign with. The message has nothing of it."""


def new_secret() -> str:
    """One to give to a receiver."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def parse_secret(text: str) -> bytes:
    """The key that ``text`` stands for. Spaces around it, such as a file's last line break, do not count.

    Raises:
        SecretFault: it stands for none.
    """
    text = text.strip()
    if not text.startswith(PREFIX):
        raise SecretFault(f"a webhook's secret begins with `{PREFIX}`: put that before it, or have a new one made")
    encoded = text.removeprefix(PREFIX)
    try:
        # Some leave the padding out.
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SecretFault(
            f"a webhook's secret is base64 behind `{PREFIX}`, and this is not: copy it whole, or have a new one made"
        ) from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise SecretFault(
            f"a webhook's secret stands for {LEAST_BYTES} to {MOST_BYTES} bytes, and this one for {len(key)}: have a new one made"
        )
    return key


def sign(keys: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature for each key, the first key's first.

    ``timestamp`` is when it is sent, in seconds since the Unix epoch.
    """
    # A full stop in the id could be read as the end of it; and who signs with nothing must not seem to have signed.
    assert keys
    assert "." not in event_id
    message = b"%b.%d.%b" % (event_id.encode(), timestamp, body)
    digests = (hmac.digest(key, message, hashlib.sha256) for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)
