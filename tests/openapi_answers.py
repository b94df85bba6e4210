"""Holds the answers of the management API against its OpenAPI document: what that does not tell fails a test."""

import json
import re
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from jsonschema import Draft202012Validator

from management.reference.openapi import openapi

Json = dict[str, Any]

_METHODS = {"GET": "get", "HEAD": "get", "POST": "post", "PUT": "put", "PATCH": "patch", "DELETE": "delete"}


def check_answer(method: str, target: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """``headers`` by names in small letters. Answers of paths and methods that the document does not have are refusals.

    Raises:
        AssertionError: the answer is not documented.
    """
    path = target.partition("?")[0]
    template = next((each for each in openapi()["paths"] if _pattern(each).fullmatch(path)), None)
    operation = (
        None if template is None or method not in _METHODS else openapi()["paths"][template].get(_METHODS[method])
    )
    if operation is None:
        return
    where = f"{status} of {method} {template}"
    assert str(status) in operation["responses"], f"{where} is not in the document: {body[:300]!r}"
    documented = _referred(operation["responses"][str(status)])
    for name, header in documented.get("headers", {}).items():
        required = _referred(header).get("required", False)
        assert not required or name.lower() in headers, f"{where} has no `{name}`"
    if method == "HEAD":
        return
    content = documented.get("content")
    if content is None:
        assert b"" == body, f"{where} has a body"
        return
    media_type = headers.get("content-type", "").partition(";")[0]
    assert media_type in content, f"{where} is `{media_type}`, not {' or '.join(content)}"
    if media_type != "application/json":
        return
    value = json.loads(body)
    faults = [
        f"{fault.json_path}: {fault.message}"
        for fault in _validator(str(template), _METHODS[method], status).iter_errors(value)
    ]
    assert not faults, f"{where} is not as the document has it: {faults}"
    if status >= HTTPStatus.BAD_REQUEST and "error" in value:
        code = value["error"]["code"]
        assert code in documented["x-codes"], f"{where} has the code `{code}`, which the operation does not name"


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(template)))


@cache
def _validator(template: str, method: str, status: int) -> Draft202012Validator:
    documented = _referred(openapi()["paths"][template][method]["responses"][str(status)])
    schema = documented["content"]["application/json"]["schema"]
    # References begin at the root of the document.
    return Draft202012Validator({"components": openapi()["components"], **schema})


def _referred(value: Json) -> Json:
    if "$ref" not in value:
        return value
    _, _, kind, name = value["$ref"].split("/")
    found: Json = openapi()["components"][kind][name]
    return found
