"""Master keys: where they come from, and what `${sealed:…}` means with them.

The first of these that there is: ``SLUICE_MASTER_KEY`` in the environment; the file that `secrets.master_key.file`
names, whose keys Vault's Transit engine may have wrapped; and ``master.key`` in the gateway's own directory, which the
first command that has to seal something makes. Each holds one key or several: the first seals, all open.
"""

import base64
import logging
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Protocol

from config.durable import sync_directory
from config.references import Reference, ReferenceFault
from config.schema import MasterKey, Transit
from config.sealing import CONFIG, KEY_BYTES, KEY_ID, KEY_ID_FORM, KeyRing, SealedFault, SealingKey, derived_id
from config.secret_files import SecretFileError, SecretFileMissing, SecretFiles
from config.vault.errors import VaultFault

VARIABLE = "SLUICE_MASTER_KEY"
OWN_FILE = "master.key"
"""In the gateway's own directory."""
NO_MASTER_KEY = (
    f"there is no master key: set `{VARIABLE}`, or name a file in `secrets.master_key.file`, with the key that it was "
    "sealed with"
)

_MAKE_ONE = "make a key with `openssl rand -base64 32`"
_SEPARATORS = re.compile(r"[\s,]+")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{64}\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{43}=?\Z")
_WRAPPED = re.compile(r"(?P<id>\S+)\s+(?P<text>vault:v[0-9]+:\S+)\Z")
_NOTE = (
    "# Master keys of Sluice, one a line: the first seals, all open. Without them no sealed value can be read: keep a\n"
    "# copy elsewhere.\n"
)

_log = logging.getLogger("sluice.secrets")


class MasterKeyFault(Exception):
    """Master keys that cannot be had. The message names where they should be and how to mend it, never a key."""


class Wrapper(Protocol):
    """What is asked of a session with Vault."""

    def transit_encrypt(self, mount: str, key: str, data: bytes) -> str:
        """``data`` as ``vault:v1:…``, by the ``key`` of the Transit engine at ``mount``; may wait for Vault."""
        ...

    def transit_decrypt(self, mount: str, key: str, text: str) -> bytes:
        """The reverse."""
        ...


def parse_keys(text: str, where: str = f"`{VARIABLE}`") -> tuple[SealingKey, ...]:
    """The keys that ``text`` holds, which is at ``where``: each `KEY` or `ID:KEY`, parted by white space or commas.

    `KEY` is 32 bytes in base64, base64url or hexadecimal digits. A `#` begins a comment. Nothing gives no keys.

    Raises:
        MasterKeyFault: something there is no key, or an id stands for two.
    """
    keys: dict[str, bytes] = {}
    for number, word in enumerate(_words(text), 1):
        key_id, key = _key(word, f"{where}: key {number}")
        _add(keys, key_id, key, where)
    return tuple(SealingKey(key_id, key) for key_id, key in keys.items())


def read_key_ring(
    settings: MasterKey,
    env: Mapping[str, str],
    directory_of_root: Path,
    own_directory: str,
    session: Callable[[], Wrapper] | None,
    *,
    make: bool,
) -> KeyRing | None:
    """The master keys; None where there are none.

    Args:
        env: where ``SLUICE_MASTER_KEY`` may be.
        directory_of_root: of the root file, where relative paths begin.
        own_directory: `secrets.directory`.
        session: signs in to Vault, where keys are wrapped by it; None where no Vault is configured.
        make: a missing file that is ours to make is made, with one key; a warning tells.

    Raises:
        MasterKeyFault: what should hold them does not, or cannot be read.
    """
    keys = parse_keys(env.get(VARIABLE, ""))
    if keys:
        return KeyRing(keys)
    if settings.transit is not None:
        return KeyRing(_wrapped_keys(settings, settings.transit, directory_of_root, session, make=make))
    if settings.file is not None:
        return KeyRing(_plain_keys(directory_of_root / settings.file))
    path = directory_of_root / own_directory / OWN_FILE
    if not _is_there(path):
        if not make:
            return None
        key = os.urandom(KEY_BYTES)
        _make(path, f"{derived_id(key)}:{base64.b64encode(key).decode()}")
    return KeyRing(_plain_keys(path))


