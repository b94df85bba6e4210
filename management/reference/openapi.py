"""The OpenAPI document of the management API, from the routes' table: nothing in it is written twice.

`docs/openapi.json` is its canonical rendering, and `./sluice openapi --check` tells whether that is current.
"""

import json
import typing
from collections.abc import Iterable
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec

from management.errors import COMMON, AuditError, ErrorBody, ManagementCode, RequestError
from management.handler.inputs import NO_NUL
from management.handler.operation import JSON, YAML, Operation
from management.handler.permit import Permit
from management.reference.field_notes import field_notes, structs_of
from management.reference.naming import Named, names
from management.routes import ROUTES, Route

Json = dict[str, Any]
"""An object of the document, whose forms are the standard's (https://spec.openapis.org/oas/v3.1.0)."""

_REFERENCE = "#/components/schemas/"
_DESCRIPTION = """\
Everything that a person or a script does to a running Sluice. `docs/management.md` introduces it, `docs/access.md` has the \
roles and all codes of errors.

- Every operation says who may call it (`x-permit`), what it is called in the audit (`x-audit`), and which codes its errors \
have (`x-codes`).
- A path that takes `GET` takes `HEAD`.
- What lives in the configuration is changed with `If-Match`: send the `ETag` that you have read.\
"""
_HEADERS: Json = {
    "RequestId": {
        "description": "Under which the gateway's log has more.",
        "required": True,
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "Of what is shown; sent back as `If-Match` it says what a change was made for.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The path of what was made.",
        "required": True,
        "schema": {"type": "string"},
    },
    "RetryAfter": {"description": "In how many seconds to try again.", "schema": {"type": "integer"}},
    "WwwAuthenticate": {
        "description": "`Bearer` (RFC 9110 section 11.6.1).",
        "required": True,
        "schema": {"type": "string"},
    },
}
_TEXT: Json = {"pattern": NO_NUL}
"""Of segments of the path and of parameters."""
_TRANSPORT = {
    HTTPStatus.REQUEST_TIMEOUT: "request_timeout",
    HTTPStatus.REQUEST_URI_TOO_LONG: "url_too_long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "headers_too_large",
}
"""What the transport refuses before any handler sees it (docs/transport.md)."""


@cache
def openapi() -> Json:
    """The document. Not to be changed by callers."""
    named = names(ROUTES)
    types = _types(route.operation for route in ROUTES)
    types += [struct for struct in structs_of(types) if struct not in types]
    own: Json = {}
    schemas, components = msgspec.json.schema_components(
        types, schema_hook=lambda kind: _schema_of_its_own(kind, own), ref_template=_REFERENCE + "{name}"
    )
    components |= own
    schema_of = _SchemaOf(types, schemas, components)
    _finish(schema_of)
    paths: Json = {}
    refusals: Json = {}
    for route in ROUTES:
        path = paths.setdefault(route.path, _path_item(route))
        path[route.method.lower()] = _operation(route, named[route], schema_of, refusals)
    for query in {route.operation.query for route in ROUTES} - {None}:
        # Its fields stand in the operations.
        components.pop(schema_of.name(query))
    resources = dict.fromkeys(_tag(name) for name in named.values())
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluice management API", "version": "1", "description": _DESCRIPTION},
        # From the document's own address: a prefix that a proxy puts before it stays.
        "servers": [{"url": "../.."}],
        "tags": [{"name": resource} for resource in resources],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "The admin key, or an API token."}
            },
            "headers": _HEADERS,
            "responses": dict(sorted(refusals.items())),
            "schemas": dict(sorted(components.items())),
        },
    }


def render_openapi() -> str:
    """Its canonical text."""
    return json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"


