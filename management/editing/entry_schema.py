"""The JSON schemas of entries as the API takes and shows them, made of the configuration's own (config/schema.py).

For the OpenAPI document. Bodies are read by :mod:`management.secrets.entry_values` and the loader, which name every fault.
"""

import inspect
from collections.abc import Callable
from typing import ClassVar, cast

from config.edit.edits import key_field
from config.json_schema import Schema, json_schema

_SET: Schema = {
    "type": "object",
    "description": "a new value, which is sealed with the master key; of a header, kept as it is",
    "properties": {"action": {"const": "set"}, "value": {"type": "string", "minLength": 1}},
    "required": ["action", "value"],
    "additionalProperties": False,
}
_KEEP: Schema = {
    "type": "object",
    "description": "what is there already",
    "properties": {"action": {"const": "keep"}},
    "required": ["action"],
    "additionalProperties": False,
}
_GENERATE: Schema = {
    "type": "object",
    "description": "a new one is made, and told by this answer alone as `new_secret`; of an entry that there is, `rotate` "
    "lets the present one sign too, as the first of `former_secrets`",
    "properties": {"action": {"enum": ["generate", "rotate"]}},
    "required": ["action"],
    "additionalProperties": False,
}
_REFERENCE: Schema = {
    "type": "object",
    "description": "one reference, of those that management.allowed_references allows",
    "properties": {"reference": {"type": "string", "pattern": r"^\$\{.*\}$"}},
    "required": ["reference"],
    "additionalProperties": False,
}
SECRET_SHOWN: Schema = {
    "title": "SecretShown",
    "type": "object",
    "description": "what kind of secret is there; never the secret",
    "properties": {
        "kind": {"enum": ["reference", "sealed", "literal"]},
        "reference": {
            "type": "string",
            "description": "of the kind `reference`: as it is written, without its default",
        },
        "key_id": {"type": "string", "description": "of the kind `sealed`: which master key opens it"},
    },
    "required": ["kind"],
    "additionalProperties": False,
}

SECRET_GIVEN: Schema = {
    "title": "SecretGiven",
    "anyOf": [_SET, _KEEP, _REFERENCE, {**SECRET_SHOWN, "description": "as it is shown: it is kept"}],
}

ORDERED = frozenset({"routes"})
"""Lists in which it matters where an entry stands."""
_BEFORE: Schema = {
    "anyOf": [{"type": "string"}, {"type": "null"}],
    "description": "name of the entry that it shall stand before; null: where it stands, a new one last",
}

_NOTES: dict[str, Schema] = {
    "file": {"type": "string", "description": "where it is written, from the root file's directory"},
    "line": {"type": "integer", "minimum": 1, "description": "where in the file it begins"},
}
_NOTICES: dict[str, Schema] = {
    "notices": {"type": "array", "items": {"type": "string"}, "description": "advice on what has come of the edit"},
    "restart": {
        "type": "array",
        "items": {"type": "string"},
        "description": "keys that differ from those of the start, and take effect with the next",
    },
}
_MORE_NOTES: dict[str, dict[str, Schema]] = {
    "webhooks": {
        "state": {
            "description": "how it is, as far as the worker that answers knows; null: the configuration in force has no such one",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "failing": {
                            "type": "boolean",
                            "description": "its endpoint has failed several times in a row, and is asked once in a while",
                        },
                        "disabled_since": {
                            "description": "its endpoint has answered 410, and gets nothing since",
                            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
                        },
                    },
                    "required": ["failing", "disabled_since"],
                    "additionalProperties": False,
                },
                {"type": "null"},
            ],
        }
    }
}
"""What answers tell of the entries of a section, besides."""
_NOTES_ONCE: dict[str, dict[str, Schema]] = {
    "webhooks": {"new_secret": {"type": "string", "description": "the secret that was made: shown this once"}}
}
"""What they tell once, where there is any."""


def left_aside(section: str) -> tuple[str, ...]:
    """What answers add to an entry, besides its file: it may be sent back with it."""
    return ("line", *_NOTICES, *_MORE_NOTES.get(section, ()), *_NOTES_ONCE.get(section, ()))


def _sent_back(section: str) -> dict[str, Schema]:
    return {
        "file": {**_NOTES["file"], "description": "as it is shown: an entry stays in its file"},
        **{name: {"description": "as it is shown; it is left aside"} for name in left_aside(section)},
    }


class _EntryJson:
    """Base of the types of JSON that a section's entries have. Not to be made: it stands for a schema alone."""

    section: ClassVar[str]

    def __init_subclass__(cls, *, section: str | None = None) -> None:
        super().__init_subclass__()
        if section is not None:
            cls.section = section

    @classmethod
    def json_schema(cls) -> Schema:
        """Its schema, whole: without references."""
        made = cls._schema()
        return {**made, "title": cls.__name__, "description": inspect.getdoc(cls) or made["description"]}

    @classmethod
    def _schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def _given(cls, *, needs_key: bool) -> Schema:
        schema = _entry(cls.section, _given)
        key = key_field(cls.section)
        more = {"before": _BEFORE} if cls.section in ORDERED else {}
        notes = {} if needs_key else _sent_back(cls.section)
        return {
            **schema,
            "properties": {**schema["properties"], **more, **notes},
            "required": [each for each in schema.get("required", []) if each != key or needs_key],
        }

    @classmethod
    def _shown(cls, notes: dict[str, Schema], notes_once: dict[str, Schema]) -> Schema:
        schema = _without_defaults(_entry(cls.section, _shown))
        own = {**_NOTES, **_MORE_NOTES.get(cls.section, {}), **notes}
        return {
            **schema,
            "properties": {**schema["properties"], **own, **notes_once},
            "required": [*schema.get("required", []), *own],
        }


