"""What stands in the sources below a field, as the field's description in the OpenAPI document.

Python keeps no docstrings of attributes: they are read from the source, which is there wherever the program runs.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect as types_of_msgspec

# ``literal`` and :role:`~package.thing`, as docstrings write them, become Markdown.
_LITERAL = re.compile(r"``([^`]+)``")
_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")


def structs_of(types: Iterable[Any]) -> list[type[msgspec.Struct]]:
    """All structs that ``types`` are made of, each once."""
    found: dict[type[msgspec.Struct], None] = {}
    pending: list[Any] = list(types_of_msgspec.multi_type_info(types))
    while pending:
        each = pending.pop()
        if isinstance(each, types_of_msgspec.StructType):
            if each.cls in found:
                continue
            found[each.cls] = None
        pending.extend(_parts(each))
    return list(found)


def _parts(kind: types_of_msgspec.Type) -> Iterator[Any]:
    """The types directly inside of ``kind``."""
    for name in kind.__struct_fields__:
        value = getattr(kind, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, types_of_msgspec.Type):
                yield each
            elif isinstance(each, types_of_msgspec.Field):
                yield each.type


@cache
def field_notes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """By encoded name, the docstring below each field of ``struct``, and of those that it inherits."""
    notes: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        if each is not msgspec.Struct and issubclass(each, msgspec.Struct):
            notes |= dict(_notes_of(each))
    encoded = {field.name: field.encode_name for field in msgspec.structs.fields(struct)}
    return {encoded[name]: note for name, note in notes.items() if name in encoded}


def _notes_of(struct: type) -> Iterator[tuple[str, str]]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct)))
    (defined,) = tree.body
    assert isinstance(defined, ast.ClassDef)
    for field, below in zip(defined.body, defined.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield field.target.id, as_markdown(inspect.cleandoc(below.value.value))


def as_markdown(note: str) -> str:
    """The first paragraph of a docstring."""
    first = note.partition("\n\n")[0].replace("\n", " ")
    return _ROLE.sub(r"`\1`", _LITERAL.sub(r"`\1`", first))
