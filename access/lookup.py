"""Tokens by the SHA-256 of their texts: an immutable table."""

import hmac
from collections.abc import Iterable, Iterator

import msgspec

from core.identity import ApiToken

_KEY_BYTES = 8


# gc=False: thousands of them are not to be walked by every full collection, and they make no circles.
class Known(msgspec.Struct, gc=False, frozen=True):
    """A token and the digest of its text."""

    sha256: bytes
    token: ApiToken
    next: "Known | None" = None
    """Another whose digest begins alike."""

    def __repr__(self) -> str:
        return f"Known({self.token.name!r})"


class TokenTable:
    """Found by the whole digest, compared in constant time."""

    __slots__ = ("_by_key", "_count")

    def __init__(self, tokens: Iterable[tuple[bytes, ApiToken]] = ()) -> None:
        """``tokens`` are pairs of the SHA-256 of a text and what it stands for; of equal digests the last counts."""
        # Keyed by a part of the digest: the dictionary's own comparison is not constant-time, so the whole digest is
        # compared apart from it.
        self._by_key: dict[bytes, Known] = {}
        self._count = 0
        for sha256, token in tokens:
            self._put(sha256, token)

    def find(self, presented: bytes) -> ApiToken | None:
        """The token whose text has the SHA-256 ``presented``."""
        known = self._by_key.get(presented[:_KEY_BYTES])
        while known is not None:
            if hmac.compare_digest(known.sha256, presented):
                return known.token
            known = known.next
        return None

    def changed(self, put: Iterable[tuple[bytes, ApiToken]], removed: Iterable[bytes]) -> "TokenTable":
        """A copy without those that have a digest of ``removed``, and with those of ``put``."""
        copy = TokenTable()
        copy._by_key, copy._count = self._by_key.copy(), self._count
        for sha256 in removed:
            copy._remove(sha256)
        for sha256, token in put:
            copy._put(sha256, token)
        return copy

    def _put(self, sha256: bytes, token: ApiToken) -> None:
        self._remove(sha256)
        key = sha256[:_KEY_BYTES]
        self._by_key[key] = Known(sha256, token, self._by_key.get(key))
        self._count += 1

    def _remove(self, sha256: bytes) -> None:
        key = sha256[:_KEY_BYTES]
        kept: Known | None = None
        for known in _chain(self._by_key.pop(key, None)):
            if known.sha256 == sha256:
                self._count -= 1
            else:
                kept = Known(known.sha256, known.token, kept)
        if kept is not None:
            self._by_key[key] = kept

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"TokenTable({self._count} tokens)"


def _chain(known: Known | None) -> Iterator[Known]:
    while known is not None:
        yield known
        known = known.next
