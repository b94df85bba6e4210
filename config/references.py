"""References: what stands in a document for a value that is kept elsewhere.

``${env:NAME}``, ``${file:PATH}``, ``${vault:MOUNT/PATH[@VERSION]#FIELD}``, ``${sealed:KEYID:BASE64URL}``.
Each may end in ``:-default`` before the brace, which counts where the value is missing or empty. ``$${`` is a
literal ``${``. A default holds no ``}``, and references do not nest. Mapping keys are left alone.

Reading a text is one thing (:func:`parse_template`), fetching what it names another: a :class:`Resolver` per scheme.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from config.sealing import KEY_ID_PATTERN
from config.secret_files import SecretFileError, SecretFiles
from core.secret import Secret


class ReferenceFault(Exception):
    """A reference that is malformed or leads nowhere; the message names it and never a value."""


class Reference(msgspec.Struct, frozen=True):
    """One ``${…}``: ``parts`` are what the scheme's form names, such as ``{"name": "HOME"}``."""

    scheme: str
    parts: dict[str, str]
    label: str
    """The reference as written, without its default (which may be a secret) and, where it is sealed, its text."""
    default: str | None = None

    def __repr__(self) -> str:
        return f"Reference({self.label!r})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        # Else msgspec gives all fields to whatever renders tracebacks.
        return [("label", self.label)]


Template = tuple[str | Reference, ...]
"""A text with its references apart; literal pieces are never empty."""


class Resolver(Protocol):
    """Fetches what references of one scheme name."""

    def __call__(self, reference: Reference) -> Callable[[], str] | None:
        """A function that gives the current value at each call; None where there is no value.

        Called when a document is loaded, in a thread, and may wait for IO; the function that it returns is called
        on the request path and must not.

        Raises:
            ReferenceFault: the value cannot be had, for a reason that a default must not hide.
        """
        ...


class _Scheme(msgspec.Struct, frozen=True):
    form: str
    pattern: re.Pattern[str]


_SEALED = re.compile(r"(?P<key_id>" + KEY_ID_PATTERN + r"):(?P<text>[A-Za-z0-9_-]+={0,2})\Z")

_SEGMENT = r"(?!\.{1,2}[/@#])[^/@#\x00-\x1f\x7f-\x9f\ud800-\udfff]+"
"""Of a path in Vault. Not empty, `.` or `..`: with these another path would be asked than the one that is written."""

_SCHEMES = {
    "env": _Scheme("${env:NAME}", re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)\Z")),
    "file": _Scheme("${file:PATH}", re.compile(r"(?P<path>[^\0]+)\Z")),
    "vault": _Scheme(
        "${vault:MOUNT/PATH[@VERSION]#FIELD}",
        re.compile(
            rf"(?P<mount>{_SEGMENT})/(?P<path>{_SEGMENT}(?:/{_SEGMENT})*)"
            r"(?:@(?P<version>[0-9]{1,9}))?#(?P<field>[^#]+)\Z"
        ),
    ),
    "sealed": _Scheme("${sealed:KEYID:BASE64URL}", _SEALED),
}

SECRET_SCHEMES = frozenset({"vault", "sealed"})
"""Schemes that name secrets and nothing else."""

_LATER = {"vault": "Vault is signed in to", "sealed": "the keys of sealed values are"}

_TOKEN = re.compile(r"(?P<escape>\$\$\{)|\$\{(?P<inside>[^{}]*)\}|(?P<open>\$\{)")


def parse_template(text: str) -> Template:
    """Take ``text`` apart; a text without references gives itself, unescaped.

    Raises:
        ReferenceFault: an unclosed brace, an unknown scheme, or a reference that is not of its scheme's form.
    """
    if "${" not in text:
        return (text,) if text else ()
    pieces: list[str | Reference] = []
    literal, end = "", 0
    for token in _TOKEN.finditer(text):
        literal += text[end : token.start()]
        end = token.end()
        if token["escape"]:
            literal += "${"
        elif token["open"]:
            raise ReferenceFault("a `${` is not closed by `}`: write `$${` for the characters themselves")
        else:
            if literal:
                pieces.append(literal)
            literal = ""
            pieces.append(_parse(token["inside"]))
    literal += text[end:]
    if literal:
        pieces.append(literal)
    return tuple(pieces)


