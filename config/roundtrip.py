"""The reader that keeps comments, order and spelling: ruamel.yaml, for edits that are written back to the file.

It gives every document the values that :mod:`config.document` gives it: the plain scalars are resolved by the same
table, and :func:`read` lets nothing pass that :func:`config.document.parse` refuses. A property test says so.
"""

import re
from functools import cached_property
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.scalarbool import ScalarBoolean

from config.document import Value, parse
from config.faults import ConfigFaults, Fault
from config.scalars import RULES


class _CoreResolver(VersionedResolver):
    """Plain scalars by the core schema of YAML 1.2, whatever the library holds YAML 1.2 to be."""

    @cached_property
    def versioned_resolver(self) -> dict[str, list[tuple[str, Any]]]:
        by_first: dict[str, list[tuple[str, Any]]] = {}
        for rule in RULES:
            for character in rule.first:
                by_first.setdefault(character, []).append((f"tag:yaml.org,2002:{rule.tag}", rule.pattern))
        by_first[""] = [("tag:yaml.org,2002:null", re.compile(r"\Z"))]
        return by_first


def roundtrip_yaml() -> YAML:
    """A reader and writer that leaves what is not edited as it stands. Not to be shared between threads."""
    yaml = YAML(typ="rt", pure=True)
    yaml.Resolver = _CoreResolver
    yaml.preserve_quotes = True
    yaml.width = 1_000_000  # never fold what the user wrote on one line
    return yaml


def read(data: bytes, file: str) -> CommentedMap:
    """The document of one file, to be edited in place.

    Raises:
        ConfigFaults: what :func:`config.document.parse` finds; comments in places where they cannot be kept; the few
            spellings that ruamel.yaml does not read, such as a tab behind the `|` of a block.
    """
    document = parse(data, file)
    if document.faults:
        raise ConfigFaults(document.faults)
    try:
        loaded = roundtrip_yaml().load(data.decode())
    except NotImplementedError:  # of ruamel.yaml, about comments between a key and its block scalar
        message = (
            "a comment stands where it cannot be kept, such as before `|` or `>`: move it, or edit the file itself"
        )
        raise ConfigFaults([Fault((), message, file, 1, 1)]) from None
    except MarkedYAMLError as error:
        line, column = (error.problem_mark.line + 1, error.problem_mark.column + 1) if error.problem_mark else (1, 1)
        message = (
            f"edits cannot keep how this is written ({error.problem}): write it otherwise, or edit the file itself"
        )
        raise ConfigFaults([Fault((), message, file, line, column)]) from None
    return CommentedMap() if loaded is None else loaded


def plain(value: object) -> Value:
    """A round-trip value without what it remembers of its spelling."""
    match value:
        case CommentedMap():
            return {str(key): plain(inner) for key, inner in value.items()}
        case CommentedSeq():
            return [plain(inner) for inner in value]
        case ScalarBoolean() | bool():
            return bool(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str(value)
        case None:
            return None
    raise TypeError(f"not a value of a document: {type(value).__name__}")