class Unwrapping:
    """Vault's Transit engine, asked once for each wrapped key: a document can be reloaded while Vault is down."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], bytes] = {}

    def by(self, sign_in: Callable[[], Wrapper]) -> Wrapper:
        """What has been unwrapped before, by whomever, and else by whom ``sign_in`` gives."""
        return _Unwrapper(self._known, sign_in)


class _Unwrapper:
    def __init__(self, known: dict[tuple[str, str, str], bytes], sign_in: Callable[[], Wrapper]) -> None:
        self._known = known
        self._sign_in = sign_in

    def transit_encrypt(self, mount: str, key: str, data: bytes) -> str:
        return self._sign_in().transit_encrypt(mount, key, data)

    def transit_decrypt(self, mount: str, key: str, text: str) -> bytes:
        plain = self._known.get((mount, key, text))
        if plain is None:
            plain = self._known[mount, key, text] = self._sign_in().transit_decrypt(mount, key, text)
        return plain


class SealedResolver:
    """``${sealed:KEYID:TEXT}``, opened when a document is loaded."""

    def __init__(self, keys: Callable[[], KeyRing | None]) -> None:
        """``keys`` is asked at each reference, so that a document without any needs no key; it may raise a
        :class:`MasterKeyFault`."""
        self._keys = keys

    def __call__(self, reference: Reference) -> Callable[[], str]:
        try:
            keys = self._keys()
        except MasterKeyFault as fault:
            raise ReferenceFault(f"`{reference.label}` cannot be opened: {fault}") from None
        if keys is None:
            raise ReferenceFault(f"`{reference.label}` cannot be opened: {NO_MASTER_KEY}")
        try:
            value = keys.open(reference.parts["key_id"], reference.parts["text"], CONFIG).decode()
        except SealedFault as fault:
            raise ReferenceFault(f"`{reference.label}` {fault}") from None
        except UnicodeDecodeError:
            raise ReferenceFault(f"`{reference.label}` holds no UTF-8 text: seal the value anew") from None
        return lambda: value


def _words(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from filter(None, _SEPARATORS.split(line.partition("#")[0]))


def _key(word: str, what: str) -> tuple[str, bytes]:
    key_id, colon, written = word.rpartition(":")
    if colon and not KEY_ID.match(key_id):
        raise MasterKeyFault(f"{what} has an id that is not {KEY_ID_FORM}: write `ID:KEY`")
    if _HEXADECIMAL.match(written):
        key = bytes.fromhex(written)
    elif _BASE64.match(written):
        key = base64.b64decode(written[:43].replace("-", "+").replace("_", "/") + "=")
    else:
        raise MasterKeyFault(f"{what} is not 32 bytes in base64, nor 64 hexadecimal digits: {_MAKE_ONE}")
    return key_id if colon else derived_id(key), key


def _add(keys: dict[str, bytes], key_id: str, key: bytes, where: str) -> None:
    if keys.setdefault(key_id, key) != key:
        raise MasterKeyFault(f"{where}: two keys have the id `{key_id}`: give the new one another, as in `ID:KEY`")


def _plain_keys(path: Path) -> tuple[SealingKey, ...]:
    try:
        text = _read(path)
    except SecretFileMissing as missing:
        raise MasterKeyFault(f"{path} {missing}: {_MAKE_ONE}, and keep it there with mode 600") from None
    if _mode(path) & 0o077:
        _warn_of_readers(path)
    keys = parse_keys(text, str(path))
    if not keys:
        raise MasterKeyFault(f"{path} holds no key: {_MAKE_ONE}, or restore the file")
    return keys


def _wrapped_keys(
    settings: MasterKey, transit: Transit, directory: Path, session: Callable[[], Wrapper] | None, *, make: bool
) -> tuple[SealingKey, ...]:
    if settings.file is None:
        raise MasterKeyFault(
            "`secrets.master_key.transit` is set: name the file of the wrapped keys in `file` beside it"
        )
    if session is None:
        raise MasterKeyFault(
            "`secrets.master_key.transit` is set: tell in `secrets.vault` where Vault is; what stands there, and "
            "`secrets.persist`, need a key that can be read without it"
        )
    path = directory / settings.file
    try:
        try:
            text = _read(path)
        except SecretFileMissing as missing:
            if not make:
                raise MasterKeyFault(f"{path} {missing}: restore it, or let `./sluice seal` make one") from None
            key = os.urandom(KEY_BYTES)
            wrapped = session().transit_encrypt(transit.mount, transit.key, key)
            _make(path, f"{derived_id(key)} {wrapped}")
            text = _read(path)
        return _unwrap(text, path, lambda each: session().transit_decrypt(transit.mount, transit.key, each))
    except VaultFault as fault:
        raise MasterKeyFault(f"the keys in {path} cannot be unwrapped: {fault}") from None


def _unwrap(text: str, path: Path, decrypt: Callable[[str], bytes]) -> tuple[SealingKey, ...]:
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        match = _WRAPPED.match(words)
        if match is None or not KEY_ID.match(match["id"]):
            raise MasterKeyFault(f"{path}: line {number} is not of the form `ID vault:v1:…`: wrap the key by Transit")
        key = decrypt(match["text"])
        if len(key) != KEY_BYTES:
            raise MasterKeyFault(
                f"{path}: line {number} holds {len(key)} bytes instead of {KEY_BYTES}: give Transit the output of "
                "`openssl rand -base64 32` as its plaintext"
            )
        _add(keys, match["id"], key, str(path))
    if not keys:
        raise MasterKeyFault(f"{path} holds no key: restore the file, or remove it and let `./sluice seal` make one")
    return tuple(SealingKey(key_id, key) for key_id, key in keys.items())


def _read(path: Path) -> str:
    """The text of a file.

    Raises:
        SecretFileMissing: there is none.
        MasterKeyFault: it cannot be read.
    """
    try:
        return SecretFiles().load(path)
    except SecretFileMissing:
        raise
    except SecretFileError as error:
        raise MasterKeyFault(f"{path} {error}") from None


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:  # most likely the directory is another user's
        raise MasterKeyFault(f"{path} cannot be looked for: {error.strerror}; or set `{VARIABLE}`") from None


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@cache  # a document is loaded again and again
def _warn_of_readers(path: Path) -> None:
    _log.warning("master key file %s may be read by other users: chmod 600 it", path)


def _make(path: Path, line: str) -> None:
    """Make the file of a new key, unless another process has done so meanwhile: then that one's key counts."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # of mode 600
        new = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{_NOTE}{line}\n")
                file.flush()
                os.fsync(file.fileno())
            # A link is made whole or not at all, and never in the place of another file.
            path.hardlink_to(new)
        except FileExistsError:
            return
        finally:
            new.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise MasterKeyFault(f"{path} cannot be made: {error.strerror}; or set `{VARIABLE}`: {_MAKE_ONE}") from None
    _log.warning("made a master key, %s: keep a copy elsewhere, as without it no sealed value can be opened", path)
