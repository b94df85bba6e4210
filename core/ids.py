"""Identifiers that leave the process."""

import random

REQUEST_ID_PREFIX = "req_"
EVENT_ID_PREFIX = "evt_"

# Seeded by the operating system once: asking it for each request is a system call, and an id is a name, no secret.
_bits = random.Random().getrandbits


def new_request_id() -> str:
    """A fresh request id: ``req_`` and 24 hexadecimal digits (96 random bits)."""
    return f"{REQUEST_ID_PREFIX}{_bits(96):024x}"


def new_token_id() -> str:
    """A fresh id of an API token, which is no secret: ``tok_`` and 24 hexadecimal digits (96 random bits)."""
    return f"tok_{_bits(96):024x}"


def new_audit_id() -> str:
    """A fresh id of an entry of the audit: ``aud_`` and 24 hexadecimal digits (96 random bits)."""
    return f"aud_{_bits(96):024x}"


def new_job_id() -> str:
    """A fresh id of a job: ``job_`` and 24 hexadecimal digits (96 random bits)."""
    return f"job_{_bits(96):024x}"


def new_event_id() -> str:
    """A fresh id of an event that somebody is told of: ``evt_`` and 24 hexadecimal digits (96 random bits)."""
    return f"{EVENT_ID_PREFIX}{_bits(96):024x}"
