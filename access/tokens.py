"""API tokens: their text, and the snapshot in which they are looked up.

The text of a token is ``sk-sluice-``, 33 characters of randomness and 6 of checksum, all base62, so that a
double click selects it whole and a scanner for leaked secrets can tell a token from a look-alike without a
network call (the scheme of
https://github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats/).
Only its SHA-256 is kept. A fast hash is right here: 192 random bits cannot be guessed, however fast a guess is.
"""

import hashlib
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import msgspec

from access.address import parse_network
from access.issued import IssuedTokens, bounds_of, grants_of
from access.limit_entries import read_limits
from access.lookup import TokenTable
from access.token_rules import parse_time, token_faults
from config.faults import ConfigFaults, Fault, Path
from config.schema import Token
from core.globs import GlobSet
from core.identity import ApiToken, Scope

PREFIX = "sk-sluice-"
FILE_PREFIX = "file:"
"""What the ids of the file's tokens begin with."""
RANDOM_BYTES = 24

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 33  # 62**33 > 2**192
_CHECKSUM_CHARACTERS = 6  # 62**6 > 2**32
_TEXT = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS}}}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_KEPT_ANSWERS = 256
_NONE_ISSUED = IssuedTokens()


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
    """The tokens of one generation's file, an immutable snapshot; and behind them those that the API has made."""

    __slots__ = ("_declared", "_issued")

    def __init__(self, tokens: tuple[Token, ...], issued: IssuedTokens = _NONE_ISSUED) -> None:
        """Check and index the ``tokens`` of the configuration; ``issued`` outlives generations.

        Raises:
            config.faults.ConfigFaults: every fault of every token, with paths only.
        """
        faults = list(_faults(tokens))
        if faults:
            raise ConfigFaults(faults)
        self._declared = TokenTable((bytes.fromhex(token.sha256), declared_token(token)) for token in tokens)
        self._issued = issued

    def find(self, text: str) -> ApiToken | None:
        """The token whose text is ``text``, or None. No cache: hashing 50 bytes costs less than keeping secrets.

        Whether it may be used now and from where it is, :func:`access.permissions.require_usable` tells.
        """
        presented = _digest(text)
        declared = self._declared.find(presented)
        return declared if declared is not None else self._issued.find(presented)

    @property
    def incomplete(self) -> bool:
        """Whether some are not known yet: a token that is not found may be one of these."""
        return self._issued.incomplete

    def __len__(self) -> int:
        return len(self._declared)

    def __repr__(self) -> str:
        return f"TokenIndex({len(self)} tokens)"


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


def declared_token(token: Token) -> ApiToken:
    """What a request gets to know of a ``token`` of the file, which has no fault."""
    scope = Scope(token.scope)
    return ApiToken(
        name=token.name,
        scope=scope,
        grants=grants_of(scope, token.endpoints),
        # Most requests ask for a model that another has asked for.
        allows_model=lru_cache(maxsize=_KEPT_ANSWERS)(GlobSet(token.models).matches),
        any_model="*" in token.models,
        bounds=bounds_of(
            None if token.expires_at is None else parse_time(token.expires_at),
            tuple(parse_network(each) for each in token.ip_ranges),
        ),
        owner=token.owner,
        limits=read_limits((), _entries(token))[0],
        counted_as=FILE_PREFIX + token.name,
    )


def _entries(token: Token) -> Iterator[dict[str, Any]]:
    return map(msgspec.structs.asdict, token.limits)


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
        yield from token_faults(
            path,
            scope=token.scope,
            models=token.models,
            endpoints=token.endpoints,
            ip_ranges=token.ip_ranges,
            owner=token.owner,
        )
        yield from read_limits((*path, "limits"), _entries(token))[1]
        # One that has expired is no fault: a file must not become bad by the clock.
        if token.expires_at is not None:
            try:
                parse_time(token.expires_at)
            except ValueError as error:
                yield Fault((*path, "expires_at"), str(error))


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
