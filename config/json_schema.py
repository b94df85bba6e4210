"""The JSON schema of the configuration, from the definitions in :mod:`config.schema`.

`config/schema.json` is its canonical rendering, for editors and other tools: `./sluice schema` prints it, and a
test says that the file is current. Inside the program, :func:`shape` tells what stands at a place of a document.
"""

import json
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import msgspec

from config.faults import Path
from config.schema import Config
from core.secret import Secret

Schema = dict[str, Any]
"""A JSON schema, whose form is the standard's (https://json-schema.org/draft/2020-12)."""

SCHEMA_FILE = FilePath(__file__).with_name("schema.json")


@cache
def json_schema() -> Schema:
    """The schema of a whole document, draft 2020-12. Not to be changed by callers."""
    generated = msgspec.json.schema(Config, schema_hook=_secret_schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Sluice configuration", **generated}


def render_json_schema() -> str:
    """The canonical text of the schema: what `config/schema.json` holds and `./sluice schema` prints."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _secret_schema(kind: type) -> Schema:
    if kind is Secret:
        return {"type": "string", "x-secret": True}
    raise NotImplementedError(f"no schema for {kind}")


class Shape(msgspec.Struct, frozen=True):
    """What may stand at a place of a document: the schema there with its references and unions resolved."""

    types: frozenset[str]
    """JSON types; empty where everything may stand."""
    secret: bool = False
    restart: bool = False
    """The key takes effect at start alone."""
    properties: dict[str, "Shape"] = {}
    values: "Shape | None" = None
    """Of every key that is not in ``properties``."""
    items: "Shape | None" = None

    @property
    def takes_text(self) -> bool:
        """Whether a text may stand here."""
        return not self.types or "string" in self.types

    def at(self, key: str) -> "Shape":
        """The shape under a mapping's ``key``; that of anything where the schema knows none."""
        return self.properties.get(key) or self.values or ANYTHING


ANYTHING = Shape(frozenset())


@cache
def shape() -> Shape:
    """The shape of a whole document."""
    schema = json_schema()
    return _shape(schema, schema["$defs"])


def branches(schema: Schema, definitions: Schema) -> list[Schema]:
    """The alternatives of ``schema``, references and nested unions resolved; ``schema`` itself when it has none."""
    if "$ref" in schema:
        return branches(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return [branch for alternative in schema["anyOf"] for branch in branches(alternative, definitions)]
    return [schema]


def _shape(schema: Schema, definitions: Schema) -> Shape:
    types: set[str] = set()
    secret = False
    properties: dict[str, Shape] = {}
    values: Shape | None = None
    items: Shape | None = None
    for branch in branches(schema, definitions):
        if "type" in branch:
            types.add(branch["type"])
        elif "enum" in branch:
            types.add("string")
        secret = secret or branch.get("x-secret", False)
        properties |= {key: _shape(inner, definitions) for key, inner in branch.get("properties", {}).items()}
        if isinstance(branch.get("additionalProperties"), dict):
            values = _shape(branch["additionalProperties"], definitions)
        if "items" in branch:
            items = _shape(branch["items"], definitions)
    restart = schema.get("x-restart", False)
    return Shape(frozenset(types), secret, restart, properties, values, items)


def changed_restart_keys(old: Config, new: Config) -> tuple[Path, ...]:
    """The keys marked `x-restart` whose values differ: an edit of these is reported, not applied."""
    return tuple(path for path in _restart_paths(shape(), ()) if not _same(_value_at(old, path), _value_at(new, path)))


def _same(old: object, new: object) -> bool:
    # Handles are of their documents: what they give is compared.
    return old.matches(new.reveal()) if isinstance(old, Secret) and isinstance(new, Secret) else old == new


def _restart_paths(inner: Shape, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = [path] if inner.restart else []
    for key, below in inner.properties.items():
        if not below.items:  # entries of lists are made anew with every generation
            found += _restart_paths(below, (*path, key))
    return found


def _value_at(config: Config, path: tuple[str, ...]) -> object:
    value: object = config
    for key in path:
        value = getattr(value, key)
    return value
