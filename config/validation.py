"""Every fault of a document against the JSON schema, in words that say how to mend it."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from config.document import Place
from config.faults import Fault, Path, did_you_mean
from config.json_schema import Schema, branches, json_schema
from config.substitute import Resolved, Unresolved
from core.secret import Secret

_TYPE_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "array": "a list",
    "object": "a mapping",
    "null": "null",
}
_YAML_1_1_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}
_WITH_UNIT = re.compile(r"[-+]?[0-9.]+\s*[A-Za-z]+\Z")
_NUMBER = re.compile(r"[-+]?[0-9.]+\Z")


class _Breach(NamedTuple):
    """One broken rule of the schema: the validator's error with the types that it is known to have."""

    rule: str
    limit: Any
    """What the schema demands under ``rule``."""
    value: Any
    path: Path
    schema: Schema
    inner: "tuple[tuple[int, _Breach], ...]"
    """Of a union: the breaches of its alternatives, with their numbers."""

    @classmethod
    def of(cls, error: ValidationError) -> "_Breach":
        inner = tuple((int(each.schema_path[0]), cls.of(each)) for each in error.context or ())
        path = tuple(error.absolute_path)
        schema = cast(Schema, error.schema)
        return cls(str(error.validator), error.validator_value, error.instance, path, schema, inner)


def validate(value: Resolved, place: Place, referenced: Mapping[Path, str]) -> list[Fault]:
    """The faults of a whole document, in no particular order, with their places.

    ``referenced`` names what stands behind values that came from references: these values are never shown.
    """
    explain = _Explain(place, referenced)
    for error in _validator().iter_errors(value):
        explain.breach(_Breach.of(error))
    return list(dict.fromkeys(explain.faults))


@cache
def _validator() -> Any:
    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "string": lambda _checker, instance: isinstance(instance, str | Secret),
            # JSON schema takes 1.0 for an integer; what makes the frozen values of it does not.
            "integer": lambda _checker, instance: isinstance(instance, int) and not isinstance(instance, bool),
        }
    )
    return extend(Draft202012Validator, type_checker=checker)(json_schema())  # type: ignore[no-untyped-call]


class _Explain:
    """Turns breaches, which speak of the schema, into faults, which speak of the document."""

    def __init__(self, place: Place, referenced: Mapping[Path, str]) -> None:
        self._place = place
        self._referenced = referenced
        self._definitions: Schema = json_schema()["$defs"]
        self.faults: list[Fault] = []

    def breach(self, breach: _Breach) -> None:
        if isinstance(breach.value, Unresolved):
            return
        match breach.rule:
            case "additionalProperties":
                self._unknown_keys(breach)
            case "required":
                self._missing_keys(breach)
            case "anyOf":
                self._no_alternative(breach)
            case _:
                self._tell(breach.path, self._message(breach))

    def _tell(self, path: Path, message: str, at_key: bool = False) -> None:
        self.faults.append(self._place.locate(Fault(path, message), at_key))

    def _unknown_keys(self, breach: _Breach) -> None:
        known = breach.schema["properties"]
        for key in breach.value:
            if key not in known:
                self._tell((*breach.path, key), f"unknown key `{key}`{did_you_mean(key, known)}", at_key=True)

    def _missing_keys(self, breach: _Breach) -> None:
        # The validator gives one error a missing key without saying which, so each tells all; equal faults count once.
        for key in breach.limit:
            if key not in breach.value:
                about = breach.schema["properties"][key].get("description")
                self._tell(breach.path, f"the key `{key}` is missing" + (f" ({about})" if about else ""))

    def _no_alternative(self, breach: _Breach) -> None:
        """A union: explain the alternative that was meant, which the value's type tells."""
        for number, alternative in enumerate(breach.limit):
            if any(_is_type(breach.value, kind) for kind in _types([alternative], self._definitions)):
                for of_alternative, inner in breach.inner:
                    if of_alternative == number:
                        self.breach(inner)
                return
        self._tell(breach.path, self._wrong_type(breach, list(_types(breach.limit, self._definitions))))

    def _message(self, breach: _Breach) -> str:
        limit = breach.limit
        got = f", got {self._got(breach)}"
        match breach.rule:
            case "type":
                return self._wrong_type(breach, [limit])
            case "enum" if not isinstance(breach.value, str):
                return self._wrong_type(breach, ["string"])
            case "enum" if breach.path in self._referenced:
                return f"must be one of {', '.join(f'`{choice}`' for choice in limit)}{got}"
            case "enum":
                return f"unknown value {self._got(breach)}" + did_you_mean(breach.value, limit)
            case "minimum":
                return f"must be at least {limit}{got}"
            case "maximum":
                return f"must be at most {limit}{got}"
            case "exclusiveMinimum":
                return f"must be greater than {limit}{got}"
            case "exclusiveMaximum":
                return f"must be less than {limit}{got}"
            case "maxItems":
                return f"must have at most {limit} entries, has {len(breach.value)}"
            case "minItems" | "minLength":
                return "must not be empty"
            case "maxLength":
                return f"must have at most {limit} characters, has {len(breach.value)}"
            case "pattern":
                return f"must be made of {breach.schema.get('description', limit)}{got}"
        raise NotImplementedError(f"the schema uses `{breach.rule}`, which has no wording here")

    def _got(self, breach: _Breach) -> str:
        """The value in a message: a number, a name or one word of a few. Texts of other kinds are never shown."""
        if breach.path in self._referenced:
            return f"the value of `{self._referenced[breach.path]}`"
        return f"`{breach.value!r}`" if not isinstance(breach.value, str) else f"`{_shorten(breach.value)}`"

    def _wrong_type(self, breach: _Breach, expected: list[str]) -> str:
        words = " or ".join(dict.fromkeys(_TYPE_WORDS[kind] for kind in expected))
        if breach.path in self._referenced:
            return f"expected {words}, which the value of `{self._referenced[breach.path]}` is not"
        mend = _listen_mend(breach) or _mend(expected, breach.value)
        return f"expected {words}, got {_describe(breach.value)}{mend}"


