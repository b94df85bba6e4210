"""Who is calling, from the credentials in a request's header.

Three fields carry a credential, because the SDKs of the field differ: ``Authorization: Bearer`` (RFC 6750
section 2.1), ``x-api-key`` (Anthropic) and ``x-goog-api-key`` (Gemini). Never a query parameter here: these end
in logs. A request that carries two *differing* credentials is refused, since whichever were picked, somebody
would be surprised; the same one twice is fine.

A refusal tells a stranger what is wrong with the request alone: not how many tokens there are, nor whether any is.
"""

from collections.abc import Callable
from typing import NoReturn

from access.admin_key import AdminKeys
from access.permissions import require_usable
from access.tokens import TokenIndex, looks_like_token, looks_valid
from core.errors import AddressNotAllowed, TokensNotLoaded, Unauthenticated
from core.headers import Headers
from core.identity import AdminKey, ApiToken
from core.secret import Secret

_KEY_FIELDS = frozenset({"x-api-key", "x-goog-api-key"})
_UNTIL_LOADED_SECONDS = 2.0


def presented_key(headers: Headers) -> str:
    """The one credential that a request presents: a token's text or the admin key.

    Raises:
        core.errors.Unauthenticated: none, several that differ, or an `Authorization` that is not `Bearer`.
    """
    key = ""
    for field, value in headers:
        if field == "authorization":
            candidate = _bearer(value)
        elif field in _KEY_FIELDS:
            candidate = value.strip()
        else:
            continue
        if not candidate:
            continue
        if key and candidate != key:
            raise Unauthenticated(
                "The request carries several API keys that differ: "
                "send one, in `Authorization: Bearer`, `x-api-key` or `x-goog-api-key`."
            )
        key = candidate
    if not key:
        raise Unauthenticated(
            "No API key was given: send it as `Authorization: Bearer YOUR_KEY` (or in `x-api-key` or `x-goog-api-key`)."
        )
    return key


def caller(headers: Headers, index: TokenIndex, address: str, now: float) -> ApiToken:
    """The holder of the API token that a request on the data plane presents. Fails closed without tokens.

    Args:
        headers: of the request.
        index: the tokens that there are.
        address: whence the request comes (:func:`access.address.client_address`).
        now: seconds since the Unix epoch.

    Raises:
        core.errors.Unauthenticated: no credential, none that is known, or one that has expired.
        core.errors.AddressNotAllowed: the token may not be used from ``address``.
        core.errors.TokensNotLoaded: it may be one of those that are not known yet.
    """
    key = presented_key(headers)
    token = index.find(key)
    if token is None:
        _refuse_token(key, index)
    if token.bounds is not None:
        require_usable(token, address, now)
    return token


class Identifier:
    """Identifies callers by the tokens and the admin key of one generation."""

    __slots__ = ("_admin_key_hash", "_admin_keys", "_time", "tokens")

    def __init__(
        self, tokens: TokenIndex, admin_keys: AdminKeys, admin_key_hash: Secret | None, time: Callable[[], float]
    ) -> None:
        """``admin_keys`` outlives generations; ``admin_key_hash`` is `management.admin_key_hash`, None: no admin.
        ``time`` gives seconds since the Unix epoch."""
        self.tokens = tokens
        self._time = time
        self._admin_keys = admin_keys
        self._admin_key_hash = admin_key_hash

    async def manager(self, headers: Headers, address: str) -> AdminKey | ApiToken:
        """Who calls the management API from ``address`` (:func:`access.address.client_address`).

        API tokens come first. A text that claims to be one is never tried as the admin key, so a mistyped or
        revoked token costs no argon2 and counts towards no lock-out.

        Raises:
            core.errors.Unauthenticated: no credential, none that is known, or a token that has expired.
            core.errors.AddressNotAllowed: the token may not be used from ``address``.
            core.errors.TokensNotLoaded: it may be one of those that are not known yet.
            core.errors.TooManyFailures: the address is locked out (admin key only).
            core.errors.AdminKeyBusy: too many admin keys wait for their check.
        """
        key = presented_key(headers)
        token = self.tokens.find(key)
        if token is not None:
            require_usable(token, address, self._time())
            return token
        if looks_like_token(key):
            _refuse_token(key, self.tokens)
        await self._admin_keys.require(key, self._admin_key_hash, address)
        return AdminKey()

    def still(self, headers: Headers, address: str) -> AdminKey | ApiToken | None:
        """Who, by now, whoever :meth:`manager` has let in before is; None: nobody any more. Costs little, and counts
        towards no lock-out: for answers that go on."""
        try:
            key = presented_key(headers)
            token = self.tokens.find(key)
            if token is not None:
                require_usable(token, address, self._time())
                return token
        except (Unauthenticated, AddressNotAllowed):
            return None
        return AdminKey() if self._admin_keys.is_known(key, self._admin_key_hash) else None


def _bearer(value: str) -> str:
    # RFC 9110 section 11.1: the scheme's name is case-insensitive.
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthenticated(
            "The `Authorization` field is not understood: send it as `Authorization: Bearer YOUR_KEY`."
        )
    return rest.strip()


def _refuse_token(key: str, index: TokenIndex) -> NoReturn:
    # The first three words are OpenAI's: LiteLLM tells by them, not by the status, what kind of error it is.
    if looks_like_token(key) and not looks_valid(key):
        raise Unauthenticated(
            "Incorrect API key provided: it is mistyped or cut short. Copy it again, whole and without quotes."
        )
    if looks_like_token(key) and index.incomplete:
        raise TokensNotLoaded(
            "The gateway has not been able to read all of its API keys yet: try again.",
            retry_after_seconds=_UNTIL_LOADED_SECONDS,
        )
    raise Unauthenticated("Incorrect API key provided: it is not known here. Check it, or ask the gateway's operator.")
