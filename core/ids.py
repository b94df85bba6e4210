"""Identifiers that leave the process."""

import random

REQUEST_ID_PREFIX = "req_"

# Seeded by the operating system once: asking it for each request is a system call, and an id is a name, no secret.
_bits = random.Random().getrandbits


def new_request_id() -> str:
    """A fresh request id: ``req_`` and 24 hexadecimal digits (96 random bits)."""
    return f"{REQUEST_ID_PREFIX}{_bits(96):024x}"
