"""API tokens: their text, and the snapshot in which they are looked up.

The text of a token is ``sk-sluice-``, 33 characters of randomness and 6 of checksum, all base62, so that a
double click selects it whole and a scanner for leaked secrets can tell a token from a look-alike without a
network call (the scheme of
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/).
Only its SHA-256 is kept. A fast hash is right here: 192 random bits cannot be guessed, however fast a guess is.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache

from config.faults import ConfigFaults, Fault, Path, did_you_mean
from config.schema import Token
from core.globs import GlobSet
from core.identity import ApiToken, Grant, Scope

PREFIX = "sk-sluice-"
RANDOM_BYTES = 24
CREATABLE_SCOPES = frozenset({Scope.USER, Scope.POWER_USER, Scope.METRICS})
"""`scope_token_manager` and `scope_token_admin` exist, and can be created by nobody."""

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 33  # 62**33 > 2**192
_CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
_TEXT = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS}}}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_KEY_BYTES = 8
_KEPT_ANSWERS = 256


def new_token(random_bytes: bytes) -> str:
    """The text of a token made from 24 random bytes, which the caller draws from ``secrets``.

    Raises:
        ValueError: not exactly 24 bytes.
    """
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a token is made from {RANDOM_BYTES} random bytes, not from {len(random_bytes)}")
    payload = _base62(int.from_bytes(random_bytes), _RANDOM_CHARACTERS)
    return PREFIX + payload + _checksum(payload)


def looks_like_token(text: str) -> bool:
    """Whether ``text`` claims to be one of our tokens, rightly or not."""
    return text.startswith(PREFIX)


def looks_valid(text: str) -> bool:
    """Whether ``text`` has the form of a token and its checksum agrees. Says nothing about being known."""
    if _TEXT.fullmatch(text) is None:
        return False
    payload = text[len(PREFIX) : -_CHECKSUM_CHARACTERS]
    return text[-_CHECKSUM_CHARACTERS:] == _checksum(payload)


def digest(text: str) -> str:
    """What is stored of a token: the SHA-256 of its UTF-8 text, as 64 lower-case hexadecimal digits."""
    return _digest(text).hex()


class TokenIndex:
    """An immutable snapshot of the tokens of one generation."""

    __slots__ = ("_by_key", "_count")

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        """Check and index the ``tokens`` of the configuration.

        Raises:
            config.faults.ConfigFaults: every fault of every token, with paths only.
        """
        faults = list(_faults(tokens))
        if faults:
            raise ConfigFaults(faults)
        # Keyed by a part of the digest: the dictionary's own comparison is not constant-time, so the whole
        # digest is compared apart from it. Two digests may share a part, hence a tuple of entries.
        by_key: dict[bytes, tuple[tuple[bytes, ApiToken], ...]] = {}
        for token in tokens:
            stored = bytes.fromhex(token.sha256)
            key = stored[:_KEY_BYTES]
            by_key[key] = (*by_key.get(key, ()), (stored, _api_token(token)))
        self._by_key = by_key
        self._count = len(tokens)

    def find(self, text: str) -> ApiToken | None:
        """The token whose text is ``text``, or None. No cache: hashing 50 bytes costs less than keeping secrets."""
        presented = _digest(text)
        for stored, token in self._by_key.get(presented[:_KEY_BYTES], ()):
            if hmac.compare_digest(stored, presented):
                return token
        return None

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"TokenIndex({self._count} tokens)"


def _digest(text: str) -> bytes:
    # Header values come off the wire as any text, lone surrogates included: these must not raise.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _base62(number: int, width: int) -> str:
    characters = []
    for _ in range(width):
        number, remainder = divmod(number, 62)
        characters.append(_BASE62[remainder])
    return "".join(reversed(characters))


def _checksum(payload: str) -> str:
    return _base62(zlib.crc32(payload.encode()), _CHECKSUM_CHARACTERS)


def _api_token(token: Token) -> ApiToken:
    scope = Scope(token.scope)
    # `scope_metrics` opens `/metrics` alone, whatever `endpoints` says by default.
    grants = frozenset[Grant]() if scope is Scope.METRICS else frozenset(Grant(name) for name in token.endpoints)
    return ApiToken(
        name=token.name,
        scope=scope,
        grants=grants,
        # Most requests ask for a model that another has asked for.
        allows_model=lru_cache(maxsize=_KEPT_ANSWERS)(GlobSet(token.models).matches),
        any_model="*" in token.models,
    )


def _faults(tokens: tuple[Token, ...]) -> Iterator[Fault]:
    names: dict[str, int] = {}
    digests: dict[str, int] = {}
    for number, token in enumerate(tokens):
        path: Path = ("tokens", number)
        if names.setdefault(token.name, number) != number:
            yield Fault(
                (*path, "name"), f"`{token.name}` names another token already: names are unique, choose another"
            )
        yield from _digest_faults((*path, "sha256"), token, number, digests)
        yield from _scope_faults(path, token)
        for position, endpoint in enumerate(token.endpoints):
            if endpoint not in _GRANTS:
                yield Fault(
                    (*path, "endpoints", position), f"unknown endpoints `{endpoint}`{did_you_mean(endpoint, _GRANTS)}"
                )
        for position, pattern in enumerate(token.models):
            try:
                GlobSet((pattern,))
            except ValueError as error:
                yield Fault((*path, "models", position), str(error))


def _digest_faults(path: Path, token: Token, number: int, digests: dict[str, int]) -> Iterator[Fault]:
    # The value is never shown: people paste the token itself here by mistake.
    stored = token.sha256.lower()
    if _DIGEST.fullmatch(stored) is None:
        mend = (
            "this is the token itself: it must be replaced now, and only its SHA-256 be written here"
            if looks_like_token(token.sha256)
            else "write the SHA-256 of the token, which `printf %s TOKEN | sha256sum` prints"
        )
        yield Fault(path, f"not 64 hexadecimal digits: {mend}")
    elif digests.setdefault(stored, number) != number:
        yield Fault(path, f"the same token as tokens[{digests[stored]}]: give each entry a token of its own")


def _scope_faults(path: Path, token: Token) -> Iterator[Fault]:
    creatable = sorted(CREATABLE_SCOPES)
    if token.scope not in _SCOPES:
        yield Fault((*path, "scope"), f"unknown scope `{token.scope}`{did_you_mean(token.scope, creatable)}")
    elif token.scope not in CREATABLE_SCOPES:
        yield Fault(
            (*path, "scope"),
            f"`{token.scope}` can be given to no token: use the admin key, or one of "
            + ", ".join(f"`{scope}`" for scope in creatable),
        )
    elif Scope(token.scope) is Scope.METRICS and token.models:
        yield Fault((*path, "models"), f"a `{Scope.METRICS}` token opens /metrics alone: remove its models")


_GRANTS = frozenset(Grant)
_SCOPES = frozenset(Scope)
