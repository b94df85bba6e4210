"""Loading ends in a Config or in faults with places, whatever the files hold."""

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.document import parse
from config.environment import parse_env_file
from config.faults import Fault
from config.json_schema import ANYTHING, Shape, shape
from config.load import RejectedConfig, load
from config.references import ReferenceFault, parse_template

TEXTS = st.sampled_from(
    ["", "a", "gpt-*", "${env:SET}", "${env:UNSET}", "${env:UNSET:-}", "${file:absent:-x}", "$${x}", "info", "first"]
)
WRONG: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-2, 99999) | st.floats() | TEXTS | st.just([]) | st.just({})
)


def documents(inner: Shape) -> st.SearchStrategy[Any]:
    """Values that nearly fit ``inner``: each place mostly of a type that may stand there."""
    fitting: list[st.SearchStrategy[Any]] = []
    if "string" in inner.types or not inner.types:
        fitting.append(TEXTS)
    if {"integer", "number"} & inner.types:
        fitting.append(st.integers(0, 2000) | st.sampled_from([0.5, 1e9]))
    if "boolean" in inner.types:
        fitting.append(st.booleans())
    if "array" in inner.types:
        fitting.append(st.lists(_later(inner.items or ANYTHING), max_size=2))
    if inner.properties:
        keys = {key: _later(below) for key, below in inner.properties.items()}
        fitting.append(st.fixed_dictionaries({}, optional=keys))
    elif "object" in inner.types:
        fitting.append(st.dictionaries(TEXTS, TEXTS, max_size=2))
    return st.one_of(*fitting, *fitting, *fitting, WRONG)


def _later(inner: Shape) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: documents(inner))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({}, optional={key: documents(below) for key, below in shape().properties.items()}))
def test_what_the_schema_lets_pass_is_a_config(tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(yaml.safe_dump(value), encoding="utf-8")
    try:
        faults: tuple[Fault, ...] = ()
        load(path, {"SET": "5"})
    except RejectedConfig as refused:  # any other exception fails the test
        faults = refused.faults
    for fault in faults:
        assert str(path) == fault.file
        assert fault.line > 0
        assert fault.column > 0
        assert "\n" not in str(fault)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_read_or_told_with_a_place_in_them(data: bytes) -> None:
    document = parse(data, "f.yaml")
    lines = data.decode("latin-1").replace("\r", "\n").count("\n") + 1
    for fault in document.faults:
        assert 1 <= fault.line <= lines
        assert fault.column >= 1


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=60))
def test_an_escaped_text_has_no_references(text: str) -> None:
    escaped = text.replace("${", "$${")
    try:
        pieces = parse_template(escaped)
    except ReferenceFault:
        raise AssertionError(escaped) from None
    assert text == "".join(map(str, pieces))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), st.text("ab \"'\\#$=\t", max_size=12)))
def test_quoted_values_of_an_env_file_are_read_as_written(values: dict[str, str]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'

    text = "\n".join(f"{name}={quote(value)}" for name, value in values.items())
    assert values == parse_env_file(text.encode(), ".env")
