"""`./sluice seal` and `./sluice rekey`: values sealed with the master key, and sealed anew with the one after it.

Accounts, which are sealed too and kept elsewhere, are the part of :mod:`gateway.account_sealing`.
"""

import contextlib
import fcntl
import getpass
import os
import re
import shutil
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import yaml

from config.document import Document, parse
from config.durable import sync_directory
from config.faults import ConfigFaults, Fault, Notice
from config.json_schema import shape
from config.master_key import NO_MASTER_KEY, MasterKeyFault, Wrapper, read_key_ring
from config.merge import merge
from config.references import (
    EnvironmentResolver,
    FileResolver,
    Reference,
    ReferenceFault,
    References,
    parse_template,
)
from config.schema import Secrets
from config.sealing import CONFIG, KEY_ID_PATTERN, VAULT_VALUES, KeyRing, SealedFault
from config.secret_files import MAX_SECRET_FILE_BYTES, SecretFiles
from config.secret_stores import KEPT_VALUES
from config.sources import SourceFile, include_patterns, read_includes, read_root
from config.substitute import Substituted, substitute, typed
from config.validation import validate
from config.vault.kept import lock_file
from config.vault.settings import VaultSettings
from core.clock import SystemClock

_SEALED = re.compile(r"\$\$\{|\$\{sealed:(?P<key_id>" + KEY_ID_PATTERN + r"):(?P<text>[A-Za-z0-9_-]+)(?=:-|\})")
"""A sealed reference as it stands in a file, up to its default; or an escape, which makes none of what follows."""
_LINE_BREAK = re.compile("\r\n|\r|\n")
_Loader: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SealingRefused(Exception):
    """A command cannot do what it was asked; the message says why and shows no secret."""


def seal(path: Path, env: Mapping[str, str], *, named: bool) -> None:
    """Print what stands for a secret, which is read from standard input, in the configuration at ``path``.

    Args:
        named: somebody has named the file, so that it must be there.

    Raises:
        SealingRefused: there is nothing to seal, or no text.
        MasterKeyFault, ConfigFaults: the master key cannot be had.
    """
    reference = sealed(path, env, _secret_from_input(), named=named)
    print(reference, flush=True)
    if sys.stderr.isatty():
        print(f"\nFor {path}, in the place of the secret and in quotes:\n    '{reference}'", file=sys.stderr)


def sealed(path: Path, env: Mapping[str, str], plain: bytes, *, named: bool = True) -> str:
    """``${sealed:…}`` for ``plain``, by the master key of the configuration at ``path``, which is made where it may be.

    Raises:
        MasterKeyFault, ConfigFaults: the master key cannot be had.
    """
    with contextlib.ExitStack() as running:
        keys = _Own(path, named=named).key_ring(env, running, make=True)
    assert keys is not None  # there is one, or it has been made
    return f"${{sealed:{keys.seal(plain, CONFIG)}}}"


def rekey(path: Path, env: Mapping[str, str]) -> bool:
    """Seal everything of the configuration at ``path`` that is not sealed by the first master key with that one, and the
    accounts that it keeps.

    Tells what it does to each file, and names what it leaves as it is; whether that is nothing.

    Raises:
        ConfigFaults: the files cannot be read; none is changed.
        MasterKeyFault: the master keys cannot be had.
    """
    own = _Own(path, named=True)
    with contextlib.ExitStack() as running:
        keys = own.key_ring(env, running, make=False)
    if keys is None:
        raise MasterKeyFault(NO_MASTER_KEY)
    files: dict[Path, SourceFile] = {}
    for file in own.files:
        files.setdefault(Path(file.shown).resolve(), file)  # several names may lead to one file
    done = [_rekeyed_document(file, keys) for file in files.values()]
    kept = own.directory / own.settings(env).directory / KEPT_VALUES
    for each in done:
        _write(each, keys.first_id)
    if kept.exists():
        done.append(_rekey_values(kept, keys))
    from gateway.account_sealing import rekey_kept_accounts  # noqa: PLC0415  of no use to a gateway that serves

    accounts = rekey_kept_accounts(own.document, own.directory, env, keys)
    if accounts and not any(each.left or each.notes for each in done):
        print(f"all is sealed with the key `{keys.first_id}`: once every gateway has loaded that, other keys may go")
    return accounts and not any(each.left for each in done)


class _Rekeyed(msgspec.Struct):
    """A file as it should be."""

    shown: str
    old: bytes
    new: bytes
    count: int = 0
    """How many values were sealed anew."""
    left: list[Fault] = []
    """What was not, and why."""
    notes: list[Notice] = []