def resolved(schema: Json) -> Json:
    """``schema`` of the document without a reference at its top; what stands beside the reference counts."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    return {**openapi()["components"]["schemas"][reference.removeprefix(_REFERENCE)], **schema}


class _SchemaOf:
    """Gives the schema of a type."""

    def __init__(self, types: list[Any], schemas: Iterable[Json], components: Json) -> None:
        self._known = list(zip(types, schemas, strict=True))
        self.components = components

    def __call__(self, kind: Any) -> Json:
        return next(schema for known, schema in self._known if known == kind)

    def name(self, struct: Any) -> str:
        """That of its component."""
        reference: str = self(struct)["$ref"]
        return reference.removeprefix(_REFERENCE)


def _types(operations: Iterable[Operation]) -> list[Any]:
    """All that have a schema, each once."""
    seen: list[Any] = [ErrorBody]
    for described in operations:
        seen += [described.body, described.query, *described.answers.values()]
    unique: list[Any] = []
    # By equality: not every type can be hashed.
    for kind in _present(seen):
        if kind not in unique:
            unique.append(kind)
    return unique


def _schema_of_its_own(kind: Any, own: Json) -> Json:
    """Of a type that msgspec does not know: it brings `json_schema()`, which is put into ``own``."""
    made = getattr(kind, "json_schema", None)
    if made is None:
        raise NotImplementedError(f"{kind} has no schema: give it a class method `json_schema`")
    own[kind.__name__] = {key: value for key, value in made().items() if key != "title"}
    return {"$ref": _REFERENCE + kind.__name__}


def _finish(schema_of: _SchemaOf) -> None:
    """What the sources say of fields, where their types say nothing of themselves; and which of an answer are always there."""
    operations = [route.operation for route in ROUTES]
    asked = structs_of(_present(kind for each in operations for kind in (each.body, each.query)))
    told = structs_of(_present([ErrorBody, *(kind for each in operations for kind in each.answers.values())]))
    for struct in dict.fromkeys([*asked, *told]):
        component = schema_of.components[schema_of.name(struct)]
        component.pop("title", None)
        properties = component["properties"]
        for name, note in field_notes(struct).items():
            properties[name].setdefault("description", note)
        for field in msgspec.structs.fields(struct):
            if datetime in (field.type, *typing.get_args(field.type)):
                # msgspec says so of times that must have a zone, as ours have all.
                _add_format(properties[field.encode_name])
        if struct not in asked and not struct.__struct_config__.omit_defaults:
            # What may be left out of a request stands in every answer, unless it is not set.
            always = [field for field in msgspec.structs.fields(struct) if field.default is not msgspec.UNSET]
            component["required"] = [field.encode_name for field in always]
            for field in always:
                properties[field.encode_name].pop("default", None)


def _add_format(schema: Json) -> None:
    for branch in schema.get("anyOf", [schema]):
        if branch.get("type") == "string":
            branch["format"] = "date-time"


def _present(types: Iterable[Any]) -> list[Any]:
    return [kind for kind in types if kind is not None and not isinstance(kind, str | tuple)]


def _path_item(route: Route) -> Json:
    if not route.parameters:
        return {}
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1} | _TEXT}
            for name in route.parameters
        ]
    }


def _operation(route: Route, named: Named, schema_of: _SchemaOf, refusals: Json) -> Json:
    described = route.operation
    made: Json = {"operationId": named.operation_id, "tags": [_tag(named)], "summary": described.summary}
    parameters = [*_query_parameters(described, schema_of), *_if_match(described)]
    if parameters:
        made["parameters"] = parameters
    if described.body is not None:
        made["requestBody"] = {
            "required": described.body_required,
            "content": _content(described.body, schema_of)
            # As a text: of a type that may be anything the other would be anything too.
            | ({YAML: {"schema": {"type": "string"}}} if described.or_yaml else {}),
        }
    made["responses"] = _responses(route, schema_of, refusals)
    if described.permit.open_because is not None:
        made["security"] = []
    made["x-permit"] = permit_value(described.permit)
    if described.action is not None:
        made["x-audit"] = described.action
    return made


def permit_value(permit: Permit) -> Json:
    """Who may call, for programs; `text` is for people."""
    if permit.open_because is not None:
        return {"text": "open", "because": permit.open_because}
    value: Json = {"text": str(permit).replace("`", "")}
    if permit.role is not None:
        value |= {"role": permit.role.name.lower(), "tokens": permit.tokens}
    if permit.scope is not None:
        value["scope"] = permit.scope.value
    return value


def _query_parameters(described: Operation, schema_of: _SchemaOf) -> list[Json]:
    if described.query is None:
        return []
    component = schema_of.components[schema_of.name(described.query)]
    parameters = []
    for name, schema in component["properties"].items():
        written = _without_null(schema)
        parameter: Json = {"name": name, "in": "query", "required": name in component.get("required", ())}
        if "description" in written:
            parameter["description"] = written.pop("description")
        if written.get("type") == "string" and not {"enum", "format", "pattern"} & written.keys():
            written |= _TEXT
        parameters.append(parameter | {"schema": written})
    return parameters


def _without_null(schema: Json) -> Json:
    """Of a parameter: left out is null."""
    written = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    if "anyOf" not in written:
        return written
    others = [each for each in written.pop("anyOf") if each != {"type": "null"}]
    return written | (others[0] if len(others) == 1 else {"anyOf": others})


def _if_match(described: Operation) -> list[Json]:
    if described.if_match is None:
        return []
    return [
        {
            "name": "If-Match",
            "in": "header",
            "required": described.if_match,
            "description": "The `ETag` of what was read; where it is another by now, the answer is 412.",
            "schema": {"type": "string"},
        }
    ]


def _content(kind: Any, schema_of: _SchemaOf) -> Json:
    if isinstance(kind, tuple):
        return {media_type: content for each in kind for media_type, content in _content(each, schema_of).items()}
    if not isinstance(kind, str):
        return {JSON: {"schema": schema_of(kind)}}
    media_type = kind.partition(";")[0]
    if media_type == JSON:
        return {media_type: {"schema": {}}}
    if media_type == YAML:
        # By OpenAPI a schema here is that of the parsed document, which has its own (config/schema.json).
        return {media_type: {"schema": {}}}
    if media_type.startswith("text/"):
        return {media_type: {"schema": {"type": "string"}}}
    return {media_type: {}}


def _responses(route: Route, schema_of: _SchemaOf, refusals: Json) -> Json:
    described = route.operation
    responses: Json = {}
    for status, kind in described.answers.items():
        headers = {"X-Request-Id": _header("RequestId")}
        if described.etag and status < 300:
            headers["ETag"] = _header("ETag")
        if status == HTTPStatus.CREATED:
            headers["Location"] = _header("Location")
        answer: Json = {"description": _phrase(status), "headers": headers}
        if kind is not None:
            answer["content"] = _content(kind, schema_of)
        responses[str(status)] = answer
    for status, codes in _by_status(errors_of(route)).items():
        if str(status) in responses:
            # An answer of the operation's own with that status: it takes either form.
            content = responses[str(status)]["content"]
            own, error = content.get(JSON), schema_of(ErrorBody)
            content[JSON] = {"schema": error if own is None else {"anyOf": [own["schema"], error]}}
            responses[str(status)]["x-codes"] = codes
            continue
        # Many operations are refused for the same reasons.
        name = "-".join([str(status), *(code.replace("_error-", "_") for code in codes)])
        refusals.setdefault(name, _refusal(status, codes, schema_of))
        responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
    for status, code in _TRANSPORT.items():
        refusals.setdefault(
            code, {key: value for key, value in _refusal(status, [code], schema_of).items() if key != "headers"}
        )
        responses[str(status.value)] = {"$ref": f"#/components/responses/{code}"}
    return dict(sorted(responses.items()))


def _refusal(status: int, codes: list[str], schema_of: _SchemaOf) -> Json:
    headers = {"X-Request-Id": _header("RequestId")}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = _header("WwwAuthenticate")
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["Retry-After"] = _header("RetryAfter")
    return {
        "description": f"{_phrase(status)}: " + ", ".join(f"`{code}`" for code in codes),
        "headers": headers,
        "content": {JSON: {"schema": schema_of(ErrorBody)}},
        "x-codes": codes,
    }


def errors_of(route: Route) -> tuple[ManagementCode, ...]:
    """All codes that ``route`` may answer."""
    described = route.operation
    codes = [*COMMON, *described.errors]
    if described.permit.open_because is not None:
        # Nobody is asked who they are.
        codes = [code for code in codes if not code.startswith("access_error-")]
    if described.query is not None or route.method != "GET":
        codes.append(RequestError.INVALID_QUERY)
    if described.body is None:
        codes.remove(RequestError.UNSUPPORTED_MEDIA_TYPE)
    elif not isinstance(described.body, str):
        codes.append(RequestError.INVALID_BODY)
    if route.method == "GET":
        codes.remove(RequestError.FOREIGN_ORIGIN)
    if route.handler.any_host:
        codes.remove(RequestError.UNKNOWN_HOST)
    if described.if_match is not None:
        codes.append(RequestError.INVALID_IF_MATCH)
    if described.if_match:
        codes.append(RequestError.IF_MATCH_REQUIRED)
    if described.action is not None:
        codes.append(AuditError.FULL)
    return tuple(dict.fromkeys(codes))


def _by_status(codes: Iterable[ManagementCode]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for code in codes:
        found.setdefault(code.status, []).append(code.value)
    return found


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase


def _header(name: str) -> Json:
    return {"$ref": f"#/components/headers/{name}"}


def _tag(named: Named) -> str:
    return named.resource
