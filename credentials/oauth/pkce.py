"""Proof that who exchanges a code is who asked for it (RFC 7636), by S256 alone."""

import secrets


def new_verifier() -> str:
    """256 bits of chance, in 43 characters."""
    return secrets.token_urlsafe(32)


def challenge(verifier: str) -> str:
    """Its S256 challenge."""
    from oauthlib.oauth2 import WebApplicationClient  # noqa: PLC0415  see credentials.oauth.libraries

    # The library wants a client's id for what it does not send.
    return str(WebApplicationClient("").create_code_challenge(verifier, "S256"))