class _Own:
    """What a configuration says of its own secrets, whatever else is wrong with it."""

    def __init__(self, path: Path, *, named: bool) -> None:
        """A file that is not ``named`` may be missing.

        Raises:
            ConfigFaults: the files cannot be read.
        """
        self.directory = path.parent
        self.files: tuple[SourceFile, ...] = ()
        document = Document({}, parse(b"", str(path)).place)
        if named or path.exists():
            root = read_root(path)
            document = parse(root.data, root.shown)
            included, unread = read_includes(path, include_patterns(document))
            self.files = (root, *included)
            place = document.place
            document = merge(document, [parse(file.data, file.shown) for file in included])
            faults = (*document.faults, *(fault if fault.file else place.locate(fault) for fault in unread))
            if faults:
                raise ConfigFaults(faults)
        self.document = document

    def settings(self, env: Mapping[str, str], *, with_vault: bool = False) -> Secrets:
        """The section `secrets`. Who needs no Vault need not be able to sign in to it.

        Raises:
            ConfigFaults: something is wrong with it.
        """
        own = self.document.value.get("secrets")
        if isinstance(own, dict) and not with_vault:
            own = {key: value for key, value in own.items() if key != "vault"}
        files = FileResolver(SecretFiles(), self.directory)
        references = References({"env": EnvironmentResolver(env), "file": files})
        substituted = substitute({} if own is None else {"secrets": own}, shape(), references)
        self._check(substituted)
        assert isinstance(substituted.value, dict)
        return typed(substituted.value.get("secrets", {}), Secrets)

    def key_ring(self, env: Mapping[str, str], running: contextlib.ExitStack, *, make: bool) -> KeyRing | None:
        """The master keys; a session with Vault that this takes ends with ``running``.

        Raises:
            MasterKeyFault, ConfigFaults: they cannot be had.
        """
        settings = self.settings(env)
        sessions: list[Wrapper] = []

        def session() -> Wrapper:
            if not sessions:
                sessions.append(self._sign_in(env, running))
            return sessions[0]

        has_vault = isinstance(own := self.document.value.get("secrets"), dict) and own.get("vault") is not None
        return read_key_ring(
            settings.master_key, env, self.directory, settings.directory, session if has_vault else None, make=make
        )

    def _sign_in(self, env: Mapping[str, str], running: contextlib.ExitStack) -> Wrapper:
        from config.vault.session import Session  # noqa: PLC0415  hvac takes long to import; few keys need Vault

        vault = self.settings(env, with_vault=True).vault
        assert vault is not None
        session = Session(VaultSettings(vault, self.directory), SystemClock())
        running.callback(session.close)
        return session

    def _check(self, substituted: Substituted) -> None:
        place = self.document.place
        faults = validate(substituted.value, place, substituted.referenced)
        faults += [place.locate(fault) for fault in substituted.faults]
        if faults:
            raise ConfigFaults(faults)


def _secret_from_input() -> bytes:
    if sys.stdin.isatty():
        plain = getpass.getpass("Secret: ").encode()
    else:
        plain = sys.stdin.buffer.read(MAX_SECRET_FILE_BYTES + 1)
        if len(plain) > MAX_SECRET_FILE_BYTES:
            raise SealingRefused(f"a secret is not larger than {MAX_SECRET_FILE_BYTES} bytes")
        plain = plain[:-2] if plain.endswith(b"\r\n") else plain.removesuffix(b"\n")
    if not plain:
        raise SealingRefused("there is nothing to seal: give the secret on standard input")
    try:
        plain.decode()
    except UnicodeDecodeError:
        raise SealingRefused("a secret is UTF-8 text, and this is not: encode it, as base64 for example") from None
    return plain


def _write(rekeyed: _Rekeyed, key_id: str) -> None:
    """Write the file where it changes, and tell."""
    shown, count = rekeyed.shown, rekeyed.count
    if count:
        try:
            _replace(Path(shown), rekeyed.old, rekeyed.new)
        except (OSError, SealingRefused) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            rekeyed.left.append(Fault((), f"cannot be written, and is left as it is: {reason}", shown, 1, 1))
            count = 0
    for remark in sorted([*rekeyed.left, *rekeyed.notes], key=lambda each: (each.line, each.column)):
        print(remark, file=sys.stderr)
    values = "1 value" if count == 1 else f"{count} values"
    print(f"{shown}: {values} sealed anew with the key `{key_id}`" if count else f"{shown}: not changed")


def _rekey_values(path: Path, keys: KeyRing) -> _Rekeyed:
    """Seal the last values of Vault anew, while no gateway adds to them (:class:`config.vault.kept.KeptValues`)."""
    with contextlib.ExitStack() as locked:
        # Made by the gateway alone, as its own. Who may not open it may not write the other file either.
        with contextlib.suppress(OSError):
            fcntl.flock(locked.enter_context(lock_file(path).open("r+b")), fcntl.LOCK_EX)
        rekeyed = _rekeyed_values(path, keys)
        _write(rekeyed, keys.first_id)
    return rekeyed


def _rekeyed_values(path: Path, keys: KeyRing) -> _Rekeyed:
    """The last values of Vault, sealed anew."""
    try:
        old = path.read_bytes()
    except OSError as error:
        return _Rekeyed(str(path), b"", b"", left=[Fault((), f"cannot be read: {error.strerror}", str(path), 1, 1)])
    result = _Rekeyed(str(path), old, old)
    key_id, _, sealed = old.decode(errors="replace").strip().partition(":")
    try:
        plain = keys.open(key_id, sealed, VAULT_VALUES)
    except SealedFault as fault:
        result.left.append(Fault((), str(fault), str(path), 1, 1))
        return result
    if key_id != keys.first_id:
        result.new = f"{keys.seal(plain, VAULT_VALUES)}\n".encode()
        result.count = 1
    return result


