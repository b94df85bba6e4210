"""What endpoints answer, as tokens or as faults; lenient where servers differ and nothing depends on it."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from core.secret import Secret
from credentials.errors import CredentialFault, CredentialRefused, CredentialUnavailable, NeedsLogin
from credentials.oauth.http import Answer, shown
from credentials.tokens import TokenSet

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}\Z")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,500}\Z")  # RFC 6749 section 3.3
_MAX_SCOPES: Final = 200
_MAX_SCOPES_CHARS: Final = 8192
"""Of all together: they stand in each list of accounts."""
_LONG_CHARS: Final = 8
"""A token that is shorter may well be a word in a scope."""
_MAX_ID_TOKEN_CHARS: Final = 65_536
"""Reading one that is as large as an answer may be takes a tenth of a second, in which nothing else is done."""
_MAX_LIFETIME_SECONDS: Final = 10 * 366 * 86400.0
_BOUND_KINDS: Final = frozenset({"dpop", "mac", "pop", "n_a"})
"""Kinds of tokens that a request alone does not carry (RFC 9449; RFC 8693 section 2.2.1)."""

LOST: Final = frozenset(
    {
        "invalid_grant",  # RFC 6749 section 5.2
        "interaction_required",  # OpenID Connect Core section 3.1.2.6, as Entra gives it for refresh tokens too
        "login_required",
        "consent_required",
        "bad_refresh_token",  # GitHub
        "refresh_token_expired",  # OpenAI
        "refresh_token_reused",
        "refresh_token_invalidated",
    }
)
"""Codes by which a refresh token has come to its end."""

SIGN_IN_LOST: Final = ("the sign-in is no longer good", "sign in again")

_MENDS: Final[Mapping[str, str]] = {
    "invalid_client": "see that `client_id`, `client_secret` and `client_authentication` are those that are registered there",
    "unauthorized_client": "allow the client there what it asks for, or take another flow",
    "unsupported_grant_type": "allow the client there this flow, or take another one",
    "invalid_scope": "see that `scopes` are those that the client may ask for",
    "invalid_target": "see that `audience` and the parameters are what the server wants",
    "redirect_uri_mismatch": "register the redirect URL there as it is here",
    "invalid_request": "see that the client may use this flow there, that the redirect URL is registered, and that `pkce` and "
    "the parameters are what the server wants",
}
_ALIKE: Final[Mapping[str, str]] = {
    "incorrect_client_credentials": "invalid_client",  # GitHub
    "access_denied": "unauthorized_client",
    "device_flow_disabled": "unauthorized_client",
}
_GENERAL_MEND = "see that the entry of `oauth.providers` fits what is registered there"


def mend_of(code: str | None) -> str:
    """What an operator can do about an error."""
    code = code or ""
    return _MENDS.get(_ALIKE.get(code, code), _GENERAL_MEND)


def fault_of(whose: str, what: str, answer: Answer, lost: tuple[str, str] = SIGN_IN_LOST) -> CredentialFault | None:
    """What ``answer`` of the endpoint ``what`` is a fault of; None: it is none.

    ``whose`` begins the message, such as ``OAuth provider `company` ``. ``lost``: what it is that is no longer good where
    that is the fault, in words, and what mends it.
    """
    if answer.code is None and 200 <= answer.status < 300:
        # GitHub answers 200 to errors too, which is why the code counts first.
        if answer.document is not None:
            return None
        return CredentialUnavailable(
            f"{whose}: its {what} answers with something that is no JSON: see that it is the right address"
        )
    if answer.busy:
        return CredentialUnavailable(
            f"{whose}: its {what} is busy or out of order ({answer.said})",
            retry_after_seconds=answer.retry_after_seconds,
        )
    if answer.code in LOST:
        return NeedsLogin(f"{whose}: {lost[0]} ({answer.said}): {lost[1]}")
    if answer.code is None:
        return CredentialRefused(
            f"{whose}: its {what} answers with status {answer.status} and without a reason: see that it is the right address"
        )
    return CredentialRefused(f"{whose}: its {what} refuses the request ({answer.said}): {mend_of(answer.code)}")


def token_set(
    whose: str, document: Mapping[str, object], now: float, *, held: TokenSet | None = None, asked: Sequence[str] = ()
) -> TokenSet:
    """The tokens of a document (RFC 6749 section 5.1), ``now`` in seconds since the Unix epoch.

    What it leaves out is as in ``held``, or, of scopes, as ``asked`` (section 3.3).

    Raises:
        CredentialUnavailable: there is no token in it.
        CredentialRefused: it is of a kind that cannot be used.
    """
    access_token = _token(document.get("access_token"))
    if access_token is None:
        raise CredentialUnavailable(f"{whose}: its token endpoint answers without an access token that can be used")
    kind = document.get("token_type")
    if isinstance(kind, str) and kind.lower() in _BOUND_KINDS:
        raise CredentialRefused(
            f"{whose}: it gives tokens that are bound to a key ({kind.lower()}): have it give the client bearer tokens"
        )
    lifetime = _lifetime_seconds(document.get("expires_in"))
    refresh_token = _token(document.get("refresh_token"))
    secrets = (access_token, *((refresh_token,) if refresh_token is not None else ()))
    return TokenSet(
        access_token=Secret.literal(access_token, "access token"),
        issued_at=now,
        expires_at=None if lifetime is None else now + lifetime,
        refresh_token=Secret.literal(refresh_token, "refresh token")
        if refresh_token is not None
        else (held.refresh_token if held else None),
        scopes=_scopes(document.get("scope"), secrets) or (held.scopes if held else tuple(asked)),
        account=_account(document.get("id_token"), secrets) or (held.account if held else None),
    )


def key_set(whose: str, document: Mapping[str, object], now: float) -> TokenSet:
    """The API key that OpenRouter gives for a code: ``{"key": …, "user_id": …}``. Raises CredentialUnavailable."""
    key = _token(document.get("key"))
    if key is None:
        raise CredentialUnavailable(f"{whose}: its token endpoint answers without a key that can be used")
    account = shown(document.get("user_id"), (key,))
    return TokenSet(access_token=Secret.literal(key, "key"), issued_at=now, expires_at=None, account=account)


def _token(value: object) -> str | None:
    return value if isinstance(value, str) and _TOKEN.match(value) else None


def _lifetime_seconds(value: object) -> float | None:
    """Servers give numbers and texts of them; what is neither is as if it were not there."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(seconds) else min(max(seconds, 0.0), _MAX_LIFETIME_SECONDS)


def _scopes(value: object, secrets: Sequence[str]) -> tuple[str, ...]:
    """They are shown: what holds one of ``secrets`` is none."""
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list):
        return ()
    long = [secret for secret in secrets if len(secret) >= _LONG_CHARS]
    left, found = _MAX_SCOPES_CHARS, []
    for word in words[:_MAX_SCOPES]:
        if isinstance(word, str) and _SCOPE.match(word) and not any(secret in word for secret in long):
            left -= len(word)
            if left < 0:
                break
            found.append(word)
    return tuple(found)


def _account(id_token: object, secrets: Sequence[str]) -> str | None:
    """Whose it is. It is only for show: it came over TLS from the server itself, so its signature says nothing more
    (OpenID Connect Core section 3.1.3.7, 6)."""
    if not isinstance(id_token, str) or len(id_token) > _MAX_ID_TOKEN_CHARS:
        return None
    import jwt  # noqa: PLC0415  see credentials.oauth.libraries

    try:
        claims = jwt.decode(id_token, options={"verify_signature": False})
    except Exception:  # whatever it is, it is no name
        return None
    return shown(claims.get("email"), secrets) or shown(claims.get("sub"), secrets)