def _types(alternatives: list[Schema], definitions: Schema) -> Iterator[str]:
    for alternative in alternatives:
        for branch in branches(alternative, definitions):
            yield branch.get("type", "string")  # an enumeration has no type of its own; ours are all of words


def _is_type(instance: object, kind: str) -> bool:
    return bool(_validator().is_type(instance, kind))


def _shorten(text: str) -> str:
    """Fit for one line of a message."""
    shown = repr(text)[1:-1]
    return shown if len(shown) <= 40 else f"{shown[:40]}…"


def _describe(instance: Any) -> str:
    """What kind of value stands there; not the value, which may be a secret in the wrong place."""
    match instance:
        case None:
            return "nothing (null)"
        case bool():
            return f"`{str(instance).lower()}`"
        case int() | float():
            return "a number"
        case str() | Secret():
            return "text"
        case list():
            return "a list"
    return "a mapping"


def _listen_mend(breach: _Breach) -> str:
    """A port alone, where an address belongs before it."""
    if breach.path[-1:] == ("listen",) and type(breach.value) is int and 0 <= breach.value <= 65535:
        return f": write `127.0.0.1:{breach.value}`"
    return ""


def _mend(expected: list[str], instance: object) -> str:
    """How to get from what stands there to what is expected; a guess, so nothing where there is no good one."""
    if instance is None:
        return ": give a value, or remove it"
    if "string" in expected and isinstance(instance, int | float):
        return ": put it in quotes"
    if "array" in expected:
        return ": write `- ` before it, or put it in `[…]`"
    if not isinstance(instance, str):
        return ""
    if "boolean" in expected and instance.lower() in _YAML_1_1_BOOLEANS:
        return f" `{instance}`: write `{_YAML_1_1_BOOLEANS[instance.lower()]}` (YAML 1.2 knows no `{instance}`)"
    if "boolean" in expected and instance.lower() in ("true", "false"):
        return ": remove the quotes"
    if {"integer", "number"} & set(expected):
        if _NUMBER.match(instance):
            return ": remove the quotes"
        if _WITH_UNIT.match(instance):
            return ": write the plain number; the key's name tells the unit"
    return ""