def _rekeyed_document(file: SourceFile, keys: KeyRing) -> _Rekeyed:
    """The file with its sealed values sealed anew; all else as it is, to the byte. It has been parsed without faults."""
    text, shown = file.data.decode(), file.shown
    found = _SealedValues(text, shown)
    result = _Rekeyed(shown, file.data, file.data, left=found.left)
    pieces: list[str] = []
    end = 0
    for match in found.in_values:
        key_id = match["key_id"]
        try:
            plain = keys.open(key_id, match["text"], CONFIG)
        except SealedFault as fault:
            message = f"`${{sealed:{key_id}:…}}` {fault}"
            result.left.append(Fault((), message, shown, *_place(text, match.start())))
            continue
        if key_id != keys.first_id:
            pieces += text[end : match.start("key_id")], keys.seal(plain, CONFIG)
            end = match.end("text")
            result.count += 1
    result.new = "".join([*pieces, text[end:]]).encode()
    for match in found.in_comments:
        with contextlib.suppress(SealedFault):  # an example, or of no use any more
            keys.open(match["key_id"], match["text"], CONFIG)
            if match["key_id"] != keys.first_id:
                message = "a sealed value in a comment is left as it is, and still needs its key"
                result.notes.append(Notice((), message, shown, *_place(text, match.start())))
    return result


class _SealedValues:
    """Where sealed references stand in the text of a document, in its order."""

    def __init__(self, text: str, shown: str) -> None:
        self.in_values: list[re.Match[str]] = []
        self.left: list[Fault] = []
        """Values that hold some which cannot be replaced, and why."""
        # From where to where there are no comments.
        spans = [(0, 0), *(self._scalar(event, text, shown, is_key=is_key) for event, is_key in _scalars(text))]
        begins = [begin for begin, _ in spans]
        self.in_comments = [
            match
            for match in _SEALED.finditer(text)
            if match["key_id"] and match.start() >= spans[bisect_right(begins, match.start()) - 1][1]
        ]

    def _scalar(self, event: yaml.ScalarEvent, text: str, shown: str, *, is_key: bool) -> tuple[int, int]:
        assert event.start_mark is not None  # every event of a parser has both
        assert event.end_mark is not None
        begin, end = event.start_mark.index, event.end_mark.index
        place = event.start_mark.line + 1, event.start_mark.column + 1
        if event.style in ("|", ">"):
            # What stands behind the head of a block is a comment.
            head = _LINE_BREAK.search(text, begin, end)
            begin = head.end() if head else end
        if is_key or "${sealed:" not in event.value:  # references in keys are text
            return begin, end
        try:
            template = parse_template(event.value)
        except ReferenceFault as fault:
            self.left.append(Fault((), str(fault), shown, *place))
            return begin, end
        found = [match for match in _SEALED.finditer(text, begin, end) if match["key_id"]]
        wanted = [piece.parts for piece in template if isinstance(piece, Reference) and piece.scheme == "sealed"]
        if wanted == [match.groupdict() for match in found]:
            self.in_values += found
        else:
            mend = "write it as `./sluice seal` does"
            self.left.append(Fault((), f"a sealed value is written with escapes or padding: {mend}", shown, *place))
        return begin, end


def _scalars(text: str) -> Iterator[tuple[yaml.ScalarEvent, bool]]:
    """The scalars of a document, each with whether it is a key."""
    awaits_key: list[bool | None] = []  # of each collection that is open; None in a list
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionEndEvent):
            awaits_key.pop()
        elif isinstance(event, yaml.NodeEvent):
            is_key = awaits_key[-1] if awaits_key else None
            if is_key is not None:
                awaits_key[-1] = not is_key
            if isinstance(event, yaml.CollectionStartEvent):
                awaits_key.append(True if isinstance(event, yaml.MappingStartEvent) else None)
            elif isinstance(event, yaml.ScalarEvent):
                yield event, bool(is_key)


def _place(text: str, index: int) -> tuple[int, int]:
    lines = _LINE_BREAK.split(text[:index])
    return len(lines), len(lines[-1]) + 1


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Put ``new`` in the place of ``old``, whole or not at all, with the mode and the owner that it has.

    Raises:
        SealingRefused: the file is not ``old`` any more.
        OSError: it cannot be written.
    """
    target = path.resolve()  # a link stays a link
    before = target.stat()
    # Hidden, so that no `include:` takes it for a document.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:64]}.", suffix=".new", dir=target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(new)
            file.flush()
            os.fchown(descriptor, before.st_uid, before.st_gid)
            shutil.copystat(target, temporary)  # mode, access lists and labels
            os.utime(descriptor)
            os.fsync(descriptor)
        if target.read_bytes() != old:
            raise SealingRefused("it was changed meanwhile; run the command again")
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)
