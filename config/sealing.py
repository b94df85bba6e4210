"""Sealed values: texts that can be kept anywhere, as only who has the key can read them or change them unseen.

AES-256-GCM (NIST SP 800-38D). A text is ``KEYID:BASE64URL``, and what is encoded, without padding, is

    nonce (12 bytes) | ciphertext and tag | checksum (4 bytes)

The key's id and the purpose are associated data: a value that is sealed for one purpose opens for no other. The
checksum, the first bytes of SHA-256 over the id and all before it, tells a text that was changed or cut from one of
another key. It protects nothing: that is the tag's part.
"""

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from typing import NoReturn

CONFIG = "config"
"""Purpose of what stands in a document as `${sealed:…}`."""
VAULT_VALUES = "vault-values"
"""Purpose of the last values of Vault, kept on disk."""

KEY_BYTES = 32
KEY_ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}"
KEY_ID = re.compile(rf"{KEY_ID_PATTERN}\Z")
KEY_ID_FORM = "1 to 32 letters, digits, `.`, `_` and `-`, a letter or digit first"

_NONCE_BYTES = 12
_TAG_BYTES = 16
_CHECKSUM_BYTES = 4


class SealedFault(Exception):
    """A sealed value that does not open; the message ends a sentence that begins with it and shows no value.

    ::

        SealedFault
        ├── DamagedText    it is not what was once sealed
        ├── UnknownKey     it is sealed with a key that we do not have
        └── WrongKey       we have a key of this id, which does not open it
    """


class DamagedText(SealedFault):
    """Some of the text, or of the key's id before it, was changed or is missing."""


class UnknownKey(SealedFault):
    """No key has its id."""


class WrongKey(SealedFault):
    """The key of its id does not open it, or not for this purpose."""


class SealingKey:
    """A key and its id. No rendering shows the key, and it cannot be asked for."""

    __slots__ = ("_cipher", "id")

    def __init__(self, key_id: str, key: bytes) -> None:
        """``key`` is :data:`KEY_BYTES` long; ``key_id`` matches :data:`KEY_ID`."""
        if not KEY_ID.match(key_id):
            raise ValueError(f"the id of a key is {KEY_ID_FORM}")
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        # 8 MB that a gateway without sealed values need not have.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  see above

        self.id = key_id
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, purpose: str) -> bytes:
        """Nonce, ciphertext and tag."""
        # Random nonces may not meet: some 2^32 values of one key are safe (SP 800-38D, section 8.3).
        nonce = os.urandom(_NONCE_BYTES)
        while _encode(nonce).startswith("-"):
            # `${sealed:k1:-…}` would read as a reference with a default.
            nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, self._bound_to(purpose))

    def open(self, body: bytes, purpose: str) -> bytes:
        """What :meth:`seal` was given.

        Raises:
            WrongKey: ``body`` is of another key, id or purpose, or was changed.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415  as in `__init__`

        try:
            return self._cipher.decrypt(body[:_NONCE_BYTES], body[_NONCE_BYTES:], self._bound_to(purpose))
        except InvalidTag:
            raise WrongKey(
                f"does not open with the master key `{self.id}`: it was sealed with another key of this id, or for "
                "another purpose; set the key that it was sealed with, or seal the value anew with `./sluice seal`"
            ) from None

    def _bound_to(self, purpose: str) -> bytes:
        return b"sluice\0%b\0%b" % (purpose.encode(), self.id.encode())

    def __repr__(self) -> str:
        return f"SealingKey({self.id!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SealingKey is never pickled or copied")


class KeyRing:
    """Several keys side by side, so that one can take another's place: the first seals, each opens what is its own."""

    def __init__(self, keys: Sequence[SealingKey]) -> None:
        """``keys``: at least one, each with an id of its own."""
        self._keys = {key.id: key for key in keys}
        if not keys or len(self._keys) < len(keys):
            raise ValueError("a key ring has keys, and each has an id of its own")
        self._first = keys[0]

    @property
    def first_id(self) -> str:
        """The id of the key that seals."""
        return self._first.id

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all keys, the first before the others."""
        return tuple(self._keys)

    def seal(self, plain: bytes, purpose: str) -> str:
        """``KEYID:BASE64URL``; another one each time."""
        body = self._first.seal(plain, purpose)
        return f"{self.first_id}:{_encode(body + _checksum(self.first_id, body))}"

    def open(self, key_id: str, text: str, purpose: str) -> bytes:
        """What was sealed; ``text`` is what follows the id and its colon.

        Raises:
            SealedFault: it does not open; the class tells why.
        """
        body = _intact(key_id, text)
        key = self._keys.get(key_id)
        if key is None:
            ours = ", ".join(f"`{known}`" for known in self._keys)
            raise UnknownKey(
                f"is sealed with the key `{key_id}`, which is not among the master keys ({ours}): add that key, "
                "or seal the value anew with `./sluice seal`"
            )
        return key.open(body, purpose)


def derived_id(key: bytes) -> str:
    """An id for a key that was given none; the key cannot be told from it."""
    return "k" + hashlib.sha256(b"sluice key id\0" + key).hexdigest()[:8]


def _intact(key_id: str, text: str) -> bytes:
    """The nonce, ciphertext and tag that ``text`` stands for, when it is what was once sealed with ``key_id``."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        data = b""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if (
        len(body) < _NONCE_BYTES + _TAG_BYTES
        # Several texts decode alike: the last character has bits to spare.
        or _encode(data) != text
        or not KEY_ID.match(key_id)
        or _checksum(key_id, body) != checksum
    ):
        raise DamagedText("was changed or cut: copy it whole, or seal the value anew with `./sluice seal`")
    return body


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _checksum(key_id: str, body: bytes) -> bytes:
    return hashlib.sha256(key_id.encode() + body).digest()[:_CHECKSUM_BYTES]
