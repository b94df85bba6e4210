"""Names of the operations, from the routes' table: `listProviders` in the OpenAPI document, `providers list` in the shell.

A resource is the last part of a path that names come after (`revisions` of `/api/v1/config/revisions/{id}/diff`), or the
first part where none do (`config` of `/api/v1/config/reload`). The verb is what comes after it, or else the method's.
"""

import re
from collections.abc import Sequence

import msgspec

from management.routes import Route

_PREFIX = "/api/v1/"
_METHODS = {"GET": "get", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
_PARAMETER = re.compile(r"\{[a-z_]+\}")


class Named(msgspec.Struct, frozen=True):
    """What a route is called."""

    resource: str
    """Such as `providers`."""
    verb: str
    """Such as `list`; unique within the resource."""
    operation_id: str
    """Such as `listProviders`; unique."""


def names(routes: Sequence[Route]) -> dict[Route, Named]:
    """The names of ``routes``, which must be the whole table: what is below a path decides what it is."""
    collections = {_parts(route.path)[:at] for route in routes for at in _places_of_parameters(route.path)}
    return {route: _named(route, collections) for route in routes}


def _named(route: Route, collections: set[tuple[str, ...]]) -> Named:
    parts = _parts(route.path)
    depth = max((at for at in range(1, len(parts) + 1) if parts[:at] in collections), default=1)
    tail = parts[depth:]
    is_item = bool(tail) and _is_parameter(tail[0])
    action = [part for part in tail if not _is_parameter(part)]
    # All names of the path; one thing of a collection is called in the singular.
    words = [
        singular(part) if _is_parameter_at(parts, at + 1) else part
        for at, part in enumerate(parts)
        if not _is_parameter(part)
    ]
    if action:
        verb, doing = _verb_of_action(route.method, action)
        # `refresh` of `providers/{name}/models/refresh` is what is done to the rest.
        nouns = words[:-1] if route.method == "POST" else words
    else:
        verb = doing = _METHODS.get(route.method, "create") if is_item else _verb_of_whole(route, parts in collections)
        nouns = words
        if verb == "create":
            nouns = [*words[:-1], singular(words[-1])]
        elif verb == "run":
            nouns, doing = words[:-1], words[-1]
    return Named(parts[depth - 1], verb, _camel_case([doing, *nouns]))


def _verb_of_action(method: str, action: list[str]) -> tuple[str, str]:
    """The verb, and that of the operation's id."""
    match method:
        case "GET":
            return "-".join(action), "get"
        case "POST":
            return "-".join([action[-1], *action[:-1]]), action[-1]
    return "-".join([_METHODS[method], *action]), _METHODS[method]


def _verb_of_whole(route: Route, is_collection: bool) -> str:
    """Of a path that ends with the name of its resource."""
    match route.method:
        case "GET":
            return "list" if _is_list(route.operation.answers.get(200)) else "get"
        case "POST":
            return "create" if is_collection or 201 in route.operation.answers else "run"
        case "DELETE":
            return "clear"
    return _METHODS[route.method]


def _is_list(answer: object) -> bool:
    fields = getattr(answer, "__struct_fields__", ())
    return "data" in fields and "next_cursor" in fields


def singular(noun: str) -> str:
    """`alias` of `aliases`; none of the words that paths have is irregular."""
    for ending, instead in (("ies", "y"), ("ases", "as"), ("s", "")):
        if noun.endswith(ending):
            return noun.removesuffix(ending) + instead
    return noun


def _parts(path: str) -> tuple[str, ...]:
    return tuple(path.removeprefix(_PREFIX).strip("/").split("/"))


def _places_of_parameters(path: str) -> list[int]:
    return [at for at, part in enumerate(_parts(path)) if _is_parameter(part)]


def _is_parameter(part: str) -> bool:
    return _PARAMETER.fullmatch(part) is not None


def _is_parameter_at(parts: tuple[str, ...], at: int) -> bool:
    return at < len(parts) and _is_parameter(parts[at])


def _camel_case(words: list[str]) -> str:
    first, *others = [piece for word in words for piece in re.split(r"[-_.]", word)]
    return first + "".join(word.capitalize() for word in others)
