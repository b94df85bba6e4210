"""Identifiers that leave the process."""

import secrets

REQUEST_ID_PREFIX = "req_"


def new_request_id() -> str:
    """A fresh request id: ``req_`` and 24 hexadecimal digits (96 random bits)."""
    return REQUEST_ID_PREFIX + secrets.token_hex(12)
