"""References and secrets of a document put in place, guided by the schema."""

import math
import re
from typing import TypeVar

import msgspec

from config.document import Value
from config.faults import Fault, Notice, Path
from config.json_schema import ANYTHING, Shape
from config.references import SECRET_SCHEMES, Reference, ReferenceFault, References, Template, label, parse_template
from config.scalars import Scalar, read_plain
from core.secret import Secret

_T = TypeVar("_T")

_NOT_A_SECRET = "names a secret, and what stands here is shown: use `${env:NAME}` or write the value"
_NOT_FINITE = "must be a finite number; a limit that may be off takes null"
_MERE_ADDRESS = re.compile(r"[a-z]+://[^\s@?]*")


class Unresolved:
    """Stands for a value that could not be had; its fault is told already, so validation passes over it."""

    def __repr__(self) -> str:
        return "Unresolved()"


UNRESOLVED = Unresolved()

Resolved = Scalar | Secret | Unresolved | list["Resolved"] | dict[str, "Resolved"]
"""A document's values after substitution."""


class Substituted(msgspec.Struct):
    """What :func:`substitute` gives."""

    value: Resolved
    faults: list[Fault]
    notices: list[Notice]
    referenced: dict[Path, str]
    """Where a value came from references in an ordinary field: their labels. Messages name these, not the value."""
    interpolated: list[Reference]
    """Those references."""


def substitute(value: Value, shape: Shape, references: References) -> Substituted:
    """Replace what ``value`` refers to.

    In a secret field a text becomes a :class:`core.secret.Secret`. Elsewhere references are replaced inside their
    text; one that is the whole value of a number or a boolean is read by the rules of plain YAML scalars.
    """
    walk = _Walk(references)
    return Substituted(walk.value(value, shape, ()), walk.faults, walk.notices, walk.referenced, walk.interpolated)


def typed(value: Resolved, kind: type[_T]) -> _T:
    """``value`` as the frozen type of its place in the schema; secrets stay the handles that they are.

    Raises:
        msgspec.ValidationError: it is of no such type.
    """
    return msgspec.convert(value, kind, dec_hook=_keep)


def _keep(_type: type, value: object) -> object:
    return value


class _Walk:
    def __init__(self, references: References) -> None:
        self._references = references
        self.faults: list[Fault] = []
        self.notices: list[Notice] = []
        self.referenced: dict[Path, str] = {}
        self.interpolated: list[Reference] = []

    def value(self, value: Value, shape: Shape, path: Path) -> Resolved:
        if isinstance(value, dict):
            return {key: self.value(inner, shape.at(key), (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            items = shape.items or ANYTHING
            return [self.value(inner, items, (*path, index)) for index, inner in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            self.faults.append(Fault(path, _NOT_FINITE))
            return UNRESOLVED
        if isinstance(value, str) and (shape.secret or "${" in value):
            return self._text(value, shape, path)
        return value

    def _text(self, text: str, shape: Shape, path: Path) -> Resolved:
        try:
            template = parse_template(text)
            literal = all(isinstance(piece, str) for piece in template)
            if shape.secret and literal:
                return self._literal_secret(template, path)
            if literal:
                return "".join(map(str, template))
            if "null" in shape.types and self._references.is_absent(template):
                return None
            if shape.secret:
                return self._references.secret(template)
            if any(isinstance(piece, Reference) and piece.scheme in SECRET_SCHEMES for piece in template):
                raise ReferenceFault(f"`{label(template)}` {_NOT_A_SECRET}")
            self.referenced[path] = label(template)
            self.interpolated += (piece for piece in template if isinstance(piece, Reference))
            resolved = self._references.text(template)
            if len(template) == 1 and not shape.takes_text:
                number = read_plain(resolved)
                if isinstance(number, float) and not math.isfinite(number):
                    raise ReferenceFault(f"`{label(template)}` {_NOT_FINITE}")
                return number
        except (ReferenceFault, ValueError) as error:  # ValueError: a number of too many digits
            self.faults.append(Fault(path, str(error)))
            return UNRESOLVED
        return resolved

    def _literal_secret(self, template: Template, path: Path) -> Secret:
        text = "".join(map(str, template))
        if not text:
            raise ReferenceFault("is empty: a secret must have a value")
        # A hash is no secret that opens anything, and neither is an address that names neither a user nor parameters.
        if not text.startswith("$argon2") and _MERE_ADDRESS.fullmatch(text) is None:
            self.notices.append(
                Notice(path, "a secret stands in the file itself: better a reference such as `${env:NAME}`")
            )
        return Secret.literal(text)
