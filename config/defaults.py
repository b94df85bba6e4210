"""A document with the values that the schema puts where it is silent."""

from typing import Any, cast

from config.document import Value
from config.json_schema import Schema, branches, json_schema


def with_defaults(value: Value) -> Value:
    """``value``, a whole document before references, with every default written out. What is wrong in it stays so.

    Where a key has no default that is the same everywhere, such as a timeout that a route takes from its provider,
    nothing is added.
    """
    schema = json_schema()
    return _filled(value, schema, schema["$defs"])


def _filled(value: Value, schema: Schema, definitions: Schema) -> Value:
    if isinstance(value, dict):
        for branch in branches(schema, definitions):
            if branch.get("type") == "object":
                return _filled_mapping(value, branch, definitions)
    elif isinstance(value, list):
        for branch in branches(schema, definitions):
            if "items" in branch:
                return [_filled(inner, branch["items"], definitions) for inner in value]
    return value


def _filled_mapping(value: dict[str, Value], schema: Schema, definitions: Schema) -> dict[str, Value]:
    known: dict[str, Schema] = schema.get("properties", {})
    others = schema.get("additionalProperties")
    filled = dict(value)
    for key, inner in value.items():
        below = known.get(key) or others
        if isinstance(below, dict):
            filled[key] = _filled(inner, below, definitions)
    for key, below in known.items():
        if key not in value and "default" in below:
            # A section that is left out as a whole has its defaults in one piece.
            filled[key] = _filled(_listed(below["default"]), below, definitions)
    return filled


def _listed(default: Any) -> Value:
    """As a document has it: the schema's defaults are those of frozen values."""
    if isinstance(default, dict):
        return {key: _listed(inner) for key, inner in default.items()}
    if isinstance(default, list | tuple):
        return [_listed(inner) for inner in default]
    return cast(Value, default)