def _parse(inside: str) -> Reference:
    address, separator, default = inside.partition(":-")
    name, _, body = address.partition(":")
    scheme = _SCHEMES.get(name)
    if scheme is None:
        forms = ", ".join(f"`{known.form}`" for known in _SCHEMES.values())
        # The text is not shown: it may be a secret that merely looks like a reference.
        raise ReferenceFault(
            f"a `${{…}}` of no known kind (known: {forms}): write `$${{` for the characters themselves"
        )
    match = scheme.pattern.match(body)
    if match is None:
        raise ReferenceFault(f"a `${{{name}:…}}` that is not of the form `{scheme.form}`")
    parts = {part: value for part, value in match.groupdict().items() if value is not None}
    # What is sealed is nobody's to read, and long: its key tells enough.
    shown = f"{parts['key_id']}:…" if name == "sealed" else body
    return Reference(name, parts, f"${{{name}:{shown}}}", default if separator else None)


def label(template: Template) -> str:
    """The references of a template, for messages: no literal text, no defaults, no values."""
    return " ".join(piece.label for piece in template if isinstance(piece, Reference))


class References:
    """Resolves the references of one document by a table of resolvers, one a scheme."""

    def __init__(self, resolvers: Mapping[str, Resolver]) -> None:
        self._resolvers = resolvers

    def text(self, template: Template) -> str:
        """The text with every reference replaced by its present value.

        Raises:
            ReferenceFault: one is missing and has no default.
        """
        return "".join(piece if isinstance(piece, str) else self._fetch(piece)() for piece in template)

    def secret(self, template: Template) -> Secret:
        """A handle that fetches the value at each use; ``template`` holds at least one reference.

        Raises:
            ReferenceFault: one is missing or empty and has no default.
        """
        reads = [_literal(piece) if isinstance(piece, str) else self._fetch(piece) for piece in template]
        if not any(read() for read in reads):
            raise ReferenceFault(f"`{label(template)}` is empty: a secret must have a value")
        # Nearly all are one reference and nothing else: spare these the joining at every use.
        return Secret(reads[0] if len(reads) == 1 else partial(_together, reads), label(template))

    def is_absent(self, template: Template) -> bool:
        """Whether ``template`` is one reference with an empty default (``${env:NAME:-}``) and has no value.

        That is how a document says "null unless it is set".

        Raises:
            ReferenceFault: as :meth:`text`.
        """
        match template:
            case (Reference(default=""),):
                return not self.text(template)
        return False

    def _fetch(self, reference: Reference) -> Callable[[], str]:
        resolver = self._resolvers.get(reference.scheme)
        if resolver is None:
            raise ReferenceFault(
                f"`{reference.label}` cannot stand here: this is read before {_LATER[reference.scheme]}"
            )
        read = resolver(reference)
        if reference.default is not None:
            # Through the reference, which does not render it: a traceback may show what the function holds.
            return lambda: (read() if read is not None else "") or reference.default or ""
        if read is None:
            # An environment is given to a process at its start: setting it elsewhere changes nothing here.
            raise ReferenceFault(
                f"`{reference.label}` is not set: set it where the gateway is started, then start it again; "
                f"or give a default: `{_with_default(reference)}`"
            )
        return read


def _together(reads: Sequence[Callable[[], str]]) -> str:
    """The pieces joined, all of one moment: a user name and its password may rotate while they are read."""
    pieces = [read() for read in reads]
    while pieces != (again := [read() for read in reads]):
        pieces = again
    return "".join(pieces)


def _literal(text: str) -> Callable[[], str]:
    return lambda: text


def _with_default(reference: Reference) -> str:
    return reference.label[:-1] + ":-default}"


class EnvironmentResolver:
    """``${env:NAME}`` from a mapping, as it was when the document was loaded."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, reference: Reference) -> Callable[[], str] | None:
        value = self._environment.get(reference.parts["name"])
        return None if value is None else _literal(value)


class FileResolver:
    """``${file:PATH}`` from ``files``; a relative path begins at ``directory``, that of the root document.

    ``used`` gathers what was asked for, so that it can be watched even where reading failed.
    """

    def __init__(self, files: SecretFiles, directory: Path) -> None:
        self._files = files
        self._directory = directory
        self.used: set[Path] = set()

    def __call__(self, reference: Reference) -> Callable[[], str] | None:
        path = self.path(reference)
        self.used.add(path)
        try:
            self._files.load(path, may_be_missing=reference.default is not None)
        except SecretFileError as error:
            raise ReferenceFault(f"`{reference.label}` {error}") from None
        return lambda: self._files.value(path)

    def path(self, reference: Reference) -> Path:
        """The file that ``reference`` names."""
        return self._directory / reference.parts["path"]