class NewEntry(_EntryJson):
    """Base of what is taken of a new entry."""

    @classmethod
    def _schema(cls) -> Schema:
        return cls._given(needs_key=True)


class EntryGiven(_EntryJson):
    """Base of what is taken in the place of an entry, whose name stands in the path."""

    @classmethod
    def _schema(cls) -> Schema:
        return cls._given(needs_key=False)


class EntryPatch(_EntryJson):
    """Base of merge patches (RFC 7396) of an entry."""

    @classmethod
    def _schema(cls) -> Schema:
        given = cls._given(needs_key=False)
        key = key_field(cls.section)
        # It says which entry it is.
        properties = {**_merge_patch(given)["properties"], key: given["properties"][key]}
        return {**_merge_patch(given), "properties": properties}


class EntryShown(_EntryJson):
    """Base of what is shown of an entry."""

    @classmethod
    def _schema(cls) -> Schema:
        return cls._shown({}, {})


class EntryChanged(_EntryJson):
    """Base of the same after an edit."""

    @classmethod
    def _schema(cls) -> Schema:
        return cls._shown(_NOTICES, _NOTES_ONCE.get(cls.section, {}))


def _entry(section: str, at: Callable[[Schema, tuple[str, ...]], Schema | None]) -> Schema:
    definitions = json_schema()["$defs"]
    return _resolved(definitions["Config"]["properties"][section]["items"], definitions, at, (section,))


def _resolved(
    schema: Schema, definitions: Schema, at: Callable[[Schema, tuple[str, ...]], Schema | None], path: tuple[str, ...]
) -> Schema:
    """``schema`` without references; ``at`` may put another in the place of each part."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    replaced = at(schema, path)
    if replaced is not None:
        return replaced

    def inner(each: Schema, *steps: str) -> Schema:
        return _resolved(each, definitions, at, (*path, *steps))

    found: Schema = {key: value for key, value in schema.items() if not key.startswith("x-")}
    if "properties" in schema:
        found["properties"] = {key: inner(each, key) for key, each in schema["properties"].items()}
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = inner(schema["additionalProperties"], "*")
    if isinstance(schema.get("items"), dict):
        found["items"] = inner(schema["items"])
    if "anyOf" in schema:
        found["anyOf"] = [inner(each) for each in schema["anyOf"]]
    return found


def _without_defaults(schema: Schema) -> Schema:
    """What the file does not say is not shown."""

    def each(inner: object) -> object:
        if isinstance(inner, dict):
            return {
                key: {name: each(member) for name, member in value.items()} if key == "properties" else each(value)
                for key, value in inner.items()
                if key != "default"
            }
        return [each(value) for value in inner] if isinstance(inner, list) else inner

    return cast(Schema, each(schema))


def _is_header(path: tuple[str, ...]) -> bool:
    return path in (("providers", "headers", "*"), ("providers", "credentials", "command", "environment", "*"))


def _takes_direct(path: tuple[str, ...]) -> bool:
    return path in (("providers", "proxy_url"), ("providers", "credentials", "proxy_url"))


def _given(schema: Schema, path: tuple[str, ...]) -> Schema | None:
    if schema.get("x-secret"):
        alternatives = SECRET_GIVEN["anyOf"]
        if _takes_direct(path):
            alternatives = [*alternatives, {"const": "direct"}]
        if path == ("webhooks", "secret"):
            alternatives = [*alternatives, _GENERATE]
        return {**SECRET_GIVEN, **_said(schema), "anyOf": alternatives}
    if _is_header(path):
        return {"anyOf": [{"type": "string"}, *SECRET_GIVEN["anyOf"]]}
    return None


def _shown(schema: Schema, path: tuple[str, ...]) -> Schema | None:
    if schema.get("x-secret") or _is_header(path):
        shown = {**SECRET_SHOWN, **_said(schema)}
        return {"anyOf": [shown, {"const": "direct"}]} if _takes_direct(path) else shown
    # What the file says, which may be a reference where a number belongs.
    if schema.get("type") in ("integer", "number", "boolean"):
        return {**_said(schema), "type": [schema["type"], "string"]}
    if schema.get("type") == "string" or "enum" in schema:
        return {**_said(schema), "type": "string"}
    return None


def _said(schema: Schema) -> Schema:
    return {"description": schema["description"]} if "description" in schema else {}


def _merge_patch(schema: Schema) -> Schema:
    """What a merge patch (RFC 7396) of ``schema`` is: nothing is required, and null takes a member away."""
    if "properties" not in schema:
        return schema
    members = {key: _or_null(_merge_patch(inner)) for key, inner in schema["properties"].items()}
    return {key: value for key, value in schema.items() if key not in ("required", "default")} | {"properties": members}


def _or_null(schema: Schema) -> Schema:
    inner = {key: value for key, value in schema.items() if key != "default"}
    return inner if _takes_null(inner) else {"anyOf": [inner, {"type": "null"}]}


def _takes_null(schema: Schema) -> bool:
    return schema.get("type") == "null" or any(_takes_null(each) for each in schema.get("anyOf", []))
